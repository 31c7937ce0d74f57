"""The frozen root: SKEL's pelvis turned and placed exactly as SMPL's.

The two models turn the trunk about different points, so equal pose of the trunk needs another translation.
`fitting/README.md` has the equations.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GIMBAL_LOCK = 1e-9
"""Below this cosine of the list angle, tilt and rotation turn about one axis; all of it is then given to rotation."""


def root_angles(global_orient: Tensor, basis: Tensor) -> Tensor:
    """(B, 3) pelvis tilt, list and rotation that turn SKEL's pelvis by `global_orient` (B, 3, 3).

    `basis` (3, 3) is A_0 Ra_0^T, the frame in which the pelvis angles turn. Angles are z, x, y Euler angles, in (-pi,
    pi]. Works in float64 inside, so that orientations near the singularity keep float32's accuracy.
    """
    basis = basis.double()
    turned = basis.T @ global_orient.double() @ basis
    cosine = torch.hypot(turned[:, 1, 0], turned[:, 1, 1])
    angle_list = torch.atan2(-turned[:, 1, 2], cosine)
    tilt = torch.atan2(turned[:, 1, 0], turned[:, 1, 1])
    rotation = torch.atan2(turned[:, 0, 2], turned[:, 2, 2])
    locked = cosine < _GIMBAL_LOCK
    tilt = torch.where(locked, torch.zeros_like(tilt), tilt)
    rotation = torch.where(locked, torch.atan2(-turned[:, 2, 0], turned[:, 0, 0]), rotation)
    return torch.stack([tilt, angle_list, rotation], 1).to(global_orient.dtype)


def root_translation(
    global_orient: Tensor, smpl_root: Tensor, skel_root: Tensor, offset: Tensor, smpl_trans: Tensor
) -> Tensor:
    """(B, 3) SKEL translation with which both trunks coincide.

    `global_orient` (B, 3, 3); rest positions of both root joints (B, 3); `offset` (B, 3) from SKEL's rest shape to
    SMPL's, see `fitting.fit.transfer`; `smpl_trans` (B, 3). Metres.
    """
    apart = smpl_root - skel_root
    return smpl_trans + apart - (global_orient @ (apart - offset)[..., None]).squeeze(-1)
