"""Pose correctives: what linear blend skinning loses at a bend, put back as a linear function of joint rotations.

For one joint turning by R, a vertex with skin weight s below it lies at (1-s) v + s R v, which collapses towards the
joint. The aim is the vertex turned by the fraction s of R. The difference, carried back to the rest pose, is
regressed on the nine entries of R - I over rotations the joint makes in life.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitting.anatomy import SMPL_JOINTS, SMPL_PARENTS

SMALLEST = 6e-5  # metres per unit of rotation entry; less is stored as zero
LARGEST = 0.02  # metres: displacements in the training rotations are shortened to stay below


@dataclass(frozen=True)
class Motion:
    """Rotations of a left or central joint: mean and spread of the rotation vector (rad, SMPL frame), and strength."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    strength: float


MOTIONS = {
    "l_hip": Motion((-0.6, 0, 0.1), (0.7, 0.3, 0.3), 0.7),
    "l_knee": Motion((1.0, 0, 0), (0.7, 0.1, 0.1), 0.8),
    "l_ankle": Motion((0, 0, 0), (0.4, 0.2, 0.2), 0.6),
    "l_collar": Motion((0, 0, 0), (0.1, 0.2, 0.3), 0.5),
    "l_shoulder": Motion((0, -0.3, -0.3), (0.5, 0.6, 0.7), 0.6),
    "l_elbow": Motion((0, -1.0, 0), (0.4, 0.7, 0.2), 0.8),
    "l_wrist": Motion((0, 0, 0), (0.3, 0.3, 0.5), 0.6),
    "spine1": Motion((0, 0, 0), (0.35, 0.25, 0.25), 0.5),
    "spine2": Motion((0, 0, 0), (0.35, 0.25, 0.25), 0.5),
    "head": Motion((0, 0, 0), (0.4, 0.5, 0.3), 0.5),
}


def build_correctives(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, seed: int = 11
) -> np.ndarray:
    """posedirs (V, 3, 207) of the SMPL rig, mirror symmetric."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    sign = np.array([-1.0, 1, 1])
    flip = (sign[:, None] * sign[None]).ravel()
    out = np.zeros((len(template), 3, 23, 9))
    for name, motion in MOTIONS.items():
        j = SMPL_JOINTS.index(name)
        below = _descendants(j)
        share = weights[:, below].sum(1)
        touched = np.flatnonzero((share > 0.004) & (share < 0.996))
        s, v = share[touched], template[touched] - joints[j]
        vectors = rng.normal(motion.mean, motion.spread, (80, 3))
        features, wanted = [], []
        for vector in vectors:
            full = Rotation.from_rotvec(vector).as_matrix()
            part = Rotation.from_rotvec(s[:, None] * vector).as_matrix()
            blend = (1 - s)[:, None, None] * np.eye(3) + s[:, None, None] * full
            goal = np.einsum("vab,vb->va", part, v)
            delta = motion.strength * (np.linalg.solve(blend, goal[:, :, None])[:, :, 0] - v)
            size = np.linalg.norm(delta, axis=1, keepdims=True)
            delta *= LARGEST * np.tanh(size / LARGEST) / np.maximum(size, 1e-12)
            features.append((full - np.eye(3)).ravel())
            wanted.append(delta.ravel())
        a = np.array(features)
        ridge = 0.3 * np.eye(9)
        solution = np.linalg.solve(a.T @ a + ridge, a.T @ np.array(wanted))
        found = np.zeros((len(template), 3, 9))
        found[touched] = solution.T.reshape(len(touched), 3, 9)
        image = (found * sign[None, :, None] * flip)[mirror]
        if name.startswith("l_"):
            out[:, :, j - 1] += found
            out[:, :, SMPL_JOINTS.index("r_" + name[2:]) - 1] += image
        else:
            out[:, :, j - 1] += (found + image) / 2
    out[np.abs(out) < SMALLEST] = 0
    return out.reshape(len(template), 3, 207)


def _descendants(joint: int) -> list[int]:
    found = [joint]
    for j in range(joint + 1, len(SMPL_PARENTS)):
        if SMPL_PARENTS[j] in found:
            found.append(j)
    return found
