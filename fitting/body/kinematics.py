"""SKEL's kinematic tree: axes of its 46 coordinates, frames of its bones, and the chain from angles to joint positions.

Source: SKEL 1.1.1 (Keller et al., SIGGRAPH Asia 2023) as written out in `fitting/README.md`, steps 1-5. Every
coordinate turns one joint about an axis that is fixed in that joint's frame; where the published table has a flip, the
axis carries the sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitting.anatomy import (
    COORDINATES,
    HAND_L,
    HAND_R,
    HEAD,
    JOINTS,
    LUMBAR,
    PELVIS,
    RADIUS_L,
    RADIUS_R,
    SCAPULA_L,
    SCAPULA_R,
    THORAX,
    TOES_L,
    TOES_R,
    ULNA_L,
    ULNA_R,
)
from fitting.body.constants import constant

ROOT_COORDINATES = slice(0, 3)
LOWER_BODY_COORDINATES = slice(3, 17)
UPPER_BODY_COORDINATES = slice(17, 46)

FIXED_FRAME_JOINTS = (PELVIS, TOES_R, TOES_L, HEAD, HAND_R, HAND_L)
"""Joints whose frame does not turn with the shape (step 2)."""

FOREARMS = ((ULNA_R, RADIUS_R), (ULNA_L, RADIUS_L))
"""The ulna's frame and length follow the whole forearm, not the short way to the radius (steps 2 and 7)."""

SMPL_JOINT_OF = (0, 2, 5, 8, 8, 11, 1, 4, 7, 7, 10, 3, 6, 15, 14, 17, 19, 0, 21, 13, 16, 18, 0, 20)
"""SMPL joint whose pose correctives a SKEL joint drives; where two name the same one, the later drives it (step 5)."""


def _euler_xyz(a: float, b: float, c: float) -> np.ndarray:
    """Rx(a) Ry(b) Rz(c), (3, 3)."""
    (sa, sb, sc), (ca, cb, cc) = np.sin([a, b, c]), np.cos([a, b, c])
    rx = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    ry = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    rz = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return rx @ ry @ rz


_X, _Y, _Z = np.eye(3)
_TALUS = _euler_xyz(0.175895, -0.105208, 0.0186622) @ _Z
_CALCN_R = _euler_xyz(-1.76818999, 0.906223, 1.8196) @ _Z
_CALCN_L = _euler_xyz(1.768189999, -0.906223, 1.8196) @ _Z
_TOES_R = _euler_xyz(-3.141589999, 0.619901, 0.0) @ _Z
_TOES_L = _euler_xyz(-3.141589999, -0.619901, 0.0) @ _Z
_ULNA = np.array([0.0494, 0.0366, 0.99810825])
_RADIUS = np.array([-0.01716099, 0.99266564, -0.11966796])

JOINT_AXES: tuple[tuple[np.ndarray, ...], ...] = (
    (_Z, _X, _Y),
    *((_Z, _X, _Y), (-_Z,), (_TALUS,), (_CALCN_R,), (_TOES_R,)),
    *((_Z, -_X, -_Y), (-_Z,), (_TALUS,), (_CALCN_L,), (_TOES_L,)),
    *((_X, _Z, _Y), (_X, _Z, _Y), (_X, _Z, _Y)),
    *((_Y, -_Z, -_X), (_X, _Y, _Z), (_ULNA,), (_RADIUS,), (_X, -_Z)),
    *((_Y, _Z, _X), (_X, _Y, _Z), (_ULNA * [-1, -1, 1],), (_RADIUS * [-1, -1, 1],), (-_X, -_Z)),
)
"""Signed axes of each joint's coordinates in the order in which they are applied."""

DOF_SLOTS = 3
"""A joint has at most this many coordinates; unused slots turn by zero."""


def _slot_table() -> tuple[np.ndarray, np.ndarray]:
    coordinate = np.full((JOINTS, DOF_SLOTS), COORDINATES)
    axes = np.tile(_X, (JOINTS, DOF_SLOTS, 1))
    count = 0
    for joint, joint_axes in enumerate(JOINT_AXES):
        for slot, axis in enumerate(joint_axes):
            coordinate[joint, slot] = count
            axes[joint, slot] = axis / np.linalg.norm(axis)
            count += 1
    return coordinate, axes


COORDINATE_OF_SLOT, AXIS_OF_SLOT = _slot_table()
"""(24, 3) coordinate that turns a slot (46 = none) and (24, 3, 3) its unit axis in the joint's frame."""

JOINT_OF_COORDINATE, SLOT_OF_COORDINATE = (
    np.array(column)
    for column in zip(*(np.argwhere(k == COORDINATE_OF_SLOT)[0] for k in range(COORDINATES)), strict=True)
)
"""(46,) joint and slot of each coordinate."""

_QUARTER = math.pi / 4
"""Elevation of the scapula at rest on the ellipsoid that it slides on (step 4)."""


@dataclass(frozen=True)
class RestFrames:
    """What the shape alone decides about the skeleton (B people, model frame, metres)."""

    joints: Tensor
    """(B, 24, 3) joint positions."""
    offsets: Tensor
    """(B, 24, 3) from parent to joint; the root's own position."""
    bones: Tensor
    """(B, 24, 3, 3) bone frames A_j."""
    axes: Tensor
    """(B, 24, 3, 3) unit axis of each slot, in the model frame."""
    spins: Tensor
    """(B, 24, 3, 9) cross-product matrix of each slot's axis, flat."""
    spins_squared: Tensor
    """(B, 24, 3, 9) its square, flat."""


@dataclass(frozen=True)
class Posed:
    """The skeleton of B people in a pose, before the translation (model frame, metres)."""

    slot_rotations: Tensor
    """(B, 24, 3, 3, 3) rotation of each slot about its axis."""
    local_rotations: Tensor
    """(B, 24, 3, 3) of a joint against its parent."""
    rotations: Tensor
    """(B, 24, 3, 3) of a joint against the rest pose."""
    joints: Tensor
    """(B, 24, 3) joint positions."""


def children_of(parents: list[int]) -> list[int]:
    """(24,) first child of each joint, 0 for leaves (step 2)."""
    children = [0] * len(parents)
    for joint in range(len(parents) - 1, 0, -1):
        children[parents[joint]] = joint
    return children


def levels_of(parents: list[int]) -> list[list[int]]:
    """Joints by their depth in the tree, the root's level left out."""
    depth = [0] * len(parents)
    for joint in range(1, len(parents)):
        depth[joint] = depth[parents[joint]] + 1
    return [[j for j, d in enumerate(depth) if d == level] for level in range(1, max(depth) + 1)]


def rotation_between(origin: Tensor, onto: Tensor) -> Tensor:
    """(..., 3, 3) smallest rotation that takes the direction of one vector (..., 3) to that of another."""
    a = torch.nn.functional.normalize(origin, dim=-1)
    b = torch.nn.functional.normalize(onto, dim=-1)
    cross = skew(torch.linalg.cross(a, b))
    scale = 1 / (1 + (a * b).sum(-1)).clamp_min(1e-12)
    return torch.eye(3, dtype=a.dtype, device=a.device) + cross + cross @ cross * scale[..., None, None]


def skew(v: Tensor) -> Tensor:
    """(..., 3, 3) matrix of the cross product with v (..., 3)."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def rotation_about(axis: Tensor, angle: Tensor) -> Tensor:
    """(..., 3, 3) rotation by an angle (...) about a unit axis (..., 3); smooth everywhere."""
    x, y, z = axis.unbind(-1)
    s, c = angle.sin(), angle.cos()
    d = 1 - c
    entries = [
        *(c + d * x * x, d * x * y - s * z, d * x * z + s * y),
        *(d * x * y + s * z, c + d * y * y, d * y * z - s * x),
        *(d * x * z - s * y, d * y * z + s * x, c + d * z * z),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


_SERIES_BELOW = 0.3
"""Angle (rad) under which an arc is summed as a series: exact to 1e-13 there, while quotients cancel near zero."""

_SERIES_TERMS = 6


def _arc_series() -> np.ndarray:
    """(6, 4) coefficients, by powers of a^2, of x / a, y, dx and dy / a (see `arc`)."""
    n = np.arange(_SERIES_TERMS)
    even = np.array([math.factorial(2 * k + 2) for k in n], float)
    odd = np.array([math.factorial(2 * k + 1) for k in n], float)
    odd_next = np.array([math.factorial(2 * k + 3) for k in n], float)
    sign = (-1.0) ** n
    return np.stack([sign / even, sign / odd, sign * (2 * n + 1) / even, -sign * (2 * n + 2) / odd_next], 1)


_ARC_SERIES = _arc_series()


def arc(angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An arc of unit length and constant curvature: x = (1-cos a)/a, y = sin(a)/a, and their derivatives by a."""
    small = angle.abs() < _SERIES_BELOW
    a = torch.where(small, torch.ones_like(angle), angle)
    z = torch.where(small, angle, torch.zeros_like(angle))
    s, c = a.sin(), a.cos()
    x, y = (1 - c) / a, s / a
    powers = torch.stack([torch.ones_like(z), z * z], -1)
    powers = torch.cat([powers, powers * powers[..., 1:] ** 2, powers * powers[..., 1:] ** 4], -1)
    series = powers @ constant(_ARC_SERIES, angle.device, angle.dtype)
    xs, ys, dxs, dys = series.unbind(-1)
    return (
        torch.where(small, z * xs, x),
        torch.where(small, ys, y),
        torch.where(small, dxs, y - x / a),
        torch.where(small, z * dys, (c - y) / a),
    )


SPINE = slice(LUMBAR, HEAD + 1)
SPINE_BENDING, SPINE_EXTENSION = slice(17, 26, 3), slice(18, 26, 3)
SCAPULA_ABDUCTION, SCAPULA_ELEVATION = slice(26, 46, 10), slice(27, 46, 10)
SLIDING = (LUMBAR, THORAX, HEAD, SCAPULA_R, SCAPULA_L)
"""Joints that slide with their first two angles."""


def above_spine(parents: list[int], device: torch.device) -> Tensor:
    """(3,) parents of the spine's joints, as an index."""
    return constant(parents[SPINE], device)


def joint_offsets(joints: Tensor, parents: list[int], poses: Tensor) -> tuple[Tensor, Tensor]:
    """Sliding of spine and scapulae with their angles (step 4), zero at zero angles.

    `joints` (B, 24, 3) at rest, `poses` (B, 46). Returns the offset of the five joints SLIDING in the parent's frame,
    (B, 5, 3), and its derivative by their two angles (bending, extension; abduction, elevation), (B, 5, 2, 3).
    """
    length = (joints[:, SPINE, 1] - joints[:, above_spine(parents, joints.device), 1]).abs()
    both = arc(torch.stack([poses[:, SPINE_BENDING], poses[:, SPINE_EXTENSION]], 1))
    (xb, xe), (yb, ye), (dxb, dxe), (dyb, dye) = (values.unbind(1) for values in both)
    zero = torch.zeros_like(xb)
    l3 = length[..., None]
    spine = torch.stack([-xb, yb + ye - 2, -xe], -1) * l3
    spine_slopes = torch.stack([torch.stack([-dxb, dyb, zero], -1), torch.stack([zero, dye, -dxe], -1)], -2)

    width = torch.linalg.vector_norm(joints[:, SCAPULA_L] - joints[:, SCAPULA_R], dim=-1)[:, None]
    height = torch.linalg.vector_norm(joints[:, THORAX] - joints[:, LUMBAR], dim=-1)[:, None]
    side = constant((-1.0, 1.0), poses.device, poses.dtype)
    # On the left both angles count negated.
    u, e = -side * poses[:, SCAPULA_ABDUCTION], -side * poses[:, SCAPULA_ELEVATION] - _QUARTER
    w4, h2 = width / 4, height / 2
    rest = torch.stack([side * w4 * math.cos(_QUARTER), h2 * math.sin(_QUARTER) + 0 * side, 0 * side * w4], -1)
    scapula = torch.stack([side * w4 * e.cos() * u.cos(), -h2 * e.sin(), w4 * u.sin()], -1) - rest
    by_u = torch.stack([-side * w4 * e.cos() * u.sin(), torch.zeros_like(u), w4 * u.cos()], -1)
    by_e = torch.stack([-side * w4 * e.sin() * u.cos(), -h2 * e.cos(), torch.zeros_like(u)], -1)
    scapula_slopes = torch.stack([by_u, by_e], -2) * -side[:, None, None]
    return torch.cat([spine, scapula], 1), torch.cat([spine_slopes * l3[..., None], scapula_slopes], 1)


def rest_frames(
    joints: Tensor,
    parents: list[int],
    per_joint_rot: Tensor,
    apose_rotations: Tensor,
    apose_offsets: Tensor,
    axes: Tensor,
) -> RestFrames:
    """Bone frames and axes of a shape (steps 1-3).

    `joints` (B, 24, 3); of the model file: `per_joint_rot` (24, 3, 3), rotations (24, 3, 3) and translations (24, 3) of
    `apose_rel_transfo`; `axes` (24, 3, 3) is AXIS_OF_SLOT as a tensor.
    """
    offsets = torch.cat([joints[:, :1], joints[:, 1:] - joints[:, constant(parents[1:], joints.device)]], 1)
    child = children_of(parents)
    first = constant(child, joints.device)
    onto, origin = offsets[:, first].clone(), apose_offsets[first].clone()
    for ulna, radius in FOREARMS:
        onto[:, ulna] = offsets[:, child[ulna]] + offsets[:, child[radius]]
        origin[ulna] = apose_offsets[child[ulna]] + apose_offsets[child[radius]]
    onto[:, THORAX] = offsets[:, child[LUMBAR]]
    turned = (per_joint_rot @ origin[..., None]).squeeze(-1)
    free = constant([j for j in range(JOINTS) if j not in FIXED_FRAME_JOINTS], joints.device)
    bones = per_joint_rot.expand(len(joints), -1, -1, -1).clone()
    bones[:, free] = rotation_between(turned[free].expand(len(joints), -1, -1), onto[:, free]) @ per_joint_rot[free]
    basis = bones @ apose_rotations.transpose(-1, -2)
    turned_axes = axes @ basis.transpose(-1, -2)
    spins = skew(turned_axes)
    return RestFrames(joints, offsets, bones, turned_axes, spins.flatten(3), (spins @ spins).flatten(3))


def pose_skeleton(rest: RestFrames, parents: list[int], poses: Tensor) -> Posed:
    """Forward kinematics (steps 3-5). `poses` (B, 46), rad."""
    padded = torch.cat([poses, poses.new_zeros(len(poses), 1)], 1)
    angles = padded[:, constant(COORDINATE_OF_SLOT, poses.device)]
    # Rodrigues: I + sin(a) K + (1 - cos(a)) K^2, with K the cross product with the axis.
    eye = torch.eye(3, dtype=poses.dtype, device=poses.device).flatten()
    sines, versines = angles.sin()[..., None], (1 - angles.cos())[..., None]
    slots = (eye + sines * rest.spins + versines * rest.spins_squared).unflatten(3, (3, 3))
    local = slots[:, :, 2] @ slots[:, :, 1] @ slots[:, :, 0]
    slide, _ = joint_offsets(rest.joints, parents, poses)
    steps = rest.offsets.index_add(1, constant(SLIDING, poses.device), slide)
    rotations: list[Tensor] = [None] * JOINTS  # type: ignore[list-item]
    joints: list[Tensor] = [None] * JOINTS  # type: ignore[list-item]
    rotations[PELVIS], joints[PELVIS] = local[:, PELVIS], steps[:, PELVIS]
    for level in levels_of(parents):
        above = torch.stack([rotations[parents[j]] for j in level], 1)
        base = torch.stack([joints[parents[j]] for j in level], 1)
        here = constant(level, poses.device)
        turned = above @ local[:, here]
        placed = base + (above @ steps[:, here, :, None]).squeeze(-1)
        for n, j in enumerate(level):
            rotations[j], joints[j] = turned[:, n], placed[:, n]
    return Posed(slots, local, torch.stack(rotations, 1), torch.stack(joints, 1))
