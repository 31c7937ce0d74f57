"""Some frames of a motion, solved together: a Gauss-Newton system in which a frame only meets its neighbours.

On top of each frame's own objective stands, between neighbouring frames,

    smoothness * sum_p w_p |(S_p(t+1) - S_p(t)) - (T_p(t+1) - T_p(t))|^2

so motion is not damped: what is punished is moving otherwise than the target. The shape is given. The system is banded,
so its solution costs time in proportion to the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from fitting.anatomy import COORDINATES
from fitting.fit import linearisation as lin
from fitting.fit.objective import BODY_COORDINATES, Problem, Region, pose_terms
from fitting.fit.points import blend, place, unpose, wrench_of
from fitting.fit.solver import DAMPING_DOWN, DAMPING_MAX, DAMPING_MIN, DAMPING_UP, DIAGONAL_FLOOR, SolverOptions

BODY = COORDINATES - BODY_COORDINATES.start
"""Unknowns of a frame; the root is frozen."""


@dataclass(frozen=True)
class Frames:
    """T frames of one motion."""

    problem: Problem
    region: Region
    """All points, and the body's coordinates"""
    betas: Tensor
    """(10,) the shape, which stays"""
    coupled: Tensor
    """(T-1,) bool: whether a frame's velocity to the next one counts"""
    smoothness: float
    """Weight of velocity errors against position errors"""


@dataclass(frozen=True)
class BandedSolution:
    poses: Tensor
    """(T, 46)"""
    distances: Tensor
    """(T, N) of the points from their targets, m"""
    iterations: int
    converged: bool


@dataclass(frozen=True)
class System:
    """Cost and Gauss-Newton system of some frames, on the CPU in float64."""

    cost: float
    gradient: np.ndarray
    """(T, 43), halved"""
    diagonal: np.ndarray
    """(T, 43, 43)"""
    neighbour: np.ndarray
    """(T-1, 43, 43) block between frames t and t+1"""
    distances: Tensor
    """(T, N) m"""

    def times(self, step: np.ndarray) -> np.ndarray:
        """(T, 43) product of the matrix and a step (T, 43)."""
        product = np.einsum("tij,tj->ti", self.diagonal, step)
        product[:-1] += np.einsum("tij,tj->ti", self.neighbour, step[1:])
        product[1:] += np.einsum("tji,tj->ti", self.neighbour, step[:-1])
        return product

    def promise(self, step: np.ndarray) -> float:
        """By how much the cost falls with a step, as far as the model knows."""
        return -float((step * (2 * self.gradient + self.times(step))).sum())


def solve_frames(frames: Frames, poses: Tensor, bounds: Tensor, options: SolverOptions) -> BandedSolution:
    """Refine frames together from poses (T, 46), inside bounds (46, 2), by Levenberg and Marquardt's method."""
    low, high = (side.double().cpu().numpy() for side in bounds[BODY_COORDINATES].unbind(1))
    system = assemble(frames, poses)
    damping, converged, iterations = options.damping, False, 0
    while not converged and iterations < options.max_iterations:
        q = poses[:, BODY_COORDINATES].double().cpu().numpy()
        step = _bounded_step(system, q, low, high, damping)
        if step is not None and system.promise(step) <= options.cost_tolerance * system.cost:
            converged = True
            break
        iterations += 1
        drop = -np.inf
        if step is not None:
            trial_poses = poses.clone()
            trial_poses[:, BODY_COORDINATES] = torch.as_tensor(np.clip(q + step, low, high)).to(poses)
            trial = assemble(frames, trial_poses)
            drop = system.cost - trial.cost
        if drop >= 0:
            converged = drop <= options.cost_tolerance * system.cost
            poses, system, damping = trial_poses, trial, max(damping * DAMPING_DOWN, DAMPING_MIN)
        else:
            # A rejected step at full damping cannot be improved upon.
            converged = damping >= DAMPING_MAX
            damping *= DAMPING_UP
    return BandedSolution(poses, system.distances, iterations, bool(converged))


def assemble(frames: Frames, all_poses: Tensor) -> System:
    """Evaluate the frames at poses (T, 46)."""
    problem, region = frames.problem, frames.region
    skel, points = problem.skel, problem.points
    count = len(all_poses)
    shape = frames.betas[None]
    rest = skel.rest_frames(skel.rest_joints(shape))
    rest = type(rest)(**{name: values.expand(count, *values.shape[1:]) for name, values in vars(rest).items()})
    posed = skel.pose(rest, all_poses)
    transforms = lin.transforms_of(rest, posed)
    at_rest = points.at_rest(shape.expand(count, -1), skel.corrective_features(posed.local_rotations))
    blended = blend(points, transforms)
    r = place(blended, at_rest) - problem.target
    coupled = frames.smoothness * frames.coupled.to(r)
    velocity = r[1:] - r[:-1]
    pull = coupled[:, None, None] * velocity
    # Half the gradient of the data term by r.
    force = r.clone()
    force[1:] += pull
    force[:-1] -= pull
    force *= region.weights

    extra, slope, curvature = pose_terms(problem, all_poses, torch.arange(count, device=r.device))
    squares = r.square().sum(1)
    position_cost = squares @ region.weights + extra
    velocity_cost = coupled * (velocity.square().sum(1) @ region.weights)

    wrench = wrench_of(points, force, at_rest)
    by_features = unpose(blended, force) @ points.directions[-skel.posedirs.shape[0] :].T
    twists = lin.pose_twists(skel, rest, posed)
    gradient = lin.pose_gradient(twists, problem.subtree, transforms, wrench) + slope
    gradient = gradient + lin.corrective_gradient(skel, twists, posed, by_features)
    moment = region.moments(shape).expand(count, -1, -1)
    motion = lin.pose_motion(twists, problem.subtree, transforms, region.coordinates)
    neighbours = torch.zeros_like(extra)
    neighbours[1:] += coupled
    neighbours[:-1] += coupled
    diagonal = (1 + neighbours)[:, None, None] * lin.gauss_newton(motion, moment)
    diagonal = diagonal + torch.diag_embed(curvature[:, BODY_COORDINATES])
    neighbour = -coupled[:, None, None] * lin.gauss_newton(motion[:-1], moment[:-1], motion[1:])

    def array(values: Tensor) -> np.ndarray:
        return values.double().cpu().numpy()

    return System(
        cost=float(position_cost.double().sum() + velocity_cost.double().sum()),
        gradient=array(gradient[:, BODY_COORDINATES]),
        diagonal=array(diagonal),
        neighbour=array(neighbour),
        distances=squares.sqrt(),
    )


def _bounded_step(
    system: System, q: np.ndarray, low: np.ndarray, high: np.ndarray, damping: float
) -> np.ndarray | None:
    """(T, 43) damped step from q (T, 43) that stays inside bounds (43,); None where rounding leaves none."""
    held = ((q <= low) & (system.gradient > 0)) | ((q >= high) & (system.gradient < 0))
    step = damped_step(system, held, damping)
    if step is None:
        return None
    outside = (q + step < low) | (q + step > high)
    if outside.any():
        # What the step carries beyond a bound stops there, and the rest is solved for again, knowing that.
        cut = np.where(outside, np.clip(q + step, low, high) - q, 0.0)
        after = replace(system, gradient=system.gradient + system.times(cut))
        step = damped_step(after, held | outside, damping)
        if step is None:
            return None
        step = step + cut
    return np.clip(q + step, low, high) - q


def damped_step(system: System, held: np.ndarray, damping: float) -> np.ndarray | None:
    """(T, 43) minimum of the damped model with some coordinates (T, 43) held; None where rounding leaves none."""
    count = len(system.gradient)
    free = ~held
    diagonal = system.diagonal * free[:, :, None] * free[:, None, :]
    on_diagonal = np.einsum("tii->ti", diagonal)
    scale = on_diagonal + DIAGONAL_FLOOR * on_diagonal.max(1, keepdims=True)
    on_diagonal += np.where(free, damping * scale, 1.0)
    neighbour = system.neighbour * free[:-1, :, None] * free[1:, None, :]
    # Lower band storage: band[i - j, j] = A[i, j].
    band = np.zeros((2 * BODY, count, BODY))
    for column in range(BODY):
        band[: BODY - column, :, column] = diagonal[:, column:, column].T
        band[BODY - column : 2 * BODY - column, :-1, column] = neighbour[:, column, :].T
    right = -(system.gradient * free).ravel()
    try:
        return solveh_banded(band.reshape(2 * BODY, -1), right, lower=True).reshape(count, BODY)
    except LinAlgError:
        return None
