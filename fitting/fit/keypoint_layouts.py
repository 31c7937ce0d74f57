"""Which of the 44 keypoints another layout's keypoints are.

Sources: COCO's keypoint task (17), OpenPose's BODY_25, the 44 of the label files (`schemas.camerahmr`) and Halpe's body
of 26 (Fang et al., AlphaPose, TPAMI 2022). What has the same name is the same place of the body.
"""

from __future__ import annotations

import numpy as np

from schemas import InputError
from schemas.camerahmr import KEYPOINT_NAMES, OPENPOSE_NAMES
from schemas.prediction import COCO_KEYPOINT_NAMES

_HALPE = (
    *COCO_KEYPOINT_NAMES,
    *("head_top_lsp", "neck", "mid_hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe"),
    *("left_heel", "right_heel"),
)

LAYOUTS: dict[str, tuple[str, ...]] = {
    "coco17": COCO_KEYPOINT_NAMES,
    "openpose25": OPENPOSE_NAMES,
    "halpe26": _HALPE,
    "44": KEYPOINT_NAMES,
}
"""Names of each layout's keypoints, as the 44 are called."""


def to_44(keypoints: np.ndarray, layout: str | None = None) -> np.ndarray:
    """(B, 44, 3) x, y and confidence of keypoints (B, K, 3); those that the layout lacks have confidence 0.

    Without a layout's name the number of keypoints tells it. What is not finite has confidence 0, negative confidence
    is 0. Raises InputError for a layout that is not known or of another size.
    """
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3:
        raise InputError(f"keypoints of shape {keypoints.shape}", expected="(people, keypoints, 3): x, y, confidence")
    count = keypoints.shape[1]
    sizes = {len(names): name for name, names in LAYOUTS.items()}
    layout = sizes.get(count) if layout is None else layout
    if layout not in LAYOUTS or len(LAYOUTS[layout]) != count:
        known = ", ".join(f"{name} ({len(names)})" for name, names in LAYOUTS.items())
        raise InputError(f"{count} keypoints of layout {layout}", field="keypoints", expected=known)
    result = np.zeros((len(keypoints), len(KEYPOINT_NAMES), 3))
    result[:, [KEYPOINT_NAMES.index(name) for name in LAYOUTS[layout]]] = keypoints
    missing = ~np.isfinite(result).all(2) | (result[..., 2] <= 0)
    result[missing] = 0
    return result
