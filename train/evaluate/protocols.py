"""The benchmarks' protocols: which points of two bodies are compared, and where both are put for it.

Each is given the quirks of train.benchmarks.quirks that are to hold: with them it is as published, without clean.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from schemas import KEYPOINT_NAMES
from train.benchmarks.quirks import PUBLISHED

H36M_NAMES = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("spine", "neck", "nose", "head", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_shoulder", "right_elbow", "right_wrist"),
)
"""Rows of J_regressor_h36m."""
SMPL_NAMES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
)
H36M_14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 of Human3.6M's 17 joints that LSP has as well."""
H36M_KEYPOINTS = (*range(25, 38), 43)
"""Human3.6M's 14 among the 44 keypoints."""
PELVIS_KEYPOINT, HIP_KEYPOINTS = 39, (27, 28)
ALL_SMPL, ALL_H36M = tuple(range(24)), tuple(range(17))
THRESHOLDS = (0.05, 0.1)
"""Of the accuracy of keypoints, in units of the label's box."""
CONFIDENT = 0.5
"""A 2D label counts if its confidence exceeds this."""

Points = Literal["h36m", "neutral", "own", "kinematic", "smpl-male", "keypoints"]


@dataclass(frozen=True)
class Protocol:
    """A way to compare."""

    name: str
    points: Points = "keypoints"
    """h36m: J_regressor_h36m of both meshes; neutral: SMPL neutral's joint regressor of both; own: each truth mesh by
    its own gender's; kinematic: truth's joints of SMPL's forward pass, the estimate's by J_regressor_SMPL_MALE;
    smpl-male: J_regressor_SMPL_MALE of both; keypoints: the 44, truth's from the file"""
    chosen: tuple[int, ...] = ()
    """of these points, those that are compared; none: no 3D comparison"""
    root: tuple[int, ...] = ()
    """the mean of these points (of all, chosen or not) is each side's origin"""
    meshes: bool = False
    """compare vertices as well"""
    neutral: str = "neutral"
    """SMPL of rows whose label says neutral"""
    confidence: bool = False
    """points of the file without confidence do not count"""
    accuracy: bool = False
    """share of correct 2D keypoints"""
    by_keypoint: bool = False
    """average the accuracy over keypoints instead of over labels"""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the chosen points."""
        names = {"h36m": H36M_NAMES, "keypoints": KEYPOINT_NAMES}.get(self.points, SMPL_NAMES)
        return tuple(names[k] for k in self.chosen)


PROTOCOLS = ("3dpw", "emdb", "spec-syn", "moyo", "h36m", "keypoints")
"""As in train/benchmarks/README.md; moyo serves MOYO-HARD, keypoints COCO, LSP and PoseTrack as well."""


def protocol(name: str, quirks: Set[str] = PUBLISHED) -> Protocol:
    """The protocol of this name with these quirks."""
    neutral = "female" if "neutral-is-female" in quirks else "neutral"
    if name == "3dpw":
        return Protocol(name, "h36m", H36M_14, (0,), True, neutral)
    if name == "emdb":
        points = "neutral" if "one-regressor" in quirks else "own"
        return Protocol(name, points, ALL_SMPL, (1, 2), True, neutral)
    if name == "spec-syn":
        root = (1, 2) if "hip-and-knee-root" in quirks else (1, 4)
        return Protocol(name, "h36m", ALL_H36M, root, True, neutral)
    if name == "moyo":
        points = "kinematic" if "two-kinds-of-joints" in quirks else "smpl-male"
        return Protocol(name, points, ALL_SMPL, (0,), True)
    by_keypoint = "accuracy-by-keypoint" in quirks
    if name == "h36m":
        as_released = "pelvis-keypoint-root" in quirks
        root = (PELVIS_KEYPOINT,) if as_released else HIP_KEYPOINTS
        return Protocol(name, "keypoints", H36M_KEYPOINTS, root, confidence=not as_released)
    if name == "keypoints":
        return Protocol(name, accuracy=True, by_keypoint=by_keypoint)
    raise ValueError(f"no protocol {name!r}")
