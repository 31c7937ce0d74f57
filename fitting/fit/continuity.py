"""Joint angles that run on from frame to frame, whole turns included.

One rotation has many writings: a full turn more or less of any angle, and three angles about perpendicular axes also
as (a + pi, pi - b, c + pi). The fit knows one of them, between -pi and pi or inside the joint limits; a motion wants
the one that is nearest to the frame before. Which one is written changes neither body nor limits: **a limit bounds the
rotation, not the count of turns**, so an angle of 400 degrees lies within limits that hold 40, and a shoulder that
went round lies within them if any of its writings does. Angles may therefore leave the interval of their limits here,
and `SKELFit.limits_exceeded` tells of the writing that the fit knew.
"""

from __future__ import annotations

import math

import numpy as np

from fitting import anatomy
from fitting.body.kinematics import COORDINATE_OF_SLOT, JOINT_AXES, ROOT_COORDINATES

_FREE_JOINTS = (anatomy.PELVIS, anatomy.FEMUR_R, anatomy.FEMUR_L, anatomy.HUMERUS_R, anatomy.HUMERUS_L)
"""Joints of three perpendicular axes that turn and do nothing else: the spine's and the scapulae also slide."""

_TRIPLES = COORDINATE_OF_SLOT[list(_FREE_JOINTS)]
"""(5, 3) their coordinates."""

_SPINE_COORDINATES = slice(17, 26)
"""Bending moves the spine along an arc, so a turn more is another place there."""

_FULL_TURN = 2 * math.pi

_GIMBAL_LOCK = 1e-6
"""Below this cosine of the middle root angle, the outer two turn about one axis, as far as float32 can tell."""


def continuous(poses: np.ndarray, trusted: np.ndarray | None = None) -> np.ndarray:
    """(T, 46) the same poses, each written as near as can be to the last one that is `trusted` (T,) and finite.

    `poses` (T, 46) rad. The first pose keeps its writing. Frames that are not trusted (by default all are) are written
    as near to the others as they can be, and lead nobody.
    """
    poses = np.asarray(poses, np.float64)
    trusted = np.ones(len(poses), bool) if trusted is None else trusted
    out = poses.copy()
    last = None
    for frame in np.flatnonzero(np.isfinite(poses).all(1)):
        if last is not None:
            out[frame] = _nearest(poses[frame], last)
        if trusted[frame] or last is None:
            last = out[frame]
    return out


def _nearest(pose: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The writing of a pose (46,) that is nearest to another one (46,)."""
    same = pose[_TRIPLES]
    flipped = np.stack([same[:, 0] + math.pi, math.pi - same[:, 1], same[:, 2] + math.pi], 1)
    before = last[_TRIPLES]
    same, flipped = (angles + _turns(before - angles) for angles in (same, flipped))
    nearer = np.abs(flipped - before).sum(1) < np.abs(same - before).sum(1)
    out = pose + _turns(last - pose)
    out[_SPINE_COORDINATES] = pose[_SPINE_COORDINATES]
    out[_TRIPLES] = np.where(nearer[:, None], flipped, same)
    root = out[ROOT_COORDINATES]
    if abs(math.cos(root[1])) < _GIMBAL_LOCK:
        out[ROOT_COORDINATES] = _unlocked(root, last[ROOT_COORDINATES])
    return out


def _turns(angles: np.ndarray) -> np.ndarray:
    """The whole turns nearest to some angles, rad."""
    return _FULL_TURN * np.round(angles / _FULL_TURN)


def _unlocked(root: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Root angles in gimbal lock: of all that make the rotation, the nearest to the last ones."""
    first, middle, third = JOINT_AXES[anatomy.PELVIS]
    # The middle turn carries the first axis onto the third, or onto its opposite.
    sense = np.dot(np.cross(middle, first), third) * math.copysign(1.0, math.sin(root[1]))
    wanted = root[2] + sense * root[0] - (last[2] + sense * last[0])
    wanted -= _turns(wanted)
    return np.array([last[0] + sense * wanted / 2, root[1], last[2] + wanted / 2])
