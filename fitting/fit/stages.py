"""The hierarchy of the fit: lower body, upper body, full body, with the root frozen (after SKEL-CF).

The first two stages hold the pose correctives and work on moments alone; the full-body stage works on all points, with
the exact gradient, and may also move betas. Whoever ends far from the target is given a second try from the rest pose.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.body.kinematics import RestFrames
from fitting.fit.objective import BODY_COORDINATES, FullObjective, Problem, Region, RegionObjective
from fitting.fit.solver import LEAST_PEOPLE, Solution, SolverOptions, levenberg_marquardt


@dataclass(frozen=True)
class Plan:
    """How the stages are run."""

    regions: dict[str, Region]
    """lower, upper and full"""
    bounds: Tensor
    """(46, 2) rad, infinite where there are none"""
    fit_betas: bool
    region: SolverOptions
    full: SolverOptions
    second_try_above: float
    """m: mean vertex distance above which the fit is tried again from the rest pose"""


@dataclass(frozen=True)
class Outcome:
    """Where the stages ended for B people."""

    poses: Tensor
    """(B, 46)"""
    betas: Tensor
    """(B, 10)"""
    distances: Tensor
    """(B, N) of the points, m"""
    stage_error: Tensor
    """(B, 4) mean vertex distance at the start and after each stage, m"""
    stage_cost: Tensor
    """(B, 4) data term over all points, m^2"""
    cost: Tensor
    """(B,) objective at the end, m^2"""
    iterations: Tensor
    """(B,)"""
    converged: Tensor
    """(B,) bool"""


def run_stages(problem: Problem, start: Tensor, plan: Plan) -> Outcome:
    """Fit from a start (B, 46); the better of two tries for those whom the first leaves far away."""
    outcome = run_once(problem, start, plan)
    is_far = outcome.stage_error[:, -1] > plan.second_try_above
    if not bool(is_far.any()):
        return outcome
    # Where there are few, some of the others come along for LEAST_PEOPLE's sake; their second try does not count.
    company = (~is_far).nonzero().flatten()[: max(LEAST_PEOPLE - int(is_far.sum()), 0)]
    far = torch.cat([is_far.nonzero().flatten(), company])
    rest_pose = torch.zeros_like(start[far])
    rest_pose = torch.maximum(torch.minimum(rest_pose, plan.bounds[:, 1]), plan.bounds[:, 0])
    rest_pose[:, : BODY_COORDINATES.start] = start[far, : BODY_COORDINATES.start]
    again = run_once(problem.of(far), rest_pose, plan)
    better = (again.cost < outcome.cost[far]) & is_far[far]
    merged = {}
    for field in dataclasses.fields(Outcome):
        values = getattr(outcome, field.name).clone()
        if field.name == "iterations":
            values[far] += again.iterations * is_far[far]
        elif field.name in ("stage_error", "stage_cost"):
            # The stages are told as the first try went; only the end is the second one's.
            values[far[better], -1] = getattr(again, field.name)[better, -1]
        else:
            values[far[better]] = getattr(again, field.name)[better]
        merged[field.name] = values
    return Outcome(**merged)


def run_once(problem: Problem, start: Tensor, plan: Plan) -> Outcome:
    """All stages from one start (B, 46)."""
    skel = problem.skel
    everything = plan.regions["full"].weights
    rest = skel.rest_frames(skel.rest_joints(problem.betas_centre))
    poses, at_start, iterations = fit_region(problem, "lower", rest, start, plan)
    poses, after_lower, more = fit_region(problem, "upper", rest, poses, plan)
    poses, betas, after_upper, solution = fit_whole(problem, poses, plan)
    distances = (at_start, after_lower, after_upper, solution.distances)
    return Outcome(
        poses=poses,
        betas=betas,
        distances=solution.distances,
        stage_error=torch.stack([d[:, : skel.num_vertices].mean(1) for d in distances], 1),
        stage_cost=torch.stack([(d.square() * everything).sum(1) for d in distances], 1),
        cost=solution.cost,
        iterations=iterations + more + solution.iterations,
        converged=solution.converged,
    )


def fit_region(
    problem: Problem, name: str, rest: RestFrames, poses: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor]:
    """Move one region's coordinates from poses (B, 46): where they end, distances (B, N) before, iterations (B,)."""
    region = plan.regions[name]
    objective = RegionObjective(problem, region, rest, problem.betas_centre, poses)
    lower, upper = (side.expand(len(poses), -1) for side in plan.bounds[region.coordinates].unbind(1))
    solution = levenberg_marquardt(objective, objective.start(), lower, upper, plan.region)
    poses = poses.clone()
    poses[:, region.coordinates] = solution.x
    return poses, objective.distances, solution.iterations


def fit_whole(problem: Problem, poses: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Solution]:
    """Move everything but the root from poses (B, 46): poses, betas (B, 10), distances (B, N) before, the solution."""
    betas = problem.betas_centre
    objective = FullObjective(problem, plan.regions["full"], poses, betas, plan.fit_betas)
    lower, upper = (side.expand(len(poses), -1) for side in plan.bounds[BODY_COORDINATES].unbind(1))
    if plan.fit_betas:
        lower = torch.cat([lower, betas - problem.betas_reach], 1)
        upper = torch.cat([upper, betas + problem.betas_reach], 1)
    solution = levenberg_marquardt(objective, objective.start(), lower, upper, plan.full)
    poses, betas = objective.unpack(solution.x, torch.arange(len(poses), device=poses.device))
    return poses, betas, objective.first_distances, solution
