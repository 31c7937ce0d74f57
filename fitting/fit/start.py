"""Where the fit starts: SMPL's joint rotations, decomposed onto SKEL's axes and moved inside the joint limits.

Joints are handled from the root outwards; each takes as much as it can of the difference between the global rotation
of its SMPL counterpart and what its ancestors have already turned. What a hinge cannot take is left to the joints
after it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fitting import anatomy
from fitting.anatomy import COORDINATES
from fitting.body import kinematics as k
from fitting.body.constants import constant
from fitting.body.kinematics import COORDINATE_OF_SLOT, RestFrames
from fitting.body.rotations import axial, rotation_about, turn, turning

_CHAINS = (
    # SKEL joints that turn together to reach the global rotation of a SMPL joint, innermost last; both sides at once,
    # and what else is alike
    (((anatomy.FEMUR_R,), 2), ((anatomy.FEMUR_L,), 1), ((anatomy.LUMBAR,), 6)),
    (((anatomy.THORAX,), 9),),
    (((anatomy.HEAD,), 15), ((anatomy.SCAPULA_R,), 14), ((anatomy.SCAPULA_L,), 13)),
    (((anatomy.HUMERUS_R,), 17), ((anatomy.HUMERUS_L,), 16)),
    (((anatomy.TIBIA_R,), 5), ((anatomy.TIBIA_L,), 4), ((anatomy.ULNA_R,), 19), ((anatomy.ULNA_L,), 18)),
    (((anatomy.TALUS_R, anatomy.CALCN_R), 8), ((anatomy.TALUS_L, anatomy.CALCN_L), 7)),
    (((anatomy.TOES_R,), 11), ((anatomy.TOES_L,), 10)),
    (((anatomy.RADIUS_R, anatomy.HAND_R), 21), ((anatomy.RADIUS_L, anatomy.HAND_L), 20)),
)

_SWEEPS = 4
"""Passes of coordinate ascent over a chain; it only starts the fit, so they need not converge."""


def start_poses(rest: RestFrames, parents: list[int], target: Tensor, root: Tensor, limits: Tensor) -> Tensor:
    """(B, 46) SKEL poses near SMPL's global joint rotations (B, 24, 3, 3), inside the limits (46, 2).

    `root` (B, 3) are the pelvis angles, which are kept.
    """
    poses = target.new_zeros(len(target), COORDINATES)
    poses[:, k.ROOT_COORDINATES] = root
    turned = torch.empty_like(target)
    turned[:, anatomy.PELVIS] = target[:, 0]
    for sides in _CHAINS:
        slots = [
            [(j, s) for j in joints for s in reversed(range(3)) if COORDINATE_OF_SLOT[j, s] < COORDINATES]
            for joints, _ in sides
        ]
        joint, slot = np.array(slots).transpose(2, 0, 1)
        axes = rest.axes[:, constant(joint, target.device), constant(slot, target.device)]
        coordinates = constant(COORDINATE_OF_SLOT[joint, slot], target.device)
        before = turned[:, constant([parents[joints[0]] for joints, _ in sides], target.device)]
        wanted = target[:, constant([smpl_joint for _, smpl_joint in sides], target.device)]
        difference = before.transpose(2, 3) @ wanted
        low, high = limits[coordinates].unbind(-1)
        if len(sides[0][0]) == 1 and joint.shape[1] == 3:
            angles = _nearest_within(_euler_angles(axes, difference), low, high)
        else:
            angles = _align(axes, difference, low, high)
        poses[:, coordinates] = angles
        turns = rotation_about(axes, angles)
        for n in range(joint.shape[1]):
            before = before @ turns[:, :, n]
            turned[:, constant(joint[:, n], target.device)] = before
    return poses


def _euler_angles(axes: Tensor, rotation: Tensor) -> Tensor:
    """(..., 3) angles about orthonormal axes (..., 3, 3), outermost first, whose product is a rotation (..., 3, 3)."""
    basis = axes.flip(-2).transpose(-1, -2)
    hand = torch.linalg.det(basis)
    r = basis.transpose(-1, -2) @ rotation @ basis
    inner = _angle(r[..., 2, 1], r[..., 2, 2])
    middle = torch.asin((-r[..., 2, 0]).clamp(-1, 1))
    outer = _angle(r[..., 1, 0], r[..., 0, 0])
    return torch.stack([outer, middle, inner], -1) * hand[..., None]


def _nearest_within(angles: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(..., 3) Euler angles inside limits (..., 3) that turn as given ones (..., 3) do, or as nearly as may be.

    A turn about three perpendicular axes is written in two ways, each up to whole turns. The one that limits cut less
    is taken; where neither is cut, the one given.
    """
    half_turn = math.pi
    other = torch.stack([angles[..., 0] + half_turn, half_turn - angles[..., 1], angles[..., 2] + half_turn], -1)
    middle = ((low + high) / 2).nan_to_num(0)
    both = torch.stack([angles, other])
    both = both - 2 * half_turn * ((both - middle) / (2 * half_turn)).round()
    inside = torch.maximum(torch.minimum(both, high), low)
    same, flipped = (inside - both).abs().sum(-1)[..., None]
    return torch.where(flipped < same, inside[1], inside[0])


def _angle(y: Tensor, x: Tensor) -> Tensor:
    """atan2 by way of float64: of a float32 array, torch takes the last few by another function than the others."""
    return torch.atan2(y.double(), x.double()).to(x.dtype)


def _align(axes: Tensor, rotation: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(..., n) angles inside limits (..., n) that bring the product of turns about axes (..., n, 3) near a rotation.

    Coordinate ascent on the trace of the relative rotation; each angle has a closed form with the others fixed. The
    trace as a function of one angle is a cosine, so its best value within limits is the clamped one.
    """
    count = axes.shape[-2]
    start = torch.zeros_like(low).clamp(low, high)
    angles = [start[..., n].expand(axes.shape[:-2]) for n in range(count)]
    about = [turning(axis) for axis in axes.unbind(-2)]
    turns = [turn(*given) for given in zip(about, angles, strict=True)]
    for _ in range(_SWEEPS if count > 1 else 1):
        for n, axis in enumerate(axes.unbind(-2)):
            x = rotation
            for before in turns[:n]:
                x = before.transpose(-1, -2) @ x
            for after in reversed(turns[n + 1 :]):
                x = x @ after.transpose(-1, -2)
            along = (axis * (x @ axis[..., None]).squeeze(-1)).sum(-1)
            best = _angle((axis * axial(x)).sum(-1), x.diagonal(dim1=-2, dim2=-1).sum(-1) - along)
            angles[n] = torch.maximum(torch.minimum(best, high[..., n]), low[..., n])
            turns[n] = turn(about[n], angles[n])
    return torch.stack(angles, -1)
