"""From SMPL parameters to SKEL parameters: `SKELFitter(smpl, skel).fit(poses, betas, trans)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch3d.transforms import axis_angle_to_matrix
from torch import Tensor

from fitting import anatomy
from fitting.anatomy import HUMERUS_L, HUMERUS_R, SCAPULA_L, SCAPULA_R
from fitting.body.kinematics import LOWER_BODY_COORDINATES, UPPER_BODY_COORDINATES
from fitting.body.limits import HUMAN_LIMITS, read_limits
from fitting.body.skel import SKEL
from fitting.fit.batches import filled, spread
from fitting.fit.linearisation import subtree_matrix
from fitting.fit.mesh_targets import MeshTargets, check_topology
from fitting.fit.objective import BODY_COORDINATES, Problem, Region, take
from fitting.fit.options import BETAS_PRIORS, FitOptions
from fitting.fit.points import Moments, Points
from fitting.fit.registration import Registrar
from fitting.fit.result import SKELFit, fit_result
from fitting.fit.root import root_angles, root_translation
from fitting.fit.sequence import ProblemOf, SequenceOptions, fit_together
from fitting.fit.shape_prior import shape_prior
from fitting.fit.solver import SolverOptions
from fitting.fit.stages import Plan, run_stages
from fitting.fit.start import start_poses
from fitting.fit.target import SMPLTarget, global_rotations
from fitting.fit.transfer import shape_transfer
from fitting.fit.verdict import doubtful

LEGS = slice(anatomy.FEMUR_R, anatomy.LUMBAR)
TRUNK = slice(anatomy.LUMBAR, anatomy.JOINTS)
"""Joints of the lower-body and of the upper-body stage."""

_PEOPLE_ON_CPU = 256
"""Batch in which array operations outweigh the calls to them; small inputs are cut finer, for every core's sake..."""

_FEWEST_ON_CPU = 24
"""...but not below this: some 9,000 calls a batch cost as much as 24 people do, and threads take turns at them. (24
people cut for 16 threads took 56 ms each of processor time, in one batch 7 ms.)"""

_BYTES_PER_POINT = 4 * 64
"""Working memory per point and person: about 40 floats are counted for the whole body's iteration, the rest is room."""


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
        self.target = SMPLTarget.of(self.smpl)
        self.points = Points.of(skel)
        self.subtree = subtree_matrix(skel.parents).to(reference)
        joints = torch.ones(24)
        joints[[SCAPULA_R, SCAPULA_L, HUMERUS_R, HUMERUS_L]] = options.shoulder_weight
        weights = torch.cat([torch.ones(skel.num_vertices) / skel.num_vertices, options.joint_weight / 24 * joints])
        weights = weights.to(reference)
        moved_by = self.points.skinning.T
        limits = read_limits(options.limits) if isinstance(options.limits, str | Path) else options.limits
        bounds = torch.as_tensor(limits).to(reference)
        # Who is held to no limits is still told how far from human the result is.
        self.limits = bounds if bounds.isfinite().any() else torch.as_tensor(HUMAN_LIMITS).to(reference)
        self.betas_prior = shape_prior(skel, BETAS_PRIORS[options.betas])
        tolerances = {"step_tolerance": options.step_tolerance, "cost_tolerance": options.cost_tolerance}
        # A region need not be exact: the full-body stage follows.
        loose = {name: 10 * value for name, value in tolerances.items()}
        self.plan = Plan(
            regions={
                "lower": self._region(weights * (moved_by[:, LEGS].sum(1) > 0), LOWER_BODY_COORDINATES),
                "upper": self._region(weights * (moved_by[:, TRUNK].sum(1) > 0), UPPER_BODY_COORDINATES),
                "full": self._region(weights, BODY_COORDINATES),
            },
            bounds=bounds,
            fit_betas=options.betas != "keep",
            region=SolverOptions(max_iterations=options.region_iterations, **loose),
            full=SolverOptions(max_iterations=options.full_iterations, **tolerances),
            second_try_above=options.second_try_above_mm / 1000,
        )

    @cached_property
    def _registrar(self) -> Registrar:
        return Registrar(self.target)

    def _region(self, weights: Tensor, coordinates: slice) -> Region:
        return Region(weights, coordinates, Moments(self.points, weights))

    def default_batch_size(self, people: int, threads: int | None = None) -> int:
        """How many of `people` are fitted at a time where the caller does not say."""
        if self.device.type != "cuda":
            batches = max(1, min(threads or torch.get_num_threads(), people // _FEWEST_ON_CPU))
            return max(1, min(_PEOPLE_ON_CPU, -(-people // batches)))
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(8192, int(0.5 * free / (_BYTES_PER_POINT * len(self.points)))))

    def fit(
        self,
        poses: Tensor | np.ndarray,
        betas: Tensor | np.ndarray,
        trans: Tensor | np.ndarray | None = None,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> SKELFit:
        """Fit B people: SMPL poses (B, 72) axis-angle, betas (B or 1, 10), trans (B, 3) in metres (zero if absent).

        `progress` is called with the number of people after each batch. Rows with a number that is not finite are not
        fitted (`valid` is False there); they do not touch the others. On a CPU, batches are spread over `threads`
        (default: torch's number) that each compute alone, so that results do not depend on how many there are.
        """
        poses, betas = self._tensor(poses, 72, "poses"), self._tensor(betas, 10, "betas")
        trans = poses.new_zeros(len(poses), 3) if trans is None else self._tensor(trans, 3, "trans")
        betas, trans = betas.expand(len(poses), -1), trans.expand(len(poses), -1)

        def fit_some(some: slice) -> SKELFit:
            # Copies start at aligned addresses, wherever the slice lies: libraries may round by alignment.
            given = [t[some].clone() for t in (poses, betas, trans)]
            valid = torch.cat(given, 1).isfinite().all(1)
            given, valid = filled(given, valid)
            return self._fit_batch(*self._problem(*given), valid)

        return self._fit_all(fit_some, len(poses), batch_size, threads, progress)

    def fit_vertices(
        self,
        vertices: Tensor | np.ndarray,
        betas: Tensor | np.ndarray | None = None,
        *,
        sequence: SequenceOptions | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> SKELFit:
        """Fit B meshes on SMPL's topology without parameters: vertices (B, V, 3) in metres, in any frame.

        Registrations, clothed templates, results of methods that give vertices. Where the root is, what the fit starts
        from and which shape it is near comes from the SMPL parameters of each mesh, which are found first
        (`fitting.fit.registration`); `betas` (B or 1, 10), of the fitter's SMPL, are kept where they are given. What
        is fitted, and what distances are measured against, is the mesh itself. With `sequence` the meshes are the
        frames of one motion, as in `fit_sequence`. `vertices` may be anything with a shape that gives arrays for
        slices, such as rows of a file; it is asked for a batch at a time.

        Further arguments as in `fit`. Meshes with a number that is not finite, or not of a human's size, are not fitted
        (`valid` is False there). Raises InputError for another number of vertices, and where most meshes are so large
        or small that their unit is no metre.
        """
        check_topology(vertices.shape, self.skel.num_vertices)
        if betas is not None:
            betas = self._tensor(betas, 10, "betas").expand(len(vertices), -1)
        batch_size = batch_size or self.default_batch_size(len(vertices), threads)
        targets = MeshTargets(vertices, betas, self._registrar, self.smpl.v_template)
        targets.measure(batch_size, threads)

        def fit_some(some: slice) -> SKELFit:
            own, mesh, valid = targets.register(some)
            problem, start, trans = self._problem_of(own.rotations, own.betas, own.trans, mesh=mesh)
            return self._fit_batch(problem, start, trans + own.origin, valid)

        alone = self._fit_all(fit_some, len(vertices), batch_size, threads, progress)
        kept = alone.valid.nonzero().flatten()
        if sequence is None or len(kept) == 0:
            return alone
        found = targets.registered()

        def problem_of(some: slice, centre: Tensor | None) -> tuple[Problem, Tensor]:
            own = take(found, kept[some])
            mesh = targets.meshes_at(kept[some], own.origin)
            problem, _, trans = self._problem_of(own.rotations, own.betas, own.trans, centre, mesh)
            return problem, trans + own.origin

        return self._together(alone, kept, found.betas, problem_of, sequence, batch_size, threads, progress)

    def _fit_all(
        self,
        fit_some: Callable[[slice], SKELFit],
        people: int,
        batch_size: int | None,
        threads: int | None,
        progress: Callable[[int], object] | None,
    ) -> SKELFit:
        """Fit people in batches; what `fit_some` returns beyond its slice is left out."""
        batch_size = batch_size or self.default_batch_size(people, threads)

        def fit_from(first: int) -> SKELFit:
            with torch.inference_mode():
                return fit_some(slice(first, first + batch_size)).first(min(batch_size, people - first))

        parts = []
        for part in spread(fit_from, range(0, max(people, 1), batch_size), self.device, threads):
            parts.append(part)
            if progress is not None:
                progress(len(part))
        return SKELFit.concatenate(parts)

    def fit_sequence(
        self,
        poses: Tensor | np.ndarray,
        betas: Tensor | np.ndarray,
        trans: Tensor | np.ndarray | None = None,
        *,
        options: SequenceOptions | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> SKELFit:
        """Fit the T frames of one motion: one shape, and surface velocities like the target's (`fitting.fit.sequence`).

        Arguments and result as in `fit`, whose result for the single frames is the start; `progress` hears of every
        frame twice. Angles run on from frame to frame (`fitting.fit.continuity`). Frames with a number that is not
        finite are left out, as if the motion did not have them.
        """
        alone = self.fit(poses, betas, trans, batch_size=batch_size, threads=threads, progress=progress)
        kept = alone.valid.nonzero().flatten()
        if len(kept) == 0:
            return alone
        poses, betas = self._tensor(poses, 72, "poses"), self._tensor(betas, 10, "betas")
        trans = poses.new_zeros(1, 3) if trans is None else self._tensor(trans, 3, "trans")
        poses, betas, trans = (t.expand(len(alone), -1) for t in (poses, betas, trans))

        def problem_of(some: slice, centre: Tensor | None) -> tuple[Problem, Tensor]:
            problem, _, skel_trans = self._problem(*(t[kept[some]] for t in (poses, betas, trans)), centre)
            return problem, skel_trans

        options = options or SequenceOptions()
        batch_size = batch_size or self.default_batch_size(len(kept), threads)
        return self._together(alone, kept, betas, problem_of, options, batch_size, threads, progress)

    def _together(
        self,
        alone: SKELFit,
        kept: Tensor,
        betas: Tensor,
        problem_of: ProblemOf,
        options: SequenceOptions,
        batch_size: int,
        threads: int | None,
        progress: Callable[[int], object] | None,
    ) -> SKELFit:
        """Frames `kept` of a motion fitted together, of SMPL's betas (T, 10), the others as they are alone."""

        def on_threads(work: Callable[[int], Any], items: Iterable[int]) -> Iterator[Any]:
            return spread(work, items, self.device, threads)

        transferred = self.transfer(betas[kept])[0]
        frames = take(alone, kept)
        together = fit_together(frames, transferred, problem_of, self.plan, options, on_threads, batch_size, progress)
        return alone.with_rows(kept, together)

    def _tensor(self, values: Tensor | np.ndarray, width: int, name: str) -> Tensor:
        tensor = torch.as_tensor(values, dtype=self.dtype, device=self.device)
        if tensor.ndim != 2 or tensor.shape[1] != width:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}; expected (B, {width})")
        return tensor

    def _fit_batch(self, problem: Problem, start: Tensor, skel_trans: Tensor, valid: Tensor) -> SKELFit:
        fit = fit_result(run_stages(problem, start, self.plan), problem, skel_trans, valid)
        if not self.options.measure_betas_gain:
            return fit
        kept = fit_result(run_stages(problem, start, replace(self.plan, fit_betas=False)), problem, skel_trans, valid)
        return replace(fit, betas_gain_mm=kept.vertex_error_mm - fit.vertex_error_mm)

    def _problem(
        self, poses: Tensor, betas: Tensor, trans: Tensor, centre: Tensor | None = None
    ) -> tuple[Problem, Tensor, Tensor]:
        """Target mesh, start and SKEL's translation of SMPL parameters; `centre` (10,) replaces transferred betas."""
        problem, start, skel_trans = self._problem_of(axis_angle_to_matrix(poses.view(-1, 24, 3)), betas, trans, centre)
        return replace(problem, doubtful=doubtful(poses, trans)), start, skel_trans

    def _problem_of(
        self,
        rotations: Tensor,
        betas: Tensor,
        trans: Tensor,
        centre: Tensor | None = None,
        mesh: Tensor | None = None,
    ) -> tuple[Problem, Tensor, Tensor]:
        """The same from joint rotations (B, 24, 3, 3), for SMPL's own mesh or another one (B, 3, V)."""
        skel, options = self.skel, self.options
        turned = global_rotations(rotations)
        transferred, offset = self.transfer(betas)
        centre = transferred if centre is None else centre.expand(len(betas), -1)
        rest = skel.rest_frames(skel.rest_joints(centre))
        basis = skel.per_joint_rot[0] @ skel.apose_rotations[0].T
        root = root_angles(rotations[:, 0], basis)
        # Trans relative to SMPL's: the fit runs near the origin, where float32 resolves nanometres.
        shift = root_translation(
            rotations[:, 0], self.target.root(betas), rest.joints[:, 0], offset, torch.zeros_like(trans)
        )
        if mesh is None:
            target = self.target.mesh(betas, rotations, turned).sub_(shift[..., None])
        else:
            target = mesh - (trans + shift)[..., None]
        joints = (target.flatten(0, 1) @ skel.J_regressor.T).unflatten(0, (-1, 3))
        target = torch.cat([target, joints], 2)
        start = start_poses(rest, skel.parents, turned, root, self.plan.bounds)
        problem = Problem(
            skel=skel,
            points=self.points,
            subtree=self.subtree,
            target=target,
            pose_centre=start,
            pose_prior=torch.full_like(self.limits[:, 0], options.pose_prior),
            limits=self.limits,
            betas_centre=centre,
            betas_prior=self.betas_prior,
            betas_reach=options.betas_reach,
            doubtful=torch.zeros_like(trans[:, 0], dtype=torch.bool),
        )
        return problem, start, trans + shift
