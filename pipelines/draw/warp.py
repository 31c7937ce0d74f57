"""An image seen through an affine map: crops of people, inputs of networks, tiles of contact sheets.

Pixel convention, as in schemas.hmr_skel: the origin is the outer corner of the top left pixel, so the centre of pixel
(i, j) is at (i + 0.5, j + 0.5). OpenCV puts the origin at the centre of that pixel; the half pixels between the two
conventions are added here and nowhere else.

What lies outside the image is black, as the field's trainers see it: repeated borders would invent content.
"""

from __future__ import annotations

import math

import numpy as np

_FINEST_SAMPLING = 8
"""Samples per output pixel and axis at most; images that are shrunk further are first averaged over whole blocks."""


def square_affine(center: np.ndarray, side: float, size: int) -> np.ndarray:
    """Affine (2, 3) that maps the square of `side` px around `center` (x, y) to size x size px."""
    zoom = size / float(side)
    shift = size / 2 - zoom * np.asarray(center, np.float64)
    return np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]], np.float64)


def inverse(affine: np.ndarray) -> np.ndarray:
    """(3, 3) inverse of an affine (2, 3)."""
    return np.linalg.inv(np.vstack([np.asarray(affine, np.float64), [0.0, 0.0, 1.0]]))


def warp(pixels: np.ndarray, affine: np.ndarray, size: int | tuple[int, int], antialias: bool = True) -> np.ndarray:
    """The image (h, w, c) under an affine (2, 3) from its pixels to the output's; black outside.

    `size` is the output's side or (width, height), px; the affine neither shears nor, but for the aspect of reduced
    images, stretches.

    A shrinking warp takes k x k samples, at most one source pixel apart, for each output pixel and averages them;
    without `antialias` it takes one, for images that were reduced while they were decoded.
    """
    import cv2

    affine, (width, height) = np.asarray(affine, np.float64), (size, size) if isinstance(size, int) else size
    shrink = _shrink(affine) if antialias else 1.0
    if shrink > _FINEST_SAMPLING:  # far too many samples: average whole blocks first
        block, full = shrink / (_FINEST_SAMPLING / 2), pixels.shape[1::-1]
        small = (max(1, round(full[0] / block)), max(1, round(full[1] / block)))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        affine = affine @ np.diag([full[0] / small[0], full[1] / small[1], 1.0])
        shrink = _shrink(affine)
    samples = max(1, math.ceil(shrink - 1e-9))
    matrix = samples * affine
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
    big = cv2.warpAffine(
        pixels, matrix, (width * samples, height * samples), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return big if samples == 1 else cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)


def _shrink(affine: np.ndarray) -> float:
    """Source pixels per output pixel, along the axis of the source on which they lie closest together."""
    return 1.0 / float(np.hypot(*affine[:, :2]).min())
