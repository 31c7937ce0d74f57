"""The command `hmr-skel coordinates`: SKEL's 46 joint angles, one line each, as text that fits 80 columns."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from pipelines.command.options import parse_options

UPRIGHT, STRAIGHT, T_POSE = "upright", "straight", "T-pose"

_POSITIVE = {
    "pelvis_tilt": "lean back",
    "pelvis_list": "lean right",
    "pelvis_rotation": "turn left",
    "hip_flexion": "flexion",
    "hip_adduction": "adduction",
    "hip_rotation": "turn in",
    "knee_angle": "flexion",
    "ankle_angle": "toes up",
    "subtalar_angle": "inversion",
    "mtp_angle": "toes down",
    "scapula_upward_rot": "tip up",
    "shoulder_z": "forward",
    "elbow_flexion": "flexion",
    "pro_sup": "pronation",
    "wrist_flexion": "flexion",
    "wrist_deviation": "ulnar",
    **{f"{part}_bending": "bend right" for part in ("lumbar", "thorax", "head")},
    **{f"{part}_extension": "bend back" for part in ("lumbar", "thorax", "head")},
    **{f"{part}_twist": "turn left" for part in ("lumbar", "thorax", "head")},
    "scapula_abduction_r": "forward",
    "scapula_abduction_l": "backward",
    "scapula_elevation_r": "down",
    "scapula_elevation_l": "up",
    "shoulder_r_x": "down",
    "shoulder_l_x": "up",
    "shoulder_r_y": "turn in",
    "shoulder_l_y": "turn out",
}
"""What a positive angle does, seen from zero; of arms, in the T-pose. Names of both sides lack theirs."""

_FORMAT = "{:<20} {:<11} {:<14} {:<10} {:<8} {:<3} {}"


@dataclass
class CoordinatesOptions:
    """The table has no options of its own."""


def main(argv: list[str], prog: str = "hmr-skel coordinates") -> int:
    """List SKEL's 46 joint angles: name, joint, axis, sign, zero, unit, limits."""
    parse_options(CoordinatesOptions, argv, prog, "List SKEL's 46 joint angles.")
    sys.stdout.write(coordinate_table())
    return 0


def coordinate_table() -> str:
    """A heading and a line per coordinate, none longer than 80 characters.

    Axes are in the joint's frame at zero: x forward, y up, z to the right, or for an arm that hangs; they include the
    sign, so that a positive angle turns about them by the right hand's rule.
    """
    from fitting.body.kinematics import AXIS_OF_SLOT, JOINT_OF_COORDINATE, SLOT_OF_COORDINATE
    from fitting.body.limits import HUMAN_LIMITS

    lines = [_FORMAT.format("coordinate", "joint", "axis", "positive", "zero", "in", "limits")]
    for c, name in enumerate(COORDINATE_NAMES):
        joint = JOINT_OF_COORDINATE[c]
        axis = AXIS_OF_SLOT[joint, SLOT_OF_COORDINATE[c]]
        words = positive_sense(name), zero_pose(SKEL_JOINTS[joint])
        lines.append(_FORMAT.format(name, SKEL_JOINTS[joint], _axis(axis), *words, "deg", _limits(HUMAN_LIMITS[c])))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def positive_sense(name: str) -> str:
    """What the coordinate does to the body when it grows from zero."""
    plain = name.replace("_r_", "_").replace("_l_", "_").removesuffix("_r").removesuffix("_l")
    return _POSITIVE.get(name) or _POSITIVE[plain]


def zero_pose(joint: str) -> str:
    """What the joint looks like at zero."""
    if joint in ("pelvis", "lumbar_body", "thorax", "head"):
        return UPRIGHT
    legs = ("femur", "tibia", "talus", "calcn", "toes")
    return STRAIGHT if joint.rsplit("_", 1)[0] in legs else T_POSE


def _axis(axis: np.ndarray) -> str:
    for number, letter in enumerate("xyz"):
        if abs(axis[number]) > 1 - 1e-9:
            return letter if axis[number] > 0 else f"-{letter}"
    return " ".join(f"{value:.2f}".replace("0.", ".") if abs(value) >= 0.005 else "0" for value in axis)


def _limits(limits: np.ndarray) -> str:
    if not np.isfinite(limits).all():
        return "none"
    low, high = np.rint(np.degrees(limits)).astype(int)
    return f"+-{high}" if low == -high else f"{low} {high}"
