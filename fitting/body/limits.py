"""Joint limits of one's own, from a table."""

from __future__ import annotations

import csv
import difflib
import math
from pathlib import Path

import numpy as np

from fitting.anatomy import COORDINATE_NAMES
from fitting.body.kinematics import JOINT_LIMITS, ROOT_COORDINATES
from schemas import InputError

_HEADER = ["coordinate", "low", "high"]
_LONGEST = 1 << 20
"""Bytes; a table of 43 rows needs a thousandth."""


def read_limits(path: str | Path) -> np.ndarray:
    """(46, 2) lower and upper limits in rad, from a CSV file with the columns coordinate, low, high, in degrees.

    Coordinates are named as in `fitting.anatomy`. One that is not listed keeps its limits, an empty
    number is no limit. Raises InputError, with the row, for anything else.
    """
    table = JOINT_LIMITS.copy()
    for number, name, low, high in _rows(Path(path)):
        if name not in COORDINATE_NAMES[ROOT_COORDINATES.stop :]:
            close = difflib.get_close_matches(name, COORDINATE_NAMES, n=1)
            expected = close[0] if close else f"one of {', '.join(COORDINATE_NAMES[ROOT_COORDINATES.stop :])}"
            raise InputError(f"{name!r} is no coordinate", file=path, row=number, field="coordinate", expected=expected)
        limits = [
            _radians(text, none, path, number, field)
            for text, none, field in ((low, -math.inf, "low"), (high, math.inf, "high"))
        ]
        if limits[0] >= limits[1]:
            raise InputError(f"{low} to {high}", file=path, row=number, field=name, expected="low below high")
        table[COORDINATE_NAMES.index(name)] = limits
    return table


def _rows(path: Path) -> list[tuple[int, str, str, str]]:
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError("too long for a table of joint limits", file=path)
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a CSV file: {error}", file=path) from error
    if not rows or [name.strip().lower() for name in rows[0]] != _HEADER:
        raise InputError("no such header", file=path, row=1, expected=",".join(_HEADER))
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(_HEADER):
            raise InputError(f"{len(row)} columns", file=path, row=number, expected=",".join(_HEADER))
        found.append((number, *(text.strip() for text in row)))
    return found


def _radians(text: str, if_empty: float, path: str | Path, row: int, field: str) -> float:
    if not text:
        return if_empty
    try:
        value = math.radians(float(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} given", file=path, row=row, field=field, expected="degrees, or nothing")
    return value
