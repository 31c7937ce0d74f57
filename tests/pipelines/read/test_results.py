"""More doors: split poses, rotation matrices, and SMPL parameters inside dictionaries of well-known programs."""

from __future__ import annotations

import io
import logging
import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitting.body.inert_pickle import read_pickle
from pipelines.command.hmr_skel import guarded
from pipelines.hand_on import fit as fit_sequence
from pipelines.hand_on.smplx_parameters import is_smplx_file
from pipelines.plan.planning import find_label_files
from pipelines.read.labels import open_labels
from pipelines.read.results import is_result, label_file_of
from schemas import InputError

ROWS = 3
POSES = np.random.default_rng(0).normal(0, 0.4, (ROWS, 72))
BETAS = np.random.default_rng(1).normal(0, 0.5, (ROWS, 10))
TRANS = np.ones((ROWS, 3))
MATRICES = Rotation.from_rotvec(POSES.reshape(-1, 3)).as_matrix().reshape(ROWS, 24, 3, 3)


def read(path):
    return open_labels(path).read()["pose_cam"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"root_orient": POSES[:, :3], "pose_body": POSES[:, 3:66]},
        {"root_orient": POSES[:, :3], "pose_body": POSES[:, 3:66].reshape(ROWS, 21, 3)},
        {"root_orient": POSES[:, :3], "pose_body": POSES[:, 3:]},
        {"global_orient": MATRICES[:, :1], "body_pose": MATRICES[:, 1:]},
        {"global_orient": MATRICES[:, 0], "body_pose": MATRICES[:, 1:].astype(np.float32)},
        {"root_orient": MATRICES[:, :1], "pose_body": MATRICES[:, 1:22]},
        {"global_orient": MATRICES[:, :1], "body_pose": POSES[:, 3:]},
        {"pose": MATRICES},
    ],
)
def test_split_poses_and_rotation_matrices(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", betas=np.arange(16.0), **arrays)
    np.testing.assert_allclose(read(tmp_path / "a.npz")[:, :66], POSES[:, :66], atol=1e-5)
    assert find_label_files([str(tmp_path / "a.npz")], with_images=False)[0].rows == ROWS


@pytest.mark.parametrize("wrong", [np.zeros((3, 3)), 2 * np.eye(3), -np.eye(3), np.diag([1, 1, -1.0]), np.ones((3, 3))])
def test_a_matrix_that_is_no_rotation_costs_its_row_and_is_told(tmp_path, caplog, wrong):
    matrices = MATRICES.copy()
    matrices[1, 5] = wrong
    np.savez(tmp_path / "a.npz", pose=matrices, betas=BETAS)
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path / "a.npz")
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()
    assert "1 rows hold matrices that are no rotations (1)" in caplog.text
    caplog.clear()
    np.savez(tmp_path / "a.npz", pose=MATRICES.astype(np.float16), betas=BETAS)
    assert np.isfinite(read(tmp_path / "a.npz")).all() and not caplog.text


TWO = [POSES, POSES[:2] + 0.1]
THREE_DPW = {
    "poses": TWO,
    "betas": [BETAS[0], np.zeros(10)],
    "trans": [TRANS, TRANS[:2]],
    "genders": ["m", "f"],
    "sequence": "street",
}
WHAM = {0: {"pose": POSES, "betas": BETAS, "trans": TRANS}, 1: {"pose": TWO[1], "betas": BETAS[:2], "trans": TRANS[:2]}}
PHALP = {
    f"frame{i}": {
        "smpl": [{"global_orient": MATRICES[i, :1], "body_pose": MATRICES[i, 1:], "betas": BETAS[i]}],
        "camera": np.zeros(3),
    }
    for i in range(ROWS)
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (THREE_DPW, np.concatenate(TWO)),
        (WHAM, np.concatenate(TWO)),
        (PHALP, POSES),
        ({"poses": POSES, "betas": BETAS[0], "trans": TRANS}, POSES),
        ({"smpl_pose": POSES, "betas": BETAS}, POSES),
        ({"pose_cam": POSES, "shape": BETAS, "trans_cam": TRANS}, POSES),
    ],
)
def test_dictionaries_of_arrays_are_read(tmp_path, value, expected, caplog):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=2))
    found = open_labels(label_file_of(tmp_path / "x.pkl"))
    np.testing.assert_allclose(found.read()["pose_cam"], expected, atol=1e-5)
    assert found.name == "x.npz"
    assert ("2 people, in rows 0:3, 3:5" in caplog.text) == (len(expected) == 5)
    if "genders" in value:
        assert found.read()["gender"].tolist() == ["male"] * 3 + ["female"] * 2


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def tensors(values):
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in values.items()}


TRAM = {"pred_rotmat": MATRICES, "pred_shape": BETAS, "pred_trans": TRANS[:, None], "frame": np.arange(ROWS)}


@pytest.mark.parametrize("of", [dict, tensors])
@pytest.mark.parametrize("name", ["hps_track_0.npy", "track.pkl"])
def test_tram_is_read_from_arrays_and_tensors(tmp_path, of, name):
    value = of(TRAM)
    content = npy(np.array(value, object)) if name.endswith("npy") else pickle.dumps(value)
    (tmp_path / name).write_bytes(content)
    found = open_labels(label_file_of(tmp_path / name)).read()
    np.testing.assert_allclose(found["pose_cam"], POSES, atol=1e-5)
    np.testing.assert_allclose(found["shape"], BETAS, atol=1e-6)
    np.testing.assert_allclose(found["trans_cam"], TRANS)


def test_camerahmrs_demo_is_read_and_named(tmp_path, capsys):
    split = {"global_orient_axis_angle": POSES[:, :3], "body_pose_axis_angle": POSES[:, 3:], "betas": BETAS}
    demo = np.array(tensors(split), dtype=object)
    np.savez(tmp_path / "demo.npz", pred_smpl_parms=demo, verts=np.zeros(1), pred_cam_t=np.ones((ROWS, 3)))
    run = [str(tmp_path / "demo.npz"), "-o", str(tmp_path / "out.npz")]
    assert guarded(lambda: fit_sequence.main(run), "hmr-skel") == 0
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["smpl_poses"], POSES, atol=1e-6)
    assert set(found["trans_source"]) == {"none"} and found["valid"].all()
    with pytest.raises(InputError, match="what CameraHMR's demo writes, no label file"):
        find_label_files([str(tmp_path / "demo.npz")], with_images=False)


SPLIT = {"global_orient_axis_angle": POSES[:, :3], "body_pose_axis_angle": POSES[:, 3:], "betas": BETAS}
HMR2 = {"global_orient": MATRICES[:, :1], "body_pose": MATRICES[:, 1:], "betas": BETAS}
ROMP = {"cam": np.zeros((ROWS, 3)), "smpl_thetas": POSES, "smpl_betas": BETAS, "body_pose": POSES[:, 3:]}


@pytest.mark.parametrize(
    ("value", "whose"),
    [
        (SPLIT, "CameraHMR's parameters"),
        ({"pred_smpl_params": HMR2, "pred_cam_t": TRANS}, "HMR2.0's output"),
        ({"results": ROMP}, "ROMP's output"),
        ({"smpl_thetas": POSES, "smpl_betas": BETAS, "cam_trans": TRANS}, "ROMP's parameters"),
    ],
)
def test_estimates_of_single_pictures_are_read_and_named(tmp_path, value, whose):
    members = {name: np.array(v, object) if isinstance(v, dict) else v for name, v in value.items()}
    np.savez(tmp_path / "x.npz", imgname=np.array(["a.jpg"] * ROWS), **members)
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(value))
    for name in ("x.npz", "y.pkl"):
        assert is_result(tmp_path / name)
        found = open_labels(label_file_of(tmp_path / name)).read()
        np.testing.assert_allclose(found["pose_cam"], POSES, atol=1e-5)
        np.testing.assert_allclose(found["shape"], BETAS, atol=1e-6)
        assert ("imgname" in np.load(label_file_of(tmp_path / name)).files) == (name == "x.npz")
    with pytest.raises(InputError, match=f"this is {whose}, no label file"):
        find_label_files([str(tmp_path / "x.npz")], with_images=False)
    np.savez(tmp_path / "labels.npz", pose_cam=POSES, shape=BETAS, results=np.array(ROMP, object))
    assert not is_result(tmp_path / "labels.npz")


def gvhmr(shift):
    values = {"global_orient": POSES[:, :3] + shift, "body_pose": POSES[:, 3:66], "betas": BETAS, "transl": TRANS}
    return tensors(values)


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_gvhmr_is_smplx_in_the_frame_that_is_asked_for(tmp_path, caplog, frame):
    value = {"smpl_params_incam": gvhmr(0.0), "smpl_params_global": gvhmr(1.0), "K_fullimg": torch.eye(3)}
    torch.save(value, tmp_path / "hmr4d_results.pt")
    found = label_file_of(tmp_path / "hmr4d_results.pt", frame)
    assert is_smplx_file(found)
    with np.load(found) as arrays:
        np.testing.assert_allclose(arrays["global_orient"], POSES[:, :3] + (frame == "world"), atol=1e-6)
        np.testing.assert_allclose(arrays["body_pose"], POSES[:, 3:66], atol=1e-6)
    read, left = ("global", "incam") if frame == "world" else ("incam", "global")
    assert f"read from smpl_params_{read}, not from smpl_params_{left} (--frame {frame})" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_tensors_in_pickles_are_what_torch_says(tmp_path, dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    values = {"whole": whole, "turned": whole.transpose(0, 2), "part": whole[1, :, 1:3], "one": whole[0, 0, 0]}
    values |= {"none": whole[:0], "broadcast": whole[0, 0].expand(1, 4), "parameter": torch.nn.Parameter(torch.ones(2))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(values))
    found = read_pickle(tmp_path / "x.pkl")
    for name, tensor in values.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())
        assert found[name].dtype == tensor.detach().numpy().dtype


def test_tensors_that_claim_more_than_they_have_are_refused(tmp_path):
    """Every number of the layout, and the length, made larger."""
    content = bytearray(pickle.dumps({"x": torch.arange(3 * 5 * 7).reshape(3, 5, 7)}, protocol=2))
    for place, size in ((content.rindex(b"K\x03K\x05K\x07"), 3), (content.rindex(b"K#K\x07K\x01"), 3)):
        for step in range(size):
            changed = content.copy()
            changed[place + 2 * step + 1] = 250
            (tmp_path / "x.pkl").write_bytes(changed)
            with pytest.raises(InputError, match="tensor"):
                read_pickle(tmp_path / "x.pkl")


def test_mutated_tensors_are_read_or_refused(tmp_path):
    """Bytes of the pickle and of the file within it, changed at random."""
    rng = np.random.default_rng(0)
    whole = pickle.dumps(tensors({"x": POSES, "y": np.arange(7)}), protocol=2)
    for _ in range(400):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        (tmp_path / "x.pkl").write_bytes(
            content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.2 else content
        )
        try:
            read_pickle(tmp_path / "x.pkl")
        except InputError as error:
            assert "x.pkl" in str(error)


def named(module):
    """A pickle that refers to a class of this module."""
    return f"c{module}\nThing\n)R.".encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.pt", b"PK", "damaged"),
        ("x.ckpt", b"PK", "a torch checkpoint"),
        ("x.npy", b"", "no .npy file"),
        ("x.npy", npy(POSES), "a lone array"),
        ("x.npy", npy(np.array({"a": 1}, object))[:-9], "damaged"),
        ("x.pkl", named("joblib.numpy_pickle"), "written with joblib"),
        ("x.pkl", named("torch._utils"), "refers to torch._utils.Thing, which is refused"),
        ("x.pkl", pickle.dumps({"verts": np.zeros((3, 4))}), "no SMPL parameters"),
        ("x.pkl", pickle.dumps([1, 2]), "no layout that is known"),
        ("x.pkl", pickle.dumps(WHAM)[:40], "damaged"),
    ],
)
def test_other_results_are_named_in_one_line(tmp_path, capsys, name, content, said):
    (tmp_path / name).write_bytes(content)
    run = [str(tmp_path / name), "-o", str(tmp_path / "out.npz")]
    assert guarded(lambda: fit_sequence.main(run), "hmr-skel") == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line and name in line
    with pytest.raises(InputError, match="no label file"):
        find_label_files([str(tmp_path / name)], with_images=False)


WORLD = {"pose_world": POSES + 1, "trans_world": 2 * TRANS}
IN_TWO_FRAMES = {
    "wham.pkl": {0: {"pose": POSES, "betas": BETAS, "trans": TRANS} | WORLD},
    "bedlam.npz": {"pose_cam": POSES, "shape": BETAS, "trans_cam": TRANS} | WORLD,
}


@pytest.mark.parametrize("name", IN_TWO_FRAMES)
@pytest.mark.parametrize("frame", ["camera", "world"])
def test_the_frame_of_poses_is_chosen_and_told(tmp_path, caplog, capsys, name, frame):
    write = np.savez if name.endswith("npz") else lambda path, **_: path.write_bytes(pickle.dumps(IN_TWO_FRAMES[name]))
    write(tmp_path / name, **(IN_TWO_FRAMES[name] if name.endswith("npz") else {}))
    run = [str(tmp_path / name), "-o", str(tmp_path / "out.npz"), "--mot", str(tmp_path / "out.mot")]
    assert guarded(lambda: fit_sequence.main([*run, "--frame", frame, "--up", "y"]), "hmr-skel") == 0
    found, shift = np.load(tmp_path / "out.npz"), frame == "world"
    np.testing.assert_allclose(found["smpl_poses"], POSES + shift, atol=1e-5)
    np.testing.assert_allclose(found["smpl_trans"], TRANS * (1 + shift))
    own, other = ("pose_world", "pose") if shift else ("pose", "pose_world")
    [line] = [text for record in caplog.records if "poses are read" in (text := record.getMessage())]
    assert (
        line.index(own) < line.index(", not from") < line.index(other, line.index("not")) and f"--frame {frame}" in line
    )


def test_a_frame_that_is_not_there_is_named(tmp_path, capsys):
    np.savez(tmp_path / "world.npz", pose_world=POSES, betas=BETAS)
    np.savez(tmp_path / "camera.npz", poses=POSES, betas=BETAS)
    for name, options, said in (
        ("world.npz", [], "hmr-skel fit --frame world reads pose_world"),
        ("camera.npz", ["--frame", "world"], "pose_world or poses_world, or --frame camera"),
    ):
        run = [str(tmp_path / name), "-o", str(tmp_path / "out.npz"), *options]
        assert guarded(lambda run=run: fit_sequence.main(run), "hmr-skel") == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_job_tells_which_poses_it_reads(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **IN_TWO_FRAMES["bedlam.npz"])
    [file] = find_label_files([str(tmp_path / "a.npz")], with_images=False)
    np.testing.assert_allclose(file.read()["trans_cam"], TRANS)
    assert "poses are read from pose_cam, not from pose_world" in caplog.text


def test_a_pickled_result_is_fitted(tmp_path, capsys):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"poses": POSES, "betas": BETAS, "trans": TRANS}))
    run = [str(tmp_path / "x.pkl"), "-o", str(tmp_path / "out.npz")]
    assert guarded(lambda: fit_sequence.main(run), "hmr-skel") == 0
    found = np.load(tmp_path / "out.npz")
    assert found["valid"].all() and str(found["source"]) == "x.npz"
