"""Who is who in a film: detections of one person in frame after frame get one number.

Each track moves on as it moved over the last half second, at one velocity, box and keypoints alike; a detection goes on
with the track that is then most like it: the mean of how far their boxes overlap and how well their keypoints agree
(`detect.people`), all pairs of a frame together (Hungarian). Whoever stopped or turned back is looked for where they
were last as well, which counts for less. Below a bound, or after a second without a detection, a new track begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from train.predict.detect.people import SEEN, DetectedPeople, agreement, intersection_over_union

_LEAST_ALIKE = 0.1
"""Of somebody who walks past a camera, frames a thirtieth of a second apart have 0.8 and more."""
_LONGEST_GAP = 1.0
"""s"""
_STAYED = 0.75
"""Worth of being like a track where it was last, against where it should be by now."""
_MOTION = 0.5
"""s, about a step of somebody who walks: over it the swing of arms and legs leaves the median where the trunk is."""
_FEWEST_BEFORE = 1
"""Detections before the last one, without which somebody is taken to stand."""
_FEWEST_SHARED = 4
"""Keypoints that two detections must both show; else the middle of the box tells how somebody moved."""


@dataclass
class _Track:
    """One person so far."""

    number: int
    seen: list[tuple[float, DetectedPeople]] = field(default_factory=list)
    """times (s) and detections: the last one, and those of half a second before it or as many as are needed"""

    def add(self, time_s: float, person: DetectedPeople) -> None:
        near = [entry for entry in self.seen if time_s - entry[0] <= _MOTION]
        self.seen = [*max(near, self.seen[-_FEWEST_BEFORE:], key=len), (time_s, person)]

    @property
    def last_time(self) -> float:
        return self.seen[-1][0]

    def at(self, time_s: float) -> DetectedPeople:
        """The person where the motion so far leads to."""
        way = self._velocity() * (time_s - self.last_time)
        person = self.seen[-1][1]
        return replace(person, boxes=person.boxes + np.tile(way, 2), keypoints=person.keypoints + np.array([*way, 0.0]))

    def _velocity(self) -> np.ndarray:
        """(2,) px / s: the median over keypoints and over detections, each against the last one."""
        now = self.seen[-1][1]
        found = []
        for time_s, before in self.seen[:-1]:
            both = (before.keypoints[0, :, 2] >= SEEN) & (now.keypoints[0, :, 2] >= SEEN)
            if both.sum() >= _FEWEST_SHARED:
                moved = now.keypoints[0, both, :2] - before.keypoints[0, both, :2]
            else:
                moved = (now.boxes - before.boxes).reshape(1, 2, 2).mean(1)
            found.append(moved / (self.last_time - time_s))
        return np.median(np.concatenate(found), 0) if len(found) >= _FEWEST_BEFORE else np.zeros(2)


class Tracker:
    """Numbers of the people of one film; call it with those of each frame, in order."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        """those that can go on"""
        self._count = 0

    def __call__(self, time_s: float, people: DetectedPeople) -> np.ndarray:
        """(n,) numbers, from 0 in the order in which people appear."""
        self._tracks = [track for track in self._tracks if time_s - track.last_time <= _LONGEST_GAP]
        numbers = np.full(len(people), -1, np.int32)
        if self._tracks and len(people):
            alike = _alike([track.at(time_s) for track in self._tracks], people)
            stayed = _alike([track.seen[-1][1] for track in self._tracks], people)
            alike = np.maximum(alike, _STAYED * stayed)
            for old, new in zip(*linear_sum_assignment(-alike), strict=True):
                if alike[old, new] >= _LEAST_ALIKE:
                    numbers[new] = self._tracks[old].number
        for n in np.flatnonzero(numbers < 0):
            numbers[n] = self._count
            self._tracks.append(_Track(self._count))
            self._count += 1
        by_number = {track.number: track for track in self._tracks}
        for n, number in enumerate(numbers.tolist()):
            by_number[number].add(time_s, people.take(np.array([n])))
        return numbers


def track_numbers(tracker: Tracker, columns: dict[str, np.ndarray]) -> np.ndarray:
    """(B,) numbers of the people of a film's part, fields of `schemas.PREDICTION` in the order of frames."""
    frames = np.asarray(columns["frame"])
    numbers = np.zeros(len(frames), np.int32)
    for rows in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames)) + 1):
        if len(rows):
            boxes, keypoints = (columns[name][rows].astype(np.float64) for name in ("box", "detected_keypoints"))
            people = DetectedPeople(boxes, columns["score"][rows].astype(np.float64), keypoints)
            numbers[rows] = tracker(float(columns["time_s"][rows[0]]), people)
    return numbers


def _alike(expected: list[DetectedPeople], people: DetectedPeople) -> np.ndarray:
    """(n, m) how like n expected people m found ones are, 0 to 1."""
    before = _joined(expected)
    return (intersection_over_union(before.boxes, people.boxes) + agreement(before, people)) / 2


def _joined(parts: list[DetectedPeople]) -> DetectedPeople:
    return DetectedPeople(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("boxes", "scores", "keypoints"))
    )
