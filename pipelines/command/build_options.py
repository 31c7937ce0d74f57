"""Options of the job that makes HMR-SKEL shards."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.command.option_files import read_option_file
from schemas import InputError

_NOT_RECORDED = ("output", "quiet", "threads")


@dataclass
class BuildOptions:
    """CameraHMR labels and images to HMR-SKEL shards. Without options, demo data on the embedded body."""

    annotations: list[str] = field(default_factory=list)
    """CameraHMR label files (.npz): paths, folders or globs. Default: demo data, made on first use in demo/input.
    These and the next three may be URLs that Beam's file systems open: gs://, s3://, hdfs://."""
    images: str = ""
    """Where the images are: a folder that imgname is relative to, 4DHumans image tars (a file, a glob, or a folder that
    holds some), or `none` for labels without images. Needed with --annotations."""
    body_models: str = "demo"
    """Folder with the official SMPL and SKEL files, flat or in smpl/ and skel/, or `demo` for the embedded body."""
    output: str = ""
    """Folder for the shards. A rerun keeps finished ones. Default: hmr_skel, for demo data demo/hmr_skel."""
    subset: list[str] = field(default_factory=list)
    """Data sets to take, by name: aic for aic-release.npz. Default: all."""
    rows: str = ""
    """Rows to take of each label file, START:STOP as in a Python slice. Default: all."""
    every: int = 1
    """Take every n-th of these rows."""
    samples_per_shard: int = 1000
    """Label rows per shard."""
    crop: Literal["person", "none"] = "person"
    """Store the person's square crop, or the whole frame (none)."""
    crop_size: int = 384
    """Width and height of a crop in pixels."""
    context: float = 1.5
    """Side of the crop divided by the side of the person's box. 1.5 leaves room for what trainers do with the box:
    widen it to 3:4 (x 1.33), scale it by a tenth and shift it; at 384 px the box itself then has their 256 px."""
    jpeg_quality: int = 90
    """JPEG quality of the crops, 1 to 100."""
    float_width: Literal[16, 32, 64] = 32
    """Bits of stored floats. At 16, positions, pixels and cameras keep 32."""
    gender: Literal["male", "female"] = "male"
    """Which SKEL to fit; the field uses male for everyone."""
    limits: Literal["bounds", "penalty", "none"] = "bounds"
    """Joint limits: hold exactly, cost something to exceed, or do not count."""
    limits_table: str = ""
    """CSV file with limits of your own: coordinate,low,high in degrees. It is read where the job is started."""
    device: str = "auto"
    """Where to fit: cpu, cuda (every GPU of a machine, evenly), cuda:N, or auto: GPUs if there are any."""
    batch_size: int = 0
    """People fitted at a time; 0 chooses by device and memory. Another size may change the last digits of a fit."""
    threads: int = 0
    """CPU threads of each worker process for images, and as many for fits; 0 shares the cores among the processes."""
    quiet: bool = False
    """No progress bar and no closing table."""

    def check(self) -> None:
        """Raise InputError for values that cannot be meant."""
        for name, low, high in (
            ("samples_per_shard", 1, 1_000_000),
            ("crop_size", 16, 8192),
            ("context", 0.1, 20),
            ("jpeg_quality", 1, 100),
            ("every", 1, 1 << 40),
            ("batch_size", 0, 1 << 24),
            ("threads", 0, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{value} given", field=option_name(name), expected=f"{low} to {high}")
        if self.annotations and not self.images:
            raise InputError("missing", field="--images", expected="a folder, image tars, or none")

    @property
    def with_images(self) -> bool:
        """Whether the job reads images; else it makes samples of labels alone."""
        return self.images.lower() != "none"

    def recorded(self) -> dict[str, Any]:
        """The options as dataset.json and options.yaml keep them, without those that change nothing in the output."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _NOT_RECORDED}


def parse_options(argv: list[str]) -> tuple[BuildOptions, list[str]]:
    """Our options, from a YAML file (--config) and the command line over it, and the arguments left for Beam.

    Ends the program with exit code 2 for an argument that neither we nor Beam know.
    """
    from apache_beam.options.pipeline_options import PipelineOptions
    from simple_parsing import ArgumentParser, DashVariant

    config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    about_config = {"metavar": "FILE", "help": "YAML file with option values; the command line wins"}
    config.add_argument("--config", **about_config)
    found, rest = config.parse_known_args(argv)
    parser = ArgumentParser(
        prog="build_hmr_skel",
        allow_abbrev=False,
        add_option_string_dash_variants=DashVariant.DASH,
        epilog="Apache Beam's own options are accepted as well, such as --runner, --direct_running_mode "
        "(in_memory, multi_threading, multi_processing) and --direct_num_workers.",
    )
    parser.add_argument("--config", **about_config)
    parser.add_arguments(BuildOptions, dest="build", default=_from_file(found.config) if found.config else None)
    parsed, rest = parser.parse_known_args(rest)
    beam_parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    beam_parser.error = parser.error  # type: ignore[method-assign]
    unknown: list[str] = []

    def collect(known_to_beam: argparse.ArgumentParser) -> None:
        unknown.extend(known_to_beam.parse_known_args(rest)[1])

    PipelineOptions([]).get_all_options(add_extra_args_fn=collect)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    parsed.build.check()
    return parsed.build, rest


def _from_file(path: str) -> BuildOptions:
    values = read_option_file(path, {option.name for option in dataclasses.fields(BuildOptions)})
    defaults = BuildOptions()
    for key, value in values.items():
        wanted = type(getattr(defaults, key))
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise InputError(f"{value!r} given", file=path, field=key, expected=wanted.__name__)
    return BuildOptions(**values)


def option_name(name: str) -> str:
    """crop_size -> --crop-size"""
    return "--" + name.replace("_", "-")
