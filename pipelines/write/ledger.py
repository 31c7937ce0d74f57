"""The account of a data set's rows: each planned label row must be in exactly one shard or among the rejects.

Two bytes of memory per row of the label files, whatever the number of shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.files.shards import Shard

RANGES_SHOWN = 8


class Ledger:
    """Counts how often each row of the label files was seen. `planned`: name of a label file -> its rows to expect."""

    def __init__(self, planned: Mapping[str, Sequence[int]]) -> None:
        self.planned = planned
        self._seen = {name: np.zeros(max(rows, default=-1) + 1, np.uint16) for name, rows in planned.items()}
        self._foreign: dict[str, int] = {}

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table with the columns `label_file` and `label_row`."""
        import pyarrow as pa

        names = table.column("label_file").combine_chunks()
        if isinstance(names, pa.ChunkedArray):
            names = names.chunk(0) if names.num_chunks else pa.array([], pa.string())
        encoded = names if isinstance(names, pa.DictionaryArray) else names.dictionary_encode()
        rows = table.column("label_row").to_numpy()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        for code, name in enumerate(encoded.dictionary.to_pylist()):
            mine = rows[codes == code]
            seen = self._seen.get(name, np.zeros(0, np.uint16))
            inside = mine[(mine >= 0) & (mine < len(seen))]
            np.add.at(seen, inside, 1)
            if len(inside) < len(mine):
                self._foreign[name] = self._foreign.get(name, 0) + len(mine) - len(inside)

    def problems(self) -> list[str]:
        """What does not add up, one line per label file and kind; empty if every planned row was seen once."""
        found = []
        for name, rows in self.planned.items():
            seen = self._seen[name]
            planned = np.zeros(len(seen), bool)
            planned[list(rows) if not isinstance(rows, range) else slice(rows.start, rows.stop, rows.step)] = bool(rows)
            for what, wrong in (
                ("in no shard and not among the rejects", planned & (seen == 0)),
                ("there more than once", seen > 1),
                ("there, but were not asked for", ~planned & (seen > 0)),
            ):
                if wrong.any():
                    found.append(f"{name}: {row_list(np.flatnonzero(wrong))} {what}")
        for name, count in sorted(self._foreign.items()):
            which = "beyond its last planned row" if name in self.planned else "of a label file that was not asked for"
            found.append(f"{name}: {count:,} rows {which}")
        return found


def account_problems(shards: Sequence[Shard], patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Whether these shards and their rejects account for the rows of label files: (where, what is wrong).

    `patterns` name the label files as `--annotations` does. Which of their rows were asked for (`--subset`, `--rows`,
    `--every`), and what the files' content was, is read from dataset.json. Raises InputError if there is no such label
    file, or if the shards are not one whole folder with a dataset.json.
    """
    import pyarrow.parquet as pq

    from pipelines.files.shards import DATASET_FILE, REJECTS_FILE, parquet_problems, read_document, whole_folder
    from pipelines.files.storage import readable
    from pipelines.plan.planning import RowSelection, find_label_files
    from schemas import InputError

    folder = whole_folder(shards)
    if folder is None:
        raise InputError("shards of a part of a folder", field="--against", expected="all shards of one data set")
    manifest = read_document(folder / DATASET_FILE)
    options, inputs = manifest.get("options"), manifest.get("inputs")
    if not isinstance(options, dict) or not isinstance(inputs, dict):
        raise InputError("options or inputs are missing", file=folder / DATASET_FILE, expected="a data set's manifest")
    labels = find_label_files(patterns, with_images=False, datasets=options.get("subset") or ())
    selection = RowSelection.parse(str(options.get("rows") or ""), int(options.get("every") or 1))
    for file in labels:
        if file.sha256 != inputs.get(file.name):
            told = "has other content than when" if file.name in inputs else "was not there when"
            yield file.path, f"the label file {told} the data set was made"
    ledger = Ledger({file.name: selection.of(file.rows) for file in labels})
    for path in [*(shard.parquet for shard in shards), folder / REJECTS_FILE]:
        try:
            with parquet_problems(path):
                ledger.add(pq.read_table(readable(path), columns=["label_file", "label_row"]))
        except InputError as error:
            yield str(path), error.problem
    for problem in ledger.problems():
        yield str(folder), problem


def row_list(rows: Iterable[int]) -> str:
    """Sorted row numbers in words: `rows 3, 5-8 (5 rows)`; of many stretches the first are named."""
    numbers = np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows)
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    starts, ends = numbers[np.r_[0, cuts + 1]], numbers[np.r_[cuts, len(numbers) - 1]]
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts[:RANGES_SHOWN], ends, strict=False)]
    more = ", ..." if len(starts) > RANGES_SHOWN else ""
    return f"rows {', '.join(parts)}{more} ({len(numbers):,} rows)"
