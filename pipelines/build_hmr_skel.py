"""CameraHMR labels and 4DHumans images to HMR-SKEL shards, as an Apache Beam job.

    hmr-skel build --annotations 'labels/*.npz' --images images/ --body-models body_models/ --output hmr_skel/

`beam run pipelines/build_hmr_skel.py` and `python -m pipelines.build_hmr_skel` are the same.

    label files, image index --> shard specs --> convert: read, fit, crop, write --> statistics --> dataset.json

Names of shards and statistics travel between the steps, pixels never do: a shard's spec, in a file of the output
folder, names rows and byte ranges, and the worker that gets it reads, fits and writes. A shard that is already there,
made from the same spec and undamaged, is kept.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command.build_options import BuildOptions, parse_build_options
from pipelines.command.devices import resolve_device
from pipelines.command.hmr_skel import guarded
from pipelines.command.log import set_up_logging
from pipelines.command.quiet_worker import is_chatter
from pipelines.command.runner import Runner, WorkerLost
from pipelines.convert.dry_run import forecast, print_forecast
from pipelines.convert.job import Job, Provenance, job_of
from pipelines.convert.overlap import OverlappedConversion
from pipelines.convert.settings import ConversionSettings
from pipelines.files.body_models import tell_of_demo_body
from pipelines.files.lock import OutputTaken, check_still_ours, output_lock
from pipelines.files.shards import Shard
from pipelines.files.storage import output_problems, place
from pipelines.files.temporary import run_temporaries
from pipelines.files.urls import UrlPath, is_url
from pipelines.look.report import REPORT_FILE, write_report
from pipelines.plan.parts import part_folder, planned_rows
from pipelines.plan.plan_file import PlannedShard, plan_file
from pipelines.write.dataset import remove_leftovers, remove_stale_shards, withdraw_dataset, write_dataset
from pipelines.write.earlier import rename_shards, tell_of_loss
from pipelines.write.progress import (
    ProgressBar,
    failed_run,
    has_begun,
    nothing_written,
    print_summary,
    report_begun,
    report_failure,
    tell_of_turned_images,
)
from pipelines.write.run_record import check_writable, save_options, write_run
from pipelines.write.runner_log import runner_log
from schemas import InputError

set_up_logging(0)  # before Beam's import sets it up its own way, and says what nobody needs
logging.getLogger().addFilter(lambda record: not is_chatter(record))
import apache_beam as beam  # noqa: E402
from apache_beam.transforms.window import GlobalWindows  # noqa: E402

if TYPE_CHECKING:
    from apache_beam.utils.windowed_value import WindowedValue

PROG = "build_hmr_skel"

log = logging.getLogger(__name__)


def build(
    pipeline: beam.Pipeline,
    planned: Iterable[PlannedShard],
    convert: ConvertShard,
    write: WriteDataset,
) -> beam.PCollection[str]:
    """The job as its diagram has it; gives the path of dataset.json."""
    return (
        pipeline
        | "Plan" >> beam.Create(planned, reshuffle=False)
        | "Spread over workers" >> beam.Reshuffle()
        | "Read, fit, crop, write" >> beam.ParDo(convert)
        | "Gather statistics" >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
        | "Write dataset.json" >> beam.ParDo(write)
    )


class ConvertShard(beam.DoFn):
    """PlannedShard -> the shard's statistics; or, if it cannot be made, {"shard": .., "error": ..}.

    A shard is written while the next one of the bundle is read and fitted: statistics come one shard late.
    """

    def __init__(self, settings: ConversionSettings) -> None:
        self.settings = settings

    def setup(self) -> None:
        self._conversion = OverlappedConversion(self.settings)
        report_begun(place(self.settings.output))

    def process(self, planned: PlannedShard) -> Iterator[dict[str, Any]]:
        yield from self._conversion.convert(planned)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from map(GlobalWindows.windowed_value, self._conversion.written())

    def teardown(self) -> None:
        self._conversion.close()


class WriteDataset(beam.DoFn):
    """All statistics -> list of rejects, run.json, report.html, at last dataset.json; unless a shard failed."""

    def __init__(self, output: str, run: str, provenance: Provenance) -> None:
        self.output = output
        self.run = run
        self.provenance = provenance

    def process(self, shards: list[dict[str, Any]]) -> Iterator[str]:
        errors = [stats["error"] for stats in shards if stats.get("error")]
        directory, made_of = place(self.output), self.provenance
        try:
            check_still_ours(directory, self.run)
            if errors:
                raise InputError(min(errors))
            names = [stats["shard"] for stats in shards]
            options = made_of.options | {"device": device_of(shards)}
            if options != made_of.options:  # the workers are not the driver's: it could not know
                with output_problems(directory):
                    save_options(directory, options)

            def before_the_last(manifest: dict[str, Any]) -> None:
                with output_problems(directory):
                    remove_stale_shards(directory, names)
                write_run(directory, made_of.facts | {"device": options["device"]}, shards)
                shown = [Shard(directory / name) for name in sorted(names)]
                write_report(shown, directory / REPORT_FILE, manifest=manifest)
                check_still_ours(directory, self.run)

            write_dataset(
                directory,
                names,
                options,
                made_of.versions,
                made_of.inputs,
                made_of.joint_limits,
                made_of.planned,
                made_of.body_models,
                before_the_last,
                made_of.part,
            )
        except InputError as error:
            report_failure(directory, str(error))
            return
        except OutputTaken:  # another run's folder: nothing is told there
            return
        yield str(directory / "dataset.json")


def device_of(shards: list[dict[str, Any]]) -> str:
    """What `--device` came to on the workers: cpu, cuda, or both."""
    return ",".join(sorted({stats["device"] for stats in shards if "device" in stats}))


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Turn CameraHMR labels and images into HMR-SKEL shards, as an Apache Beam job.

    The exit code is 0, 2 for what is wrong with the input, 1 otherwise.
    """
    set_up_logging(0)
    try:
        return guarded(lambda: run(sys.argv[1:] if argv is None else argv, prog), prog)
    except WorkerLost as error:
        sys.stderr.write(f"{prog}: error: {error}\n")
        return 1


def run(argv: list[str], prog: str) -> int:
    """`main` without the handling of errors: raises InputError."""
    options, rest = parse_build_options(argv, prog)
    if options.annotations:
        tell_of_demo_body(options.body_models)
    else:
        from pipelines.demo.data import with_demo_inputs

        options = with_demo_inputs(options)
    options.output = options.output or "hmr_skel"
    directory = place(options.output if is_url(options.output) else os.path.abspath(options.output))
    if options.shard_range:
        directory = directory / part_folder(options.shard_range)
    runner = Runner.of(rest, options.worker_timeout)
    if runner.workers_are_here:  # others see for themselves what devices they have
        options.device = resolve_device(options.device)
    if options.dry_run:
        job = job_of(options, runner, directory, "")
        found = forecast(job, runner, directory, options.shard_range)
        print_forecast(found)
        if not options.overwrite:
            job.refuse_loss(found.decision, directory)
        return 0
    check_writable(directory)
    with run_temporaries(), output_lock(directory) as token:
        job = job_of(options, runner, directory, token)
        seconds = convert(job, runner, directory, options)
    name = f"{options.output}/{directory.name}" if options.shard_range else options.output
    if not options.quiet:
        print_summary(directory, name, seconds)
    tell_of_turned_images(directory, name)
    nothing = nothing_written(directory)
    if nothing and options.shard_range:  # the other parts may have somebody
        log.warning("%s: %s", name, nothing)
    elif nothing:
        sys.stderr.write(f"{prog}: error: {name}: {nothing}\n")
        return 1
    return 0


def convert(job: Job, runner: Runner, directory: Path | UrlPath, options: BuildOptions) -> float:
    """Plan and run, in a folder that is ours; gives the seconds that the run took."""
    token = job.settings.run
    with output_problems(directory):
        remove_leftovers(directory)
    with plan_file(directory, token, job.specs) as planned:
        with output_problems(directory):
            decision = job.decision(planned, directory, options.shard_range)
            planned, update = decision.planned, decision.update
            if not options.overwrite:
                job.refuse_loss(decision, directory)
            tell_of_loss(directory, update)
            started = time.time()
            planning = round(started - job.provenance.facts["started"], 3)
            made_of = job.with_checksums(plan_s=planning, **update.counts())
            if decision.part:
                made_of = replace(made_of, part=decision.part, planned=planned_rows(planned))
            withdraw_dataset(directory)
            save_options(directory, made_of.options)
            rename_shards(directory, update.moved)
        write = WriteDataset(str(directory), token, made_of)
        with ProgressBar(directory, sum(shard.rows for shard in planned), options.quiet):
            run_pipeline(directory, runner, planned, ConvertShard(job.settings), write)
    return time.time() - started


def run_pipeline(
    directory: Path | UrlPath,
    runner: Runner,
    planned: list[PlannedShard],
    convert: ConvertShard,
    write: WriteDataset,
) -> None:
    """Raises InputError for what a step reported, WorkerLost for a worker that is gone, or has not come in time."""
    again = "the same command goes on from here"
    with runner_log() as log_file:
        try:
            pipeline = beam.Pipeline(runner=runner.beams(len(planned)), options=runner.options)
            build(pipeline, planned, convert, write)
            runner.wait(pipeline.run(), lambda: has_begun(directory))
        except Exception as error:
            problem = runner.what_is_lost(error)
            if problem is None:
                raise
            raise WorkerLost(f"{directory}: {problem}; {again}; details in {log_file}") from error
        failure = failed_run(directory)
        if failure:
            raise InputError(failure)
        if not (directory / "dataset.json").is_file():
            try:
                check_still_ours(directory, write.run)
            except OutputTaken as error:
                problem, expected = "another run has taken this folder over", "one run per output folder"
                raise InputError(problem, file=directory, field="--output", expected=expected) from error
            raise WorkerLost(f"{directory}: the run ended without a dataset.json; {again}")


if __name__ == "__main__":
    # Workers in other processes find the functions under this name, not under __main__.
    from pipelines.build_hmr_skel import main as main_of_module

    sys.exit(main_of_module())
