"""Two-stage baselines: SMPL estimates of another method, and the project's fit of SKEL to them."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from pipelines.files.body_models import BodyModels
from pipelines.files.npz import npz_members
from pipelines.read.labels import open_labels
from schemas import InputError
from train.benchmarks.archive import read_arrays
from train.benchmarks.people import BenchmarkPeople
from train.evaluate.estimates import Method, known_method

CAMERAHMR_DEMO = {"pred_smpl_parms", "verts", "pred_cam_t"}
"""Keys of what CameraHMR's demo writes."""


class SMPLEstimates(NamedTuple):
    """Of N people."""

    poses: np.ndarray
    """(N, 72) axis-angle, camera frame, rad"""
    betas: np.ndarray
    """(N, 10)"""
    imgname: np.ndarray | None


def read_estimates(path: str) -> SMPLEstimates:
    """SMPL estimates of any layout that the pipeline's label reader knows, or of CameraHMR's demo. InputError."""
    members = npz_members(path)
    if set(members) == CAMERAHMR_DEMO:
        return _camerahmr_demo(path)
    labels = open_labels(path, also=("imgname",))
    read = labels.read(fields=("pose_cam", "shape", "imgname"))
    return SMPLEstimates(read["pose_cam"], read["shape"], read.get("imgname"))


def two_stage_method(path: str, people: BenchmarkPeople, models: BodyModels) -> Method:
    """Fits every row; the file's rows are the benchmark's, in its order. Raises InputError where they differ."""
    estimates = read_estimates(path)
    if len(estimates.poses) != len(people):
        expected = f"{len(people)}, one for each person of {people.file}"
        raise InputError(f"{len(estimates.poses)} rows", file=path, expected=expected)
    if estimates.imgname is not None:
        for row, (own, other) in enumerate(zip(estimates.imgname, people.imgname, strict=True)):
            if PurePosixPath(str(own)).name != PurePosixPath(str(other)).name:
                raise InputError(f"{own}", file=path, row=row, field="imgname", expected=str(other))
    bad = np.flatnonzero(~np.isfinite(np.concatenate([estimates.poses, estimates.betas], 1)).all(1))
    if len(bad):
        raise InputError("not a finite number", file=path, row=bad[0], field="pose_cam")
    fitter = models.fitter()
    began = time.perf_counter()
    fit = fitter.fit(estimates.poses, estimates.betas)
    seconds = time.perf_counter() - began
    return known_method(f"{Path(path).stem} + fit", fit.poses.cpu().numpy(), fit.betas.cpu().numpy(), seconds)


def _camerahmr_demo(path: str) -> SMPLEstimates:
    parameters = read_arrays(path, ["pred_smpl_parms"])["pred_smpl_parms"]
    if not isinstance(parameters, dict):
        raise InputError(
            f"holds a {type(parameters).__name__}", file=path, field="pred_smpl_parms", expected="a dictionary"
        )
    found = []
    for name, width in (("global_orient_axis_angle", 3), ("body_pose_axis_angle", 69), ("betas", 10)):
        value = np.asarray(parameters.get(name, ()), dtype=object)
        try:
            value = value.astype(np.float32).reshape(len(value), -1)
        except (TypeError, ValueError):
            value = np.zeros((0, 0), np.float32)
        if not len(value) or value.shape[1] < width or (found and len(value) != len(found[0])):
            field, expected = f"pred_smpl_parms.{name}", f"numbers (N, {width})"
            raise InputError("absent, or of another shape", file=path, field=field, expected=expected)
        found.append(value[:, :width])
    return SMPLEstimates(np.concatenate(found[:2], 1), found[2], None)
