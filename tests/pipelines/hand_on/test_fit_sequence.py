"""`hmr-skel fit` on label files and sequences, on the embedded body and with bodies that only count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.anatomy import COORDINATE_NAMES
from fitting.body.limits import HUMAN_LIMITS
from pipelines.command.hmr_skel import guarded
from pipelines.hand_on import fit as fit_sequence
from pipelines.read.labels import open_labels
from schemas import HMR_SKEL, field_shape


def sequence(path, count: int = 5, seed: int = 0, **changes):
    """An AMASS-like file of a person who moves the arms a little. A change of None leaves the array out."""
    rng = np.random.default_rng(seed)
    poses = np.zeros((count, 72), np.float32)
    poses[:, :3] = rng.normal(0, 1, (1, 3))
    poses[:, 48:60] = rng.normal(0, 0.3, (count, 12))
    arrays = {
        "poses": poses,
        "betas": rng.normal(0, 0.5, (count, 10)).astype(np.float32),
        "trans": rng.normal(0, 1, (count, 3)).astype(np.float32),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(60.0),
    }
    np.savez(path, **{name: values for name, values in (arrays | changes).items() if values is not None})
    return arrays | changes


def run(*arguments) -> int:
    return guarded(lambda: fit_sequence.main([str(argument) for argument in arguments]), "hmr-skel")


def read(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def test_sequence_is_fitted(tmp_path, capsys, demo_smpl, demo_skel):
    source = sequence(tmp_path / "in.npz")
    assert run(tmp_path / "in.npz", "-o", tmp_path / "new" / "out.npz", "--device", "cpu") == 0
    found = read(tmp_path / "new" / "out.npz")
    for name in ("poses", "betas", "trans", "vertex_error_mm", "stage_vertex_error_mm", "stage_cost", "converged"):
        assert found[name].shape == (5, *field_shape(HMR_SKEL.field(name))), name
    assert found["limits_pressed"].shape == (5, 46)
    np.testing.assert_array_equal(found["smpl_poses"], source["poses"])
    assert found["mocap_framerate"] == 60.0
    assert tuple(found["pose_names"]) == COORDINATE_NAMES
    assert found["source"] == "in.npz"
    assert found["valid"].all()
    # the numbers are about the meshes that the parameters make
    poses, betas, trans = (torch.from_numpy(source[name]) for name in ("poses", "betas", "trans"))
    target = demo_smpl(betas=betas, global_orient=poses[:, :3], body_pose=poses[:, 3:]).vertices + trans[:, None]
    skin = demo_skel(*(torch.from_numpy(found[name]) for name in ("poses", "betas", "trans"))).vertices
    distance = 1000 * (skin - target).norm(dim=-1).mean(1)
    np.testing.assert_allclose(found["vertex_error_mm"], distance.detach().numpy(), atol=0.01)
    text = capsys.readouterr().out
    for wanted in ("vertex_error_mm after lower", "people per second", "joint angles on a limit", "converged"):
        assert wanted in text


def test_real_sequence(shared, tmp_path):
    """A running person and a single frame from a photograph."""
    assert run(shared / "real" / "running_smpl.npz", "-o", tmp_path / "run.npz", "--rows", "20:24") == 0
    found = read(tmp_path / "run.npz")
    assert found["converged"].all()
    assert found["vertex_error_mm"].max() < 20
    assert (np.diff(found["stage_vertex_error_mm"].mean(axis=0)) < 0).all()
    assert found["source_row"].tolist() == [20, 21, 22, 23]
    assert run(shared / "real" / "romp_frame_smpl.npz", "-o", tmp_path / "frame.npz") == 0
    assert read(tmp_path / "frame.npz")["poses"].shape == (1, 46)
    assert run(shared / "real" / "running_camerahmr.npz", "-o", tmp_path / "labels.npz", "--rows", ":2") == 0
    assert read(tmp_path / "labels.npz")["imgname"].shape == (2,)


def test_a_lone_pose_without_rows(tmp_path):
    sequence(tmp_path / "in.npz", 1, poses=np.zeros(72), betas=np.zeros(10), trans=np.zeros(3), mocap_framerate=None)
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz") == 0
    found = read(tmp_path / "out.npz")
    assert found["poses"].shape == (1, 46)
    assert "mocap_framerate" not in found


def test_rows_that_are_not_finite_stay_as_nan(tmp_path, capsys):
    arrays = sequence(tmp_path / "in.npz")
    arrays["poses"][1, 7] = np.nan
    arrays["betas"][3, 0] = np.inf
    np.savez(tmp_path / "in.npz", **arrays)
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--mot", tmp_path / "out.mot") == 0
    found = read(tmp_path / "out.npz")
    assert found["valid"].tolist() == [True, False, True, False, True]
    for name in ("poses", "betas", "trans", "vertex_error_mm"):
        finite = np.isfinite(found[name].reshape(5, -1))
        assert finite.all(axis=1).tolist() == found["valid"].tolist(), name
        assert finite.any(axis=1).tolist() == found["valid"].tolist(), name
    text = " ".join(capsys.readouterr().out.split())
    assert "2 (rows 1, 3)" in text
    _, table = read_mot(tmp_path / "out.mot")
    np.testing.assert_allclose(table[:, 0], np.array([0, 2, 4]) / 60, rtol=1e-6)


def read_mot(path) -> tuple[dict[str, str], np.ndarray]:
    """Header and table as OpenSim's reader takes them: `key=value` lines up to endheader, labels, then numbers."""
    lines = path.read_text().splitlines()
    end = lines.index("endheader")
    header = dict(line.split("=") for line in lines[:end] if "=" in line)
    header["name"], header["labels"] = lines[0], lines[end + 1].split("\t")
    return header, np.array([[float(x) for x in line.split("\t")] for line in lines[end + 2 :]])


def test_frame_rate_is_assumed_aloud(tmp_path, caplog):
    sequence(tmp_path / "in.npz", 2, mocap_framerate=None)
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--mot", tmp_path / "out.mot") == 0
    assert "no frame rate; 30 frames/s are assumed" in caplog.text
    assert read_mot(tmp_path / "out.mot")[1][1, 0] == pytest.approx(1 / 30)
    run(tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--mot", tmp_path / "out.mot", "--frame-rate", "120")
    assert read_mot(tmp_path / "out.mot")[1][1, 0] == pytest.approx(1 / 120)


@pytest.mark.parametrize(
    "rate", [0.0, -25.0, np.nan, np.inf, np.array("30"), np.array([30.0, 60.0]), np.array([]), np.array(True)]
)
def test_frame_rates_that_are_none_are_refused_and_can_be_replaced(tmp_path, capsys, rate):
    sequence(tmp_path / "in.npz", 2, mocap_framerate=np.array(rate))
    command = [tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--mot", tmp_path / "out.mot"]
    assert run(*command) == 2
    error = capsys.readouterr().err
    assert "in.npz, field 'mocap_framerate': " in error and "expected a positive number" in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]
    assert run(*command, "--frame-rate", "25", "--up", "y") == 0
    assert read(tmp_path / "out.npz")["mocap_framerate"] == 25


class CountingBodies:
    """Bodies whose fit writes down what it was given: poses hold the sum of the input."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def load(self, gender):
        return None

    def fit(self, gender, poses, betas, trans, progress, sequence=False):
        self.calls.append((gender, len(poses)))
        total = poses.sum(1) + betas.sum(1) + trans.sum(1)
        return {"poses": np.repeat(total[:, None], 46, 1), "valid": np.isfinite(total)}


def test_genders_go_to_their_own_models_and_rows_stay_in_order(tmp_path):
    genders = np.array(["m", "female", "male", "neutral", "f"])
    source = sequence(tmp_path / "in.npz", gender=genders)
    bodies = CountingBodies()
    fit = fit_sequence.fit_rows(open_labels(tmp_path / "in.npz"), 0, 5, bodies)
    assert sorted(bodies.calls) == [("female", 2), ("male", 2), ("neutral", 1)]
    total = sum(source[name].sum(axis=1) for name in ("poses", "betas", "trans"))
    np.testing.assert_allclose(fit["poses"][:, 0], total, rtol=1e-5)
    bodies = CountingBodies()
    fit_sequence.fit_rows(open_labels(tmp_path / "in.npz"), 0, 5, bodies, gender="female")
    assert bodies.calls == [("female", 5)]


def test_long_files_are_read_in_pieces(tmp_path, monkeypatch):
    source = sequence(tmp_path / "in.npz", 11)
    monkeypatch.setattr(fit_sequence, "ROWS_AT_A_TIME", 4)
    bodies = CountingBodies()
    fit = fit_sequence.fit_rows(open_labels(tmp_path / "in.npz"), 1, 11, bodies)
    assert [count for _, count in bodies.calls] == [4, 4, 2]
    np.testing.assert_array_equal(fit["smpl_poses"], source["poses"][1:])


def test_amass_layout(tmp_path):
    """156-wide poses, one row of 16 betas for all frames, no translation."""
    poses = np.random.default_rng(0).normal(0, 0.1, (3, 156)).astype(np.float32)
    sequence(tmp_path / "in.npz", 3, poses=poses, betas=np.linspace(0, 1, 16), trans=None, gender=np.array("male"))
    fit = fit_sequence.fit_rows(open_labels(tmp_path / "in.npz"), 0, 3, CountingBodies())
    np.testing.assert_array_equal(fit["smpl_poses"][:, :66], poses[:, :66])
    np.testing.assert_allclose(fit["smpl_betas"], np.tile(np.linspace(0, 1, 16)[:10], (3, 1)), rtol=1e-6)
    assert (fit["smpl_trans"] == 0).all()
    assert fit["smpl_gender"].tolist() == ["male"] * 3


def test_limits_are_kept_unless_they_do_not_count(tmp_path):
    poses = np.zeros((2, 72), np.float32)
    poses[:, 57] = 2.9  # an elbow turned about a wrong axis, far beyond what SKEL's arm can do
    sequence(tmp_path / "in.npz", 2, poses=poses)
    low, high = np.asarray(HUMAN_LIMITS).T
    outside = {}
    for limits in ("human", "none"):
        assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--limits", limits) == 0
        angles = read(tmp_path / "out.npz")["poses"]
        outside[limits] = ((angles > high + 1e-4) | (angles < low - 1e-4)).sum()
    assert outside["human"] == 0 < outside["none"]


@pytest.mark.parametrize(
    ("changes", "arguments", "complaint"),
    [
        (
            {},
            ["-o", "{tmp}/out.txt"],
            "out.txt, field '--output': cannot be written; expected a name that ends in .npz",
        ),
        ({}, ["-o", "{tmp}/in.npz"], "in.npz, field '--output': is the input file"),
        ({}, ["-o", "{tmp}/out.npz", "--mot", "{tmp}/m.csv"], "field '--mot': cannot be written; expected a name"),
        ({}, ["-o", "{tmp}/out.npz", "--rows", "7"], "field '--rows': '7' given; expected START:STOP"),
        ({}, ["-o", "{tmp}/out.npz", "--rows", "9:12"], "in.npz, field '--rows': 9:12 selects none of 5 rows"),
        (
            {},
            ["-o", "{tmp}/out.npz", "--frame-rate", "0"],
            "field '--frame-rate': 0.0 given; expected a positive number",
        ),
        ({}, ["-o", "{tmp}/in.npz/out.npz"], "in.npz/out.npz, field '--output': cannot be written"),
        ({}, ["-o", "{tmp}/out.npz", "--body-models", "{tmp}/none"], "{tmp}/none"),
        ({}, ["-o", "{tmp}/out.npz", "--device", "tpu9"], "field '--device'"),
        ({"poses": None}, ["-o", "{tmp}/out.npz"], "in.npz, field 'pose_cam': the field is missing; expected an array"),
        ({"betas": None}, ["-o", "{tmp}/out.npz"], "in.npz, field 'shape': the field is missing; expected an array"),
        ({"poses": np.zeros((5, 71))}, ["-o", "{tmp}/out.npz"], "in.npz, field 'poses': an array of shape (5, 71)"),
    ],
)
def test_complaints(tmp_path, capsys, changes, arguments, complaint):
    sequence(tmp_path / "in.npz", **changes)
    before = (tmp_path / "in.npz").read_bytes()
    assert run(tmp_path / "in.npz", *(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("hmr-skel: error: ")
    assert error.count("\n") == 1
    assert complaint.format(tmp=tmp_path) in error
    assert (tmp_path / "in.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_degrees_are_named_and_radians_pass_without_a_word(tmp_path, caplog, capsys):
    poses = np.random.default_rng(0).normal(0, 0.1, (3, 72))
    sequence(tmp_path / "radians.npz", 3, poses=poses)
    sequence(tmp_path / "degrees.npz", 3, poses=np.degrees(poses))
    assert run(tmp_path / "radians.npz", "-o", tmp_path / "out.npz") == 0
    assert [record.name for record in caplog.records] == ["pipelines.files.body_models"]  # the demo body
    assert read(tmp_path / "out.npz")["verdict"].tolist() == ["good"] * 3
    capsys.readouterr()
    assert run(tmp_path / "degrees.npz", "-o", tmp_path / "out.npz") == 0
    assert "poses of 3 of 3 rows look like degrees; radians are expected" in caplog.text
    assert read(tmp_path / "out.npz")["verdict"].tolist() == ["doubtful_source"] * 3
    assert "doubtful_source" in capsys.readouterr().out


def test_limits_of_ones_own_and_what_betas_gain(tmp_path, capsys):
    sequence(tmp_path / "in.npz")
    table = tmp_path / "limits.csv"
    table.write_text("coordinate,low,high\nhead_twist,-1,1\n")
    command = [tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--limits", table, "--betas-gain"]
    assert run(*command) == 0
    found = read(tmp_path / "out.npz")
    assert np.degrees(np.abs(found["poses"][:, COORDINATE_NAMES.index("head_twist")])).max() <= 1 + 1e-3
    assert "betas_gain_mm" in capsys.readouterr().out
    assert run(*command[:-1], "--betas", "keep") == 0
    kept = read(tmp_path / "out.npz")
    assert (kept["betas_change"] == 0).all() and (found["betas_change"] > 0).all()
    farther = kept["vertex_error_mm"] - found["vertex_error_mm"]
    np.testing.assert_allclose(found["betas_gain_mm"], farther, atol=1e-3)
