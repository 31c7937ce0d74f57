"""The charts of a run: there for what was told, whatever the values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from train.run.curves import CHARTS, write_curves


def written(folder, scalars: dict[str, list[float]]) -> np.ndarray | None:
    """The picture of a run that told these values."""
    with SummaryWriter(str(folder)) as writer:
        for name, values in scalars.items():
            for step, value in enumerate(values):
                writer.add_scalar(name, value, step)
    write_curves(folder)
    return cv2.imread(str(folder / "curves.png"))


def test_a_falling_curve_falls_and_a_scalar_that_was_told_once_is_level(tmp_path):
    told = {"held_out/mpjpe_mm": [300.0, 250.0, 200.0, 150.0, 100.0], "mean_person/mpjpe_mm": [320.0]}
    picture = written(tmp_path, told)[28:].astype(int)  # below the title
    blue = (np.abs(picture - [180, 119, 31]) < 40).all(2)
    gray = (np.abs(picture - 127) < 12).all(2)
    columns = range(100, 300, 20)
    heights = [np.flatnonzero(blue[:, column])[-1] for column in columns]
    assert (np.diff(heights) > 0).all() and np.diff(heights, 2) == pytest.approx(0, abs=3)
    level = [np.flatnonzero(gray[:, column])[0] for column in columns]
    assert max(level) - min(level) <= 1 and max(level) < min(heights)


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan"), 1.0], [1e-9, 2e-9], [-5.0, 1e6], [float("inf")], [7.0]])
def test_any_values_can_be_drawn(values, tmp_path):
    assert written(tmp_path, {"loss/total": values}).std() > 5


def test_a_chart_is_drawn_for_what_was_told_alone(tmp_path):
    assert written(tmp_path, {}) is None
    one = written(tmp_path, {"loss/total": [1.0, 0.5]})
    several = written(tmp_path, {scalar: [1.0, 0.5] for lines in CHARTS.values() for scalar in lines.values()})
    assert several.shape[0] == 2 * one.shape[0] and several.shape[1] == one.shape[1]
    assert (one[:, one.shape[1] // 2 :] == 255).all()
