"""SMPL and SKEL body models and the fit from one to the other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitting.fitter import FitOptions, SKELFitter
    from fitting.limits import read_limits
    from fitting.result import SKELFit
    from fitting.skel import SKEL
    from fitting.smpl import load_smpl

_HOME = {
    "SKEL": "fitting.skel",
    "load_smpl": "fitting.smpl",
    "SKELFitter": "fitting.fitter",
    "SKELFit": "fitting.result",
    "FitOptions": "fitting.fitter",
    "read_limits": "fitting.limits",
}

__all__ = ["SKEL", "FitOptions", "SKELFit", "SKELFitter", "load_smpl", "read_limits"]


def __getattr__(name: str):
    # torch takes seconds to import; command lines that only need fitting's options must not pay for it.
    if name not in _HOME:
        raise AttributeError(f"module 'fitting' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
