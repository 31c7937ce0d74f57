"""The rows of a file of boxes, in the three forms that are read; frames of films count from 0.

- CSV with the columns `image,left,top,right,bottom` and, if wanted, `score`, `frame` and `track`, px
- JSON object from picture to boxes, `{"a.jpg": [[left, top, right, bottom], ...]}`, each with a fifth number as score
  and, in films, a sixth as track; a film has an object from frame to boxes, `{"a.mp4": {"0": [[...]], "7": [[...]]}}`
- COCO results, `[{"image_id": 139, "bbox": [left, top, width, height], "score": 0.9, "keypoints": [51 numbers]}, ...]`,
  with `frame_id` and, if wanted, `track_id` in films; or a COCO data set, `{"images": [...], "annotations": [...]}`,
  with `frame_id` in the images of films; other categories than 1, a person, are left out
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from schemas import InputError
from train.predict.detect.people import COCO_KEYPOINTS
from train.predict.inputs import FILM_ENDINGS

_PERSON = 1
_CORNERS = ("left", "top", "right", "bottom")
_COLUMNS = ("image", *_CORNERS)
_HEADER = ",".join(_COLUMNS) + "[,score][,frame][,track]"


@dataclass(frozen=True)
class BoxRow:
    """One person's box."""

    number: int
    """line of a CSV file; of JSON, how many boxes the file has up to this one"""
    picture: str
    """picture or film, as the file has it, with / between folders"""
    box: np.ndarray
    """(4,) left, top, right, bottom"""
    score: float = 1.0
    keypoints: np.ndarray | None = None
    """(17, 3)"""
    frame: int | None = None
    """of films, from 0"""
    track: int | None = None


def csv_rows(text: str, path: Path) -> list[BoxRow]:
    """Raises InputError, with the row, for what is no box."""
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=path, expected=_HEADER) from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if not set(_COLUMNS) <= set(header):
        raise InputError("no such header", file=path, row=1, expected=_HEADER)
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(f"{len(row)} columns", file=path, row=number, expected=f"{len(header)} columns")
        values = dict(zip(header, (text.strip() for text in row), strict=True))
        corners = [values[name] for name in _CORNERS]
        optional = {name: values.get(name) or None for name in ("score", "frame", "track")}
        found.append(_row(number, path, values["image"], corners, **optional))
    return found


def json_rows(text: str, path: Path) -> list[BoxRow]:
    """Raises InputError, with the row, for what is no box."""
    try:
        document = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", file=path, expected="boxes as CSV or JSON") from error
    if isinstance(document, dict) and "annotations" in document:
        return _coco_rows(document["annotations"], _coco_images(document.get("images"), path), path)
    if isinstance(document, list):
        return _coco_rows(document, {}, path)
    if isinstance(document, dict) and all(isinstance(boxes, (list, dict)) for boxes in document.values()):
        return [_plain_row(number, *given, path) for number, given in enumerate(_plain_boxes(document, path), 1)]
    raise InputError("no boxes", file=path, expected="an object from picture to boxes, or COCO results")


def _row(
    number: int,
    path: Path,
    picture: str,
    corners: Any,
    score: Any = None,
    keypoints: Any = None,
    frame: Any = None,
    track: Any = None,
) -> BoxRow:
    box = _numbers(corners, 4, "box", number, path)
    if not (box[:2] < box[2:]).all():
        raise InputError(f"{box.tolist()}", file=path, row=number, field="box", expected="left < right, top < bottom")
    sure = 1.0 if score is None else _numbers([score], 1, "score", number, path)[0]
    points = None
    if keypoints is not None:
        points = _numbers(keypoints, 3 * COCO_KEYPOINTS, "keypoints", number, path).reshape(COCO_KEYPOINTS, 3)
    place = None if frame is None else _whole(frame, "frame", number, path)
    who = None if track is None else _whole(track, "track", number, path)
    if who is not None and place is None:
        raise InputError(f"track {who} given", file=path, row=number, field="frame", expected="tracks in films only")
    return BoxRow(number, picture.replace("\\", "/").removeprefix("./"), box, float(sure), points, place, who)


def _numbers(values: Any, count: int, name: str, row: int, path: Path) -> np.ndarray:
    try:
        array = np.array([float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        array = np.array([np.nan])
    if array.shape != (count,) or not np.isfinite(array).all():
        raise InputError(f"{str(values)[:60]} given", file=path, row=row, field=name, expected=f"{count} numbers")
    return array


def _whole(value: Any, name: str, row: int, path: Path) -> int:
    text = "" if isinstance(value, bool) else str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        expected = "a whole number from 0" + (", the film's first frame" if name == "frame" else "")
        raise InputError(f"{str(value)[:60]} given", file=path, row=row, field=name, expected=expected)
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would keep the last of two values of one name. Raises ValueError for two."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:60]!r} stands in it twice")
        found[name] = value
    return found


def _plain_boxes(document: dict[str, Any], path: Path) -> Iterator[tuple[str, str | None, Any]]:
    """(picture, frame, box) of each box."""
    for picture, boxes in document.items():
        for frame, several in [(None, boxes)] if isinstance(boxes, list) else boxes.items():
            if not isinstance(several, list):
                raise InputError(
                    f"no boxes at {picture}, {frame}", file=path, expected="a list of boxes for each frame"
                )
            yield from ((picture, frame, box) for box in several)


def _plain_row(number: int, picture: str, frame: str | None, box: Any, path: Path) -> BoxRow:
    most = 5 if frame is None else 6
    if not isinstance(box, list) or not 4 <= len(box) <= most:
        raise InputError(
            f"{str(box)[:60]} for {picture}", file=path, row=number, field="box", expected=f"4 to {most} numbers"
        )
    score, track = [*box[4:], None, None][:2]
    return _row(number, path, picture, box[:4], score, None, frame, track)


def _coco_images(images: Any, path: Path) -> dict[int | str, tuple[str, Any]]:
    """Name and, of films, frame of each image. The frames of pictures, their places in a sequence, are not needed."""
    try:
        found = {_number_of(image["id"]): (str(image["file_name"]), image.get("frame_id")) for image in images}
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise InputError("not COCO's list", file=path, field="images", expected="id and file_name of each") from error
    is_film = lambda name: PurePosixPath(name).suffix.lower() in FILM_ENDINGS  # noqa: E731
    return {image: (name, frame if is_film(name) else None) for image, (name, frame) in found.items()}


def _number_of(image: Any) -> int | str:
    """What names an image. Raises ValueError for what is neither number nor text."""
    if not isinstance(image, (int, str)) or isinstance(image, bool):
        raise ValueError(f"{str(image)[:60]} given")
    return image


def _coco_rows(entries: Any, images: dict[int | str, tuple[str, Any]], path: Path) -> list[BoxRow]:
    if not isinstance(entries, list):
        raise InputError("not a list", file=path, field="annotations", expected="COCO annotations")
    found = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "image_id" not in entry or "bbox" not in entry:
            raise InputError("no COCO result", file=path, row=number, expected="image_id and bbox")
        if entry.get("category_id", _PERSON) != _PERSON:
            continue
        box = _numbers(entry["bbox"], 4, "bbox", number, path)
        try:
            image = _number_of(entry["image_id"])
        except ValueError as error:
            raise InputError(
                str(error), file=path, row=number, field="image_id", expected="a number or text"
            ) from error
        picture, frame = images.get(image, (str(image), entry.get("frame_id")))
        track = None if frame is None else entry.get("track_id")  # pictures have none
        corners = [*box[:2], *(box[:2] + box[2:])]
        found.append(_row(number, path, picture, corners, entry.get("score"), entry.get("keypoints"), frame, track))
    return found
