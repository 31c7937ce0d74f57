"""SKEL from 2D keypoints: the objective against a slow one over meshes, and people who are known found again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fitting import KeypointBody, KeypointFitOptions, SKELStart, fit_keypoints, load_smpl
from fitting.body.files import keypoint_arrays
from fitting.body.limits import BSM_LIMITS, HUMAN_LIMITS
from fitting.body.mirror import mirror_poses
from fitting.body.skel import skin
from fitting.fit.keypoint_descent import recentred
from fitting.fit.keypoint_layouts import LAYOUTS, to_44
from fitting.fit.keypoint_objective import KeypointProblem, camera_points, evaluate
from fitting.fit.pose_prior import PosePrior
from schemas import InputError
from schemas.camerahmr import KEYPOINT_NAMES, MIRRORED_KEYPOINTS

FOCAL, MIDDLE = 900.0, np.array([320.0, 240.0])
PELVIS = 39


@pytest.fixture(scope="module")
def body():
    return KeypointBody.load()


@pytest.fixture(scope="module")
def exact():
    return KeypointBody.load(dtype=torch.float64)


@pytest.fixture(scope="module")
def slow_keypoints(exact):
    """Keypoints (B, 44, 3) of a whole mesh (B, V, 3)."""
    from fitting.body.keypoints import skel_keypoints

    arrays = {
        name: torch.from_numpy(values) for name, values in keypoint_arrays("demo", exact.skel.num_vertices).items()
    }
    ids = load_smpl.demo().vertex_joint_selector.extra_joints_idxs
    return lambda mesh: skel_keypoints(mesh, ids, arrays["J_regressor_SKEL_mix_MALE"], arrays["SMPL_to_J19"])[0]


@dataclasses.dataclass(frozen=True)
class Crowd:
    """People who stand before a camera, and what it sees."""

    poses: torch.Tensor
    betas: torch.Tensor
    trans: torch.Tensor
    points: np.ndarray
    keypoints: np.ndarray


@pytest.fixture(scope="module")
def crowd(exact) -> Crowd:
    """Eight people of the pose prior, upright, each turned otherwise."""
    rng = np.random.default_rng(5)
    people = 8
    prior = PosePrior.load(torch.zeros(1, dtype=torch.float64))
    spread = np.linalg.cholesky(np.linalg.inv(prior.precision.numpy()))
    poses = np.zeros((people, 46))
    poses[:, 3:] = np.clip(
        prior.mean.numpy() + 0.7 * rng.normal(size=(people, 43)) @ spread.T, BSM_LIMITS[3:, 0], BSM_LIMITS[3:, 1]
    )
    poses[:, 1] = np.pi  # the model's y is up, the camera's down
    poses[:, 2] = np.linspace(0, 2 * np.pi, people, endpoint=False) + rng.normal(size=people) * 0.2
    betas = rng.normal(size=(people, 10)) * 0.7
    trans = np.stack([rng.uniform(-0.5, 0.5, people), rng.uniform(-0.2, 0.2, people), rng.uniform(3, 6, people)], 1)
    poses, betas, trans = (torch.from_numpy(part) for part in (poses, betas, trans))
    points = (exact.keypoints(poses, betas) + trans[:, None]).numpy()
    pixels = points[..., :2] / points[..., 2:] * FOCAL + MIDDLE
    return Crowd(poses, betas, trans, points, np.concatenate([pixels, np.ones((people, 44, 1))], -1))


def _aligned_mm(found: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """(B,) mean distance of keypoints when both pelvises coincide."""
    found = found.double().numpy()
    apart = (found - found[:, PELVIS, None]) - (points - points[:, PELVIS, None])
    return 1000 * np.linalg.norm(apart, axis=2).mean(1)


def test_keypoints_need_no_mesh(exact, crowd, slow_keypoints):
    mesh = exact.skel(crowd.poses, crowd.betas).vertices
    np.testing.assert_allclose(exact.keypoints(crowd.poses, crowd.betas), slow_keypoints(mesh), atol=1e-12)
    few = exact.only(torch.tensor([4, 43, 0]))
    np.testing.assert_allclose(few.keypoints(crowd.poses, crowd.betas), slow_keypoints(mesh)[:, [4, 43, 0]], atol=1e-12)


def _problem(exact, crowd, **changes) -> tuple[KeypointProblem, torch.Tensor]:
    """Somewhere near the truth, with everything that the objective knows of, and unknowns."""
    rng = torch.Generator().manual_seed(1)
    people = len(crowd.poses)

    def draw(*shape):
        return torch.randn(people, *shape, generator=rng, dtype=torch.float64)

    prior = PosePrior.load(crowd.poses)
    poses = crowd.poses + 0.05 * draw(46)
    betas = crowd.betas + 0.3 * draw(10)
    rays = torch.from_numpy((crowd.keypoints[..., :2] - MIDDLE) / FOCAL).transpose(1, 2) + 0.01 * draw(2, 44)
    settings = {
        "body": exact,
        "rays": rays,
        "confidence": draw(44).abs(),
        "distance": crowd.trans[:, 2],
        "orientation": torch.linalg.qr(draw(3, 3))[0],
        "corrected": exact.corrected(exact.features(poses, betas)),
        "pose_centre": prior.mean.expand(people, -1),
        "pose_precision": prior.precision[None],
        "betas_centre": 0.1 * draw(10),
        "betas_precision": draw().abs(),
        "noise": 0.02,
        "outlier": 0.1,
        "depths": 0.2 * draw(44),
        "pull": 300 * draw(44).abs(),
    }
    return KeypointProblem(**settings | changes), torch.cat([poses, betas, crowd.trans], 1)


def test_cost_and_slopes_are_those_of_the_meshes(exact, crowd, slow_keypoints):
    """Against autograd through skinning of every vertex, in float64, with the pose correctives held."""
    problem, x = _problem(exact, crowd)
    some = torch.arange(3)
    problem, x, skel = problem.of(some), x[some], exact.skel
    offsets = skel.corrective_features(
        skel.pose(skel.rest_frames(skel.rest_joints(x[:, 46:56])), x[:, :46]).local_rotations
    )
    offsets = (offsets @ skel.posedirs).unflatten(1, (-1, 3))

    def errors(x):
        betas = x[:, 46:56]
        rest = skel.rest_frames(skel.rest_joints(betas))
        posed = skel.pose(rest, x[:, :46])
        shift = posed.joints - (posed.rotations @ rest.joints[..., None]).squeeze(-1)
        mesh = skin(skel.weights, posed.rotations, shift, skel.rest_vertices(betas) + offsets)
        points = slow_keypoints(mesh) - posed.joints[:, :1]
        points = points @ problem.orientation.transpose(1, 2) + x[:, None, 56:]
        seen = points[..., :2] / points[..., 2:]
        return problem.distance[:, None, None] * (seen - problem.rays.transpose(1, 2)), points[..., 2] - x[:, 58:]

    def slow_cost(x):
        error, depth = errors(x)
        square = error.square().sum(-1)
        robust = problem.outlier**2 * square / (problem.outlier**2 + square)
        away, shape = x[:, 3:46] - problem.pose_centre, x[:, 46:56] - problem.betas_centre
        prior = torch.einsum("bi,ij,bj->b", away, problem.pose_precision[0], away)
        prior = prior + problem.betas_precision * shape.square().sum(1)
        pull = (problem.pull * (depth - problem.depths).square()).sum(1)
        return (problem.confidence * robust).sum(1) / problem.noise**2 + prior + pull

    model = evaluate(problem, x)
    free = x.clone().requires_grad_()
    cost = slow_cost(free)
    (slope,) = torch.autograd.grad(cost.sum(), free)
    np.testing.assert_allclose(model.cost, cost.detach(), rtol=1e-10)
    np.testing.assert_allclose(2 * model.gradient, slope, rtol=1e-7, atol=1e-6)
    # The matrix is J^T J of the weighted residuals at these weights, not the second derivative.
    one = 1
    jacobian = torch.autograd.functional.jacobian(lambda y: errors(y[None].expand(len(x), -1))[0][one], x[one])
    square = errors(x)[0][one].square().sum(-1).detach()
    steer = problem.confidence[one] / problem.noise**2 * (problem.outlier**2 / (problem.outlier**2 + square)) ** 2
    data = torch.einsum("kci,k,kcj->ij", jacobian, steer, jacobian)
    bare = evaluate(problem.changed(pull=None, pose_precision=0 * problem.pose_precision), x).hessian[one]
    bare[46:56, 46:56] -= problem.betas_precision[one] * torch.eye(10)
    np.testing.assert_allclose(bare, data, rtol=1e-7, atol=1e-6 * float(data.abs().max()))


def test_recentring_moves_nobody(exact, crowd):
    problem, x = _problem(exact, crowd)
    again, y = recentred(problem, x)
    assert (y[:, :3] == 0).all()
    np.testing.assert_allclose(camera_points(again, y), camera_points(problem, x), atol=1e-12)


@pytest.fixture(scope="module")
def found(body, crowd):
    return fit_keypoints(crowd.keypoints, FOCAL, MIDDLE, body=body)


def test_known_people_are_found_again(body, crowd, found):
    """From every side, without a start: what the picture shows closely, what it does not within some centimetres."""
    assert found.converged.all() and found.valid.all()
    side = np.ptp(crowd.keypoints[..., :2], axis=1).max(1)
    assert (found.error_px.numpy() < 0.015 * side).all()
    assert np.median(_aligned_mm(found.keypoints_3d, crowd.points)) < 55
    distance = found.keypoints_3d[:, PELVIS, 2].numpy() / crowd.points[:, PELVIS, 2]
    assert np.abs(np.log(distance)).max() < 0.15
    # Parameters and keypoints are one person's.
    again = body.skel(found.poses, found.betas, found.trans)
    np.testing.assert_allclose(
        body.keypoints(found.poses, found.betas) + found.trans[:, None], found.keypoints_3d, atol=1e-4
    )
    pelvis = again.joints[:, 0].numpy()
    seen = pelvis[:, :2] / pelvis[:, 2:] * FOCAL + MIDDLE
    assert np.linalg.norm(seen - crowd.keypoints[:, PELVIS, :2], axis=1).max() < 0.1 * side.max()
    assert (found.poses[:, 3:].numpy() >= HUMAN_LIMITS[3:, 0] - 1e-5).all()
    assert (found.poses[:, 3:].numpy() <= HUMAN_LIMITS[3:, 1] + 1e-5).all()


def test_nobody_depends_on_the_others(body, crowd, found):
    alone = fit_keypoints(crowd.keypoints[3:4], FOCAL, MIDDLE, body=body)
    np.testing.assert_allclose(alone.keypoints_3d, found.keypoints_3d[3:4], atol=5e-3)


def test_the_mirrored_picture_shows_the_mirrored_person(body, crowd):
    mirrored = crowd.keypoints[:, MIRRORED_KEYPOINTS].copy()
    mirrored[..., 0] = 2 * MIDDLE[0] - mirrored[..., 0]
    here, there = (fit_keypoints(k, FOCAL, MIDDLE, body=body) for k in (crowd.keypoints, mirrored))
    points = there.keypoints_3d[:, MIRRORED_KEYPOINTS] * torch.tensor([-1.0, 1.0, 1.0])
    # Rounding may lead the search elsewhere for one of them; for the others both are the same solution.
    same = (points - here.keypoints_3d).norm(dim=2).mean(1) < 0.015
    assert same.sum() >= 6
    np.testing.assert_allclose(mirror_poses(there.poses)[same, 3:], here.poses[same, 3:], atol=0.1)


def test_a_wrong_keypoint_is_let_go(body, crowd, found):
    """One keypoint somewhere else in the picture, and sure of itself."""
    wrong = crowd.keypoints.copy()
    wrist = [KEYPOINT_NAMES.index(name) for name in ("right_wrist", "right_wrist_lsp")]
    wrong[:, wrist[0], :2] += [150.0, 200.0]
    wrong[:, wrist[1], 2] = 0
    other = fit_keypoints(wrong, FOCAL, MIDDLE, body=body)
    rest = [n for n, name in enumerate(KEYPOINT_NAMES) if not any(part in name for part in ("wrist", "elbow"))]
    apart = np.linalg.norm(other.keypoints_2d.numpy() - crowd.keypoints[..., :2], axis=2)
    side = np.ptp(crowd.keypoints[..., :2], axis=1).max(1)
    assert (apart[:, rest].mean(1) < 0.02 * side).all()


@pytest.mark.parametrize("layout", ["coco17", "openpose25", "halpe26"])
def test_other_layouts_show_the_same_people(body, crowd, layout):
    few = crowd.keypoints[:, [KEYPOINT_NAMES.index(name) for name in LAYOUTS[layout]]]
    found = fit_keypoints(few, np.full(len(few), FOCAL), np.tile(MIDDLE, (len(few), 1)), body=body)
    assert np.median(_aligned_mm(found.keypoints_3d, crowd.points)) < 80
    side = np.ptp(crowd.keypoints[..., :2], axis=1).max(1)
    assert (found.error_px.numpy() < 0.02 * side).all()


def test_a_start_is_refined(body, crowd):
    rng = torch.Generator().manual_seed(2)
    poses = crowd.poses + 0.1 * torch.randn(crowd.poses.shape, generator=rng, dtype=torch.float64)
    start = SKELStart(poses, 0.5 * crowd.betas, crowd.trans + 0.05)
    before = exact_error(body, start, crowd)
    for given in (start, dataclasses.replace(start, trans=None)):
        refined = fit_keypoints(crowd.keypoints, FOCAL, MIDDLE, body=body, start=given)
        after = _aligned_mm(refined.keypoints_3d, crowd.points)
        assert after.mean() < 0.6 * before.mean() and (after < before).mean() > 0.9


def exact_error(body, start, crowd) -> np.ndarray:
    return _aligned_mm(body.keypoints(start.poses.float(), start.betas.float()), crowd.points)


def test_hidden_people_and_hidden_keypoints(body, crowd, found):
    """NaN and zero confidence are the same; four keypoints are too few; the others are as they were."""
    partly = crowd.keypoints.copy()
    partly[0, 10:, 2] = 0
    partly[1, 4:] = np.nan
    partly[2, 5] = [np.nan, 1.0, 1.0]
    other = fit_keypoints(partly, FOCAL, MIDDLE, body=body)
    assert other.valid.tolist() == [True, False] + [True] * 6
    assert other.poses[1].isnan().all() and not other.converged[1]
    kept = [0, *range(2, 8)]
    assert all(value[kept].isfinite().all() for value in vars(other).values())
    np.testing.assert_allclose(other.keypoints_3d[4:], found.keypoints_3d[4:], atol=5e-3)


def test_a_track_has_one_shape_and_no_jerks(exact, body, crowd):
    """Somebody who moves evenly from one pose to another, seen with noise, and for some frames not at all."""
    frames = 24
    share = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None]
    poses = (1 - 0.3 * share) * crowd.poses[:1] + 0.3 * share * crowd.poses[1:2]
    poses[:, :3] = crowd.poses[0, :3]
    trans = crowd.trans[:1] + share * torch.tensor([0.6, 0.0, 0.3], dtype=torch.float64)
    points = (exact.keypoints(poses, crowd.betas[:1].expand(frames, -1)) + trans[:, None]).numpy()
    pixels = points[..., :2] / points[..., 2:] * FOCAL + MIDDLE
    pixels += np.random.default_rng(3).normal(size=pixels.shape) * 0.01 * np.ptp(pixels, axis=1).max()
    seen = np.concatenate([pixels, np.ones((frames, 44, 1))], 2)
    seen[10:13, :, 2] = 0
    alone, track = (fit_keypoints(seen, FOCAL, MIDDLE, body=body, track=track) for track in (False, True))
    jerks = [np.linalg.norm(np.diff(f.keypoints_3d.numpy()[:10], 2, axis=0), axis=2).mean() for f in (alone, track)]
    assert jerks[1] < 0.2 * jerks[0]
    assert track.valid.tolist() == alone.valid.tolist() == [not 10 <= n < 13 for n in range(frames)]
    assert (track.betas == track.betas[0]).all()
    off = _aligned_mm(track.keypoints_3d, points)
    assert off.mean() < np.nanmean(_aligned_mm(alone.keypoints_3d, points)) + 5 and off[10:13].max() < off.mean() + 40
    # A track may be too short for differences.
    for few in (1, 2):
        short = fit_keypoints(seen[:few], FOCAL, MIDDLE, body=body, track=True)
        assert short.poses.isfinite().all() and (short.error_px < 0.03 * np.ptp(pixels, axis=1).max()).all()


def test_the_shape_of_a_track_may_be_known(exact, body, crowd):
    """It is kept to the bit, and tells how far away somebody is."""
    betas = crowd.betas[1] + 1
    frames = crowd.poses[1:2].expand(6, -1)
    trans = crowd.trans[1:2] + torch.linspace(0, 0.2, 6, dtype=torch.float64)[:, None]
    points = (exact.keypoints(frames, betas.expand(6, -1)) + trans[:, None]).numpy()
    pixels = points[..., :2] / points[..., 2:] * FOCAL + MIDDLE
    pixels += np.random.default_rng(3).normal(size=pixels.shape) * 0.005 * np.ptp(pixels, axis=1).max()
    seen = np.concatenate([pixels, np.ones((6, 44, 1))], 2)
    known, free = (fit_keypoints(seen, FOCAL, MIDDLE, body=body, track=True, betas=b) for b in (betas, None))
    assert (known.betas == betas.float()).all() and (free.betas != betas.float()).any()
    assert (known.error_px < 0.02 * np.ptp(pixels, axis=1).max()).all()
    off = [np.abs(fit.trans[:, 2].numpy() - trans[:, 2].numpy()).mean() for fit in (known, free)]
    assert off[0] < off[1] and off[0] < 0.02 * trans[:, 2].mean()
    for wrong in ({"betas": betas}, {"betas": betas[:5], "track": True}, {"betas": betas * np.nan, "track": True}):
        with pytest.raises(InputError, match="not a shape"):
            fit_keypoints(seen, FOCAL, MIDDLE, body=body, **wrong)


def test_mistakes_that_repeat_make_no_shape(body, crowd):
    """A film of somebody who stands still says no more of the shape than two frames do."""
    wrong = crowd.keypoints[:1].copy()
    wrong[..., :2] += np.random.default_rng(3).normal(size=wrong[..., :2].shape) * 6
    options = KeypointFitOptions(track_iterations=4)
    norms = [
        fit_keypoints(wrong.repeat(n, 0), FOCAL, MIDDLE, body=body, track=True, options=options).betas[0].norm()
        for n in (2, 6)
    ]
    assert norms[1] < 1.1 * norms[0]


def test_no_people(body):
    empty = fit_keypoints(np.zeros((0, 17, 3)), FOCAL, MIDDLE, body=body)
    assert len(empty) == 0 and empty.poses.shape == (0, 46) and empty.valid.dtype == torch.bool


def test_limits_hold_exactly(body, crowd):
    limits = HUMAN_LIMITS.copy()
    limits[6] = limits[13] = (0.0, 0.2)
    stiff = fit_keypoints(crowd.keypoints, FOCAL, MIDDLE, body=body, options=KeypointFitOptions(joint_limits=limits))
    knees = stiff.poses[:, [6, 13]]
    assert (knees <= 0.2 + 1e-6).all() and (knees >= -1e-6).all()


def test_what_cannot_be_fitted_is_told(body, crowd):
    for keypoints, focal in ((np.zeros((2, 18, 3)), FOCAL), (np.zeros((2, 17)), FOCAL), (crowd.keypoints, -1.0)):
        with pytest.raises(InputError):
            fit_keypoints(keypoints, focal, MIDDLE, body=body)
    with pytest.raises(InputError, match="layout coco17"):
        fit_keypoints(crowd.keypoints, FOCAL, MIDDLE, body=body, layout="coco17")


def test_layouts_name_the_same_places():
    assert [len(names) for names in LAYOUTS.values()] == [17, 25, 26, 44]
    numbered = np.stack([np.arange(1.0, 27), np.zeros(26), np.ones(26)], -1)[None]
    placed = to_44(numbered)
    expected = {
        "nose": 1,
        "left_eye": 2,
        "right_ankle": 17,
        "head_top_lsp": 18,
        "neck": 19,
        "mid_hip": 20,
        "right_heel": 26,
    }
    for name, number in expected.items():
        assert placed[0, KEYPOINT_NAMES.index(name), 0] == number
    assert placed[..., 2].sum() == 26
