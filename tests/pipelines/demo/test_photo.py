"""The photograph for those who have none: what is on it, and what its file says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from pipelines.demo.photo import main, street_photo


@pytest.fixture(scope="module")
def photo():
    return street_photo(draft=True)


def test_three_people_are_there_whole(photo):
    height, width = photo.image.shape[:2]
    assert len(photo.people) == 3 and (width, height) == (320, 240)
    assert (photo.boxes[:, :2] > 0).all() and (photo.boxes[:, 2:] < [width, height]).all()
    assert (photo.keypoints_2d[:, :25, 2] > 0).mean() > 0.8, "hardly anything is hidden"


def test_the_file_says_how_long_the_lens_was(photo, tmp_path, capsys):
    path = tmp_path / "new" / "photo.jpg"
    assert main([str(path), "--draft"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    with Image.open(path) as image:
        millimetres = image.getexif().get_ifd(0x8769)[0xA405]
        pixels = np.asarray(image)
    # As CIPA DCG-001 has it: the length with the same view on film of 36 x 24 mm.
    focal = millimetres / math.hypot(36, 24) * math.hypot(320, 240)
    assert focal == pytest.approx(photo.cam_int[0, 0], rel=0.5 / millimetres + 1e-6)
    assert np.abs(pixels.astype(int) - photo.image).mean() < 6
    assert main([str(tmp_path / "photo.png")]) == 2
    assert "a name that ends in .jpg" in capsys.readouterr().err
