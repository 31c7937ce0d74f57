"""The stored image of a person: one warp, then JPEG.

A crop's 2x3 affine A maps a point of the full image to the crop: p' = A [x, y, 1]; the pixel convention is that of
pipelines.draw.warp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.draw.warp import square_affine, warp
from pipelines.files.jpeg import encode_jpeg


@dataclass(frozen=True)
class Crop:
    """Encoded image; `affine` (2, 3) float64 maps the full image to it, px; sizes are (width, height)."""

    data: bytes
    affine: np.ndarray
    crop_size: tuple[int, int]
    image_size: tuple[int, int]
    orientation: int = 1
    """EXIF orientation of the image, which is not applied."""


def box_side(scale: np.ndarray) -> np.ndarray:
    """Side of the square that holds the person's box, px: scale (..., 2) is width and height in 200 px."""
    return 200.0 * np.max(scale, axis=-1)


def person_crop(
    pixels: np.ndarray,
    center: np.ndarray,
    side: float,
    context: float,
    size: int,
    quality: int,
    full_size: tuple[int, int] | None = None,
    factor: int = 1,
) -> Crop:
    """The square of `context * side` px around `center`, resized to size x size px and encoded.

    `center` and `side` are of the full image, whose (width, height) is `full_size` if `pixels` are reduced by `factor`.
    """
    affine = square_affine(center, side * context, size)
    reduced = affine @ np.diag([factor, factor, 1.0])
    height, width = pixels.shape[:2]
    return Crop(encode_jpeg(warp(pixels, reduced, size), quality), affine, (size, size), full_size or (width, height))


def whole_frame(data: bytes, pixels: np.ndarray, quality: int) -> Crop:
    """The whole image. A plain JPEG keeps its bytes; others, and those whose EXIF could turn them, are encoded anew."""
    plain = data[:2] == b"\xff\xd8" and b"Exif\0\0" not in data[: 1 << 16] and b"Adobe" not in data[: 1 << 16]
    height, width = pixels.shape[:2]
    kept = data if plain else encode_jpeg(pixels, quality)
    return Crop(kept, np.eye(3)[:2], (width, height), (width, height))
