"""What is in shards, in numbers: counts, distances, limits, the worst people and the fields.

Numbers come from the Parquet files alone, and of them only from the columns that are shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fitting.anatomy import COORDINATE_NAMES
from pipelines.command.devices import cores
from pipelines.files.parquet import parquet_problems, read_schema, read_table
from pipelines.files.shards import (
    Shard,
    body_models_of,
    concatenated,
    read_document,
    read_parts,
    read_people,
    rejects_of,
    whole_folder,
)
from pipelines.files.storage import readable
from pipelines.write.statistics import mean_and_quantiles

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY_SCALARS = ("converged", "iterations", "limits_exceeded", "worst_limit_excess", "limits_pressed", "betas_change")
WORST_SHOWN = ("max_vertex_error_mm", "joint_error_mm", "converged", "limits_pressed")


def summarise(shards: Sequence[Shard], worst: int = 5) -> dict:
    """Counts, distances, limits and the worst samples of shards, as a JSON document.

    Distances are millimetres, angles radians; a statistic of no people is None.
    """
    from schemas import QUANTILE_FIELDS, STAGES

    parts = read_parts(
        shards,
        [
            "dataset",
            "verdict",
            "label_check",
            "keypoints_3d_source",
            "reprojection_error",
            *SUMMARY_SCALARS,
            *QUANTILE_FIELDS,
            "stage_vertex_error_mm",
        ],
    )
    table = concatenated(parts)
    scalars = {name: table[name].to_numpy() for name in (*SUMMARY_SCALARS, *QUANTILE_FIELDS)}
    stages = table["stage_vertex_error_mm"].combine_chunks().flatten().to_numpy().reshape(-1, len(STAGES))
    described = [name for name in scalars if name in (*QUANTILE_FIELDS, "iterations", "betas_change")]
    columns = {name: scalars[name] for name in described} | dict(zip(STAGES, stages.T, strict=True))
    with ThreadPoolExecutor(cores()) as pool:  # quantiles of a million numbers are what is left to compute
        found = dict(zip(columns, pool.map(statistics, columns.values()), strict=True))
    errors = table["reprojection_error"].drop_null().to_numpy()
    exceeded, pressed = scalars["limits_exceeded"], scalars["limits_pressed"]
    return {
        "shards": len(shards),
        "samples": table.num_rows,
        "converged": int(scalars["converged"].sum()),
        "verdicts": _counts(table["verdict"].drop_null()),
        "label_checks": _counts(table["label_check"].drop_null()),
        "keypoints_3d_sources": _counts(table["keypoints_3d_source"].drop_null()),
        "body_models": [text for folder in dict.fromkeys(s.folder for s in shards) if (text := body_models_of(folder))],
        "reprojection_error": statistics(errors[errors >= 0]),
        "datasets": _counts(table["dataset"]),
        "rejects": count_rejects(shards),
        "errors": {name: found[name] for name in QUANTILE_FIELDS},
        "stages": {name: found[name] for name in STAGES},
        "iterations": found["iterations"],
        "betas_change": found["betas_change"],
        "limits": {
            "people_exceeding": int((exceeded > 0).sum()),
            "angles_exceeding": int(exceeded.sum()),
            "worst_excess_rad": float(scalars["worst_limit_excess"].max()) if len(exceeded) else None,
            "people_pressing": int((pressed > 0).sum()),
            "angles_pressing": int(pressed.sum()),
        },
        "worst": _worst(shards, [len(part) for part in parts], scalars["vertex_error_mm"], worst),
        "fields": _fields(shards[0]),
    }


def statistics(values: np.ndarray) -> dict[str, float] | None:
    """Mean and quantiles of the finite values; None if there are none."""
    return mean_and_quantiles(values[np.isfinite(values)])


def count_rejects(shards: Sequence[Shard]) -> dict[str, int]:
    """Rejected label rows by reason: of a whole folder from its rejects file, of a lone shard from its statistics."""

    from schemas import SHARD_STATS

    counts: Counter[str] = Counter()
    folders: dict[Path, list[Shard]] = {}
    for shard in shards:
        folders.setdefault(shard.folder, []).append(shard)
    for folder, members in folders.items():
        rejects = rejects_of(folder)
        if whole_folder(members) and rejects.is_file():
            with parquet_problems(rejects):
                counts.update(_counts(read_table(rejects, ["reason"])["reason"]))
        else:
            for shard in members:
                stats = read_document(shard.stats, SHARD_STATS) if shard.stats.is_file() else {}
                counts.update(stats.get("rejects", {}))
    return dict(sorted(counts.items()))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in column.value_counts().to_pylist()}


def _worst(shards: Sequence[Shard], counts: Sequence[int], errors: np.ndarray, count: int) -> list[dict]:
    if not len(errors) or count < 1:
        return []
    errors = np.where(np.isfinite(errors), errors, np.inf)
    top = np.argpartition(-errors, min(count, len(errors)) - 1)[:count]
    names = ("key", "vertex_error_mm", *WORST_SHOWN)
    rows = read_people(shards, top[np.argsort(-errors[top], kind="stable")], names, counts)
    return [{"shard": shard.name, **{name: plain(row[name]) for name in names}} for shard, row in rows]


def _fields(shard: Shard) -> list[dict]:

    from schemas import field_dtype, field_shape

    found = []
    with parquet_problems(shard.parquet):
        for stored in read_schema(shard.parquet):
            facts = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
            if "shape" not in facts:
                continue
            entry = {
                "name": stored.name,
                "dtype": "text" if field_dtype(stored).kind == "O" else str(field_dtype(stored)),
                "shape": list(field_shape(stored)),
            }
            found.append(entry | {name: facts[name] for name in ("unit", "frame", "doc")})
    return found


def coordinates_of(shard: Shard) -> list[dict]:
    """The coordinates of `poses`: name, unit, lowest and highest angle, as far as the Parquet file's metadata tells."""
    import pyarrow.parquet as pq

    with parquet_problems(shard.parquet):
        told = (pq.read_schema(readable(shard.parquet)).metadata or {}).get(b"coordinates")
        table = json.loads(told) if told else []
        if [row["name"] for row in table] == list(COORDINATE_NAMES):
            return table
    return [{"name": name, "unit": "rad"} for name in COORDINATE_NAMES]


def plain(value):
    """A numpy value as JSON has it; what is not finite as None."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
