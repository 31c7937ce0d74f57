"""The chart of a run: lines where the values are, whatever the values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from train.curves import CHARTS, HEIGHT, WIDTH, chart, write_curves

BLUE = np.array([196, 92, 28])


def line_rows(picture: np.ndarray, column: int) -> np.ndarray:
    """Rows in which the first curve's colour stands in a column."""
    return np.flatnonzero((np.abs(picture[:, column].astype(int) - BLUE) < 12).all(1))


def test_a_falling_curve_falls_and_a_level_one_is_level():
    falling = chart("loss", {"a": [(0, 10.0), (100, 0.0)]})
    heights = [line_rows(falling, column).mean() for column in (100, 200, 300, 400)]
    assert np.diff(heights) == pytest.approx(np.diff(heights)[0], abs=2) and heights[0] < heights[-1]
    level = chart("loss", {"a": [(50, 3.0)]})
    assert line_rows(level, 100).mean() == line_rows(level, 400).mean()


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan"), 1.0], [1e-9, 2e-9], [-5.0, 1e6], [float("inf")], [7.0]])
def test_any_values_can_be_drawn(values):
    assert chart("x", {"a": list(enumerate(values))}).shape == (HEIGHT, WIDTH, 3)


def test_runs_without_a_scalar_lack_its_chart(tmp_path):
    write_curves(tmp_path)
    assert not list(tmp_path.iterdir())
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(4):
            writer.add_scalar("loss/total", 1.0 / (1 + step), step)
    write_curves(tmp_path)
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape == (HEIGHT, 3 * WIDTH, 3) and len(CHARTS) > 3
    assert picture[:, :WIDTH].std() > 5 and (picture[:, WIDTH:] == 255).all()
