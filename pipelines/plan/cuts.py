"""Where the rows of label files are cut into shards.

A label file of half a shard or more is cut by itself, every `samples_per_shard` rows: whatever happens to other files,
its shards stay as they are, and rows that are added at its end leave all but the last one alone. Smaller files, of
which there may be a hundred thousand, share shards between half and all of `samples_per_shard` rows. These end at the
file whose name has the smallest hash of those at which they could end, and not when they are full: after a file that is
new or gone the ends soon fall where they fell before (the local minimum of content-defined chunking).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple


class Stretch(NamedTuple):
    """Rows [start, stop) of those that are selected of file number `file`."""

    file: int
    start: int
    stop: int


def cut(files: Sequence[tuple[str, int]], samples_per_shard: int) -> Iterator[list[Stretch]]:
    """Shards one after another, of files given as (name, selected rows), in their order. No shard is empty."""
    counted = [(number, name, rows) for number, (name, rows) in enumerate(files) if rows]
    for small, group in groupby(counted, lambda file: 2 * file[2] < samples_per_shard):
        if small:
            yield from _shared(list(group), samples_per_shard)
            continue
        for number, _, rows in group:
            for start in range(0, rows, samples_per_shard):
                yield [Stretch(number, start, min(start + samples_per_shard, rows))]


def _shared(files: list[tuple[int, str, int]], samples_per_shard: int) -> Iterator[list[Stretch]]:
    """Shards of whole files, each smaller than half a shard."""
    first = 0
    while first < len(files):
        held, last, ends = 0, first, []
        while last < len(files) and held + files[last][2] <= samples_per_shard:
            held += files[last][2]
            last += 1
            if 2 * held > samples_per_shard:
                ends.append(last)
        end = last if last == len(files) else min(ends, key=lambda end: _order(files[end][1]))
        yield [Stretch(number, 0, rows) for number, _, rows in files[first:end]]
        first = end


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
