"""Tracks of a film fitted as motions: one shape and steady keypoints per person (`--smooth`).

A film is taken in stretches, fitted with some frames more on both sides, so that memory does not grow with the film and
neighbouring stretches nearly agree where they meet. The first stretch of a track tells its shape. What is left between
stretches fades over the first frames of the later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from fitting import KeypointBody, KeypointFitOptions, SKELStart
from schemas import Columns, table_to_columns
from train.predict.bodies import described, fitted
from train.predict.parts import PartFacts, Parts

_PARTS = 4
"""Of a stretch: 512 frames."""
_MORE = 16
"""Frames more on each side of a stretch; over as many of its own it turns away from the stretch before."""
_GOES_ON = ("frame", "track", "smoothed", "poses", "trans", "betas")
"""What a stretch takes from the one before."""
_FEWEST = 5
"""Detections; shorter tracks stay as each frame alone has them."""
_USUAL_RATE = 30.0
"""Frames a second for which the fit's usual acceleration is meant."""


@dataclass(frozen=True)
class Smoother:
    """Smooths the film of a unit."""

    body: KeypointBody
    parts: Parts
    from_network: bool
    """refine what a network estimated, rather than search anew"""

    def run(self, unit: int, tracks: list[np.ndarray], progress: Callable[[int], object]) -> None:
        """Makes the smoothed parts that are missing; `tracks` are the numbers of the people of each part."""
        for number in range(0, len(tracks), _PARTS):
            path = self.parts.smooth_path(unit, number // _PARTS)
            own = range(number, min(number + _PARTS, len(tracks)))
            if not path.exists():
                before = self.parts.smooth_path(unit, number // _PARTS - 1) if number else None
                self.parts.write(path, self._stretch(unit, tracks, own, before), PartFacts())
            progress(len(own))

    def _stretch(self, unit: int, tracks: list[np.ndarray], own: range, before: Path | None) -> Columns:
        around = range(max(own.start - 1, 0), min(own.stop + 1, len(tracks)))
        tables = [self.parts.read(self.parts.path(unit, n)).table for n in around]
        columns = {name: values.copy() for name, values in table_to_columns(pa.concat_tables(tables)).items()}
        columns.setdefault("converged", np.ma.masked_all(len(columns["box"]), bool))
        columns["track"] = np.concatenate([tracks[n] for n in around])
        frames = np.asarray(columns["frame"])
        origin = np.concatenate([np.full(len(table), n) for n, table in zip(around, tables, strict=True)])
        is_own = (origin >= own.start) & (origin < own.stop)
        if not is_own.any():
            return {name: values[is_own] for name, values in columns.items()}
        step = _step(frames)
        first, last = frames[is_own].min() - _MORE * step, frames[is_own].max() + _MORE * step
        near = np.flatnonzero((frames >= first) & (frames <= last))
        earlier = {} if before is None else table_to_columns(self.parts.read(before, _GOES_ON).table)
        for track in np.unique(columns["track"][is_own]):
            rows = near[columns["track"][near] == track]
            if len(rows) >= _FEWEST:
                self._fit(columns, rows, step, _shape(earlier, track))
        _fade(columns, earlier, step)
        kept = {name: values[is_own] for name, values in columns.items()}
        return kept | described(self.body, kept)

    def _fit(self, columns: Columns, rows: np.ndarray, step: int, betas: np.ndarray | None) -> None:
        """Puts the motion of one person, whose shape may be known, in place of each frame's own fit."""
        frames = np.asarray(columns["frame"])[rows]
        places = (frames - frames[0]) // step
        count = int(places[-1]) + 1
        keypoints = np.zeros((count, *columns["detected_keypoints"].shape[1:]))
        keypoints[places] = columns["detected_keypoints"][rows]
        nearest = np.searchsorted(places, np.arange(count), side="right") - 1  # of frames without a detection: the last
        focal, principal = columns["focal"][rows][nearest], columns["principal"][rows][nearest]
        times = np.asarray(columns["time_s"])[rows]
        usual = KeypointFitOptions()
        interval = max(times[-1] - times[0], 1e-3) / max(count - 1, 1)
        options = replace(usual, acceleration=usual.acceleration * (interval * _USUAL_RATE) ** 2)
        start = None
        if self.from_network:
            start = SKELStart(*(torch.as_tensor(columns[n][rows][nearest]) for n in ("poses", "betas", "trans")))
        found = fitted(self.body, keypoints, focal, principal, start=start, track=True, betas=betas, options=options)
        good = np.isfinite(found["poses"]).all(1)[places]
        for name in ("poses", "betas", "trans"):
            columns[name][rows[good]] = found[name][places[good]]
        columns["smoothed"][rows[good]] = True
        columns["converged"][rows[good]] = found["converged"][places[good]]


def _shape(before: Columns, track: int) -> np.ndarray | None:
    """(10,) the shape of a track in the stretch before; None where it was not smoothed there."""
    known = np.flatnonzero((before["track"] == track) & before["smoothed"]) if "track" in before else ()
    return before["betas"][known[-1]] if len(known) else None


def _fade(columns: Columns, before: Columns, step: int) -> None:
    """Moves a stretch's first frames towards the end of the stretch before, whose last frames it has as well."""
    frames, tracks = np.asarray(columns["frame"]), columns["track"]
    for track in np.unique(before["track"]) if "track" in before else ():
        last = np.flatnonzero(before["track"] == track)[-1]
        end = before["frame"][last]
        here = np.flatnonzero((tracks == track) & (frames == end) & columns["smoothed"])
        if not (before["smoothed"][last] and len(here)):
            continue
        rows = np.flatnonzero((tracks == track) & (frames > end) & (frames <= end + _MORE * step) & columns["smoothed"])
        share = (1 - (frames[rows] - end) / ((_MORE + 1) * step))[:, None]
        turn = before["poses"][last] - columns["poses"][here[0]]
        turn[:3] = (turn[:3] + np.pi) % (2 * np.pi) - np.pi  # the pelvis may have gone round
        columns["poses"][rows] += share * turn
        columns["trans"][rows] += share * (before["trans"][last] - columns["trans"][here[0]])


def _step(frames: np.ndarray) -> int:
    """Frames from one that was looked at to the next."""
    apart = np.diff(np.unique(frames))
    return int(np.gcd.reduce(apart)) if len(apart) else 1
