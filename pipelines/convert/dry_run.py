"""`--dry-run`: plan as the job does, convert a few people in a temporary folder, and tell what the job would make.

Size and pace are measured, not tabled: both depend on the pictures, the options and the machine. The output folder is
looked at as the job does, and not touched.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.command.devices import devices_of
from pipelines.command.hmr_skel import console
from pipelines.command.runner import Runner
from pipelines.convert.conversion import convert_shard
from pipelines.convert.job import Decision, Job
from pipelines.convert.settings import ConversionSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.files.urls import UrlPath
from pipelines.plan.plan_file import PlannedShard, plan_file
from pipelines.plan.planning import RowRange, ShardSpec
from pipelines.write.earlier import counts_in_words
from schemas import InputError

SAMPLE_ON_CPU = 64
"""Rows that are converted where they are fitted on a CPU; on a GPU, whose batches are larger, a whole shard is."""

_WARM_UP = 8
"""Rows that are converted before, and not counted: the first fit makes constants and finds its memory."""

_NAMED = 5
"""Shards whose loss is told by name."""


@dataclass(frozen=True)
class Sample:
    """Rows that were converted to tell the rest."""

    rows: int
    written: int
    """How many of them became samples..."""
    bytes: int
    """...and their tar and Parquet file."""
    seconds: float
    workers: int
    """Worker processes that share the work at that pace."""
    device: str

    @property
    def rows_per_s(self) -> float:
        return self.workers * self.rows / self.seconds


@dataclass(frozen=True)
class Forecast:
    """What a job would make."""

    decision: Decision
    without_image: Mapping[str, int]
    """Shard -> its rows whose image is not there, as planning finds."""
    sample: Sample | None
    """None if there is nothing to be made."""

    @property
    def rows(self) -> int:
        """Label rows that are selected."""
        return sum(shard.rows for shard in self.decision.planned)

    @property
    def rows_to_make(self) -> int:
        """Of these, rows with their image that no finished shard has."""
        made = set(self.decision.update.made)
        return sum(s.rows - self.without_image[s.name] for s in self.decision.planned if s.name in made)

    @property
    def gigabytes(self) -> float:
        """Of the shards to be made."""
        return 1e-9 * self.sample.bytes / self.sample.rows * self.rows_to_make if self.sample else 0.0

    @property
    def hours(self) -> float:
        return self.rows_to_make / self.sample.rows_per_s / 3600 if self.sample else 0.0


def forecast(job: Job, runner: Runner, directory: Path | UrlPath, shard_range: str = "") -> Forecast:
    """Plans the job, or the shards of a range of it, and converts a sample of what is to be made in the folder.

    Raises InputError as the job does, but for shards that would be lost: `Job.refuse_loss`.
    """
    without_image: dict[str, int] = {}

    def counted(specs: Iterable[ShardSpec]) -> Iterator[ShardSpec]:
        for spec in specs:
            without_image[spec.name] = spec.file.count(-1) if spec.image_root is not None else 0
            yield spec

    with tempfile.TemporaryDirectory(prefix="hmr-skel-") as aside:
        with plan_file(Path(aside), "dry-run", counted(job.specs)) as planned:
            decision = job.decision(planned, directory, shard_range)
            spec = _to_convert(decision, without_image)
        sample = _sample(spec, job.settings, runner) if spec else None
    return Forecast(decision, without_image, sample)


def _to_convert(decision: Decision, without_image: Mapping[str, int]) -> ShardSpec | None:
    """The first shard with images of those to be made, or if they have none, of all; None if none is to be made."""

    def first(shards: Iterable[PlannedShard]) -> PlannedShard | None:
        return next((shard for shard in shards if without_image[shard.name] < shard.rows), None)

    made = set(decision.update.made)
    shard = first(shard for shard in decision.planned if shard.name in made) or first(decision.planned)
    if shard is None:
        rows, spec = sum(shard.rows for shard in decision.planned), decision.planned[0].spec()
        problem = f"not one of {rows:,} rows has its image: {spec.image(0)}"
        raise InputError(problem, field="--images", expected="the images that the labels name")
    return shard.spec() if made else None


def _sample(spec: ShardSpec, settings: ConversionSettings, runner: Runner) -> Sample:
    devices = devices_of(settings.fit.device)
    if devices == ["cpu"]:
        spec = first_rows(spec, SAMPLE_ON_CPU)
    stats, seconds = _converted(spec, settings)
    # Processes on a GPU machine take turns at its devices.
    workers = (runner.processes if devices == ["cpu"] else len(devices)) if runner.workers_are_here else 1
    return Sample(len(spec), stats["samples"], stats["bytes"], seconds, workers, ",".join(devices))


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
    update, absent = found.decision.update, sum(found.without_image[shard.name] for shard in found.decision.planned)
    table.add_row("label rows", f"{found.rows:,}")
    table.add_row("rejected: without an image", f"{absent:,}")
    table.add_row("shards", f"{len(found.decision.planned):,}")
    if update.kept or update.moved or update.lost:
        table.add_row("of these and of earlier ones", counts_in_words(update.forecast()))
        table.add_row("rows to be made", f"{found.rows_to_make:,}")
    if update.lost:
        table.add_row("shards that go", _few([shard.name for shard in update.lost]))
    table.add_row("expected size", f"{found.gigabytes:,.3g} GB")
    table.add_row("expected time", f"{found.hours:,.2g} hours")
    if sample := found.sample:
        who = f"{sample.workers} workers" if sample.workers > 1 else "one worker"
        table.add_row("at the rate of", f"{sample.rows_per_s:,.1f} people/s by {who} like this one on {sample.device}")
        written = f"{sample.rows:,} rows, {sample.written:,} written in {sample.seconds:.1f} s"
        size = f"{1e-3 * sample.bytes / max(sample.written, 1):,.1f} kB a person"
        table.add_row("measured on", f"{written}, {size}")
    console().print(table)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
