"""SMPL poses at the ends of what people can do: every coordinate of SKEL to both sides, postures that need several
of them, and some that no human takes.

Written in SMPL's own joints, so that nothing of SKEL's angles or limits goes in. SMPL stands in the T-pose, x to its
left, y up, z forward. Ends are those of flexible people (`fitting/body/limits.py` has the sources), shared between
SMPL's joints as they share them: a shoulder's between collar and shoulder, the trunk's among three joints.
"""

from __future__ import annotations

import torch
from hard_poses import (
    HEAD,
    L_ANKLE,
    L_COLLAR,
    L_ELBOW,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    L_WRIST,
    NECK,
    R_ANKLE,
    R_HIP,
    R_KNEE,
    SPINE1,
    SPINE2,
    SPINE3,
)
from scipy.spatial.transform import Rotation

L_FOOT, R_FOOT = 10, 11
PELVIS = 0

_RIGHT_OF = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
"""SMPL's right joint of each left one."""

Vector = tuple[float, float, float]


def turned(*turns: tuple[str, float]) -> Vector:
    """Axis-angle, rad, of turns about axes that stay, in degrees, one after the other."""
    axes, angles = zip(*turns, strict=True)
    x, y, z = Rotation.from_euler("".join(axes), angles, degrees=True).as_rotvec()
    return float(x), float(y), float(z)


def pair(*joints: tuple[int, Vector]) -> dict[int, Vector]:
    """A left limb's joints and, mirrored, the right limb's."""
    left = dict(joints)
    return left | {_RIGHT_OF[joint]: (x, -y, -z) for joint, (x, y, z) in left.items()}


def one(joint: int, axis: str, degrees: float) -> tuple[int, Vector]:
    return joint, turned((axis, degrees))


def bent(axis: str, *degrees: float) -> dict[int, Vector]:
    """The trunk's three joints, and neck and head if they are given."""
    return dict(one(joint, axis, value) for joint, value in zip((3, 6, 9, 12, 15), degrees, strict=False))


HANGING = pair(one(L_SHOULDER, "z", -80))

ENDS = {
    "hip flexed 140": pair(one(L_HIP, "x", -140), one(L_KNEE, "x", 140)),
    "hip extended 50": pair(one(L_HIP, "x", 50)),
    "hip adducted 35": {L_HIP: turned(("z", -35), ("x", -25)), R_HIP: turned(("z", 30), ("x", 10))},
    "hip abducted 90": pair(one(L_HIP, "z", 88)),
    "hip rotated in 60": pair(one(L_HIP, "y", -60)),
    "hip rotated out 85": pair(one(L_HIP, "y", 85)),
    "knee flexed 160": pair(one(L_KNEE, "x", 160)),
    "knee hyperextended 10": pair(one(L_KNEE, "x", -10)),
    "foot pointed 75": pair(one(L_ANKLE, "x", 75)),
    "foot raised 40": pair(one(L_ANKLE, "x", -40)),
    "sole turned in 40": pair(one(L_ANKLE, "z", 40)),
    "sole turned out 25": pair(one(L_ANKLE, "z", -25)),
    "foot turned in 30": pair(one(L_ANKLE, "y", -30)),
    "foot turned out 30": pair(one(L_ANKLE, "y", 30)),
    "toes up 90": pair(one(L_FOOT, "x", -90)),
    "toes down 45": pair(one(L_FOOT, "x", 45)),
    "trunk to the left 60": bent("z", -25, -20, -15),
    "trunk to the right 60": bent("z", 25, 20, 15),
    "trunk forward 110": bent("x", 45, 40, 25),
    "trunk backward 80": bent("x", -35, -30, -15),
    "trunk turned left 80": bent("y", 25, 30, 25),
    "trunk turned right 80": bent("y", -25, -30, -25),
    "lumbar spine alone forward 45": bent("x", 45),
    "lumbar spine alone backward 40": bent("x", -40),
    "lumbar spine alone to the left 30": bent("z", -30),
    "lumbar spine alone turned 30": bent("y", 30),
    "thorax alone forward 45": bent("x", 0, 0, 45),
    "thorax alone backward 35": bent("x", 0, 0, -35),
    "thorax alone to the right 35": bent("z", 0, 0, 35),
    "thorax alone turned 45": bent("y", 0, 0, -45),
    "head to the left 50": bent("z", 0, 0, 0, -25, -25),
    "head to the right 50": bent("z", 0, 0, 0, 25, 25),
    "head forward 60": bent("x", 0, 0, 0, 30, 30),
    "head backward 80": bent("x", 0, 0, 0, -45, -35),
    "head turned left 85": bent("y", 0, 0, 0, 45, 40),
    "head turned right 85": bent("y", 0, 0, 0, -45, -40),
    "shoulders forward 30": pair(one(L_COLLAR, "y", -30)),
    "shoulders back 25": pair(one(L_COLLAR, "y", 25)),
    "shrug 40": pair(one(L_COLLAR, "z", 40), one(L_SHOULDER, "z", -110)),
    "shoulders down 12": pair(one(L_COLLAR, "z", -12), one(L_SHOULDER, "z", -75)),
    "shoulder blades turned up": pair(one(L_COLLAR, "z", 40), one(L_SHOULDER, "z", 50)),
    "shoulder blades turned down": pair(one(L_COLLAR, "z", -15), one(L_SHOULDER, "z", -80)),
    "arms hanging": HANGING,
    "arms overhead 180": pair(one(L_COLLAR, "z", 30), one(L_SHOULDER, "z", 60)),
    "arms forward": pair(one(L_SHOULDER, "y", -90)),
    "arms crossed in front 130": pair(one(L_COLLAR, "y", -20), one(L_SHOULDER, "y", -115)),
    "arms behind 50": pair((L_SHOULDER, turned(("z", -90), ("x", 50)))),
    "arms turned in 80": pair(one(L_SHOULDER, "x", 80)),
    "arms turned out 100": pair(one(L_SHOULDER, "x", -100)),
    "hanging arms turned in 80": pair((L_SHOULDER, turned(("x", 80), ("z", -80)))),
    "hanging arms turned out 80": pair((L_SHOULDER, turned(("x", -80), ("z", -80)))),
    "elbows flexed 150": pair(one(L_ELBOW, "y", -150)),
    "elbows hyperextended 10": pair(one(L_ELBOW, "y", 10)),
    "palms up 90": pair(one(L_WRIST, "x", -90)),
    "palms back 85": pair(one(L_WRIST, "x", 85)),
    "wrists flexed 85": pair(one(L_WRIST, "z", -85)),
    "wrists extended 80": pair(one(L_WRIST, "z", 80)),
    "hands to the thumb 25": pair(one(L_WRIST, "y", -25)),
    "hands to the little finger 40": pair(one(L_WRIST, "y", 40)),
}
"""Each coordinate to both ends."""

POSTURES = {
    "rest": {},
    "side split 80": pair(one(L_HIP, "z", 80)),
    "side split with feet up": pair((L_HIP, turned(("y", 60), ("z", 85)))),
    "front split": {L_HIP: turned(("x", -88)), R_HIP: turned(("x", 75))},
    "straddle, chest down": pair((L_HIP, turned(("x", -90), ("y", 65)))) | bent("x", 30, 25, 20, -20, -20),
    "lotus": pair((L_HIP, turned(("z", 70), ("x", -85), ("y", 45))), one(L_KNEE, "x", 135)) | HANGING,
    "hero pose": pair((L_HIP, turned(("y", -25), ("x", -80))), one(L_KNEE, "x", 155), one(L_ANKLE, "x", 60)),
    "child's pose": pair(one(L_HIP, "x", -135), one(L_KNEE, "x", 155), one(L_ANKLE, "x", 55)) | bent("x", 30, 25, 15),
    "bridge": pair(one(L_HIP, "x", 25), one(L_KNEE, "x", 85), one(L_COLLAR, "z", 30), one(L_SHOULDER, "z", 75))
    | bent("x", -35, -30, -20, -30, -25),
    "cobra": bent("x", -35, -25, -20, -35, -25) | HANGING,
    "full squat": pair(
        (L_HIP, turned(("x", -125), ("y", 20))),
        one(L_KNEE, "x", 150),
        one(L_ANKLE, "x", -35),
        one(L_SHOULDER, "y", -80),
    )
    | bent("x", 20, 15, 10),
    "shoulder stand": {PELVIS: turned(("x", -90))} | HANGING | bent("x", 15, 15, 20, 35, 35),
    "plough": pair(one(L_HIP, "x", -120)) | bent("x", 30, 30, 25, 30, 30),
    "heel to buttock": {R_KNEE: turned(("x", 158)), R_HIP: turned(("x", 15))} | HANGING,
    "heels to buttocks": pair(one(L_KNEE, "x", 158)),
    "arms behind back": pair((L_SHOULDER, turned(("x", 70), ("z", -75), ("x", 35))), (L_ELBOW, turned(("y", -100)))),
    "hand between shoulder blades": {
        L_SHOULDER: turned(("x", 80), ("z", -70), ("x", 40)),
        L_ELBOW: turned(("y", -130)),
        L_WRIST: turned(("z", 20)),
    },
    "hands behind head": pair(
        one(L_COLLAR, "z", 20), (L_SHOULDER, turned(("x", -70), ("z", 35))), one(L_ELBOW, "y", -140)
    ),
    "self hug": pair(one(L_COLLAR, "y", -20), (L_SHOULDER, turned(("z", -15), ("y", -100))), one(L_ELBOW, "y", -110)),
    "foot behind head": {L_HIP: turned(("z", 30), ("x", -150), ("y", 35)), L_KNEE: turned(("x", 120))}
    | bent("x", 25, 20, 15, 25, 20),
    "standing forward bend": pair(one(L_HIP, "x", -110), one(L_SHOULDER, "y", -85)) | bent("x", 30, 25, 20, 20, 20),
    "dancer": {
        PELVIS: turned(("x", 40)),
        R_HIP: turned(("x", 60)),
        R_KNEE: turned(("x", 110)),
        R_ANKLE: turned(("x", 60)),
        L_HIP: turned(("x", -40)),
    }
    | bent("x", -30, -25, -20, -20, -10),
    "pigeon": {L_HIP: turned(("z", 75), ("x", -80)), L_KNEE: turned(("x", 110)), R_HIP: turned(("x", 45))},
    "seated twist": pair(one(L_HIP, "x", -90), one(L_KNEE, "x", 90)) | bent("y", 25, 30, 25, 35, 30),
    "eagle arms": {
        L_SHOULDER: turned(("y", -110)),
        L_ELBOW: turned(("y", -100)),
        17: turned(("y", 120), ("x", 10)),
        19: turned(("y", 110)),
    },
    "on tiptoe": pair(one(L_ANKLE, "x", 55), one(L_FOOT, "x", -60)) | HANGING,
    "W sitting": pair((L_HIP, turned(("z", -45), ("x", -90), ("y", 20))), one(L_KNEE, "x", 140)),
}

INHUMAN = {
    "knee bent forward 60": {L_KNEE: turned(("x", -60))},
    "knee bent sideways 50": {R_KNEE: turned(("x", 15), ("z", 50))},
    "elbow bent backward 70": {L_ELBOW: turned(("y", 70))},
    "head turned round": {NECK: turned(("y", 80)), HEAD: turned(("y", 80))},
    "head hanging behind": {NECK: turned(("x", -80)), HEAD: turned(("x", -75))},
    "foot turned backward": {L_ANKLE: turned(("y", 150))},
    "hand turned round": {L_WRIST: turned(("x", 175))},
    "hand folded back": {L_WRIST: turned(("z", 150))},
    "trunk turned round": {SPINE1: turned(("y", 70)), SPINE2: turned(("y", 70)), SPINE3: turned(("y", 70))},
    "knee bent through": {R_KNEE: turned(("x", 220))},
    "foot folded up": {R_ANKLE: turned(("x", -100))},
}

HUMAN = ENDS | POSTURES


def smpl_poses(poses: dict[str, dict[int, Vector]]) -> torch.Tensor:
    """(B, 72) SMPL poses of joints' axis-angles; the other joints are at rest."""
    found = torch.zeros(len(poses), 24, 3)
    for row, joints in enumerate(poses.values()):
        for joint, turn in joints.items():
            found[row, joint] = torch.tensor(turn)
    return found.flatten(1)
