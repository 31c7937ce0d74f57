"""The command `hmr-skel evaluate`: networks on the field's benchmarks, or on people of HMR-SKEL shards."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipelines.command.devices import one_device
from pipelines.command.options import Positional, arg, parse_options
from schemas import InputError
from train.data.config import DataConfig

if TYPE_CHECKING:
    from train.network.model import SKELCF

log = logging.getLogger(__name__)

MEAN = "mean"
"""The checkpoint that is no file: the mean person."""
Names = tuple[str, ...]


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
    """also measure each protocol without its quirks, from the same estimates"""
    two_stage: Annotated[Names, arg(metavar="[NAME=]FILE...")] = ()
    """SMPL estimates of a benchmark's people, row by row, to fit SKEL to: any layout that hmr-skel fit reads, or
    what CameraHMR's demo writes"""
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
    body_models: str = "demo"
    """folder with the official SMPL and SKEL files and regressors; demo is the embedded body"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    batch: int = 64
    """people per pass"""
    workers: int = 2
    """processes that read"""
    output: Path | None = None
    """benchmarks: folder for evaluation.json, people.parquet and pictures; shards: the JSON file"""
    people: DataConfig = field(default_factory=lambda: DataConfig(unconverged=True, max_vertex_error_mm=1e9))


def main(argv: list[str] | None = None, prog: str = "hmr-skel evaluate") -> int:
    """Measure networks by the benchmarks' protocols: MPJPE, PA-MPJPE, PVE and accuracy of keypoints."""
    options = parse_options(EvaluateOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__ or "")
    if options.benchmark:
        from train.evaluate.benchmark_run import run_benchmarks

        return run_benchmarks(options)
    if options.two_stage:
        raise InputError("no benchmark given", field="--benchmark", expected="the benchmark of the SMPL estimates")
    if len(options.checkpoint) != 1:
        given = f"{len(options.checkpoint)} checkpoints given"
        raise InputError(given, field="checkpoint", expected="one for --shards, or --benchmark")
    return _on_shards(options)


def _on_shards(options: EvaluateOptions) -> int:
    import torch
    from rich.console import Console
    from rich.table import Table

    from pipelines.files.body_models import BodyModels
    from train.data.loader import PeopleStream
    from train.data.shards import LABELS, SOURCE
    from train.evaluate.bodies import Bodies
    from train.evaluate.shards import evaluate_shards, mean_estimator, mean_person, network_estimator, summary

    device = torch.device(one_device(options.device))
    people = PeopleStream(options.people, options.batch, shuffle=False, fields=(*LABELS, *SOURCE))
    bodies = Bodies(BodyModels(options.body_models, device=device))
    if options.checkpoint[0] == MEAN:
        estimator = mean_estimator(*mean_person(people))
    else:
        estimator = network_estimator(load_network(options.checkpoint[0], options.which, device))
    name, truth = options.protocol, options.truth
    errors = evaluate_shards(estimator, people, bodies, device, name, truth, options.workers, True)
    numbers = summary(errors)
    table = Table(title=f"{len(errors['key']):,} people, protocol {name}, truth {truth}", title_justify="left")
    for column in numbers:
        words = column.removesuffix("_mm").replace("_", " ").upper()
        table.add_column(f"{words}, mm" if column.endswith("_mm") else words, justify="right")
    table.add_row(*(f"{value:.3f}" if key.startswith("pck") else f"{value:.1f}" for key, value in numbers.items()))
    Console(width=None if sys.stdout.isatty() else 80).print(table)
    if options.output is not None:
        document = {"people": len(errors["key"]), "protocol": name, "truth": truth, **numbers}
        document["errors"] = {key: values.tolist() for key, values in errors.items()}
        options.output.write_text(json.dumps(document) + "\n")
    return 0


def checkpoint_file(checkpoint: str) -> Path:
    """The file itself, or a training run's newest checkpoint. Raises InputError if there is none."""
    from train.network.checkpoints import run_checkpoints

    file = Path(checkpoint)
    if not file.is_dir():
        return file
    found = run_checkpoints(file)
    if not found:
        raise InputError("no checkpoints here", file=file, expected="the output folder of hmr-skel train")
    return found[-1]


def load_network(checkpoint: str, which: str, device: Any) -> SKELCF:
    """The network of a file, or of a training run's newest checkpoint. Raises InputError if there is none."""
    from train.network.checkpoints import load_checkpoint
    from train.network.model import SKELCF

    file = checkpoint_file(checkpoint)
    model = load_checkpoint(file, which, device=str(device))  # type: ignore[arg-type]
    if not isinstance(model, SKELCF):
        raise InputError("holds no whole network", file=file, expected="a SKEL-CF or HSMR checkpoint")
    return model


if __name__ == "__main__":
    sys.exit(main())
