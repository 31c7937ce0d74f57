"""A motion as a whole: one shape for all frames, surface velocities like the target's, angles that run on.

First every frame is fitted alone. From that the shape is taken (`fitting.fit.one_shape`), which all frames then have.
With it, frames are fitted once more, together with their neighbours (`fitting.fit.banded`), in windows that overlap.
What one frame does to another fades from frame to frame, so enough overlap leaves no seam, and memory does not grow
with the motion but for what is returned. Last, angles are written so that they run on from frame to frame
(`fitting.fit.continuity`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fitting.body.kinematics import ROOT_COORDINATES
from fitting.fit.banded import BandedSolution, Frames, solve_frames
from fitting.fit.continuity import continuous
from fitting.fit.objective import BODY_COORDINATES, FullObjective, Problem, take
from fitting.fit.one_shape import SharedShape, shape_evidence, shared_shape
from fitting.fit.result import SKELFit, fit_result
from fitting.fit.solver import Solution, SolverOptions, levenberg_marquardt
from fitting.fit.stages import Outcome, Plan

_SEAM = 1e-6
"""So much of what a frame does to its neighbour is left of it where windows end."""

ProblemOf = Callable[[slice, Tensor | None], tuple[Problem, Tensor]]
"""(some frames, betas (10,) that the shape is near or None for each frame's own) -> problem, SKEL's translation."""

Spread = Callable[[Callable[[int], object], Iterable[int]], Iterator]
"""Results of a function on many items, in order, from as many threads as there may be."""


@dataclass(frozen=True)
class SequenceOptions:
    smoothness: float = 0.5
    """Weight of velocity errors against position errors."""
    window: int = 128
    """Frames that are solved together and kept, beside those that windows share."""
    solver: SolverOptions = field(default_factory=lambda: SolverOptions(max_iterations=30, cost_tolerance=1e-6))
    """Of each window; `cost_tolerance` is a fraction of the cost of its frames together."""

    @property
    def overlap(self) -> int:
        """Frames that a window sees beyond each of its ends.

        Of a chain in which each frame meets its neighbours with weight s and stands with weight 1, the Green function
        fades by the smaller root of s x^2 - (1 + 2 s) x + s = 0 per frame.
        """
        s = self.smoothness
        fading = (1 + 2 * s - math.sqrt(1 + 4 * s)) / (2 * s) if s > 0 else 0.0
        return math.ceil(math.log(_SEAM) / math.log(fading)) if fading > 0 else 0


def fit_together(
    alone: SKELFit,
    transferred: Tensor,
    problem_of: ProblemOf,
    plan: Plan,
    options: SequenceOptions,
    spread: Spread,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> SKELFit:
    """The frames of one motion together, from their fits `alone` and the transferred betas (T, 10) of the source.

    `progress` is called with a number of frames after each window.
    """
    count = len(alone)
    shape = _shape(alone, transferred, problem_of, plan, spread, batch_size)

    def fit_window(first: int) -> SKELFit:
        last = min(first + options.window, count)
        seen = slice(max(first - options.overlap, 0), min(last + options.overlap, count))
        with torch.no_grad():
            problem, trans = problem_of(seen, shape.centre)
            problem = replace(problem, doubtful=problem.doubtful | ~shape.trusted[seen])
            rows = torch.arange(seen.start, seen.stop, device=trans.device)
            own = rows[first - seen.start : last - seen.start]
            outcome = _fit_window(problem, plan, options, shape, take(alone, rows), shape.trusted[rows])
            mine = own - seen.start
            return fit_result(take(outcome, mine), problem.of(mine), trans[mine], alone.valid[own])

    windows = []
    for window in spread(fit_window, range(0, count, options.window)):
        windows.append(window)
        if progress is not None:
            progress(len(window))
    together = SKELFit.concatenate(windows)
    poses = continuous(together.poses.cpu().numpy(), shape.trusted.cpu().numpy())
    return replace(together, poses=torch.as_tensor(poses).to(together.poses))


def _shape(
    alone: SKELFit, transferred: Tensor, problem_of: ProblemOf, plan: Plan, spread: Spread, batch_size: int
) -> SharedShape:
    count = len(alone)

    def evidence_of(first: int) -> Tensor:
        some = slice(first, min(first + batch_size, count))
        with torch.no_grad():
            return shape_evidence(problem_of(some, None)[0], plan, alone.poses[some], alone.betas[some])

    evidence = torch.cat(list(spread(evidence_of, range(0, count, batch_size))))
    skel_betas = alone.betas if plan.fit_betas else transferred
    problem, _ = problem_of(slice(0, 1), None)
    shape = shared_shape(problem.skel, transferred, skel_betas, evidence, alone.vertex_error_mm)
    if not plan.fit_betas:
        return replace(shape, betas=shape.centre)
    reach = problem.betas_reach
    return replace(shape, betas=shape.betas.clamp(shape.centre - reach, shape.centre + reach))


def _fit_window(
    problem: Problem, plan: Plan, options: SequenceOptions, shape: SharedShape, alone: SKELFit, trusted: Tensor
) -> Outcome:
    """Neighbouring frames with the shape given: the `trusted` (T,) together, the others each for itself.

    Doubted frames move otherwise than their targets, and would draw their neighbours after them.
    """
    region = plan.regions["full"]
    poses = alone.poses.clone()
    poses[:, ROOT_COORDINATES] = problem.pose_centre[:, ROOT_COORDINATES]
    distances = poses.new_zeros(len(poses), len(problem.points))
    iterations, converged = alone.iterations.clone(), alone.converged.clone()

    def keep(rows: Tensor, solution: BandedSolution | Solution, solved: Tensor) -> None:
        poses[rows], distances[rows] = solved, solution.distances
        iterations[rows] += solution.iterations
        converged[rows] &= solution.converged

    chain = trusted.nonzero().flatten()
    if len(chain):
        frames = Frames(problem.of(chain), region, shape.betas, chain.diff() == 1, options.smoothness)
        solution = solve_frames(frames, poses[chain], plan.bounds, options.solver)
        keep(chain, solution, solution.poses)
    doubted = (~trusted).nonzero().flatten()
    if len(doubted):
        betas = shape.betas.expand(len(doubted), -1)
        objective = FullObjective(problem.of(doubted), region, poses[doubted], betas, fit_betas=False)
        low, high = (side.expand(len(doubted), -1) for side in plan.bounds[BODY_COORDINATES].unbind(1))
        solution = levenberg_marquardt(objective, objective.start(), low, high, plan.full)
        everyone = torch.arange(len(doubted), device=doubted.device)
        keep(doubted, solution, objective.unpack(solution.x, everyone)[0])

    error = distances[:, : problem.skel.num_vertices].mean(1)
    cost = distances.square() @ region.weights
    return Outcome(
        poses=poses,
        betas=shape.betas.expand(len(poses), -1),
        distances=distances,
        stage_error=torch.cat([alone.stage_vertex_error_mm[:, :3] / 1000, error[:, None]], 1),
        stage_cost=torch.cat([alone.stage_cost[:, :3], cost[:, None]], 1),
        cost=cost,
        iterations=iterations,
        converged=converged,
    )
