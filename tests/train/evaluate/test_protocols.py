"""Each protocol against a slow literal version, written person by person from the description of the released code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitting.body.files import keypoint_arrays
from fitting.body.limits import BSM_LIMITS
from fitting.demo_body import smpl_arrays
from pipelines.files.body_models import BodyModels
from schemas import InputError
from train.benchmarks.images import ImageFolders
from train.benchmarks.known import Benchmark, Opened
from train.benchmarks.people import BenchmarkPeople
from train.benchmarks.quirks import PUBLISHED, QUIRKS, without
from train.benchmarks.stream import BenchmarkCrops
from train.evaluate.bodies import EvaluationBodies, body_errors
from train.evaluate.estimates import FINAL, Estimated, Method, known_method
from train.evaluate.measure import measure
from train.evaluate.metrics import accuracy, aligned, mean_distance_mm
from train.evaluate.protocols import PROTOCOLS, protocol
from train.evaluate.ready import check_ready
from train.evaluate.reality import excess_deg, reality
from train.evaluate.report import benchmark_summary
from train.evaluate.statistics import by_group, mean_interval
from train.network.camera import Framing

N = 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models():
    return BodyModels("demo")


@pytest.fixture(scope="module")
def estimates():
    rng = np.random.default_rng(1)
    poses, betas = rng.normal(0, 0.2, (N, 46)).astype(np.float32), rng.normal(size=(N, 10)).astype(np.float32)
    poses[:, :3] = rng.uniform(-3, 3, (N, 3))
    return poses, betas


def smpl_people() -> BenchmarkPeople:
    rng = np.random.default_rng(2)
    return BenchmarkPeople(
        *("truth.npz", "A", np.arange(N), np.array([f"{n}.jpg" for n in range(N)], object)),
        *(np.array(["s", "s", "t", "t", "t"], object), rng.uniform(50, 90, (N, 2)), rng.uniform(100, 200, (N, 2))),
        side=np.full(N, 200.0),
        poses=rng.normal(0, 0.3, (N, 72)),
        betas=rng.normal(size=(N, 10)),
        gender=np.array(["male", "neutral", "unstated", "female", "male"], object),
    )


def keypoint_people(vertices: np.ndarray | None = None) -> BenchmarkPeople:
    rng = np.random.default_rng(3)
    three = np.concatenate([rng.normal(0, 0.4, (N, 44, 3)), rng.integers(0, 2, (N, 44, 1))], 2)
    two = np.concatenate([rng.uniform(20, 120, (N, 44, 2)), rng.choice([0, 0.5, 0.6, 1], (N, 44, 1))], 2)
    two[:, 7, 2] = 0  # a keypoint that nobody has
    return replace(smpl_people(), layout="C", poses=None, betas=None, keypoints_3d=three, keypoints_2d=two)


def opened(people: BenchmarkPeople) -> Opened:
    return Opened("x", Benchmark("X", (), people.layout, (), ""), people, ImageFolders((Path("nowhere"),)))


def measured(people, method, models, name, quirks=PUBLISHED):
    rules, bodies = [protocol(name, quirks)], EvaluationBodies(models)
    found = measure(opened(people), [method], rules, bodies, BenchmarkCrops(), CPU, batch=2)
    assert len(found) == 1 and found[0].people.tolist() == list(range(len(people)))
    return found[0]


# ------------------------------------------------------------------------------------------------ the slow versions


def umeyama(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One point set after its best similarity to another: scipy's rotation and the scale that is then best."""
    x, y = points - points.mean(0), target - target.mean(0)
    turned = x @ Rotation.align_vectors(y, x)[0].as_matrix().T
    return (turned * y).sum() / (turned**2).sum() * turned + target.mean(0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for p, q in zip(a, b, strict=True):
        total += float(np.sqrt(((p - q) ** 2).sum()))
    return 1000 * total / len(a)


def meshes(models, estimates, people, n):
    """Of person n: the estimate's skin, truth's skin and truth's kinematic joints, float64."""
    poses, betas = (torch.from_numpy(v[n : n + 1]) for v in estimates)
    skin = models.skel(poses, betas, torch.zeros(1, 3)).vertices[0].double().numpy()
    pose, shape = (torch.tensor(v[n : n + 1], dtype=torch.float32) for v in (people.poses, people.betas))
    out = models.smpl()(betas=shape, body_pose=pose[:, 3:], global_orient=pose[:, :3])
    return skin, out.vertices[0].double().numpy(), out.joints[0, :24].double().numpy()


def literal(name, models, estimates, people, n):
    """MPJPE, PA-MPJPE, PVE of person n as published."""
    skin, truth, kinematic = meshes(models, estimates, people, n)
    files = keypoint_arrays("demo", len(skin))
    if name == "3dpw":
        j, g = files["J_regressor_h36m"] @ skin, files["J_regressor_h36m"] @ truth
        jr, gr = j[0], g[0]
        rows = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
        j, g = j[rows], g[rows]
    elif name == "emdb":
        regressor = smpl_arrays()["J_regressor"].toarray()
        j, g = regressor @ skin, regressor @ truth
        jr, gr = (j[1] + j[2]) / 2, (g[1] + g[2]) / 2
    elif name == "spec-syn":
        j, g = files["J_regressor_h36m"] @ skin, files["J_regressor_h36m"] @ truth
        jr, gr = (j[1] + j[2]) / 2, (g[1] + g[2]) / 2
    else:
        j, g = files["J_regressor_SMPL_MALE"] @ skin, kinematic
        jr, gr = j[0], g[0]
    return distance(j - jr, g - gr), distance(umeyama(j, g), g), distance(skin - jr, truth - gr)


@pytest.mark.parametrize("name", ["3dpw", "emdb", "spec-syn", "moyo"])
def test_mesh_protocols(models, estimates, name):
    people = smpl_people()
    found = measured(people, known_method("m", *estimates, 0.0), models, name).errors
    for n in range(N):
        expected = literal(name, models, estimates, people, n)
        values = [found[key][n] for key in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")]
        assert values == pytest.approx(expected, rel=1e-4)
        skin, truth, _ = meshes(models, estimates, people, n)
        assert found["pa_pve_mm"][n] == pytest.approx(distance(umeyama(skin, truth), truth), rel=1e-4)


def test_human36m(models, estimates):
    people = keypoint_people()
    found = measured(people, known_method("m", *estimates, 0.0), models, "h36m").errors
    assert "pve_mm" not in found
    bodies = EvaluationBodies(models)
    for n in range(N):
        skin = bodies.skel_vertices(*(torch.from_numpy(v[n : n + 1]) for v in estimates))
        points, goal = bodies.keypoints(skin)[0].double().numpy(), people.keypoints_3d[n, :, :3]
        rows = [*range(25, 38), 43]
        j, g = points[rows], goal[rows]
        assert found["mpjpe_mm"][n] == pytest.approx(distance(j - points[39], g - goal[39]), rel=1e-4)
        assert found["pa_mpjpe_mm"][n] == pytest.approx(distance(umeyama(j, g), g), rel=1e-4)


def placed_method(poses, betas) -> Method:
    """Everybody 4 m away, 500 px of focal length, the principal point at (64, 64)."""

    def estimate(batch):
        p, b = (torch.from_numpy(v[batch.people]) for v in (poses, betas))
        count = len(batch.people)
        framing = Framing(
            torch.zeros(count, 2), torch.ones(count), torch.full((count,), 500.0), torch.full((count, 2), 64.0)
        )
        return {FINAL: Estimated(p, b, torch.tensor([[0.0, 0.0, 4.0]]).expand(count, 3), framing)}

    return Method("placed", estimate, images=False)


@pytest.mark.parametrize("quirks", [PUBLISHED, frozenset()])
def test_accuracy_of_keypoints(models, estimates, quirks):
    people = keypoint_people()
    bodies = EvaluationBodies(models)
    skin = bodies.skel_vertices(*(torch.from_numpy(v) for v in estimates))
    points = bodies.keypoints(skin).double().numpy() + np.array([0, 0, 4])
    pixels = points[..., :2] / points[..., 2:] * 500 + 64
    people.keypoints_2d[:, ::3, :2] = pixels[:, ::3] + np.random.default_rng(0).normal(0, 12, (N, 15, 2))
    numbers = benchmark_summary(measured(people, placed_method(*estimates), models, "keypoints", quirks), people)
    for threshold in (0.05, 0.1):
        shares, hits, labels = [], 0, 0
        for k in range(44):
            right = total = 0
            for n in range(N):
                x, y, confidence = people.keypoints_2d[n, k]
                if confidence > 0.5:
                    unit = max(people.label_box[n])
                    total += 1
                    right += np.hypot(pixels[n, k, 0] - x, pixels[n, k, 1] - y) / unit < threshold
            hits, labels = hits + right, labels + total
            if total:
                shares.append(right / total)
        assert 0 < hits < labels and 30 < len(shares) < 44
        expected = sum(shares) / len(shares) if quirks else hits / labels
        assert numbers[f"pck_{threshold}"] == pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------------------------------- truth known in advance


def points_with(transform) -> tuple[torch.Tensor, torch.Tensor]:
    goal = torch.from_numpy(np.random.default_rng(5).normal(0, 0.4, (1, 44, 3)))
    return transform(goal), goal


def errors_of(name: str, transform, quirks=PUBLISHED, confidence=None):
    points, goal = points_with(transform)
    return {k: v[0] for k, v in body_errors(protocol(name, quirks), points, goal, points, goal, confidence).items()}


TURN = torch.from_numpy(Rotation.from_euler("xyz", [0.4, -1, 2]).as_matrix())


@pytest.mark.parametrize("name", PROTOCOLS[:5])
def test_exact_rotated_scaled_and_mirrored_bodies(name):
    exact = errors_of(name, lambda p: p + 3)  # where somebody stands does not matter
    assert all(float(v.max()) < 1e-9 for v in exact.values())
    turned = errors_of(name, lambda p: 2 * p @ TURN.T + 1)
    assert turned["pa_mpjpe_mm"] < 1e-9 and turned["mpjpe_mm"] > 100
    larger, rules = errors_of(name, lambda p: 1.1 * p), protocol(name)
    goal = points_with(lambda p: p)[1][0].numpy()
    reach = np.linalg.norm(goal[list(rules.chosen)] - goal[list(rules.root)].mean(0), axis=1)
    assert larger["mpjpe_mm"] == pytest.approx(100 * reach.mean()) and larger["pa_mpjpe_mm"] < 1e-9
    np.testing.assert_allclose(larger["joints_mm"], 100 * reach, rtol=1e-9)
    mirrored = errors_of(name, lambda p: p * torch.tensor([-1.0, 1, 1]))
    assert mirrored["pa_mpjpe_mm"] > 50  # a similarity does not reflect


def test_joints_without_confidence_count_only_as_published():
    confidence = torch.ones(1, 44)
    confidence[0, [25, 30]] = 0

    def off(points):
        moved = points.clone()
        moved[:, 25] += 10  # a joint that the label does not know
        moved[:, 26, 0] += 0.14
        return moved

    published = errors_of("h36m", off, PUBLISHED, confidence)
    clean = errors_of("h36m", off, frozenset(), confidence)
    assert published["mpjpe_mm"] == pytest.approx((10 * 3**0.5 * 1000 + 140) / 14)
    assert clean["mpjpe_mm"] == pytest.approx(140 / 12) and clean["pa_mpjpe_mm"] < 40 < published["pa_mpjpe_mm"]
    assert clean["joints_mm"][0].isnan() and clean["joints_mm"][1] == pytest.approx(140)
    confidence[0, 27] = 0  # a hip: there is no root
    assert errors_of("h36m", off, frozenset(), confidence)["mpjpe_mm"].isnan()


def test_degenerate_sets_have_finite_errors():
    goal = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 14, 3)))
    for points in (torch.zeros(3, 14, 3), goal[:, :1].expand(-1, 14, -1), goal * torch.tensor([1.0, 0, 0])):
        for a, b in ((points, goal), (goal, points), (points, points)):
            assert torch.isfinite(aligned(a, b)).all()
    assert (aligned(goal, torch.zeros_like(goal)).abs() < 1e-9).all()
    few = torch.zeros(3, 14, dtype=torch.bool)
    assert torch.isnan(mean_distance_mm(aligned(goal, goal, few), goal, few)).all()
    few[:, :2] = True  # two points determine no similarity: they are moved alone
    np.testing.assert_allclose(mean_distance_mm(aligned(goal + 1, goal, few), goal, few), 0, atol=1e-9)


def test_alignment_of_some_points_is_that_of_those_alone():
    rng = np.random.default_rng(0)
    points, goal = (torch.from_numpy(rng.normal(size=(4, 10, 3))) for _ in range(2))
    some = torch.zeros(4, 10, dtype=torch.bool)
    some[:, 2:8] = True
    np.testing.assert_allclose(aligned(points, goal, some)[:, 2:8], aligned(points[:, 2:8], goal[:, 2:8]), atol=1e-9)


# ---------------------------------------------------------------------------------------------------- the quirks


def test_quirks_change_what_they_say_and_nothing_else(models, estimates):
    people, method = smpl_people(), known_method("m", *estimates, 0.0)

    def mm(name, quirks):
        errors = measured(people, method, models, name, quirks).errors
        return {key: errors[key].mean() for key in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")}

    published, clean = mm("spec-syn", PUBLISHED), mm("spec-syn", without(["hip-and-knee-root"]))
    assert published["mpjpe_mm"] != pytest.approx(clean["mpjpe_mm"], rel=1e-3)
    assert published["pa_mpjpe_mm"] == pytest.approx(clean["pa_mpjpe_mm"], rel=1e-12)  # its root does not matter there
    assert mm("moyo", PUBLISHED) != mm("moyo", without(["two-kinds-of-joints"]))
    assert mm("emdb", PUBLISHED)["mpjpe_mm"] == pytest.approx(mm("emdb", without(["one-regressor"]))["mpjpe_mm"])
    assert protocol("3dpw").neutral == "female" and protocol("3dpw", frozenset()).neutral == "neutral"
    assert without(["all"]) == frozenset() and without([]) == set(QUIRKS)
    with pytest.raises(InputError, match="no quirk 'x'"):
        without(["x"])


def test_genders_take_their_own_smpl(models, estimates):
    asked = []

    class Recorder(BodyModels):
        def smpl(self, gender="neutral"):
            asked.append(gender)
            return models.smpl("neutral")

    people = smpl_people()
    bodies = Recorder("demo")
    measured(people, known_method("m", *estimates, 0.0), bodies, "3dpw")
    assert set(asked) == {"male", "female", "neutral"}  # neutral: the row that says nothing
    asked.clear()
    literal_neutral = people.take(np.array([1]))
    measured(literal_neutral, known_method("m", estimates[0][1:2], estimates[1][1:2], 0.0), bodies, "3dpw")
    assert "female" in asked


def test_a_missing_regressor_is_named(tmp_path, random_models, estimates):
    import official_files

    folder = official_files.write_model_directory(tmp_path / "models", *random_models)
    with pytest.raises(InputError, match="J_regressor_h36m") as caught:
        measured(smpl_people(), known_method("m", *estimates, 0.0), _neutral_only(folder), "3dpw")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*PROTOCOLS])
def test_what_a_protocol_lacks_is_told_before_anything_is_measured(tmp_path, random_models, name):
    import official_files

    folder = official_files.write_model_directory(tmp_path / "models", *random_models)
    people = smpl_people() if name in PROTOCOLS[:4] else keypoint_people()
    file = {"3dpw": "J_regressor_h36m", "emdb": "SMPL_FEMALE", "moyo": "J_regressor_SMPL_MALE"}
    file |= {"spec-syn": "J_regressor_h36m", "h36m": "J_regressor_SKEL_mix_MALE"}
    with pytest.raises(InputError, match=file.get(name, "J_regressor_SKEL_mix_MALE")) as caught:
        check_ready(opened(people), [protocol(name)], EvaluationBodies(BodyModels(str(folder))), images=False)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_keypoints_that_labels_lack_and_count_all_the_same_are_told(models, caplog):
    people = keypoint_people()
    people.keypoints_3d[..., 3] = 1
    bodies = EvaluationBodies(models)
    check_ready(opened(people), [protocol("h36m"), protocol("h36m", frozenset())], bodies, images=False)
    assert not caplog.text
    people.keypoints_3d[3, 39, 3] = 0
    check_ready(opened(people), [protocol("h36m", frozenset())], bodies, images=False)
    assert not caplog.text  # the clean protocol leaves them out
    check_ready(opened(people), [protocol("h36m")], bodies, images=False)
    assert "1 of 5 people, row 3 the first, lack some of the 3D keypoints" in caplog.text


def _neutral_only(folder):
    class Neutral(BodyModels):
        def smpl(self, gender="neutral"):
            return super().smpl("neutral")

    return Neutral(str(folder))


# ------------------------------------------------------------------------------------------------ means and limits


def test_means_and_intervals():
    values = np.concatenate([np.full(500, 10.0), np.full(500, 20.0)])
    mean, low, high = mean_interval(values, np.arange(1000))
    assert mean == 15 and 14.5 < low < 15 < high < 15.5
    sequences = np.repeat(np.arange(20), 50)  # the same frames fifty times over are no evidence
    mean, wide_low, wide_high = mean_interval(values, sequences)
    assert mean == 15 and wide_high - wide_low > 4 * (high - low)
    assert np.isnan(mean_interval(np.full(3, np.nan), np.arange(3))[0])
    assert mean_interval(np.array([1, np.nan, 3]), np.arange(3))[0] == 2
    assert by_group(np.array([1.0, 3, 5, np.nan]), np.array(["a", "a", "b", "c"])) == {"a": 2, "b": 5}


def test_accuracy_by_keypoint_and_pooled():
    hits = np.array([[True, False], [True, False], [True, False]])
    annotated = np.array([[True, True], [True, False], [True, False]])
    assert accuracy(hits, annotated, True) == 0.5 and accuracy(hits, annotated, False) == 0.75
    assert np.isnan(accuracy(hits & False, annotated & False, True))


def test_angles_beyond_the_limits():
    poses = np.zeros((2, 46))
    low, high = BSM_LIMITS.T
    poses[:] = np.clip(0, low, high)
    poses[:, :3] = 100  # the root has no limits
    assert excess_deg(poses, BSM_LIMITS).max() == 0
    poses[0, 6] = high[6] + np.radians(12)
    numbers = reality(poses)
    assert numbers["knees_max_deg"] == pytest.approx(12) and numbers["knees_beyond_10_deg"] == 0.25
    assert numbers["knees_beyond_20_deg"] == 0 and numbers["elbows_max_deg"] == 0
