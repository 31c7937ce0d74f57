"""Parts of a data set: stretches of a plan's shards, each made by a run of its own on whatever machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pipelines.command.options import parse_row_range
from pipelines.plan.plan_file import PlannedShard
from pipelines.read.labels import MOST_ROWS
from schemas import InputError

_OPTION = "--shard-range"
_END = "end"


def part_folder(text: str) -> str:
    """Name of the folder of a part within the output folder. Raises InputError for what is no range from 0 on."""
    first, stop = _ends(text)
    return f"part-{first:06d}-{_END if stop is None else f'{stop:06d}'}"


def part_of(planned: Sequence[PlannedShard], text: str) -> tuple[list[PlannedShard], dict[str, Any]]:
    """The shards of a range, and what dataset.json says of it as `part`. Raises InputError if there are none."""
    first, stop = _ends(text)
    chosen = list(planned[first:stop])
    if not chosen:
        raise InputError(f"no shards in {text}", field=_OPTION, expected=f"some of 0:{len(planned)}")
    return chosen, {
        "first": first,
        "stop": first + len(chosen),
        "shards": len(planned),
        "plan_sha256": plan_sha256(planned),
    }


def plan_sha256(planned: Iterable[PlannedShard]) -> str:
    """Stands for all that the shards of a plan are made from, and their names."""
    lines = "".join(f"{shard.name} {shard.hash}\n" for shard in planned)
    return hashlib.sha256(lines.encode()).hexdigest()


def planned_rows(planned: Iterable[PlannedShard]) -> dict[str, Sequence[int]]:
    """Label file -> the rows that shards were planned with."""
    parts = (part for shard in planned for part in shard.spec().rows)
    return joined_rows((PurePath(part.label_file).name, range(part.start, part.stop, part.step)) for part in parts)


def joined_rows(stretches: Iterable[tuple[str, range]]) -> dict[str, Sequence[int]]:
    """Label file -> rows, of stretches in any order; a range where they follow one another."""
    found: dict[str, list[range]] = {}
    for name, rows in sorted(stretches, key=lambda stretch: (stretch[0], stretch[1].start)):
        mine = found.setdefault(name, [])
        if mine and mine[-1].step == rows.step and mine[-1][-1] + rows.step == rows.start:
            mine[-1] = range(mine[-1].start, rows.stop, rows.step)
        else:
            mine.append(rows)
    return {name: mine[0] if len(mine) == 1 else [r for rows in mine for r in rows] for name, mine in found.items()}


def label_rows(statistics: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, range]]:
    """The stretches that the statistics of shards tell. Raises InputError for what is none."""
    for stats in statistics:
        try:
            found = [(str(r["label_file"]), range(r["start"], r["stop"], r["step"])) for r in stats["label_rows"]]
            if not found or any(not 0 <= rows.start < rows.stop <= MOST_ROWS or rows.step < 1 for _, rows in found):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{stats.get('label_rows')!r:.100} in the statistics of shard {stats.get('shard')}"
            raise InputError(problem, field="label_rows", expected="label files, starts, stops and steps") from error
        yield from found


def _ends(text: str) -> tuple[int, int | None]:
    rows = parse_row_range(text, option=_OPTION)
    first = rows.start or 0
    if first < 0 or (rows.stop is not None and rows.stop <= first):
        raise InputError(f"{text!r} given", field=_OPTION, expected="START:STOP from 0 on, for instance 0:100")
    return first, rows.stop
