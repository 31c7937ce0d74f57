"""The pictures that people were found in, as a page shows them: turned, and no larger than a screen."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipelines.files.jpeg import ImageError, decode_image, encode_jpeg
from pipelines.files.predictions import Predictions
from pipelines.look.viewer.clips import View

log = logging.getLogger(__name__)

LONGEST_SIDE = 1280
"""px; larger pictures are brought to this."""

_QUALITY = 88


def picture_view(found: Predictions, row: int, images: Path | None) -> View | None:
    """The picture of a person, in a folder or as its name says; None, said in the log, if it is not there any more."""
    source = found.columns["source"][row]
    path = (images or Path()) / source
    try:
        pixels = turned(decode_image(path.read_bytes()), int(found.columns["orientation"][row]))
    except OSError as error:
        log.warning("%s: shown without its picture: %s (--images says where it is)", path, error.strerror or error)
        return None
    except ImageError as error:
        log.warning("%s: shown without its picture: %s", path, error)
        return None
    height, width = pixels.shape[:2]
    if (stated := found.columns["picture_size"][row].tolist()) != [width, height]:
        log.warning("%s: not shown: %d x %d px, but people were found in %d x %d", path, width, height, *stated)
        return None
    return _view(pixels, found.cam_int(row))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (h, w, 3) as they are stored, turned as an EXIF orientation, 1 to 8, says."""
    if orientation > 4:  # rows are stored as columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _view(pixels: np.ndarray, cam_int: np.ndarray) -> View:
    import cv2

    height, width = pixels.shape[:2]
    share = min(1.0, LONGEST_SIDE / max(width, height))
    size = max(1, round(width * share)), max(1, round(height * share))
    if share < 1:
        pixels = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    scale = np.diag([size[0] / width, size[1] / height, 1])
    return View(encode_jpeg(pixels, _QUALITY), "image/jpeg", size, (scale @ cam_int)[:2])
