"""Label files: spellings, row ranges, memory, and what is refused."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.read.labels import IMAGE_LABELS, POSE_AND_SHAPE, dataset_name, open_labels
from schemas import CAMERAHMR, InputError, check_columns

ROWS = 7


@pytest.fixture
def canonical():
    rng = np.random.default_rng(0)
    return {
        "imgname": np.array([f"folder/ä{i}.jpg" for i in range(ROWS)]),
        "center": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "scale": rng.uniform(1, 2, size=(ROWS, 2)).astype(np.float32),
        "pose_cam": rng.normal(size=(ROWS, 72)).astype(np.float32),
        "shape": rng.normal(size=(ROWS, 10)).astype(np.float32),
        "cam_int": rng.normal(size=(ROWS, 3, 3)).astype(np.float32),
        "gtkps": rng.normal(size=(ROWS, 44, 3)).astype(np.float32),
        "trans_cam": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "keypoints3d": rng.normal(size=(ROWS, 44, 4)).astype(np.float32),
    }


def equal(found, expected):
    return np.array_equal(found.astype(expected.dtype) if expected.dtype.kind == "U" else found, expected)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_of_numpy(tmp_path, canonical, save, order):
    path = tmp_path / "aic-release.npz"
    save(path, **{name: np.asarray(values, order=order) for name, values in canonical.items()})
    labels = open_labels(path, IMAGE_LABELS)
    assert (labels.rows, labels.dataset) == (ROWS, "aic")
    everything = labels.read()
    check_columns(CAMERAHMR, everything, path)
    for name, values in canonical.items():
        assert equal(everything[name], values), name
        assert equal(labels.read(2, 5, [name])[name], values[2:5]), name
        pieces = np.concatenate(list(labels.iterate(name, chunk=3)))
        assert equal(pieces, values), name


@settings(max_examples=30, deadline=None)
@given(st.integers(-3, ROWS + 3), st.integers(0, ROWS + 3), st.booleans(), st.sampled_from([">f4", "<f8", "<f2"]))
def test_any_range_and_number_type(tmp_path_factory, start, stop, compressed, dtype):
    path = tmp_path_factory.mktemp("range") / "a.npz"
    poses = np.arange(ROWS * 72).reshape(ROWS, 72).astype(dtype)
    (np.savez_compressed if compressed else np.savez)(path, pose=poses, betas=np.zeros((ROWS, 10)))
    found = open_labels(path).read(start, stop)["pose_cam"]
    first = min(max(start, 0), min(stop, ROWS))
    assert found.dtype == np.float32
    assert np.array_equal(found, poses[first : min(stop, ROWS)].astype(np.float32))


def spelled(canonical, drop, **arrays):
    return {name: values for name, values in canonical.items() if name not in drop} | arrays


def test_spellings_of_one_meaning(tmp_path, canonical):
    c = canonical
    pose, shape, trans = ("pose_cam",), ("shape",), ("trans_cam",)
    ten_and_six = np.concatenate([c["shape"], np.full((ROWS, 6), 9.0, np.float32)], axis=1)
    more_keypoints = np.concatenate([c["gtkps"], c["gtkps"][:, :5]], axis=1)
    variants = {
        "poses": spelled(c, pose, poses=c["pose_cam"]),
        "pose": spelled(c, pose, pose=c["pose_cam"].reshape(ROWS, 24, 3)),
        "joints": spelled(c, pose, pose_cam=c["pose_cam"].reshape(ROWS, 24, 3)),
        "split": spelled(c, pose, global_orient=c["pose_cam"][:, :3], body_pose=c["pose_cam"][:, 3:]),
        "split joints": spelled(
            c,
            pose,
            global_orient=c["pose_cam"][:, None, :3],
            body_pose=c["pose_cam"][:, 3:].reshape(ROWS, 23, 3),
        ),
        "betas": spelled(c, shape, betas=ten_and_six),
        "transl": spelled(c, trans, transl=c["trans_cam"]),
        "trans": spelled(c, trans, trans=c["trans_cam"].astype(np.float64)),
        "keypoints": spelled(c, ("gtkps",), gtkps=more_keypoints),
        "bytes": spelled(c, ("imgname",), imgname=np.char.encode(c["imgname"], "utf-8")),
    }
    for name, arrays in variants.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        found = open_labels(path, IMAGE_LABELS).read()
        for key, values in canonical.items():
            assert equal(found[key], values), (name, key)


def test_values_for_the_whole_file_and_defaults(tmp_path, canonical):
    path = tmp_path / "a.npz"
    arrays = spelled(
        canonical,
        ("shape", "cam_int", "scale", "keypoints3d"),
        betas=canonical["shape"][0],
        cam_int=canonical["cam_int"][:1],
        scale=canonical["scale"][:, 0],
        keypoints3d=canonical["keypoints3d"][..., :3],
        gender=np.array("F"),
        mocap_framerate=np.array(120.0),
    )
    np.savez(path, **arrays)
    labels = open_labels(path, IMAGE_LABELS)
    found = labels.read(1, 3)
    assert labels.frame_rate == 120
    assert np.array_equal(found["shape"], np.tile(canonical["shape"][0], (2, 1)))
    assert np.array_equal(found["cam_int"], np.tile(canonical["cam_int"][0], (2, 1, 1)))
    assert np.array_equal(found["scale"], np.tile(canonical["scale"][1:3, :1], 2))
    assert np.array_equal(found["keypoints3d"][..., 3], np.ones((2, 44)))
    assert found["gender"].tolist() == ["female", "female"]


@pytest.mark.parametrize("name", ["mocap_framerate", "mocap_frame_rate", "frame_rate", "framerate", "fps"])
def test_spellings_of_the_frame_rate(tmp_path, name):
    arrays = {"poses": np.zeros((2, 72)), "betas": np.zeros(10), name: np.array([120])}
    np.savez(tmp_path / "a.npz", **arrays)
    assert open_labels(tmp_path / "a.npz").frame_rate == 120
    np.savez(tmp_path / "a.npz", **arrays | {name: np.array(0)})
    with pytest.raises(InputError, match=rf"a\.npz, field '{name}': 0\.0 given; expected a positive number"):
        open_labels(tmp_path / "a.npz").frame_rate  # noqa: B018
    del arrays[name]
    np.savez(tmp_path / "a.npz", **arrays)
    assert open_labels(tmp_path / "a.npz").frame_rate is None


def test_amass_sequence_drops_fingers_and_keeps_the_body(tmp_path):
    poses = np.random.default_rng(0).normal(size=(5, 156))
    path = tmp_path / "sequence.npz"
    np.savez(path, poses=poses, betas=np.arange(16.0), trans=np.ones((5, 3)), gender=np.bytes_("male"))
    found = open_labels(path, POSE_AND_SHAPE).read()
    assert np.array_equal(found["pose_cam"][:, :66], poses[:, :66].astype(np.float32))
    assert not found["pose_cam"][:, 66:].any()
    assert np.array_equal(found["shape"], np.tile(np.arange(10, dtype=np.float32), (5, 1)))
    assert found["gender"].tolist() == ["male"] * 5


def test_a_single_frame_without_row_dimension(tmp_path):
    path = tmp_path / "frame.npz"
    np.savez(path, poses=np.arange(72.0), betas=np.zeros(10), trans=np.ones(3))
    labels = open_labels(path)
    assert labels.rows == 1
    assert np.array_equal(labels.read()["pose_cam"], np.arange(72, dtype=np.float32)[None])
    assert np.array_equal(labels.read()["trans_cam"], np.ones((1, 3)))


@pytest.mark.parametrize("compressed", [False, True])
def test_one_row_of_a_large_member_costs_little_memory(tmp_path, compressed):
    rows = 200_000  # 58 MB of poses, 106 MB of keypoints that nobody asks for
    path = tmp_path / "large.npz"
    save = np.savez_compressed if compressed else np.savez
    poses = np.zeros((rows, 72), np.float32)
    poses[-2] = 1
    save(path, pose_cam=poses, betas=np.zeros((rows, 10), np.float32), gtkps=np.zeros((rows, 44, 3), np.float32))
    del poses
    tracemalloc.start()
    labels = open_labels(path)
    row = labels.read(rows - 2, rows - 1, ["pose_cam"])["pose_cam"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row.shape == (1, 72) and row.all()
    assert peak < 8e6


class Intruder:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (self.trace, "w"))


def test_arrays_of_objects_are_refused_by_name_and_not_opened(tmp_path, canonical):
    trace = tmp_path / "trace"
    path = tmp_path / "a.npz"
    names = np.array([Intruder(str(trace))], object)
    np.savez(path, **spelled(canonical, ("imgname",), imgname=names, allow_pickle=True))
    with pytest.raises(InputError, match=r"a\.npz.*imgname.*pickle"):
        open_labels(path, IMAGE_LABELS)
    assert not trace.exists()


@pytest.mark.parametrize("name", IMAGE_LABELS)
def test_missing_fields_are_named(tmp_path, canonical, name):
    path = tmp_path / "a.npz"
    np.savez(path, **spelled(canonical, (name,)))
    with pytest.raises(InputError, match=rf"a\.npz.*{name}.*missing") as caught:
        open_labels(path, IMAGE_LABELS)
    assert (caught.value.field, caught.value.file) == (name, str(path))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pose_cam", np.zeros((ROWS, 71))),
        ("pose_cam", np.zeros((ROWS, 3, 24))),
        ("pose_cam", np.zeros((ROWS, 24, 3, 2))),
        ("shape", np.zeros((ROWS, 9))),
        ("scale", np.zeros((ROWS, 3))),
        ("center", np.zeros((ROWS + 1, 2))),
        ("cam_int", np.zeros((ROWS, 9))),
        ("gtkps", np.zeros((ROWS, 43, 3))),
        ("gtkps", np.array(["text"] * ROWS)),
        ("imgname", np.arange(ROWS)),
        ("trans_cam", np.zeros((ROWS, 4))),
        ("keypoints3d", np.zeros((ROWS, 44, 2))),
    ],
)
def test_wrong_shapes_and_types_name_field_and_expectation(tmp_path, canonical, name, values):
    path = tmp_path / "a.npz"
    np.savez(path, **spelled(canonical, (name,), **{name: values}))
    with pytest.raises(InputError) as caught:
        open_labels(path, IMAGE_LABELS)
    assert caught.value.field == name
    assert caught.value.expected


def test_fields_that_the_caller_does_not_read_are_not_looked_at(tmp_path, canonical):
    path = tmp_path / "a.npz"
    np.savez(path, **spelled(canonical, ("gtkps",), gtkps=np.array([object()]), allow_pickle=True))
    labels = open_labels(path, POSE_AND_SHAPE, also=("trans_cam",))
    assert labels.fields == ("pose_cam", "shape", "trans_cam")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_input_errors(tmp_path, canonical, compressed):
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **canonical)
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    damaged = [good[:100], b"", b"not a zip", good[: len(good) // 2]]
    for _ in range(60):
        bad = bytearray(good)
        for position in rng.integers(0, len(good), 3):
            bad[position] = rng.integers(256)
        damaged.append(bytes(bad))
    for number, content in enumerate(damaged):
        path.write_bytes(content)
        try:
            columns = open_labels(path, IMAGE_LABELS).read()
        except InputError as error:
            assert error.file == str(path)
        else:  # the damage hit numbers
            assert number > 3 and {len(values) for values in columns.values()} == {ROWS}


def test_a_header_that_promises_more_than_the_file_has(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, betas=np.zeros((2, 10)))
    with zipfile.ZipFile(path, "a") as archive, archive.open("pose.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 72)})
    with pytest.raises(InputError, match="promises"):
        open_labels(path)


def test_names_of_data_sets():
    names = ["x/aic-release.npz", "insta1-release.npz", "mpi-inf.npz", "release.npz"]
    assert [dataset_name(name) for name in names] == ["aic", "insta1", "mpi-inf", "release"]
