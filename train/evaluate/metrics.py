"""Distances between people, and the protocols of the benchmarks (DESIGN section 8). Metres in, millimetres out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitting.body.keypoints import regress

HIPS = (1, 2)
"""Of SMPL's 24 joints."""
H36M_KEYPOINTS = (*range(25, 38), 43)
H36M_HIPS = (2, 3)
"""Of the 14 above: right and left hip."""


def mean_distance_mm(predicted: Tensor, target: Tensor) -> Tensor:
    """(B,) mean Euclidean distance, mm, of points (B, N, 3), m."""
    return 1000 * (predicted - target).norm(dim=-1).mean(-1)


def aligned(points: Tensor, target: Tensor) -> Tensor:
    """Points (B, N, 3) after the similarity transform (proper rotation) that brings them closest to `target`.

    Source: Umeyama, PAMI 1991. Computed in float64.
    """
    points, target, dtype = points.double(), target.double(), points.dtype
    mean, goal = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    x, y = points - mean, target - goal
    u, s, vh = torch.linalg.svd(y.transpose(1, 2) @ x)
    sign = torch.ones_like(s)
    sign[:, 2] = torch.det(u @ vh).sign()
    rotation = (u * sign[:, None]) @ vh
    scale = (s * sign).sum(1) / x.square().sum((1, 2)).clamp_min(1e-30)
    return (scale[:, None, None] * (x @ rotation.transpose(1, 2)) + goal).to(dtype)


def correct_keypoints(predicted: Tensor, target: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """(B,) how many annotated keypoints are closer than `threshold` to their place, and how many there are.

    `predicted` (B, N, 2) and `target` (B, N, 3: with confidence) in units of the box.
    """
    annotated = target[..., 2] > 0
    close = (predicted - target[..., :2]).norm(dim=-1) < threshold
    return (close & annotated).sum(1), annotated.sum(1)


@dataclass(frozen=True)
class Protocol:
    """Which points are compared, after both bodies have been moved to the origin of their root."""

    name: str
    joints: str
    """smpl: 24 joints regressed by SMPL's regressor; mix: 24 by SKEL's; keypoints: the 44"""
    chosen: tuple[int, ...]
    """of these joints, those that count; empty = all"""
    root: tuple[int, ...]
    """the mean of these chosen joints"""


PROTOCOLS = {
    "3dpw": Protocol("3dpw", "smpl", (), HIPS),
    "moyo": Protocol("moyo", "mix", (), (0,)),
    "h36m": Protocol("h36m", "keypoints", H36M_KEYPOINTS, H36M_HIPS),
}
"""3dpw also serves EMDB and SPEC-SYN."""


def body_errors(
    predicted: Tensor,
    target: Tensor,
    predicted_joints: Tensor,
    target_joints: Tensor,
    protocol: Protocol,
) -> dict[str, Tensor]:
    """`mpjpe_mm`, `pa_mpjpe_mm` and `pve_mm`, (B,) each, of vertices (B, V, 3) and joints (B, J, 3), m.

    Joints are those that `protocol.joints` names, before any are chosen.
    """
    chosen = list(protocol.chosen) or slice(None)
    joints, goals = predicted_joints[:, chosen], target_joints[:, chosen]
    root, goal_root = (j[:, list(protocol.root)].mean(1, keepdim=True) for j in (joints, goals))
    return {
        "mpjpe_mm": mean_distance_mm(joints - root, goals - goal_root),
        "pa_mpjpe_mm": mean_distance_mm(aligned(joints, goals), goals),
        "pve_mm": mean_distance_mm(predicted - root, target - goal_root),
    }


def regressed(vertices: Tensor, regressor: np.ndarray | Tensor) -> Tensor:
    """(B, J, 3) joints of vertices (B, V, 3)."""
    return regress(torch.as_tensor(regressor), vertices)
