"""Charts as SVG text: histograms, small multiples, bars. The same numbers give the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

INK, PALE, ALARM = "#2a6f97", "#a9cfe3", "#c1121f"
_TEXT = 'font-family="sans-serif" font-size="11" fill="#333"'


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; `marks` are lines across it, (position, colour), `note` stands under the title."""

    title: str
    edges: np.ndarray
    counts: np.ndarray
    unit: str = ""
    marks: Sequence[tuple[float, str]] = ()
    note: str = ""


def tally(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of finite values between edges; what lies beyond counts in the outer bins."""
    values = values[np.isfinite(values)]
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]


def round_edges(top: float, bins: int = 40) -> np.ndarray:
    """Edges from 0 to a round number at or above `top`."""
    top = max(float(top), 1e-9)
    power = 10.0 ** np.floor(np.log10(top))
    return np.linspace(0, power * next(step for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if step * power >= top), bins + 1)


def histogram_svg(chart: Histogram, width: int = 300, height: int = 150) -> str:
    """One histogram with its title, its axis' ends, and how many are in the fullest bin."""
    left, top, right, bottom = 6.0, 30.0, width - 6.0, height - 18.0
    low, high = float(chart.edges[0]), float(chart.edges[-1])
    most = max(int(chart.counts.max(initial=0)), 1)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts = []
    for a, b, count in zip(chart.edges[:-1], chart.edges[1:], chart.counts, strict=True):
        if count:
            tall = max((bottom - top) * int(count) / most, 1.0)
            bar = (
                f'x="{x(a):.1f}" y="{bottom - tall:.1f}" width="{max(x(b) - x(a) - 0.5, 0.5):.1f}" height="{tall:.1f}"'
            )
            parts.append(f'<rect {bar} fill="{INK}"/>')
    for position, colour in chart.marks:
        if low <= position <= high:
            at = f'x1="{x(position):.1f}" x2="{x(position):.1f}" y1="{top - 6:.1f}" y2="{bottom:.1f}"'
            parts.append(f'<line {at} stroke="{colour}" stroke-width="1.2" stroke-dasharray="3 2"/>')
    parts.append(f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#555"/>')
    parts.append(f'<text x="{left}" y="13" {_TEXT} font-weight="bold">{escape(chart.title)}</text>')
    parts.append(f'<text x="{right}" y="25" text-anchor="end" {_TEXT}>highest bar: {most:,}</text>')
    if chart.note:
        parts.append(f'<text x="{left}" y="25" {_TEXT}>{escape(chart.note)}</text>')
    for position, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end")):
        label = f"{position:.4g} {chart.unit}".strip()
        parts.append(f'<text x="{x(position):.1f}" y="{height - 4}" text-anchor="{anchor}" {_TEXT}>{label}</text>')
    return _svg(width, height, parts)


def bars_svg(values: Mapping[str, int], width: int = 620) -> str:
    """Horizontal bars with names and numbers, in the order given."""
    row, label = 20, 190
    most = max([*values.values(), 1])
    parts = []
    for i, (name, value) in enumerate(values.items()):
        y, long = i * row + 4, (width - label - 90) * value / most
        parts.append(f'<text x="{label - 6}" y="{y + 11}" text-anchor="end" {_TEXT}>{escape(name)}</text>')
        parts.append(f'<rect x="{label}" y="{y}" width="{max(long, 1):.1f}" height="{row - 6}" fill="{INK}"/>')
        parts.append(f'<text x="{label + long + 6:.1f}" y="{y + 11}" {_TEXT}>{value:,}</text>')
    return _svg(width, max(len(values), 1) * row + 4, parts)


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return head + "".join(parts) + "</svg>"
