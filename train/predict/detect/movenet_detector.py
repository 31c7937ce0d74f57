"""The detector that comes with the package: MoveNet on the whole picture, on tiles, and on each person once more."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from pipelines.draw.warp import warp
from train.network.movenet import MULTIPLE, PEOPLE, decode_people, movenet
from train.predict.detect.people import (
    COCO_KEYPOINTS,
    DetectedPeople,
    agreement,
    intersection_over_union,
    nobody,
    squares,
    without_doubles,
)

_SIDE = 256
"""Longer side, px, of the pictures that the network was made for."""
_TILES_AT_A_TIME = 16
_LEVELS = 3
"""The whole picture, tiles of half its size, and tiles of a quarter."""
_HINT = 0.12
"""A score that may be somebody's who is too small to be sure of."""
_SMALL = 0.2
"""People smaller than this share of a region make it worth a closer look: others as small may have been missed."""
_CLOSE_UP = 1.5
"""Side of the square in which a person is looked at once more, over the longer side of the box."""
_CUT_OFF = 0.5
"""Worth of a person who touches the inner edge of a tile, against one who does not."""
_AT_THE_EDGE = 0.02
"""A box that ends so near an edge, as a share of the region's longer side, touches it."""
_STILL_THE_SAME = 0.3
"""Whoever agrees less with the person that the close-up was made for is somebody else."""


@dataclass(frozen=True)
class MoveNetDetector:
    """Finds people and their 17 COCO keypoints."""

    least_score: float = 0.25
    """People with lower scores are left out."""
    tiles: Literal["auto", "always", "never"] = "auto"
    """Look at overlapping tiles of half the size wherever a look shows as many people as it can find, or small ones, or
    where the whole picture shows nobody; always: whatever the whole picture shows"""
    close_up: bool = True
    """Look at each person once more in a square of its own, for better keypoints."""
    device: str = "cpu"

    def __call__(self, picture: np.ndarray) -> DetectedPeople:
        """The people of a picture (H, W, 3), uint8 RGB."""
        height, width = picture.shape[:2]
        if min(height, width) < 2:
            return nobody(keypoints=True)
        whole = np.array([0.0, 0.0, width, height])
        parts, worth, regions = [], [], whole[None]
        for level in range(1 if self.tiles == "never" else _LEVELS):
            everywhere = level == 0 and self.tiles == "always"
            split = []
            for region, hints in zip(regions, self._look(picture, regions, min(self.least_score, _HINT)), strict=True):
                sure = hints.take(np.flatnonzero(hints.scores >= self.least_score))
                parts.append(sure)
                worth.append(_worth(sure, region, whole))
                if everywhere or _crowded(hints, region) or (level == 0 and len(sure) == 0):
                    split.append(_tiles(region))
            if not split or max(height, width) < _SIDE << level:
                break
            regions = np.unique(np.concatenate(split).round(2), axis=0)
        found = without_doubles(_join(parts), np.concatenate(worth))
        if self.close_up and len(found):
            found = without_doubles(self._close_up(picture, found))
        return found

    def keypoints_in(self, picture: np.ndarray, people: DetectedPeople) -> DetectedPeople:
        """Somebody else's people with 17 keypoints each, as squares about their boxes show them.

        Confidence is 0 where a square shows nobody whose box is like theirs.
        """
        keypoints = np.zeros((len(people), COCO_KEYPOINTS, 3))
        for n, here in enumerate(self._look(picture, _squares_about(people.boxes), min(self.least_score, _HINT))):
            overlap = intersection_over_union(people.boxes[n : n + 1], here.boxes)[0]
            if overlap.max(initial=0) >= _STILL_THE_SAME:
                keypoints[n] = here.keypoints[overlap.argmax()]
        return replace(people, keypoints=keypoints)

    def _look(self, picture: np.ndarray, regions: np.ndarray, least: float) -> list[DetectedPeople]:
        """The people in each of some regions (n, 4) of the picture, with scores from `least` on."""
        boxes, scores, keypoints = self._run(picture, regions)
        everybody = [DetectedPeople(*found) for found in zip(boxes, scores, keypoints, strict=True)]
        return [people.take(np.flatnonzero(people.scores >= least)) for people in everybody]

    def _close_up(self, picture: np.ndarray, people: DetectedPeople) -> DetectedPeople:
        """The same people, as squares about them show them; where a square does not, as they were."""
        seen = self._look(picture, _squares_about(people.boxes), self.least_score)
        result = []
        for n, here in enumerate(seen):
            before = people.take(np.array([n]))
            alike = agreement(before, here)[0]
            best = np.flatnonzero(alike == alike.max(initial=_STILL_THE_SAME))[:1]
            now = here.take(best) if len(best) else before
            result.append(DetectedPeople(now.boxes, np.maximum(now.scores, before.scores), now.keypoints))
        return _join(result)

    @torch.inference_mode()
    def _run(self, picture: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Boxes (n, 6, 4), scores (n, 6) and keypoints (n, 6, 17, 3) of each region, in pixels of the picture."""
        network = movenet().to(self.device)
        pixels, zooms = zip(*(_cut(picture, region) for region in regions), strict=True)
        results = []
        for first in range(0, len(pixels), _TILES_AT_A_TIME):
            batch = torch.from_numpy(np.stack(pixels[first : first + _TILES_AT_A_TIME]))
            results.append([part.cpu() for part in decode_people(network(batch.to(self.device).permute(0, 3, 1, 2)))])
        boxes, scores, keypoints = (torch.cat(parts).double().numpy() for parts in zip(*results, strict=True))
        zoom, start = np.array(zooms)[:, None, None], regions[:, None, :2]
        boxes = boxes / zoom + np.tile(start, 2)
        keypoints[..., :2] = keypoints[..., :2] / zoom[..., None] + start[:, :, None]
        return boxes, scores, keypoints


def _squares_about(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) for the close looks at boxes (n, 4)."""
    centers, sides = squares(boxes, _CLOSE_UP)
    half = sides[:, None] / 2
    return np.concatenate([centers - half, centers + half], 1)


def _cut(picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
    """A region of the picture, its longer side at the network's size, black where the picture ends; and its zoom."""
    size = region[2:] - region[:2]
    zoom = _SIDE / size.max()
    width, height = (math.ceil(round(side * zoom) / MULTIPLE) * MULTIPLE for side in size)
    return warp(picture, zoom * np.column_stack([np.eye(2), -region[:2]]), (width, height)), zoom


def _worth(people: DetectedPeople, region: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(n,) what detections in a region are worth: their score, and less if a tile's edge cuts somebody off.

    The picture's own edge does not: there is no more of that person to be seen.
    """
    inner = np.abs(region - whole) > 0.5
    touches = (np.abs(people.boxes - region) < _AT_THE_EDGE * (region[2:] - region[:2]).max()) & inner
    return people.scores * np.where(touches.any(1), _CUT_OFF, 1.0)


def _crowded(people: DetectedPeople, region: np.ndarray) -> bool:
    """Whether a closer look at parts of the region may show more people."""
    small = squares(people.boxes)[1] < _SMALL * (region[2:] - region[:2]).max()
    return len(people) >= PEOPLE - 1 or bool(small.any())


def _tiles(region: np.ndarray) -> np.ndarray:
    """(n, 4) squares of half the region's longer side that cover it and overlap by half."""
    side = (region[2:] - region[:2]).max() / 2
    starts = []
    for low, high in zip(region[:2], region[2:], strict=True):
        last = max(high - side, low)
        starts.append(np.linspace(low, last, math.ceil((last - low) / (side / 2)) + 1))
    left, top = (grid.ravel() for grid in np.meshgrid(*starts))
    return np.stack([left, top, left + side, top + side], 1)


def _join(parts: list[DetectedPeople]) -> DetectedPeople:
    return DetectedPeople(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("boxes", "scores", "keypoints"))
    )
