"""The coarse-to-fine regressor of SKEL parameters from one image, and its training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.network.checkpoints import load_checkpoint
    from train.network.flnet import FLNet
    from train.network.model import SKELCF

_HOME = {
    "SKELCF": "train.network.model",
    "FLNet": "train.network.flnet",
    "load_checkpoint": "train.network.checkpoints",
}

__all__ = ["SKELCF", "FLNet", "load_checkpoint"]


def __getattr__(name: str):
    # torch takes seconds to import; command lines that only need train's options must not pay for it.
    if name not in _HOME:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
