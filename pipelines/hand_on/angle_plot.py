"""Joint angles over time as a picture: a panel per coordinate, both sides together, beyond limits shaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fitting.anatomy import COORDINATE_NAMES

if TYPE_CHECKING:
    from pipelines.hand_on.opensim_ground import GroundMotion

_COLUMNS = 5
_PANEL = (3.3, 1.9)
"""Inches."""
_RIGHT, _LEFT, _MIDDLE, _BEYOND = "#c1432b", "#2a6f97", "#333333", "#f3c9c4"
_LEAST_RANGE = 10.0
"""Degrees that a panel spans at least, so that noise does not look like motion."""


def plot_angles(motion: GroundMotion, path: Path) -> None:
    """Draws all 46 coordinates, degrees. Raises OSError if the file cannot be written.

    Where a left coordinate has the opposite sign of its right counterpart for the mirrored motion (arms), it is drawn
    with its sign turned, and its panel says so: lines that lie on each other are then the same motion on both sides.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fitting.body.kinematics import JOINT_LIMITS
    from fitting.body.mirror import COUNTERPART, MIRROR_SIGN

    shown = [c for c in range(len(COORDINATE_NAMES)) if COUNTERPART[c] >= c]
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure((_PANEL[0] * _COLUMNS, _PANEL[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, sharex=True).ravel()
    degrees, limits = np.degrees(motion.angles), np.degrees(JOINT_LIMITS)
    for panel, right in zip(panels, shown, strict=False):
        left, sign = COUNTERPART[right], int(MIRROR_SIGN[right])
        if left == right:
            lines = [(degrees[:, right], _MIDDLE)]
            panel.set_title(COORDINATE_NAMES[right], fontsize=9)
        else:
            lines = [(degrees[:, right], _RIGHT), (sign * degrees[:, left], _LEFT)]
            title = COORDINATE_NAMES[right].replace("_r_", "_").removesuffix("_r")
            panel.set_title(title + (" (left with sign turned)" if sign < 0 else ""), fontsize=9)
        low, high = _span([values for values, _ in lines])
        panel.set_ylim(low, high)
        for edge, beyond in zip(limits[right], (low, high), strict=True):
            if low < edge < high:
                panel.axhspan(min(edge, beyond), max(edge, beyond), color=_BEYOND, linewidth=0)
        for values, colour in lines:
            panel.plot(motion.times, values, color=colour, linewidth=1.1)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25)
        panel.margins(x=0)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel in panels[len(shown) - _COLUMNS : len(shown)]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("s", fontsize=8)
    for panel in panels[::_COLUMNS]:
        panel.set_ylabel("degrees", fontsize=8)
    _legend(figure)
    figure.savefig(path, dpi=110)


def _span(lines: list[np.ndarray]) -> tuple[float, float]:
    low, high = min(values.min() for values in lines), max(values.max() for values in lines)
    margin = max(0.08 * (high - low), (_LEAST_RANGE - (high - low)) / 2)
    return float(low - margin), float(high + margin)


def _legend(figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Line2D([], [], color=colour) for colour in (_RIGHT, _LEFT, _MIDDLE)]
    handles.append(Patch(color=_BEYOND))
    names = ["right", "left", "both or middle", "beyond the right side's limit"]
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=9)
