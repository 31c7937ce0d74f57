"""Means over people and how sure they are."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
FEWEST_GROUPS = 8
"""Sequences that are worth resampling; with fewer, people are resampled as if they had nothing in common."""


def mean_interval(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of values (N,), NaN left out, and its 95 % bootstrap interval, in float64.

    Frames of a sequence resemble each other, so whole `groups` (N,) are drawn again where there are several.
    """
    known = np.isfinite(values)
    values, groups = np.asarray(values, np.float64)[known], np.asarray(groups)[known]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    names, index = np.unique(groups.astype(str), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        index = np.arange(len(values))
    count = int(index.max()) + 1
    sums, sizes = np.bincount(index, values, count), np.bincount(index, minlength=count)
    rng, means = np.random.default_rng(seed), np.empty(RESAMPLES)
    for n in range(RESAMPLES):
        drawn = rng.integers(0, count, count)
        means[n] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean()), float(low), float(high)


def by_group(values: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Mean of each group's values, NaN left out."""
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    known = np.isfinite(values)
    sums = np.bincount(index[known], np.asarray(values, np.float64)[known], len(names))
    counts = np.bincount(index[known], minlength=len(names))
    return {str(n): float(s / c) for n, s, c in zip(names, sums, counts, strict=True) if c}
