"""What a fitted motion becomes for OpenSim: motion, markers, model; and its angles as a table and as a picture."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.convert.ground import UP_AXES, GroundMotion, detect_up, ground_axes, to_ground
from pipelines.files.outputs import check_output_file, written
from pipelines.hand_on.opensim_markers import JOINT_CENTRES, SKIN_MARKERS, skin_vertices
from pipelines.hand_on.opensim_tables import angles_csv, mot_text, trc_text
from pipelines.read.label_arrays import WORLD_SPELLINGS
from pipelines.read.labels import LabelFile
from schemas import Columns, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from fitting import SKEL

log = logging.getLogger(__name__)

UP_CHOICES = ("auto", *UP_AXES)
ONE_PERSON_MM = 1.0
"""A model is of one shape: people whose joints lie farther than this from its are told of."""

_ROWS_AT_A_TIME = 256
_CAMERA_FIELD = "pose_cam"
"""Poses of this name are in a camera's frame, and those of a file that has the world's besides."""


@dataclass(frozen=True)
class MotionFiles:
    """The files to write; those that are None are not."""

    mot: Path | None = None
    """Motion."""
    trc: Path | None = None
    """Markers: joint centres and skin."""
    osim: Path | None = None
    """Model of the person."""
    angles: Path | None = None
    """Angles and pelvis position as .csv."""
    plot: Path | None = None
    """Angles over time as .png, .svg or .pdf."""

    def __bool__(self) -> bool:
        return any(path is not None for _, path in self._all())

    def check(self) -> None:
        """Raises InputError for a name whose ending is not that of its kind, and for a place that cannot be."""
        endings = {"mot": (".mot",), "trc": (".trc",), "osim": (".osim",), "angles": (".csv",)}
        for name, path in self._all():
            allowed = endings.get(name, (".png", ".svg", ".pdf"))
            if path is not None:
                check_output_file(path, f"--{name}", allowed)

    def _all(self) -> Iterator[tuple[str, Path | None]]:
        yield from vars(self).items()


def resolve_up(option: str, labels: LabelFile, start: int, stop: int) -> str:
    """Which axis is up in rows [start, stop): as the option says, or as the file's fields or its people tell.

    Raises InputError if that is not clear.
    """
    if option != "auto":
        return option
    world = WORLD_SPELLINGS["pose_cam"]
    if labels.members["pose_cam"][0].name == _CAMERA_FIELD or any(name in world for name in labels.other_poses):
        return "camera"
    try:
        return detect_up(labels.read(start, stop, ["pose_cam"])["pose_cam"][:, :3])
    except InputError as error:
        raise InputError(error.problem, file=labels.path, field=error.field, expected=error.expected) from error


def hand_on_motion(
    files: MotionFiles,
    skel: SKEL,
    fit: Columns,
    start: int,
    frame_rate: float,
    up: str,
    out: Console,
    made_with: str = "",
) -> None:
    """Writes the files for a fit of rows from `start` on and says what was made of it: frame, jumps of angles.

    Raises InputError as `write_motion`.
    """
    import torch

    from pipelines.hand_on.angle_jumps import find_jumps, jump_table

    skel = copy.deepcopy(skel).to("cpu", torch.float64)
    motion = ground_motion(skel, fit, start, frame_rate, up)
    write_motion(files, skel, fit, motion, up, made_with)
    frame = "camera's, y down" if up == "camera" else f"{up} up"
    out.print(f"source frame: {frame}; {len(motion):,} frames at {frame_rate:g}/s", highlight=False)
    jumps = find_jumps(motion)
    out.print(jump_table(jumps) if jumps else "no angle jumps between two frames", highlight=False)


def ground_motion(skel: SKEL, fit: Columns, first_row: int, frame_rate: float, up: str) -> GroundMotion:
    """The valid rows of a fit as a motion in the ground; `fit` has what `fitting.SKELFit` has, as arrays."""
    import torch

    kept = np.flatnonzero(fit["valid"])
    dtype = skel.v_template.dtype
    pelvis = skel.rest_joints(torch.as_tensor(fit["betas"][kept], dtype=dtype))[:, 0].numpy() + fit["trans"][kept]
    return to_ground(skel, fit["poses"][kept], pelvis, first_row + kept, frame_rate, up)


def write_motion(
    files: MotionFiles, skel: SKEL, fit: Columns, motion: GroundMotion, up: str, made_with: str = ""
) -> None:
    """Writes the files asked for. `motion` is that of `fit`, whose source frame has `up`.

    `made_with` are the body models in words, which motion and model tell.

    Raises InputError if one cannot be written, or if there is no valid row to make it from.
    """
    if not len(motion):
        raise InputError("no row could be fitted, so that there is no motion to write")
    if files.mot is not None:
        _save(files.mot, mot_text(motion, made_with))
    if files.angles is not None:
        _save(files.angles, angles_csv(motion))
    if files.trc is not None:
        names = [*JOINT_CENTRES, *(marker.name for marker in SKIN_MARKERS)]
        _save(files.trc, trc_text(motion, names, marker_positions(skel, fit, up), files.trc))
    if files.osim is not None:
        from pipelines.hand_on.opensim_model import write_model

        with _problems(files.osim):
            write_model(files.osim, skel, shape_of_all(skel, fit, files.osim), files.osim.stem, made_with)
    if files.plot is not None:
        from pipelines.draw.angles import plot_angles

        with written(files.plot) as hidden:
            plot_angles(motion.times, motion.angles, hidden, files.plot.suffix.lower().removeprefix("."))


def marker_positions(skel: SKEL, fit: Columns, up: str) -> np.ndarray:
    """(T, M, 3) joint centres and skin markers of the valid rows in the ground, m."""
    import torch

    kept = np.flatnonzero(fit["valid"])
    skin = torch.from_numpy(skin_vertices(skel))
    parts = []
    for first in range(0, len(kept), _ROWS_AT_A_TIME):
        rows = kept[first : first + _ROWS_AT_A_TIME]
        inputs = (
            torch.as_tensor(fit[field][rows], dtype=skel.v_template.dtype) for field in ("poses", "betas", "trans")
        )
        with torch.no_grad():
            body = skel(*inputs)
        parts.append(torch.cat([body.joints, body.vertices[:, skin]], 1).double().numpy())
    return np.concatenate(parts) @ ground_axes(up).T


def shape_of_all(skel: SKEL, fit: Columns, file: Path) -> np.ndarray:
    """(10,) the mean shape of the valid rows; says so aloud if their skeletons differ from its."""
    import torch

    betas = fit["betas"][fit["valid"]].astype(np.float64)
    mean = betas.mean(0)
    joints = skel.rest_joints(torch.as_tensor(np.concatenate([mean[None], betas]), dtype=skel.v_template.dtype))
    bones = (joints - joints[:, :1]).double().numpy()
    off = 1000 * float(np.linalg.norm(bones[1:] - bones[0], axis=-1).max())
    if off > ONE_PERSON_MM:
        log.warning(
            "%s: the rows have several shapes, the model has their mean; joints lie up to %.1f mm elsewhere than "
            "the fit's (one shape is fitted by --sequence, of predictions by --smooth)",
            file,
            off,
        )
    return mean


@contextmanager
def _problems(path: Path) -> Iterator[None]:
    """What cannot be written as an InputError that names the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error


def _save(path: Path, text: str) -> None:
    with written(path) as hidden:
        hidden.write_text(text, encoding="utf-8")
