"""The pictures that people were found in, as a page shows them: turned, and no larger than a screen."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipelines.files.films import FilmError, film_frames
from pipelines.files.jpeg import ImageError, encode_jpeg
from pipelines.files.pictures import read_picture
from pipelines.files.predictions import Predictions
from pipelines.look.viewer.clips import View
from schemas import InputError

log = logging.getLogger(__name__)

LONGEST_SIDE, LONGEST_SIDE_OF_FRAMES = 1280, 640
"""px; larger pictures and frames are brought to this."""

MOST_FRAMES = 300
"""A page with the frames of a longer film would be too large for a browser."""

_QUALITY, _QUALITY_OF_FRAMES = 88, 75


def picture_view(found: Predictions, row: int, images: Path | None) -> View | None:
    """The picture of a person, in a folder or as its name says; None, said in the log, if it is not there any more."""
    path = _path(found, row, images)
    try:
        picture = read_picture(path.read_bytes())
    except OSError as error:
        return _without(path, f"{error.strerror or error} (--images says where it is)")
    except ImageError as error:
        return _without(path, str(error))
    if picture.orientation != found.columns["orientation"][row]:
        return _without(path, "it is turned in another way than the one that people were found in")
    if problem := _other_size(found, row, picture.pixels):
        return _without(path, problem)
    return _view(picture.pixels, found.cam_int(row), LONGEST_SIDE, _QUALITY)


def film_views(found: Predictions, frames: np.ndarray, images: Path | None) -> list[View]:
    """Evenly spaced frames of a film; [], said in the log, if they are too many or not to be had."""
    path = _path(found, 0, images)
    if len(frames) > MOST_FRAMES:
        _without(path, f"{len(frames):,} frames, more than {MOST_FRAMES} (--rows chooses some)")
        return []
    views: list[View] = []
    step = int(frames[1] - frames[0]) if len(frames) > 1 else 1
    try:
        for frame in film_frames(path, int(frames[0]), step):
            if problem := _other_size(found, 0, frame.pixels):
                raise FilmError(problem, frame.number)
            views.append(_view(frame.pixels, found.cam_int(0), LONGEST_SIDE_OF_FRAMES, _QUALITY_OF_FRAMES))
            if len(views) == len(frames):
                return views
        raise FilmError(f"it has no frame {frames[len(views)]}", 0)
    except (FilmError, InputError) as error:
        problem = error.problem if isinstance(error, InputError) else str(error)
        _without(path, problem + ("" if path.is_file() else " (--images says where it is)"))
        return []


def _path(found: Predictions, row: int, images: Path | None) -> Path:
    return (images or Path()) / found.columns["source"][row]


def _without(path: Path, problem: str) -> None:
    log.warning("%s: people are shown without it: %s", path, problem)


def _other_size(found: Predictions, row: int, pixels: np.ndarray) -> str:
    """What is wrong if people were found in a picture of another size."""
    height, width = pixels.shape[:2]
    stated = found.columns["picture_size"][row].tolist()
    if stated == [width, height]:
        return ""
    return f"it has {width} x {height} px, but people were found in {stated[0]} x {stated[1]}"


def _view(pixels: np.ndarray, cam_int: np.ndarray, longest: int, quality: int) -> View:
    """Of pixels (h, w, 3) RGB."""
    import cv2

    height, width = pixels.shape[:2]
    share = min(1.0, longest / max(width, height))
    size = max(1, round(width * share)), max(1, round(height * share))
    if share < 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    scale = np.diag([size[0] / width, size[1] / height, 1])
    return View(encode_jpeg(pixels[:, :, ::-1], quality), "image/jpeg", size, (scale @ cam_int)[:2])
