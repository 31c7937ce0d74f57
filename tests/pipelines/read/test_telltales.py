"""Label files that tell whose numbers they hold: read, or refused by name, and their sound relatives untouched."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pipelines.command.hmr_skel import guarded
from pipelines.convert.rows import read_rows
from pipelines.hand_on import fit as fit_sequence
from pipelines.plan.planning import find_label_files, plan_shards
from pipelines.read.labels import open_labels
from pipelines.read.telltales import smpl_gender
from schemas import InputError

ROWS = 3


def arrays(**changes):
    found = {"poses": np.full((ROWS, 72), 0.1), "betas": np.zeros((ROWS, 10)), "trans": np.ones((ROWS, 3))}
    return {name: values for name, values in (found | changes).items() if values is not None}


def saved(tmp_path, **changes):
    np.savez(tmp_path / "in.npz", **arrays(**changes))
    return tmp_path / "in.npz"


def job_rows(path, smpl_gender=None):
    files = find_label_files([str(path)], with_images=False, smpl_gender=smpl_gender)
    [spec] = plan_shards(files, None, 100)
    return read_rows(spec, smpl_gender)


def fit(*arguments) -> int:
    return guarded(lambda: fit_sequence.main([str(argument) for argument in arguments]), "hmr-skel")


SPLIT = {"poses": None, "global_orient": np.zeros((ROWS, 3))}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("jaw_pose", SPLIT | {"body_pose": np.zeros((ROWS, 63)), "jaw_pose": np.zeros((ROWS, 3))}),
        ("expression", {"expression": np.zeros((ROWS, 10))}),
        ("body_pose", SPLIT | {"body_pose": np.zeros((ROWS, 63))}),
        ("body_pose", SPLIT | {"body_pose": np.zeros((ROWS, 21, 3))}),
        ("surface_model_type", {"surface_model_type": np.array("smplx")}),
        ("surface_model_type", {"surface_model_type": np.array(b"SMPL-X")}),
        ("surface_model_type", {"surface_model_type": np.array("smplx", object)}),
        ("gender", {"gender": np.array("female", object)}),
        ("gender", {"gender": np.array([b"female", "male", None], object)}),
        ("gender", {"gender": np.array([0, 1, 0])}),
        ("has_smpl", {"has_smpl": np.array([1, 1, 0], object)}),
        ("cam_ext", {"cam_ext": np.zeros((ROWS, 16))}),
    ],
)
def test_what_is_not_smpl_or_cannot_be_read_is_refused_by_name(tmp_path, field, changes):
    with pytest.raises(InputError) as caught:
        open_labels(saved(tmp_path, **changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        SPLIT | {"body_pose": np.zeros((ROWS, 69))},
        SPLIT | {"body_pose": np.zeros((ROWS, 63)), "surface_model_type": np.array("smplh")},
        {"surface_model_type": np.array(b"SMPL")},
        {"betas": np.ones(16)},
        {"betas": np.pad(np.ones((ROWS, 10)), ((0, 0), (0, 1)))},
        {"info": np.array({"author": "somebody"}, object)},
    ],
)
def test_smpl_is_read(tmp_path, changes):
    path = saved(tmp_path, **changes)
    assert open_labels(path).rows == ROWS
    assert len(job_rows(path).sound) == ROWS


def test_arrays_that_nobody_reads_are_told_at_info(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        open_labels(saved(tmp_path, info=np.array({}, object), marker=np.zeros(3), fps=np.array(30)))
    assert "not read: info (Python objects), marker" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        open_labels(saved(tmp_path, fps=np.array(30)))
    assert "not read" not in caplog.text


@pytest.mark.parametrize("known", ["m", "M", "Male", " male ", "b'male'", 'b"m"', "man"])
def test_spellings_of_a_gender(known):
    assert smpl_gender(known) == "male"
    assert smpl_gender(known.lower().replace("male", "female").replace("man", "woman")) != "neutral"


@pytest.mark.parametrize("unknown", ["unknown", "x", "0", "none", "fe male"])
def test_an_unknown_gender_is_a_reject_of_the_job_and_the_end_of_a_fit(tmp_path, unknown, capsys):
    path = saved(tmp_path, gender=np.array(["neutral", unknown, "female"]))
    rows = job_rows(path)
    assert rows.sound.tolist() == [0, 2] and rows.problems[1][0] == "unknown_gender"
    assert fit(path, "-o", tmp_path / "out.npz") == 2
    assert "row 1, field 'gender'" in capsys.readouterr().err
    assert job_rows(path, "neutral").columns["gender"].tolist() == ["neutral"] * 3
    assert fit(path, "-o", tmp_path / "out.npz", "--smpl-gender", "male") == 0
    assert "male 3" in capsys.readouterr().out


@pytest.mark.parametrize("gender", [np.array("female", object), np.array(1)])
def test_a_gender_that_cannot_be_read_can_be_overridden(tmp_path, gender, capsys):
    path = saved(tmp_path, gender=gender)
    assert fit(path, "-o", tmp_path / "out.npz") == 2
    said = capsys.readouterr().err
    assert "field 'gender'" in said and "--smpl-gender" in said
    assert job_rows(path, "female").columns["gender"].tolist() == ["female"] * 3
    assert fit(path, "-o", tmp_path / "out.npz", "--smpl-gender", "female") == 0


def test_a_gender_with_a_broken_code_point_costs_its_row(tmp_path):
    rows = job_rows(saved(tmp_path, gender=np.array([b"male", b"m\xffle", b"f"])))
    assert rows.sound.tolist() == [0, 2]
    rows = job_rows(saved(tmp_path, gender=np.array(["male", "m\udcffle", "f"])))
    assert rows.sound.tolist() == [0, 2]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_code_point_beyond_unicode_costs_its_row(tmp_path, order):
    for name, texts in (("gender", ["male", "f", "m"]), ("imgname", ["a.jpg", "b.jpg", "c.jpg"])):
        values = np.array(texts).astype(f"{order}U8")
        values.view(f"{order}u4").reshape(ROWS, -1)[1, 0] = 0x110000
        path = saved(tmp_path, **{name: values})
        rows = job_rows(path)
        assert rows.sound.tolist() == [0, 2], name
        rows.rejected()
        assert len(job_rows(saved(tmp_path, **{name: np.array(texts)})).sound) == ROWS


def test_a_childs_share_is_refused(tmp_path, capsys):
    betas = np.zeros((ROWS, 11))
    betas[1, 10] = 0.4
    path = saved(tmp_path, betas=betas)
    rows = job_rows(path)
    assert rows.sound.tolist() == [0, 2] and rows.problems[1][0] == "kid_shape"
    assert fit(path, "-o", tmp_path / "out.npz") == 2
    assert "row 1, field 'betas'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
def test_rows_without_parameters_are_left_out(tmp_path, dtype):
    path = saved(tmp_path, has_smpl=np.array([1, 0, 1], dtype))
    rows = job_rows(path)
    assert rows.sound.tolist() == [0, 2] and rows.problems[1][0] == "no_smpl_parameters"
    assert fit(path, "-o", tmp_path / "out.npz") == 0
    assert np.load(tmp_path / "out.npz")["valid"].tolist() == [True, False, True]


def test_a_lost_translation_keeps_the_pose(tmp_path, capsys):
    trans = np.ones((ROWS, 3))
    trans[1, 2] = np.nan
    path = saved(tmp_path, trans=trans)
    assert fit(path, "-o", tmp_path / "out.npz") == 0
    found = np.load(tmp_path / "out.npz")
    assert found["valid"].all() and found["trans_source"].tolist() == ["label", "none", "label"]
    assert not found["smpl_trans"][1].any() and found["smpl_trans"][[0, 2]].all()
    assert len(job_rows(path).sound) == ROWS


def test_the_cameras_share_of_a_translation_is_added(tmp_path):
    cam_ext = np.tile(np.eye(4), (ROWS, 1, 1))
    cam_ext[:, :3, 3] = [0.4, 0.3, 3]
    assert fit(saved(tmp_path, cam_ext=cam_ext), "-o", tmp_path / "out.npz") == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["smpl_trans"], [[1.4, 1.3, 4]] * ROWS, rtol=1e-6)
