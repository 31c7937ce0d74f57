"""SKEL parameters of the mirrored body, for the mirrored image.

The reflection x -> -x of model and camera frame swaps left and right. In the frames of the bones (x forward, y up, z to
the right) it is z -> -z, and an axis of rotation, being an axial vector, becomes (-x, -y, z). The sign with which a
coordinate goes over to its counterpart follows from the two axes; no table is copied.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fitting.anatomy import COORDINATE_NAMES, COORDINATES
from fitting.body.kinematics import AXIS_OF_SLOT, JOINT_OF_COORDINATE, SLOT_OF_COORDINATE


def _counterpart(name: str) -> str:
    """shoulder_r_x <-> shoulder_l_x, knee_angle_r <-> knee_angle_l; others are their own."""
    swap = {"r": "l", "l": "r"}
    return "_".join(swap.get(part, part) for part in name.split("_"))


COUNTERPART = np.array([COORDINATE_NAMES.index(_counterpart(name)) for name in COORDINATE_NAMES])
"""(46,) the coordinate of the other side."""


def _signs() -> np.ndarray:
    axes = AXIS_OF_SLOT[JOINT_OF_COORDINATE, SLOT_OF_COORDINATE]
    return np.sign((axes * [-1, -1, 1] * axes[COUNTERPART]).sum(1)).astype(int)


MIRROR_SIGN = _signs()
"""(46,) sign with which a coordinate is taken over from its counterpart."""

assert np.abs(MIRROR_SIGN).sum() == COORDINATES


def mirror_poses(poses: Tensor) -> Tensor:
    """(..., 46) coordinates of the mirrored body, rad. Its own inverse."""
    sign = torch.as_tensor(MIRROR_SIGN, dtype=poses.dtype, device=poses.device)
    return poses[..., COUNTERPART] * sign


def mirror_trans(trans: Tensor) -> Tensor:
    """(..., 3) translation of the mirrored body, m. Betas stay: the shape space is symmetric."""
    return trans * torch.tensor([-1.0, 1.0, 1.0], dtype=trans.dtype, device=trans.device)
