"""What a fit returns: parameters and a quality record per person."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitting.fit.objective import Problem
from fitting.fit.stages import Outcome
from fitting.fit.verdict import verdicts
from schemas import VERDICTS

ON_LIMIT = 1e-4
"""A coordinate closer to its limit than this (rad) counts as lying on it."""


@dataclass(frozen=True)
class SKELFit:
    """SKEL parameters of B people, and how good they are. Rows that are not `valid` hold NaN."""

    poses: Tensor
    """(B, 46) rad"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor
    """(B, 3) m"""
    vertex_error_mm: Tensor
    """(B,) mean distance between SKEL's skin and the SMPL mesh"""
    vertex_error_p95_mm: Tensor
    """(B,) its 95th percentile over vertices"""
    max_vertex_error_mm: Tensor
    """(B,) its maximum"""
    joint_error_mm: Tensor
    """(B,) mean distance between SKEL's joints and those regressed from the SMPL mesh"""
    stage_vertex_error_mm: Tensor
    """(B, 4) mean vertex distance at the start, after the lower-body, upper-body and full-body stages"""
    stage_cost: Tensor
    """(B, 4) objective over all points at the same four moments, m^2"""
    iterations: Tensor
    """(B,) solver iterations over all stages"""
    converged: Tensor
    """(B,) bool: the full-body stage met its tolerance"""
    limits_exceeded: Tensor
    """(B,) coordinates outside their limits"""
    worst_limit_excess: Tensor
    """(B,) rad by which the worst of them is outside"""
    limits_pressed: Tensor
    """(B, 46) bool: coordinates that lie on a limit"""
    betas_pressed: Tensor
    """(B, 10) bool: betas that lie at the end of their reach"""
    betas_change: Tensor
    """(B,) norm of betas minus transferred betas"""
    betas_gain_mm: Tensor
    """(B,) by how much nearer the mesh is for it, on average over vertices; NaN where this was not measured"""
    verdict: Tensor
    """(B,) index in `schemas.VERDICTS`, which say whether the result can be used (`fitting.fit.verdict`)"""
    valid: Tensor
    """(B,) bool: the input was finite"""

    def __len__(self) -> int:
        return len(self.poses)

    def numpy(self) -> dict[str, np.ndarray]:
        """All fields as arrays, verdicts as words."""
        arrays = {f.name: getattr(self, f.name).cpu().numpy() for f in dataclasses.fields(self)}
        return arrays | {"verdict": np.array(VERDICTS)[arrays["verdict"]]}

    def first(self, count: int) -> SKELFit:
        """The fit of the first people."""
        return SKELFit(**{f.name: getattr(self, f.name)[:count] for f in dataclasses.fields(self)})

    def with_rows(self, index: Tensor, rows: SKELFit) -> SKELFit:
        """A copy in which the people `index` are those of another fit."""
        copy = {f.name: getattr(self, f.name).clone() for f in dataclasses.fields(self)}
        for name, values in copy.items():
            values[index] = getattr(rows, name)
        return SKELFit(**copy)

    @classmethod
    def concatenate(cls, parts: list[SKELFit]) -> SKELFit:
        """The people of several fits, in order."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def fit_result(outcome: Outcome, problem: Problem, trans: Tensor, valid: Tensor) -> SKELFit:
    """The result of a batch; `trans` (B, 3) is SKEL's, `valid` (B,) says whose input was finite."""
    vertices = problem.skel.num_vertices
    vertex, joint = 1000 * outcome.distances[:, :vertices], 1000 * outcome.distances[:, vertices:]
    low, high = problem.limits.unbind(1)
    poses = outcome.poses
    excess = torch.maximum(poses - high, low - poses).clamp_min(0)
    pressed = (poses > high - ON_LIMIT) | (poses < low + ON_LIMIT)
    betas_pressed = (outcome.betas - problem.betas_centre).abs() > problem.betas_reach - ON_LIMIT
    missing = ~valid

    def blank(values: Tensor) -> Tensor:
        return values.masked_fill(missing.view(-1, *[1] * (values.ndim - 1)), torch.nan)

    return SKELFit(
        poses=blank(poses),
        betas=blank(outcome.betas),
        trans=blank(trans),
        vertex_error_mm=blank(vertex.mean(1)),
        vertex_error_p95_mm=blank(_quantile(vertex, 0.95)),
        max_vertex_error_mm=blank(vertex.amax(1)),
        joint_error_mm=blank(joint.mean(1)),
        stage_vertex_error_mm=blank(1000 * outcome.stage_error),
        stage_cost=blank(outcome.stage_cost),
        iterations=outcome.iterations * valid,
        converged=outcome.converged & valid,
        limits_exceeded=(excess > ON_LIMIT).sum(1) * valid,
        worst_limit_excess=blank(excess.amax(1)),
        limits_pressed=pressed & valid[:, None],
        betas_pressed=betas_pressed & valid[:, None],
        betas_gain_mm=torch.full_like(outcome.cost, torch.nan),
        betas_change=blank((outcome.betas - problem.betas_centre).norm(dim=1)),
        verdict=verdicts(problem.doubtful | missing, outcome.betas, betas_pressed, vertex.mean(1), pressed),
        valid=valid,
    )


def _quantile(values: Tensor, q: float) -> Tensor:
    """(B,) quantile of each row, between its two neighbours; selecting them is much cheaper than sorting the row."""
    place = q * (values.shape[1] - 1)
    above = values.topk(values.shape[1] - int(place), dim=1).values
    low, high = above[:, -1], above[:, -2] if above.shape[1] > 1 else above[:, -1]
    return low + (place - int(place)) * (high - low)
