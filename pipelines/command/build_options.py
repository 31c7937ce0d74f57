"""Options of the job that makes HMR-SKEL shards."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pipelines.command.options import arg, parse_options
from pipelines.command.runner import register_options
from schemas import InputError

_NOT_RECORDED = ("dry_run", "output", "overwrite", "quiet", "shard_range", "threads", "worker_timeout")
HARMLESS = frozenset({*_NOT_RECORDED, "device", "batch_size", "without_regressors"})
"""Options after whose change finished shards are kept."""
_DESCRIPTION = """CameraHMR labels and images to HMR-SKEL shards. Without options, demo data on the embedded body.
Apache Beam's own options are accepted as well, such as --runner, --direct_running_mode (in_memory,
multi_threading, multi_processing) and --direct_num_workers."""


@dataclass
class BuildOptions:
    """CameraHMR labels and images to HMR-SKEL shards. Without options, demo data on the embedded body."""

    annotations: Annotated[list[str], arg(metavar="FILE...")] = field(default_factory=list)
    """CameraHMR label files (.npz): paths, folders or globs. Default: demo data, made on first use in demo/input.
    These and the next three may be URLs that Beam's file systems open: gs://, s3://, hdfs://."""
    images: Annotated[str, arg(metavar="DIR|TAR|none")] = ""
    """Where the images are: a folder that imgname is relative to, 4DHumans image tars (a file, a glob, or a folder that
    holds some), or `none` for labels without images. Needed with --annotations."""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """Folder with the official SMPL and SKEL files, flat or in smpl/ and skel/, or `demo` for the embedded body."""
    output: Annotated[str, arg(metavar="DIR")] = ""
    """Folder for the shards. A rerun keeps finished ones. Default: hmr_skel, for demo data demo/hmr_skel."""
    shard_range: Annotated[str, arg(metavar="START:STOP")] = ""
    """Make these shards only, counted from 0: a part, in a folder part-START-STOP of the output folder. Parts, which
    several machines may make, are joined by `hmr-skel merge`."""
    overwrite: bool = False
    """Let finished shards in the output folder go that other options, or other label files, do not make again."""
    subset: Annotated[list[str], arg(metavar="NAME...")] = field(default_factory=list)
    """Data sets to take, by name: aic for aic-release.npz. Default: all."""
    rows: Annotated[str, arg(metavar="START:STOP")] = ""
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
    without_regressors: bool = False
    """Go on where labels bring no keypoints3d and SMPL_to_J19.pkl is not among the body models: keypoints 25 to 43 then
    have confidence 0."""
    gender: Literal["male", "female"] = "male"
    """Which SKEL to fit; the field uses male for everyone."""
    smpl_gender: Literal["file", "neutral", "male", "female"] = "file"
    """Gender of the SMPL model that the rows are for; file: what the label files say, neutral if they say nothing.
    BEDLAM's CLIFF labels state the actor's gender beside betas of the neutral model: they need neutral."""
    limits: Annotated[str, arg(metavar="NAME|FILE")] = "human"
    """Joint limits, held exactly: human (all that flexible people can do), bsm (the BSM model's), none, or a CSV file
    of your own (coordinate,low,high in degrees; others keep the human ones), read where the job is started."""
    betas: Literal["keep", "near", "free"] = "near"
    """Shape: as transferred from SMPL's, near it with limbs of the same length, or whatever brings the mesh nearer."""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """Where to fit: cpu, cuda (every GPU of a machine, evenly), cuda:N, or auto: GPUs if there are any."""
    batch_size: int = 0
    """People fitted at a time; 0 chooses by device and memory. Another size may change the last digits of a fit."""
    threads: int = 0
    """CPU threads of each worker process for images, and as many for fits; 0 shares the cores among the processes."""
    worker_timeout: int = 900
    """Seconds in which a first worker must begin, where other machines or Dask start them; 0 waits for ever."""
    quiet: bool = False
    """No progress and no closing table."""
    dry_run: bool = False
    """Write nothing: plan, convert a few people aside, and tell how many people, shards, GB and hours to expect."""

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
            ("worker_timeout", 0, 1 << 24),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{value} given", field=option_name(name), expected=f"{low} to {high}")
        if self.annotations and not self.images:
            raise InputError("missing", field="--images", expected="a folder, image tars, or none")
        if self.dry_run and not self.annotations:
            raise InputError("missing", field="--annotations", expected="label files; demo data would be written first")

    @property
    def with_images(self) -> bool:
        """Whether the job reads images; else it makes samples of labels alone."""
        return self.images.lower() != "none"

    def recorded(self) -> dict[str, Any]:
        """The options as dataset.json and options.yaml keep them, without those that change nothing in the output."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _NOT_RECORDED}


def parse_build_options(argv: list[str], prog: str = "build_hmr_skel") -> tuple[BuildOptions, list[str]]:
    """Our options and the arguments left for Beam. Raises InputError for an argument that neither we nor Beam know."""
    from apache_beam.options.pipeline_options import PipelineOptions

    rest: list[str] = []
    options = parse_options(BuildOptions, argv, prog, _DESCRIPTION, unknown=rest)
    register_options(rest)
    unknown: list[str] = []

    def collect(known_to_beam: argparse.ArgumentParser) -> None:
        unknown.extend(known_to_beam.parse_known_args(rest)[1])

    PipelineOptions([]).get_all_options(add_extra_args_fn=collect)
    if unknown:
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}")
    options.check()
    return options, rest


def option_name(name: str) -> str:
    """crop_size -> --crop-size"""
    return "--" + name.replace("_", "-")
