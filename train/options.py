"""Options of the commands train, evaluate and predict: dataclasses, presets (YAML), the command line over both."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.command.option_files import as_arguments, read_option_file
from schemas import InputError
from train.config import VARIANTS, LossConfig, NetworkConfig
from train.data.augmentation_config import AugmentationConfig
from train.data.config import DataConfig

PRESETS = Path(__file__).parent / "presets"

Options = TypeVar("Options")


@dataclass
class TrainOptions:
    """Train SKEL-CF on HMR-SKEL shards. Run it under torchrun to use several GPUs."""

    output: Path = Path("train_output")
    """folder for checkpoints, curves and panels; a run found there is continued"""
    variant: Literal[VARIANTS] = "skel-cf"  # type: ignore[valid-type]
    """the paper's ablations and baseline, on top of the network options"""
    initialise: str = ""
    """checkpoint to begin from: a whole network, or a backbone alone (ViTPose)"""
    body_models: str = "demo"
    """folder with the official SMPL and SKEL files and regressors; demo is the embedded body"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    batch: int = 64
    """people per device and pass"""
    accumulate: int = 1
    """passes per step"""
    epochs: int = 30
    """times that everybody is seen"""
    steps: int = 0
    """stop after this many steps; 0 = when the epochs are over"""
    learning_rate: float = 1e-5
    """after the warm-up"""
    warmup_epochs: float = 1.0
    """the learning rate rises linearly for so long"""
    decay: Literal["none", "cosine"] = "none"
    """what the learning rate does after the warm-up"""
    weight_decay: float = 1e-4
    """of AdamW"""
    gradient_norm: float = 1.0
    """gradients are shortened to this"""
    ema: float = 0.9995
    """the moving average's decay; n steps after the start it is EMA (1 - exp(-n / EMA_RAMP))"""
    ema_ramp: float = 6000.0
    """see ema"""
    precision: Literal["float32", "bf16"] = "bf16"
    """of the network's matrix products"""
    compile: bool = False
    """compile the network (torch.compile)"""
    workers: int = 8
    """processes per device that read and augment"""
    seed: int = 0
    """of weights, order and augmentation"""
    nonfinite_limit: int = 20
    """stop when so many steps had to be skipped because the loss was not finite"""
    checkpoint_minutes: float = 10.0
    """how often to write a checkpoint"""
    checkpoint_steps: int = 0
    """write one after every so many steps, too; 0 = only by time"""
    keep: int = 3
    """checkpoints that are kept, the newest"""
    peak_tflops: float = 0.0
    """what one device can do in this precision, TFLOP/s, to tell how much of it is used; 0 = not told"""
    log_steps: int = 20
    """steps between scalars for TensorBoard"""
    panel_steps: int = 1000
    """steps between pictures of predictions; 0 = none"""
    evaluate_people: int = 512
    """held-out people on whom the moving average is measured after each epoch; 0 = none"""
    data: DataConfig = field(default_factory=lambda: DataConfig(part="training"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)


def parse_options(kind: type[Options], argv: list[str], prog: str, description: str) -> Options:
    """The options of a command, a dataclass with a docstring under each field.

    `--preset NAME` takes train/presets/NAME.yaml, `--config FILE` any such file: `option: value` lines. The command
    line overrides both. Raises InputError for files that are absent, malformed or name unknown options.
    """
    from simple_parsing import ArgumentParser, DashVariant

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--config", type=Path)
    chosen, rest = early.parse_known_args(argv)
    given: list[str] = []
    if chosen.preset is not None:
        names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        if chosen.preset not in names:
            raise InputError(f"no preset {chosen.preset!r}", field="--preset", expected=", ".join(names))
        given += as_arguments(read_option_file(PRESETS / f"{chosen.preset}.yaml", _option_names(kind)))
    if chosen.config is not None:
        given += as_arguments(read_option_file(chosen.config, _option_names(kind)))
    parser = ArgumentParser(
        prog=prog, description=description, add_option_string_dash_variants=DashVariant.DASH, allow_abbrev=False
    )
    parser.add_arguments(kind, dest="options")
    parser.add_argument(
        "--preset", metavar="NAME", help="paper, one-gpu, laptop, tiny or overfit: values for many options"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of option: value; the command line overrides it")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more on stderr; twice: everything")
    found = parser.parse_args(given + rest)
    if found.verbose:
        level = logging.INFO if found.verbose == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("train").setLevel(level)
    return found.options


def option_values(options: Any) -> dict[str, Any]:
    """All options by name, as plain values."""
    values: dict[str, Any] = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if dataclasses.is_dataclass(value):
            values |= option_values(value)
        else:
            values[option.name] = str(value) if isinstance(value, Path) else value
    return values


def write_options(path: Path, options: Any) -> None:
    """Write options as a file for `--config`."""
    import yaml

    path.write_text(yaml.safe_dump(option_values(options), sort_keys=False))


def _option_names(kind: Any) -> set[str]:
    """Names of a dataclass type's options, those of nested ones included."""
    import typing

    hints, names = typing.get_type_hints(kind), set()
    for option in dataclasses.fields(kind):
        nested = hints[option.name]
        names |= _option_names(nested) if dataclasses.is_dataclass(nested) else {option.name}
    return names
