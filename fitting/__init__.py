"""SMPL and SKEL body models and the fit from one to the other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitting.body.limits import read_limits
    from fitting.body.skel import SKEL
    from fitting.body.smpl import load_smpl
    from fitting.fit.fitter import SKELFitter
    from fitting.fit.keypoint_fit import KeypointFit, KeypointFitOptions, SKELStart, fit_keypoints
    from fitting.fit.keypoint_points import KeypointBody
    from fitting.fit.options import FitOptions
    from fitting.fit.result import SKELFit
    from fitting.fit.sequence import SequenceOptions

_HOME = {
    "SKEL": "fitting.body.skel",
    "load_smpl": "fitting.body.smpl",
    "SKELFitter": "fitting.fit.fitter",
    "SKELFit": "fitting.fit.result",
    "fit_keypoints": "fitting.fit.keypoint_fit",
    "KeypointBody": "fitting.fit.keypoint_points",
    "KeypointFit": "fitting.fit.keypoint_fit",
    "KeypointFitOptions": "fitting.fit.keypoint_fit",
    "SKELStart": "fitting.fit.keypoint_fit",
    "SequenceOptions": "fitting.fit.sequence",
    "FitOptions": "fitting.fit.options",
    "read_limits": "fitting.body.limits",
}

__all__ = [
    "SKEL",
    "FitOptions",
    "KeypointBody",
    "KeypointFit",
    "KeypointFitOptions",
    "SKELFit",
    "SKELFitter",
    "SKELStart",
    "SequenceOptions",
    "fit_keypoints",
    "load_smpl",
    "read_limits",
]


def __getattr__(name: str):
    # torch takes seconds to import; command lines that only need fitting's options must not pay for it.
    if name not in _HOME:
        raise AttributeError(f"module 'fitting' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
