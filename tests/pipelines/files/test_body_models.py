"""Body models of a command: whatever they are asked for, wherever they lie, each file is read once."""

from __future__ import annotations

import shutil

import memory_files
import numpy as np
import pytest
from memory_files import file_of

import fitting.body.files
from pipelines.draw.sheet import body_of
from pipelines.files.body_models import BodyModels
from pipelines.files.shards import Shard
from pipelines.hand_on import fit
from schemas import InputError


@pytest.fixture
def remote(tmp_path, monkeypatch, model_directory):
    """The model directory behind a URL."""
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("MEMTEST_FILES", str(tmp_path / "remote"))
    memory_files.read.clear()
    where = f"memtest://{tmp_path.name}/models"
    for path in model_directory.rglob("*"):
        if path.is_file():
            shutil.copy(path, file_of(f"{where}/{path.relative_to(model_directory)}"))
    return where


def test_each_file_is_read_once(model_directory, monkeypatch):
    read = []
    whole = fitting.body.files.read_model_file
    monkeypatch.setattr(fitting.body.files, "read_model_file", lambda path: read.append(path.name) or whole(path))
    models = BodyModels(str(model_directory))
    fitters = [models.fitter(), models.fitter("male"), models.fitter()]
    assert all(fitter.skel is models.skel for fitter in fitters)
    assert fitters[0].smpl is fitters[2].smpl is models.smpl("neutral")
    assert sorted(read) == ["SMPL_MALE.pkl", "SMPL_NEUTRAL.pkl", "skel_male.pkl"]


def test_a_url_gives_what_its_folder_gives(model_directory, remote):
    near, far = BodyModels(str(model_directory)), BodyModels(remote)
    assert far.sha256() == near.sha256() != BodyModels("demo").sha256()
    assert np.array_equal(far.skel.v_template, near.skel.v_template)
    assert np.array_equal(far.smpl("male").v_template, near.smpl("male").v_template)
    assert far.regressors.keys() == near.regressors.keys()


def test_a_url_of_body_models_can_be_drawn_and_fitted(model_directory, remote, tmp_path):
    shard = Shard(tmp_path / "000000")
    assert np.array_equal(body_of([shard], remote).v_template, BodyModels(str(model_directory)).skel.v_template)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", poses=rng.normal(0, 0.1, (3, 72)), betas=np.zeros((3, 10)), trans=np.zeros((3, 3)))
    made = []
    for name, where in (("near", str(model_directory)), ("far", remote)):
        options = ["--body-models", where, "--mot", str(tmp_path / f"{name}.mot"), "--device", "cpu"]
        assert fit.main([str(tmp_path / "in.npz"), "-o", str(tmp_path / f"{name}.npz"), *options]) == 0
        with np.load(tmp_path / f"{name}.npz") as found:
            header, motion = (tmp_path / f"{name}.mot").read_text().split("endheader")
            made.append((found["poses"], motion))
            assert where in header
    assert np.array_equal(made[0][0], made[1][0]) and made[0][1] == made[1][1]


def test_what_is_wrong_behind_a_url_is_named_as_it_was_given(remote):
    file_of(f"{remote}/skel/skel_male.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=f"{remote}/skel/skel_male.pkl"):
        _ = BodyModels(remote).skel
    with pytest.raises(InputError, match=r"field 'J_regressor_X'.*not among the body models"):
        BodyModels("demo").regressor("J_regressor_X")
