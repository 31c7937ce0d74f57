"""What is made of predictions.parquet for other programs: meshes, OpenSim's files, the layout of the released demo."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from fitting import SKEL
from pipelines.files.npz import write_npz
from pipelines.files.parquet import parquet_problems
from pipelines.files.predictions import FILE_NAME, frame_rate
from pipelines.files.storage import published
from pipelines.hand_on.body_meshes import write_bodies
from pipelines.hand_on.predicted_motions import double_skel, write_person
from schemas import Columns, table_to_columns
from train.network.camera import Framing, translation_to_cam
from train.predict.detect.people import squares
from train.predict.inputs import InputFile

log = logging.getLogger(__name__)

MESHES, EXPORT, OPENSIM = "meshes", "export", "opensim"

_NAMES = ("source", "frame", "time_s", "track", "poses", "betas", "trans", "joints", "focal", "principal", "box")


def pictures_of(output: Path) -> Iterator[tuple[str, int | None, Columns]]:
    """(source, frame, people) of each picture and frame that shows somebody, in the file's order."""
    file = output / FILE_NAME
    with parquet_problems(file), pq.ParquetFile(file, pre_buffer=False) as stored:
        for group in range(stored.num_row_groups):  # no picture is in two of them
            table = stored.read_row_group(group, columns=_NAMES, use_threads=False)
            keys = list(zip(table["source"].to_pylist(), table["frame"].to_pylist(), strict=True))
            columns, start = table_to_columns(table), 0
            for (source, frame), rows in groupby(keys):
                count = len(list(rows))
                yield source, frame, {name: v[start : start + count].copy() for name, v in columns.items()}
                start += count


@dataclass
class PeopleInOrder:
    """The people of pictures and frames that are asked for in the order of the sources."""

    output: Path
    sources: Sequence[InputFile]
    _head: tuple[tuple[int, int], Columns] | None = None
    _rest: Iterator[tuple[tuple[int, int], Columns]] = field(init=False)
    _places: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._places = {source.name: n for n, source in enumerate(self.sources)}
        found = pictures_of(self.output)
        self._rest = (((self._places[source], frame or 0), people) for source, frame, people in found)
        self._head = next(self._rest, None)

    def __call__(self, source: str, frame: int | None) -> Columns | None:
        """None for nobody."""
        wanted = self._places[source], frame or 0
        while self._head is not None and self._head[0] < wanted:
            self._head = next(self._rest, None)
        return self._head[1] if self._head is not None and self._head[0] == wanted else None


def write_meshes(
    output: Path, sources: Sequence[InputFile], skel: SKEL, ending: str, progress: Callable[[int], object]
) -> int:
    """Write OUTPUT/meshes: a file per picture, of films one per frame in a folder; how many pictures have one.

    y up, m. Those that an earlier run has written stay. Raises OSError if one cannot be written.
    """
    stems, count = {source.name: source.stem for source in sources}, 0
    for source, frame, people in pictures_of(output):
        name = f"{stems[source]}.{ending}" if frame is None else f"{stems[source]}/{frame:06d}.{ending}"
        path = output / MESHES / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bodies(path, skel, people["poses"], people["betas"], people["trans"])
        count += 1
        progress(1)
    return count


def write_opensim(
    output: Path, sources: Sequence[InputFile], skel: SKEL, every: int, progress: Callable[[int], object]
) -> int:
    """Write OUTPUT/opensim: a model, motion, markers and angles of each person of a picture and each track of a film.

    How many models. Films were looked at in steps of `every` frames. Raises InputError if one cannot be written.
    """
    by_name, skel, count = {source.name: source for source in sources}, double_skel(skel), 0
    for name, found in groupby(pictures_of(output), lambda picture: picture[0]):
        pictures = [people for _, _, people in found]
        people, folder = _together(pictures), output / OPENSIM / by_name[name].stem
        parameters = people["poses"], people["betas"], people["trans"]
        if not by_name[name].is_film:
            for n in range(len(people["poses"])):
                write_person(folder / f"person_{n}", skel, *(values[[n]] for values in parameters))
                count += 1
        else:
            frames, tracks = people["frame"].astype(int), people["track"].astype(int)
            rate = frame_rate(frames, people["time_s"]) / every
            for track in np.unique(tracks).tolist():
                own = tracks == track
                shown = (values[own] for values in parameters)
                jumps = write_person(folder / f"track_{track}", skel, *shown, frames[own] // every, rate)
                if jumps:
                    log.warning("%s: %d angles of track %d jump from frame to frame (see --smooth)", name, jumps, track)
                count += 1
        progress(len(pictures))
    return count


def write_exports(output: Path, sources: Sequence[InputFile], margin: float, progress: Callable[[int], object]) -> int:
    """Write OUTPUT/export: an .npz per picture or film; how many. Raises OSError if one cannot be written.

    poses (B, 46), betas (B, 10), trans (B, 3), joints (B, 24, 3), cam (B, 3), box_center (B, 2), box_size (B,), focal;
    of films, where B goes over frames, also frame (B,) and track (B,).
    """
    stems, count = {source.name: source.stem for source in sources}, 0
    for source, found in groupby(pictures_of(output), lambda picture: picture[0]):
        frames = [people for _, _, people in found]
        people = _together(frames)
        path = output / EXPORT / f"{stems[source]}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with published(path) as hidden, hidden.open("wb") as file:
            write_npz(file, exported(people, margin))
        count += 1
        progress(len(frames))
    return count


def _together(pictures: Sequence[Columns]) -> Columns:
    """The people of several pictures or frames of one source."""
    return {name: np.concatenate([np.ma.getdata(people[name]) for people in pictures]) for name in pictures[0]}


def exported(people: Columns, margin: float) -> dict[str, np.ndarray]:
    """Arrays of the layout, of people of one picture or film."""
    centers, sides = squares(people["box"].astype(np.float64), margin)
    tensors = (torch.as_tensor(v, dtype=torch.float64) for v in (centers, sides, people["focal"], people["principal"]))
    cam = translation_to_cam(torch.as_tensor(people["trans"], dtype=torch.float64), Framing(*tensors))
    arrays = {name: people[name] for name in ("poses", "betas", "trans", "joints")}
    arrays |= {"focal": people["focal"][0], "cam": cam.numpy().astype(np.float32)}
    arrays |= {"box_center": centers, "box_size": sides}
    return arrays | {name: people[name] for name in ("frame", "track") if name in people}
