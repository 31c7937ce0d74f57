"""Photographs as they are seen: turned as OpenCV turns them, focal lengths as EXIF data tell, damage refused."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.files.jpeg import ImageError
from pipelines.files.pictures import read_picture

NOISE = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
PIXELS = np.kron(NOISE, np.ones((8, 8, 1), np.uint8))
"""72 x 48 px, in blocks that JPEG keeps"""


def encoded(kind: str = "JPEG", orientation: int | None = None, details: dict[int, float] | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if details:
        exif.get_ifd(0x8769).update(details)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, exif=exif.tobytes(), quality=95)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_others_turn_them(orientation):
    data = encoded(orientation=orientation)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    picture = read_picture(data)
    assert picture.orientation == orientation
    assert picture.pixels.shape == expected.shape
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_read(kind):
    picture = read_picture(encoded(kind))
    assert picture.orientation == 1 and picture.focal is None
    assert np.abs(picture.pixels.astype(int) - PIXELS).mean() < 20


@pytest.mark.parametrize(
    ("details", "share"),
    [
        ({0xA405: 26}, 26 / 43.2666),
        ({0xA405: 26, 0xA002: 720, 0xA003: 480}, 26 / 43.2666),
        ({0xA405: 26, 0xA002: 480, 0xA003: 720}, 26 / 43.2666),
        ({0xA405: 26, 0xA002: 480, 0xA003: 480}, None),  # a part of what the camera saw
        ({0xA405: 0}, None),
        ({}, None),
    ],
)
def test_focal_lengths_are_those_for_the_same_diagonal(details, share):
    found = read_picture(encoded(orientation=6, details=details)).focal
    assert found == (None if share is None else pytest.approx(share * np.hypot(72, 48), rel=1e-4))


def test_orientations_that_are_none_are_none():
    assert read_picture(encoded(orientation=9)).orientation == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (b"no picture", "not a picture"),
        (encoded()[:-400], "cannot be decoded"),
        (encoded("PNG")[:-400], "ends within a chunk|cannot be decoded"),
        (encoded("WEBP")[:300], "cannot be decoded|not a picture|cannot be read"),
    ],
    ids=["empty", "text", "JPEG", "PNG", "WebP"],
)
def test_damage_is_told(data, said):
    with pytest.raises(ImageError, match=said):
        read_picture(data)
