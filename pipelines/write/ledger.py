"""The account of a data set's rows: each planned label row must be in exactly one shard or among the rejects.

Two bytes of memory per row of the label files, whatever the number of shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

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


def row_list(rows: Iterable[int]) -> str:
    """Sorted row numbers in words: `rows 3, 5-8 (5 rows)`; of many stretches the first are named."""
    numbers = np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows)
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    starts, ends = numbers[np.r_[0, cuts + 1]], numbers[np.r_[cuts, len(numbers) - 1]]
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts[:RANGES_SHOWN], ends, strict=False)]
    more = ", ..." if len(starts) > RANGES_SHOWN else ""
    return f"rows {', '.join(parts)}{more} ({len(numbers):,} rows)"
