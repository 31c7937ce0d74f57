"""From SMPL parameters to SKEL parameters: `SKELFitter(smpl, skel).fit(poses, betas, trans)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pytorch3d.transforms import axis_angle_to_matrix
from torch import Tensor

from fitting import anatomy
from fitting.anatomy import HUMERUS_L, HUMERUS_R, SCAPULA_L, SCAPULA_R
from fitting.body.kinematics import LOWER_BODY_COORDINATES, UPPER_BODY_COORDINATES
from fitting.body.limits import HUMAN_LIMITS, read_limits
from fitting.body.skel import SKEL
from fitting.fit.linearisation import subtree_matrix
from fitting.fit.objective import BODY_COORDINATES, Problem, Region
from fitting.fit.options import BETAS_PRIORS, FitOptions
from fitting.fit.points import Moments, Points
from fitting.fit.result import SKELFit, describe
from fitting.fit.root import root_angles, root_translation
from fitting.fit.sequence import SequenceOptions, sequence_outcome, solve_sequence
from fitting.fit.shape_prior import shape_prior
from fitting.fit.solver import LEAST_PEOPLE, SolverOptions
from fitting.fit.stages import Plan, run_stages
from fitting.fit.start import start_poses
from fitting.fit.target import SMPLTarget, global_rotations
from fitting.fit.transfer import shape_transfer
from fitting.fit.verdict import doubtful

LEGS = slice(anatomy.FEMUR_R, anatomy.LUMBAR)
TRUNK = slice(anatomy.LUMBAR, anatomy.JOINTS)
"""Joints of the lower-body and of the upper-body stage."""

_PEOPLE_ON_CPU = 256
"""Batch in which array operations outweigh the calls to them; small inputs are cut finer, for every core's sake."""

_BYTES_PER_POINT = 4 * 64
"""Working memory per point and person: about 40 floats are counted for the whole body's iteration, the rest is room."""


_Item = TypeVar("_Item")


def _spread(
    work: Callable[[int], _Item], items: Iterable[int], device: torch.device, threads: int | None
) -> Iterator[_Item]:
    """Results in order: on a CPU from threads of one core each, elsewhere one after the other."""
    if device.type != "cpu":
        yield from map(work, items)
        return
    threads = threads or torch.get_num_threads()
    with ThreadPoolExecutor(threads, "fit", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, items)


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

    def _region(self, weights: Tensor, coordinates: slice) -> Region:
        return Region(weights, coordinates, Moments(self.points, weights))

    def default_batch_size(self, people: int, threads: int | None = None) -> int:
        """How many of `people` are fitted at a time where the caller does not say."""
        if self.device.type != "cuda":
            share = -(-people // (threads or torch.get_num_threads()))
            return max(1, min(_PEOPLE_ON_CPU, share))
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
        batch_size = batch_size or self.default_batch_size(len(poses), threads)

        def fit_some(first: int) -> SKELFit:
            # Copies start at aligned addresses, wherever the slice lies: libraries may round by alignment.
            some = [t[first : first + batch_size].clone() for t in (poses, betas, trans)]
            count = len(some[0])
            if count < LEAST_PEOPLE:
                some = [torch.cat([t, t.new_zeros(LEAST_PEOPLE - count, t.shape[1])]) for t in some]
            with torch.no_grad():
                return self._fit_batch(*some).first(count)

        parts = []
        for part in _spread(fit_some, range(0, max(len(poses), 1), batch_size), self.device, threads):
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

        Arguments and result as in `fit`, whose result for the single frames is the start. Frames with a number that is
        not finite are left out, as if the motion did not have them.
        """
        alone = self.fit(poses, betas, trans, batch_size=batch_size, threads=threads, progress=progress)
        kept = alone.valid.nonzero().flatten()
        if len(kept) == 0:
            return alone
        poses, betas = self._tensor(poses, 72, "poses"), self._tensor(betas, 10, "betas")
        trans = poses.new_zeros(1, 3) if trans is None else self._tensor(trans, 3, "trans")
        betas, trans = (t.expand(len(poses), -1)[kept] for t in (betas, trans))
        with torch.no_grad():
            # One shape means one rest position of the root, which the frozen translation is made from.
            centre = self.transfer(betas)[0].mean(0)
            reach = self.options.betas_reach
            start_betas = alone.betas[kept].mean(0).clamp(centre - reach, centre + reach)
            chunks = kept.split(batch_size or self.default_batch_size(len(kept), threads))
            made = [
                self._problem(poses[rows], b, t, centre)
                for rows, b, t in zip(chunks, betas.split(len(chunks[0])), trans.split(len(chunks[0])), strict=True)
            ]
            problem = Problem.join([problem for problem, _, _ in made])
            skel_trans = torch.cat([t for _, _, t in made])
            start = alone.poses[kept].clone()
            start[:, :3] = problem.pose_centre[:, :3]
            solution = solve_sequence(problem, self.plan, start, start_betas, options or SequenceOptions())
            outcome = sequence_outcome(problem, self.plan, solution, alone, kept)
            together = describe(outcome, problem, skel_trans, alone.valid[kept])
        return alone.with_rows(kept, together)

    def _tensor(self, values: Tensor | np.ndarray, width: int, name: str) -> Tensor:
        tensor = torch.as_tensor(values, dtype=self.dtype, device=self.device)
        if tensor.ndim != 2 or tensor.shape[1] != width:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}; expected (B, {width})")
        return tensor

    def _fit_batch(self, poses: Tensor, betas: Tensor, trans: Tensor) -> SKELFit:
        valid = torch.cat([poses, betas, trans], 1).isfinite().all(1)
        poses, betas, trans = (torch.where(valid[:, None], t, torch.zeros_like(t)) for t in (poses, betas, trans))
        problem, start, skel_trans = self._problem(poses, betas, trans)
        fit = describe(run_stages(problem, start, self.plan), problem, skel_trans, valid)
        if not self.options.measure_betas_gain:
            return fit
        kept = describe(run_stages(problem, start, replace(self.plan, fit_betas=False)), problem, skel_trans, valid)
        return replace(fit, betas_gain_mm=kept.vertex_error_mm - fit.vertex_error_mm)

    def _problem(
        self, poses: Tensor, betas: Tensor, trans: Tensor, centre: Tensor | None = None
    ) -> tuple[Problem, Tensor, Tensor]:
        """Target mesh, frozen root and start of a batch; `centre` (10,) replaces the transferred betas."""
        skel, options = self.skel, self.options
        rotations = axis_angle_to_matrix(poses.view(-1, 24, 3))
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
        target = self.target.mesh(betas, rotations, turned).sub_(shift[..., None])
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
            doubtful=doubtful(poses, trans),
        )
        return problem, start, trans + shift
