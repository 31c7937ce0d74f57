"""The plan as a file in the output folder, so that neither the driver nor the job's graph has to hold it.

A spec has some 60 bytes per row; a job graph may have 10 MB on Dataflow. What travels to the workers is a shard's name
and where its spec stands in the file.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.files.storage import output_problems, place, published
from pipelines.files.urls import UrlPath
from pipelines.plan.planning import ShardSpec

_FAST = 1


@dataclass(frozen=True)
class PlannedShard:
    """A shard of `rows` label rows, whose spec (of this `hash`) is bytes [offset, offset + size) of the plan file."""

    name: str
    hash: str
    rows: int
    plan: str
    offset: int
    size: int

    def spec(self) -> ShardSpec:
        """Raises OSError if the plan is gone: the run that wrote it has ended."""
        with place(self.plan).open("rb", buffering=0) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        try:
            return ShardSpec.from_json(zlib.decompress(data).decode())
        except zlib.error as error:
            raise OSError(f"{self.plan}: not the plan that was written ({error})") from error


@contextmanager
def plan_file(directory: Path | UrlPath, run: str, specs: Iterable[ShardSpec]) -> Iterator[list[PlannedShard]]:
    """Write the specs as they come, and give what stands for them; afterwards the file is gone.

    `run` is the run's token: the workers of a run that was killed do not take the next one's plan for theirs.
    """
    path = directory / f".plan.tmp-{run}"
    planned, offset = [], 0
    try:
        with output_problems(directory), published(path) as local, local.open("wb") as file:
            for spec in specs:
                data = zlib.compress(spec.to_json().encode(), _FAST)
                planned.append(PlannedShard(spec.name, spec.hash, len(spec), str(path), offset, file.write(data)))
                offset += len(data)
        yield planned
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
