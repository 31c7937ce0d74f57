"""Benchmark label files: each layout by its keys, and what is wrong told with file, row and field."""

from __future__ import annotations

import os

import numpy as np
import pytest

from schemas import InputError
from train.benchmarks.known import open_benchmark
from train.benchmarks.labels import read_benchmark

RNG = np.random.default_rng(0)
N = 4


def boxed(value) -> np.ndarray:
    """As numpy saves one Python object."""
    return np.array(value, dtype=object)


def layout_a() -> dict:
    return {
        "imgname": np.array([f"imageFiles/seq_{n // 2}/image_{n}.jpg" for n in range(N)]),
        "center": RNG.uniform(100, 200, (N, 2)),
        "scale": RNG.uniform(0.5, 2, (N, 2)),
        "pose_cam": RNG.normal(size=(N, 72)),
        "shape": RNG.normal(size=(N, 11)),
        "gender": np.array(["m", "female", "neutral", "Male"]),
        "gtkps": RNG.normal(size=(N, 49, 3)),
        "cam_int": np.full((N, 3, 3), np.nan),  # never looked at
    }


def layout_b() -> dict:
    smpl = {
        "global_orient": RNG.normal(size=(N, 1, 3)),
        "body_pose": RNG.normal(size=(N, 23, 3)),
        "betas": RNG.normal(size=(N, 10)),
    }
    return {
        "names": np.array(["a", "a", "b", "b"]),
        "img_paths": np.array([f"x-a/YOGI_Cam_01/{n}.jpg" for n in range(N)]),
        "centers": RNG.uniform(100, 200, (N, 2)),
        "scales": np.array([[300.0, 100.0], [100.0, 300.0], [150.0, 200.0], [30.0, 400.0]]),
        "smpl": boxed(smpl),
        "genders": np.array(["male"] * N),
        "extra_info": boxed({"dataset_name": "MoYo"}),
    }


def layout_c() -> dict:
    return {
        "imgname": np.array([f"S9/{n}.jpg".encode() for n in range(N)]),
        "center": RNG.uniform(100, 200, (N, 2)),
        "scale": RNG.uniform(50, 100, N),
        "body_keypoints_2d": RNG.uniform(size=(N, 25, 3)),
        "extra_keypoints_2d": RNG.uniform(size=(N, 19, 3)),
        "body_keypoints_3d": np.concatenate([RNG.normal(size=(N, 25, 3)), np.ones((N, 25, 1))], 2),
        "extra_keypoints_3d": np.concatenate([RNG.normal(size=(N, 19, 3)), np.ones((N, 19, 1))], 2),
        "extra_info": np.array([{"a": 1}] * N, dtype=object),
    }


@pytest.fixture
def written(tmp_path):
    def write(values: dict, name: str = "3dpw_test.npz", save=np.savez):
        save(tmp_path / name, **{key: value for key, value in values.items() if value is not None})
        return tmp_path / name

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_camerahmr_files(written, save):
    values = layout_a()
    people = read_benchmark(written(values, save=save))
    assert people.layout == "A" and len(people) == N
    assert people.imgname.tolist() == values["imgname"].tolist()
    assert people.sequence.tolist() == ["imageFiles/seq_0"] * 2 + ["imageFiles/seq_1"] * 2
    np.testing.assert_allclose(people.side, 200 * values["scale"].max(1))
    np.testing.assert_array_equal(people.poses, values["pose_cam"])
    np.testing.assert_array_equal(people.betas, values["shape"][:, :10])
    assert people.gender.tolist() == ["male", "female", "neutral", "male"]
    np.testing.assert_array_equal(people.keypoints_2d, values["gtkps"][:, :44])


def test_camerahmr_files_with_a_pickled_smpl_one_scale_and_no_gender(written):
    smpl = layout_b()["smpl"]
    values = layout_a() | {"pose_cam": None, "shape": None, "gender": None, "smpl": smpl, "scale": np.full(N, 1.5)}
    people = read_benchmark(written(values))
    orient, body = smpl[()]["global_orient"].reshape(N, 3), smpl[()]["body_pose"].reshape(N, 69)
    np.testing.assert_array_equal(people.poses, np.concatenate([orient, body], 1))
    np.testing.assert_array_equal(people.betas, smpl[()]["betas"])
    assert set(people.gender) == {"unstated"} and people.side.tolist() == [300] * N


def test_moyo_boxes_grow_to_the_network_aspect_and_then_to_a_square(written):
    people = read_benchmark(written(layout_b(), "anything.npz"))
    assert people.layout == "B" and people.sequence.tolist() == ["a", "a", "b", "b"]
    # wider than 3:4 -> the height grows to 4/3 of the width; slimmer -> the height stays the longer side
    np.testing.assert_allclose(people.side, [400, 300, 200, 400])
    np.testing.assert_array_equal(people.label_box, layout_b()["scales"])
    assert people.poses.shape == (N, 72) and set(people.gender) == {"unstated"}


def test_humans4d_files(written):
    values = layout_c()
    people = read_benchmark(written(values))
    assert people.layout == "C" and people.imgname.tolist() == [f"S9/{n}.jpg" for n in range(N)]
    np.testing.assert_allclose(people.side, values["scale"])
    np.testing.assert_array_equal(people.keypoints_2d[:, 25:], values["extra_keypoints_2d"])
    assert not people.keypoints_3d[:, 1:15, 3].any() and people.keypoints_3d[:, 15:, 3].all()
    assert people.keypoints_3d[:, 0, 3].all() and people.poses is None
    only = read_benchmark(written({k: v for k, v in values.items() if "3d" not in k}))
    assert only.keypoints_3d is None and only.keypoints_2d is not None


def test_keypoints_that_are_not_finite_have_no_confidence(written):
    values = layout_c()
    values["extra_keypoints_2d"][2, 3, 0] = np.nan
    people = read_benchmark(written(values))
    assert people.keypoints_2d[2, 28].tolist() == [0, 0, 0]


def wrong(part: str, **changes):
    return pytest.param(changes, part, id=part)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        wrong("row 2, field 'pose_cam': not a finite number", pose_cam="nan"),
        wrong("field 'center': an array of shape (4, 3)", center=np.zeros((N, 3))),
        wrong("field 'shape': an array of shape (4, 5)", shape=np.zeros((N, 5))),
        wrong("row 1, field 'scale': a box of", scale=np.array([1.0, 0, 1, 1])),
        wrong("row 3, field 'gender': 'x'", gender=np.array(["m", "f", "f", "x"])),
        wrong("field 'gender': 3 rows", gender=np.array(["m", "f", "f"])),
        wrong("field 'imgname': values of type", imgname=np.arange(N)),
        wrong("field 'gtkps'", gtkps=np.zeros((N, 20, 3))),
        wrong("field 'betas': the field is missing", shape=None, smpl=boxed({})),
        wrong("field 'smpl': holds a ndarray", smpl=boxed([1, 2])),
    ],
)
def test_faults_are_told_with_their_place(written, changes, part):
    values = layout_a()
    if isinstance(changes.get("pose_cam"), str):
        changes = {"pose_cam": values["pose_cam"].copy()}
        changes["pose_cam"][2, 5] = np.nan
    path = written(values | changes)
    with pytest.raises(InputError) as caught:
        read_benchmark(path)
    told = str(caught.value)
    assert told.startswith(str(path)) and part.replace("'betas'", "'smpl.betas'") in told


def mended(values: dict, key: str, change) -> dict:
    if key == "smpl":
        inner = dict(values["smpl"][()])
        return values | {"smpl": boxed(inner | {name: change(value) for name, value in inner.items()})}
    return values | {key: change(values[key])}


@pytest.mark.parametrize(
    ("layout", "key", "change", "part"),
    [
        (layout_a, "scale", lambda v: 200 * v, "field 'scale': the median box"),
        (layout_a, "scale", lambda v: v / 200, "field 'scale': the median box"),
        (layout_a, "pose_cam", np.degrees, "field 'pose'"),
        (layout_b, "scales", lambda v: v / 200, "field 'scales': the median box"),
        (layout_b, "smpl", np.degrees, "field 'pose'"),
        (layout_c, "scale", lambda v: v / 200, "field 'scale': the median box"),
        (layout_c, "extra_keypoints_3d", lambda v: v * [1000, 1000, 1000, 1], "expected m"),
        (layout_c, "extra_keypoints_3d", lambda v: v * np.where(np.arange(19) == 3, np.nan, 1)[:, None], "row 0"),
    ],
)
def test_another_unit_is_told_and_not_measured(written, layout, key, change, part):
    values = layout()
    read_benchmark(written(values))
    with pytest.raises(InputError) as caught:
        read_benchmark(written(mended(values, key, change)))
    assert part in str(caught.value)


@pytest.mark.parametrize("layout", [layout_a, layout_c])
def test_a_file_of_nobody_is_told(written, layout):
    with pytest.raises(InputError, match="field 'imgname': nobody is in it"):
        read_benchmark(written({key: value[:0] for key, value in layout().items()}))


def test_a_missing_field_is_called_missing(written):
    for values, told in (
        (layout_b() | {"scales": None}, "field 'scales': the field is missing"),
        (layout_a() | {"shape": None}, "field 'shape': the field is missing"),
    ):
        with pytest.raises(InputError, match=told):
            read_benchmark(written(values))


def test_human36m_is_not_measured_on_joints_that_the_file_lacks(written, tmp_path):
    values = layout_c() | {"extra_keypoints_3d": None}
    path = written(values, "h36m_val_p2.npz")
    with pytest.raises(InputError, match="field 'extra_keypoints_3d': the field is missing"):
        open_benchmark("h36m", tmp_path)
    assert open_benchmark(f"mine={path}", tmp_path).benchmark.protocol == "keypoints"


def test_of_two_files_of_a_name_the_one_of_the_benchmarks_layout_is_taken(written, tmp_path):
    (tmp_path / "labels").mkdir()
    first, second = written(layout_a()), written(layout_c(), "labels/3dpw_test.npz")
    assert open_benchmark("3dpw", tmp_path).people.file == str(first)
    assert open_benchmark("3dpw-hsmr", tmp_path).people.file == str(second)
    second.unlink()
    with pytest.raises(InputError, match="its keys are those of layout A"):
        open_benchmark("3dpw-hsmr", tmp_path)


def test_other_files_are_refused_with_their_keys(written):
    with pytest.raises(InputError, match="its keys are poses, trans"):
        read_benchmark(written({"poses": np.zeros((2, 72)), "trans": np.zeros((2, 3))}))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/hostile-benchmark",)


def test_nothing_that_a_pickled_member_names_is_run(written, tmp_path):
    values = layout_b() | {"smpl": boxed({"global_orient": Hostile()})}
    with pytest.raises(InputError, match=r"field 'smpl': the pickle refers to (posix|os)\.system, which is refused"):
        read_benchmark(written(values))
    assert not os.path.exists("/tmp/hostile-benchmark")
    damaged = written(layout_b())
    data = bytearray(damaged.read_bytes())
    place = data.find(b"body_pose") + 40
    data[place : place + 30] = bytes(30)
    damaged.write_bytes(data)
    with pytest.raises(InputError, match="smpl"):
        read_benchmark(damaged)
