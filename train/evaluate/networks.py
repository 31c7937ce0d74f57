"""Networks of checkpoints, and the focal-length networks that come with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from schemas import InputError
from train.benchmarks.stream import Patches
from train.network.checkpoints import has_average, load_checkpoint, run_checkpoints
from train.network.flnet import FLNet
from train.network.model import SKELCF

log = logging.getLogger(__name__)

MEAN = "mean"
"""The checkpoint that is no file: the mean person."""


@dataclass(frozen=True)
class Network:
    """A checkpoint, loaded."""

    name: str
    model: SKELCF
    camera: nn.Module | None
    """its focal-length network"""
    patches: Patches
    """how the crops are cut that it was taught on"""


def open_network(
    checkpoint: str,
    which: Literal["ema", "model"],
    device: Any,
    *,
    camera: str | None = "",
    patches: Literal["auto", "released", "ours"] = "auto",
) -> Network:
    """The network of a file or run, with the focal-length network of the file `camera`, by default its own.

    None as `camera` asks for none. Raises InputError for files that hold none of what is asked.
    """
    file = checkpoint_file(checkpoint)
    model = load_network(checkpoint, which, device)
    found = None if camera is None else _camera(Path(camera) if camera else file, bool(camera), device)
    cut: Patches = model.crops if patches == "auto" else patches
    name = file.parent.name if file.name.startswith("checkpoint-") else file.stem
    return Network(name, model, found, cut)


def _camera(file: Path, asked: bool, device: Any) -> FLNet | None:
    """The focal-length network of a file; None, said aloud, if it has none and nobody said that it does."""
    try:
        return load_checkpoint(file, "camera", device=str(device))  # type: ignore[return-value]
    except InputError:
        if asked:
            raise
    said = "%s: no focal-length network in it; focal lengths are guessed without one (--camera FILE, --focal PX)"
    log.warning(said, file)
    return None


def checkpoint_file(checkpoint: str) -> Path:
    """The file itself, or a training run's newest checkpoint. Raises InputError if there is none."""
    file = Path(checkpoint)
    if not file.is_dir():
        return file
    found = run_checkpoints(file)
    if not found:
        raise InputError("no checkpoints here", file=file, expected="the output folder of hmr-skel train")
    return found[-1]


def load_network(checkpoint: str, which: str, device: Any) -> SKELCF:
    """The network of a file, or of a training run's newest checkpoint. Raises InputError if there is none.

    Of a file without a moving average, as HSMR's, "ema" means its weights, which is said aloud.
    """
    file = checkpoint_file(checkpoint)
    if which == "ema" and not has_average(file):
        log.warning("%s: no moving average in it; its weights are taken as they are", file)
        which = "model"
    model = load_checkpoint(file, which, device=str(device))  # type: ignore[arg-type]
    if not isinstance(model, SKELCF):
        held = "a focal-length network" if isinstance(model, FLNet) else "a backbone without a head"
        raise InputError(f"holds {held}", file=file, expected="a SKEL-CF or HSMR network")
    return model
