"""Crops and whole images of a benchmark's people: geometry, quirks, faults of images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from schemas import InputError
from train.benchmarks.images import ImageFolders, released_crop, whole_pixel_crop
from train.benchmarks.people import BenchmarkPeople
from train.benchmarks.quirks import PUBLISHED
from train.benchmarks.stream import BenchmarkCrops, crop_batches, told_side
from train.network.flnet import whole_image


def people(names, layout="A", side=100.0) -> BenchmarkPeople:
    count = len(names)
    label = np.tile([side, side / 2], (count, 1))
    names = np.array(names, object)
    return BenchmarkPeople(
        *("labels.npz", layout, np.arange(count), names, names, np.full((count, 2), 60.0), label, np.full(count, side))
    )


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(3):
        small = rng.integers(0, 255, (12, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{n}.png"), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return tmp_path


def everybody(who, folder, **settings):
    return list(crop_batches(who, ImageFolders((folder / "absent", folder)), BenchmarkCrops(**settings), batch=2))


def test_everybody_comes_once_with_the_image_that_is_theirs(folder):
    who = people(["0.png", "1.png", "0.png", "2.png", "1.png"])
    batches = everybody(who, folder)
    assert sorted(np.concatenate([b.people for b in batches])) == list(range(5))
    for batch in batches:
        assert batch.image_size.tolist() == [[160, 120]] * len(batch.people)
        for k, person in enumerate(batch.people):
            image = cv2.imread(str(folder / who.imgname[person]))[:, :, ::-1]
            np.testing.assert_array_equal(batch.image[k], released_crop(image, who.center[person], 100.0))
            np.testing.assert_array_equal(batch.whole[batch.image_of[k]], whole_image(image))
    assert not len(everybody(who, folder, whole=False)[0].whole)


def test_the_released_crop_samples_every_pixel_where_the_description_says():
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    center, side = np.array([50.25, 41.0]), 64.0
    crop = released_crop(image, center, side)
    for v, u in ((128, 128), (10, 200), (251, 3), (77, 78)):
        x, y = (u - 128) * side / 256 + center[0], (v - 128) * side / 256 + center[1]
        left, top = int(np.floor(x)), int(np.floor(y))
        a, b = x - left, y - top
        corners = image[top : top + 2, left : left + 2].astype(float)
        expected = (1 - b) * ((1 - a) * corners[0, 0] + a * corners[0, 1]) + b * (
            (1 - a) * corners[1, 0] + a * corners[1, 1]
        )
        np.testing.assert_allclose(crop[v, u], expected, atol=6)  # OpenCV's weights have 5 bits


def test_the_released_crop_is_off_centre_by_half_a_pixel_of_the_image(folder):
    who = people(["0.png"], side=256 / 3)  # three pixels of the crop for one: the offset is 1 px of the crop
    ours, theirs = (everybody(who, folder, patches=p)[0].image[0].float() for p in ("ours", "released"))
    inside = slice(20, 230)
    assert (ours[1:, 1:][inside, inside] - theirs[inside, inside]).abs().max() <= 1
    assert (ours[inside, inside] - theirs[inside, inside]).abs().max() > 2


def test_moyos_corners_are_whole_pixels_and_the_outside_is_black():
    image = np.random.default_rng(0).integers(1, 255, (90, 120, 3), np.uint8)
    # int() cuts towards zero: (10.7, 20.9) .. (74.7, 84.9) becomes 10 .. 74 and 20 .. 84
    crop = whole_pixel_crop(image, np.array([42.7, 52.9]), 64.0)
    np.testing.assert_array_equal(crop, cv2.resize(image[20:84, 10:74], (256, 256)))
    crop = whole_pixel_crop(image, np.array([0.0, 0.0]), 64.0)
    assert not crop[:120].any() and not crop[:, :120].any() and crop[136:, 136:].all()
    assert not whole_pixel_crop(image, np.array([500.0, 500.0]), 64.0).any()
    assert whole_pixel_crop(image, np.array([119.0, 45.0]), 0.4).shape == (256, 256, 3)


def test_quirks_of_moyo_are_the_cue_the_crop_and_the_colours(folder):
    who = replace(people(["0.png"], "B"), label_box=np.array([[75.0, 60.0]]), side=np.array([100.0]))
    assert told_side(who, PUBLISHED).tolist() == [75.0] and told_side(who, frozenset()).tolist() == [100.0]
    assert told_side(replace(who, layout="A"), PUBLISHED).tolist() == [100.0]
    image = cv2.imread(str(folder / "0.png"))[:, :, ::-1]
    released, clean = (everybody(who, folder, quirks=q)[0] for q in (PUBLISHED, frozenset()))
    np.testing.assert_array_equal(released.image[0], whole_pixel_crop(image, who.center[0], 100.0))
    np.testing.assert_array_equal(clean.image[0], released_crop(image, who.center[0], 100.0))
    np.testing.assert_array_equal(clean.whole[0], whole_image(image))
    np.testing.assert_array_equal(released.whole[0], whole_image(np.ascontiguousarray(image[:, :, ::-1])))
    first = everybody(replace(who, layout="A"), folder, quirks=PUBLISHED)[0]
    assert torch.equal(first.whole, clean.whole)  # layout A is read in RGB


@pytest.mark.parametrize("name", ["absent.png", "../0.png", "/etc/passwd", "broken.png", ""])
def test_images_that_cannot_be_had_are_told_with_the_row(folder, name):
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"labels\.npz, row 1, field 'imgname'"):
        everybody(people(["0.png", name]), folder)
