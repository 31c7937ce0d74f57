"""SMPL poses that fits fail on: extreme but human, and some that no human can take."""

from __future__ import annotations

import math

import torch

L_HIP, R_HIP, SPINE1, L_KNEE, R_KNEE, SPINE2, L_ANKLE, R_ANKLE, SPINE3 = range(1, 10)
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = range(12, 22)

HUMAN = {
    "arms overhead": {L_COLLAR: (0, 0, 0.4), R_COLLAR: (0, 0, -0.4), L_SHOULDER: (0, 0, 1.1), R_SHOULDER: (0, 0, -1.1)},
    "deep squat": {L_HIP: (-2.0, 0, 0.3), R_HIP: (-2.0, 0, -0.3), L_KNEE: (2.2, 0, 0), R_KNEE: (2.2, 0, 0)},
    "lunge": {L_HIP: (-1.5, 0, 0), L_KNEE: (1.6, 0, 0), R_HIP: (0.4, 0, 0), R_KNEE: (0.5, 0, 0), SPINE2: (0.2, 0, 0)},
    "kneeling": {0: (0.1, 0, 0), L_KNEE: (2.3, 0, 0), R_KNEE: (2.3, 0, 0), L_ANKLE: (0.7, 0, 0), R_ANKLE: (0.7, 0, 0)},
    "lying": {0: (-math.pi / 2, 0, 0), L_SHOULDER: (0, 0, -0.9), R_SHOULDER: (0, 0, 0.9), L_KNEE: (0.3, 0, 0)},
    "upside down": {0: (0, 0, math.pi), L_SHOULDER: (0, 0, 1.2), R_SHOULDER: (0, 0, -1.2), L_COLLAR: (0, 0, 0.3)},
    "twisted trunk": {
        SPINE1: (0, 0.3, 0),
        SPINE2: (0, 0.3, 0),
        SPINE3: (0, 0.3, 0),
        NECK: (0, 0.4, 0),
        L_ELBOW: (0, -1.5, 0),
    },
    "crossed legs": {L_HIP: (-0.5, 0, -0.4), R_HIP: (-0.4, 0, 0.35), L_KNEE: (0.6, 0, 0), R_KNEE: (0.3, 0, 0)},
    "singular root": {0: (0, 0, math.pi / 2), L_ELBOW: (0, -2.0, 0), R_ELBOW: (0, 2.0, 0), R_SHOULDER: (0, 0.6, 0.9)},
}
"""Axis-angle of some of SMPL's joints; the others are at rest."""

INHUMAN = {
    "knee bent forward": {L_KNEE: (-1.0, 0, 0)},
    "knee bent sideways": {R_KNEE: (0.3, 0, 0.9)},
    "elbow bent backward": {L_ELBOW: (0, 1.2, 0)},
    "head turned round": {NECK: (0, 1.3, 0), HEAD: (0, 1.3, 0)},
}


def pose_of(turns: dict[int, tuple[float, float, float]]) -> torch.Tensor:
    """(72,) SMPL pose."""
    pose = torch.zeros(24, 3)
    for joint, turn in turns.items():
        pose[joint] = torch.tensor(turn)
    return pose.flatten()


def people(poses: dict[str, dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 72) poses and (B, 10) betas, the first of which go to heavy and thin, tall and short (+-4)."""
    betas = torch.zeros(len(poses), 10)
    for row in range(len(poses)):
        betas[row, row % 3] = 4.0 * (-1) ** row * (row % 4) / 3
    return torch.stack([pose_of(turns) for turns in poses.values()]), betas
