"""Boxes that somebody else has found, from a file.

Three forms are read. Pictures are named as the file likes: by path, by base name, by stem, or by COCO's number.

- CSV with the columns `image,left,top,right,bottom` and, if wanted, `score`, px
- JSON object from picture to boxes: `{"a.jpg": [[left, top, right, bottom], ...]}`, each with a fifth number as score
- COCO results, `[{"image_id": 139, "bbox": [left, top, width, height], "score": 0.9, "keypoints": [51 numbers]}, ...]`,
  or a COCO data set, `{"images": [...], "annotations": [...]}`; other categories than 1, a person, are left out
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas import InputError
from train.predict.detect.people import COCO_KEYPOINTS, DetectedPeople, nobody

_PERSON = 1
_LARGEST_FILE = 1 << 28
"""Bytes; COCO's largest list of results has 110 million."""
_CORNERS = ("left", "top", "right", "bottom")
_COLUMNS = ("image", *_CORNERS)


@dataclass(frozen=True)
class BoxesFile:
    """The people of each picture that a file names."""

    people: dict[str, DetectedPeople] = field(default_factory=dict)
    """by the picture's name or number, as the file has it"""

    def of(self, picture: str | Path) -> DetectedPeople:
        """The people of a picture; nobody where the file does not name it."""
        parts = Path(picture).as_posix().split("/")
        stem = Path(picture).stem
        number = re.search(r"\d+$", stem)
        names = ["/".join(parts[n:]) for n in range(len(parts))] + [stem]
        names += [str(int(number[0]))] if number else []
        return next((self.people[name] for name in names if name in self.people), nobody())


def read_boxes(path: str | Path) -> BoxesFile:
    """Boxes by picture, from a CSV or JSON file. Raises InputError, with the row, for anything else."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise InputError(f"more than {_LARGEST_FILE} bytes", file=path, expected="boxes as CSV or JSON")
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"cannot be read: {reason}", file=path, expected="boxes as CSV or JSON") from error
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _json_rows(text, path)
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row.picture.replace("\\", "/").removeprefix("./")].append(row)
    return BoxesFile({picture: _people(rows, path) for picture, rows in found.items()})


@dataclass(frozen=True)
class _Row:
    number: int
    picture: str
    box: Any
    """left, top, right, bottom"""
    score: Any = 1.0
    keypoints: Any = None


def _people(rows: list[_Row], path: Path) -> DetectedPeople:
    boxes, scores, keypoints = [], [], []
    for row in rows:
        box = _numbers(row.box, 4, "box", row, path)
        if not (box[:2] < box[2:]).all():
            raise InputError(
                f"{box.tolist()}", file=path, row=row.number, field="box", expected="left < right, top < bottom"
            )
        boxes.append(box)
        scores.append(_numbers([row.score], 1, "score", row, path)[0])
        if row.keypoints is not None:
            flat = _numbers(row.keypoints, 3 * COCO_KEYPOINTS, "keypoints", row, path)
            keypoints.append(flat.reshape(COCO_KEYPOINTS, 3))
    order = np.argsort(-np.array(scores), kind="stable")
    points = np.array(keypoints)[order] if len(keypoints) == len(rows) else None
    return DetectedPeople(np.array(boxes)[order], np.array(scores)[order], points)


def _numbers(values: Any, count: int, name: str, row: _Row, path: Path) -> np.ndarray:
    try:
        array = np.array([float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        array = np.array([np.nan])
    if array.shape != (count,) or not np.isfinite(array).all():
        shown = str(values)[:60]
        raise InputError(f"{shown} given", file=path, row=row.number, field=name, expected=f"{count} numbers")
    return array


def _csv_rows(text: str, path: Path) -> list[_Row]:
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=path, expected=",".join(_COLUMNS) + "[,score]") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if not set(_COLUMNS) <= set(header):
        raise InputError("no such header", file=path, row=1, expected=",".join(_COLUMNS) + "[,score]")
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(f"{len(row)} columns", file=path, row=number, expected=f"{len(header)} columns")
        values = dict(zip(header, (text.strip() for text in row), strict=True))
        score = values.get("score") or 1.0
        found.append(_Row(number, values["image"], [values[name] for name in _CORNERS], score))
    return found


def _json_rows(text: str, path: Path) -> list[_Row]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", file=path, expected="boxes as CSV or JSON") from error
    if isinstance(document, dict) and "annotations" in document:
        return _coco_rows(document["annotations"], _coco_names(document.get("images"), path), path)
    if isinstance(document, list):
        return _coco_rows(document, {}, path)
    if isinstance(document, dict) and all(isinstance(boxes, list) for boxes in document.values()):
        pairs = ((picture, box) for picture, boxes in document.items() for box in boxes)
        return [_plain_row(number, picture, box, path) for number, (picture, box) in enumerate(pairs, 1)]
    raise InputError("no boxes", file=path, expected="an object from picture to boxes, or COCO results")


def _plain_row(number: int, picture: str, box: Any, path: Path) -> _Row:
    if not isinstance(box, list) or len(box) not in (4, 5):
        raise InputError(
            f"{str(box)[:60]} for {picture}", file=path, row=number, field="box", expected="4 or 5 numbers"
        )
    return _Row(number, picture, box[:4], *box[4:])


def _coco_names(images: Any, path: Path) -> dict[int | str, str]:
    try:
        return {_number_of(image["id"]): str(image["file_name"]) for image in images}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError("not COCO's list", file=path, field="images", expected="id and file_name of each") from error


def _number_of(image: Any) -> int | str:
    """What names an image. Raises ValueError for what is neither number nor text."""
    if not isinstance(image, (int, str)) or isinstance(image, bool):
        raise ValueError(f"{str(image)[:60]} given")
    return image


def _coco_rows(entries: Any, names: dict[int | str, str], path: Path) -> list[_Row]:
    if not isinstance(entries, list):
        raise InputError("not a list", file=path, field="annotations", expected="COCO annotations")
    found = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "image_id" not in entry or "bbox" not in entry:
            raise InputError("no COCO result", file=path, row=number, expected="image_id and bbox")
        if entry.get("category_id", _PERSON) != _PERSON:
            continue
        box = _numbers(entry["bbox"], 4, "bbox", _Row(number, "", None), path)
        try:
            image = _number_of(entry["image_id"])
        except ValueError as error:
            raise InputError(
                str(error), file=path, row=number, field="image_id", expected="a number or text"
            ) from error
        picture = str(names.get(image, image))
        corners = [*box[:2], *(box[:2] + box[2:])]
        found.append(_Row(number, picture, corners, entry.get("score", 1.0), entry.get("keypoints")))
    return found
