"""Plausible poses within SKEL's joint limits, and their SMPL form.

Legs and trunk are drawn around key poses in SKEL's own angles; arms are drawn as directions of upper arm and forearm,
for which shoulder and elbow angles are solved inside their limits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fitting import anatomy
from fitting.body import kinematics as kin
from fitting.body.limits import BSM_LIMITS
from fitting.body.skel import SKEL
from pipelines.demo.key_poses import ARMS, EVERYDAY, KEY_POSES, KeyPose

LIMIT_MARGIN = 0.01
"""Radians that a drawn pose keeps from SKEL's joint limits."""


@dataclass(frozen=True)
class DrawnPoses:
    """P poses. `q` (P,46): SKEL's angles; the pelvis faces +z, upright but for its lean. `kind`: their key pose."""

    q: np.ndarray
    kind: list[str]
    chair: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def draw_poses(count: int, skel: SKEL, rng: np.random.Generator, among: Collection[str] | None = None) -> DrawnPoses:
    """Draw poses of people, `among` some key poses or all; their feet are level where both carry them."""
    names = [name for name in KEY_POSES if among is None or name in among]
    weights = np.array([KEY_POSES[name].weight for name in names])
    kinds = [names[i] for i in rng.choice(len(names), size=count, p=weights / weights.sum())]
    q = np.zeros((count, anatomy.COORDINATES))
    arms = np.zeros((count, 2, 2, 3))
    flat, point, level = np.zeros((count, 2), bool), np.zeros(count), np.zeros(count, bool)
    for n, kind in enumerate(kinds):
        key = KEY_POSES[kind]
        mirrored = rng.random() < 0.5
        q[n] = _trunk_and_legs(key, mirrored, rng)
        named = key.arms or _everyday_pair(rng)
        if rng.random() < 0.15:
            named = (_any_arm(rng), _any_arm(rng))
        sides = [1, 0] if mirrored else [0, 1]
        for side, name in zip(sides, named, strict=True):
            arms[n, side] = _unit(np.array(ARMS[name])) + rng.normal(size=(2, 3)) * 0.14 * key.spread
        flat[n] = key.flat[::-1] if mirrored else key.flat
        point[n], level[n] = key.point, key.level
    low, high = limits()
    q = np.clip(q, low, high)
    wanted = _unit(arms)
    parts = [slice(start, start + _TOGETHER) for start in range(0, count, _TOGETHER)]
    q = np.concatenate([_solve_arms(q[part], wanted[part], skel) for part in parts])
    q = _set_feet(q, flat, point)
    q = _level_feet(q, level, flat, point, skel)
    chair = np.array([KEY_POSES[kind].seat == "chair" for kind in kinds])
    return DrawnPoses(np.clip(q, low, high), kinds, chair)


def limits() -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper (46,) bounds of drawn angles: the BSM model's less LIMIT_MARGIN, none for the pelvis."""
    table = BSM_LIMITS
    return table[:, 0] + LIMIT_MARGIN, table[:, 1] - LIMIT_MARGIN


def smpl_pose(local_rotations: Tensor) -> Tensor:
    """SMPL axis-angle poses (P,72) of SKEL's local joint rotations (P,24,3,3), which live in the same model frame.

    SMPL's three spine joints share lumbar and thorax, neck and head share the head; hands stay open.
    """
    r = local_rotations
    lumbar, thorax, head = (axis_angles(r[:, j]) for j in (anatomy.LUMBAR, anatomy.THORAX, anatomy.HEAD))
    pose = r.new_zeros(len(r), 24, 3)
    pose[:, 0] = axis_angles(r[:, anatomy.PELVIS])
    pose[:, 3] = 0.6 * lumbar
    pose[:, 6] = axis_angles(rotation_matrices(0.4 * lumbar) @ rotation_matrices(0.4 * thorax))
    pose[:, 9] = 0.6 * thorax
    pose[:, 12] = pose[:, 15] = 0.5 * head
    chains = {
        1: [anatomy.FEMUR_L],
        4: [anatomy.TIBIA_L],
        7: [anatomy.TALUS_L, anatomy.CALCN_L],
        10: [anatomy.TOES_L],
        2: [anatomy.FEMUR_R],
        5: [anatomy.TIBIA_R],
        8: [anatomy.TALUS_R, anatomy.CALCN_R],
        11: [anatomy.TOES_R],
        13: [anatomy.SCAPULA_L],
        16: [anatomy.HUMERUS_L],
        18: [anatomy.ULNA_L, anatomy.RADIUS_L],
        20: [anatomy.HAND_L],
        14: [anatomy.SCAPULA_R],
        17: [anatomy.HUMERUS_R],
        19: [anatomy.ULNA_R, anatomy.RADIUS_R],
        21: [anatomy.HAND_R],
    }
    for joint, chain in chains.items():
        total = r[:, chain[0]]
        for link in chain[1:]:
            total = total @ r[:, link]
        pose[:, joint] = axis_angles(total)
    return pose.flatten(1)


def axis_angles(rotations: Tensor) -> Tensor:
    """Axis-angle (..., 3) of rotation matrices (..., 3, 3)."""
    from scipy.spatial.transform import Rotation

    flat = rotations.detach().double().reshape(-1, 3, 3).numpy()
    return torch.as_tensor(Rotation.from_matrix(flat).as_rotvec(), dtype=rotations.dtype).reshape(rotations.shape[:-1])


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle (..., 3)."""
    from scipy.spatial.transform import Rotation

    flat = Rotation.from_rotvec(vectors.detach().double().reshape(-1, 3).numpy()).as_matrix()
    return torch.as_tensor(flat, dtype=vectors.dtype).reshape(*vectors.shape, 3)


def _trunk_and_legs(key: KeyPose, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
    side = -1.0 if mirrored else 1.0

    def stray(size: float) -> float:
        return rng.normal() * size * key.spread

    q = np.zeros(anatomy.COORDINATES)
    q[0], q[1] = -(key.tilt + stray(0.05)), side * (key.lean + stray(0.03))
    for start, leg in zip((3, 10), key.legs[::-1] if mirrored else key.legs, strict=True):
        q[start : start + 4] = np.array(leg) + rng.normal(size=4) * np.array([0.1, 0.05, 0.1, 0.1]) * key.spread
    bow, bend, twist = key.bow + stray(0.1), side * (key.bend + stray(0.1)), side * (key.twist + stray(0.15))
    for start, share in ((17, 0.55), (20, 0.45)):
        q[start : start + 3] = np.array([bend, -bow, twist]) * share
    # the head stays rather upright whatever the trunk does, and looks somewhere
    q[23] = -0.5 * bend + rng.normal() * 0.08
    q[24] = 0.45 * (key.tilt + bow) + rng.normal() * 0.14
    q[25] = -0.5 * twist + rng.normal() * 0.3
    for scapula in (26, 36):
        q[scapula : scapula + 3] = [rng.normal() * 0.08, rng.uniform(-0.3, -0.15), rng.normal() * 0.05]
    for forearm in (33, 43):
        q[forearm : forearm + 3] = rng.normal(size=3) * [0.4, 0.2, 0.12]
    return q


def _everyday_pair(rng: np.random.Generator) -> tuple[str, str]:
    first = str(rng.choice(EVERYDAY))
    return (first, first) if first in ("hip", "crossed", "hang") and rng.random() < 0.75 else (first, "relaxed")


def _any_arm(rng: np.random.Generator) -> str:
    return str(rng.choice(list(ARMS)))


_TOGETHER = 512
"""Arms of this many people are solved at once; more would only take memory."""

_ARM_STARTS = ((0.0, 0.0, 0.0, 0.3), (0.6, 0.0, 0.6, 0.8), (-0.6, 0.5, -0.6, 0.8))
"""Shoulder x, y, z and elbow of the right arm; the left arm's x has the other sign."""


def _solve_arms(q: np.ndarray, wanted: np.ndarray, skel: SKEL, rounds: int = 12) -> np.ndarray:
    """Shoulder (3) and elbow (1) angles for directions (P, side, upper/fore, 3).

    Projected Levenberg-Marquardt over all people, both sides and several starts (S) at once.
    """
    starts, people, step = len(_ARM_STARTS), len(q), 1e-5
    columns = np.array([[29, 30, 31, 32], [39, 40, 41, 42]])
    chains = np.array(
        [[anatomy.HUMERUS_R, anatomy.ULNA_R, anatomy.HAND_R], [anatomy.HUMERUS_L, anatomy.ULNA_L, anatomy.HAND_L]]
    )
    low, high = (bound[columns] for bound in limits())
    target = wanted * np.array([[[-1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]])
    trunkless = q.copy()
    trunkless[:, :26] = 0.0  # directions are those in the frame of the thorax

    def residuals(angles: np.ndarray) -> np.ndarray:
        """(n*P, 2, 10) of angles (n*P, 2, 4): bones against their directions, and a weak pull to zero."""
        trial = np.tile(trunkless, (len(angles) // people, 1))
        trial[:, columns] = angles
        bones = _unit(np.diff(_joints(skel, trial)[:, chains], axis=2))
        apart = bones - np.tile(target, (len(angles) // people, 1, 1, 1))
        return np.concatenate([apart.reshape(len(angles), 2, 6), 0.03 * angles], axis=-1)

    first = np.array(_ARM_STARTS)[:, None, :] * np.array([[1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0]])
    angles = np.clip(np.repeat(first, people, axis=0), low, high)
    now = residuals(angles)
    damping = np.full((starts * people, 2), 1e-3)
    for _ in range(rounds):
        moved = residuals(np.concatenate([angles + step * axis for axis in np.eye(4)]))
        slope = np.stack([(part - now) / step for part in np.split(moved, 4)], axis=-1)
        normal = np.einsum("psrk,psrl->pskl", slope, slope) + damping[..., None, None] * np.eye(4)
        move = np.linalg.solve(normal, -np.einsum("psrk,psr->psk", slope, now)[..., None])[..., 0]
        trial = np.clip(angles + np.clip(move, -0.5, 0.5), low, high)
        after = residuals(trial)
        better = (after**2).sum(axis=-1) < (now**2).sum(axis=-1)
        angles[better], now[better] = trial[better], after[better]
        damping = np.where(better, damping * 0.3, damping * 6).clip(1e-6, 1e3)
    cost = (now**2).sum(axis=-1).reshape(starts, people, 2)
    best = np.take_along_axis(angles.reshape(starts, people, 2, 4), cost.argmin(axis=0)[None, ..., None], axis=0)[0]
    q = q.copy()
    q[:, columns] = best
    return q


def _set_feet(q: np.ndarray, flat: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Ankle angles that lay soles flat (as far as ankles bend), and pointed toes for feet in the air."""
    q = q.copy()
    for side, start in enumerate((3, 10)):
        level = -(q[:, 0] + q[:, start] - q[:, start + 3])
        q[:, start + 4] = np.where(flat[:, side], level, -point)
    low, high = limits()
    return np.clip(q, low, high)


def _level_feet(q: np.ndarray, level: np.ndarray, flat: np.ndarray, point: np.ndarray, skel: SKEL) -> np.ndarray:
    """Bends the leg that reaches lower until both feet are equally high, by bisection."""
    # of each foot: ankle, heel and toe joints against their height when standing
    feet = [[anatomy.TALUS_R, anatomy.TOES_R], [anatomy.TALUS_L, anatomy.TOES_L]]
    standing = _joints(skel, np.zeros((1, anatomy.COORDINATES)))[0, :, 1]

    def drop(poses: np.ndarray) -> np.ndarray:
        joints = _joints(skel, poses)
        return np.stack([(joints[:, foot, 1] - standing[foot]).min(axis=1) for foot in feet], axis=1)

    heights = drop(q)
    lower = np.where(heights[:, 0] < heights[:, 1], 0, 1)
    people = np.arange(len(q))
    few, many = np.zeros(len(q)), np.where(level, 0.9, 0.0)

    def bent(amount: np.ndarray) -> np.ndarray:
        trial = q.copy()
        start = np.where(lower == 0, 3, 10)
        trial[people, start] += amount
        trial[people, start + 3] += 2 * amount
        return _set_feet(trial, flat, point)

    for _ in range(14):
        middle = (few + many) / 2
        heights = drop(bent(middle))
        still_lower = heights[people, lower] < heights[people, 1 - lower]
        few, many = np.where(still_lower, middle, few), np.where(still_lower, many, middle)
    return bent(few)


def skel_rotations(q: np.ndarray, skel: SKEL) -> Tensor:
    """Local joint rotations (P,24,3,3) of angles (P,46), for the mean shape."""
    return _posed(skel, q).local_rotations


def _posed(skel: SKEL, q: np.ndarray) -> kin.Posed:
    with torch.no_grad():
        joints = skel.rest_joints(skel.v_template.new_zeros(1, 10)).expand(len(q), -1, -1)
        return skel.pose(skel.rest_frames(joints), torch.as_tensor(q, dtype=skel.v_template.dtype))


def _joints(skel: SKEL, q: np.ndarray) -> np.ndarray:
    return _posed(skel, q).joints.double().numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
