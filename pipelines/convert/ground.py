"""SKEL's motion in OpenSim's ground: y up, x forward for a person who faces SMPL's z axis, z to the right; metres.

SKEL's pelvis turns by B Rp B^T in its model frame, with B the frame of the pelvis' axes and Rp = Ry Rx Rz of its three
angles (`fitting/README.md`). Seen from the ground the same pelvis has turned by Rp' = C U B Rp, with U the rotation
from the source's frame to one with y up and C the change of axes (x, y, z) -> (z, y, -x); Rp' is taken apart into the
three angles again. All other angles are relative and stay as they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas import InputError

if TYPE_CHECKING:
    from fitting import SKEL

log = logging.getLogger(__name__)

UP_AXES = {"y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0), "camera": (0.0, -1.0, 0.0)}
"""Where up is in a source frame: SMPL's own, AMASS's, a camera's with y down."""

TO_Y_UP = {
    "y": np.eye(3),
    "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "camera": np.diag([1.0, -1, -1]),
}
"""(3, 3) rotations from these frames to one with y up."""

GROUND_AXES = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
"""SMPL's axes (x to the left, y up, z forward) -> OpenSim's (x forward, y up, z to the right)."""

_CLEARLY_UP = 0.7
"""Cosine between where trunks point and an axis from which on that axis is taken for up."""

_ALIKE = 0.5
"""Length of the mean of trunks' directions under which they point everywhere, as in a somersault."""


@dataclass(frozen=True)
class GroundMotion:
    """T frames of one motion in the ground."""

    frames: np.ndarray
    """(T,) row of each in its source, from 0; rows that could not be fitted are missing."""
    frame_rate: float
    """Frames per second."""
    angles: np.ndarray
    """(T, 46) rad, in the order of `fitting.anatomy.COORDINATE_NAMES`, continuous over the frames."""
    pelvis: np.ndarray
    """(T, 3) position of the pelvis joint, m."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def times(self) -> np.ndarray:
        """(T,) s, zero at the source's first row."""
        return self.frames / self.frame_rate


def detect_up(global_orient: np.ndarray) -> str:
    """Which of UP_AXES the source frame has up, by where trunks point on average.

    `global_orient` (N, 3) axis-angle of SMPL's root; rows that are not finite do not count. Of trunks that point
    everywhere, as in a somersault, the first one counts. Raises InputError if that is clearly along no axis, as with
    people who lie on their side.
    """
    from scipy.spatial.transform import Rotation

    known = global_orient[np.isfinite(global_orient).all(1)]
    trunks = Rotation.from_rotvec(known).apply([0.0, 1.0, 0.0]).reshape(-1, 3)
    direction = trunks.mean(0) if len(trunks) else np.zeros(3)
    if len(trunks) and np.linalg.norm(direction) < _ALIKE:
        direction = trunks[0]
        log.warning("trunks point everywhere: the first one is taken for upright; --up says which axis is up")
    cosines = {name: float(direction @ axis) / max(np.linalg.norm(direction), 1e-9) for name, axis in UP_AXES.items()}
    best = max(cosines, key=cosines.__getitem__)
    if cosines[best] < _CLEARLY_UP:
        raise InputError(
            f"which axis is up cannot be told: trunks point along ({', '.join(f'{x:.2f}' for x in direction)})",
            field="--up",
            expected="y, z or camera",
        )
    return best


def ground_axes(up: str) -> np.ndarray:
    """(3, 3) from a source frame with `up` to the ground: points (N, 3) @ ground_axes(up).T are in the ground."""
    return GROUND_AXES @ TO_Y_UP[up]


def to_ground(
    skel: SKEL, poses: np.ndarray, pelvis: np.ndarray, frames: np.ndarray, frame_rate: float, up: str
) -> GroundMotion:
    """Poses (T, 46) rad and pelvis joints (T, 3) m in a source frame with `up`, as a motion in the ground."""
    import torch

    from fitting.body.kinematics import ROOT_COORDINATES
    from fitting.body.rotations import rotation_about
    from fitting.fit.continuity import continuous
    from fitting.fit.root import root_angles

    axes = torch.from_numpy(ground_axes(up))
    root = torch.from_numpy(poses[:, ROOT_COORDINATES]).double()
    turned = axes @ pelvis_basis(skel)
    for slot in (2, 1, 0):
        axis = skel.slot_axes[0, slot].double().expand(len(root), 3)
        turned = turned @ rotation_about(axis, root[:, slot])
    angles = poses.astype(np.float64)
    angles[:, ROOT_COORDINATES] = root_angles(turned, torch.eye(3)).numpy()
    return GroundMotion(frames, frame_rate, continuous(angles), pelvis.astype(np.float64) @ axes.numpy().T)


def pelvis_basis(skel: SKEL):
    """(3, 3) frame B in which the pelvis' angles turn, float64; it is the same for every shape."""
    return skel.per_joint_rot[0].double() @ skel.apose_rotations[0].double().T
