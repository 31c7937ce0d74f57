"""From 2D keypoints to SKEL parameters and a place before the camera: `fit_keypoints(keypoints, focal, principal)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from fitting.body.limits import HUMAN_LIMITS
from fitting.body.skel import NUM_BETAS
from fitting.fit.keypoint_descent import Bounds, Found, finish, pelvis_rotation, search
from fitting.fit.keypoint_layouts import to_44
from fitting.fit.keypoint_objective import BETAS, NEAREST, PLACE, POSE, KeypointProblem
from fitting.fit.keypoint_points import KeypointBody
from fitting.fit.keypoint_start import FLIPS, distance_of, place_before_camera, upright
from fitting.fit.keypoint_track import solve_track, steady_place, trusted_frames
from fitting.fit.pose_prior import PosePrior
from fitting.fit.root import root_angles
from fitting.fit.solver import SolverOptions
from schemas import InputError
from schemas.camerahmr import KEYPOINT_NAMES, KEYPOINTS, OPENPOSE_NAMES


@dataclass(frozen=True)
class KeypointFitOptions:
    """What the fit to keypoints minimises and how long it tries."""

    noise: float = 0.015
    """m at the person's distance: standard deviation of a keypoint of confidence 1. Against it the priors weigh."""
    outlier: float = 0.15
    """m: errors beyond are taken for mistakes and let go."""
    pose_prior: float = 1.0
    """Weight of the pose prior (`fitting.fit.pose_prior`)."""
    betas_prior: float = 1.0
    """Weight of the shape prior, standard normal."""
    start_spread: float = 0.25
    """rad: how far a given start's angles are off, as a standard deviation; shape, in its own: 1."""
    joint_limits: np.ndarray | None = None
    """(46, 2) rad, in place of the human ones; see `fitting.read_limits`."""
    betas_reach: float = 4.0
    """Betas stay within plus and minus this."""
    least_keypoints: int = 5
    """People with fewer keypoints of some confidence are not fitted."""
    finalists: int = 2
    """How many of the six directions in which somebody may face are followed to the end."""
    final_iterations: int = 40
    """Most iterations of the last descent."""
    acceleration: float = 0.03
    """m: usual second difference of a keypoint between frames of a track; 27 m/s^2 at 30 frames a second."""
    track_evidence: float = 1.0
    """What all frames of a track together tell of the shape, in frames: a detector's mistakes repeat themselves, and
    taken for independent they would make somebody's shape of them."""
    track_iterations: int = 20
    """Most iterations over all frames of a track together."""


@dataclass(frozen=True)
class KeypointFit:
    """SKEL parameters of B people in the camera frame (x right, y down, z forward). Rows not `valid` hold NaN."""

    poses: Tensor
    """(B, 46) rad"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor
    """(B, 3) m"""
    keypoints_3d: Tensor
    """(B, 44, 3) m"""
    keypoints_2d: Tensor
    """(B, 44, 2) px"""
    error_px: Tensor
    """(B,) mean distance from the given keypoints, weighed by their confidence"""
    cost: Tensor
    """(B,) objective at the end: twice the negative logarithm of the posterior, but for a constant"""
    iterations: Tensor
    """(B,) solver iterations on the way to the solution"""
    converged: Tensor
    """(B,) bool"""
    valid: Tensor
    """(B,) bool: enough keypoints were given"""

    def __len__(self) -> int:
        return len(self.poses)

    def numpy(self) -> dict[str, np.ndarray]:
        """All fields as arrays."""
        return {f.name: getattr(self, f.name).cpu().numpy() for f in fields(self)}

    @classmethod
    def concatenate(cls, parts: list[KeypointFit]) -> KeypointFit:
        """The people of several fits, in order."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@dataclass(frozen=True)
class SKELStart:
    """Parameters to start from, of B people, such as a network's."""

    poses: Tensor
    """(B, 46) rad, camera frame"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor | None = None
    """(B, 3) m; None: from the keypoints"""


_PEOPLE_AT_A_TIME = 64


def fit_keypoints(
    keypoints: np.ndarray | Tensor,
    focal: float | np.ndarray | Tensor,
    principal: np.ndarray | Tensor,
    *,
    body: KeypointBody | None = None,
    layout: str | None = None,
    start: SKELStart | None = None,
    track: bool = False,
    betas: np.ndarray | Tensor | None = None,
    options: KeypointFitOptions | None = None,
    progress: Callable[[int], object] | None = None,
) -> KeypointFit:
    """SKEL parameters and place of B people from their 2D keypoints (B, K, 3): x, y in px and confidence 0 to 1.

    `focal` (px) and `principal` (2,) (px) of the camera, or one per person, (B,) and (B, 2). Layouts are those of
    `keypoint_layouts.LAYOUTS`; without a name the number K tells which. `body` is `KeypointBody.load(...)`, by default
    the embedded body. With a `start` it is refined; without, several are tried. With `track` the rows are frames of one
    person, who has one shape and moves without jerks; frames with too few keypoints (not `valid`) are carried by their
    neighbours; its shape may be known, `betas` (10,). `progress` is called with the number
    of people after each batch. Raises InputError for shapes or cameras that cannot be.
    """
    body, options = body or KeypointBody.load(), options or KeypointFitOptions()
    like = body.directions
    observed = torch.as_tensor(to_44(np.asarray(keypoints), layout)).to(like)
    people = len(observed)
    focal = torch.as_tensor(np.asarray(focal, np.float64)).to(like).expand(people)
    principal = torch.as_tensor(np.asarray(principal, np.float64)).to(like).expand(people, 2)
    if not (bool((focal > 0).all()) and bool(torch.isfinite(focal).all() & torch.isfinite(principal).all())):
        raise InputError("not a camera", field="focal", expected="a finite focal length above 0, px")
    shape = None if betas is None else torch.as_tensor(np.asarray(betas, np.float64).copy()).to(like)
    if shape is not None and not (track and shape.shape == (NUM_BETAS,) and bool(torch.isfinite(shape).all())):
        raise InputError("not a shape", field="betas", expected=f"{NUM_BETAS} finite numbers, of a track")
    if people == 0:
        return _nothing(like)
    parts = []
    with torch.no_grad():
        for rows in torch.arange(people).split(_PEOPLE_AT_A_TIME):
            given = (
                None
                if start is None
                else SKELStart(*(None if v is None else v[rows].to(like) for v in vars(start).values()))
            )
            parts.append(_fit_batch(body, observed[rows], focal[rows], principal[rows], given, shape, options))
            if progress is not None:
                progress(len(rows))
        alone = KeypointFit.concatenate(parts)
        if track and bool(alone.valid.any()):
            return _fit_track(body, alone, observed, focal, principal, shape, options)
    return alone


def _nothing(like: Tensor) -> KeypointFit:
    shapes = {"poses": (46,), "betas": (10,), "trans": (3,), "keypoints_3d": (44, 3), "keypoints_2d": (44, 2)}
    kinds = {"iterations": torch.int64, "converged": torch.bool, "valid": torch.bool}
    return KeypointFit(
        **{
            f.name: torch.zeros(0, *shapes.get(f.name, ()), dtype=kinds.get(f.name, like.dtype))
            for f in fields(KeypointFit)
        }
    )


def _fit_batch(
    body: KeypointBody,
    observed: Tensor,
    focal: Tensor,
    principal: Tensor,
    given: SKELStart | None,
    shape: Tensor | None,
    options: KeypointFitOptions,
) -> KeypointFit:
    confidence = observed[..., 2].clamp(0, 1)
    valid = (confidence > 0).sum(1) >= options.least_keypoints
    # People with too few are fitted to nothing, which is cheap, and blanked.
    confidence = confidence * valid[:, None]
    rays = ((observed[..., :2] - principal[:, None]) / focal[:, None, None]).transpose(1, 2)
    bounds = _bounds(rays, options)
    problem = _problem(body, rays, confidence, (confidence > 0).any(0), shape, options)
    if given is None:
        used = _searched(confidence, options.least_keypoints)
        names = [name for name, use in zip(KEYPOINT_NAMES, used.tolist(), strict=True) if use]
        found = search(_problem(body, rays, confidence, used, shape, options), bounds, options.finalists, names)
        found = replace(found, problem=problem.changed(orientation=found.problem.orientation))
    else:
        found = _refined(problem, given, options)
    found, converged = finish(found, bounds, SolverOptions(options.final_iterations, 1e-3, 1e-4))
    return _described(body, found, converged, observed, focal, principal, valid)


def _fit_track(
    body: KeypointBody,
    alone: KeypointFit,
    observed: Tensor,
    focal: Tensor,
    principal: Tensor,
    shape: Tensor | None,
    options: KeypointFitOptions,
) -> KeypointFit:
    """All frames together, from the fit of each alone."""
    confidence = observed[..., 2].clamp(0, 1) * alone.valid[:, None]
    rays = ((observed[..., :2] - principal[:, None]) / focal[:, None, None]).transpose(1, 2)
    problem = _problem(body, rays, confidence, torch.ones_like(confidence[0], dtype=torch.bool), shape, options)
    bounds = _bounds(rays, options)
    near = trusted_frames(alone.keypoints_3d, alone.valid)
    x = torch.cat([alone.poses[near], alone.betas[near], torch.zeros_like(alone.trans)], 1)
    if shape is not None:
        x[:, BETAS] = shape
        bounds = bounds.with_betas(shape)
    orientation = pelvis_rotation(problem, x)
    x[:, PLACE] = steady_place(alone.trans[near] + body.skel.rest_joints(x[:, BETAS])[:, 0])
    x[:, :3] = 0
    repeated = max(1.0, len(x) / options.track_evidence)
    problem = problem.changed(
        orientation=orientation,
        distance=x[:, PLACE][:, 2].median().expand(len(x)),
        betas_precision=repeated * problem.betas_precision,
    )
    found, converged = solve_track(problem, x, bounds, options.acceleration, options.track_iterations)
    converged = torch.full_like(alone.valid, converged)
    fit = _described(body, found, converged, observed, focal, principal, torch.ones_like(alone.valid))
    return replace(fit, valid=alone.valid, iterations=alone.iterations + found.iterations.to(alone.iterations))


def _bounds(like: Tensor, options: KeypointFitOptions) -> Bounds:
    limits = HUMAN_LIMITS if options.joint_limits is None else options.joint_limits
    return Bounds.of(torch.as_tensor(limits).to(like), options.betas_reach)


def _problem(
    body: KeypointBody,
    rays: Tensor,
    confidence: Tensor,
    used: Tensor,
    shape: Tensor | None,
    options: KeypointFitOptions,
) -> KeypointProblem:
    """Somebody of the mean pose, and the mean or a known shape, who faces the camera.

    `used` (44,) are the keypoints that count.
    """
    people = len(rays)
    used = used.nonzero()[:, 0]
    prior = PosePrior.load(rays)
    mean = torch.cat([prior.mean.new_zeros(3), prior.mean])[None]
    betas = rays.new_zeros(people, NUM_BETAS)
    at_rest = body.keypoints(torch.zeros_like(mean), betas[:1])[0]
    few = body.only(used)
    return KeypointProblem(
        body=few,
        rays=rays[:, :, used],
        confidence=confidence[:, used],
        distance=distance_of(rays, confidence, at_rest),
        orientation=upright(rays, confidence),
        corrected=few.corrected(few.features(mean, betas[:1])).expand(people, -1),
        pose_centre=prior.mean.expand(people, -1),
        pose_precision=options.pose_prior * prior.precision[None],
        betas_centre=betas if shape is None else shape.expand(people, -1),
        betas_precision=torch.full_like(betas[:, 0], options.betas_prior if shape is None else _KNOWN_SHAPE),
        noise=options.noise,
        outlier=options.outlier,
    )


def _refined(problem: KeypointProblem, given: SKELStart, options: KeypointFitOptions) -> Found:
    """A given start, to which pose and shape are held beside the prior."""
    x = torch.cat([given.poses, given.betas, torch.zeros_like(given.poses[:, :3])], 1)
    skel = problem.body.skel
    orientation = pelvis_rotation(problem, x)
    x[:, :3] = 0
    problem = problem.changed(orientation=orientation)
    root = skel.rest_joints(given.betas)[:, 0]
    x[:, PLACE] = place_before_camera(problem, x) if given.trans is None else given.trans + root
    # Two Gaussians, that of the prior and that around the start, are one.
    spread = torch.eye(problem.pose_centre.shape[1]).to(x) / options.start_spread**2
    precision = problem.pose_precision + spread
    pulled = problem.pose_precision @ problem.pose_centre[..., None] + spread @ given.poses[:, 3:, None]
    known = problem.betas_precision[:, None]
    weight = known + 1
    problem = problem.changed(
        distance=x[:, PLACE][:, 2].clamp_min(_NEAREST_START),
        pose_centre=torch.linalg.solve(precision, pulled)[..., 0],
        pose_precision=precision,
        betas_centre=(given.betas + known * problem.betas_centre) / weight,
        betas_precision=weight[:, 0],
    )
    nothing = torch.zeros_like(x[:, 0])
    return Found(problem, x, nothing, nothing.long())


def _described(
    body: KeypointBody,
    found: Found,
    converged: Tensor,
    observed: Tensor,
    focal: Tensor,
    principal: Tensor,
    valid: Tensor,
) -> KeypointFit:
    skel, x = body.skel, found.x
    poses, betas = x[:, POSE].clone(), x[:, BETAS]
    orientation = found.problem.orientation @ pelvis_rotation(found.problem, x)
    poses[:, :3] = root_angles(orientation, skel.per_joint_rot[0] @ skel.apose_rotations[0].T)
    trans = x[:, PLACE] - skel.rest_joints(betas)[:, 0]
    points = body.keypoints(poses, betas) + trans[:, None]
    pixels = points[..., :2] / points[..., 2:].clamp_min(NEAREST) * focal[:, None, None] + principal[:, None]
    confidence = observed[..., 2]
    apart = (pixels - observed[..., :2]).norm(dim=2)
    error = (apart * confidence).sum(1) / confidence.sum(1).clamp_min(1e-9)
    missing = ~valid

    def blank(values: Tensor) -> Tensor:
        return values.masked_fill(missing.view(-1, *[1] * (values.ndim - 1)), torch.nan)

    return KeypointFit(
        poses=blank(poses),
        betas=blank(betas),
        trans=blank(trans),
        keypoints_3d=blank(points),
        keypoints_2d=blank(pixels),
        error_px=blank(error),
        cost=blank(found.cost),
        iterations=found.iterations * valid,
        converged=converged & valid,
        valid=valid,
    )


def _searched(confidence: Tensor, least: int) -> Tensor:
    """(44,) bool: keypoints that the search looks at, with those that limbs are turned by.

    OpenPose's, where everybody shows enough of them; the other 19 lie near these.
    """
    openpose = torch.arange(KEYPOINTS, device=confidence.device) < len(OPENPOSE_NAMES)
    counts = (confidence > 0) & openpose
    shown = (confidence > 0).any(1)
    used = (counts if bool((counts.sum(1) >= least)[shown].all()) else confidence > 0).any(0)
    for flip in FLIPS:
        if flip.coordinates != POSE:
            limb = [name for name in flip.mirrored if name in OPENPOSE_NAMES]
            used[[KEYPOINT_NAMES.index(name) for name in (*flip.pivot, *limb[:2])]] = True
    return used


_NEAREST_START = 0.5
"""m: a given start is not believed to be nearer."""
_KNOWN_SHAPE = 1e4
"""Weight of a shape that is known: a hundredth of a standard deviation costs one."""
