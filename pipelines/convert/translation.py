"""Where a person stands: the translation that puts the body's keypoints onto the labelled ones."""

from __future__ import annotations

import numpy as np

_FEWEST_KEYPOINTS = 4


def solve_translation(
    points: np.ndarray, points_confidence: np.ndarray, keypoints: np.ndarray, cam_int: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Translation (B, 3) in metres, camera frame, and whether it could be found (B,) bool.

    `points` (B, K, 3) are the keypoints of the body at translation zero, `points_confidence` (K,) is 0 where the body
    has none; `keypoints` (B, K, 3) are px and confidence, `cam_int` (B, 3, 3).

    A keypoint seen along the ray (a, b, 1) asks for X + tx = a (Z + tz) and Y + ty = b (Z + tz): two equations linear
    in t, solved by least squares with the confidences as weights. Not found (zero) with fewer than 4 keypoints, when
    they do not fix the depth, or when the body would lie behind the camera.
    """
    points = np.asarray(points, np.float64)
    usable = np.isfinite(keypoints).all(axis=2) & (keypoints[..., 2] > 0) & (np.asarray(points_confidence) > 0)
    weight = np.where(usable, np.nan_to_num(keypoints[..., 2].astype(np.float64), posinf=0.0), 0.0)
    pixels = np.where(usable[..., None], keypoints[..., :2], 0.0).astype(np.float64)
    pixels = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=2)
    rays = np.linalg.solve(np.asarray(cam_int, np.float64), pixels.transpose(0, 2, 1)).transpose(0, 2, 1)
    a, b = rays[..., 0], rays[..., 1]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    right = np.stack([a * z - x, b * z - y], axis=2)
    total = weight.sum(axis=1)
    mean_a, mean_b = (weight * a).sum(axis=1), (weight * b).sum(axis=1)
    zero = np.zeros_like(total)
    normal = np.stack(
        [
            np.stack([total, zero, -mean_a], axis=1),
            np.stack([zero, total, -mean_b], axis=1),
            np.stack([-mean_a, -mean_b, (weight * (a * a + b * b)).sum(axis=1)], axis=1),
        ],
        axis=1,
    )
    rhs = np.stack(
        [
            (weight * right[..., 0]).sum(axis=1),
            (weight * right[..., 1]).sum(axis=1),
            -(weight * (a * right[..., 0] + b * right[..., 1])).sum(axis=1),
        ],
        axis=1,
    )
    # Depth is fixed by how far the rays spread about their mean; without spread the system is singular.
    spread = normal[:, 2, 2] * total - mean_a**2 - mean_b**2
    found = (usable.sum(axis=1) >= _FEWEST_KEYPOINTS) & (spread > 1e-12 * np.maximum(total, 1e-30) ** 2)
    normal[~found] = np.eye(3)
    rhs[~found] = 0
    trans = np.linalg.solve(normal, rhs[..., None])[..., 0]
    depth = np.where(usable, z + trans[:, 2:], np.inf).min(axis=1, initial=np.inf)
    found &= np.isfinite(trans).all(axis=1) & (depth > 0)
    trans[~found] = 0
    return trans, found
