"""Tables that OpenSim reads: motions (.mot), markers (.trc); and joint angles as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fitting.anatomy import COORDINATE_NAMES
from pipelines.convert.ground import GroundMotion

ROOT = 3
"""Pelvis angles; in a .mot its position stands behind them."""
PELVIS_POSITION = ("pelvis_tx", "pelvis_ty", "pelvis_tz")
MOTION_COLUMNS = ("time", *COORDINATE_NAMES[:ROOT], *PELVIS_POSITION, *COORDINATE_NAMES[ROOT:])


def motion_table(motion: GroundMotion) -> np.ndarray:
    """(T, 50) what MOTION_COLUMNS name: seconds, degrees, metres."""
    degrees = np.degrees(motion.angles)
    return np.concatenate([motion.times[:, None], degrees[:, :ROOT], motion.pelvis, degrees[:, ROOT:]], axis=1)


def mot_text(motion: GroundMotion, made_with: str = "") -> str:
    """The motion as an OpenSim motion file: joint angles in degrees, the pelvis in metres.

    `made_with`, a line of its head, names the body models.
    """
    table = motion_table(motion)
    header = [
        "Coordinates",
        "version=1",
        f"nRows={len(table)}",
        f"nColumns={table.shape[1]}",
        "inDegrees=yes",
        "",
        "Units are S.I. units (second, meters, Newtons, ...)",
        "Angles are in degrees.",
        *([f"Fitted with body models: {made_with}."] if made_with else []),
        "",
        "endheader",
        "\t".join(MOTION_COLUMNS),
    ]
    return _numbers(table, "\t", header)


def angles_csv(motion: GroundMotion) -> str:
    """The columns of the motion file as CSV, named with their units in the first line."""
    units = ["s", *["deg"] * ROOT, *["m"] * len(PELVIS_POSITION), *["deg"] * (len(COORDINATE_NAMES) - ROOT)]
    head = io.StringIO()
    csv.writer(head, lineterminator="").writerow(f"{n} ({u})" for n, u in zip(MOTION_COLUMNS, units, strict=True))
    return _numbers(motion_table(motion), ",", [head.getvalue()])


def trc_text(motion: GroundMotion, names: Sequence[str], points: np.ndarray, file: Path) -> str:
    """Marker positions `points` (T, M, 3), m in the ground, as a marker file. Frames are counted from 1."""
    frames, markers = points.shape[:2]
    rate = f"{motion.frame_rate:.10g}"
    header = [
        f"PathFileType\t4\t(X/Y/Z)\t{file.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate}\t{rate}\t{frames}\t{markers}\tm\t{rate}\t1\t{frames}",
        "\t".join(["Frame#", "Time", *(f"{name}\t\t" for name in names)]).rstrip("\t"),
        "\t".join(["", "", *(f"{axis}{n}" for n in range(1, markers + 1) for axis in "XYZ")]),
        "",
    ]
    rows = np.concatenate([motion.frames[:, None] + 1, motion.times[:, None], points.reshape(frames, -1)], axis=1)
    return _numbers(rows, "\t", header)


def _numbers(table: np.ndarray, between: str, header: Sequence[str]) -> str:
    lines = [*header, *(between.join(f"{value:.9g}" for value in row) for row in table.tolist())]
    return "\n".join(lines) + "\n"
