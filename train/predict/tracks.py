"""Who is who in a film: detections of one person in frame after frame get one number.

A detection goes on with the track whose last detection is most like it: the mean of how far their boxes overlap and
how well their keypoints agree (`detect.people`), all pairs of a frame together (Hungarian). Below a bound, or after a
second without a detection, a new track begins.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from train.predict.detect.people import DetectedPeople, agreement, intersection_over_union

_LEAST_ALIKE = 0.2
"""Of somebody who walks past a camera, frames a thirtieth of a second apart have 0.8 and more."""
_LONGEST_GAP = 1.0
"""s"""


class Tracker:
    """Numbers of the people of one film; call it with those of each frame, in order."""

    def __init__(self) -> None:
        self._last: list[tuple[int, float, DetectedPeople]] = []
        """number, time (s) and last detection of the tracks that can go on"""
        self._count = 0

    def __call__(self, time_s: float, people: DetectedPeople) -> np.ndarray:
        """(n,) numbers, from 0 in the order in which people appear."""
        self._last = [track for track in self._last if time_s - track[1] <= _LONGEST_GAP]
        numbers = np.full(len(people), -1, np.int32)
        if self._last and len(people):
            before = _joined([track[2] for track in self._last])
            overlap = intersection_over_union(before.boxes, people.boxes)
            alike = (overlap + agreement(before, people)) / 2
            for old, new in zip(*linear_sum_assignment(-alike), strict=True):
                if alike[old, new] >= _LEAST_ALIKE:
                    numbers[new] = self._last[old][0]
        for n in np.flatnonzero(numbers < 0):
            numbers[n] = self._count
            self._count += 1
        seen = {int(number): people.take(np.array([n])) for n, number in enumerate(numbers)}
        going_on = [track for track in self._last if track[0] not in seen]
        self._last = going_on + [(number, time_s, person) for number, person in seen.items()]
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


def _joined(parts: list[DetectedPeople]) -> DetectedPeople:
    return DetectedPeople(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("boxes", "scores", "keypoints"))
    )
