"""The file `predictions.parquet`: people predicted in photographs and films (`schemas.PREDICTION`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from pipelines.files.parquet import parquet_problems, read_schema, read_table
from schemas import PREDICTION, Columns, InputError, check_columns, check_schema, table_to_columns

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME = "predictions.parquet"
"""Its name in the output folder of `hmr-skel predict`."""

_LISTS = {"coordinates": 46, "joint_names": 24}


@dataclass(frozen=True)
class Predictions:
    """The people of a file, in its order: that of inputs, frames and scores."""

    path: Path
    columns: Columns
    """Fields of `schemas.PREDICTION`. Fields that are null for everybody are absent; numbers that are null for some
    are masked arrays."""
    coordinates: list[dict[str, Any]]
    """Of the 46: name, unit of `angles`, low and high limit of humans in degrees or None."""

    def __len__(self) -> int:
        return len(self.columns["source"])

    def cam_int(self, row: int) -> np.ndarray:
        """(3, 3) camera matrix of a person's picture, px."""
        focal, (x, y) = float(self.columns["focal"][row]), self.columns["principal"][row]
        return np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float64)

    def take(self, rows: np.ndarray) -> Predictions:
        """Some of the people: an index or a mask."""
        return Predictions(self.path, {n: v[rows] for n, v in self.columns.items()}, self.coordinates)


def read_predictions(path: str | Path) -> Predictions:
    """Reads and checks a file, or that of an output folder. Raises InputError that names file, row and field."""

    file = Path(path)
    if file.is_dir():
        if not (file / FILE_NAME).is_file():
            raise InputError(f"no {FILE_NAME} in it", file=file, expected="the output folder of hmr-skel predict")
        file = file / FILE_NAME
    with parquet_problems(file):
        schema = read_schema(file)
        check_schema(schema, PREDICTION, file)
        facts = {name: _fact(schema, name, count, file) for name, count in _LISTS.items()}
        table = read_table(file, [n for n in PREDICTION.names if n in schema.names])
        for field in PREDICTION:
            if not field.nullable and table[field.name].null_count:
                row = int(np.flatnonzero(table[field.name].is_null().to_numpy())[0])
                raise InputError("the value is missing", file=file, row=row, field=field.name)
        columns = {name: values.copy() for name, values in table_to_columns(table).items()}  # Arrow's cannot be written
    check_columns(PREDICTION, columns, file)
    _check_values(columns, file)
    names = [c["name"] if isinstance(c, dict) and "name" in c else None for c in facts["coordinates"]]
    for field, found, ours in (
        ("coordinates", names, COORDINATE_NAMES),
        ("joint_names", facts["joint_names"], SKEL_JOINTS),
    ):
        if found != list(ours):
            raise InputError("other names or another order", file=file, field=field, expected=", ".join(ours[:3]))
    return Predictions(file, columns, facts["coordinates"])


def frame_rate(frames: np.ndarray, times_s: np.ndarray) -> float:
    """Frames per second of a film, on average, by its `frame` and `time_s` (N,); 1 for one frame alone.

    Raises ValueError for times that do not grow.
    """
    first, last = frames.argmin(), frames.argmax()
    passed, seconds = float(frames[last] - frames[first]), float(times_s[last] - times_s[first])
    if not passed:
        return 1.0
    if not seconds > 0:
        raise ValueError("times do not grow with the frames")
    return float(f"{passed / seconds:.6g}")  # times are sums and lose their last digits


@lru_cache(maxsize=1)
def prediction_schema() -> pa.Schema:
    """`schemas.PREDICTION` with what its metadata say of the body: `coordinates` and `joint_names`."""
    from fitting.body.limits import HUMAN_LIMITS

    coordinates = [
        {"name": name, "unit": "deg", "low": _degrees(low), "high": _degrees(high)}
        for name, (low, high) in zip(COORDINATE_NAMES, HUMAN_LIMITS, strict=True)
    ]
    more = {"coordinates": json.dumps(coordinates), "joint_names": json.dumps(SKEL_JOINTS)}
    return PREDICTION.with_metadata(PREDICTION.metadata | {k.encode(): v.encode() for k, v in more.items()})


def _degrees(limit: float) -> float | None:
    return round(float(np.degrees(limit)), 6) if np.isfinite(limit) else None


def _fact(schema: pa.Schema, name: str, count: int, file: Path) -> Sequence[Any]:
    """A list of this length in the metadata."""
    try:
        value = json.loads((schema.metadata or {})[name.encode()])
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError("not in the metadata", file=file, field=name, expected=f"a list of {count}") from error
    if not isinstance(value, list) or len(value) != count:
        raise InputError("not such a list", file=file, field=name, expected=f"a list of {count}")
    return value


def _check_values(columns: Columns, file: Path) -> None:
    """What no reader could use: lengths that are none, boxes without area, angles that are not the poses."""
    box, angles = columns["box"], np.degrees(columns["poses"].astype(np.float64))
    wrong = {
        "focal": ~(columns["focal"] > 0),
        "picture_size": ~(columns["picture_size"] > 0).all(1),
        "orientation": ~np.isin(columns["orientation"], range(1, 9)),
        "box": ~(box[:, :2] < box[:, 2:]).all(1),
        "angles": ~(np.abs(columns["angles"] - angles) < _SAME_ANGLE).all(1),
    }
    expected = {"angles": "poses in degrees", "orientation": "1 to 8", "box": "left < right, top < bottom"}
    for field, rows in wrong.items():
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            value = columns[field][row].tolist()
            said = "other angles than poses" if field == "angles" else f"{value}"
            raise InputError(said, file=file, row=row, field=field, expected=expected.get(field, "above 0"))


_SAME_ANGLE = 0.01
"""Degrees; float32 keeps a hundredth of that."""
