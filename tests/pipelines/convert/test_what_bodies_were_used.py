"""Which body models and keypoint regressors made a data set: asked for at the start, told in everything written."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import official_files
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from fitting.anatomy import COORDINATE_NAMES
from fitting.body.limits import HUMAN_LIMITS
from pipelines.build_hmr_skel import main
from pipelines.command.hmr_skel import main as hmr_skel

ROWS = 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Label files with and without 3D keypoints, one with a reject, and their image."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.jpg"), np.zeros((300, 300, 3), np.uint8))
    labels = {
        "imgname": np.array(["a.jpg"] * ROWS + ["absent.jpg"]),
        "center": np.full((ROWS + 1, 2), 150.0),
        "scale": np.ones(ROWS + 1),
        "pose_cam": np.random.default_rng(0).normal(0, 0.05, (ROWS + 1, 72)),
        "shape": np.zeros((ROWS + 1, 10)),
        "trans_cam": np.tile([0, 0, 5.0], (ROWS + 1, 1)),
        "cam_int": np.array([[400.0, 0, 150], [0, 400, 150], [0, 0, 1]]),
        "gtkps": np.zeros((ROWS + 1, 44, 3)),
    }
    np.savez(folder / "bare.npz", **labels)
    np.savez(folder / "whole.npz", **labels, keypoints3d=np.ones((ROWS + 1, 44, 4)))
    return folder


def build(inputs, output, labels, *options):
    where = ["--annotations", str(inputs / labels), "--images", str(inputs / "images"), "--output", str(output)]
    return main([*where, "--device", "cpu", "--quiet", *options])


def told(output):
    """What the shard's statistics, the data set's manifest and the Parquet file's metadata say of body models."""
    stats, manifest = (json.loads((output / f"{name}.json").read_text()) for name in ("000000", "dataset"))
    metadata = pq.read_schema(output / "000000.parquet").metadata
    assert stats["body_models"] == manifest["body_models"] == json.loads(metadata[b"body_models"])
    assert stats["keypoints_3d_sources"] == manifest["keypoints_3d_sources"]
    return manifest, metadata


@pytest.fixture(scope="module")
def on_demo_body(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "out"
    assert build(inputs, output, "bare.npz") == 0
    return output


def test_the_demo_body_is_told_of_everywhere(on_demo_body, inputs, tmp_path, caplog, capsys):
    assert build(inputs, tmp_path / "out", "whole.npz") == 0
    assert "embedded demo body" in caplog.records[0].getMessage()
    manifest, metadata = told(on_demo_body)
    assert manifest["body_models"]["models"] == "demo"
    assert {"SMPL_to_J19", "J_regressor_SKEL_mix_MALE"} <= manifest["body_models"]["keypoint_regressors"].keys()
    assert manifest["keypoints_3d_sources"] == {"smpl": ROWS}
    assert told(tmp_path / "out")[0]["keypoints_3d_sources"] == {"label": ROWS}
    assert "embedded demo body" in (on_demo_body / "report.html").read_text()
    assert hmr_skel(["inspect", str(on_demo_body), "--verify", "--against", str(inputs / "bare.npz")]) == 0
    capsys.readouterr()
    for options in ([], ["--sample", pq.read_table(on_demo_body / "000000.parquet")["key"][0].as_py()]):
        assert hmr_skel(["inspect", str(on_demo_body), *options]) == 0
        text = capsys.readouterr().out
        assert "embedded demo body" in text and ("knee_angle_r" in text) == bool(options)
        assert hmr_skel(["inspect", str(on_demo_body), *options, "--json"]) == 0
        assert "embedded demo body" in str(json.loads(capsys.readouterr().out)["body_models"])
    table = json.loads(metadata[b"coordinates"])
    assert [row["name"] for row in table] == list(COORDINATE_NAMES) and {row["unit"] for row in table} == {"rad"}
    ends = np.array([[row["low"], row["high"]] for row in table], float)
    bounded = np.isfinite(HUMAN_LIMITS)
    assert np.allclose(ends[bounded], HUMAN_LIMITS[bounded], atol=1e-6) and np.isnan(ends[~bounded]).all()


def test_people_and_nothing_else_are_found_in_the_folder(on_demo_body, capsys):
    """By a glob, as DuckDB and polars take it, and by Arrow's discovery, which goes into sub-folders."""
    found = sorted(on_demo_body.glob("*.parquet"))
    assert pq.read_table(found).num_rows == ROWS
    people = pyarrow.dataset.dataset(on_demo_body, exclude_invalid_files=True)
    assert people.count_rows() == ROWS and "poses" in people.schema.names
    assert pq.read_table(on_demo_body / "_rejects" / "rejects.parquet")["reason"].to_pylist() == ["missing_image"]


def test_folders_of_before_have_their_rejects_read(on_demo_body, inputs, tmp_path, capsys):
    older = shutil.copytree(on_demo_body, tmp_path / "older")
    (older / "_rejects" / "rejects.parquet").rename(older / "rejects.parquet")
    (older / "_rejects").rmdir()
    assert hmr_skel(["inspect", str(older), "--verify", "--against", str(inputs / "bare.npz")]) == 0
    capsys.readouterr()
    assert hmr_skel(["inspect", str(older), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rejects"] == {"missing_image": 1}
    assert build(inputs, older, "bare.npz") == 0
    assert not (older / "rejects.parquet").exists() and (older / "_rejects" / "rejects.parquet").is_file()


def test_missing_regressors_stop_the_job_before_its_first_row(inputs, model_directory, tmp_path, capsys):
    models = ["--body-models", str(model_directory)]
    assert build(inputs, tmp_path / "out", "bare.npz", *models) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    for part in ("SMPL_to_J19.pkl", "SKEL_mix_MALE.pkl", "bare.npz", "4D-Humans", "HSMR", "--without-regressors"):
        assert part in message
    assert not list((tmp_path / "out").glob("0*"))


@pytest.mark.parametrize(
    ("labels", "options", "source", "word"),
    [
        ("bare.npz", ["--without-regressors"], "smpl_joints", "25 to 43 of bare.npz get confidence 0"),
        ("whole.npz", [], "label", "all labels bring keypoints3d"),
    ],
)
def test_without_regressors_it_is_told_and_kept(
    inputs, model_directory, tmp_path, caplog, labels, options, source, word
):
    assert build(inputs, tmp_path / "out", labels, "--body-models", str(model_directory), *options) == 0
    assert word in caplog.text and "embedded demo body" not in caplog.text
    manifest, _ = told(tmp_path / "out")
    assert manifest["keypoints_3d_sources"] == {source: ROWS}
    assert (manifest["body_models"]["models"], manifest["body_models"]["keypoint_regressors"]) == ("files", {})
    keypoints = pq.read_table(tmp_path / "out" / "000000.parquet")["keypoints_3d"].to_pylist()
    assert (np.reshape(keypoints, (ROWS, 44, 4))[:, 25:, 3] == (1 if source == "label" else 0)).all()


def test_regressors_that_are_there_are_kept_by_checksum(inputs, random_models, tmp_path, caplog):
    count = len(random_models[0]["v_template"])
    weights = {"SMPL_to_J19": np.full((19, count), 1 / count), "J_regressor_SKEL_mix_MALE": np.ones((24, count))}
    found = {}
    for names in (["SMPL_to_J19"], list(weights)):
        models = official_files.write_model_directory(tmp_path / f"models{len(names)}", *random_models)
        for name in names:
            np.save(models / f"{name}.npy", weights[name])
        caplog.clear()
        assert build(inputs, tmp_path / models.name / "out", "bare.npz", "--body-models", str(models)) == 0
        assert ("J_regressor_SKEL_mix_MALE.pkl" in caplog.text) == (len(names) == 1)
        manifest, _ = told(tmp_path / models.name / "out")
        assert manifest["keypoints_3d_sources"] == {"smpl": ROWS}
        found[len(names)] = manifest["body_models"]["keypoint_regressors"]
    assert set(found[1]) == {"SMPL_to_J19"} and found[1].items() < found[2].items() and set(found[2]) == set(weights)
