"""How the skeleton's transforms move with coordinates and betas: twists, and the Gauss-Newton system they give.

A coordinate turns everything behind its joint: dG = [omega x | u] G for all joints of its subtree. The 3x4 operator
[omega x | u] is its twist. Gradient and J^T J of the skinning objective follow from twists, wrenches (first moments
of the residual) and second moments of the points, without touching a vertex (`fitting/README.md`). With betas fixed and
pose correctives held, that J^T J is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitting.anatomy import COORDINATES, JOINTS, LUMBAR, SCAPULA_L, SCAPULA_R, THORAX
from fitting.body.constants import constant
from fitting.body.kinematics import (
    FIXED_FRAME_JOINTS,
    FOREARMS,
    JOINT_OF_COORDINATE,
    SLIDING,
    SLIDING_COORDINATES,
    SLOT_OF_COORDINATE,
    SPINE,
    Posed,
    RestFrames,
    above_spine,
    homogeneous,
)
from fitting.body.rotations import axial, skew
from fitting.body.skel import CORRECTIVE_SOURCE, SKEL


@dataclass(frozen=True)
class Twists:
    """First derivative of the skeleton by its 46 coordinates."""

    world: Tensor
    """(B, 46, 3, 4) [omega x | u]: dG = twist @ G for the joints of the coordinate's subtree."""
    local_axes: Tensor
    """(B, 46, 3) axis about which the coordinate turns its joint against the parent."""


def subtree_matrix(parents: list[int]) -> Tensor:
    """(24, 24) float64, 1 where the column's joint is the row's or lies behind it."""
    matrix = torch.eye(JOINTS, dtype=torch.float64)
    for joint in range(JOINTS - 1, 0, -1):
        matrix[parents[joint]] += matrix[joint]
    return matrix


def transforms_of(rest: RestFrames, posed: Posed) -> Tensor:
    """(B, 24, 3, 4) what skinning applies to points at rest."""
    shift = posed.joints - (posed.rotations @ rest.joints[..., None]).squeeze(-1)
    return torch.cat([posed.rotations, shift[..., None]], -1)


def pose_twists(skel: SKEL, rest: RestFrames, posed: Posed) -> Twists:
    """Twists of all coordinates at a pose."""
    above = _rotations_above(posed, skel.parents)
    joint, slot = (constant(which, above.device) for which in (JOINT_OF_COORDINATE, SLOT_OF_COORDINATE))
    _, second, third = posed.slot_rotations.unbind(2)
    n0, n1, n2 = (axis[..., None] for axis in rest.axes.unbind(2))
    # The axes of a joint's three slots, side by side.
    local = torch.cat([_products(third, torch.cat([_products(second, n0), n1], -1)), n2], -1)
    omega = _products(above, local)[:, joint, :, slot].transpose(0, 1)
    u = torch.linalg.cross(posed.joints[:, joint], omega)
    slopes = _products(posed.slopes, above[:, constant(SLIDING, u.device)].transpose(2, 3))
    u = u.index_add(1, constant(SLIDING_COORDINATES.ravel(), u.device), slopes.flatten(1, 2))
    world = torch.cat([skew(omega), u[..., None]], -1)
    return Twists(world, local[:, joint, :, slot].transpose(0, 1))


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(B, J, n, m) products of small matrices (B, J, n, k) and (B, J, k, m)."""
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, a.shape[:2])


def _rotations_above(posed: Posed, parents: list[int]) -> Tensor:
    """(B, 24, 3, 3) rotation of each joint's parent; of the root's, none."""
    none = constant(np.eye(3), posed.rotations.device, posed.rotations.dtype).expand(len(posed.rotations), 1, 3, 3)
    above = constant([parent + 1 for parent in parents], none.device)
    return torch.cat([none, posed.rotations], 1)[:, above]


def pose_gradient(twists: Twists, subtree: Tensor, transforms: Tensor, wrench: Tensor) -> Tensor:
    """(B, 46) half the gradient of the data term, from wrenches (B, 24, 3, 4) in the rest frame."""
    world = wrench @ homogeneous(transforms).transpose(2, 3)
    summed = (subtree @ world.flatten(2)).unflatten(2, (3, 4))
    return (twists.world * summed[:, constant(JOINT_OF_COORDINATE, summed.device)]).sum((2, 3))


def pose_motion(
    twists: Twists,
    subtree: Tensor,
    transforms: Tensor,
    coordinates: slice = slice(0, COORDINATES),
    joints: slice = slice(0, JOINTS),
) -> Tensor:
    """(B, n, 3, 4J) derivative by n coordinates of what skinning applies to J joints, side by side."""
    world = twists.world[:, coordinates]
    placed = homogeneous(transforms[:, joints]).transpose(1, 2).flatten(2)
    moved = (world.flatten(1, 2) @ placed).unflatten(1, (-1, 3))
    behind = subtree[constant(JOINT_OF_COORDINATE[coordinates], subtree.device), joints]
    return moved * behind.repeat_interleave(4, 1)[:, None]


def gauss_newton(motion: Tensor, moment: Tensor, other: Tensor | None = None) -> Tensor:
    """(B, n, n') J^T J of the data term: motions (B, n, 3, 4J) and second moments (B, 4J, 4J) of the same joints.

    With `other` (B, n', 3, 4J), the motions of the same bodies in another pose or by other unknowns, it is J^T J_other.
    """
    carried = (motion.flatten(1, 2) @ moment).unflatten(1, (-1, 3)).flatten(2)
    return carried @ (motion if other is None else other).flatten(2).transpose(1, 2)


def joints_of(coordinates: slice) -> slice:
    """The run of joints that coordinates turn, widened to a multiple of four.

    The run is one that no other joints hang on: the legs, the upper body, all. Rows of 16 numbers begin at addresses
    that libraries treat alike, so that a person's result does not depend on the place in the batch.
    """
    joints = JOINT_OF_COORDINATE[coordinates]
    first, last = int(joints.min()), int(joints.max()) + 1
    wanted = -(-(last - first) // 4) * 4
    last = min(last + wanted - (last - first), JOINTS)
    return slice(last - wanted, last)


def moment_of(moment: Tensor, joints: slice) -> Tensor:
    """(B, 4J, 4J) the part of a second moment (B, 96, 96) that belongs to some joints."""
    return moment[:, 4 * joints.start : 4 * joints.stop, 4 * joints.start : 4 * joints.stop]


def corrective_gradient(skel: SKEL, twists: Twists, posed: Posed, by_features: Tensor) -> Tensor:
    """(B, 46) half the gradient through the pose correctives, from that by their features (B, 207)."""
    spin = _local_spin(posed, by_features)
    return (twists.local_axes * spin[:, constant(JOINT_OF_COORDINATE, spin.device)]).sum(-1)


def _local_spin(posed: Posed, by_features: Tensor) -> Tensor:
    """(B, 24, 3) half the gradient by a small turn of each local rotation, through the correctives."""
    by_rotation = torch.zeros_like(posed.local_rotations)
    driven = [(n, j) for n, j in enumerate(CORRECTIVE_SOURCE) if j >= 0]
    feature, joint = (constant(which, by_features.device) for which in zip(*driven, strict=True))
    by_rotation[:, joint] = by_features.unflatten(1, (23, 3, 3))[:, feature]
    return axial(by_rotation @ posed.local_rotations.transpose(2, 3))


@dataclass(frozen=True)
class ShapeMotion:
    """First derivative of the skeleton by betas, joint by joint."""

    turns: Tensor
    """(B, 10, 24, 3) world rate at which a joint turns with everything behind it, about the origin..."""
    rates: Tensor
    """(B, 10, 24, 3) ...and moves: [turns x | rates] is the joint's own twist."""
    drift: Tensor
    """(B, 10, 24, 3) rate at which the rest position of a joint moves, turned into the pose."""
    local_turns: Tensor
    """(B, 10, 24, 3) rate at which a joint's rotation against its parent turns, in the parent's frame at rest."""

    def of_transforms(self, transforms: Tensor, subtree: Tensor) -> Tensor:
        """(B, 10, 3, 96) derivative by betas of what skinning applies to the 24 joints, side by side."""
        people, modes = self.turns.shape[:2]
        # A joint moves with everything between the root and itself.
        both = torch.cat([self.turns, self.rates], -1).transpose(1, 2).flatten(2)
        turns, rates = (subtree.T @ both).view(people, JOINTS, modes, 6).split(3, dim=-1)
        own = torch.cat([skew(turns), rates[..., None]], -1)
        moved = own.flatten(2, 3) @ homogeneous(transforms)
        moved = moved.view(people, JOINTS, modes, 3, 4).transpose(1, 2)
        moved[..., 3] -= self.drift
        return moved.transpose(2, 3).flatten(3)


def shape_motion(skel: SKEL, rest: RestFrames, posed: Posed) -> ShapeMotion:
    """How the posed skeleton moves when betas change and the coordinates stay.

    Three things move: joint centres, the frames in which joints turn (they follow the bones' directions), and the
    sliding of spine and scapulae, which scales with the trunk.
    """
    parents = skel.parents
    people = len(rest.joints)
    d_joints = skel.J_shapedirs.permute(2, 0, 1).expand(people, -1, -1, -1)
    parent = constant(parents[1:], d_joints.device)
    d_offsets = torch.cat([d_joints[:, :, :1], d_joints[:, :, 1:] - d_joints[:, :, parent]], 2)

    frame_turns = _frame_turns(skel, rest, d_offsets)
    local_turns = frame_turns - _turned(posed.local_rotations, frame_turns)

    growth = posed.slide[:, None] * _slide_growth(parents, rest.joints, d_joints)
    steps = d_offsets.index_add(2, constant(SLIDING, growth.device), growth)
    above = _rotations_above(posed, parents)
    turns = _turned(above, local_turns)
    rates = _turned(above, steps) + torch.linalg.cross(posed.joints[:, None].expand_as(turns), turns)
    return ShapeMotion(turns, rates, _turned(posed.rotations, d_joints), local_turns)


def _turned(rotations: Tensor, vectors: Tensor) -> Tensor:
    """(B, 10, 24, 3) vectors turned by one rotation per joint (B, 24, 3, 3)."""
    return (vectors.transpose(1, 2) @ rotations.transpose(2, 3)).transpose(1, 2)


def _frame_turns(skel: SKEL, rest: RestFrames, d_offsets: Tensor) -> Tensor:
    """(B, 10, 24, 3) angular rate of the bone frames A_j as betas change."""
    child = skel.first_child
    first = constant(child, d_offsets.device)
    onto, d_onto = rest.offsets[:, first].clone(), d_offsets[:, :, first].clone()
    origin = skel.apose_offsets[first].clone()
    for ulna, radius in FOREARMS:
        onto[:, ulna] = onto[:, ulna] + rest.offsets[:, child[radius]]
        d_onto[:, :, ulna] = d_onto[:, :, ulna] + d_offsets[:, :, child[radius]]
        origin[ulna] = origin[ulna] + skel.apose_offsets[child[radius]]
    onto[:, THORAX], d_onto[:, :, THORAX] = rest.offsets[:, child[LUMBAR]], d_offsets[:, :, child[LUMBAR]]
    o = torch.nn.functional.normalize((skel.per_joint_rot @ origin[..., None]).squeeze(-1), dim=-1)
    length = onto.norm(dim=-1, keepdim=True)
    b = onto / length
    db = d_onto / length[:, None]
    db = db - (db * b[:, None]).sum(-1, keepdim=True) * b[:, None]
    # The smallest rotation onto b also spins about b while b moves, by the solid angle that it sweeps seen from o.
    normal = torch.linalg.cross(o.expand_as(b), b) / (1 + (o * b).sum(-1, keepdim=True))
    spin = -(normal[:, None] * db).sum(-1, keepdim=True)
    turns = torch.linalg.cross(b[:, None].expand_as(db), db) + spin * b[:, None]
    return turns.index_fill(2, constant(FIXED_FRAME_JOINTS, turns.device), 0.0)


def _slide_growth(parents: list[int], joints: Tensor, d_joints: Tensor) -> Tensor:
    """(B, 10, 5, 3) relative growth of the sliding offsets per unit of beta."""
    above = above_spine(parents, joints.device)
    growth = (d_joints[:, :, SPINE, 1] - d_joints[:, :, above, 1]) / (joints[:, SPINE, 1] - joints[:, above, 1])[
        :, None
    ]
    spine = growth[..., None].expand(-1, -1, -1, 3)

    def length_growth(a: int, b: int) -> Tensor:
        apart = joints[:, a] - joints[:, b]
        return ((d_joints[:, :, a] - d_joints[:, :, b]) * apart[:, None]).sum(-1) / apart.square().sum(-1)[:, None]

    width, height = length_growth(SCAPULA_L, SCAPULA_R), length_growth(THORAX, LUMBAR)
    scapula = torch.stack([width, height, width], -1)[:, :, None].expand(-1, -1, 2, -1)
    return torch.cat([spine, scapula], 2)


def shape_gradient(
    motion: ShapeMotion, posed: Posed, subtree: Tensor, transforms: Tensor, wrench: Tensor, by_features: Tensor
) -> Tensor:
    """(B, 10) half the gradient by betas through the skeleton (not through the points at rest)."""
    world = wrench @ homogeneous(transforms).transpose(2, 3)
    summed = (subtree @ world.flatten(2)).unflatten(2, (3, 4))
    through_twists = (motion.turns * axial(summed)[:, None] + motion.rates * summed[:, None, ..., 3]).sum((2, 3))
    through_drift = (motion.drift * wrench[:, None, ..., 3]).sum((2, 3))
    through_correctives = (motion.local_turns * _local_spin(posed, by_features)[:, None]).sum((2, 3))
    return through_twists - through_drift + through_correctives


def pose_and_shape(by_pose: Tensor, by_betas: Tensor, moment: Tensor, carried: Tensor, gram: Tensor) -> Tensor:
    """(B, n + 10, n + 10) J^T J by coordinates and betas.

    Motions by coordinates (B, n, 3, 96) and by betas (B, 10, 3, 96), moment (B, 96, 96), and what the change of the
    points at rest adds, of `points.Moments.of_shapes`. Exact but for the pose correctives, which are left out:
    it steers the solver, whose gradient is exact.
    """
    motion = torch.cat([by_pose, by_betas], 1)
    own = slice(by_pose.shape[1], None)
    jtj = gauss_newton(motion, moment)
    mixed = motion.flatten(2) @ carried.flatten(2).transpose(1, 2)
    jtj[:, :, own] += mixed
    jtj[:, own] += mixed.transpose(1, 2)
    jtj[:, own, own] += gram
    return jtj
