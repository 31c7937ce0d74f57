"""SKEL's joints as OpenSim's CustomJoints: frames, axes, and the sliding of spine and scapulae as functions.

The frame of a body is F_j = A_j Ra_j^T, in which SKEL's angles turn (`fitting/README.md`), its origin the joint's
centre. A joint then is a constant turn F_p^T F_j and shift F_p^T d_j from its parent's frame, the sliding, and the
rotations about SKEL's axes. OpenSim's rotation1 is the outermost, SKEL's first angle the innermost: they stand in the
opposite order.

Sliding depends on two angles at once, which a TransformAxis can only have as a polynomial of several variables. The
series end at the powers here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitting.anatomy import (
    COORDINATE_NAMES,
    HEAD,
    LUMBAR,
    PELVIS,
    SCAPULA_L,
    SCAPULA_R,
    SKEL_JOINTS,
    THORAX,
)

if TYPE_CHECKING:
    from fitting import SKEL

JOINT_NAMES = (
    *("ground_pelvis", "hip_r", "knee_r", "ankle_r", "subtalar_r", "mtp_r"),
    *("hip_l", "knee_l", "ankle_l", "subtalar_l", "mtp_l", "back", "thoracic", "neck"),
    *("scapulothoracic_r", "glenohumeral_r", "elbow_r", "radioulnar_r", "radius_hand_r"),
    *("scapulothoracic_l", "glenohumeral_l", "elbow_l", "radioulnar_l", "radius_hand_l"),
)
"""As in OpenSim's gait models where they have the joint."""

ONE_ANGLE_POWER = 15
TWO_ANGLES_POWER = 9
"""OpenSim has polynomials of two variables up to this."""

_QUARTER = math.pi / 4


@dataclass(frozen=True)
class Sliding:
    """A shift along one axis as a sum of c[i, k] a^i b^k of two angles a and b; m."""

    coefficients: np.ndarray

    @property
    def only(self) -> int | None:
        """0 or 1 if it depends on that angle alone."""
        if not self.coefficients[:, 1:].any():
            return 0
        return None if self.coefficients[1:].any() else 1


@dataclass(frozen=True)
class JointGeometry:
    """A joint of one person in its parent body's frame."""

    name: str
    body: str
    parent: str | None
    shift: np.ndarray
    """(3,) of the joint at rest from the parent body's origin, m; zero for the root, which coordinates place."""
    turn: np.ndarray
    """(3, 3) of the body against its parent at rest."""
    coordinates: tuple[str, ...]
    axes: np.ndarray
    """(n, 3) unit axes of the coordinates in the body's frame at rest, in SKEL's order: the first is the innermost."""
    slide_axes: np.ndarray
    """(3, 3) axes of the sliding, rows, in the same frame."""
    slide: tuple[Sliding, Sliding, Sliding] | None
    """Functions of the first two coordinates."""


@dataclass(frozen=True)
class Skeleton:
    """The joints of one person and where their bodies are in the rest pose of the model frame."""

    joints: list[JointGeometry]
    frames: np.ndarray
    """(24, 3, 3) F_j"""
    centres: np.ndarray
    """(24, 3) m"""

    def to_body(self, body: int, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the rest pose in the frame of a body."""
        return (points - self.centres[body]) @ self.frames[body]


def skeleton_of(skel: SKEL, betas: np.ndarray) -> Skeleton:
    """The joints of a person of shape `betas` (10,)."""
    import torch

    from fitting.body.kinematics import COORDINATE_OF_SLOT, DOF_SLOTS

    rest = skel.rest_frames(skel.rest_joints(torch.as_tensor(betas, dtype=skel.v_template.dtype)[None]))
    frames = (rest.bones[0] @ skel.apose_rotations.transpose(-1, -2)).double().numpy()
    centres = rest.joints[0].double().numpy()
    joints = []
    for j, name in enumerate(SKEL_JOINTS):
        slots = [k for k in range(DOF_SLOTS) if COORDINATE_OF_SLOT[j, k] < len(COORDINATE_NAMES)]
        p = skel.parents[j]
        joints.append(
            JointGeometry(
                name=JOINT_NAMES[j],
                body=name,
                parent=None if j == PELVIS else SKEL_JOINTS[p],
                shift=np.zeros(3) if j == PELVIS else frames[p].T @ (centres[j] - centres[p]),
                turn=np.eye(3) if j == PELVIS else frames[p].T @ frames[j],
                coordinates=tuple(COORDINATE_NAMES[COORDINATE_OF_SLOT[j, k]] for k in slots),
                axes=skel.slot_axes[j].double().numpy()[slots],
                slide_axes=frames[j],
                slide=_sliding(j, centres, skel.parents),
            )
        )
    return Skeleton(joints, frames, centres)


def _sliding(joint: int, centres: np.ndarray, parents: list[int]) -> tuple[Sliding, Sliding, Sliding] | None:
    """Along the model frame's x, y, z (step 4 of the forward pass)."""
    if joint in (LUMBAR, THORAX, HEAD):
        length = abs(centres[joint, 1] - centres[parents[joint], 1])
        sideways, height = _arc()
        a, b = _of_first, _of_second
        return (
            Sliding(-length * a(sideways)),
            Sliding(length * _without_constant(a(height, TWO_ANGLES_POWER) + b(height, TWO_ANGLES_POWER))),
            Sliding(-length * b(sideways)),
        )
    if joint in (SCAPULA_R, SCAPULA_L):
        side = 1.0 if joint == SCAPULA_L else -1.0
        width = float(np.linalg.norm(centres[SCAPULA_L] - centres[SCAPULA_R]))
        height = float(np.linalg.norm(centres[THORAX] - centres[LUMBAR]))
        cos_u, sin_u = _wave(0.0, -side)
        cos_e, sin_e = _wave(-_QUARTER, -side)
        both = np.outer(cos_u[: TWO_ANGLES_POWER + 1], cos_e[: TWO_ANGLES_POWER + 1])
        power = np.add.outer(np.arange(len(both)), np.arange(len(both)))
        return (
            Sliding(side * width / 4 * _without_constant(np.where(power <= TWO_ANGLES_POWER, both, 0))),
            Sliding(-height / 2 * _without_constant(_of_second(sin_e))),
            Sliding(width / 4 * _without_constant(_of_first(sin_u))),
        )
    return None


def _arc() -> tuple[np.ndarray, np.ndarray]:
    """Coefficients by power of a of (1 - cos a) / a and sin(a) / a."""
    cosine, sine = _wave(0.0, 1.0, ONE_ANGLE_POWER + 1)
    one = np.eye(1, len(cosine))[0]
    return (one - cosine)[1:], sine[1:]


def _wave(phase: float, sign: float, power: int = ONE_ANGLE_POWER) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients by power of a of cos(phase + sign a) and sin(phase + sign a)."""
    n = np.arange(power + 1)
    scale = np.array([sign**k / math.factorial(k) for k in n])
    # The derivatives of a cosine are the same wave, a quarter turn on each time.
    return np.cos(phase + n * math.pi / 2) * scale, np.sin(phase + n * math.pi / 2) * scale


def _of_first(coefficients: np.ndarray, power: int = ONE_ANGLE_POWER) -> np.ndarray:
    found = np.zeros((power + 1, power + 1))
    found[:, 0] = coefficients[: power + 1]
    return found


def _of_second(coefficients: np.ndarray, power: int = ONE_ANGLE_POWER) -> np.ndarray:
    return _of_first(coefficients, power).T


def _without_constant(coefficients: np.ndarray) -> np.ndarray:
    """Sliding is zero at zero angles."""
    found = coefficients.copy()
    found[0, 0] = 0
    return found
