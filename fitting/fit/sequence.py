"""A motion as a whole: one shape for all frames, and surface velocities that match the target's.

On top of each frame's own objective stands, between neighbouring frames,

    smoothness * sum_p w_p |(S_p(t+1) - S_p(t)) - (T_p(t+1) - T_p(t))|^2

so motion is not damped: what is punished is moving otherwise than the target. All frames are solved together. The
Gauss-Newton system is banded (a frame only meets its neighbours) with a border for betas, so a long motion costs time
in proportion to its length and has no seams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from fitting.body.skel import NUM_BETAS
from fitting.fit import linearisation as lin
from fitting.fit.objective import BODY_COORDINATES, Problem, pose_terms
from fitting.fit.points import blend, place, unpose, wrench_of
from fitting.fit.stages import Outcome, Plan, point_distances

if TYPE_CHECKING:
    from fitting.fit.result import SKELFit

BODY = 43
"""Coordinates per frame; the root is frozen."""


@dataclass(frozen=True)
class SequenceOptions:
    smoothness: float = 0.5
    """Weight of velocity errors against position errors."""
    max_iterations: int = 15
    cost_tolerance: float = 1e-5
    """The sequence has converged when a step lowered the cost by less than this fraction."""
    frames_at_a_time: int = 64
    """Frames whose points are in memory together; does not change the result."""


@dataclass(frozen=True)
class SequenceSolution:
    poses: Tensor
    """(T, 46)"""
    betas: Tensor
    """(10,)"""
    iterations: int
    converged: bool


def sequence_outcome(problem: Problem, plan: Plan, solution: SequenceSolution, alone: SKELFit, kept: Tensor) -> Outcome:
    """The sequence's solution as an outcome per frame; `alone` is the fit of the single frames it started from."""
    betas = solution.betas.expand(len(kept), -1)
    weights = plan.regions["full"].weights
    everyone = torch.arange(len(kept), device=kept.device)
    distances = torch.cat(
        [
            point_distances(problem.of(rows), weights, solution.poses[rows], betas[rows])
            for rows in everyone.split(SequenceOptions.frames_at_a_time)
        ]
    )
    error, cost = distances[:, : problem.skel.num_vertices].mean(1), distances.square() @ weights
    return Outcome(
        poses=solution.poses,
        betas=betas,
        distances=distances,
        stage_error=torch.cat([alone.stage_vertex_error_mm[kept, :3] / 1000, error[:, None]], 1),
        stage_cost=torch.cat([alone.stage_cost[kept, :3], cost[:, None]], 1),
        cost=cost,
        iterations=alone.iterations[kept] + solution.iterations,
        converged=alone.converged[kept] & solution.converged,
    )


@dataclass(frozen=True)
class _System:
    """Cost and Gauss-Newton system of the whole sequence, on the CPU in float64."""

    cost: float
    gradient: np.ndarray
    """(T, 43)"""
    betas_gradient: np.ndarray
    """(10,)"""
    diagonal: np.ndarray
    """(T, 43, 43)"""
    neighbour: np.ndarray
    """(T-1, 43, 43) block between frames t and t+1"""
    border: np.ndarray
    """(T, 10, 43)"""
    betas_block: np.ndarray
    """(10, 10)"""

    def after(self, step: np.ndarray) -> _System:
        """The system at a place (T, 43) away, as the quadratic model has it."""
        gradient = self.gradient + np.einsum("tij,tj->ti", self.diagonal, step)
        gradient[:-1] += np.einsum("tij,tj->ti", self.neighbour, step[1:])
        gradient[1:] += np.einsum("tji,tj->ti", self.neighbour, step[:-1])
        betas_gradient = self.betas_gradient + np.einsum("tbk,tk->b", self.border, step)
        return replace(self, gradient=gradient, betas_gradient=betas_gradient)


def solve_sequence(
    problem: Problem, plan: Plan, poses: Tensor, betas: Tensor, options: SequenceOptions
) -> SequenceSolution:
    """Refine the frames of one motion together from poses (T, 46) and one betas (10,), inside the plan's bounds."""
    low, high = (side.double().cpu().numpy() for side in plan.bounds[BODY_COORDINATES].unbind(1))
    centre = problem.betas_centre[0].double().cpu().numpy()
    x, b = poses.double().cpu().numpy().copy(), betas.double().cpu().numpy().copy()
    body = BODY_COORDINATES
    system = _assemble(problem, plan, x, b, options)
    damping, converged, iterations = 1e-4, False, 0
    for _ in range(options.max_iterations):
        iterations += 1
        q = x[:, body]
        held = ((q <= low) & (system.gradient > 0)) | ((q >= high) & (system.gradient < 0))
        step, betas_step = _solve(system, held, damping, plan.fit_betas)
        outside = (q + step < low) | (q + step > high)
        if outside.any():
            # What the step carries beyond a bound stops there, and the rest is solved for again, knowing that.
            cut = np.where(outside, np.clip(q + step, low, high) - q, 0.0)
            step, betas_step = _solve(system.after(cut), held | outside, damping, plan.fit_betas)
            step = step + cut
        trial_x, trial_b = x.copy(), np.clip(b + betas_step, centre - problem.betas_reach, centre + problem.betas_reach)
        trial_x[:, body] = np.clip(q + step, low, high)
        trial = _assemble(problem, plan, trial_x, trial_b, options)
        drop = system.cost - trial.cost
        if drop >= 0:
            converged = drop <= options.cost_tolerance * system.cost
            x, b, system, damping = trial_x, trial_b, trial, max(damping * 0.1, 1e-8)
        else:
            converged = damping > 1e4 or np.abs(step).max() < 1e-5
            damping *= 8
        if converged:
            break
    as_input = {"dtype": poses.dtype, "device": poses.device}
    return SequenceSolution(torch.as_tensor(x, **as_input), torch.as_tensor(b, **as_input), iterations, bool(converged))


def _assemble(problem: Problem, plan: Plan, x: np.ndarray, b: np.ndarray, options: SequenceOptions) -> _System:
    """Evaluate all frames, a chunk at a time; chunks read one frame beyond each end and share nothing else."""
    skel, points, region = problem.skel, problem.points, plan.regions["full"]
    frames = len(x)
    like = problem.target
    all_poses, shape = torch.as_tensor(x).to(like), torch.as_tensor(b).to(like)[None]
    rest_one = skel.rest_frames(skel.rest_joints(shape))
    moment_one = region.moments(shape)
    parts: dict[str, list[np.ndarray]] = {"gradient": [], "diagonal": [], "neighbour": [], "border": []}
    cost, betas_gradient, betas_block = 0.0, np.zeros(NUM_BETAS), np.zeros((NUM_BETAS, NUM_BETAS))

    def keep(name: str, values: Tensor) -> None:
        parts[name].append(values.double().cpu().numpy())

    for first in range(0, frames, options.frames_at_a_time):
        last = min(first + options.frames_at_a_time, frames)
        # One more frame on each side, for the velocities.
        seen = torch.arange(max(first - 1, 0), min(last + 1, frames), device=like.device)
        own = slice(first - int(seen[0]), last - int(seen[0]))
        count = len(seen)
        poses, betas = all_poses[seen], shape.expand(count, -1)
        rest = type(rest_one)(**{k: v.expand(count, *v.shape[1:]) for k, v in vars(rest_one).items()})
        posed = skel.pose(rest, poses)
        transforms = lin.transforms_of(rest, posed)
        at_rest = points.at_rest(betas, skel.corrective_features(posed.local_rotations))
        blended = blend(points, transforms)
        r = place(blended, at_rest) - problem.target[seen]
        velocity = r[1:] - r[:-1]
        # Half the gradient of the data term by r.
        force = r.clone()
        force[1:] += options.smoothness * velocity
        force[:-1] -= options.smoothness * velocity
        force *= region.weights
        neighbours = 2 - (seen == 0).to(like) - (seen == frames - 1).to(like)

        extra, slope, curvature = pose_terms(problem, poses, seen)
        position_cost = r.square().sum(1) @ region.weights + extra
        velocity_cost = options.smoothness * (velocity.square().sum(1) @ region.weights)
        cost += float(position_cost[own].double().sum())
        # Velocities from a chunk's frames to the next one's belong to the chunk.
        cost += float(velocity_cost[own.start : own.stop].double().sum())

        wrench = wrench_of(points, force, at_rest)
        by_directions = unpose(blended, force) @ points.directions[1:].T
        by_features = by_directions[:, NUM_BETAS:]
        twists = lin.pose_twists(skel, rest, posed, poses)
        gradient = lin.pose_gradient(twists, problem.subtree, transforms, wrench) + slope
        gradient = gradient + lin.corrective_gradient(skel, twists, posed, by_features)
        moment = moment_one.expand(count, -1, -1)
        by_pose = lin.pose_motion(twists, problem.subtree, transforms, region.coordinates)
        motion = lin.shape_motion(skel, rest, posed, poses)
        by_own_betas = motion.of_transforms(transforms, problem.subtree)
        jtj = lin.pose_and_shape(by_pose, by_own_betas, moment, *region.moments.of_shapes(betas, transforms))
        diagonal = (1 + options.smoothness * neighbours)[:, None, None] * jtj[:, :BODY, :BODY]
        diagonal = diagonal + torch.diag_embed(curvature[:, BODY_COORDINATES])
        keep("gradient", gradient[own, BODY_COORDINATES])
        keep("diagonal", diagonal[own])
        pairs = slice(own.start, min(own.stop, count - 1))
        after = slice(pairs.start + 1, pairs.stop + 1)
        neighbour = lin.gauss_newton(by_pose[pairs], moment[pairs], by_pose[after])
        keep("neighbour", -options.smoothness * neighbour)

        by_betas = by_directions[:, :NUM_BETAS] + lin.shape_gradient(
            motion, posed, problem.subtree, transforms, wrench, by_features
        )
        betas_gradient += by_betas[own].double().sum(0).cpu().numpy()
        # Velocities hardly depend on the shape; their share of these two blocks is left out. They steer, no more.
        keep("border", jtj[own, BODY:, :BODY])
        betas_block += jtj[own, BODY:, BODY:].double().sum(0).cpu().numpy()

    away = b - problem.betas_centre[0].double().cpu().numpy()
    prior = problem.betas_prior.double().cpu().numpy() * frames
    return _System(
        cost=cost + float(away @ prior @ away),
        betas_gradient=betas_gradient + prior @ away,
        betas_block=betas_block + prior,
        **{name: np.concatenate(chunks) for name, chunks in parts.items()},
    )


def _solve(system: _System, held: np.ndarray, damping: float, fit_betas: bool) -> tuple[np.ndarray, np.ndarray]:
    """Damped step of all frames (T, 43) and of betas (10,), with some coordinates held."""
    frames = len(system.gradient)
    free = ~held
    diagonal = system.diagonal * free[:, :, None] * free[:, None, :]
    on_diagonal = np.einsum("tii->ti", diagonal)
    scale = on_diagonal + 1e-6 * on_diagonal.max(1, keepdims=True)
    on_diagonal += np.where(free, damping * scale, 1.0)
    neighbour = system.neighbour * free[:-1, :, None] * free[1:, None, :]
    # Lower band storage: band[i - j, j] = A[i, j].
    band = np.zeros((2 * BODY, frames, BODY))
    for column in range(BODY):
        band[: BODY - column, :, column] = diagonal[:, column:, column].T
        band[BODY - column : 2 * BODY - column, :-1, column] = neighbour[:, column, :].T
    border = system.border * free[:, None, :]
    right = np.concatenate([-(system.gradient * free)[:, None], border], 1).transpose(0, 2, 1)
    try:
        solved = solveh_banded(band.reshape(2 * BODY, -1), right.reshape(-1, 1 + NUM_BETAS), lower=True)
    except LinAlgError:
        return -system.gradient * free / scale * 0.1, np.zeros(NUM_BETAS)
    solved = solved.reshape(frames, BODY, 1 + NUM_BETAS)
    step, response = solved[..., 0], solved[..., 1:]
    if not fit_betas:
        return step, np.zeros(NUM_BETAS)
    reduced = system.betas_block - np.einsum("tbk,tkc->bc", border, response)
    reduced += damping * np.diag(np.diag(system.betas_block))
    betas_step = np.linalg.solve(reduced, -system.betas_gradient - np.einsum("tbk,tk->b", border, step))
    return step - response @ betas_step, betas_step
