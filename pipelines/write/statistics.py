"""Means and quantiles over people: of a shard, of a data set, of what a command shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas import ERROR_QUANTILES, QUANTILE_FIELDS, STAGES, Columns


def mean_and_quantiles(values: np.ndarray, quantiles: Sequence[float] = ERROR_QUANTILES) -> dict[str, float] | None:
    """{"mean": .., "p50": .., .., "max": ..} of (N,) values, as all of them are; None if there are none."""
    if not len(values):
        return None
    names = ("max" if part == 1 else f"p{100 * part:g}" for part in quantiles)
    found = np.quantile(values, quantiles)
    return {"mean": float(values.mean(dtype=np.float64)), **dict(zip(names, map(float, found), strict=True))}


def error_quantiles(columns: Columns) -> dict[str, dict[str, float | None]]:
    """`mean_and_quantiles` of each distance, mm, rounded; a value of no people is None."""
    nobody = dict.fromkeys(mean_and_quantiles(np.zeros(1)) or ())
    tables = {name: mean_and_quantiles(np.asarray(columns[name], np.float64)) or nobody for name in QUANTILE_FIELDS}
    return {name: {key: rounded(value) for key, value in table.items()} for name, table in tables.items()}


def stage_means(errors: np.ndarray) -> dict[str, float | None]:
    """Mean vertex distance after each stage of the fit, mm, from (N, stages)."""
    means = np.asarray(errors, np.float64).mean(axis=0) if len(errors) else [None] * len(STAGES)
    return {stage: rounded(mean) for stage, mean in zip(STAGES, means, strict=True)}


def rounded(value: float | None) -> float | None:
    """Six digits: what a file written twice must repeat, and more than a distance deserves."""
    return None if value is None else float(f"{value:.6g}")
