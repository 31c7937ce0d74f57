"""Films, frame by frame, as people see them: by PyAV, the extra `[video]`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files.jpeg import MAX_PIXELS
from pipelines.files.pictures import turned
from schemas import InputError

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

_TURNS = {0: 1, -90: 6, 90: 8, 180: 3, -180: 3}
"""Degrees against the clock by which a film's display matrix turns it -> EXIF's word for that."""

_ASSUMED_RATE = Fraction(30)
_MOST_PIXELS = 8192 * 4320
"""The largest frames of films (8K). A decoder may keep 17 of them, so that it must know before it makes room."""


_LIMITS = {"max_pixels": str(_MOST_PIXELS)}


class FilmError(ValueError):
    """A film, or what is left of it, cannot be read. `frame` is the first that is lost; 0 for the whole film."""

    def __init__(self, problem: str, frame: int) -> None:
        super().__init__(problem)
        self.frame = frame


@dataclass(frozen=True)
class Frame:
    """One frame."""

    number: int
    """from 0"""
    time_s: float
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB, turned, with square pixels"""
    orientation: int
    """EXIF orientation that was applied"""


@dataclass(frozen=True)
class FilmFacts:
    """What the container says, before anything is decoded."""

    frames: int
    """about; 0 if it does not say"""
    rate: float
    """frames per second, on average"""


def film_facts(path: Path) -> FilmFacts:
    """Raises FilmError for what is no film, InputError without PyAV."""
    with _open(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or _ASSUMED_RATE
        seconds = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, 10**6)
        return FilmFacts(stream.frames or int(seconds * rate), float(rate))


def film_frames(path: Path, start: int = 0, every: int = 1) -> Iterator[Frame]:
    """Frames `start`, `start` + `every`, ... to the end; those between are decoded and dropped.

    Raises FilmError, after the frames before it, where the film is damaged or ends before its header says.
    """
    with _open(path) as (container, stream):
        number = 0
        rate = stream.average_rate or stream.guessed_rate or _ASSUMED_RATE
        ratio = stream.codec_context.sample_aspect_ratio or 1
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise FilmError("a damaged frame", number)
                if number >= start and (number - start) % every == 0:
                    yield _seen(frame, number, rate, ratio)
                number += 1
        except _av().FFmpegError as error:
            raise FilmError(_words(error), number) from error
        if number == 0:
            raise FilmError("no frames in it", 0)
        if number < stream.frames:
            raise FilmError(f"ends after {number:,} of {stream.frames:,} frames", number)


class FilmWriter:
    """Writes frames (H, W, 3) uint8 RGB of one size as an H.264 film (.mp4); a context."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._container is None:
            return
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def write(self, pixels: np.ndarray) -> None:
        """Odd sides lose their last line: the codec's colours are one for two pixels."""
        av = _av()
        height, width = (side - side % 2 for side in pixels.shape[:2])
        if self._container is None:
            self._container = av.open(str(self.path), "w", format="mp4")
            self._stream = self._container.add_stream("h264", rate=Fraction(self.rate).limit_denominator(1001))
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        problem = "films need the library av, which is not installed"
        raise InputError(problem, expected="pip install hmr-skel[video]") from error
    return av


@contextmanager
def _open(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    av = _av()
    try:
        container = av.open(str(path), options=_LIMITS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FilmError(_words(error), 0) from error
    with container:
        if not container.streams.video:
            raise FilmError("no pictures in it", 0)
        stream = container.streams.video[0]
        if (codec := stream.codec_context) is None:
            raise FilmError("a codec that is not read", 0)
        if codec.width * codec.height > _MOST_PIXELS:
            raise FilmError(f"frames of {codec.width} x {codec.height} pixels", 0)
        codec.options = _LIMITS  # frames may become larger than the container says
        yield container, stream


def _seen(frame: av.VideoFrame, number: int, rate: Fraction, ratio: Fraction | int) -> Frame:
    orientation = _TURNS.get(round(frame.rotation))
    if orientation is None:
        raise FilmError(f"turned by {frame.rotation} degrees, which is not read", number)
    width = max(1, round(frame.width * ratio))
    if width * frame.height > MAX_PIXELS:
        raise FilmError(f"a frame of {width} x {frame.height} pixels", number)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    time = float(number / rate) if frame.time is None else frame.time
    return Frame(number, time, turned(pixels, orientation), orientation)


def _words(error: Exception) -> str:
    """One line of an error of FFmpeg's, without the name of the file."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
