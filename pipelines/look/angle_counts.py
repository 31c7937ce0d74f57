"""How often each joint angle occurs, in fine bins, and charts of it whose axes fit what occurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines.look.charts import ALARM, Histogram

_FINE = 4
"""Bins per degree."""

_TURN = 360 * _FINE
_SHARE_SHOWN = 0.999
"""Of the angles; what lies beyond counts in the outer bars."""

_MOST_BARS = 40
_STEPS = (1, 2, 4, 8, 12, 20, 40)
"""Bins that a bar may be wide."""

_LIMIT_NEAR = 0.3
"""Share of the axis' length by which it may grow to show a limit."""


@dataclass
class AngleCounts:
    """Counts of people by coordinate and angle: the sums of parts, so that no list is kept."""

    names: Sequence[str]
    counts: np.ndarray = field(init=False)
    """(coordinates, 1440) people, from -180 degrees."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.names), _TURN), np.int64)

    def add(self, poses: np.ndarray) -> None:
        """Counts poses (N, coordinates), rad; angles that are not finite do not count."""
        for counts, values in zip(self.counts, poses.T, strict=True):
            degrees = np.degrees(values[np.isfinite(values)].astype(np.float64))
            place = (np.floor(degrees * _FINE).astype(np.int64) + _TURN // 2) % _TURN
            counts += np.bincount(place, minlength=_TURN)

    def charts(self, limits: np.ndarray) -> list[Histogram]:
        """A chart per coordinate; `limits` (coordinates, 2), rad, infinite where there are none."""
        return [self._chart(i, np.degrees(pair)) for i, pair in enumerate(np.asarray(limits, np.float64))]

    def _chart(self, coordinate: int, limits: np.ndarray) -> Histogram:
        counts = self.counts[coordinate]
        first, length = _occupied(counts)
        low, high = first - _TURN // 2, first - _TURN // 2 + length
        for limit in limits[np.isfinite(limits)] * _FINE:
            if low - _LIMIT_NEAR * length <= limit <= high + _LIMIT_NEAR * length:
                low, high = min(low, int(np.floor(limit)) - 1), max(high, int(np.ceil(limit)) + 1)
        step = next(step for step in _STEPS if (high - low) / step <= _MOST_BARS)
        low, high = step * (low // step), step * -(-high // step)
        # An axis that goes round once and a little more would show some angles twice.
        place, span = (np.arange(_TURN) - _TURN // 2 - low) % _TURN, min(high - low, _TURN)
        nearest = np.where(place - span < (_TURN - span) / 2, span - 1, 0)
        bars = np.bincount(np.where(place < span, place, nearest) // step, weights=counts).astype(np.int64)
        edges = np.arange(low, high + step, step) / _FINE
        bars = np.pad(bars, (0, len(edges) - 1 - len(bars)))
        note = f"limits {limits[0]:.0f} to {limits[1]:.0f}" if np.isfinite(limits).all() else ""
        return Histogram(self.names[coordinate], edges, bars, "\N{DEGREE SIGN}", [(v, ALARM) for v in limits], note)


def _occupied(counts: np.ndarray) -> tuple[int, int]:
    """First bin and length of the shortest arc of the circle that holds nearly all."""
    total = int(counts.sum())
    if not total:
        return _TURN // 2 - 10 * _FINE, 20 * _FINE
    sums = np.concatenate([[0], np.cumsum(np.concatenate([counts, counts]))])
    ends = np.searchsorted(sums, sums[:_TURN] + _SHARE_SHOWN * total - 1e-9)
    lengths = ends - np.arange(_TURN)
    first = int(lengths.argmin())
    return first, int(min(lengths[first], _TURN))
