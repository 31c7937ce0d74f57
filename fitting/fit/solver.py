"""Levenberg-Marquardt for many small problems at once, each with damping, bounds and convergence of its own.

People share array operations, nothing else: no step length, no stopping rule. Whoever has converged leaves the batch.
"""

from __future__ import annotations

import dataclasses
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
    distances: Tensor | None = None
    """(B, N) what the objective wants to know of the point at the end."""


Evaluate = Callable[[Tensor, Tensor], Quadratic]
"""(points (B', n), indices (B',) of the people they belong to) -> their quadratic models."""


@dataclass(frozen=True)
class SolverOptions:
    max_iterations: int = 20
    step_tolerance: float = 1e-4
    """A person has converged when no unknown would move by more than this (radians, or standard deviations of shape)"""
    cost_tolerance: float = 1e-5
    """or when the cost would fall, or fell, by less than this fraction."""
    damping: float = 1e-4
    """First damping, relative to the diagonal of J^T J."""


LEAST_PEOPLE = 8
"""Matrix products with fewer rows take another path in the libraries and round otherwise. From this number on, a row's
result does not depend on the others, which makes fits reproducible whoever shares the batch (measured on CPUs)."""

DAMPING_DOWN, DAMPING_UP = 0.1, 8.0
_DAMPING_OF_A_FULL_STEP = 0.1
"""A step with less damping than this is nearly as long as Gauss and Newton's."""
DAMPING_MIN, DAMPING_MAX = 1e-8, 1e6

DIAGONAL_FLOOR = 1e-6
"""An unknown that hardly matters is damped as if it mattered by so much of what the most important one does."""

_BOUND_SWEEPS = 6
"""Most systems that are solved for one step; few people need more than two."""


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
    distances: Tensor | None
    """(B, N) `Quadratic.distances` at x."""


def levenberg_marquardt(
    evaluate: Evaluate, start: Tensor, lower: Tensor, upper: Tensor, options: SolverOptions
) -> Solution:
    """Minimise B objectives over boxes.

    `start` (B, n) inside the bounds `lower` and `upper` (B, n), which may be infinite. Each step goes to the minimum of
    the damped Gauss-Newton model inside the bounds. One that does not lower the cost is taken back and the damping
    grows; one that promises next to nothing is not tried.
    """
    people = len(start)
    x = start.clone()
    active = torch.arange(people, device=x.device)
    model = evaluate(x, active)
    cost, distances = model.cost.clone(), model.distances
    model = dataclasses.replace(model, distances=None)
    iterations = torch.zeros(people, dtype=torch.int64, device=x.device)
    converged = torch.zeros(people, dtype=torch.bool, device=x.device)
    damping = torch.full_like(cost, options.damping)
    finished = torch.zeros_like(converged)
    current = x
    for iteration in range(options.max_iterations + 1):
        step, settled = _bounded_step(model, current, damping, lower[active], upper[active])
        small = step.abs().amax(1) < options.step_tolerance
        small |= promise(model, step) <= options.cost_tolerance * model.cost
        # A step may also be small for being damped, or for being none that the model wants.
        finished |= small & settled & (damping <= _DAMPING_OF_A_FULL_STEP) & model.cost.isfinite()
        converged[active] |= finished
        going = (~finished).nonzero().flatten()
        if len(going) == 0 or iteration == options.max_iterations:
            break
        if len(going) < len(active) and len(active) > LEAST_PEOPLE:
            # Finished people fill the batch up; they take no more steps.
            filling = finished.nonzero().flatten()[: max(LEAST_PEOPLE - len(going), 0)]
            left = torch.cat([going, filling]).sort().values
            active, current, damping, finished = active[left], current[left], damping[left], finished[left]
            step, settled = step[left], settled[left]
            model = Quadratic(model.cost[left], model.gradient[left], model.hessian[left])
        trial = evaluate(current + step, active)
        drop = model.cost - trial.cost
        better = (drop >= 0) & trial.cost.isfinite() & ~finished
        iterations[active] += ~finished
        # A rejected step at full damping cannot be improved upon.
        done = (better & settled & (drop <= options.cost_tolerance * model.cost)) | (~better & (damping >= DAMPING_MAX))
        current = torch.where(better[:, None], current + step, current)
        model = _where(better, trial, model)
        damping = torch.where(better, damping * DAMPING_DOWN, damping * DAMPING_UP)
        damping = damping.clamp(DAMPING_MIN, DAMPING_MAX)
        finished |= done
        x[active], cost[active] = current, model.cost
        if distances is not None:
            distances[active] = torch.where(better[:, None], trial.distances, distances[active])
    return Solution(x, cost, iterations, converged, distances)


def _bounded_step(model: Quadratic, x: Tensor, damping: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n) step to the minimum of the damped model inside the bounds, and (B,) whether it was found.

    A primal-dual active set (Hintermüller, Ito and Kunisch 2003): unknowns that a solution carries beyond a bound are
    held there, those that the others' pull on their bound turns inside are let go, and the free ones are solved for
    again. Of all that was seen, the step that promises most is taken.
    """
    # Scaled by its diagonal, a matrix of n rows stretches nothing by more than n: so short a step always leads down.
    short = x - model.gradient / (_scale(model.hessian) * x.shape[1])
    best = torch.maximum(torch.minimum(short, upper), lower) - x
    most = promise(model, best)
    settled = torch.zeros_like(most, dtype=torch.bool)
    low, high = (x <= lower) & (model.gradient > 0), (x >= upper) & (model.gradient < 0)
    rows, here, down, up = torch.arange(len(x), device=x.device), model, lower - x, upper - x
    for _ in range(_BOUND_SWEEPS):
        step = _damped_solve(here, low, high, down, up, damping)
        inside = torch.maximum(torch.minimum(step, up), down)
        promised = promise(here, inside)
        better = promised > most[rows]
        best[rows] = torch.where(better[:, None], inside, best[rows])
        most[rows] = torch.where(better, promised, most[rows])
        pull = here.gradient + _times(here.hessian, step)
        now_low, now_high = torch.where(low, pull > 0, step < down), torch.where(high, pull < 0, step > up)
        changed = ((now_low != low) | (now_high != high)).any(1)
        settled[rows] = ~changed
        going = changed.nonzero().flatten()
        if len(going) == 0:
            break
        rows, low, high = rows[going], now_low[going], now_high[going]
        here = Quadratic(here.cost[going], here.gradient[going], here.hessian[going])
        down, up, damping = down[going], up[going], damping[going]
    return best, settled


def promise(model: Quadratic, step: Tensor) -> Tensor:
    """(B,) by how much the cost falls with steps (B, n), as far as the model knows; NaN where it has no number."""
    return -(step * (2 * model.gradient + _times(model.hessian, step))).sum(1)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(B, n) products of (B, n, n) and (B, n); a library would round by where a matrix begins in memory."""
    return (matrices * vectors[:, None]).sum(2)


def _scale(hessian: Tensor) -> Tensor:
    """(B, n) natural scale of each unknown: the diagonal, with a floor."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    return diagonal.clamp_min(1e-12) + DIAGONAL_FLOOR * diagonal.amax(1, keepdim=True)


def _damped_solve(model: Quadratic, low: Tensor, high: Tensor, down: Tensor, up: Tensor, damping: Tensor) -> Tensor:
    """(B, n) minimum of the damped model with the unknowns `low` held at steps `down` and `high` at `up`.

    NaN where rounding leaves none.
    """
    held = low | high
    cut = torch.where(low, down, torch.where(high, up, torch.zeros_like(up)))
    free = (~held).to(cut.dtype)
    gradient = model.gradient + _times(model.hessian, cut)
    matrix = model.hessian * free[:, :, None] * free[:, None, :]
    matrix = matrix + torch.diag_embed(damping[:, None] * _scale(model.hessian) * free + (1 - free))
    # Matrices of a multiple of 16 rows begin at aligned addresses: the place in the batch does not change rounding.
    people, size = gradient.shape
    padded = -(-size // 16) * 16
    square = torch.eye(padded, dtype=matrix.dtype, device=matrix.device).repeat(people, 1, 1)
    square[:, :size, :size] = matrix
    right = matrix.new_zeros(people, padded, 1)
    right[:, :size, 0] = -gradient * free
    factor, failed = torch.linalg.cholesky_ex(square)
    step = torch.cholesky_solve(right, factor)[:, :size, 0] * free + cut
    return torch.where((failed == 0)[:, None], step, torch.nan)


def _where(better: Tensor, new: Quadratic, old: Quadratic) -> Quadratic:
    return Quadratic(
        torch.where(better, new.cost, old.cost),
        torch.where(better[:, None], new.gradient, old.gradient),
        torch.where(better[:, None, None], new.hessian, old.hessian),
    )
