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
