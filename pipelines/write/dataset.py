"""What a run writes beside its shards at the end, list of rejects and dataset.json, and what it clears away."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files.shards import DATASET_FILE, REJECTS_FILE, REJECTS_FOLDER
from pipelines.files.storage import output_problems, published, readable
from pipelines.files.urls import UrlPath
from pipelines.write.ledger import Ledger
from pipelines.write.shards import to_json
from pipelines.write.statistics import error_quantiles, rounded
from schemas import (
    COUNTED_WORDS,
    QUANTILE_FIELDS,
    REJECTS,
    STAGES,
    InputError,
    columns_to_table,
    record_name,
    record_version,
)
from schemas.run import DATASET

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SHARD_FILE = re.compile(r"(\d{6,})\.(tar|parquet|json)$")
"""Name and ending of a shard's files."""

_COUNTS = ("rows", "samples", "converged", "turned_images")
_OF_ONE_SHARD = ("record", "version", "versions", "body_models", "document_sha256", "settings_sha256")
_OF_ONE_SHARD += ("images_modified",)
"""What dataset.json leaves out of a shard's statistics."""


def write_dataset(
    directory: Path | UrlPath,
    shards: Iterable[str],
    options: dict[str, Any],
    versions: dict[str, str],
    inputs: dict[str, str],
    joint_limits: dict[str, list[float | None]],
    planned: Mapping[str, Sequence[int]] | None = None,
    body_models: Mapping[str, Any] | None = None,
    before_the_last: Callable[[dict[str, Any]], object] = lambda manifest: None,
    part: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the list of rejects and dataset.json from the shards' files, and return the manifest (schemas.DATASET).

    Reads the statistics of each shard and, for exact quantiles, the distances in its Parquet file. With `planned`
    (label file -> rows) the files must account for each of these rows once: raises InputError, and writes no
    dataset.json, if they do not. A folder with a dataset.json is finished: what else belongs to it is written, or
    cleared away, `before_the_last`, which is given the manifest. `part`: which part of a data set this is, if it is.
    """
    import pyarrow.parquet as pq

    totals, ledger = _Totals(), Ledger(planned or {})
    rejects = directory / REJECTS_FOLDER / REJECTS_FILE
    with output_problems(directory):
        rejects.parent.mkdir(exist_ok=True)
    with (
        output_problems(directory),
        published(rejects) as path,
        pq.ParquetWriter(path, REJECTS, compression="zstd") as writer,
    ):
        for name in sorted(shards):
            stats = json.loads((directory / f"{name}.json").read_text())
            if rejected := stats.pop("rejected_rows"):
                table = _rejects_table(rejected)
                writer.write_table(table)
                ledger.add(table)
            columns = ["label_file", "label_row", *QUANTILE_FIELDS]
            people = pq.read_table(readable(directory / f"{name}.parquet"), columns=columns)
            ledger.add(people)
            totals.add({key: value for key, value in stats.items() if key not in _OF_ONE_SHARD}, people)
    if planned is not None and (problems := ledger.problems()):
        rejects.unlink(missing_ok=True)
        raise InputError(f"the rows do not add up: {'; '.join(problems)}", file=directory)
    manifest = {
        "record": record_name(DATASET),
        "version": record_version(DATASET),
        "name": "hmr-skel",
        **totals.document(),
        "options": options,
        "body_models": dict(body_models or {}),
        "joint_limits": joint_limits,
        "inputs": inputs,
        "versions": versions,
        "shards": totals.shards,
    }
    manifest |= {"part": part} if part else {}
    before_the_last(manifest)
    with output_problems(directory), published(directory / DATASET_FILE) as path:
        path.write_text(to_json(manifest, indent=1) + "\n")
    return manifest


def remove_leftovers(directory: Path | UrlPath) -> None:
    """Remove what killed runs left half written."""
    for folder in (directory, directory / REJECTS_FOLDER):
        for path in folder.glob(".*.tmp-*"):
            path.unlink(missing_ok=True)


def withdraw_dataset(directory: Path | UrlPath) -> None:
    """Remove what only a finished run may show."""
    rejects = f"{REJECTS_FOLDER}/{REJECTS_FILE}"
    for name in (DATASET_FILE, REJECTS_FILE, rejects, "run.json", "report.html"):
        (directory / name).unlink(missing_ok=True)


def remove_stale_shards(directory: Path | UrlPath, shards: Iterable[str]) -> int:
    """Remove shards that this plan does not have (an earlier run had more); returns how many."""
    wanted, stale = set(shards), set()
    for path in sorted(directory.iterdir()):
        match = SHARD_FILE.fullmatch(path.name)
        if match and match.group(1) not in wanted:
            path.unlink()
            stale.add(match.group(1))
    if stale:
        log.info("%s: removed %d shards of an earlier run", directory, len(stale))
    return len(stale)


@dataclass
class _Totals:
    """What the statistics of shards and the distances of their people add up to."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    reasons: Counter[str] = field(default_factory=Counter)
    words: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED_WORDS})
    stages: np.ndarray = field(default_factory=lambda: np.zeros(len(STAGES)))
    distances: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in QUANTILE_FIELDS})
    label_files: dict[str, int] = field(default_factory=dict)
    label_file_of: list[np.ndarray] = field(default_factory=list)
    """Numbers, for a name is a string of its own for every person."""

    def add(self, stats: dict[str, Any], people: pa.Table) -> None:
        self.shards.append(stats)
        for key in self.counts:
            self.counts[key] += stats.get(key, 0)
        self.reasons.update(stats["rejects"])
        for key, counted in self.words.items():
            counted.update(stats.get(key, {}))
        if stats["samples"]:
            self.stages += stats["samples"] * np.array([stats["stage_errors"][stage] for stage in STAGES])
        for key, parts in self.distances.items():
            parts.append(people.column(key).to_numpy())
        for chunk in people.column("label_file").chunks:
            encoded = chunk.dictionary_encode()
            names = encoded.dictionary.to_pylist()
            numbers = [self.label_files.setdefault(name, len(self.label_files)) for name in names]
            self.label_file_of.append(np.array(numbers, np.int32)[encoded.indices.to_numpy()])

    def document(self) -> dict[str, Any]:
        """The part of dataset.json that is about people."""
        distances = {key: np.concatenate(parts) if parts else np.zeros(0) for key, parts in self.distances.items()}
        people = self.counts["samples"]
        means = self.stages / people if people else [None] * len(STAGES)
        return {
            **self.counts,
            **{key: dict(sorted(counted.items())) for key, counted in self.words.items()},
            "rejects": dict(sorted(self.reasons.items())),
            "errors": error_quantiles(distances),
            "stage_errors": {stage: rounded(mean) for stage, mean in zip(STAGES, means, strict=True)},
            "dataset_errors": _by_label_file(self.label_files, self.label_file_of, distances),
        }


def _by_label_file(
    label_files: dict[str, int], numbers: list[np.ndarray], distances: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """`error_quantiles` and the number of people per label file."""
    if not label_files:
        return {}
    number_of_row = np.concatenate(numbers)
    found = {}
    for label_file, number in sorted(label_files.items()):
        mine = number_of_row == number
        found[label_file] = {"samples": int(mine.sum()), **error_quantiles({k: v[mine] for k, v in distances.items()})}
    return found


def _rejects_table(rejected: list[dict[str, Any]]):
    columns = {}
    for name in REJECTS.names:
        column = np.empty(len(rejected), object)
        column[:] = [row.get(name) for row in rejected]
        columns[name] = column.astype(np.int64) if name == "label_row" else column
    return columns_to_table(REJECTS, columns)
