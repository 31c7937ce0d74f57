"""Joint angles over time as a picture: a panel per coordinate, both sides together, beyond limits shaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitting.anatomy import COORDINATE_NAMES

RIGHT, LEFT, MIDDLE, BEYOND = "#c1432b", "#2a6f97", "#333333", "#f3c9c4"
"""Colours of the lines, and of what lies beyond the limits."""

_COLUMNS = 5
_PANEL = (3.3, 1.9)
"""Inches."""
_LEAST_RANGE = 10.0
"""Degrees that a panel spans at least, so that noise does not look like motion."""


@dataclass(frozen=True)
class AnglePanel:
    """What is drawn together: one coordinate, or a right and a left one."""

    title: str
    right: int
    """Coordinate; of the middle, if there is no left one."""
    left: int | None
    sign: int
    """Of the left one, so that lines that lie on each other are the same motion on both sides."""


def angle_panels() -> list[AnglePanel]:
    """The 29 panels of the 46 coordinates, in their order."""
    from fitting.body.mirror import COUNTERPART, MIRROR_SIGN

    found = []
    for right, name in enumerate(COORDINATE_NAMES):
        left, sign = int(COUNTERPART[right]), int(MIRROR_SIGN[right])
        if left == right:
            found.append(AnglePanel(name, right, None, 1))
        elif left > right:
            title = name.replace("_r_", "_").removesuffix("_r")
            found.append(AnglePanel(title + (" (left with sign turned)" if sign < 0 else ""), right, left, sign))
    return found


def plot_angles(times: np.ndarray, angles: np.ndarray, path: Path, kind: str | None = None) -> None:
    """Draws all coordinates, `angles` (T, 46) rad, over `times` (T,) s. OSError if the file cannot be written.

    `kind`: png, svg or pdf; by default as the name ends.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fitting.body.limits import HUMAN_LIMITS

    shown = angle_panels()
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure((_PANEL[0] * _COLUMNS, _PANEL[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, sharex=True).ravel()
    degrees, limits = np.degrees(angles), np.degrees(HUMAN_LIMITS)
    for axis, panel in zip(axes, shown, strict=False):
        lines = [(degrees[:, panel.right], MIDDLE if panel.left is None else RIGHT)]
        if panel.left is not None:
            lines.append((panel.sign * degrees[:, panel.left], LEFT))
        axis.set_title(panel.title, fontsize=9)
        low, high = span([values for values, _ in lines])
        axis.set_ylim(low, high)
        for edge, beyond in zip(limits[panel.right], (low, high), strict=True):
            if low < edge < high:
                axis.axhspan(min(edge, beyond), max(edge, beyond), color=BEYOND, linewidth=0)
        for values, colour in lines:
            axis.plot(times, values, color=colour, linewidth=1.1)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.margins(x=0)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis in axes[len(shown) - _COLUMNS : len(shown)]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("s", fontsize=8)
    for axis in axes[::_COLUMNS]:
        axis.set_ylabel("degrees", fontsize=8)
    _legend(figure)
    figure.savefig(path, dpi=110, format=kind)


def span(lines: list[np.ndarray]) -> tuple[float, float]:
    """Lower and upper end of an axis for these values, degrees."""
    low, high = min(values.min() for values in lines), max(values.max() for values in lines)
    margin = max(0.08 * (high - low), (_LEAST_RANGE - (high - low)) / 2)
    return float(low - margin), float(high + margin)


def _legend(figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Line2D([], [], color=colour) for colour in (RIGHT, LEFT, MIDDLE)]
    handles.append(Patch(color=BEYOND))
    names = ["right", "left", "middle", "beyond the right side's limit"]
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=9)
