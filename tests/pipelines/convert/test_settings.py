"""Which options of the job make other shards, and which do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.command import build_options
from pipelines.command.build_options import BuildOptions
from pipelines.command.runner import Runner
from pipelines.convert import job
from pipelines.files.body_models import BodyModels

HARMLESS = {
    "output": "where the same bytes go",
    "overwrite": "what may become of other ones",
    "shard_range": "which of the same shards are made",
    "quiet": "what is shown",
    "dry_run": "nothing is written",
    "threads": "last digits of a fit: batches are spread over them",
    "worker_timeout": "how long to wait before giving up",
    "device": "last digits of a fit",
    "batch_size": "last digits of a fit",
    "without_regressors": "whether the job begins; what body models hold counts itself",
}
"""Options after whose change finished shards are kept: why."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two label files with the images that they name."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("aic", "coco"):
        poses, names = np.zeros((6, 72), np.float32), np.array([f"{name}/{i}.jpg" for i in range(6)])
        labels = {"center": np.ones((6, 2)), "scale": np.ones(6), "cam_int": np.tile(np.eye(3), (6, 1, 1))}
        labels |= {"gtkps": np.zeros((6, 44, 3)), "keypoints3d": np.zeros((6, 44, 4))}
        np.savez(folder / f"{name}.npz", imgname=names, pose_cam=poses, shape=np.zeros((6, 10)), **labels)
        for image in names:
            (folder / "images" / image).parent.mkdir(parents=True, exist_ok=True)
            (folder / "images" / image).write_bytes(b"planning reads no image")
    (folder / "limits.csv").write_text("coordinate,low,high\nknee_angle_r,1,25\n")
    return folder


@pytest.fixture
def specs_of(inputs, monkeypatch):
    """Spec hashes of the job's shards with some options changed."""
    monkeypatch.setattr(job, "body_models_facts", lambda fit: BodyModels(fit.body_models, fit.gender).facts())

    def specs(**changed):
        options = BuildOptions(annotations=[str(inputs / "*.npz")], images=str(inputs / "images"), device="cpu")
        planned = job.job_of(dataclasses.replace(options, **changed), Runner.of([]), inputs / "out", "token").specs
        return [spec.hash for spec in planned]

    return specs


def test_every_option_changes_the_shards_or_is_known_to_be_harmless(inputs, specs_of, model_directory):
    others = {
        "annotations": [str(inputs / "aic.npz")],
        "images": "none",
        "body_models": str(model_directory),
        "subset": ["coco"],
        "rows": "1:",
        "every": 2,
        "samples_per_shard": 5,
        "crop": "none",
        "crop_size": 200,
        "context": 1.25,
        "jpeg_quality": 80,
        "float_width": 16,
        "gender": "female",
        "smpl_gender": "male",
        "limits": str(inputs / "limits.csv"),
        "betas": "keep",
        "output": str(inputs / "elsewhere"),
        "overwrite": True,
        "shard_range": "0:1",
        "quiet": True,
        "dry_run": True,
        "threads": 3,
        "worker_timeout": 60,
        "device": "cpu:0",
        "batch_size": 7,
        "without_regressors": True,
    }
    names = {option.name for option in dataclasses.fields(BuildOptions)}
    assert set(others) == names, "a new option: does it change what a shard holds?"
    usual = specs_of()
    assert specs_of() == usual
    made_alike = {name for name, value in others.items() if specs_of(**{name: value}) == usual}
    assert made_alike == set(HARMLESS) == build_options.HARMLESS


def test_settings_of_workers_are_the_options(inputs, tmp_path):
    options = BuildOptions(
        crop="none", crop_size=200, gender="female", smpl_gender="neutral", batch_size=7, threads=3, float_width=16
    )
    settings = job.settings_of(options, Runner.of([]), tmp_path, "token")
    for record in (settings.fit, settings.crop):
        for name in {field.name for field in dataclasses.fields(record)} & set(vars(options)) - {"images"}:
            assert getattr(record, name) == getattr(options, name), name
    assert (settings.output, settings.run, settings.float_width) == (str(tmp_path), "token", 16)
    assert (
        settings.crop.images
        and not job.settings_of(
            dataclasses.replace(options, images="none"), Runner.of([]), tmp_path, "token"
        ).crop.images
    )
