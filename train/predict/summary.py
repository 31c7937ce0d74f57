"""What a person sees at the end of `hmr-skel predict`: counts, errors, and what was left out; 80 columns."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines.files.parquet import parquet_problems
from pipelines.files.predictions import FILE_NAME
from pipelines.files.shards import read_document
from train.predict.merge import COUNTS, SKIPPED_FILE

_WIDTH = 80
_SHOWN = 5
"""Skipped files that are named; all stand in skipped.json."""
_COLUMNS = ("method", "smoothed", "focal_source", "reprojection_error_px", "verdict")


def print_predictions(output: Path, made: dict[str, int], looked_at: int, seconds: float) -> int:
    """Print the table of a finished run; how many people there are.

    `made` are the files of each kind beside it, `looked_at` pictures and frames of this call, which took `seconds`.
    """
    file = output / FILE_NAME
    with parquet_problems(file), pq.ParquetFile(file) as stored:
        counts = json.loads(stored.schema_arrow.metadata[COUNTS])
        table = stored.read(columns=_COLUMNS, use_threads=False)
    people = len(table)
    rows = Table(title="hmr-skel predict", show_header=False, title_justify="left")
    rows.add_column(justify="left")
    rows.add_column(justify="right")
    rows.add_row("pictures", f"{counts['pictures']:,}")
    for film in counts["films"]:
        rows.add_row(f"film {Path(film['source']).name}", f"{film['frames']:,} frames, {film['tracks']:,} tracks")
    rows.add_row("skipped", f"{counts['skipped']:,}")
    rows.add_row("without people", f"{counts['empty']:,}")
    rows.add_row("people", f"{people:,}")
    rows.add_row("people of whom too little is seen", f"{counts['unfitted']:,}")
    if people:
        for word, count in Counter(table["method"].to_pylist()).most_common():
            rows.add_row(f"by {word}", f"{count:,}")
        if smoothed := sum(table["smoothed"].to_pylist()):
            rows.add_row("smoothed", f"{smoothed:,}")
        sources = Counter(table["focal_source"].to_pylist()).most_common()
        rows.add_row("focal lengths", ", ".join(f"{word} {count:,}" for word, count in sources))
        error = table["reprojection_error_px"].drop_null().to_numpy()
        if len(error):
            rows.add_row("reprojection error, median", f"{np.median(error):.1f} px")
        for word, count in Counter(table["verdict"].to_pylist()).most_common():
            rows.add_row(f"verdict: {word}", f"{count:,}")
    for kind, count in made.items():
        rows.add_row(kind, f"{count:,} files")
    if looked_at:
        rows.add_row("rate", f"{looked_at / max(seconds, 1e-9):.1f} pictures/s over {seconds:,.1f} s")
    console = Console(width=_WIDTH)
    console.print(rows)
    skipped = read_document(output / SKIPPED_FILE)["skipped"] if counts["skipped"] else []
    for entry in skipped[:_SHOWN]:
        place = "" if entry["frame"] is None else f", from frame {entry['frame']:,}"
        sys.stdout.write(f"skipped {entry['source']}{place}: {entry['problem']}\n")
    if len(skipped) > _SHOWN:
        sys.stdout.write(f"and {len(skipped) - _SHOWN:,} more: {output / SKIPPED_FILE}\n")
    sys.stdout.write(f"{file}\n")
    return people
