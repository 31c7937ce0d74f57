"""Predicted people for OpenSim: a model of each, her motion or pose, markers, angles. Source frame: a camera's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.hand_on.angle_jumps import find_jumps
from pipelines.hand_on.opensim import MotionFiles, ground_motion, write_motion

if TYPE_CHECKING:
    from fitting import SKEL

_UP = "camera"
_PARAMETERS = ("poses", "betas", "trans")


def double_skel(skel: SKEL) -> SKEL:
    """The body model as `write_person` takes it; float32 is too little for a motion that is differentiated."""
    import torch

    return copy.deepcopy(skel).to("cpu", torch.float64)


def write_person(
    base: Path,
    skel: SKEL,
    poses: np.ndarray,
    betas: np.ndarray,
    trans: np.ndarray,
    frames: np.ndarray | None = None,
    frame_rate: float = 1.0,
) -> int:
    """Writes BASE.osim, .mot, .trc and .csv of a person, and of a motion BASE.png: angles over time.

    Poses (T, 46), betas (T, 10), trans (T, 3) in a camera's frame, y down: what is up in the picture is up in OpenSim,
    so that a camera that looks down leans the ground. `frames` (T,) grow, some may be missing; None is a picture's one
    pose, at 0 s. `skel` is in float64 on the CPU. Returns how many angles jump between two frames.

    Raises InputError if a file cannot be written.
    """
    frames = np.arange(len(poses)) if frames is None else np.asarray(frames, int)
    if not len(frames) == len(poses) or (np.diff(frames) < 1).any():
        raise ValueError("frames must grow, one for each pose")
    first = int(frames[0])
    valid = np.zeros(frames[-1] - first + 1, bool)
    valid[frames - first] = True
    fit = {"valid": valid}
    for name, values in zip(_PARAMETERS, (poses, betas, trans), strict=True):
        fit[name] = np.zeros((len(valid), values.shape[1]))
        fit[name][frames - first] = values
    motion = ground_motion(skel, fit, first, frame_rate, _UP)
    files = MotionFiles(
        *(base.with_name(f"{base.name}{ending}") for ending in (".mot", ".trc", ".osim", ".csv")),
        plot=base.with_name(f"{base.name}.png") if len(frames) > 1 else None,
    )
    write_motion(files, skel, fit, motion, _UP)
    return len(find_jumps(motion))
