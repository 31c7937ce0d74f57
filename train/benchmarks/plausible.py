"""Label files whose numbers cannot be in the units of their layout, which would give figures that mean nothing."""

from __future__ import annotations

import math

import numpy as np

from schemas import InputError
from train.benchmarks.people import BenchmarkPeople

SMALLEST_BOX, LARGEST_BOX = 8.0, 10000.0
"""Px, of the median box: 200 times less is `scale` / 200 taken for px, 200 times more px taken for `scale`."""
LARGEST_TURN = 4 * math.pi
"""Rad, of the median person's most turned joint: axis-angle beyond two turns is in degrees."""
LARGEST_PERSON = 10.0
"""M, from the middle of the median person to the keypoint that is furthest away: beyond, it is in mm."""


def check_units(people: BenchmarkPeople) -> None:
    """Raises InputError that names file and field where boxes, poses or 3D keypoints have another unit."""
    box = float(np.median(people.label_box.max(1)))
    if not SMALLEST_BOX <= box <= LARGEST_BOX:
        unit = "boxes / 200 px" if people.layout == "A" else "boxes in px"
        field = "scales" if people.layout == "B" else "scale"
        raise InputError(f"the median box has {box:,.3g} px", file=people.file, field=field, expected=unit)
    if people.poses is not None:
        turns = np.linalg.norm(people.poses.reshape(len(people), -1, 3), axis=2).max(1)
        if np.median(turns) > LARGEST_TURN:
            problem = f"the median person's most turned joint is at {np.median(turns):,.3g}"
            raise InputError(problem, file=people.file, field="pose", expected="axis-angle in rad")
    if people.keypoints_3d is not None:
        reach = [_reach(person) for person in people.keypoints_3d]
        if np.median(reach) > LARGEST_PERSON:
            problem = f"the median person reaches {np.median(reach):,.3g} m far"
            raise InputError(problem, file=people.file, field="keypoints_3d", expected="m")


def _reach(keypoints: np.ndarray) -> float:
    """Of one person's (44, 4), from the mean of those that have a confidence."""
    known = keypoints[keypoints[:, 3] > 0, :3]
    return float(np.linalg.norm(known - known.mean(0), axis=1).max()) if len(known) else 0.0
