"""What a page shows: bodies, when each is to be seen, and the pictures that they were seen in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fitting import SKEL

CAMERA = "camera"
"""The frame of UP_AXES that people are in who were seen by one."""


@dataclass(frozen=True)
class View:
    """A picture and the camera that saw the person in it."""

    image: bytes
    """As it is stored, JPEG or PNG."""
    media_type: str
    size: tuple[int, int]
    """Width and height, px."""
    camera: np.ndarray
    """(2, 3) from homogeneous directions of the camera's frame (x right, y down, z forward) to pixels."""


@dataclass(frozen=True)
class Clip:
    """T bodies, each a person at a moment, with the body model that they are parameters of.

    Moments are what the slider goes over: frames of a motion, pictures, or people that are looked at one by one.
    """

    title: str
    skel: SKEL
    body: str
    """Name of the body models."""
    poses: np.ndarray
    """(T, 46) rad"""
    betas: np.ndarray
    """(T, 10)"""
    trans: np.ndarray
    """(T, 3) m"""
    moments: np.ndarray
    """(T,) int, when each is to be seen, from 0"""
    people: np.ndarray
    """(T,) int, which of `names` each is; nobody is there twice at a moment, and moments of a person grow"""
    captions: list[str]
    """of each body"""
    up: str
    """Which axis of the source points up, of UP_AXES."""
    frame_rate: float | None = None
    """Frames per second of a motion; None if these are separate people."""
    begins: float = 0.0
    """Of a motion: when its source shows the first moment, s."""
    views: Sequence[View | None] = ()
    """For each moment, or none at all."""
    names: Sequence[str] = ("",)
    """Of the people, as they are chosen on the page."""
    titles: Sequence[str] = ()
    """Of the moments; none where captions say it all."""

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def count(self) -> int:
        """How many moments there are."""
        return len(self.titles) or int(self.moments.max()) + 1

    @property
    def extent(self) -> str:
        """How much it is, in words."""
        count, names = self.count, len(self.names)
        if self.frame_rate is not None:
            return f"{count:,} frames at {self.frame_rate:g}/s" + (f", {names:,} people" if names > 1 else "")
        people = f"{len(self):,} {'people' if len(self) > 1 else 'person'}"
        return f"{count:,} {'pictures' if count > 1 else 'picture'}, {people}" if self.titles else people

    def rows_of(self, person: int) -> np.ndarray:
        """Bodies of a person, in time."""
        return np.flatnonzero(self.people == person)


def one_by_one(count: int) -> dict[str, np.ndarray]:
    """Moments and people of a clip that shows one body at a time."""
    return {"moments": np.arange(count), "people": np.zeros(count, int)}
