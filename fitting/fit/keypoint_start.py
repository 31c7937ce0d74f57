"""Where the fit to 2D keypoints starts, and which other depths explain the same picture.

A picture does not tell whether a limb points towards the camera or away from it: the person mirrored in depth, limb by
limb, projects nearly alike. So the fit starts from several directions in which somebody may face, and from what it
found it tries each limb the other way round. Joint limits and the pose prior decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.anatomy import COORDINATES
from fitting.body.constants import constant
from fitting.fit.keypoint_objective import BETAS, PLACE, POSE, UNKNOWNS, KeypointProblem, camera_points
from schemas.camerahmr import KEYPOINT_NAMES

FACING = (0.0, 60.0, -60.0, 180.0, 120.0, -120.0)
"""Degrees by which the person is turned from facing the camera."""

_BONES = (
    *(("right_shoulder", "right_hip"), ("left_shoulder", "left_hip"), ("right_hip", "right_knee")),
    *(("left_hip", "left_knee"), ("right_knee", "right_ankle"), ("left_knee", "left_ankle")),
    *(("right_shoulder", "right_elbow"), ("left_shoulder", "left_elbow"), ("right_elbow", "right_wrist")),
    *(("left_elbow", "left_wrist"), ("right_shoulder", "left_shoulder"), ("right_hip", "left_hip")),
)
"""Pairs of keypoints whose distance hardly changes with the pose."""
_FORESHORTENED = 0.15
"""Share of the bones that may look longer than they are, for being seen badly; the others look shorter, if anything."""
_NEAREST_START, _FARTHEST_START = 0.7, 100.0
_USUAL_EXTENT = 1.2
"""m: taken for the extent of what is seen of somebody without a single whole bone."""


def index_of(*names: str) -> list[int]:
    """Place of keypoints among the 44."""
    return [KEYPOINT_NAMES.index(name) for name in names]


def distance_of(rays: Tensor, confidence: Tensor, at_rest: Tensor) -> Tensor:
    """(B,) m from the camera, from rays (B, 2, 44), their confidence (B, 44) and keypoints at rest (44, 3)."""
    first, second = (constant(index_of(*names), rays.device) for names in zip(*_BONES, strict=True))
    seen = (rays[:, :, first] - rays[:, :, second]).norm(dim=1)
    real = (at_rest[first] - at_rest[second]).norm(dim=1)
    known = (confidence[:, first] > 0) & (confidence[:, second] > 0)
    per_metre = torch.where(known, seen / real, -torch.inf).sort(dim=1, descending=True).values
    count = known.sum(1)
    place = (count * _FORESHORTENED).long()
    per_metre = per_metre.gather(1, place[:, None])[:, 0]
    hidden = (confidence <= 0)[:, None]
    extent = rays.masked_fill(hidden, -torch.inf).amax(2) - rays.masked_fill(hidden, torch.inf).amin(2)
    per_metre = torch.where(count > 0, per_metre, extent.amax(1) / _USUAL_EXTENT)
    return (1 / per_metre.clamp_min(1e-6)).clamp(_NEAREST_START, _FARTHEST_START)


def upright(rays: Tensor, confidence: Tensor) -> Tensor:
    """(B, 3, 3) the camera frame's orientation for somebody who faces the camera, the trunk as seen in the picture."""
    names = ("right_shoulder", "left_shoulder"), ("right_hip", "left_hip")
    shoulders, hips = (constant(index_of(*pair), rays.device) for pair in names)
    known = (confidence[:, torch.cat([shoulders, hips])] > 0).all(1)
    up = rays[:, :, shoulders].mean(2) - rays[:, :, hips].mean(2)
    roll = torch.where(known, torch.atan2(up[:, 0], -up[:, 1]), torch.zeros_like(up[:, 0]))
    sine, cosine, zero, one = roll.sin(), roll.cos(), torch.zeros_like(roll), torch.ones_like(roll)
    # The model's y is up and its z forward; the camera's y is down, its z away from the camera.
    rows = [torch.stack(row, -1) for row in ((cosine, sine, zero), (sine, -cosine, zero), (zero, zero, -one))]
    return torch.stack(rows, 1)


def facing(orientation: Tensor) -> Tensor:
    """(B, 6, 3, 3) orientations turned about the body's own vertical axis, by FACING."""
    turns = []
    for angle in map(math.radians, FACING):
        sine, cosine = math.sin(angle), math.cos(angle)
        turns.append([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    return orientation[:, None] @ torch.tensor(turns).to(orientation)


def first_unknowns(problem: KeypointProblem) -> Tensor:
    """(B, 59) the prior's pose and shape, at the distance and place that the keypoints show."""
    x = problem.rays.new_zeros(len(problem.rays), UNKNOWNS)
    x[:, 3:COORDINATES] = problem.pose_centre
    x[:, BETAS] = problem.betas_centre
    x[:, PLACE] = place_before_camera(problem, x)
    return x


def place_before_camera(problem: KeypointProblem, x: Tensor) -> Tensor:
    """(B, 3) where the pelvis stands so that keypoints at the given distance project as observed, on average."""
    points = camera_points(problem, torch.cat([x[:, : PLACE.start], torch.zeros_like(x[:, PLACE])], 1))
    share = problem.confidence / problem.confidence.sum(1, keepdim=True).clamp_min(1e-9)
    depth = points[:, 2] + problem.distance[:, None]
    shift = ((problem.rays * depth[:, None] - points[:, :2]) * share[:, None]).sum(2)
    return torch.cat([shift, problem.distance[:, None]], 1)


@dataclass(frozen=True)
class Flip:
    """A part of the body and what it is mirrored about."""

    name: str
    pivot: tuple[str, ...]
    """keypoints whose mean depth stays"""
    mirrored: tuple[str, ...]
    coordinates: slice
    """of the pose, that the part alone decides"""


LIMBS = (slice(3, 10), slice(26, 36), slice(10, 17), slice(36, 46))
"""Coordinates of right leg, right arm with its scapula, left leg and left arm."""


def _flips() -> tuple[Flip, ...]:
    flips = [Flip("whole", ("right_hip", "left_hip"), KEYPOINT_NAMES, POSE)]
    for side, legs, arms in (("right", *LIMBS[:2]), ("left", *LIMBS[2:])):
        both = lambda *names, side=side: tuple(f"{side}_{n}{e}" for n in names for e in ("", "_lsp"))  # noqa: E731
        feet = tuple(f"{side}_{n}" for n in ("big_toe", "small_toe", "heel"))
        flips.append(Flip(f"{side} leg", (f"{side}_hip",), (*both("knee", "ankle"), *feet), legs))
        flips.append(Flip(f"{side} shank", (f"{side}_knee",), (*both("ankle"), *feet), legs))
        flips.append(Flip(f"{side} arm", (f"{side}_shoulder",), both("elbow", "wrist"), arms))
        flips.append(Flip(f"{side} forearm", (f"{side}_elbow",), both("wrist"), arms))
    return tuple(flips)


FLIPS = _flips()
"""What is tried the other way round."""

_PULL = 400.0
"""1 / m^2: a keypoint 5 cm from the depth that it is pulled to costs one."""


_SAME_DEPTH = 0.06
"""m: a part that mirroring moves less is as it was."""


def flipped(problem: KeypointProblem, x: Tensor, flip: Flip, names: list[str]) -> tuple[Tensor, Tensor]:
    """Depths (B, K), m, of one part mirrored, and the pull (B, K) to them.

    No pull on those whom it would hardly move, or of whom that part is not seen. `names` are those of the K keypoints.
    """
    depth = camera_points(problem, x)[:, 2] - x[:, PLACE][:, 2:]
    pivot = [names.index(name) for name in flip.pivot if name in names]
    part = constant([names.index(name) for name in flip.mirrored if name in names], x.device)
    about = depth[:, constant(pivot, x.device)].mean(1, keepdim=True)
    mirrored = 2 * about - depth
    moves = (mirrored - depth)[:, part].abs().amax(1, keepdim=True) > _SAME_DEPTH
    moves &= (problem.confidence[:, part] > 0).any(1, keepdim=True)
    pull = torch.zeros_like(depth)
    pull[:, part] = torch.where(moves, _PULL, 0.0).to(depth)
    return mirrored, pull
