"""Two-stage baselines: SMPL estimates of another method, and the project's fit of SKEL to them."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from pipelines.files.body_models import BodyModels
from pipelines.read.labels import open_labels
from pipelines.read.results import is_result, label_file_of
from schemas import InputError
from train.benchmarks.people import BenchmarkPeople
from train.evaluate.estimates import Method, known_method


class SMPLEstimates(NamedTuple):
    """Of N people."""

    poses: np.ndarray
    """(N, 72) axis-angle, camera frame, rad"""
    betas: np.ndarray
    """(N, 10)"""
    imgname: np.ndarray | None


def read_estimates(path: str) -> SMPLEstimates:
    """SMPL estimates of any layout that the pipeline's label reader knows, or of well-known results. InputError."""
    labels = open_labels(label_file_of(path) if is_result(path) else path, also=("imgname",))
    read = labels.read(fields=("pose_cam", "shape", "imgname"))
    return SMPLEstimates(read["pose_cam"], read["shape"], read.get("imgname"))


def two_stage_method(path: str, people: BenchmarkPeople, models: BodyModels, count: int | None = None) -> Method:
    """Fits these people; the file's rows are those of the benchmark's file, in its order, `count` if not as many as
    these people. Raises InputError where they differ."""
    found, count = read_estimates(path), len(people) if count is None else count
    if len(found.poses) != count:
        raise InputError(f"{len(found.poses)} rows", file=path, expected=f"{count}, one for each of {people.file}")
    estimates = SMPLEstimates(*(None if values is None else values[people.rows] for values in found))
    if estimates.imgname is not None:
        for row, own, other in zip(people.rows, estimates.imgname, people.imgname, strict=True):
            if PurePosixPath(str(own)).name != PurePosixPath(str(other)).name:
                raise InputError(f"{own}", file=path, row=row, field="imgname", expected=str(other))
    bad = np.flatnonzero(~np.isfinite(np.concatenate([estimates.poses, estimates.betas], 1)).all(1))
    if len(bad):
        raise InputError("not a finite number", file=path, row=people.rows[bad[0]], field="pose_cam")
    fitter = models.fitter()
    began = time.perf_counter()
    fit = fitter.fit(estimates.poses, estimates.betas)
    seconds = time.perf_counter() - began
    return known_method(f"{Path(path).stem} + fit", fit.poses.cpu().numpy(), fit.betas.cpu().numpy(), seconds)
