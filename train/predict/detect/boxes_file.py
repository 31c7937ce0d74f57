"""Boxes that somebody else has found, from a file (`box_rows`).

Pictures and films are named as the file likes: by path, by base name, by stem, or by COCO's number.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from schemas import InputError
from train.predict.detect.box_rows import BoxRow, csv_rows, json_rows
from train.predict.detect.people import DetectedPeople, nobody
from train.predict.inputs import InputFile

log = logging.getLogger(__name__)

_LARGEST_FILE = 1 << 28
"""Bytes; COCO's largest list of results has 110 million."""


@dataclass(frozen=True)
class GivenPeople:
    """The people of a picture or frame, best first, and the rows of the file where they stand."""

    people: DetectedPeople
    rows: tuple[int, ...]


@dataclass(frozen=True)
class BoxesFile:
    """The people of each picture and of each frame of each film that a file names."""

    path: Path = Path()
    pictures: dict[str, GivenPeople] = field(default_factory=dict)
    """by the picture's name or number, as the file has it"""
    films: dict[str, dict[int, GivenPeople]] = field(default_factory=dict)
    """by the film's name or number, and by frame"""

    def of(self, source: str | Path, frame: int | None = None, size: tuple[int, int] | None = None) -> DetectedPeople:
        """The people of a picture, or of a frame of a film; nobody where the file does not name it.

        Raises InputError for a box outside of the picture's `size`, width and height in px.
        """
        name = self._name(source, frame is not None)
        given = None
        if name is not None:
            given = self.pictures[name] if frame is None else self.films[name].get(frame)
        if given is None:
            return nobody()
        boxes = given.people.boxes
        outside = np.flatnonzero(((boxes[:, :2] >= size) | (boxes[:, 2:] <= 0)).any(1)) if size else ()
        if len(outside):
            raise InputError(
                f"{boxes[outside[0]].tolist()} shows nothing of the picture {source}",
                file=self.path,
                row=given.rows[outside[0]],
                field="box",
                expected=f"boxes in {size[0]} x {size[1]} px",
            )
        return given.people

    def beyond(self, film: str | Path, end: int, every: int = 1) -> tuple[int, int, int] | None:
        """Of boxes in each so many-th frame of a film that are for frames from its `end` on: first frame and its row,
        and how many frames; None without."""
        name = self._name(film, True)
        late = sorted(n for n in self.films.get(name, ()) if n >= end and n % every == 0)
        return (late[0], self.films[name][late[0]].rows[0], len(late)) if late else None

    def check(self, sources: Sequence[InputFile], every: int = 1) -> None:
        """Hold the names of the file to the pictures and films that are looked at; what is not there is told.

        Raises InputError where none is, where a name may mean two of them, and for frames of pictures and none of
        films.
        """
        used: dict[tuple[bool, str], InputFile] = {}
        for source in sources:
            name = self._name(source.path, source.is_film)
            if name is None:
                continue
            other = used.setdefault((source.is_film, name), source)
            if other is not source:
                raise InputError(
                    f"{name} may be {other.name} or {source.name}",
                    file=self.path,
                    row=self._row(source.is_film, name),
                    field="image",
                    expected="a path that tells which",
                )
        for source in sources:
            name = self._name(source.path, not source.is_film)
            if name is None or (not source.is_film, name) in used or self._name(source.path, source.is_film):
                continue
            raise InputError(
                f"no frame given of the film {source.name}"
                if source.is_film
                else f"a frame given of the picture {source.name}",
                file=self.path,
                row=self._row(not source.is_film, name),
                field="frame",
                expected="a number from 0" if source.is_film else "frames of films only",
            )
        self._tell_absent(used)
        left_out = sum(n % every > 0 for is_film, name in used if is_film for n in self.films[name])
        if left_out:
            log.warning("%s: boxes of %d frames are not used, which --every %d leaves out", self.path, left_out, every)

    def _tell_absent(self, used: Iterable[tuple[bool, str]]) -> None:
        named = {(False, name) for name in self.pictures} | {(True, name) for name in self.films}
        absent = sorted((self._row(*key), key[1]) for key in named - set(used))
        if not absent:
            return
        row, name = absent[0]
        if len(absent) == len(named):
            problem = f"{name} is none of the pictures and films that are looked at, nor is any other of the file"
            raise InputError(problem, file=self.path, row=row, field="image", expected="names of theirs")
        log.warning(
            "%s: %d of %d pictures and films of it are not looked at, the first %s (row %d)",
            *(self.path, len(absent), len(named), name, row),
        )

    def _name(self, source: str | Path, is_film: bool) -> str | None:
        """What the file calls a picture or a film."""
        parts, stem = Path(source).as_posix().split("/"), Path(source).stem
        number = re.search(r"\d+$", stem)
        names = ["/".join(parts[n:]) for n in range(len(parts))] + [stem]
        names += [str(int(number[0]))] if number else []
        named = self.films if is_film else self.pictures
        return next((name for name in names if name in named), None)

    def _row(self, is_film: bool, name: str) -> int:
        """The first row that names it."""
        given = self.films[name].values() if is_film else [self.pictures[name]]
        return min(min(people.rows) for people in given)


def read_boxes(path: str | Path) -> BoxesFile:
    """Boxes from a CSV or JSON file. Raises InputError, with row and field, for anything else."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise InputError(f"more than {_LARGEST_FILE} bytes", file=path, expected="boxes as CSV or JSON")
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"cannot be read: {reason}", file=path, expected="boxes as CSV or JSON") from error
    pictures: dict[str, list[BoxRow]] = defaultdict(list)
    films: dict[str, dict[int, list[BoxRow]]] = defaultdict(lambda: defaultdict(list))
    for row in csv_rows(text, path) if path.suffix.lower() == ".csv" else json_rows(text, path):
        (pictures[row.picture] if row.frame is None else films[row.picture][row.frame]).append(row)
    for frames in films.values():
        _check_tracks(frames, path)
    return BoxesFile(
        path,
        {name: _people(rows) for name, rows in pictures.items()},
        {name: {n: _people(rows) for n, rows in frames.items()} for name, frames in films.items()},
    )


def _check_tracks(frames: dict[int, list[BoxRow]], path: Path) -> None:
    """Raises InputError for a track that is in a frame twice, and where only some of a film's boxes have tracks."""
    first = next(iter(frames.values()))[0]
    for frame, rows in frames.items():
        seen: set[int] = set()
        for row in rows:
            if (row.track is None) != (first.track is None):
                problem = f"row {first.number} of the same film has {'no' if first.track is None else 'a'} track"
                raise InputError(problem, file=path, row=row.number, field="track", expected="all of a film, or none")
            if row.track in seen:
                problem = f"{row.track} is in frame {frame} twice"
                raise InputError(problem, file=path, row=row.number, field="track", expected="one box of each track")
            if row.track is not None:
                seen.add(row.track)


def _people(rows: list[BoxRow]) -> GivenPeople:
    order = np.argsort([-row.score for row in rows], kind="stable")
    rows = [rows[n] for n in order]
    has = lambda name: all(getattr(row, name) is not None for row in rows)  # noqa: E731
    people = DetectedPeople(
        np.array([row.box for row in rows]),
        np.array([row.score for row in rows]),
        np.array([row.keypoints for row in rows]) if has("keypoints") else None,
        np.array([row.track for row in rows]) if has("track") else None,
    )
    return GivenPeople(people, tuple(row.number for row in rows))
