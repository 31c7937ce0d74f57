"""SKEL's kinematic tree: axes of its 46 coordinates, frames of its bones, and the chain from angles to joint positions.

Source: SKEL 1.1.1 (Keller et al., SIGGRAPH Asia 2023) as written out in `fitting/README.md`, steps 1-5. Every
coordinate turns one joint about an axis that is fixed in that joint's frame; where the published table has a flip, the
axis carries the sign.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

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
from fitting.body.rotations import EYE, rotation_between, skew

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
    spine: Tensor
    """(B, 3) length of the arc that each joint of the spine slides on."""
    scapulae: Tensor
    """(B, 2, 3) half axes of the ellipsoids that the scapulae slide on, x counted outwards."""


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
    slide: Tensor
    """(B, 5, 3) by how much spine and scapulae have slid, in the parents' frames (`joint_offsets`)..."""
    slopes: Tensor
    """(B, 5, 2, 3) ...and its derivative."""


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
SLIDING = (LUMBAR, THORAX, HEAD, SCAPULA_R, SCAPULA_L)
"""Joints that slide with their first two angles."""

SLIDING_COORDINATES = COORDINATE_OF_SLOT[list(SLIDING), :2]
"""(5, 2) bending and extension of the spine's joints, abduction and elevation of the scapulae."""

_SIDES = (-1.0, 1.0)
"""Right, left: on the left both angles of the scapula count negated, and outwards is along x."""

_SCAPULA_AT_REST = (math.cos(_QUARTER), math.sin(_QUARTER), 0.0)
"""In half axes of its ellipsoid."""


def above_spine(parents: list[int], device: torch.device) -> Tensor:
    """(3,) parents of the spine's joints, as an index."""
    return constant(parents[SPINE], device)


def joint_offsets(rest: RestFrames, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Sliding of spine and scapulae with their angles (step 4), zero at zero angles.

    `poses` (B, 46). Returns the offset of the five joints SLIDING in the parent's frame, (B, 5, 3), and its derivative
    by their two angles (bending, extension; abduction, elevation), (B, 5, 2, 3).
    """
    angles = poses[:, constant(SLIDING_COORDINATES, poses.device)]
    bending = angles[:, : len(SLIDING) - len(_SIDES)].transpose(1, 2)
    (xb, xe), (yb, ye), (dxb, dxe), (dyb, dye) = (values.unbind(1) for values in arc(bending))
    zero = torch.zeros_like(xb)
    length = rest.spine[..., None]
    spine = torch.stack([-xb, yb + ye - 2, -xe], -1) * length
    spine_slopes = torch.stack([-dxb, dyb, zero, zero, dye, -dxe], -1) * length

    side = constant(_SIDES, poses.device, poses.dtype)
    u, e = (-side[:, None] * angles[:, -len(_SIDES) :]).unbind(2)
    e = e - _QUARTER
    (su, se), (cu, ce) = (u.sin(), e.sin()), (u.cos(), e.cos())
    w, h, d = rest.scapulae.unbind(2)
    wc = w * ce
    at_rest = rest.scapulae * constant(_SCAPULA_AT_REST, poses.device, poses.dtype)
    scapula = torch.stack([wc * cu, -h * se, d * su], -1) - at_rest
    none = torch.zeros_like(u)
    slopes = torch.stack([-wc * su, none, d * cu, -w * se * cu, -h * ce, none], -1) * -side[:, None]
    return torch.cat([spine, scapula], 1), torch.cat([spine_slopes, slopes], 1).unflatten(2, (2, 3))


def _sliding_lengths(joints: Tensor, parents: list[int]) -> tuple[Tensor, Tensor]:
    """`spine` and `scapulae` of RestFrames, from joints at rest (B, 24, 3)."""
    spine = (joints[:, SPINE, 1] - joints[:, above_spine(parents, joints.device), 1]).abs()
    width = torch.linalg.vector_norm(joints[:, SCAPULA_L] - joints[:, SCAPULA_R], dim=-1)[:, None]
    height = torch.linalg.vector_norm(joints[:, THORAX] - joints[:, LUMBAR], dim=-1)[:, None]
    quarter = (width / 4).expand(-1, len(_SIDES))
    outwards = quarter * constant(_SIDES, joints.device, joints.dtype)
    return spine, torch.stack([outwards, (height / 2).expand(-1, len(_SIDES)), quarter], -1)


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
    squares = (spins @ spins).flatten(3)
    lengths = _sliding_lengths(joints, parents)
    return RestFrames(joints, offsets, bones, turned_axes, spins.flatten(3), squares, *lengths)


def pose_skeleton(rest: RestFrames, parents: list[int], poses: Tensor) -> Posed:
    """Forward kinematics (steps 3-5). `poses` (B, 46), rad."""
    people = len(poses)
    padded = torch.nn.functional.pad(poses, (0, 1))
    angles = padded[:, constant(COORDINATE_OF_SLOT, poses.device)]
    # Rodrigues: I + sin(a) K + (1 - cos(a)) K^2, with K the cross product with the axis.
    eye = constant(EYE, poses.device, poses.dtype)
    sines, versines = angles.sin()[..., None], (1 - angles.cos())[..., None]
    slots = (eye + sines * rest.spins + versines * rest.spins_squared).view(people, JOINTS, DOF_SLOTS, 3, 3)
    first, second, third = slots.flatten(0, 1).unbind(1)
    local = torch.bmm(torch.bmm(third, second), first).view(people, JOINTS, 3, 3)
    slide, slopes = joint_offsets(rest, poses)
    steps = rest.offsets.index_add(1, constant(SLIDING, poses.device), slide)
    placed = _chained(homogeneous(torch.cat([local, steps[..., None]], -1)), parents)
    return Posed(slots, local, placed[..., :3, :3], placed[..., :3, 3], slide, slopes)


def homogeneous(transforms: Tensor) -> Tensor:
    """(B, 24, 4, 4) from (B, 24, 3, 4)."""
    last = constant((0, 0, 0, 1), transforms.device, transforms.dtype).expand(*transforms.shape[:2], 1, 4)
    return torch.cat([transforms, last], 2)


def _chained(own: Tensor, parents: list[int]) -> Tensor:
    """(B, 24, 4, 4) transforms against the world, from those against the parents.

    A level of the tree at a time, joints before people: small batches cost as many calls as large ones.
    """
    people, tree = len(own), _tree(tuple(parents))
    parts = own.transpose(0, 1)[constant(tree.order, own.device)].split(tree.sizes)
    placed = [parts[0]]
    for above, part in zip(tree.above, parts[1:], strict=True):
        base = placed[-1][constant(above, own.device)]
        placed.append(torch.bmm(base.flatten(0, 1), part.flatten(0, 1)).view(len(above), people, 4, 4))
    return torch.cat(placed)[constant(tree.back, own.device)].transpose(0, 1)


@dataclass(frozen=True)
class _Tree:
    """The joints by level."""

    order: np.ndarray
    """(24,) joints, level by level"""
    back: np.ndarray
    """(24,) where each joint stands in `order`"""
    sizes: list[int]
    """of the levels"""
    above: list[np.ndarray]
    """for each level but the root's, which of the level above a joint hangs on"""


@cache
def _tree(parents: tuple[int, ...]) -> _Tree:
    levels = [[PELVIS], *levels_of(list(parents))]
    order = np.concatenate(levels)
    above = [np.array([upper.index(parents[joint]) for joint in level]) for upper, level in itertools.pairwise(levels)]
    return _Tree(order, np.argsort(order), [len(level) for level in levels], above)
