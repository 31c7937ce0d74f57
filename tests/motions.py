"""SMPL motions that turn all the way round, made by hand."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

LEFT_SHOULDER, RIGHT_SHOULDER = 16, 17

X, Y, Z = np.eye(3)
"""SMPL's axes at rest: to the left, up, forward."""

ARMS_DOWN = 1.2
"""rad by which arms hang down from SMPL's T."""


def standing(frames: int) -> np.ndarray:
    """(T, 72) arms a little away from the body, elbows and knees a little bent."""
    poses = np.zeros((frames, 24, 3))
    poses[:, LEFT_SHOULDER, 2], poses[:, RIGHT_SHOULDER, 2] = -ARMS_DOWN, ARMS_DOWN
    poses[:, [4, 5], 0] = 0.3
    poses[:, 18, 1], poses[:, 19, 1] = -0.4, 0.4
    return poses.reshape(frames, 72)


def turning(axis: np.ndarray, turns: float, frames: int, first: np.ndarray | None = None) -> np.ndarray:
    """(T, 72) the whole body turning about an axis of the world, from a first orientation (3,)."""
    poses = standing(frames)
    angles = np.linspace(0, 2 * np.pi * turns, frames)
    turned = Rotation.from_rotvec(angles[:, None] * axis)
    poses[:, :3] = (turned * Rotation.from_rotvec(np.zeros(3) if first is None else first)).as_rotvec()
    return poses


def windmill(turns: float, frames: int) -> np.ndarray:
    """(T, 72) straight arms that swing right round, past the ears and the hips, in opposite senses."""
    poses = standing(frames)
    poses[:, 54:60] = 0
    angles = np.linspace(0, 2 * np.pi * turns, frames)
    for joint, down, sense in ((LEFT_SHOULDER, -ARMS_DOWN, 1), (RIGHT_SHOULDER, ARMS_DOWN, -1)):
        turned = Rotation.from_rotvec(sense * angles[:, None] * X) * Rotation.from_rotvec(down * Z)
        poses[:, 3 * joint : 3 * joint + 3] = turned.as_rotvec()
    return poses


WHOLE_TURNS = {
    "somersault": turning(X, 1, 40),
    "two somersaults backward": turning(-X, 2, 80),
    "cartwheel": turning(Z, 1, 40),
    "cartwheel on the way": turning(Z, -1, 40, 0.7 * Y),
    "double turn": turning(Y, 2, 80),
    "barrel roll": turning(np.array([0.6, 0.0, 0.8]), 1, 40),
}
