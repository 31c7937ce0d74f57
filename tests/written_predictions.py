"""Predictions written by hand from the schema's description, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fitting.anatomy import COORDINATE_NAMES
from pipelines.files.predictions import FILE_NAME, prediction_schema
from schemas import PREDICTION, Columns, columns_to_table, field_dtype, field_shape


def upright(count: int, seed: int = 0, spread: float = 0.2) -> dict[str, np.ndarray]:
    """Parameters of people who stand about 4 m before a camera, whose y points down."""
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, spread, (count, 46))
    poses[:, :3] *= 0.3
    poses[:, COORDINATE_NAMES.index("pelvis_list")] += np.pi
    trans = rng.uniform([-0.8, -0.3, 3.5], [0.8, 0.3, 4.5], (count, 3))
    betas = rng.normal(0, 0.7, (count, 10))
    return {"poses": poses, "betas": betas, "trans": trans}


def prediction_columns(parameters: dict[str, np.ndarray], size: tuple[int, int] = (320, 240), **changes) -> Columns:
    """Columns of people in pictures of one camera; a change is one value for all, or one for each."""
    count = len(parameters["poses"])
    columns: Columns = {}
    for field in PREDICTION:
        dtype = field_dtype(field)
        columns[field.name] = np.full((count, *field_shape(field)), "" if dtype.kind == "O" else 0, dtype)
    values = {
        "source": "picture.jpg",
        "person": np.arange(count),
        "score": 0.9,
        "detector": "boxes",
        "box": [0, 0, 10, 10],
        "picture_size": size,
        "orientation": 1,
        "focal": 300.0,
        "focal_source": "option",
        "principal": np.array(size) / 2,
        "method": "fit_keypoints",
        "body_model": "demo",
        "gender": "male",
        "reprojection_error_px": 1.25,
        "converged": True,
        "verdict": "good",
        **parameters,
        "angles": np.degrees(parameters["poses"]),
    }
    for name, value in (values | changes).items():
        columns[name][:] = value
    for name in ("frame", "time_s", "track"):
        if name not in changes:
            columns.pop(name)
    columns.pop("checkpoint")
    return columns


def write_predictions(folder: Path, columns: Columns) -> Path:
    """The folder, with its file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns_to_table(prediction_schema(), columns), folder / FILE_NAME)
    return folder
