"""curves.png of a training run: its TensorBoard scalars as one picture, for those who have no TensorBoard at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

Curve = Sequence[tuple[float, float]]
"""(step, value) in the order of the steps."""

CHARTS: dict[str, dict[str, str]] = {
    "loss": {"all": "loss/total"},
    "loss of 3D keypoints": {"coarse": "loss/coarse/joints_3d", "final": "loss/final/joints_3d"},
    "loss of 2D keypoints": {"coarse": "loss/coarse/joints_2d", "final": "loss/final/joints_2d"},
    "held-out MPJPE, mm": {"network": "held_out/mpjpe_mm", "mean person": "mean_person/mpjpe_mm"},
    "held-out PA-MPJPE, mm": {"network": "held_out/pa_mpjpe_mm", "mean person": "mean_person/pa_mpjpe_mm"},
    "learning rate": {"rate": "optimiser/learning_rate"},
}
"""Title -> legend -> scalar."""

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 30
_COLOURS = ((196, 92, 28), (46, 92, 200))
_INK, _PALE = (60, 60, 60), (225, 225, 225)


def write_curves(run: Path) -> None:
    """Writes RUN/curves.png from the scalars in the folder, if there are any yet; charts without are left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it opens
    written = EventAccumulator(str(run))
    written.Reload()
    known = set(written.Tags()["scalars"])
    charts = []
    for title, lines in CHARTS.items():
        curves = {
            legend: [(event.step, event.value) for event in written.Scalars(tag)]
            for legend, tag in lines.items()
            if tag in known
        }
        if curves:
            charts.append(chart(title, curves))
    if not charts:
        return
    charts += [np.full((HEIGHT, WIDTH, 3), 255, np.uint8)] * (-len(charts) % 3)
    picture = np.concatenate([np.concatenate(charts[n : n + 3], 1) for n in range(0, len(charts), 3)])
    cv2.imwrite(str(run / "curves.png"), picture)


def chart(title: str, curves: Mapping[str, Curve]) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) BGR picture of a few curves over steps. A curve of one point is a level line."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    curves = {legend: [point for point in curve if np.isfinite(point[1])] for legend, curve in curves.items()}
    points = np.array([point for curve in curves.values() for point in curve] or [(0, 0)], float)
    last, ticks = max(points[:, 0].max(), 1), _ticks(min(points[:, 1].min(), 0), points[:, 1].max())
    low, high = ticks[0], ticks[-1]

    def place(step: float, value: float) -> tuple[int, int]:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * step / last
        return round(across), round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low))

    for tick in ticks:
        cv2.line(picture, place(0, tick), place(last, tick), _PALE, 1)
        _write(picture, f"{tick:.4g}", (6, place(0, tick)[1] + 4))
    for step in (0, last / 2, last):
        _write(picture, f"{step:,.0f}", (place(step, low)[0] - 16, HEIGHT - 10))
    _write(picture, title, (_LEFT, 20), 0.5)
    for number, (legend, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        known = [(0, curve[0][1]), (last, curve[0][1])] if len(curve) == 1 else curve
        line = np.array([place(*point) for point in known], np.int32).reshape(-1, 1, 2)
        cv2.polylines(picture, [line], False, colour, 2, cv2.LINE_AA)
        if len(curves) > 1:
            _write(picture, legend, (WIDTH - 110, 20 + 16 * number), colour=colour)
    return picture


def _ticks(low: float, high: float) -> np.ndarray:
    """About four round numbers that enclose a range."""
    span = high - low if high > low else max(abs(high), 1.0)
    unit = 10.0 ** np.floor(np.log10(span / 3))
    step = next(unit * n for n in (1, 2, 5, 10) if span / (unit * n) <= 4)
    first = np.floor(low / step)
    return np.arange(first, max(np.ceil(high / step - 1e-9), first + 1) + 1) * step


def _write(picture: np.ndarray, text: str, place: tuple[int, int], size: float = 0.38, colour=_INK) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
