"""One shape for all frames of a motion, which no single frame owns.

Fitted alone, frame t likes betas b_t best, and its cost rises as (b - b_t)^T S_t (b - b_t) when another shape b is put
on it and the pose may adapt. The shape of all frames together is the minimum of the sum of these. A frame far from its
target, or whose shape is far from everybody's, as its source has it or as it was fitted, says little about the person:
its weight is Tukey's biweight of how far out it is, against the median and the median deviation of all frames (Huber
and Ronchetti, Robust Statistics, 2009, section 4.8). Frames of no weight are doubted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.body.skel import NUM_BETAS, SKEL
from fitting.fit.objective import BODY_COORDINATES, FullObjective, Problem
from fitting.fit.stages import Plan

_DOUBTED_FROM = 4.685
"""Robust standard deviations above the median from which a frame says nothing; Tukey's constant, with which normal
numbers lose five per cent of what they know."""

_LEAST_ERROR_MM, _LEAST_SHAPE_MM, _LEAST_SOURCE_MM = 2.0, 2.0, 1.0
"""Frames that are nearly equal would make outliers of each other: so much deviation of the distance from the target,
of the fitted shape, and of the source's shape along one of its betas is granted to any motion."""

_DEVIATION_OF_MEDIAN = 1.4826
"""Standard deviation of normal numbers in units of their median absolute deviation."""

_ROUNDS = 10
"""Rounds of weights and shape; they settle after three or four."""

_RIDGE = 1e-9
"""m^2 per squared standard deviation: the shape stays defined where no frame says anything about a direction."""


@dataclass(frozen=True)
class SharedShape:
    betas: Tensor
    """(10,)"""
    centre: Tensor
    """(10,) what the source says: transferred betas, over the same frames with the same weights"""
    trusted: Tensor
    """(T,) bool: frames that are not doubted"""


def shape_evidence(problem: Problem, plan: Plan, poses: Tensor, betas: Tensor) -> Tensor:
    """(B, 10, 10) S of frames that were fitted alone to poses (B, 46) and betas (B, 10), m^2 per squared deviation."""
    objective = FullObjective(problem, plan.regions["full"], poses, betas, fit_betas=True)
    everyone = torch.arange(len(poses), device=poses.device)
    hessian = objective(objective.start(), everyone).hessian.double()
    low, high = plan.bounds[BODY_COORDINATES].unbind(1)
    body = poses[:, BODY_COORDINATES]
    free = ((body > low) & (body < high)).to(hessian.dtype)
    own, mixed = hessian[:, :-NUM_BETAS, :-NUM_BETAS], hessian[:, :-NUM_BETAS, -NUM_BETAS:] * free[..., None]
    own = own * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
    return hessian[:, -NUM_BETAS:, -NUM_BETAS:] - mixed.transpose(1, 2) @ torch.linalg.solve(own, mixed)


def shared_shape(skel: SKEL, transferred: Tensor, betas: Tensor, evidence: Tensor, error_mm: Tensor) -> SharedShape:
    """The shape of T frames.

    `transferred` (T, 10) is what the source says, `betas` (T, 10) what each frame likes best with `evidence`
    (T, 10, 10), `error_mm` (T,) the mean vertex distance with it.
    """
    transferred, betas, evidence = transferred.double(), betas.double(), evidence.double()
    # Root mean square distance over the template's vertices per step of betas.
    gram = skel.shapedirs.double().flatten(0, 1)
    gram = 1e6 * gram.T @ gram / skel.num_vertices
    by_error = _outlyingness(error_mm.double(), _LEAST_ERROR_MM)
    # Sources scatter along some betas more than along others; another person may differ along any.
    source_mm = (transferred - transferred.median(0).values).abs() * gram.diagonal().sqrt()
    by_source = torch.stack([_outlyingness(mode, _LEAST_SOURCE_MM) for mode in source_mm.T]).amax(0)
    shape = betas.median(0).values
    for _ in range(_ROUNDS):
        away = betas - shape
        by_shape = _outlyingness(((away @ gram) * away).sum(1).clamp_min(0).sqrt(), _LEAST_SHAPE_MM)
        outlying = torch.stack([by_error, by_source, by_shape]).amax(0)
        weight = (1 - (outlying / _DOUBTED_FROM).square()).clamp_min(0).square()
        weighted = weight[:, None, None] * evidence
        total = weighted.sum(0) + _RIDGE * torch.eye(NUM_BETAS, dtype=weighted.dtype, device=weighted.device)
        wanted = (weighted @ betas[..., None]).sum(0) + _RIDGE * shape[:, None]
        shape = torch.linalg.solve(total, wanted)[:, 0]
    centre = (weight[:, None] * transferred).sum(0) / weight.sum()
    return SharedShape(shape.to(skel.v_template), centre.to(skel.v_template), weight > 0)


def _outlyingness(values: Tensor, least: float) -> Tensor:
    """(T,) standard deviations, robust and of at least `least`, by which numbers (T,) exceed their median."""
    median = values.median()
    spread = _DEVIATION_OF_MEDIAN * (values - median).abs().median() + least
    return ((values - median) / spread).clamp_min(0)
