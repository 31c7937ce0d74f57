"""What the fit minimises, per person, and its value, gradient and Gauss-Newton matrix.

    sum_p w_p |S_p - T_p|^2  +  sum_k prior (q_k - q_smpl,k)^2  +  (betas - transferred)^T P (betas - transferred)

over points p and coordinates k. Vertices weigh 1/V each; the 24 joint centres share one weight among them. A region of
the body is minimised on moments alone, the whole body on all points.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from fitting import anatomy
from fitting.body.kinematics import RestFrames
from fitting.body.skel import NUM_BETAS, SKEL
from fitting.fit import linearisation as lin
from fitting.fit.points import Moments, Points, residual
from fitting.fit.solver import Quadratic

BODY_COORDINATES = slice(3, 46)


@dataclass(frozen=True)
class Region:
    """The points a stage sees, and the coordinates it moves."""

    weights: Tensor
    """(N,) of the points"""
    coordinates: slice
    moments: Moments


@dataclass(frozen=True)
class Problem:
    """One batch of people to fit. Everything is relative to a frame whose origin is the frozen translation."""

    skel: SKEL
    points: Points
    subtree: Tensor
    """(24, 24)"""
    target: Tensor
    """(B, 3, N) SMPL vertices and anatomical joints"""
    pose_centre: Tensor
    """(B, 46) centre of the pose prior"""
    pose_prior: Tensor
    """(46,) weight of the pose prior, m^2 per rad^2"""
    limits: Tensor
    """(46, 2) rad, that the result is judged by; those that it is held to are the plan's"""
    betas_centre: Tensor
    """(B, 10) transferred betas"""
    betas_prior: Tensor
    """(10, 10) m^2 per squared standard deviation"""
    betas_reach: float
    """Betas may move so far from the transferred ones"""
    doubtful: Tensor
    """(B,) bool: the source itself cannot be right (`fitting.fit.verdict`)"""

    def of(self, index: Tensor) -> Problem:
        """The problem of some of the people."""
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in _PER_PERSON})


_PER_PERSON = ("target", "pose_centre", "betas_centre", "doubtful")

_Record = TypeVar("_Record")


def take(record: _Record, index: Tensor) -> _Record:
    """The rows `index` of every tensor of a dataclass."""
    return type(record)(**{f.name: getattr(record, f.name)[index] for f in dataclasses.fields(record)})


def rows(values: Tensor, index: Tensor) -> Tensor:
    """The rows `index`, different numbers in order; where that is all of them, nothing is copied."""
    return values if len(index) == len(values) else values[index]


def pose_terms(problem: Problem, poses: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prior at poses (B, 46): cost (B,), half gradient (B, 46), half second derivative (B, 46)."""
    away = poses - rows(problem.pose_centre, index)
    gradient = problem.pose_prior * away
    return (gradient * away).sum(1), gradient, problem.pose_prior.expand_as(poses)


class RegionObjective:
    """A stage on moments: betas and pose correctives are held, so points never need to be touched again."""

    def __init__(self, problem: Problem, region: Region, rest: RestFrames, betas: Tensor, poses: Tensor) -> None:
        self.problem, self.region, self.rest, self.poses = problem, region, rest, poses
        skel = problem.skel
        posed = skel.pose(rest, poses)
        self.transforms = lin.transforms_of(rest, posed)
        at_rest = problem.points.at_rest(betas, skel.corrective_features(posed.local_rotations))
        exact = residual(problem.points, region.weights, self.transforms, at_rest, problem.target, wrench=True)
        self.cost, self.wrench, self.distances = exact.cost, exact.wrench, exact.distances
        self.moment = region.moments(betas)
        self.joints = lin.joints_of(region.coordinates)
        self.own_moment = lin.moment_of(self.moment, self.joints).contiguous()

    def start(self) -> Tensor:
        return self.poses[:, self.region.coordinates]

    def __call__(self, x: Tensor, index: Tensor) -> Quadratic:
        problem, coordinates = self.problem, self.region.coordinates
        poses = self.poses[index]
        poses[:, coordinates] = x
        rest = self.rest if len(index) == len(self.poses) else take(self.rest, index)
        posed = problem.skel.pose(rest, poses)
        transforms = lin.transforms_of(rest, posed)
        # Cost and wrench as differences from the start: the moments themselves are a million times larger.
        change = transforms - rows(self.transforms, index)
        flat = change.transpose(1, 2).flatten(2)
        carried = (flat @ rows(self.moment, index)).unflatten(2, (24, 4)).transpose(1, 2)
        wrench = rows(self.wrench, index)
        cost = rows(self.cost, index) + (change * (2 * wrench + carried)).sum((1, 2, 3))
        twists = lin.pose_twists(problem.skel, rest, posed)
        gradient = lin.pose_gradient(twists, problem.subtree, transforms, wrench + carried)
        extra, slope, curvature = pose_terms(problem, poses, index)
        motion = lin.pose_motion(twists, problem.subtree, transforms, coordinates, self.joints)
        hessian = lin.gauss_newton(motion, rows(self.own_moment, index)) + torch.diag_embed(curvature[:, coordinates])
        return Quadratic(cost + extra, (gradient + slope)[:, coordinates], hessian)


class FullObjective:
    """The last stage: all points, exact cost and gradient, body coordinates and (optionally) betas as unknowns."""

    def __init__(self, problem: Problem, region: Region, poses: Tensor, betas: Tensor, fit_betas: bool) -> None:
        self.problem, self.region, self.poses, self.betas, self.fit_betas = problem, region, poses, betas, fit_betas
        self.first_distances: Tensor | None = None
        """(B, N) distances at the start, known once the solver has evaluated it."""

    def start(self) -> Tensor:
        body = self.poses[:, BODY_COORDINATES]
        return torch.cat([body, self.betas], 1) if self.fit_betas else body.clone()

    def unpack(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (B', 46) and betas (B', 10) of unknowns (B', n)."""
        body = anatomy.COORDINATES - BODY_COORDINATES.start
        poses = torch.cat([self.poses[index, : BODY_COORDINATES.start], x[:, :body]], 1)
        return poses, x[:, body:] if self.fit_betas else rows(self.betas, index)

    def __call__(self, x: Tensor, index: Tensor) -> Quadratic:
        problem, points, skel = self.problem, self.problem.points, self.problem.skel
        poses, betas = self.unpack(x, index)
        rest = skel.rest_frames(skel.rest_joints(betas))
        posed = skel.pose(rest, poses)
        transforms = lin.transforms_of(rest, posed)
        at_rest = points.at_rest(betas, skel.corrective_features(posed.local_rotations))
        exact = residual(
            points,
            self.region.weights,
            transforms,
            at_rest,
            rows(problem.target, index),
            wrench=True,
            by_directions=True,
        )
        by_betas, by_features = exact.by_directions[:, :NUM_BETAS], exact.by_directions[:, NUM_BETAS:]
        if self.first_distances is None:
            self.first_distances = exact.distances.clone()
        twists = lin.pose_twists(skel, rest, posed)
        extra, slope, curvature = pose_terms(problem, poses, index)
        gradient = lin.pose_gradient(twists, problem.subtree, transforms, exact.wrench) + slope
        gradient = (gradient + lin.corrective_gradient(skel, twists, posed, by_features))[:, BODY_COORDINATES]
        curvature = curvature[:, BODY_COORDINATES]
        cost = exact.cost + extra
        motion = None
        if self.fit_betas:
            away = betas - rows(problem.betas_centre, index)
            pull = (away[:, None] * problem.betas_prior).sum(2)
            motion = lin.shape_motion(skel, rest, posed)
            by_betas = (
                by_betas
                + pull
                + lin.shape_gradient(motion, posed, problem.subtree, transforms, exact.wrench, by_features)
            )
            gradient = torch.cat([gradient, by_betas], 1)
            cost = cost + (pull * away).sum(1)
        hessian = self._jtj(betas, transforms, twists, motion)
        body = curvature.shape[1]
        hessian[:, :body, :body] += torch.diag_embed(curvature)
        if self.fit_betas:
            hessian[:, body:, body:] += problem.betas_prior
        return Quadratic(cost, gradient, hessian, exact.distances)

    def _jtj(self, betas: Tensor, transforms: Tensor, twists: lin.Twists, motion: lin.ShapeMotion | None) -> Tensor:
        """(B, n, n) J^T J of the data term."""
        subtree, region = self.problem.subtree, self.region
        moment = region.moments(betas)
        by_pose = lin.pose_motion(twists, subtree, transforms, region.coordinates)
        if motion is None:
            return lin.gauss_newton(by_pose, moment)
        by_betas = motion.of_transforms(transforms, subtree)
        return lin.pose_and_shape(by_pose, by_betas, moment, *region.moments.of_shapes(betas, transforms))
