"""Distances between point sets and shares of correct keypoints. Metres in, millimetres out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FEWEST = 3
"""Points that a similarity transform needs."""


def mean_distance_mm(predicted: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """(B,) mean Euclidean distance, mm, of points (B, N, 3), m; only of those that `counts` (B, N) admits, NaN of none.

    In float64.
    """
    distance = point_distances_mm(predicted, target)
    if counts is None:
        return distance.mean(-1)
    return torch.where(counts, distance, 0).sum(-1) / counts.sum(-1)


def point_distances_mm(predicted: Tensor, target: Tensor) -> Tensor:
    """(B, N) distances, mm, of points (B, N, 3), m, in float64."""
    return 1000 * (predicted.double() - target.double()).norm(dim=-1)


def aligned(points: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """Points (B, N, 3) after the similarity transform (proper rotation) that brings them closest to `target`.

    Only the points that `counts` (B, N) admits determine it. Fewer than three, or points that all lie in one place,
    have no such transform and are moved alone. Source: Umeyama, PAMI 1991. Computed in float64.
    """
    dtype, points, target = points.dtype, points.double(), target.double()
    weight = torch.ones_like(points[..., :1]) if counts is None else counts[..., None].double()
    total = weight.sum(1, keepdim=True).clamp_min(1)
    mean, goal = (weight * points).sum(1, keepdim=True) / total, (weight * target).sum(1, keepdim=True) / total
    x, y = points - mean, target - goal
    u, s, vh = torch.linalg.svd((weight * y).transpose(1, 2) @ x)
    sign = torch.ones_like(s)
    sign[:, 2] = torch.det(u @ vh).sign()
    rotation = (u * sign[:, None]) @ vh
    spread = (weight * x.square()).sum((1, 2))
    known = (spread > 1e-20) & (weight.sum((1, 2)) >= FEWEST)
    scale = torch.where(known, (s * sign).sum(1) / spread.clamp_min(1e-20), 1.0)
    rotation = torch.where(known[:, None, None], rotation, torch.eye(3).to(rotation))
    return (scale[:, None, None] * (x @ rotation.transpose(1, 2)) + goal).to(dtype)


def correct_keypoints(
    predicted: Tensor, target: Tensor, threshold: float, confidence: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(B, N) which annotated keypoints are closer than `threshold` to their place, and which are annotated.

    `predicted` (B, N, 2) and `target` (B, N, 3: with confidence, which must exceed `confidence`) in units of the box.
    """
    annotated = target[..., 2] > confidence
    close = (predicted - target[..., :2]).norm(dim=-1) < threshold
    return close & annotated, annotated


def accuracy(hits: np.ndarray, annotated: np.ndarray, by_keypoint: bool) -> float:
    """Share of correct keypoints (P, N) among the annotated (P, N): pooled, or the mean over keypoints of each share.

    NaN if nothing is annotated.
    """
    if not annotated.any():
        return float("nan")
    if not by_keypoint:
        return float(hits.sum() / annotated.sum())
    labelled = annotated.any(0)
    return float((hits.sum(0)[labelled] / annotated.sum(0)[labelled]).mean())
