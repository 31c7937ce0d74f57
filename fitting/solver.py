"""Levenberg-Marquardt for many small problems at once, each with damping, bounds and convergence of its own.

People share array operations, nothing else: no step length, no stopping rule. Whoever has converged leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """Value and model of B objectives at a point: cost(x + s) ~ cost + 2 gradient.s + s.hessian.s."""

    cost: Tensor
    """(B,)"""
    gradient: Tensor
    """(B, n) half the gradient."""
    hessian: Tensor
    """(B, n, n) J^T J."""


Evaluate = Callable[[Tensor, Tensor], Quadratic]
"""(points (B', n), indices (B',) of the people they belong to) -> their quadratic models."""


@dataclass(frozen=True)
class SolverOptions:
    max_iterations: int = 20
    step_tolerance: float = 1e-4
    """A person has converged when no unknown moved by more than this (radians, or standard deviations of shape)..."""
    cost_tolerance: float = 1e-5
    """...or when a step lowered the cost by less than this fraction."""
    damping: float = 1e-4
    """First damping, relative to the diagonal of J^T J."""


LEAST_PEOPLE = 8
"""Matrix products with fewer rows take another path in the libraries and round otherwise. From this number on, a row's
result does not depend on the others, which makes fits reproducible whoever shares the batch (measured on CPUs)."""

_DAMPING_DOWN, _DAMPING_UP = 0.1, 8.0
_DAMPING_OF_A_FULL_STEP = 0.1
"""A step with less damping than this is nearly as long as Gauss and Newton's."""
_DAMPING_MIN, _DAMPING_MAX = 1e-8, 1e6


@dataclass(frozen=True)
class Solution:
    x: Tensor
    """(B, n)"""
    cost: Tensor
    """(B,)"""
    iterations: Tensor
    """(B,) steps tried."""
    converged: Tensor
    """(B,) bool"""


def levenberg_marquardt(
    evaluate: Evaluate, start: Tensor, lower: Tensor, upper: Tensor, options: SolverOptions
) -> Solution:
    """Minimise B objectives over boxes.

    `start` (B, n) inside the bounds `lower` and `upper` (B, n), which may be infinite. Unknowns at a bound that the
    gradient pushes against are held; the others take a damped Gauss-Newton step, cut at the bounds. A step that does
    not lower the cost is taken back and the damping grows.
    """
    people = len(start)
    x = start.clone()
    active = torch.arange(people, device=x.device)
    model = evaluate(x, active)
    cost = model.cost.clone()
    iterations = torch.zeros(people, dtype=torch.int64, device=x.device)
    converged = torch.zeros(people, dtype=torch.bool, device=x.device)
    damping = torch.full_like(cost, options.damping)
    finished = torch.zeros_like(converged)
    current = x
    for _ in range(options.max_iterations):
        step = _bounded_step(model, current, damping, lower[active], upper[active])
        trial = evaluate(current + step, active)
        drop = model.cost - trial.cost
        better = (drop >= 0) & trial.cost.isfinite() & ~finished
        moved = step.abs().amax(1)
        iterations[active] += ~finished
        # At the bottom rounding decides whether a tiny step helps, so a tiny step ends the search either way; unless it
        # is tiny only for being damped.
        tiny = (moved < options.step_tolerance) & (damping <= _DAMPING_OF_A_FULL_STEP)
        done = tiny | (better & (drop <= options.cost_tolerance * model.cost))
        # A rejected step at full damping cannot be improved upon.
        done |= ~better & (damping >= _DAMPING_MAX)
        current = torch.where(better[:, None], current + step, current)
        model = _where(better, trial, model)
        damping = torch.where(better, damping * _DAMPING_DOWN, damping * _DAMPING_UP)
        damping = damping.clamp(_DAMPING_MIN, _DAMPING_MAX)
        finished |= done
        x[active], cost[active] = current, model.cost
        converged[active] = finished & model.cost.isfinite()
        going = (~finished).nonzero().flatten()
        if len(going) == 0:
            break
        if len(going) < len(active) and len(active) > LEAST_PEOPLE:
            # Finished people fill the batch up; they take no more steps.
            filling = finished.nonzero().flatten()[: max(LEAST_PEOPLE - len(going), 0)]
            left = torch.cat([going, filling]).sort().values
            active, current, damping, finished = active[left], current[left], damping[left], finished[left]
            model = Quadratic(model.cost[left], model.gradient[left], model.hessian[left])
    return Solution(x, cost, iterations, converged)


def _bounded_step(model: Quadratic, x: Tensor, damping: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    held = ((x <= lower) & (model.gradient > 0)) | ((x >= upper) & (model.gradient < 0))
    step = _damped_solve(model, held, damping)
    # Unknowns that the step carries beyond a bound stop there, and the others are solved for again, knowing that.
    outside = (x + step < lower) | (x + step > upper)
    if bool(outside.any()):
        cut = torch.where(outside, torch.maximum(torch.minimum(x + step, upper), lower) - x, torch.zeros_like(x))
        rest = Quadratic(model.cost, model.gradient + (model.hessian @ cut[..., None]).squeeze(-1), model.hessian)
        step = _damped_solve(rest, held | outside, damping) + cut
    return torch.maximum(torch.minimum(x + step, upper), lower) - x


def _damped_solve(model: Quadratic, held: Tensor, damping: Tensor) -> Tensor:
    free = (~held).to(model.hessian.dtype)
    diagonal = model.hessian.diagonal(dim1=1, dim2=2)
    floor = 1e-6 * diagonal.amax(1, keepdim=True)
    scale = diagonal.clamp_min(1e-12) + floor
    matrix = model.hessian * free[:, :, None] * free[:, None, :]
    matrix = matrix + torch.diag_embed(damping[:, None] * scale * free + (1 - free))
    # Matrices of a multiple of 16 rows begin at aligned addresses: the place in the batch does not change rounding.
    people, size = model.gradient.shape
    padded = -(-size // 16) * 16
    square = torch.eye(padded, dtype=matrix.dtype, device=matrix.device).repeat(people, 1, 1)
    square[:, :size, :size] = matrix
    right = matrix.new_zeros(people, padded, 1)
    right[:, :size, 0] = -model.gradient * free
    factor, failed = torch.linalg.cholesky_ex(square)
    step = torch.cholesky_solve(right, factor)[:, :size, 0]
    # Where rounding made the matrix indefinite, fall back to a short step down the scaled gradient.
    descent = -model.gradient * free / scale * 0.1
    return torch.where((failed == 0)[:, None] & step.isfinite(), step, descent)


def _where(better: Tensor, new: Quadratic, old: Quadratic) -> Quadratic:
    return Quadratic(
        torch.where(better, new.cost, old.cost),
        torch.where(better[:, None], new.gradient, old.gradient),
        torch.where(better[:, None, None], new.hessian, old.hessian),
    )
