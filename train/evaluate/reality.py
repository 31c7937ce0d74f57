"""Whether estimated bodies could be anybody's: joint angles against SKEL's limits.

Source: Xia et al., HSMR, CVPR 2025 (knees and elbows on MOYO); the limits are those of the fit.
"""

from __future__ import annotations

import numpy as np

from fitting.body.kinematics import JOINT_LIMITS, ROOT_COORDINATES

KNEES, ELBOWS = (6, 13), (32, 33, 42, 43)
"""Of the 46 coordinates; elbows with pro- and supination."""
BEYOND_DEG = (0, 5, 10, 20, 30)


def excess_deg(poses: np.ndarray) -> np.ndarray:
    """(N, 46) by how many degrees each angle of q (N, 46), rad, lies beyond its limits; 0 within and for the root."""
    low, high = np.asarray(JOINT_LIMITS).T
    beyond = np.maximum(np.maximum(low - poses, poses - high), 0.0)
    beyond[:, ROOT_COORDINATES] = 0.0
    return np.degrees(beyond)


def reality(poses: np.ndarray) -> dict[str, float]:
    """Of knees, elbows and all limited angles: largest, mean and median excess, shares of angles beyond, by name."""
    excess, found = excess_deg(np.asarray(poses, np.float64)), {}
    all_of_them = tuple(range(ROOT_COORDINATES.stop, excess.shape[1]))
    for name, columns in (("knees", KNEES), ("elbows", ELBOWS), ("all", all_of_them)):
        values = excess[:, list(columns)]
        found |= {
            f"{name}_max_deg": float(values.max()),
            f"{name}_mean_deg": float(values.mean()),
            f"{name}_median_deg": float(np.median(values)),
        }
        found |= {f"{name}_beyond_{limit}_deg": float((values > limit).mean()) for limit in BEYOND_DEG}
    return found
