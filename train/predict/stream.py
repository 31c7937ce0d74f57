"""Pictures and films to parts: decoded, looked at and given bodies, so many at a time, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice

import numpy as np
from torch import nn

from fitting import KeypointBody
from pipelines.files.films import FilmError, Frame, film_facts, film_frames
from pipelines.files.jpeg import ImageError, read_encoded
from pipelines.files.pictures import read_picture
from schemas import PREDICTION, Columns, field_dtype, field_shape
from train.predict.bodies import Estimator, described
from train.predict.detect.people import DetectedPeople
from train.predict.inputs import InputFile
from train.predict.network import estimated_focal
from train.predict.parts import PartFacts, Parts
from train.predict.seen import Finder, SeenPicture

PICTURES_PER_PART = 64
FRAMES_PER_PART = 128


@dataclass(frozen=True)
class Unit:
    """Some pictures, or one film."""

    number: int
    sources: Sequence[InputFile]

    @property
    def film(self) -> InputFile | None:
        return self.sources[0] if self.sources[0].is_film else None


def units_of(sources: Sequence[InputFile]) -> list[Unit]:
    """The sources in their order, neighbouring pictures together."""
    found: list[Unit] = []
    for is_film, group in groupby(sources, lambda source: source.is_film):
        members = list(group)
        step = 1 if is_film else PICTURES_PER_PART
        found += [Unit(len(found) + i, members[n : n + step]) for i, n in enumerate(range(0, len(members), step))]
    return found


@dataclass(frozen=True)
class FocalLengths:
    """Where focal lengths come from: the first that there is of these."""

    option: float = 0.0
    """px; 0 for none"""
    network: nn.Module | None = None

    def focal(self, pixels: np.ndarray, told: float | None) -> tuple[float, str]:
        """Focal length (px) of a picture, of which its file tells one or none, and its source."""
        if self.option:
            return self.option, "option"
        if self.network is not None:
            return estimated_focal(pixels, self.network), "checkpoint"
        if told is not None:
            return told, "exif"
        return estimated_focal(pixels), "assumed"


@dataclass(frozen=True)
class Stream:
    """What makes parts."""

    finder: Finder
    estimator: Estimator
    body: KeypointBody
    camera: FocalLengths
    constants: dict[str, object]
    """fields of `schemas.PREDICTION` that are the same for everybody"""
    every: int = 1
    """of films, each so many-th frame"""

    def run(self, units: Sequence[Unit], parts: Parts, progress: Callable[[int], object]) -> int:
        """Make the parts that are missing; how many pictures and frames were looked at, of which `progress` hears.

        Raises InputError for boxes outside of their picture, OSError if a part cannot be written.
        """
        count = 0

        def counted(pictures: int) -> None:
            nonlocal count
            count += pictures
            progress(pictures)

        for unit in units:
            done = list(parts.of_unit(unit.number))
            facts = [parts.facts(path) for _, path in done]
            if facts and facts[-1].last:
                continue
            if unit.film:
                self._film(unit, len(done), facts[0].focal if facts else None, parts, counted)
            else:
                skipped: list[dict] = []
                columns, facts = self._looked_at(_pictures(unit.sources, self.camera, skipped), counted, skipped)
                parts.write(parts.path(unit.number, 0), columns, replace(facts, skipped=skipped))
        return count

    def _film(
        self,
        unit: Unit,
        number: int,
        focal: tuple[float, str] | None,
        parts: Parts,
        progress: Callable[[int], object],
    ) -> None:
        """The parts of a film from this one on; its focal length is that of its first frame."""
        skipped: list[dict] = []
        frames = _frames(unit.film, number * FRAMES_PER_PART * self.every, self.every, skipped)
        first = next(frames, None)
        if first is not None:
            frames, focal = chain([first], frames), focal or self.camera.focal(first.pixels, None)
        views = (SeenPicture(unit.film.name, f.pixels, f.orientation, *focal, f.number, f.time_s) for f in frames)
        while True:
            columns, facts = self._looked_at(islice(views, FRAMES_PER_PART), progress)
            last = facts.pictures < FRAMES_PER_PART
            if last and not skipped:
                end = (number * FRAMES_PER_PART + facts.pictures) * self.every
                skipped += self._boxes_beyond(unit.film.name, end)
            facts = replace(facts, skipped=skipped, last=last, focal=focal)
            parts.write(parts.path(unit.number, number), columns, facts)
            if last:
                return
            number += 1

    def _boxes_beyond(self, film: str, end: int) -> list[dict]:
        """What is said of boxes for frames that a film does not have."""
        boxes = self.finder.boxes
        late = boxes and boxes.beyond(film, end, self.every)
        if not late:
            return []
        frame, row, frames = late
        problem = f"{boxes.path}, row {row}: no such frame; boxes are given for {frames:,} that the film does not have"
        return [{"source": film, "frame": frame, "problem": problem}]

    def _looked_at(
        self, views: Iterable[SeenPicture], progress: Callable[[int], object], skipped: Sequence[dict] = ()
    ) -> tuple[Columns, PartFacts]:
        """Columns of the people of some views."""
        facts, found, told = PartFacts(), [], 0
        for view in views:
            people = self.finder(view)
            self.estimator.add(view, people)
            facts.pictures += 1
            facts.empty += not len(people)
            found.append(self._detected(view, people))
            progress(1 + len(skipped) - told)
            told = len(skipped)
        progress(len(skipped) - told)
        columns = _joined(found) | self.estimator.finish()
        whole = np.ones(len(columns["box"]), bool)
        for name in ("poses", "betas", "trans"):
            whole &= np.isfinite(columns[name]).all(1)
        facts.unfitted = int((~whole).sum())
        columns = {name: values[whole] for name, values in columns.items()}
        columns["person"] = _numbered(columns)
        return columns | described(self.body, columns), facts

    def _detected(self, view: SeenPicture, people: DetectedPeople) -> Columns:
        keypoints = people.keypoints.copy()
        keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
        keypoints[~np.isfinite(keypoints).all(2)] = 0
        known = {
            **self.constants,
            "source": view.source,
            "frame": view.frame,
            "time_s": view.time_s,
            "picture_size": view.size,
            "orientation": view.orientation,
            "focal": view.focal,
            "focal_source": view.focal_source,
            "principal": view.principal,
        }
        columns = {name: _repeated(name, value, len(people)) for name, value in known.items()}
        found = {"score": people.scores, "box": people.boxes, "detected_keypoints": keypoints}
        columns |= {name: values.astype(np.float32) for name, values in found.items()}
        if people.tracks is not None:
            columns["track"] = np.ma.masked_array(people.tracks.astype(np.int32), np.zeros(len(people), bool))
        return columns


def count_pictures(sources: Sequence[InputFile], every: int) -> int | None:
    """Pictures and frames in all, as containers tell; None if one does not."""
    total = 0
    for source in sources:
        frames = 1
        if source.is_film:
            try:
                frames = film_facts(source.path).frames
            except FilmError:
                continue
            if not frames:
                return None
        total += -(-frames // every) if source.is_film else 1
    return total


def _pictures(sources: Sequence[InputFile], camera: FocalLengths, skipped: list[dict]) -> Iterator[SeenPicture]:
    for source in sources:
        try:
            picture = read_picture(read_encoded(source.path))
        except (ImageError, OSError) as error:
            problem = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            skipped.append({"source": source.name, "frame": None, "problem": problem})
            continue
        yield SeenPicture(
            source.name, picture.pixels, picture.orientation, *camera.focal(picture.pixels, picture.focal)
        )


def _frames(film: InputFile, start: int, every: int, skipped: list[dict]) -> Iterator[Frame]:
    """Frames of a film up to where it is damaged."""
    try:
        yield from film_frames(film.path, start, every)
    except FilmError as error:
        skipped.append({"source": film.name, "frame": error.frame or None, "problem": str(error)})


def _repeated(name: str, value: object, count: int) -> np.ndarray:
    """A field's value for everybody of a picture; None is null."""
    field = PREDICTION.field(name)
    dtype, shape = field_dtype(field), (count, *field_shape(field))
    if value is None and dtype.kind != "O":
        return np.ma.masked_all(shape, dtype)
    column = np.empty(shape, dtype)
    column[:] = value
    return np.ma.masked_array(column, np.zeros(shape, bool)) if field.nullable and dtype.kind != "O" else column


def _joined(parts: Sequence[Columns]) -> Columns:
    if not parts:
        return {name: _repeated(name, None, 0) for name in PREDICTION.names}
    joined = {}
    for name, first in parts[0].items():
        join = np.ma.concatenate if np.ma.isMaskedArray(first) else np.concatenate
        joined[name] = join([part[name] for part in parts])
    return joined


def _numbered(columns: Columns) -> np.ndarray:
    """(B,) how many people of the same view come before."""
    frames = np.ma.filled(columns["frame"], -1)
    numbers = np.zeros(len(frames), np.int32)
    for n in range(1, len(frames)):
        same = columns["source"][n] == columns["source"][n - 1] and frames[n] == frames[n - 1]
        numbers[n] = numbers[n - 1] + 1 if same else 0
    return numbers
