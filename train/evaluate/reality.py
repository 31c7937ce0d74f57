"""Whether estimated bodies could be anybody's: joint angles against limits.

Knees and elbows against the BSM model's limits: Xia et al., HSMR, CVPR 2025, on MOYO. All angles against the range that
people can take (fitting.body.limits).
"""

from __future__ import annotations

import numpy as np

from fitting.body.kinematics import ROOT_COORDINATES
from fitting.body.limits import BSM_LIMITS, HUMAN_LIMITS

KNEES, ELBOWS = (6, 13), (32, 33, 42, 43)
"""Of the 46 coordinates; elbows with pro- and supination."""
BEYOND_DEG = (0, 5, 10, 20, 30)


def excess_deg(poses: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(N, 46) by how many degrees each of q (N, 46), rad, lies beyond `limits` (46, 2); 0 within, and of the root."""
    low, high = np.asarray(limits, np.float64).T
    beyond = np.maximum(np.maximum(low - poses, poses - high), 0.0)
    beyond[:, ROOT_COORDINATES] = 0.0
    return np.degrees(beyond)


def reality(poses: np.ndarray) -> dict[str, float]:
    """Of knees, elbows and all limited angles: largest, mean and median excess, shares of angles beyond, by name."""
    poses, found = np.asarray(poses, np.float64), {}
    bsm, human = excess_deg(poses, BSM_LIMITS), excess_deg(poses, HUMAN_LIMITS)
    all_of_them = tuple(range(ROOT_COORDINATES.stop, poses.shape[1]))
    for name, excess, columns in (("knees", bsm, KNEES), ("elbows", bsm, ELBOWS), ("all", human, all_of_them)):
        values = excess[:, list(columns)]
        found |= {
            f"{name}_max_deg": float(values.max()),
            f"{name}_mean_deg": float(values.mean()),
            f"{name}_median_deg": float(np.median(values)),
        }
        found |= {f"{name}_beyond_{limit}_deg": float((values > limit).mean()) for limit in BEYOND_DEG}
    return found
