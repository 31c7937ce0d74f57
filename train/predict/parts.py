"""Parts of a run on disk, so that a run that is killed goes on: each is there as a whole, or not at all.

A unit is some pictures, or a film; a film has a part for so many frames. Parts lie in OUTPUT/.parts and are gone when
`predictions.parquet` is there. OUTPUT/run.json says of what and with which options a run is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files.parquet import parquet_problems
from pipelines.files.predictions import FILE_NAME, prediction_schema
from pipelines.files.shards import read_document
from pipelines.files.storage import published, remove_folder
from schemas import Columns, InputError, columns_to_table, record_version
from train.predict.inputs import InputFile

RUN_FILE = "run.json"
_FOLDER = ".parts"
_FACTS = b"part"


@dataclass
class PartFacts:
    """What a part says beside its people."""

    pictures: int = 0
    """pictures, or frames, that were looked at"""
    empty: int = 0
    """of them show nobody"""
    unfitted: int = 0
    """people without a body: too few keypoints were seen"""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """records of `schemas.SKIPPED`"""
    last: bool = True
    """the unit ends here"""
    focal: tuple[float, str] | None = None
    """of films, whose frames have one lens: focal length (px), and its source"""


@dataclass(frozen=True)
class PredictionPart:
    """People, a row of `schemas.PREDICTION` each, and facts."""

    table: pa.Table
    facts: PartFacts


class Parts:
    """The parts of the run in an output folder."""

    def __init__(self, output: Path) -> None:
        self.folder = output / _FOLDER

    def path(self, unit: int, number: int) -> Path:
        return self.folder / f"{unit:07d}-{number:06d}.parquet"

    def smooth_path(self, unit: int, number: int) -> Path:
        """Of frames of a film whose tracks are smoothed."""
        return self.folder / f"{unit:07d}-{number:06d}-smooth.parquet"

    def write(self, path: Path, columns: Columns, facts: PartFacts) -> None:
        schema = prediction_schema()
        schema = schema.with_metadata(schema.metadata | {_FACTS: json.dumps(asdict(facts)).encode()})
        self.folder.mkdir(exist_ok=True)
        with published(path) as hidden:
            pq.write_table(columns_to_table(schema, columns), hidden)

    def read(self, path: Path, names: Sequence[str] | None = None) -> PredictionPart:
        """Raises InputError for a part that is damaged."""
        with parquet_problems(path), pq.ParquetFile(path, pre_buffer=False) as stored:
            table = stored.read(columns=names and list(names), use_threads=False)
            return PredictionPart(table, _facts(stored.schema_arrow))

    def facts(self, path: Path) -> PartFacts:
        with parquet_problems(path):
            return _facts(pq.read_schema(path))

    def of_unit(self, unit: int) -> Iterator[tuple[int, Path]]:
        """Numbers and files of a unit's parts, from the first until one is missing."""
        number = 0
        while self.path(unit, number).exists():
            yield number, self.path(unit, number)
            number += 1

    def remove(self) -> None:
        remove_folder(self.folder)


def _facts(schema: pa.Schema) -> PartFacts:
    facts = PartFacts(**json.loads(schema.metadata[_FACTS]))
    facts.focal = tuple(facts.focal) if facts.focal else None
    return facts


def begin_run(
    output: Path, sources: Sequence[InputFile], options: dict[str, Any], files: Sequence[Path], overwrite: bool
) -> bool:
    """Make the folder ready, or find what an earlier run left in it; whether that run was finished.

    `files` are those that options name. Raises InputError if the folder holds people of other sources, or found with
    other options.
    """
    paths = [*(source.path for source in sources), *files]
    record = json.loads(json.dumps(_record(paths, options)))
    file = output / RUN_FILE
    made = (output / FILE_NAME).exists() or any(Parts(output).folder.glob("*.parquet"))
    if overwrite or not made or not file.exists():
        file.unlink(missing_ok=True)  # first: what is removed after it is nobody's
        (output / FILE_NAME).unlink(missing_ok=True)
        Parts(output).remove()
        with published(file) as hidden:
            hidden.write_text(json.dumps(record))
        return False
    before = read_document(file)
    changed = _changed(before, record)
    if changed:
        expected = "the same command, another --output, or --overwrite to begin anew"
        raise InputError(f"holds predictions made with {changed}", file=output, field="--output", expected=expected)
    return (output / FILE_NAME).exists()


def _record(paths: Sequence[Path], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": record_version(prediction_schema()),
        "options": options,
        "inputs": [[str(path), *_fingerprint(path)] for path in paths],
    }


def _fingerprint(path: Path) -> tuple[int, int]:
    """Size and time of change; of what is not there, none: whoever reads it says so."""
    try:
        facts = path.stat()
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In words what differs; empty if nothing does."""
    if before.get("version") != now["version"]:
        return f"version {before.get('version')} of the file"
    old = before.get("options")
    if not isinstance(old, dict):
        return "unknown options"
    names = [name for name in {**old, **now["options"]} if old.get(name) != now["options"].get(name)]
    if names:
        words = (f"--{name.replace('_', '-')} {old.get(name)}" for name in names)
        return f"other options ({', '.join(words)})"
    if before.get("inputs") != now["inputs"]:
        return "other files, or they have changed since"
    return ""
