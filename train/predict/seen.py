"""What is looked at and whom it shows: pictures and frames, and the people that a detector finds in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from train.predict.detect.boxes_file import BoxesFile
from train.predict.detect.choice import detector
from train.predict.detect.movenet_detector import MoveNetDetector
from train.predict.detect.people import COCO_KEYPOINTS, DetectedPeople, Detector


@dataclass(frozen=True)
class SeenPicture:
    """A picture, or a frame of a film."""

    source: str
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB, as it is seen"""
    orientation: int
    focal: float
    """px"""
    focal_source: str
    frame: int | None = None
    time_s: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def principal(self) -> np.ndarray:
        """(2,) px: the middle."""
        return np.array(self.size) / 2


@dataclass(frozen=True)
class Finder:
    """Finds the people of views; with `keypoints` also their 17 keypoints, whoever finds the boxes."""

    detector: Detector | None
    boxes: BoxesFile | None
    keypoint_detector: MoveNetDetector | None
    least_score: float = -np.inf
    """of boxes from a file"""

    @classmethod
    def of(cls, name: str, boxes: BoxesFile | None, least_score: float | None, keypoints: bool, device: str) -> Finder:
        """By the options --detector and --boxes. Raises InputError for what cannot be."""
        with_keypoints = MoveNetDetector(device=device) if keypoints else None
        if boxes is not None:
            return cls(None, boxes, with_keypoints, -np.inf if least_score is None else least_score)
        return cls(detector(name, least_score=least_score, device=device), None, with_keypoints)

    def __call__(self, view: SeenPicture) -> DetectedPeople:
        """The people, best first, all with keypoints (n, 17, 3), of confidence 0 where nobody looked for them.

        Raises InputError for a box that shows nothing of its picture.
        """
        if self.boxes is not None:
            people = self.boxes.of(view.source, view.frame, view.size)
            people = people.take(np.flatnonzero(people.scores >= self.least_score))
        else:
            people = self.detector(view.pixels)
        low, high = people.boxes[:, :2], people.boxes[:, 2:]
        people = people.take(np.flatnonzero(np.isfinite(people.boxes).all(1) & (low.astype("f") < high).all(1)))
        if people.keypoints is not None:
            return people
        if self.keypoint_detector is not None and len(people):
            return self.keypoint_detector.keypoints_in(view.pixels, people)
        return replace(people, keypoints=np.zeros((len(people), COCO_KEYPOINTS, 3)))
