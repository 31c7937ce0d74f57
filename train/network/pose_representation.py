"""SKEL's 46 angles as 24 x 6 numbers that a network can regress, and as rotation matrices.

A joint with three coordinates is written as the first two rows of its rotation matrix, a joint with one as
(cos q, -sin q, 0, 0, 0, 0), a hand as its two angles in radians and four zeros. "Rotation" always means the
product of a joint's coordinates in the joint's own frame (Rp in fitting/README.md). Source: SKEL-CF's released code,
agreed with by tests/reference/golden_pose_rep.npz.

Everything is elementwise arithmetic, which neither autocast nor TF32 lowers in precision.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fitting.anatomy import JOINTS
from fitting.body.constants import constant
from fitting.body.kinematics import (
    AXIS_OF_SLOT,
    COORDINATE_OF_SLOT,
    DOF_SLOTS,
    JOINT_AXES,
    JOINT_OF_COORDINATE,
    SLOT_OF_COORDINATE,
)
from fitting.body.rotations import rotation_about

WIDTH = 6
"""Numbers per joint."""

BALLS = [j for j in range(JOINTS) if len(JOINT_AXES[j]) == 3]
HINGES = [j for j in range(JOINTS) if len(JOINT_AXES[j]) == 1]
HANDS = [j for j in range(JOINTS) if len(JOINT_AXES[j]) == 2]

_DEGENERATE = 1e-12
"""Squared length below which a pair (sine, cosine) has no direction; its angle is then zero, with zero gradient."""


def poses_to_representation(poses: Tensor) -> Tensor:
    """(..., 24, 6) representation of poses (..., 46), rad."""
    slots = slot_angles(poses)
    rows = rotations_of_slots(slots)[..., :2, :].flatten(-2)
    first, second = slots[..., 0], slots[..., 1]
    zeros = torch.zeros_like(slots[..., :1]).expand(*slots.shape[:-1], WIDTH - 2)
    hinge = torch.cat([torch.stack([first.cos(), -first.sin()], -1), zeros], -1)
    hand = torch.cat([torch.stack([first, second], -1), zeros], -1)
    is_ball, is_hinge = (constant(which, poses.device, torch.bool) for which in (_IS_BALL, _IS_HINGE))
    return torch.where(is_ball, rows, torch.where(is_hinge, hinge, hand))


def representation_to_poses(representation: Tensor) -> Tensor:
    """(..., 46) poses, rad, of any numbers (..., 24, 6): rows are made orthonormal, directions normalised.

    The middle angle of a ball joint lies within +-pi/2, the others and those of hinges within +-pi.
    """
    first, second = representation[..., 0], representation[..., 1]
    device = representation.device
    hinge = _angle(-second, first)
    balls = rotations_to_angles(orthonormal_rows(representation[..., constant(BALLS, device), :]))
    slots = torch.stack([hinge, torch.zeros_like(hinge), torch.zeros_like(hinge)], -1)
    hands = torch.stack([first, second, torch.zeros_like(first)], -1)
    parts = [balls, slots[..., constant(HINGES, device), :], hands[..., constant(HANDS, device), :]]
    return torch.cat(parts, -2).flatten(-2)[..., constant(_PART_OF_COORDINATE, device)]


def representation_to_rotations(representation: Tensor) -> Tensor:
    """(..., 24, 3, 3) rotations of any numbers (..., 24, 6), without the way over angles and its singularities."""
    representation = representation.to(torch.promote_types(representation.dtype, torch.float32))
    balls, hinges, hands = (constant(joints, representation.device) for joints in (BALLS, HINGES, HANDS))
    x, y = representation[..., :2][..., hinges, :].unbind(-1)
    valid = x * x + y * y > _DEGENERATE
    x, y = torch.where(valid, x, torch.ones_like(x)), torch.where(valid, y, torch.zeros_like(y))
    length = (x * x + y * y).sqrt()
    axes = constant(_AXES, representation.device, representation.dtype)
    angles, (inner, outer, _) = representation[..., hands, :2], axes[hands].unbind(1)
    parts = (
        orthonormal_rows(representation[..., balls, :]),
        _rotation(axes[hinges, 0], x / length, -y / length),
        _product(rotation_about(outer, angles[..., 1]), rotation_about(inner, angles[..., 0])),
    )
    return torch.cat(parts, -3)[..., constant(_PART_OF_JOINT, representation.device), :, :]


def poses_to_rotations(poses: Tensor) -> Tensor:
    """(..., 24, 3, 3) rotations of poses (..., 46)."""
    return rotations_of_slots(slot_angles(poses))


def slot_angles(poses: Tensor) -> Tensor:
    """(..., 24, 3) angle of each coordinate of each joint; zero where a joint has fewer than three."""
    padded = torch.cat([poses, torch.zeros_like(poses[..., :1])], -1)
    return padded[..., constant(COORDINATE_OF_SLOT.tolist(), poses.device)]


def rotations_of_slots(slots: Tensor) -> Tensor:
    """(..., 24, 3, 3) rotations of the angles (..., 24, 3), the first applied first."""
    turns = rotation_about(constant(_AXES, slots.device, slots.dtype), slots)
    return _product(turns[..., 2, :, :], _product(turns[..., 1, :, :], turns[..., 0, :, :]))


def orthonormal_rows(six: Tensor) -> Tensor:
    """(..., 3, 3) rotation whose first two rows are made from six numbers by Gram-Schmidt."""
    first = functional.normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


def rotations_to_angles(balls: Tensor) -> Tensor:
    """(..., 10, 3) angles of the ball joints, in the order in which they are applied, from rotations (..., 10, 3, 3).

    With R = E3 E2 E1 about signed unit axes a1, a2, a3 and s = a3 . (a2 x a1): a3' R a1 = s sin q2,
    (a3' R a3, a3' R a2) = cos q2 (cos q1, -s sin q1), (a1' R a1, a2' R a1) = cos q2 (cos q3, -s sin q3).
    """
    entry = constant(_EULER_ENTRIES, balls.device)
    sign, handed = (constant(values, balls.device, balls.dtype) for values in (_EULER_SIGNS, _HANDEDNESS))
    flat = balls.flatten(-2)
    r31, r32, r33, r21, r11 = (flat.gather(-1, entry.expand(*flat.shape[:-1], 5)) * sign).unbind(-1)
    cosine = (r32 * r32 + r33 * r33).clamp_min(_DEGENERATE).sqrt()
    return torch.stack([_angle(-handed * r32, r33), torch.atan2(handed * r31, cosine), _angle(-handed * r21, r11)], -1)


def _angle(sine: Tensor, cosine: Tensor) -> Tensor:
    valid = sine * sine + cosine * cosine > _DEGENERATE
    return torch.atan2(
        torch.where(valid, sine, torch.zeros_like(sine)), torch.where(valid, cosine, torch.ones_like(cosine))
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def _rotation(axis: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(..., 3, 3) rotation about unit axes (..., 3) by angles of given cosine and sine (...)."""
    outer = axis[..., :, None] * axis[..., None, :]
    x, y, z = axis.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return cosine[..., None, None] * (eye - outer) + sine[..., None, None] * cross + outer


_PART_OF_JOINT = np.argsort(BALLS + HINGES + HANDS).tolist()
"""Place of each joint when ball joints, hinges and hands are listed one after another."""


_PART_OF_COORDINATE = (np.asarray(_PART_OF_JOINT)[JOINT_OF_COORDINATE] * DOF_SLOTS + SLOT_OF_COORDINATE).tolist()
"""Place of each coordinate among the angles of those parts."""

_AXES = AXIS_OF_SLOT.tolist()
_IS_BALL, _IS_HINGE = ([[len(axes) == count] for axes in JOINT_AXES] for count in (3, 1))


def _euler_table() -> tuple[list[list[int]], list[list[float]], list[float]]:
    """For each ball joint: flat indices (10, 5) and signs (10, 5) of r31 r32 r33 r21 r11, and s (10,)."""
    pairs = ((2, 0), (2, 1), (2, 2), (1, 0), (0, 0))
    entries, signs, handed = [], [], []
    for joint in BALLS:
        axes = AXIS_OF_SLOT[joint]
        index, sign = np.abs(axes).argmax(1), axes.sum(1)
        entries.append([int(index[r] * 3 + index[c]) for r, c in pairs])
        signs.append([float(sign[r] * sign[c]) for r, c in pairs])
        handed.append(float(axes[2] @ np.cross(axes[1], axes[0])))
    return entries, signs, handed


_EULER_ENTRIES, _EULER_SIGNS, _HANDEDNESS = _euler_table()
