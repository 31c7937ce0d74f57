"""What the fit to 2D keypoints minimises, per person, with value, gradient and Gauss-Newton matrix.

    sum_k c_k rho(|e_k|) / noise^2  +  (q - m)' P (q - m)  +  |betas|^2  +  pull terms

e_k is the reprojection error in metres at the person's distance, c_k the keypoint's confidence, and rho(e) = e^2 s^2 /
(s^2 + e^2) Geman and McClure's (1987), which grows no more beyond s: a wrong keypoint is let go. m and P are the pose
prior's. A pull holds keypoints at given depths; it leads a start to another solution and is then let go.

Unknowns are the pelvis's three angles, 43 coordinates, 10 betas and the pelvis's place before the camera. The pelvis
turns from a given orientation, so its angles stay small and never come near their singularity.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.anatomy import COORDINATES
from fitting.body.skel import NUM_BETAS
from fitting.fit.keypoint_points import KeypointBody
from fitting.fit.solver import Quadratic

POSE, BETAS, PLACE = (
    slice(0, COORDINATES),
    slice(COORDINATES, COORDINATES + NUM_BETAS),
    slice(COORDINATES + NUM_BETAS, 59),
)
UNKNOWNS = PLACE.stop
BODY = slice(3, COORDINATES)

NEAREST = 0.1
"""Points are projected as if they lay at least this far (m) before the camera."""


@dataclass(frozen=True)
class KeypointProblem:
    """B people to fit; every tensor has them first, but for those of the prior."""

    body: KeypointBody
    rays: Tensor
    """(B, 2, K) x / z and y / z of the observed keypoints"""
    confidence: Tensor
    """(B, K)"""
    distance: Tensor
    """(B,) m: turns angles into metres at the person"""
    orientation: Tensor
    """(B, 3, 3) of the camera frame, from which the pelvis turns"""
    corrected: Tensor
    """(B, K * 96) the keypoints' 4-vectors with pose correctives held (`KeypointBody.corrected`)"""
    pose_centre: Tensor
    """(B, 43)"""
    pose_precision: Tensor
    """(B, 43, 43) or (1, 43, 43)"""
    betas_centre: Tensor
    """(B, 10)"""
    betas_precision: Tensor
    """(B,)"""
    noise: float
    """m: standard deviation of a sure keypoint"""
    outlier: float
    """m: errors beyond are taken for mistakes"""
    depths: Tensor | None = None
    """(B, K) z relative to the pelvis to which a pull holds the keypoints, m"""
    pull: Tensor | None = None
    """(B, K) 1 / m^2; None: no pull"""
    shape_moves: bool = True
    """False: betas keep their values, which spares a third of the work"""

    def of(self, index: Tensor) -> KeypointProblem:
        """The problem of some of the people, or of some several times."""
        people = {name: getattr(self, name)[index] for name in _PER_PERSON}
        if self.pull is not None:
            people |= {"depths": self.depths[index], "pull": self.pull[index]}
        if len(self.pose_precision) > 1:
            people["pose_precision"] = self.pose_precision[index]
        return dataclasses.replace(self, **people)

    def changed(self, **values: Tensor | float | None) -> KeypointProblem:
        """A copy with other values."""
        return dataclasses.replace(self, **values)


_PER_PERSON = (
    *("rays", "confidence", "distance", "orientation", "corrected", "pose_centre", "betas_centre", "betas_precision"),
)


def camera_points(problem: KeypointProblem, x: Tensor) -> Tensor:
    """(B, 3, K) keypoints in the camera frame, m, of unknowns (B, 59)."""
    placed = problem.body.place(x[:, POSE], x[:, BETAS], problem.corrected)
    return problem.orientation @ placed.points + x[:, PLACE, None]


def camera_motion(problem: KeypointProblem, x: Tensor) -> Tensor:
    """(B, 59, 3, K) derivative of `camera_points` by the unknowns."""
    return _points_and_motion(problem, x)[1]


def _points_and_motion(problem: KeypointProblem, x: Tensor) -> tuple[Tensor, Tensor]:
    placed = problem.body.place(
        x[:, POSE], x[:, BETAS], problem.corrected, slopes=True, shape=problem.shape_moves, turn=problem.orientation
    )
    points = placed.points + x[:, PLACE, None]
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    shift = eye[None, :, :, None].expand(len(x), -1, -1, points.shape[2])
    return points, torch.cat([placed.by_pose, placed.by_betas, shift], 1)


def evaluate(problem: KeypointProblem, x: Tensor) -> Quadratic:
    """The objective's quadratic model at unknowns (B, 59)."""
    points, motion = _points_and_motion(problem, x)
    inverse = 1 / points[:, 2].clamp_min(NEAREST)
    before = (points[:, 2] > NEAREST).to(x)
    seen = points[:, :2] * inverse[:, None]
    error = problem.distance[:, None, None] * (seen - problem.rays)
    square = error.square().sum(1)
    s2 = problem.outlier**2
    kept = s2 / (s2 + square)
    weight = problem.confidence / problem.noise**2
    cost = (weight * square * kept).sum(1)

    scale = problem.distance[:, None] * inverse
    slope = (motion[:, :, :2] - (seen * before[:, None])[:, None] * motion[:, :, 2:]) * scale[:, None, None]
    # Half the derivative of s^2 e^2 / (s^2 + e^2) by e is e (s^2 / (s^2 + e^2))^2.
    steer = weight * kept.square()
    gradient = (slope * (steer[:, None] * error)[:, None]).sum((2, 3))
    jacobian = (steer.sqrt()[:, None, None] * slope).flatten(2)
    hessian = jacobian @ jacobian.transpose(1, 2)
    if problem.pull is not None:
        apart = points[:, 2] - x[:, PLACE][:, 2:] - problem.depths
        along = motion[:, :, 2].clone()
        along[:, -1] = 0
        cost = cost + (problem.pull * apart.square()).sum(1)
        gradient = gradient + (along * (problem.pull * apart)[:, None]).sum(2)
        along = along * problem.pull.sqrt()[:, None]
        hessian = hessian + along @ along.transpose(1, 2)
    away = x[:, BODY] - problem.pose_centre
    pushed = (problem.pose_precision @ away[..., None])[..., 0]
    shape = x[:, BETAS] - problem.betas_centre
    cost = cost + (away * pushed).sum(1) + problem.betas_precision * shape.square().sum(1)
    gradient[:, BODY] += pushed
    if problem.shape_moves:
        gradient[:, BETAS] += problem.betas_precision[:, None] * shape
    hessian[:, BODY, BODY] += problem.pose_precision
    hessian[:, BETAS, BETAS] += problem.betas_precision[:, None, None] * torch.eye(NUM_BETAS).to(x)
    return Quadratic(cost, gradient, hessian)
