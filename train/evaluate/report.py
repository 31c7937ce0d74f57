"""A measured benchmark as numbers by name, and as one line per person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas import KEYPOINT_NAMES
from train.benchmarks.people import BenchmarkPeople
from train.evaluate.measure import Measured
from train.evaluate.metrics import accuracy
from train.evaluate.protocols import THRESHOLDS
from train.evaluate.reality import reality
from train.evaluate.statistics import by_group, mean_interval

DISTANCES = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "pa_pve_mm")


def benchmark_summary(measured: Measured, people: BenchmarkPeople) -> dict[str, Any]:
    """Means in float64 with 95 % intervals, per joint and sequence; accuracy of keypoints; joint limits."""
    sequences = people.sequence[measured.people]
    found: dict[str, Any] = {"people": len(measured.people)}
    for name in DISTANCES:
        if name in measured.errors:
            values = measured.errors[name]
            mean, low, high = mean_interval(values, sequences)
            found[name] = {"mean": mean, "low": low, "high": high, "people": int(np.isfinite(values).sum())}
    if "mpjpe_mm" in measured.errors:
        joints = np.asarray(measured.errors["joints_mm"], np.float64)
        known = np.isfinite(joints)
        means = np.where(known, joints, 0).sum(0) / np.maximum(known.sum(0), 1)
        found["joints_mm"] = {
            n: float(m) for n, m, k in zip(measured.rules.names, means, known.sum(0), strict=True) if k
        }
        found["sequences_mm"] = by_group(measured.errors["mpjpe_mm"], sequences)
    if "annotated" in measured.errors:
        annotated = measured.errors["annotated"]
        for threshold in THRESHOLDS:
            hits = measured.errors[f"hits_{threshold}"]
            found[f"pck_{threshold}"] = accuracy(hits, annotated, measured.rules.by_keypoint)
        share = hits.sum(0) / np.maximum(annotated.sum(0), 1)
        found["keypoints_pck_0.1"] = {
            n: float(s) for n, s, c in zip(KEYPOINT_NAMES, share, annotated.sum(0), strict=True) if c
        }
        found["kpl2"] = float(np.asarray(measured.errors["kpl2"], np.float64).mean())
    return found | {"reality": reality(measured.poses)}


def person_columns(benchmark: str, variant: str, measured: Measured, people: BenchmarkPeople) -> dict[str, Any]:
    """Columns of a table with one row per person."""
    count, chosen = len(measured.people), people.take(measured.people)
    columns: dict[str, Any] = {
        "benchmark": [benchmark] * count,
        "method": [measured.method] * count,
        "stage": [measured.stage] * count,
        "variant": [variant] * count,
        "row": chosen.rows,
        "imgname": chosen.imgname.tolist(),
        "sequence": chosen.sequence.tolist(),
    }
    columns |= {name: measured.errors.get(name, np.full(count, np.nan)) for name in DISTANCES}
    empty = np.zeros((count, 0))
    columns["joints_mm"] = list(measured.errors.get("joints_mm", empty).astype(np.float64))
    for name in (*(f"hits_{t}" for t in THRESHOLDS), "annotated"):
        columns[name] = measured.errors.get(name, empty.astype(bool)).sum(1)
    columns |= {"poses": list(measured.poses.astype(np.float64)), "betas": list(measured.betas.astype(np.float64))}
    trans = np.full((count, 3), np.nan) if measured.trans is None else measured.trans.astype(np.float64)
    return columns | {"trans": list(trans)}


def worst(measured: Measured, count: int) -> np.ndarray:
    """Indices into `measured` of the people with the largest errors, the worst first."""
    if "mpjpe_mm" in measured.errors:
        errors = np.nan_to_num(measured.errors["mpjpe_mm"], nan=-1.0)
    else:
        annotated = measured.errors["annotated"]
        errors = 1 - measured.errors[f"hits_{THRESHOLDS[-1]}"].sum(1) / np.maximum(annotated.sum(1), 1)
        errors[~annotated.any(1)] = -1.0
    return np.argsort(-errors, kind="stable")[:count]


def joined_tables(tables: Sequence[dict[str, Any]]) -> Any:
    """Columns below each other, as an Arrow table."""
    import pyarrow as pa

    return pa.concat_tables([pa.table(columns) for columns in tables])
