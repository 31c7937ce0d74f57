"""One person over the frames of a video: one shape, and motion without jerks.

On top of each frame's own objective stands, over keypoints in the camera frame,

    sum_t sum_k |p_k(t-1) - 2 p_k(t) + p_k(t+1)|^2 / acceleration^2

so constant velocity costs nothing. All frames are solved together by Levenberg-Marquardt; the system is banded (a frame
meets two on either side) with a border for betas, so a long track costs time in proportion to its length. Frames
without keypoints are carried by their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from fitting.anatomy import COORDINATES
from fitting.body.skel import NUM_BETAS
from fitting.fit.keypoint_descent import Bounds, Found, recentred
from fitting.fit.keypoint_objective import BETAS, PLACE, POSE, KeypointProblem, camera_motion, camera_points, evaluate

FRAME = COORDINATES + 3
"""Unknowns of a frame: coordinates and the pelvis's place."""
_OWN = [*range(POSE.stop), *range(PLACE.start, PLACE.stop)]
_FRAMES_AT_A_TIME = 64
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-7, 1e4
_DOWN, _UP = 0.1, 8.0
_CONVERGED = 1e-3
"""A step that lowers the cost by a smaller share than this is the last."""
_STENCIL = (1.0, -2.0, 1.0)
_STEPS = (10.0, 3.0, 1.0)
"""Factors on the usual acceleration, one descent after the other: asked for smoothness at once, the robust errors would
let whole frames go."""
_WINDOW = 9
"""Frames whose median a frame is compared with."""
_ASTRAY = 0.12
"""m: a frame whose keypoints lie farther from that median, on average and relative to their middle, is not trusted."""


@dataclass(frozen=True)
class _System:
    """Cost and Gauss-Newton system of the whole track, float64."""

    cost: float
    gradient: np.ndarray
    """(T, 49)"""
    betas_gradient: np.ndarray
    """(10,)"""
    blocks: tuple[np.ndarray, np.ndarray, np.ndarray]
    """(T, 49, 49), (T-1, 49, 49), (T-2, 49, 49): a frame with itself, the next and the one after"""
    border: np.ndarray
    """(T, 49, 10)"""
    betas_block: np.ndarray
    """(10, 10)"""


def solve_track(
    problem: KeypointProblem, x: Tensor, bounds: Bounds, acceleration: float, iterations: int
) -> tuple[Found, bool]:
    """Refine the frames of one person together from unknowns (T, 59), inside the bounds; and whether that ended.

    `acceleration` is a keypoint's usual second difference between frames, m.
    """
    x = x.clone()
    x[:, BETAS] = x[:, BETAS].mean(0)
    problem, x = recentred(problem, bounds.inside(x))
    # The prior of the one shape counts once, not in every frame.
    problem = problem.changed(betas_precision=problem.betas_precision / len(x))
    count = 0
    for factor in _STEPS:
        problem, x, steps, converged = _descend(problem, x, bounds, factor * acceleration, iterations)
        count += steps
    own_cost = torch.cat([evaluate(problem.of(rows), x[rows]).cost for rows in _frames(x)])
    return Found(problem, x, own_cost, torch.full((len(x),), count)), converged


def _descend(
    problem: KeypointProblem, x: Tensor, bounds: Bounds, acceleration: float, iterations: int
) -> tuple[KeypointProblem, Tensor, int, bool]:
    low, high = (side[_OWN].double().cpu().numpy() for side in (bounds.lower, bounds.upper))
    shape_is_free = bool((bounds.lower[BETAS] < bounds.upper[BETAS]).any())
    system, damping = _assemble(problem, x, acceleration), _FIRST_DAMPING
    count, settled = 0, False
    while count < iterations and not settled:
        count += 1
        own, betas = x[:, _OWN].double().cpu().numpy(), x[0, BETAS].double().cpu().numpy()
        held = ((own <= low) & (system.gradient > 0)) | ((own >= high) & (system.gradient < 0))
        step, betas_step = _solve(system, held, damping, shape_is_free)
        trial = x.clone()
        trial[:, _OWN] = torch.as_tensor(np.clip(own + step, low, high)).to(x)
        trial[:, BETAS] = torch.as_tensor(betas + betas_step).to(x)
        trial = bounds.inside(trial)
        moved = _assemble(problem, trial, acceleration)
        drop = system.cost - moved.cost
        if drop >= 0:
            x, system, damping = trial, moved, max(damping * _DOWN, _LEAST_DAMPING)
        else:
            damping *= _UP
        settled = 0 <= drop < _CONVERGED * system.cost or damping > _MOST_DAMPING
    return *recentred(problem, x), count, settled


def trusted_frames(points: Tensor, valid: Tensor) -> Tensor:
    """(T,) for each frame the nearest whose own fit agrees with the frames around it.

    `points` (T, 44, 3) are the keypoints of every frame's own fit. One that sees the person the other way round differs
    from the median over its neighbours.
    """
    known = valid.nonzero()[:, 0]
    shown = points[known] - points[known].mean(1, keepdim=True)
    places = torch.arange(len(known), device=points.device)
    window = (places[:, None] + torch.arange(_WINDOW, device=points.device) - _WINDOW // 2).clamp(0, len(known) - 1)
    apart = (shown - shown[window].median(1).values).norm(dim=2).mean(1)
    trusted = known[apart <= max(_ASTRAY, float(apart.min()))]
    frames = torch.arange(len(valid), device=points.device)
    return trusted[(frames[:, None] - trusted).abs().argmin(1)]


def steady_place(place: Tensor) -> Tensor:
    """(T, 3) places moved along their rays to the distance that the frames around them have (their median's mean)."""
    logs = place[:, 2].log()
    ends = torch.nn.functional.pad(logs[None, None], (_WINDOW // 2, _WINDOW // 2), mode="replicate")[0, 0]
    middle = ends.unfold(0, _WINDOW, 1).median(1).values
    ends = torch.nn.functional.pad(middle[None, None], (_WINDOW // 2, _WINDOW // 2), mode="replicate")[0, 0]
    return place * (ends.unfold(0, _WINDOW, 1).mean(1) - logs).exp()[:, None]


def _frames(x: Tensor) -> tuple[Tensor, ...]:
    return torch.arange(len(x), device=x.device).split(_FRAMES_AT_A_TIME)


def _assemble(problem: KeypointProblem, x: Tensor, acceleration: float) -> _System:
    """Evaluate all frames; their points and derivatives, then, make the acceleration's part."""
    frames = len(x)
    parts = [evaluate(problem.of(rows), x[rows]) for rows in _frames(x)]
    cost = float(torch.cat([part.cost for part in parts]).double().sum())
    gradient = torch.cat([part.gradient for part in parts]).double().cpu().numpy()
    hessian = torch.cat([part.hessian for part in parts]).double().cpu().numpy()
    points = torch.cat([camera_points(problem.of(rows), x[rows]).flatten(1) for rows in _frames(x)])
    motion = torch.cat([camera_motion(problem.of(rows), x[rows])[:, _OWN].flatten(2) for rows in _frames(x)])
    points, motion = points.double().cpu().numpy(), motion.double().cpu().numpy()
    own = gradient[:, _OWN]
    diagonal = hessian[:, _OWN][:, :, _OWN]
    near = [np.zeros((max(frames - apart, 0), FRAME, FRAME)) for apart in (1, 2)]
    weight = 1 / acceleration**2
    if frames > 2:
        second = points[:-2] - 2 * points[1:-1] + points[2:]
        cost += weight * float(np.square(second).sum())
        count = frames - 2
        # How each frame stands in the differences that it is part of, and two frames in those that they share.
        force = np.zeros_like(points)
        shares = [np.zeros(frames), np.zeros(frames - 1), np.zeros(frames - 2)]
        for place, factor in enumerate(_STENCIL):
            force[place : place + count] += weight * factor * second
            for other in range(place, 3):
                shares[other - place][place : place + count] += weight * factor * _STENCIL[other]
        own = own + np.einsum("tup,tp->tu", motion, force)
        diagonal = diagonal + shares[0][:, None, None] * (motion @ motion.transpose(0, 2, 1))
        near = [
            shares[apart][:, None, None] * (motion[:-apart] @ motion[apart:].transpose(0, 2, 1)) for apart in (1, 2)
        ]
    return _System(
        cost,
        own,
        gradient[:, BETAS].sum(0),
        (diagonal, *near),
        hessian[:, _OWN][:, :, BETAS],
        hessian[:, BETAS, BETAS].sum(0),
    )


def _solve(
    system: _System, held: np.ndarray, damping: float, shape_is_free: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Damped step of all frames (T, 49) and of betas (10,), with some unknowns held."""
    frames = len(system.gradient)
    free = ~held
    blocks = []
    for apart, block in enumerate(system.blocks):
        rows, columns = free[: frames - apart] if apart else free, free[apart:]
        blocks.append(block * rows[:, :, None] * columns[:, None, :])
    on_diagonal = np.einsum("tii->ti", blocks[0])
    scale = on_diagonal + 1e-6 * on_diagonal.max(1, keepdims=True)
    on_diagonal += np.where(free, damping * scale, 1.0)
    # Lower band storage: band[i - j, j] = A[i, j].
    band = np.zeros((3 * FRAME, frames, FRAME))
    for column in range(FRAME):
        band[: FRAME - column, :, column] = blocks[0][:, column:, column].T
        for apart in (1, 2):
            first = apart * FRAME - column
            if frames > apart:
                band[first : first + FRAME, : frames - apart, column] = blocks[apart][:, column, :].T
    border = system.border * free[:, :, None]
    right = np.concatenate([-(system.gradient * free)[..., None], border], 2).reshape(-1, 1 + NUM_BETAS)
    try:
        solved = solveh_banded(band.reshape(3 * FRAME, -1), right, lower=True).reshape(frames, FRAME, -1)
    except LinAlgError:
        return -system.gradient * free / (scale + 1.0), np.zeros(NUM_BETAS)
    step, response = solved[..., 0], solved[..., 1:]
    if not shape_is_free:
        return step, np.zeros(NUM_BETAS)
    reduced = system.betas_block - np.einsum("tub,tuc->bc", border, response)
    reduced += damping * np.diag(np.diag(system.betas_block))
    betas_step = np.linalg.solve(reduced, -system.betas_gradient - np.einsum("tub,tu->b", border, step))
    return step - response @ betas_step, betas_step
