"""Photographs as people see them: decoded, turned as their EXIF data say, with the focal length that these tell.

Formats that `pipelines.files.jpeg` reads go through it, which refuses what is damaged; others are left to Pillow.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.files.jpeg import MAX_PIXELS, ImageError, decode_image, format_by_pillow

if TYPE_CHECKING:
    from PIL.Image import Exif

_ORIENTATION, _EXIF = 0x0112, 0x8769
_FOCAL_35MM, _WIDTH, _HEIGHT = 0xA405, 0xA002, 0xA003
"""Tags of EXIF 2.32."""

_EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")
"""Before EXIF data in JPEG, PNG and WebP."""

_DIAGONAL_35MM = math.hypot(36, 24)
"""mm; a focal length in 35 mm film is one for the same diagonal (CIPA DCG-001)."""

_SAME_SHAPE = 0.02
"""Pictures whose ratio of sides differs more from that of their EXIF data are parts of what the camera saw."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is seen."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB"""
    orientation: int = 1
    """EXIF orientation that was applied, 1 to 8"""
    focal: float | None = None
    """px, where the EXIF data tell it"""


def read_picture(data: bytes) -> Picture:
    """The picture of a file's bytes. Raises ImageError for what is damaged, too large or no picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF data and of many pixels
        pixels = _pixels(data)
        orientation, focal = _exif(data, pixels.shape[1], pixels.shape[0])
    return Picture(turned(pixels, orientation), orientation, focal)


def exif_orientation(data: bytes) -> int:
    """1 to 8, as EXIF data of an encoded image tell; 1 where they do not."""
    return _exif(data, 1, 1)[0] if any(mark in data for mark in _EXIF_MARKS) else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, 3) as stored, turned and mirrored as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _pixels(data: bytes) -> np.ndarray:
    """(H, W, 3) RGB as stored."""
    from PIL import Image, UnidentifiedImageError

    if data[:2] == b"\xff\xd8" or data[:8] == b"\x89PNG\r\n\x1a\n" or format_by_pillow(data):
        return decode_image(data)[:, :, ::-1]
    try:
        with Image.open(io.BytesIO(data)) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise ImageError(f"an image of {image.width} x {image.height} pixels")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ImageError("not a picture" if data else "an empty file") from error
    except ImageError:
        raise
    except Exception as error:  # the decoders have many words for damage
        raise ImageError(f"the picture cannot be decoded ({error})") from error


def _exif(data: bytes, width: int, height: int) -> tuple[int, float | None]:
    """Orientation, and focal length in px, of a picture of this size as stored; 1 and None where they are not told."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        focal = _focal(exif, width, height)
    except Exception:  # damaged EXIF data cost the picture nothing but these
        return 1, None
    return (orientation if orientation in range(1, 9) else 1), focal


def _focal(exif: Exif, width: int, height: int) -> float | None:
    details = exif.get_ifd(_EXIF)
    film = float(details.get(_FOCAL_35MM, 0))
    if not 0 < film < math.inf:
        return None
    taken = float(details.get(_WIDTH, 0)), float(details.get(_HEIGHT, 0))
    if min(taken) > 0:
        ratio = taken[0] / taken[1]
        ratios = width / height, height / width  # some programs turn the pixels and leave the numbers
        if min(abs(math.log(ratio / r)) for r in ratios) > _SAME_SHAPE:
            return None
    return film / _DIAGONAL_35MM * math.hypot(width, height)
