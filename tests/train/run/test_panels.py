"""Pictures of predictions: bodies appear where the camera says, in front of what lies behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting import SKEL
from pipelines.files.body_models import BodyModels
from train.network.camera import Framing, project_to_crop
from train.network.mean_parameters import POSES
from train.run.body import KeypointLayer
from train.run.panels import draw_in_crop, sheet


@pytest.fixture(scope="module")
def skel() -> SKEL:
    return SKEL.demo()


def framing(x: float = 320.0) -> Framing:
    return Framing(
        torch.tensor([[x, 240.0]]), torch.tensor([300.0]), torch.tensor([600.0]), torch.tensor([[320.0, 240.0]])
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.2)])
def test_the_body_covers_its_keypoints_and_nothing_far_from_them(skel, shift):
    image = np.full((256, 256, 3), 128, np.uint8)
    poses, betas, cam = torch.tensor(POSES), torch.zeros(10), torch.tensor([0.9, *shift])
    drawn = draw_in_crop(image, skel, poses, betas, cam, framing(200.0))
    covered = (drawn != 128).any(2)
    points = project_to_crop(KeypointLayer.of(BodyModels())(poses[None], betas[None]), cam[None], framing(200.0))[0]
    pixels = ((points + 0.5) * 256).long()[[8, 9, 10, 12, 13, 2, 5]]  # hips, knees, shoulders
    assert all(covered[y, x] for x, y in pixels.tolist() if 0 <= x < 256 and 0 <= y < 256)
    rows, columns = np.nonzero(covered)
    low, high = ((points + 0.5) * 256).amin(0) - 15, ((points + 0.5) * 256).amax(0) + 15
    assert low[0] <= columns.min() and columns.max() <= high[0] and low[1] <= rows.min() and rows.max() <= high[1]
    assert 0.02 < covered.mean() < 0.5
    assert (image == 128).all()


def test_bodies_behind_or_beside_the_camera_leave_the_crop_as_it_is(skel):
    image = np.full((64, 64, 3), 50, np.uint8)
    drawn = draw_in_crop(image, skel, torch.tensor(POSES), torch.zeros(10), torch.tensor([0.9, 30.0, 0.0]), framing())
    assert (drawn == 50).all()


def test_sheets_put_tiles_side_by_side():
    tiles = [np.full((8, 8, 3), n, np.uint8) for n in range(3)]
    picture = sheet({"image": tiles, "again": tiles})
    assert picture.shape == (24 + 2 * 8, 4 * 8, 3)
    assert picture[24, :, 0].tolist() == [0] * 16 + [1] * 16
    assert picture[32, :, 0].tolist() == [2] * 16 + [250] * 16
