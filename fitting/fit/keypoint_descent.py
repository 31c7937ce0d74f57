"""The way of the fit to 2D keypoints: many short descents from several starts, then one to the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.anatomy import COORDINATES
from fitting.fit.keypoint_objective import BETAS, PLACE, POSE, UNKNOWNS, KeypointProblem, evaluate
from fitting.fit.keypoint_start import FACING, FLIPS, LIMBS, facing, first_unknowns, flipped
from fitting.fit.solver import Solution, SolverOptions, levenberg_marquardt

_COARSE = SolverOptions(max_iterations=6, step_tolerance=2e-2, cost_tolerance=1e-2, damping=1e-2)
_FOLLOWED = SolverOptions(max_iterations=10, step_tolerance=1e-2, cost_tolerance=3e-3, damping=1e-3)
_PULLED = SolverOptions(max_iterations=3, step_tolerance=2e-2, cost_tolerance=1e-2, damping=1e-3)
_FREED = SolverOptions(max_iterations=5, step_tolerance=1e-2, cost_tolerance=5e-3, damping=1e-3)
_COARSENESS = 3.0
"""Factor on the errors that the coarse descents expect and still believe."""
_GAIN = 0.5
"""Another depth is taken if the cost, a doubled negative log posterior, falls by more than this."""
_FINAL_ROUNDS = 2
"""Descents to the end; before each, pose correctives are made anew and the orientation takes up the pelvis's turn."""
_NEAREST_PELVIS = 0.3
"""m"""


@dataclass(frozen=True)
class Bounds:
    """(59,) lower and upper bounds of the unknowns."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, limits: Tensor, betas_reach: float) -> Bounds:
        """From joint limits (46, 2); the pelvis turns freely and stays before the camera."""
        bounds = limits.new_tensor([-torch.inf, torch.inf]).repeat(UNKNOWNS, 1)
        bounds[3:COORDINATES] = limits[3:]
        bounds[BETAS, 0], bounds[BETAS, 1] = -betas_reach, betas_reach
        bounds[PLACE.stop - 1, 0] = _NEAREST_PELVIS
        return cls(*bounds.unbind(1))

    def with_betas(self, betas: Tensor) -> Bounds:
        """The same, but for betas (10,) that are known."""
        lower, upper = self.lower.clone(), self.upper.clone()
        lower[BETAS] = upper[BETAS] = betas
        return Bounds(lower, upper)

    def inside(self, x: Tensor) -> Tensor:
        """Unknowns (B, 59) moved to the nearest inside."""
        return torch.maximum(torch.minimum(x, self.upper), self.lower)


@dataclass(frozen=True)
class Found:
    """Where people stand in the search: the problem as it is posed now, unknowns (B, 59) and costs (B,)."""

    problem: KeypointProblem
    x: Tensor
    cost: Tensor
    iterations: Tensor

    def of(self, index: Tensor) -> Found:
        """Some of the people."""
        return Found(self.problem.of(index), self.x[index], self.cost[index], self.iterations[index])


def descend(problem: KeypointProblem, x: Tensor, bounds: Bounds, options: SolverOptions) -> Solution:
    """Levenberg-Marquardt from unknowns (B, 59)."""
    lower, upper = bounds.lower.expand(len(x), -1), bounds.upper.expand(len(x), -1)
    return levenberg_marquardt(lambda y, rows: evaluate(problem.of(rows), y), bounds.inside(x), lower, upper, options)


def search(problem: KeypointProblem, bounds: Bounds, finalists: int, names: list[str]) -> Found:
    """The best of descents from all directions in which people may face, and of their limbs mirrored in depth.

    The problem's orientation is that of people who face the camera; `names` are those of the K keypoints.
    """
    people, starts = len(problem.rays), len(FACING)
    everyone = torch.arange(people, device=problem.rays.device)
    turned = facing(problem.orientation).flatten(0, 1)
    each = problem.of(everyone.repeat_interleave(starts)).changed(orientation=turned)
    coarse = each.changed(noise=_COARSENESS * problem.noise, outlier=_COARSENESS * problem.outlier, shape_moves=False)
    solution = descend(coarse, first_unknowns(each), bounds, _COARSE)
    best = solution.cost.view(people, starts).topk(min(finalists, starts), largest=False).indices
    rows = (best + starts * everyone[:, None]).flatten()
    each, spent = each.of(rows), solution.iterations[rows]
    solution = descend(each, solution.x[rows], bounds, _FOLLOWED)
    winner = solution.cost.view(people, -1).argmin(1) + best.shape[1] * everyone
    found = Found(each, solution.x, solution.cost, spent + solution.iterations).of(winner)
    return turn_limbs(found, bounds, names)


def turn_limbs(found: Found, bounds: Bounds, names: list[str]) -> Found:
    """Each part of the body tried at its depth mirrored; those that are likelier so are taken over, all at once."""
    problem, x = found.problem, found.x
    people, tries = len(x), len(FLIPS)
    everyone = torch.arange(people, device=x.device)
    depths, pulls = zip(*(flipped(problem, x, flip, names) for flip in FLIPS), strict=True)
    depths, pull = torch.cat(depths), torch.cat(pulls)
    # A part that lies in the picture's plane looks the same mirrored; there is nothing to try.
    rows = (pull > 0).any(1).nonzero()[:, 0]
    many = problem.of(rows % people).changed(shape_moves=False)
    start = descend(many.changed(depths=depths[rows], pull=pull[rows]), x[rows % people], bounds, _PULLED).x
    solution = descend(many, start, bounds, _FREED)
    costs, places = found.cost.repeat(tries), x.repeat(tries, 1)
    costs[rows], places[rows] = solution.cost, solution.x
    costs, places = costs.view(tries, people), places.view(tries, people, UNKNOWNS)
    gain = found.cost - costs
    mixed = _mixed(x, places, gain)
    again = descend(problem, mixed, bounds, _FREED)
    candidates = torch.cat([found.cost[None] - _GAIN, costs, again.cost[None]])
    best = candidates.argmin(0)
    chosen = torch.cat([x[None], places, again.x[None]])[best, everyone]
    cost = torch.cat([found.cost[None], costs, again.cost[None]])[best, everyone]
    iterations = found.iterations + _PULLED.max_iterations + _FREED.max_iterations
    return Found(problem, chosen, cost, iterations)


def _mixed(x: Tensor, places: Tensor, gain: Tensor) -> Tensor:
    """(B, 59) unknowns in which every limb is as in the try (F, B, 59) that gained most by it, if any did."""
    mixed = x.clone()
    for coordinates in LIMBS:
        tries = [n for n, flip in enumerate(FLIPS) if flip.coordinates == coordinates]
        most, which = gain[tries].max(0)
        better = (most > _GAIN)[:, None]
        there = places[tries][which, torch.arange(len(x), device=x.device)]
        mixed[:, coordinates] = torch.where(better, there[:, coordinates], mixed[:, coordinates])
    return mixed


def finish(found: Found, bounds: Bounds, options: SolverOptions) -> tuple[Found, Tensor]:
    """Descend to the end, with the correctives of where that is; and (B,) whether it was reached."""
    problem, x, iterations = found.problem, found.x, found.iterations
    for _ in range(_FINAL_ROUNDS):
        problem, x = recentred(problem, x)
        solution = descend(problem, x, bounds, options)
        x, iterations = solution.x, iterations + solution.iterations
    return Found(problem, x, solution.cost, iterations), solution.converged


def recentred(problem: KeypointProblem, x: Tensor) -> tuple[KeypointProblem, Tensor]:
    """The same people, the pelvis's turn made part of the orientation, with the correctives of their pose and shape."""
    orientation = problem.orientation @ pelvis_rotation(problem, x)
    x = x.clone()
    x[:, :3] = 0
    body = problem.body
    corrected = body.corrected(body.features(x[:, POSE], x[:, BETAS]))
    return problem.changed(orientation=orientation, corrected=corrected), x


def pelvis_rotation(problem: KeypointProblem, x: Tensor) -> Tensor:
    """(B, 3, 3) by which the pelvis's angles turn everything, in the model's frame."""
    skel = problem.body.skel
    rest = skel.rest_frames(skel.rest_joints(x[:, BETAS]))
    return skel.pose(rest, x[:, POSE]).rotations[:, 0]
