"""The options of `hmr-skel evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pipelines.command.options import Positional, arg
from schemas import LABEL_CHECKS, VERDICTS
from train.data.config import DataConfig

Names = tuple[str, ...]


def _everybody() -> DataConfig:
    everything = 1e9
    return DataConfig(
        unconverged=True,
        max_vertex_error_mm=everything,
        max_reprojection_error=everything,
        verdicts=list(VERDICTS),
        label_checks=list(LABEL_CHECKS),
    )


@dataclass
class EvaluateOptions:
    """Measure networks on benchmarks (--benchmark) or on HMR-SKEL shards (--shards)."""

    checkpoint: Annotated[Names, Positional, arg(metavar="CHECKPOINT...")] = ()
    """this project's or released files, or folders of runs; mean: the mean person, whom any network must beat"""
    benchmark: Annotated[Names, arg(metavar="NAME...")] = ()
    """3dpw, emdb, spec-syn, moyo, moyo-hard, h36m, 3dpw-hsmr, coco, lsp-extended, posetrack, demo-...; NAME=FILE: a
    label file, known or of one of their layouts"""
    data: Annotated[Path, arg(metavar="DIR")] = Path("data")
    """where the benchmarks' label files lie, or its labels/, and their images, in the folders of the releases"""
    without: Annotated[Names, arg(metavar="QUIRK...")] = ()
    """leave these quirks of the released evaluation out of the published rows (all: leave none)"""
    clean: bool = True
    """also measure each protocol without its quirks: where they show in what networks see, these look twice"""
    two_stage: Annotated[Names, arg(metavar="[NAME=]FILE...")] = ()
    """SMPL estimates of a benchmark's people, row by row, to fit SKEL to: any layout that hmr-skel fit reads,
    such as what CameraHMR, HMR2.0 and ROMP write"""
    focal: float = 0.0
    """focal length, px; 0 = what the camera network says, or, without one, the image's diagonal"""
    camera: str = ""
    """checkpoint with the focal-length network; default: the network's own file"""
    patches: Literal["auto", "released", "ours"] = "auto"
    """how crops are cut: as the released code does, or antialiased; auto: as the weights' origin says"""
    layers: bool = False
    """also measure every layer, and the last layer with the camera shift of each other and the reverse"""
    attention: int = 0
    """draw where the tokens of so many people look"""
    worst: int = 12
    """people on the sheet of worst cases"""
    which: Literal["ema", "model"] = "ema"
    """weights of the checkpoint to take: the moving average, or those last trained"""
    protocol: Literal["emdb", "3dpw", "spec-syn", "moyo", "h36m"] = "emdb"
    """shards: joints and root that are compared, regressed from both meshes alike"""
    truth: Literal["smpl", "skel"] = "smpl"
    """shards: compare with the SMPL source, or with the SKEL fit that the network was trained on"""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """folder with the official SMPL and SKEL files and regressors; demo is the embedded body"""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N"""
    batch: int = 64
    """people per pass"""
    workers: int = 2
    """processes that read"""
    output: Path | None = None
    """benchmarks: folder for evaluation.json, people.parquet and pictures; shards: the JSON file"""
    people: DataConfig = field(default_factory=_everybody)
