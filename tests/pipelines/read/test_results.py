"""More doors: split poses, rotation matrices, and SMPL parameters inside dictionaries of well-known programs."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.command.hmr_skel import guarded
from pipelines.hand_on import fit as fit_sequence
from pipelines.plan.planning import find_label_files
from pipelines.read.labels import open_labels
from pipelines.read.results import label_file_of
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


def named(module):
    """A pickle that refers to a class of this module."""
    return f"c{module}\nThing\n)R.".encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.pt", b"PK", "a torch file"),
        ("x.npy", b"", "TRAM"),
        ("x.pkl", named("joblib.numpy_pickle"), "written with joblib"),
        ("x.pkl", named("torch._utils"), "written with torch"),
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
