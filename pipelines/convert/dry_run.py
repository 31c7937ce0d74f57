"""`--dry-run`: plan as the job does, convert a few people in a temporary folder, and tell what the job would make.

Size and pace are measured, not tabled: both depend on the pictures, the options and the machine. The output folder is
not touched.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.command.devices import devices_of
from pipelines.command.hmr_skel import console
from pipelines.command.options import parse_row_range
from pipelines.command.runner import Runner
from pipelines.convert.conversion import convert_shard
from pipelines.convert.job import Job
from pipelines.convert.settings import ConversionSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.plan.planning import RowRange, ShardSpec
from schemas import InputError

SAMPLE_ON_CPU = 64
"""Rows that are converted where they are fitted on a CPU; on a GPU, whose batches are larger, a whole shard is."""

_WARM_UP = 8
"""Rows that are converted before, and not counted: the first fit makes constants and finds its memory."""


@dataclass(frozen=True)
class Forecast:
    """What a job would make."""

    rows: int
    """Label rows that are selected."""
    without_image: int
    """Of these, rows whose image is not there, as planning finds."""
    shards: int
    sample: int
    """Rows that were converted to tell the rest..."""
    sample_written: int
    """...and how many of them became samples."""
    sample_bytes: int
    """Their tar and Parquet file."""
    sample_seconds: float
    workers: int
    """Worker processes that share the work at that pace."""
    device: str

    @property
    def gigabytes(self) -> float:
        return 1e-9 * self.sample_bytes / self.sample * (self.rows - self.without_image)

    @property
    def rows_per_s(self) -> float:
        return self.workers * self.sample / self.sample_seconds

    @property
    def hours(self) -> float:
        return (self.rows - self.without_image) / self.rows_per_s / 3600


def forecast(job: Job, runner: Runner, shard_range: str = "") -> Forecast:
    """Plans the job, or the shards of a range of it, and converts a sample. Raises InputError as the job does."""
    wanted = parse_row_range(shard_range, option="--shard-range")
    rows = shards = without_image = 0
    sample: ShardSpec | None = None
    for spec in itertools.islice(job.specs, wanted.start, wanted.stop):
        rows, shards = rows + len(spec), shards + 1
        absent = spec.file.count(-1) if spec.image_root is not None else 0
        without_image += absent
        if sample is None and absent < len(spec):
            sample = spec
    if not rows:
        field = "--shard-range" if shard_range else "--rows"
        raise InputError("no rows are selected", field=field, expected="at least one label row")
    if sample is None:
        problem = f"not one of {rows:,} rows has its image: {spec.image(0)}"
        raise InputError(problem, field="--images", expected="the images that the labels name")
    devices = devices_of(job.settings.fit.device)
    if devices == ["cpu"]:
        sample = first_rows(sample, SAMPLE_ON_CPU)
    stats, seconds = _converted(sample, job.settings)
    # Processes on a GPU machine take turns at its devices.
    workers = (runner.processes if devices == ["cpu"] else len(devices)) if runner.workers_are_here else 1
    return Forecast(
        rows=rows,
        without_image=without_image,
        shards=shards,
        sample=len(sample),
        sample_written=stats["samples"],
        sample_bytes=stats["bytes"],
        sample_seconds=seconds,
        workers=workers,
        device=",".join(devices),
    )


def _converted(spec: ShardSpec, settings: ConversionSettings) -> tuple[dict[str, int], float]:
    """How many people a shard has and how many bytes, and the seconds that it takes once everything is loaded."""
    bodies = bodies_of_process(settings.fit, settings.run)
    with tempfile.TemporaryDirectory(prefix="hmr-skel-") as name:
        aside = replace(settings, output=name)
        convert_shard(replace(first_rows(spec, _WARM_UP), name="warm-up"), aside, bodies)
        began = time.perf_counter()
        samples = convert_shard(spec, aside, bodies)["samples"]
        seconds = time.perf_counter() - began
        size = sum((Path(name) / f"{spec.name}.{ending}").stat().st_size for ending in ("tar", "parquet"))
    return {"samples": samples, "bytes": size}, seconds


def first_rows(spec: ShardSpec, count: int) -> ShardSpec:
    """The shard of a shard's first rows."""
    per_row = ("persons", "file", "offset", "size", "member")
    cut = {name: getattr(spec, name)[:count] for name in per_row}
    return replace(spec, rows=tuple(_first(spec.rows, count)), **cut)


def _first(ranges: tuple[RowRange, ...], count: int) -> Iterator[RowRange]:
    for part in ranges:
        if count <= 0:
            return
        rows = range(part.start, part.stop, part.step)[:count]
        yield replace(part, stop=rows[-1] + 1)
        count -= len(rows)


def print_forecast(found: Forecast) -> None:
    """The forecast as a table."""
    from rich.table import Table

    table = Table(title="HMR-SKEL, dry run: nothing is written", show_header=False, title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("label rows", f"{found.rows:,}")
    table.add_row("rejected: without an image", f"{found.without_image:,}")
    table.add_row("shards", f"{found.shards:,}")
    table.add_row("expected size", f"{found.gigabytes:,.3g} GB")
    table.add_row("expected time", f"{found.hours:,.2g} hours")
    who = f"{found.workers} workers" if found.workers > 1 else "one worker"
    table.add_row("at the rate of", f"{found.rows_per_s:,.1f} people/s by {who} like this one on {found.device}")
    written = f"{found.sample:,} rows, {found.sample_written:,} written in {found.sample_seconds:.1f} s"
    size = f"{1e-3 * found.sample_bytes / max(found.sample_written, 1):,.1f} kB a person"
    table.add_row("measured on", f"{written}, {size}")
    console().print(table)
