"""SKEL from 2D keypoints the plain way, for comparison: one L-BFGS over a whole batch, stage by stage.

Written from the published description of the optimiser beside HSMR (CVPR 2025), "SKELify": a far camera that looks
straight at each person's box, keypoints in units of the box, stages with falling weights of shape and joint limits, no
pose prior, one step length for everybody. It uses this project's SKEL with only those vertices that keypoints need,
which makes it faster than with a mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitting.body.limits import BSM_LIMITS
from train.run.body import KeypointLayer

FOCAL = 5000 / 256
"""Of the assumed camera, in units of the box."""
FIRST_DISTANCE = 2 * 5000 / (256 * 0.9)
ROBUST = 100.0
TORSO = (1, 2, 5, 8, 9, 12, 27, 28, 33, 34, 39, 40, 41)
ACTIVE = tuple(n for n in range(44) if n not in (37, 38))
OUTER, INNER = 30, 20
STOP = 1e-9

STAGES = (
    # keypoints, only the torso's angles?, weights of depth, reprojection, shape, angles
    (TORSO, True, (100.0, 1.78, 0.0, 0.0)),
    (ACTIVE, False, (0.0, 1.0, 100.0, 404 * 1.7)),
    (ACTIVE, False, (0.0, 1.0, 50.0, 404 * 1.7)),
    (ACTIVE, False, (0.0, 1.0, 10.0, 57.4 * 1.7)),
    (ACTIVE, False, (0.0, 1.0, 5.0, 4.78 * 1.7)),
)


@dataclass(frozen=True)
class PlainFit:
    """Of B people, in the assumed camera's frame."""

    poses: Tensor
    betas: Tensor
    keypoints_3d: Tensor
    """(B, 44, 3) m"""
    keypoints_2d: Tensor
    """(B, 44, 2) px"""
    evaluations: int


def plain_fit(layer: KeypointLayer, keypoints: np.ndarray, boxes: np.ndarray) -> PlainFit:
    """From keypoints (B, 44, 3), px and confidence, and boxes (B, 4)."""
    center = torch.tensor((boxes[:, :2] + boxes[:, 2:]) / 2, dtype=torch.float32)
    side = torch.tensor((boxes[:, 2:] - boxes[:, :2]).max(1), dtype=torch.float32)
    given = torch.tensor(keypoints, dtype=torch.float32)
    label, confidence = (given[..., :2] - center[:, None]) / side[:, None, None], given[..., 2]
    low, high = torch.tensor(np.sort(BSM_LIMITS[3:], 1), dtype=torch.float32).unbind(1)
    people = len(given)
    cam = torch.tensor([0.0, 0.0, FIRST_DISTANCE]).repeat(people, 1)
    orient, betas = torch.tensor([np.pi, 0.0, 0.0]).repeat(people, 1).float(), torch.zeros(people, 10)
    body = torch.zeros(people, 43)
    evaluations = 0

    def torso(points: Tensor) -> Tensor:
        return ((points[:, 5] - points[:, 12]).norm(dim=1) + (points[:, 2] - points[:, 9]).norm(dim=1)) / 2

    scale = torso(label).clamp_min(1e-6)[:, None, None]
    for active, only_torso, weights in STAGES:
        kept = list(active)
        free = [cam, orient] if only_torso else [cam, orient, body, betas]
        free = [value.clone().requires_grad_() for value in free]

        held = [body, betas] if only_torso else []

        def split(free=free, held=held):
            return *free, *held

        def terms(split=split, kept=kept, weights=weights) -> Tensor:
            t, o, q, b = split()
            points = layer(torch.cat([o, q], 1), b)
            placed = points + t[:, None]
            seen = FOCAL * placed[..., :2] / placed[..., 2:]
            square = ((seen - label) / scale).square()
            robust = (ROBUST**2 * square / (ROBUST**2 + square)).sum(-1)
            loss = weights[1] ** 2 * (confidence.square() * robust)[:, kept].sum(1).mean()
            if weights[0]:
                guess = FOCAL * torso(points.detach()) / scale[:, 0, 0]
                loss = loss + weights[0] ** 2 * (guess - t[:, 2]).square().mean()
            if weights[2]:
                loss = loss + weights[2] ** 2 * b.square().sum(1).mean()
                loss = loss + weights[3] ** 2 * ((2 * (low - q)).exp() + (2 * (q - high)).exp()).mean()
            return loss

        optimiser = torch.optim.LBFGS(free, lr=1.0, max_iter=INNER, line_search_fn="strong_wolfe")

        def closure(optimiser=optimiser, terms=terms) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            optimiser.zero_grad()
            loss = terms()
            loss.backward()
            return loss

        before = None
        for _ in range(OUTER):
            loss = float(optimiser.step(closure).detach())
            if before is not None and abs(before - loss) <= STOP * max(abs(before), abs(loss), 1.0):
                break
            if max(float(value.grad.abs().max()) for value in free) < STOP:
                break
            before = loss
        cam, orient = (value.detach() for value in free[:2])
        if not only_torso:
            body, betas = (value.detach() for value in free[2:])
    poses = torch.cat([orient, body], 1)
    with torch.no_grad():
        placed = layer(poses, betas) + cam[:, None]
    pixels = FOCAL * placed[..., :2] / placed[..., 2:] * side[:, None, None] + center[:, None]
    return PlainFit(poses, betas, placed, pixels, evaluations)
