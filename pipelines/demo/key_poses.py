"""Key poses around which demo people are drawn: legs and trunk in SKEL's angles, arms as directions."""

from __future__ import annotations

from dataclasses import dataclass

Direction = tuple[float, float, float]
"""Outwards (away from the trunk), up, forwards; of any length, in the frame of the thorax."""
Arm = tuple[Direction, Direction]
"""Directions of upper arm and forearm."""
Leg = tuple[float, float, float, float]
"""Hip flexion, adduction, rotation, knee flexion; radians."""

_HANG: Arm = ((0.16, -1.0, 0.03), (0.08, -1.0, 0.2))
ARMS: dict[str, Arm] = {
    "hang": _HANG,
    "relaxed": ((0.2, -1.0, -0.08), (0.02, -1.0, 0.45)),
    "hip": ((0.75, -0.75, -0.3), (-0.62, -0.62, 0.42)),
    "phone": ((0.3, -0.9, 0.35), (-0.12, 0.9, 0.35)),
    "hold": ((0.12, -1.0, 0.12), (-0.25, 0.05, 1.0)),
    "crossed": ((0.25, -0.9, 0.4), (-0.95, 0.05, 0.3)),
    "wave": ((0.85, 0.35, 0.2), (0.25, 1.0, 0.15)),
    "up": ((0.35, 1.0, 0.1), (0.1, 1.0, 0.1)),
    "high": ((0.65, 0.8, 0.1), (0.5, 1.0, 0.05)),
    "side": ((1.0, 0.0, 0.05), (1.0, 0.0, 0.12)),
    "forward": ((0.15, -0.05, 1.0), (0.02, 0.05, 1.0)),
    "point": ((0.5, 0.05, 0.9), (0.45, 0.1, 0.9)),
    "guard": ((0.3, -0.8, 0.5), (-0.25, 0.85, 0.55)),
    "back": ((0.3, -0.75, -0.6), (0.1, -0.8, -0.1)),
    "pump": ((0.2, -0.75, -0.65), (0.05, -0.35, 0.95)),
    "drive": ((0.18, -0.85, 0.45), (-0.25, 0.45, 0.9)),
}
EVERYDAY = ("hang", "relaxed", "hip", "phone", "hold", "crossed", "wave", "hang", "relaxed", "point", "hang")


@dataclass(frozen=True)
class KeyPose:
    """A pose to draw others around; the person's right side comes first in pairs. Angles in radians."""

    weight: float
    legs: tuple[Leg, Leg]
    arms: tuple[str, str] | tuple[()] = ()
    """Names in `ARMS`; empty = any everyday pair."""
    flat: tuple[bool, bool] = (True, True)
    """Which soles lie on the ground; a foot that does not points its toes by `point`."""
    point: float = 0.3
    tilt: float = 0.0
    """Forward lean of the pelvis."""
    lean: float = 0.0
    """Lean of the pelvis to the right."""
    bow: float = 0.0
    """Forward bend of the spine."""
    bend: float = 0.0
    """Bend of the spine to the right."""
    twist: float = 0.0
    """Turn of the spine to the left."""
    level: bool = True
    """Both feet carry: the longer leg bends until they stand equally high."""
    seat: str = "none"
    """"chair": the ground is below the feet and a box below the buttocks."""
    spread: float = 1.0
    """How far drawn poses stray from this one."""


def _both(flexion: float, adduction: float, rotation: float, knee: float) -> tuple[Leg, Leg]:
    leg = (flexion, adduction, rotation, knee)
    return leg, leg


KEY_POSES: dict[str, KeyPose] = {
    "stand": KeyPose(7, _both(0.03, -0.06, -0.12, 0.05)),
    "stand_easy": KeyPose(4, ((0.02, -0.03, -0.1, 0.03), (0.18, -0.12, -0.25, 0.3)), lean=0.05, bend=-0.08),
    "walk": KeyPose(
        6,
        ((0.42, -0.03, -0.05, 0.14), (-0.28, -0.02, -0.05, 0.3)),
        ("relaxed", "hold"),
        (True, False),
        tilt=0.04,
    ),
    "stroll": KeyPose(3, ((0.28, -0.03, -0.08, 0.1), (-0.18, -0.02, -0.08, 0.2)), (), (True, False)),
    "run": KeyPose(
        4,
        ((1.15, -0.02, 0.0, 1.45), (-0.22, -0.02, 0.0, 0.25)),
        ("pump", "drive"),
        (False, False),
        tilt=0.18,
        bow=0.1,
        twist=-0.2,
        level=False,
        point=0.1,
    ),
    "sprint": KeyPose(
        2,
        ((0.85, 0.0, 0.0, 0.9), (-0.5, 0.0, 0.0, 1.4)),
        ("pump", "drive"),
        (True, False),
        tilt=0.22,
        bow=0.1,
        twist=-0.2,
        level=False,
        point=0.5,
    ),
    "sit": KeyPose(5, _both(1.5, -0.16, -0.05, 1.45), seat="chair", tilt=-0.05, bow=0.2),
    "sit_crossed_ankles": KeyPose(
        2, ((1.35, -0.05, 0.1, 1.0), (1.3, -0.1, 0.1, 0.95)), seat="chair", tilt=-0.2, bow=0.3, level=False
    ),
    "sit_floor": KeyPose(
        2, _both(1.55, -0.6, -0.7, 2.1), ("hold", "hold"), (False, False), bow=0.25, tilt=-0.05, level=False, spread=0.6
    ),
    "sit_long": KeyPose(
        1.5,
        ((1.35, -0.12, -0.1, 0.3), (1.75, -0.15, -0.1, 1.3)),
        ("back", "back"),
        (False, True),
        tilt=-0.2,
        bow=0.2,
        level=False,
        spread=0.6,
        point=0.2,
    ),
    "squat": KeyPose(2.5, _both(1.85, -0.35, -0.3, 2.05), ("forward", "hold"), tilt=0.35, bow=0.3),
    "half_squat": KeyPose(2.5, _both(1.2, -0.3, -0.25, 1.3), ("guard", "guard"), tilt=0.35, bow=0.2),
    "lunge": KeyPose(
        3,
        ((1.35, -0.05, -0.05, 1.4), (-0.45, -0.03, 0.0, 0.75)),
        (),
        (True, False),
        point=-0.2,
    ),
    "side_lunge": KeyPose(
        2, ((1.1, -0.6, -0.35, 1.4), (0.35, -0.65, -0.1, 0.05)), ("hold", "side"), tilt=0.3, bow=0.2, level=False
    ),
    "warrior": KeyPose(
        2, ((1.0, -0.5, -0.6, 1.0), (0.0, -0.65, -0.3, 0.05)), ("side", "side"), level=False, spread=0.6
    ),
    "star": KeyPose(2, _both(0.05, -0.45, -0.25, 0.05), ("high", "high")),
    "arms_up": KeyPose(3, _both(0.05, -0.1, -0.1, 0.08), ("up", "up"), bow=-0.1),
    "reach": KeyPose(3, ((0.2, -0.08, -0.05, 0.15), (-0.1, -0.06, -0.1, 0.15)), ("up", "relaxed"), bend=-0.15),
    "throw": KeyPose(
        3,
        ((-0.25, -0.15, -0.2, 0.3), (0.55, -0.12, -0.1, 0.35)),
        ("wave", "point"),
        (False, True),
        twist=-0.5,
        bow=-0.1,
        bend=0.1,
    ),
    "kick": KeyPose(
        2,
        ((1.2, -0.05, 0.0, 0.2), (0.0, -0.05, -0.1, 0.12)),
        ("back", "side"),
        (False, True),
        tilt=-0.15,
        bow=0.2,
        level=False,
    ),
    "tree": KeyPose(
        1.5,
        ((0.9, -0.6, -0.7, 2.0), (0.0, 0.06, 0.0, 0.03)),
        ("up", "up"),
        (False, True),
        level=False,
        spread=0.5,
    ),
    "dance_high": KeyPose(
        2.5,
        ((0.7, -0.45, -0.5, 1.2), (-0.05, -0.05, -0.2, 0.15)),
        ("up", "hip"),
        (False, True),
        lean=-0.08,
        bend=0.25,
        twist=0.2,
        level=False,
        point=0.6,
    ),
    "dance_low": KeyPose(
        2.5,
        ((0.75, -0.3, -0.2, 0.9), (0.45, -0.4, -0.3, 0.9)),
        ("side", "guard"),
        (True, True),
        lean=0.1,
        bend=-0.3,
        twist=0.35,
        tilt=0.1,
    ),
    "arabesque": KeyPose(
        1,
        ((-0.6, -0.05, -0.1, 0.1), (0.55, 0.0, -0.05, 0.06)),
        ("forward", "side"),
        (False, True),
        tilt=0.55,
        bow=-0.3,
        level=False,
        point=0.7,
    ),
    "kneel": KeyPose(
        2.5,
        ((1.5, -0.1, -0.1, 1.5), (0.0, -0.03, 0.0, 1.6)),
        (),
        (True, False),
        level=False,
        point=-0.6,
        spread=0.5,
    ),
    "pick_up": KeyPose(2, _both(1.25, -0.12, -0.1, 0.55), ("forward", "forward"), tilt=0.8, bow=0.7, spread=0.8),
    "all_fours": KeyPose(
        1,
        _both(1.45, -0.08, 0.0, 1.55),
        ("forward", "forward"),
        (False, False),
        tilt=1.4,
        level=False,
        point=0.5,
        spread=0.4,
    ),
}
