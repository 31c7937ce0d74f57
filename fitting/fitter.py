"""From SMPL parameters to SKEL parameters: `SKELFitter(smpl, skel).fit(poses, betas, trans)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pytorch3d.transforms import axis_angle_to_matrix
from torch import Tensor

from fitting import kinematics
from fitting.kinematics import HUMERUS_L, HUMERUS_R, JOINT_LIMITS, SCAPULA_L, SCAPULA_R
from fitting.linearisation import subtree_matrix, transforms_of
from fitting.objective import Moments, Points, residual
from fitting.root import root_angles, root_translation
from fitting.skel import SKEL
from fitting.solver import SolverOptions, levenberg_marquardt
from fitting.stages import BODY_COORDINATES, FullObjective, Problem, Region, RegionObjective
from fitting.start import start_poses
from fitting.transfer import shape_transfer


@dataclass(frozen=True)
class FitOptions:
    """What the fit minimises and how long it tries."""

    limits: Literal["bounds", "penalty", "none"] = "bounds"
    """Joint limits: hold exactly, cost something to exceed, or do not count."""
    fit_betas: bool = True
    """Move betas in the last stage; otherwise they stay as transferred."""
    joint_weight: float = 0.1
    """Weight of the 24 anatomical joints together, against 1 for all vertices together."""
    shoulder_weight: float = 2.0
    """Factor on scapulae and humeri among the joints, so that shoulders do not collapse."""
    pose_prior: float = 1e-6
    """Pull of each coordinate towards SMPL's own joint rotations, m^2 per rad^2."""
    betas_prior: float = 1e-6
    """Pull of betas towards the transferred ones, m^2 per squared standard deviation."""
    limit_penalty: float = 1e-3
    """Cost of exceeding a limit where limits are a penalty, m^2 per rad^2."""
    region_iterations: int = 12
    """Most iterations of the lower- and of the upper-body stage."""
    full_iterations: int = 12
    """Most iterations of the full-body stage."""
    step_tolerance: float = 3e-4
    """A person has converged when no unknown moved by more than this, rad or standard deviations."""
    cost_tolerance: float = 1e-4
    """A person has also converged when a step lowered the cost by less than this fraction."""


@dataclass(frozen=True)
class SKELFit:
    """SKEL parameters of B people, and how good they are. Rows that are not `valid` hold NaN."""

    poses: Tensor
    """(B, 46) rad"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor
    """(B, 3) m"""
    vertex_error_mm: Tensor
    """(B,) mean distance between SKEL's skin and the SMPL mesh"""
    vertex_error_p95_mm: Tensor
    """(B,) its 95th percentile over vertices"""
    max_vertex_error_mm: Tensor
    """(B,) its maximum"""
    joint_error_mm: Tensor
    """(B,) mean distance between SKEL's joints and those regressed from the SMPL mesh"""
    stage_vertex_error_mm: Tensor
    """(B, 4) mean vertex distance at the start, after the lower-body, upper-body and full-body stages"""
    stage_cost: Tensor
    """(B, 4) objective over all points at the same four moments, m^2"""
    iterations: Tensor
    """(B,) solver iterations over all stages"""
    converged: Tensor
    """(B,) bool: the full-body stage met its tolerance"""
    limits_exceeded: Tensor
    """(B,) coordinates outside their limits"""
    worst_limit_excess: Tensor
    """(B,) rad by which the worst of them is outside"""
    limits_pressed: Tensor
    """(B, 46) bool: coordinates that lie on a limit"""
    betas_change: Tensor
    """(B,) norm of betas minus transferred betas"""
    valid: Tensor
    """(B,) bool: the input was finite"""

    def __len__(self) -> int:
        return len(self.poses)

    def numpy(self) -> dict[str, np.ndarray]:
        """All fields as arrays."""
        return {f.name: getattr(self, f.name).cpu().numpy() for f in dataclasses.fields(self)}


LEGS = slice(kinematics.FEMUR_R, kinematics.LUMBAR)
TRUNK = slice(kinematics.LUMBAR, kinematics.JOINTS)
"""Joints of the lower-body and of the upper-body stage."""

_ON_LIMIT = 1e-4
"""A coordinate closer to its limit than this (rad) counts as lying on it."""

_PEOPLE_ON_CPU = 64
"""Batch that keeps two cores busy while its arrays stay near the caches."""

_BYTES_PER_POINT = 4 * 64
"""Working memory of a fit per point and person, measured: about 64 floats."""


@dataclass
class SKELFitter:
    """Fits SKEL to SMPL meshes in batches, on the device and in the precision of `skel`.

    `smpl` is a smplx.SMPL of any gender on SKEL's topology; `skel` a `fitting.SKEL`.
    """

    smpl: torch.nn.Module
    skel: SKEL
    options: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        skel, options = self.skel, self.options
        reference = skel.v_template
        self.device, self.dtype = reference.device, reference.dtype
        self.smpl = self.smpl.to(self.device, self.dtype)
        if len(self.smpl.v_template) != skel.num_vertices:
            raise ValueError(
                f"SMPL has {len(self.smpl.v_template)} vertices and SKEL {skel.num_vertices}: not one topology"
            )
        self.transfer = shape_transfer(
            self.smpl.v_template, self.smpl.shapedirs[..., :10], skel.v_template, skel.shapedirs
        )
        self.smpl_root = self.smpl.J_regressor[0] @ self.smpl.v_template
        self.smpl_root_shapes = torch.einsum("v,vck->ck", self.smpl.J_regressor[0], self.smpl.shapedirs[..., :10])
        self.points = Points.of(skel)
        self.subtree = subtree_matrix(skel.parents).to(reference)
        joints = torch.ones(24)
        joints[[SCAPULA_R, SCAPULA_L, HUMERUS_R, HUMERUS_L]] = options.shoulder_weight
        weights = torch.cat([torch.ones(skel.num_vertices) / skel.num_vertices, options.joint_weight / 24 * joints])
        weights = weights.to(reference)
        moved_by = self.points.skinning.T
        self.regions = {
            "lower": self._region(weights * (moved_by[:, LEGS].sum(1) > 0), LEGS, kinematics.LOWER_BODY_COORDINATES),
            "upper": self._region(weights * (moved_by[:, TRUNK].sum(1) > 0), TRUNK, kinematics.UPPER_BODY_COORDINATES),
            "full": self._region(weights, slice(1, kinematics.JOINTS), BODY_COORDINATES),
        }
        self.limits = torch.as_tensor(JOINT_LIMITS).to(reference)
        free = torch.full_like(self.limits, torch.inf) * torch.tensor([-1.0, 1.0]).to(reference)
        self.bounds = self.limits if options.limits == "bounds" else free
        self.start_limits = free if options.limits == "none" else self.limits

    def _region(self, weights: Tensor, joints: slice, coordinates: slice) -> Region:
        return Region(weights, joints, coordinates, Moments(self.points, weights))

    def default_batch_size(self) -> int:
        """People that are fitted at a time where the caller does not say."""
        if self.device.type != "cuda":
            return _PEOPLE_ON_CPU
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(8192, int(0.5 * free / (_BYTES_PER_POINT * len(self.points)))))

    def fit(
        self,
        poses: Tensor | np.ndarray,
        betas: Tensor | np.ndarray,
        trans: Tensor | np.ndarray | None = None,
        *,
        batch_size: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> SKELFit:
        """Fit B people: SMPL poses (B, 72) axis-angle, betas (B or 1, 10), trans (B, 3) in metres (zero if absent).

        `progress` is called with the number of people after each batch. Rows with a number that is not finite are not
        fitted (`valid` is False there); they do not touch the others.
        """
        poses, betas = self._tensor(poses, 72, "poses"), self._tensor(betas, 10, "betas")
        trans = poses.new_zeros(len(poses), 3) if trans is None else self._tensor(trans, 3, "trans")
        betas, trans = betas.expand(len(poses), -1), trans.expand(len(poses), -1)
        batch_size = batch_size or self.default_batch_size()
        if len(poses) == 0:
            nobody = self.fit(*(t.new_zeros(1, t.shape[1]) for t in (poses, betas, trans)))
            return SKELFit(**{f.name: getattr(nobody, f.name)[:0] for f in dataclasses.fields(SKELFit)})
        parts = []
        for first in range(0, len(poses), batch_size):
            rows = slice(first, first + batch_size)
            with torch.no_grad():
                parts.append(self._fit_batch(poses[rows], betas[rows], trans[rows]))
            if progress is not None:
                progress(len(parts[-1]))
        return SKELFit(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(SKELFit)})

    def _tensor(self, values: Tensor | np.ndarray, width: int, name: str) -> Tensor:
        tensor = torch.as_tensor(values, dtype=self.dtype, device=self.device)
        if tensor.ndim != 2 or tensor.shape[1] != width:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}; expected (B, {width})")
        return tensor

    def _fit_batch(self, poses: Tensor, betas: Tensor, trans: Tensor) -> SKELFit:
        valid = torch.cat([poses, betas, trans], 1).isfinite().all(1)
        poses, betas, trans = (torch.where(valid[:, None], t, torch.zeros_like(t)) for t in (poses, betas, trans))
        problem, start, skel_trans = self._problem(poses, betas, trans)
        stage_error, stage_cost, iterations = [], [], torch.zeros(len(poses), dtype=torch.int64, device=self.device)
        options = SolverOptions(
            max_iterations=self.options.region_iterations,
            step_tolerance=10 * self.options.step_tolerance,
            cost_tolerance=10 * self.options.cost_tolerance,
        )
        fitted_betas = problem.betas_centre
        everything = self.regions["full"].weights
        count = self.skel.num_vertices
        rest = self.skel.rest_frames(self.skel.rest_joints(fitted_betas))
        current = start
        for name in ("lower", "upper"):
            objective = RegionObjective(problem, self.regions[name], rest, fitted_betas, current)
            stage_error.append(objective.distances[:, :count].mean(1))
            stage_cost.append(objective.distances.square() @ everything)
            bounds = self.bounds[objective.region.coordinates]
            solution = levenberg_marquardt(objective, objective.start(), bounds[:, 0], bounds[:, 1], options)
            current = current.clone()
            current[:, objective.region.coordinates] = solution.x
            iterations += solution.iterations

        full = FullObjective(problem, self.regions["full"], current, fitted_betas, self.options.fit_betas)
        begin = full.start()
        bounds = self.bounds[3:]
        extra = bounds.new_full((begin.shape[1] - len(bounds), 2), torch.inf) * bounds.new_tensor([-1.0, 1.0])
        bounds = torch.cat([bounds, extra])
        options = SolverOptions(
            max_iterations=self.options.full_iterations,
            step_tolerance=self.options.step_tolerance,
            cost_tolerance=self.options.cost_tolerance,
        )
        solution = levenberg_marquardt(full, begin, bounds[:, 0], bounds[:, 1], options)
        iterations += solution.iterations
        stage_error.append(full.first_distances[:, :count].mean(1))
        stage_cost.append(full.first_distances.square() @ everything)
        everyone = torch.arange(len(poses), device=self.device)
        fitted_poses, fitted_betas = full.unpack(solution.x, everyone)
        distances = self._distances(problem, fitted_poses, fitted_betas)
        stage_error.append(distances[:, :count].mean(1))
        stage_cost.append(distances.square() @ everything)
        vertex, joint = 1000 * distances[:, :count], 1000 * distances[:, count:]
        low, high = self.limits.unbind(1)
        excess = torch.maximum(fitted_poses - high, low - fitted_poses).clamp_min(0)
        on_limit = (fitted_poses > high - _ON_LIMIT) | (fitted_poses < low + _ON_LIMIT)
        missing = ~valid

        def blank(values: Tensor) -> Tensor:
            return values.masked_fill(missing.view(-1, *[1] * (values.ndim - 1)), torch.nan)

        return SKELFit(
            poses=blank(fitted_poses),
            betas=blank(fitted_betas),
            trans=blank(skel_trans),
            vertex_error_mm=blank(vertex.mean(1)),
            vertex_error_p95_mm=blank(vertex.quantile(0.95, dim=1)),
            max_vertex_error_mm=blank(vertex.amax(1)),
            joint_error_mm=blank(joint.mean(1)),
            stage_vertex_error_mm=blank(1000 * torch.stack(stage_error, 1)),
            stage_cost=blank(torch.stack(stage_cost, 1)),
            iterations=iterations * valid,
            converged=solution.converged & valid,
            limits_exceeded=(excess > _ON_LIMIT).sum(1) * valid,
            worst_limit_excess=blank(excess.amax(1)),
            limits_pressed=on_limit & valid[:, None],
            betas_change=blank((fitted_betas - problem.betas_centre).norm(dim=1)),
            valid=valid,
        )

    def _problem(self, poses: Tensor, betas: Tensor, trans: Tensor) -> tuple[Problem, Tensor, Tensor]:
        """Target mesh, frozen root and start of a batch."""
        skel, options = self.skel, self.options
        rotations = axis_angle_to_matrix(poses.view(-1, 24, 3))
        mesh = self.smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3]).vertices
        centre, offset = self.transfer(betas)
        rest = skel.rest_frames(skel.rest_joints(centre))
        smpl_root = self.smpl_root + betas @ self.smpl_root_shapes.T
        basis = skel.per_joint_rot[0] @ skel.apose_rotations[0].T
        root = root_angles(rotations[:, 0], basis)
        # Trans relative to SMPL's: the fit runs near the origin, where float32 resolves nanometres.
        shift = root_translation(rotations[:, 0], smpl_root, rest.joints[:, 0], offset, torch.zeros_like(trans))
        target = mesh - shift[:, None]
        target = torch.cat([target, skel.J_regressor @ target], 1).transpose(1, 2).contiguous()
        start = start_poses(rest, skel.parents, rotations, root, self.start_limits)
        problem = Problem(
            skel=skel,
            points=self.points,
            subtree=self.subtree,
            target=target,
            pose_centre=start,
            pose_prior=torch.full_like(self.limits[:, 0], options.pose_prior),
            limits=self.limits,
            limit_penalty=options.limit_penalty if options.limits == "penalty" else 0.0,
            betas_centre=centre,
            betas_prior=options.betas_prior,
        )
        return problem, start, trans + shift

    def _distances(self, problem: Problem, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, N) distance of each point from its target, m."""
        rest = self.skel.rest_frames(self.skel.rest_joints(betas))
        posed = self.skel.pose(rest, poses)
        at_rest = self.points.at_rest(betas, self.skel.corrective_features(posed.local_rotations))
        weights = self.regions["full"].weights
        found = residual(self.points, weights, transforms_of(rest, posed), at_rest, problem.target, gradient=False)
        return found.distances
