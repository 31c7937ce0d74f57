"""Where the fit starts: SMPL's joint rotations, decomposed onto SKEL's axes and moved inside the joint limits.

Joints are handled from the root outwards; each takes as much as it can of the difference between the global rotation
of its SMPL counterpart and what its ancestors have already turned. What a hinge cannot take is left to the joints
after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting import kinematics as k
from fitting.kinematics import COORDINATE_OF_SLOT, COORDINATES, RestFrames, rotation_about

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

_CHAINS = (
    # SKEL joints that turn together to reach the global rotation of a SMPL joint, innermost last
    ((k.FEMUR_R,), 2),
    ((k.TIBIA_R,), 5),
    ((k.TALUS_R, k.CALCN_R), 8),
    ((k.TOES_R,), 11),
    ((k.FEMUR_L,), 1),
    ((k.TIBIA_L,), 4),
    ((k.TALUS_L, k.CALCN_L), 7),
    ((k.TOES_L,), 10),
    ((k.LUMBAR,), 6),
    ((k.THORAX,), 9),
    ((k.HEAD,), 15),
    ((k.SCAPULA_R,), 14),
    ((k.HUMERUS_R,), 17),
    ((k.ULNA_R,), 19),
    ((k.RADIUS_R, k.HAND_R), 21),
    ((k.SCAPULA_L,), 13),
    ((k.HUMERUS_L,), 16),
    ((k.ULNA_L,), 18),
    ((k.RADIUS_L, k.HAND_L), 20),
)

_SWEEPS = 4
"""Passes of coordinate ascent over a chain; it only starts the fit, so they need not converge."""


def smpl_global_rotations(rotations: Tensor) -> Tensor:
    """(B, 24, 3, 3) global joint rotations from SMPL's local ones."""
    chain = [rotations[:, 0]]
    for joint in range(1, 24):
        chain.append(chain[SMPL_PARENTS[joint]] @ rotations[:, joint])
    return torch.stack(chain, 1)


def start_poses(rest: RestFrames, parents: list[int], smpl_rotations: Tensor, root: Tensor, limits: Tensor) -> Tensor:
    """(B, 46) SKEL poses near SMPL's local joint rotations (B, 24, 3, 3), inside the limits (46, 2).

    `root` (B, 3) are the pelvis angles, which are kept.
    """
    target = smpl_global_rotations(smpl_rotations)
    poses = smpl_rotations.new_zeros(len(smpl_rotations), COORDINATES)
    poses[:, k.ROOT_COORDINATES] = root
    turned: dict[int, Tensor] = {k.PELVIS: target[:, 0]}
    for joints, smpl_joint in _CHAINS:
        before = turned[parents[joints[0]]]
        slots = [(j, s) for j in joints for s in reversed(range(3)) if COORDINATE_OF_SLOT[j, s] < COORDINATES]
        axes = torch.stack([rest.axes[:, j, s] for j, s in slots], 1)
        coordinates = [int(COORDINATE_OF_SLOT[j, s]) for j, s in slots]
        difference = before.transpose(1, 2) @ target[:, smpl_joint]
        if len(slots) == 3 and len(joints) == 1:
            angles = _euler_angles(axes, difference).clamp(*limits[coordinates].T)
        else:
            angles = _align(axes, difference, limits[coordinates])
        poses[:, coordinates] = angles
        for joint in joints:
            for n, (owner, _) in enumerate(slots):
                if owner == joint:
                    before = before @ rotation_about(axes[:, n], angles[:, n])
            turned[joint] = before
    return poses


def _euler_angles(axes: Tensor, rotation: Tensor) -> Tensor:
    """(B, 3) angles about orthonormal axes (B, 3, 3), outermost first, whose product is a rotation (B, 3, 3)."""
    basis = axes.flip(1).transpose(1, 2)
    hand = torch.linalg.det(basis)
    r = basis.transpose(1, 2) @ rotation @ basis
    inner = torch.atan2(r[:, 2, 1], r[:, 2, 2])
    middle = torch.asin((-r[:, 2, 0]).clamp(-1, 1))
    outer = torch.atan2(r[:, 1, 0], r[:, 0, 0])
    return torch.stack([outer, middle, inner], 1) * hand[:, None]


def _align(axes: Tensor, rotation: Tensor, limits: Tensor) -> Tensor:
    """(B, n) angles inside limits (n, 2) that bring the product of rotations about axes (B, n, 3) near a rotation.

    Coordinate ascent on the trace of the relative rotation; each angle has a closed form with the others fixed. The
    trace as a function of one angle is a cosine, so its best value within limits is the clamped one.
    """
    count = axes.shape[1]
    angles = axes.new_zeros(len(axes), count).clamp(*limits.T)
    for _ in range(_SWEEPS if count > 1 else 1):
        for n in range(count):
            left, right = _product(axes, angles, range(n)), _product(axes, angles, range(n + 1, count))
            x = left.transpose(1, 2) @ rotation @ right.transpose(1, 2)
            vee = torch.stack([x[:, 2, 1] - x[:, 1, 2], x[:, 0, 2] - x[:, 2, 0], x[:, 1, 0] - x[:, 0, 1]], 1)
            axis = axes[:, n]
            along = (axis[:, None] @ x @ axis[..., None]).flatten()
            best = torch.atan2((axis * vee).sum(1), x.diagonal(dim1=1, dim2=2).sum(1) - along)
            angles = torch.cat([angles[:, :n], best.clamp(*limits[n])[:, None], angles[:, n + 1 :]], 1)
    return angles


def _product(axes: Tensor, angles: Tensor, which: range) -> Tensor:
    product = torch.eye(3, dtype=axes.dtype, device=axes.device).expand(len(axes), 3, 3)
    for n in which:
        product = product @ rotation_about(axes[:, n], angles[:, n])
    return product
