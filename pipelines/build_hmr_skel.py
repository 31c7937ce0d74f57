"""CameraHMR labels and 4DHumans images to HMR-SKEL shards, as an Apache Beam job.

    beam run pipelines/build_hmr_skel.py --runner=DirectRunner --annotations 'labels/*.npz' --images images/ \
        --body-models body_models/ --output hmr_skel/

    label files, image index --> shard specs --> convert: read, fit, crop, write --> statistics --> dataset.json

Names of shards and statistics travel between the steps, pixels never do: a shard's spec, in a file of the output
folder, names rows and byte ranges, and the worker that gets it reads, fits and writes. A shard that is already there,
made from the same spec and undamaged, is kept.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command.build_options import (
    BuildOptions,
    joint_limits,
    package_versions,
    parse_options,
    settings_hash,
)
from pipelines.command.devices import cores, resolve_device
from pipelines.command.hmr_skel import guarded, set_up_logging
from pipelines.convert.bodies import bodies_of_process, body_models_sha256
from pipelines.convert.conversion import ConversionSettings, begin_shard
from pipelines.files.lock import OutputTaken, check_still_ours, output_lock
from pipelines.files.shards import Shard
from pipelines.files.storage import UrlPath, is_url, place, use_options
from pipelines.look.report import REPORT_FILE, write_report
from pipelines.plan.plan_file import PlannedShard, plan_file
from pipelines.plan.planning import RowSelection, find_label_files, plan_shards
from pipelines.read.images import open_images
from pipelines.write.progress import ProgressBar, ShardProgress, failed_run, print_summary, report_failure
from pipelines.write.run_record import RUN_FILE, run_facts, write_run
from pipelines.write.runner_log import runner_log
from pipelines.write.shards import (
    output_problems,
    remove_leftovers,
    remove_stale_shards,
    withdraw_dataset,
    write_dataset,
)
from schemas import InputError

# Importing Beam warns that Google's clients are not installed; nobody here needs them.
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
import apache_beam as beam  # noqa: E402
from apache_beam.transforms.window import GlobalWindows  # noqa: E402

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.utils.windowed_value import WindowedValue

log = logging.getLogger(__name__)

PROG = "build_hmr_skel"
_LOCAL_RUNNERS = (None, "DirectRunner", "SwitchingDirectRunner")
_LOST = ("Channel closed prematurely", "Worker subprocess exited")


class WorkerLost(RuntimeError):
    """The run ended before its time for no fault of the input."""


@dataclass(frozen=True)
class BodySettings:
    """What a worker loads its body models from; the arguments of `bodies_of_process`."""

    body_models: str
    gender: str
    device: str
    batch_size: int | None
    limits: str
    threads: int
    joint_limits: tuple[tuple[float, float], ...] | None = None


class ConvertShard(beam.DoFn):
    """PlannedShard -> the shard's statistics; or, if it cannot be made, {"shard": .., "error": ..}.

    A shard is written while the next one of the bundle is read and fitted. Once the output cannot be written to, the
    shards that are left are not tried.
    """

    def __init__(self, settings: ConversionSettings, bodies: BodySettings) -> None:
        self.settings = settings
        self.bodies = bodies

    def setup(self) -> None:
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writing: Future[dict[str, Any]] | None = None
        self._ended = False

    def teardown(self) -> None:
        self._ended = True
        self._writer.shutdown()

    def process(self, planned: PlannedShard) -> Iterator[dict[str, Any]]:
        try:
            begun = self._told(planned, lambda: self._begin(planned))
        except BaseException:  # the runner may try again at once: nothing of this try may still be writing
            wait([self._writing] if self._writing else [])
            raise
        yield from self._written()
        if isinstance(begun, dict):
            yield begun
        elif not self._ended:  # else the run has lost another worker, and this one is put down in the midst of a shard
            self._writing = self._writer.submit(self._told, planned, begun)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from map(GlobalWindows.windowed_value, self._written())

    def _written(self) -> Iterator[dict[str, Any]]:
        """The statistics of the shard that was being written, if there is one."""
        writing, self._writing = self._writing, None
        if writing is not None:
            yield writing.result()

    def _begin(self, planned: PlannedShard) -> Callable[[], dict[str, Any]]:
        """Fits; what is returned writes."""
        directory = place(self.settings.output)
        if failed_run(directory):
            return lambda: {"shard": planned.name, "error": ""}
        progress = ShardProgress(directory, planned.name)
        check_still_ours(directory, self.settings.run)
        finish = begin_shard(planned.spec(), self.settings, bodies_of_process(**vars(self.bodies)), progress)

        def finished() -> dict[str, Any]:
            stats = finish()
            progress.write()
            return {key: value for key, value in stats.items() if key not in ("rejected_rows", "versions")}

        return finished

    def _told(self, planned: PlannedShard, step: Callable[[], Any]) -> Any:
        """The result of a step, or what was wrong, as a document."""
        try:
            return step()
        except InputError as error:
            if error.field == "--output":
                report_failure(place(self.settings.output), str(error))
            return {"shard": planned.name, "error": str(error)}
        except OutputTaken as error:
            return {"shard": planned.name, "error": str(error)}


class WriteDataset(beam.DoFn):
    """All statistics -> rejects.parquet, dataset.json, report.html and run.json, unless a shard failed."""

    def __init__(
        self,
        output: str,
        run: str,
        options: dict[str, Any],
        inputs: dict[str, str],
        planned: dict[str, range],
        facts: dict[str, Any],
    ) -> None:
        self.output = output
        self.run = run
        self.options = options
        self.inputs = inputs
        self.planned = planned
        self.facts = facts

    def process(self, shards: list[dict[str, Any]]) -> Iterator[str]:
        errors = {stats["error"]: None for stats in shards if stats.get("error")}
        directory = place(self.output)
        try:
            if errors:
                raise InputError(min(errors))
            check_still_ours(directory, self.run)
            names = [stats["shard"] for stats in shards]
            write_dataset(directory, names, self.options, package_versions(), self.inputs, self.planned)
            write_report([Shard(directory / name) for name in sorted(names)], directory / REPORT_FILE)
            write_run(directory, self.facts, shards)
        except InputError as error:
            report_failure(directory, str(error))
            return
        except OutputTaken:  # another run's folder: nothing is told there
            return
        yield str(directory / "dataset.json")


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
        | "Gather statistics" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Write dataset.json" >> beam.ParDo(write)
    )


def main(argv: list[str] | None = None) -> int:
    """Run the job with these arguments; the exit code is 0, 2 for what is wrong with the input, 1 otherwise."""
    set_up_logging(0)
    try:
        return guarded(lambda: run(sys.argv[1:] if argv is None else argv), PROG)
    except WorkerLost as error:
        sys.stderr.write(f"{PROG}: error: {error}\n")
        return 1


def run(argv: list[str]) -> int:
    """`main` without the handling of errors: raises InputError, or SystemExit(2) for arguments unknown to all."""
    options, rest = parse_options(argv)
    if not options.annotations:
        options = _with_demo_data(options)
    options.output = options.output or "hmr_skel"
    directory = place(options.output if is_url(options.output) else os.path.abspath(options.output))
    beam_options = _beam_options(rest)
    use_options(beam_options[0])
    if _workers_are_here(beam_options[0]):  # others see for themselves what devices they have
        options.device = resolve_device(options.device)
    _prepare(directory)
    with output_lock(directory) as token:
        return _convert(options, rest, beam_options, directory, token)


def _convert(
    options: BuildOptions,
    rest: list[str],
    beam_options: tuple[PipelineOptions, int, int],
    directory: Path | UrlPath,
    token: str,
) -> int:
    """Plan, convert and sum up, in a folder that is ours."""
    pipeline_options, workers, processes = beam_options
    with_images = options.images.lower() != "none"
    labels = find_label_files(options.annotations, with_images=with_images, datasets=options.subset)
    threads = options.threads or max(1, cores() // processes)
    bodies = BodySettings(
        body_models=options.body_models,
        gender=options.gender,
        device=options.device,
        batch_size=options.batch_size or None,
        limits=options.limits,
        threads=threads,
        joint_limits=joint_limits(options),
    )
    facts = run_facts(device=options.device, workers=workers, processes=processes, threads=threads, runner=_name(rest))
    body_hash = body_models_sha256(**vars(bodies))  # a body model that is missing or damaged shows here
    selection = RowSelection.parse(options.rows, options.every)
    settings = ConversionSettings(
        output=str(directory),
        crop=options.crop,
        crop_size=options.crop_size,
        context=options.context,
        jpeg_quality=options.jpeg_quality,
        float_width=options.float_width,
        image_threads=max(2, min(threads, 16) // max(1, workers // processes)),
        versions=package_versions(),
        run=token,
    )
    write = WriteDataset(
        output=str(directory),
        run=token,
        options=options.recorded(),
        inputs={file.name: file.sha256 for file in labels} | {"body_models": body_hash},
        planned={file.name: selection.of(file.rows) for file in labels},
        facts=facts,
    )
    with output_problems(directory):
        remove_leftovers(directory)
    per_shard, settings_sha256 = options.samples_per_shard, settings_hash(options, body_hash)
    specs = plan_shards(labels, open_images(options.images), per_shard, selection, settings_sha256)
    with plan_file(directory, token, specs) as planned:
        if not planned:
            raise InputError("no rows are selected", field="--rows", expected="at least one label row")
        started = time.time()
        facts["plan_s"] = round(started - facts["started"], 3)
        with output_problems(directory):
            withdraw_dataset(directory)
            _save_options(directory, options)
        with ProgressBar(directory, sum(shard.rows for shard in planned), options.quiet):
            _run_pipeline(directory, pipeline_options, planned, ConvertShard(settings, bodies), write)
        with output_problems(directory):
            remove_stale_shards(directory, [shard.name for shard in planned])
    if not options.quiet:
        manifest = json.loads((directory / "dataset.json").read_text())
        print_summary(manifest, json.loads((directory / RUN_FILE).read_text()), options.output, time.time() - started)
    return 0


def _run_pipeline(
    directory: Path | UrlPath,
    options: PipelineOptions,
    planned: list[PlannedShard],
    convert: ConvertShard,
    write: WriteDataset,
) -> None:
    """Raises InputError for what a step reported, WorkerLost for a worker that is gone."""
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline, planned, convert, write)
    with runner_log() as log_file:
        again = "the same command goes on from here"
        try:
            pipeline.run().wait_until_finish()
        except RuntimeError as error:
            if any(text in str(error) for text in _LOST):
                problem = "a worker process died (killed, or out of memory?)"
                raise WorkerLost(f"{directory}: {problem}; {again}; details in {log_file}") from error
            raise
        failure = failed_run(directory)
        if failure:
            raise InputError(failure)
        if not (directory / "dataset.json").is_file():
            raise WorkerLost(f"{directory}: the run ended without a dataset.json; {again}")


def _with_demo_data(options: BuildOptions) -> BuildOptions:
    from pipelines.demo.data import demo_inputs

    if options.images and options.images.lower() != "none":
        raise InputError("missing", field="--annotations", expected="the label files that belong to --images")
    paths = demo_inputs(Path("demo") / "input")
    options.annotations = [paths.annotations]
    options.images = options.images or paths.images
    options.output = options.output or str(Path("demo") / "hmr_skel")
    return options


def _prepare(directory: Path | UrlPath) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.tmp-{os.getpid()}"
        probe.write_text("can this be written?")  # Beam fails to write an empty file to S3
        probe.unlink()
    except OSError as error:
        problem = f"cannot be written to: {error.strerror or error}"
        raise InputError(problem, file=directory, field="--output", expected="a folder") from error


def _save_options(directory: Path | UrlPath, options: BuildOptions) -> None:
    import yaml

    (directory / "options.yaml").write_text(yaml.safe_dump(options.recorded(), sort_keys=False))


def _beam_options(rest: list[str]) -> tuple[PipelineOptions, int, int]:
    """Beam's options, and how many workers and worker processes share this machine's cores."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    if not any(
        argument.startswith(("--default_sdk_harness_log_level", "--sdk_harness_log_level")) for argument in rest
    ):
        # Workers tell much about themselves; of what they log, only our own warnings matter.
        overrides = json.dumps({"pipelines": "WARNING", "fitting": "WARNING"})
        rest = [*rest, "--default_sdk_harness_log_level=ERROR", f"--sdk_harness_log_level_overrides={overrides}"]
        logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)
    options = PipelineOptions(rest)
    direct = options.view_as(DirectOptions)
    workers = direct.direct_num_workers or cores()
    mode = direct.direct_running_mode
    if mode == "in_memory":
        workers = 1
    return options, workers, workers if mode == "multi_processing" else 1


def _workers_are_here(options: PipelineOptions) -> bool:
    from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

    local = options.view_as(StandardOptions).runner in _LOCAL_RUNNERS
    return local or options.view_as(PortableOptions).environment_type == "LOOPBACK"


def _name(rest: list[str]) -> str:
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    return PipelineOptions(rest).view_as(StandardOptions).runner or "DirectRunner"


def _runner(options: PipelineOptions) -> Any:
    """The runner that was asked for. `DirectRunner` is Beam's local Python runner, whose running modes it then has.

    Left to itself, Beam's DirectRunner first downloads a program for another runner (Prism) and tries that.
    """
    from apache_beam.options.pipeline_options import StandardOptions

    name = options.view_as(StandardOptions).runner
    if name not in _LOCAL_RUNNERS:
        return name
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision))


if __name__ == "__main__":
    # Workers in other processes find the functions under this name, not under __main__.
    from pipelines.build_hmr_skel import main as main_of_module

    sys.exit(main_of_module())
