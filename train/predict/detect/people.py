"""What a detector tells of a picture, and what can be said of boxes and keypoints without one.

Pixels have their origin at the outer corner of the top left one; a box is left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COCO_KEYPOINTS = 17
SEEN = 0.2
"""Keypoints with a score from this on count as seen."""

_SAME_PERSON = 0.5
"""Detections whose keypoints (`agreement`) or boxes (intersection over union) agree more than this are one person."""
_KEYPOINT_TOLERANCE = 0.08
"""Scale of where two looks find one keypoint apart, as a share of the square root of the box's area. COCO's own is 0.05
(eyes) to 0.21 (hips)."""
_FEWEST = 4
"""Keypoints that two detections must both see before these tell whether they are one person."""


@dataclass(frozen=True)
class DetectedPeople:
    """The n people of a picture, best first."""

    boxes: np.ndarray
    """(n, 4) float64, px"""
    scores: np.ndarray
    """(n,) float64, 0 to 1"""
    keypoints: np.ndarray | None = None
    """(n, 17, 3) float64: the COCO keypoints x, y in px and a score, from detectors that find them"""
    tracks: np.ndarray | None = None
    """(n,) in a frame of a film, numbers of people, from those who know them"""

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: np.ndarray) -> DetectedPeople:
        """Some of the people."""
        values = (self.boxes, self.scores, self.keypoints, self.tracks)
        return DetectedPeople(*(None if value is None else value[index] for value in values))


Detector = Callable[[np.ndarray], DetectedPeople]
"""Anything that finds people in a picture (H, W, 3), uint8 RGB."""


def nobody(keypoints: bool = False) -> DetectedPeople:
    """The people of an empty picture."""
    return DetectedPeople(np.zeros((0, 4)), np.zeros(0), np.zeros((0, COCO_KEYPOINTS, 3)) if keypoints else None)


def box_of_keypoints(keypoints: np.ndarray, margin: float = 1.2, seen: float = SEEN) -> np.ndarray:
    """(n, 4) boxes around the seen keypoints of people (n, K, 3), grown about their middle by a factor.

    NaN for people with fewer than two seen keypoints.
    """
    hidden = (keypoints[..., 2] < seen)[..., None]
    enough = (~hidden).sum((1, 2)) >= 2
    points = np.where(enough[:, None, None], keypoints[..., :2], np.nan)
    hidden &= enough[:, None, None]
    low, high = np.where(hidden, np.inf, points).min(1), np.where(hidden, -np.inf, points).max(1)
    middle, half = (low + high) / 2, (high - low) / 2
    return np.concatenate([middle - margin * half, middle + margin * half], 1)


def squares(boxes: np.ndarray, margin: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and sides (n,) of squares about boxes (n, 4): the longer side times a margin."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) * margin


def intersection_over_union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n, m) overlap of boxes (n, 4) and (m, 4)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    both = _area(one)[:, None] + _area(other)[None] - shared
    return shared / np.maximum(both, 1e-9)


def agreement(one: DetectedPeople, other: DetectedPeople) -> np.ndarray:
    """(n, m) how well the keypoints agree that both of two people show, 0 to 1: COCO's similarity with one tolerance.

    Where they share too few, the overlap of their boxes.
    """
    overlap = intersection_over_union(one.boxes, other.boxes)
    if one.keypoints is None or other.keypoints is None:
        return overlap
    apart = np.linalg.norm(one.keypoints[:, None, :, :2] - other.keypoints[None, :, :, :2], axis=-1)
    both = (one.keypoints[:, None, :, 2] >= SEEN) & (other.keypoints[None, :, :, 2] >= SEEN)
    # A part of somebody, cut off by a tile's edge, has the smaller box; the whole one tells how large the person is.
    size = np.sqrt(np.maximum(_area(one.boxes)[:, None], _area(other.boxes)[None]))
    near = np.exp(-0.5 * (apart / np.maximum(_KEYPOINT_TOLERANCE * size, 1e-9)[..., None]) ** 2)
    count = both.sum(-1)
    return np.where(count >= _FEWEST, (near * both).sum(-1) / np.maximum(count, 1), overlap)


def without_doubles(
    people: DetectedPeople, worth: np.ndarray | None = None, same: float = _SAME_PERSON
) -> DetectedPeople:
    """Non-maximum suppression: of detections of one person, the best; best first.

    Better is who has the greater `worth` (n,), by default the score.
    """
    worth = people.scores if worth is None else worth
    order = np.argsort(-worth, kind="stable")
    alike = np.maximum(agreement(people, people), intersection_over_union(people.boxes, people.boxes)) > same
    kept: list[int] = []
    for n in order:
        if not alike[n, kept].any():
            kept.append(int(n))
    return people.take(np.array(kept, int))


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)
