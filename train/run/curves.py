"""curves.png of a training run: its TensorBoard scalars as one picture, for those who have no TensorBoard at hand."""

from __future__ import annotations

import logging
import math
from pathlib import Path

CHARTS: dict[str, dict[str, str]] = {
    "loss": {"all": "loss/total"},
    "loss of 3D keypoints": {"coarse": "loss/coarse/joints_3d", "final": "loss/final/joints_3d"},
    "loss of 2D keypoints": {"coarse": "loss/coarse/joints_2d", "final": "loss/final/joints_2d"},
    "held-out MPJPE, mm": {"network": "held_out/mpjpe_mm", "mean person": "mean_person/mpjpe_mm"},
    "held-out PA-MPJPE, mm": {"network": "held_out/pa_mpjpe_mm", "mean person": "mean_person/pa_mpjpe_mm"},
    "learning rate": {"rate": "optimiser/learning_rate"},
}
"""Title -> legend -> scalar."""

_ACROSS = 3
"""Charts side by side."""


def write_curves(run: Path) -> None:
    """Writes RUN/curves.png from the scalars in the folder, if there are any yet; charts without are left out.

    A scalar that was told once is a level line. Values that are not finite are gaps.
    """
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every file and of steps taken again
    written = EventAccumulator(str(run))
    written.Reload()
    known = set(written.Tags()["scalars"])
    charts = {title: lines for title, lines in CHARTS.items() if known & set(lines.values())}
    if not charts:
        return
    rows = math.ceil(len(charts) / _ACROSS)
    figure = Figure(figsize=(4.8 * _ACROSS, 3 * rows), dpi=100, layout="constrained")
    for number, (title, lines) in enumerate(charts.items(), 1):
        axes = figure.add_subplot(rows, _ACROSS, number)
        axes.set_title(title, fontsize=10)
        for legend, scalar in lines.items():
            events = written.Scalars(scalar) if scalar in known else []
            if len(events) == 1:
                axes.axhline(events[0].value, label=legend, color="tab:gray")
            elif events:
                axes.plot([event.step for event in events], [event.value for event in events], label=legend)
        axes.margins(y=0.15)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    figure.savefig(run / "curves.png")
