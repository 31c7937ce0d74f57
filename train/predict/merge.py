"""Parts to the files of the output folder: predictions.parquet, row group by row group, and skipped.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files.predictions import FILE_NAME, prediction_schema
from pipelines.files.storage import published
from schemas import SKIPPED, record_version, table_to_columns
from train.predict.parts import PartFacts, Parts
from train.predict.smooth import Smoother
from train.predict.stream import Unit
from train.predict.tracks import Tracker, track_numbers

SKIPPED_FILE = "skipped.json"
COUNTS = b"counts"
"""Metadata of predictions.parquet: a JSON object of what was looked at (`merge`)."""
_OF_TRACKS = ("frame", "time_s", "track", "score", "box", "detected_keypoints")


def merge(
    output: Path, units: Sequence[Unit], parts: Parts, smoother: Smoother | None, progress: Callable[[int], object]
) -> None:
    """Write the files of a run whose parts are all there, and remove the parts. Raises InputError for damaged parts.

    `progress` hears of parts whose tracks are smoothed. The same parts give the same bytes.
    """
    facts: list[PartFacts] = []
    films: list[dict[str, Any]] = []
    tracks: dict[int, list[np.ndarray]] = {}
    for unit in units:
        own = [parts.facts(path) for _, path in parts.of_unit(unit.number)]
        facts += own
        if unit.film:
            tracks[unit.number] = _tracks(unit, parts)
            people = set().union(*(numbers.tolist() for numbers in tracks[unit.number]))
            films.append({"source": unit.film.name, "frames": sum(f.pictures for f in own), "tracks": len(people)})
            if smoother is not None:
                smoother.run(unit.number, tracks[unit.number], progress)
    skipped = [entry for part in facts for entry in part.skipped]
    document = {"record": "skipped", "version": record_version(SKIPPED), "skipped": skipped}
    with published(output / SKIPPED_FILE) as hidden:
        hidden.write_text(json.dumps(document, indent=1) + "\n")
    counts = {
        "pictures": sum(part.pictures for part in facts) - sum(film["frames"] for film in films),
        "films": films,
        "empty": sum(part.empty for part in facts),
        "unfitted": sum(part.unfitted for part in facts),
        "skipped": len(skipped),
    }
    schema = prediction_schema()
    schema = schema.with_metadata(schema.metadata | {COUNTS: json.dumps(counts).encode()})
    with published(output / FILE_NAME) as hidden, pq.ParquetWriter(hidden, schema) as file:
        for unit in units:
            for table in _tables(unit, parts, tracks, smoother):
                if len(table):
                    file.write_table(table.cast(schema))
    parts.remove()


def _tracks(unit: Unit, parts: Parts) -> list[np.ndarray]:
    """Numbers of the people of each part of a film: those that came with their boxes, or else by who is like whom."""
    tracker, found = Tracker(), []
    for _, path in parts.of_unit(unit.number):
        table = parts.read(path, _OF_TRACKS).table
        columns = table_to_columns(table)
        if "track" in columns:
            found.append(np.ma.getdata(columns["track"]))
        else:
            found.append(track_numbers(tracker, columns) if len(table) else np.zeros(0, np.int32))
    return found


def _tables(
    unit: Unit, parts: Parts, tracks: dict[int, list[np.ndarray]], smoother: Smoother | None
) -> Iterator[pa.Table]:
    """The tables of a unit, with tracks."""
    if unit.film is None:
        for _, path in parts.of_unit(unit.number):
            yield parts.read(path).table
    elif smoother is not None:
        number = 0
        while (path := parts.smooth_path(unit.number, number)).exists():
            yield parts.read(path).table
            number += 1
    else:
        for number, path in parts.of_unit(unit.number):
            table = parts.read(path).table
            place = table.schema.get_field_index("track")
            column = pa.array(tracks[unit.number][number], pa.int32())
            yield table.set_column(place, table.schema.field("track"), column)
