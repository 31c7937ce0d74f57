"""What a job is to do, from its options: its workers' settings, its shards, and what dataset.json says of both."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pipelines.command.build_options import BuildOptions
from pipelines.command.devices import cores
from pipelines.command.runner import Runner
from pipelines.convert.settings import (
    ConversionSettings,
    CropSettings,
    FitSettings,
    limits_for_workers,
    limits_in_degrees,
    package_versions,
)
from pipelines.convert.sharing import body_models_facts
from pipelines.files.urls import UrlPath
from pipelines.plan.parts import part_of
from pipelines.plan.plan_file import PlannedShard
from pipelines.plan.planning import RowSelection, ShardSpec, find_label_files, plan_shards
from pipelines.read.images import open_images
from pipelines.read.labels import LabelFile
from pipelines.write.earlier import Update, earlier_shards, refuse_loss, update_of
from pipelines.write.run_record import run_facts
from schemas import InputError

log = logging.getLogger(__name__)

Record = TypeVar("Record")

J19 = "SMPL_to_J19"
_REGRESSORS = (J19, "J_regressor_SKEL_mix_MALE")
"""Of 3D keypoints: 19 of SMPL's and SKEL's mesh, and the joints of SKEL's, which only training asks for."""

_MOST_IMAGE_THREADS = 16
_FEWEST_IMAGE_THREADS = 2


@dataclass(frozen=True)
class Provenance:
    """What a data set is made of and by; plain values."""

    options: dict[str, Any]
    joint_limits: dict[str, list[float | None]]
    """Coordinate -> lowest and highest angle, degrees."""
    versions: dict[str, str]
    inputs: dict[str, str]
    """Label file, or `body_models` -> sha256."""
    body_models: dict[str, Any]
    """`BodyModels.facts`."""
    planned: dict[str, Sequence[int]]
    """Label file -> the rows that were asked for."""
    facts: dict[str, Any]
    """Where and when, for run.json."""
    part: dict[str, Any] | None = None
    """Which part of a data set this is (`plan.parts.part_of`); None: all of it."""


@dataclass(frozen=True)
class Decision:
    """Which shards a run is to have at its end, and what becomes of those that lie in its output folder."""

    planned: list[PlannedShard]
    part: dict[str, Any] | None
    """As `Provenance.part`."""
    update: Update


@dataclass(frozen=True)
class Job:
    """What is run."""

    settings: ConversionSettings
    provenance: Provenance
    specs: Iterator[ShardSpec]
    """Shards as they are planned."""
    labels: list[LabelFile]

    def with_checksums(self, **facts: Any) -> Provenance:
        """The provenance when all is planned, which is when label files have been read, and more facts of the run."""
        inputs = {file.name: file.sha256 for file in self.labels} | self.provenance.inputs
        return replace(self.provenance, inputs=inputs, facts=self.provenance.facts | facts)

    def decision(self, planned: list[PlannedShard], directory: Path | UrlPath, shard_range: str) -> Decision:
        """What is to be made of a plan's shards in this folder. Raises InputError if it is none of them."""
        part = None
        if not planned:
            raise InputError("no rows are selected", field="--rows", expected="at least one label row")
        if shard_range:
            planned, part = part_of(planned, shard_range)
        return Decision(planned, part, update_of(earlier_shards(directory), planned))

    def refuse_loss(self, decision: Decision, directory: Path | UrlPath) -> None:
        """Raises InputError if finished shards would go that nobody asked to lose."""
        made_of = self.provenance
        refuse_loss(directory, decision.update, made_of.options, self.settings.sha256(), made_of.planned)


def job_of(options: BuildOptions, runner: Runner, directory: Path | UrlPath, run: str) -> Job:
    """Reads label files' headers and body models; rows are read and images looked up as the specs are asked for.

    `run` is the token of the lock on the output. Raises InputError for what is missing or damaged.
    """
    settings = settings_of(options, runner, directory, run)
    fit = settings.fit
    facts = run_facts(
        device=fit.device,
        workers=runner.workers if runner.workers_are_here else None,  # who else starts them does not say how many
        processes=runner.processes if runner.workers_are_here else None,
        threads=fit.threads,
        runner=runner.name,
    )
    labels = find_label_files(
        options.annotations, with_images=settings.crop.images, datasets=options.subset, smpl_gender=fit.smpl_gender
    )
    settings = replace(settings, body_models=body_models_facts(fit))
    _look_for_regressors(options, labels, settings.body_models["keypoint_regressors"])
    selection = RowSelection.parse(options.rows, options.every)
    provenance = Provenance(
        options=options.recorded(),
        joint_limits=limits_in_degrees(fit.limits),
        versions=settings.versions,
        inputs={"body_models": settings.body_models["sha256"]},
        body_models=settings.body_models,
        planned={file.name: selection.of(file.rows) for file in labels},
        facts=facts,
    )
    images = open_images(options.images)
    specs = plan_shards(labels, images, options.samples_per_shard, selection, settings.sha256())
    return Job(settings, provenance, specs, labels)


def _look_for_regressors(options: BuildOptions, labels: list[LabelFile], there: Collection[str]) -> None:
    """Whether the 3D keypoints of all people can be had; what is missing is told before any row is read.

    Raises InputError for label files with images, made to be trained on, that bring no 3D keypoints where the regressor
    of 19 of these is missing, unless `--without-regressors` says to go on.
    """
    bare = [file.name for file in labels if "keypoints3d" not in file.fields]
    missing = [f"{name}.pkl" for name in _REGRESSORS if name not in there]
    if not missing:
        return
    names = ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")
    come = "SMPL_to_J19.pkl comes with the data of 4D-Humans, J_regressor_SKEL_mix_MALE.pkl with HSMR's"
    if bare and J19 not in there and options.with_images and not options.without_regressors:
        problem = f"{' and '.join(missing)} not among the body models, and {names} bring no keypoints3d"
        expected = f"them ({come}), or --without-regressors: keypoints 25 to 43 then have confidence 0"
        raise InputError(problem, file=options.body_models, field="--body-models", expected=expected)
    told = f"{options.body_models}: no {' and no '.join(missing)} among the body models ({come})"
    if J19 not in there:
        told += f"; keypoints 25 to 43 of {names} get confidence 0" if bare else "; all labels bring keypoints3d"
    log.warning("%s; hmr-skel train needs both", told)


def settings_of(options: BuildOptions, runner: Runner, directory: Path | UrlPath, run: str) -> ConversionSettings:
    """The options that workers need. Raises InputError for a table of joint limits that cannot be used."""
    threads = options.threads or max(1, cores() // runner.processes)
    workers_per_process = max(1, runner.workers // runner.processes)
    image_threads = max(_FEWEST_IMAGE_THREADS, min(threads, _MOST_IMAGE_THREADS) // workers_per_process)
    return ConversionSettings(
        output=str(directory),
        fit=_chosen(
            FitSettings,
            options,
            limits=limits_for_workers(options.limits),
            smpl_gender=None if options.smpl_gender == "file" else options.smpl_gender,
            batch_size=options.batch_size or None,
            threads=threads,
        ),
        crop=_chosen(CropSettings, options, images=options.with_images, image_threads=image_threads),
        float_width=options.float_width,
        versions=package_versions(),
        run=run,
    )


def _chosen(record: type[Record], options: BuildOptions, **more: Any) -> Record:
    """A record of settings from the options of the same names."""
    names = {field.name for field in fields(record)} - more.keys()  # type: ignore[arg-type]
    return record(**{name: getattr(options, name) for name in names}, **more)
