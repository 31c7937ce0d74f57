"""Vertices with a name, and regressors of image keypoints (build time only)."""

from __future__ import annotations

import numpy as np

from fitting.anatomy import SKEL_JOINTS, SMPL_JOINTS
from fitting.demo_body.build.joints import HIPS, Place, fit_regressor, joint_targets
from fitting.demo_body.build.source import Source

# Rows of SMPL_to_J19: what each keypoint is. Limb joints take the anatomical centres, as annotators click them.
LIMBS19 = [
    "talus_r",
    "tibia_r",
    "femur_r",
    "femur_l",
    "tibia_l",
    "talus_l",
    "hand_r",
    "ulna_r",
    "humerus_r",
    "humerus_l",
    "ulna_l",
    "hand_l",
]
MIDLINE19: dict[str, Place] = {
    "neck": ({"neck01": 1}, (0, 0.0, -0.002)),
    "head_top": ({"head": 1}, (0, 0.15, 0.0)),
    "pelvis": (HIPS, (0, 0.03, 0.01)),
    "thorax": ({"neck01": 1}, (0, -0.045, -0.005)),
    "spine": (HIPS, (0, 0.28, -0.01)),
    "jaw": ({"head": 1}, (0, -0.015, 0.075)),
    "head": ({"head": 1}, (0, 0.06, 0.03)),
}
MIX = {  # rows of J_regressor_SKEL_mix that follow SKEL's anatomical centres rather than SMPL's
    "l_hip": "femur_l",
    "l_knee": "tibia_l",
    "l_ankle": "talus_l",
    "l_shoulder": "humerus_l",
    "l_elbow": "ulna_l",
    "l_wrist": "hand_l",
    "r_hip": "femur_r",
    "r_knee": "tibia_r",
    "r_ankle": "talus_r",
    "r_shoulder": "humerus_r",
    "r_elbow": "ulna_r",
    "r_wrist": "hand_r",
}


def keypoint_regressors(
    source: Source, bodies: np.ndarray, mirror: np.ndarray, smpl_rows: np.ndarray, skel_rows: np.ndarray
) -> dict[str, np.ndarray]:
    """J19 (19, V), mix (24, V) and smpl (24, V), rows sum to 1."""
    names = list(MIDLINE19)
    targets = joint_targets(source, names, MIDLINE19)
    targets[:, :, 0] = 0.0
    middle = fit_regressor(bodies, mirror, targets, np.arange(len(names)))
    j19 = np.concatenate([skel_rows[[SKEL_JOINTS.index(n) for n in LIMBS19]], middle])
    mix = smpl_rows.copy()
    for name, bone in MIX.items():
        mix[SMPL_JOINTS.index(name)] = skel_rows[SKEL_JOINTS.index(bone)]
    return {"j19": j19, "mix": mix, "smpl": smpl_rows}


def vertex_joint_ids(source: Source, v: np.ndarray, anny: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(21,) skin vertices in the order of smplx's VertexJointSelector."""
    heads = source.heads[0]

    def head(name: str) -> np.ndarray:
        return heads[source.bone(name)]

    def tip(starts: str, direction: tuple[float, float, float]) -> int:
        chosen = [i for i, b in enumerate(source.bones) if b.startswith(starts) and b.endswith(".L")]
        score = v @ np.array(direction)
        score[anny[:, chosen].sum(1) < 0.5] = -np.inf
        return int(score.argmax())

    middle, left = np.abs(v[:, 0]) < 1e-6, v[:, 0] > 1e-6
    eye = head("eye.L")
    nose = int(np.where(middle & (np.abs(v[:, 1] - eye[1] + 0.04) < 0.04), v[:, 2], -9).argmax())
    leye = int(np.where(np.hypot(v[:, 0] - eye[0], v[:, 1] - eye[1]) < 0.006, v[:, 2], -9).argmax())
    lear = int(
        np.where(
            (np.abs(v[:, 1] - eye[1] + 0.01) < 0.03) & (v[:, 1] > head("neck03")[1]),
            v[:, 0] - 2 * (np.abs(v[:, 0]) > 0.15),
            -9,
        ).argmax()
    )
    heel = int(
        np.where(left & (v[:, 1] < head("foot.L")[1] - 0.02) & (v[:, 1] > v[:, 1].min() + 0.012), -v[:, 2], -9).argmax()
    )
    toes = [tip("toe1", (0, 0, 1)), tip("toe5", (0, 0, 1)), heel]
    fingers = [tip("finger1", (0.6, 0, 0.8))] + [tip(f"finger{k}", (1, 0, 0)) for k in (2, 3, 4, 5)]
    r = mirror
    return np.array([nose, r[leye], leye, r[lear], lear, *toes, *r[toes], *fingers, *r[fingers]])


def skel_landmarks(source: Source, v: np.ndarray, anny: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(14,) skin vertices that scale head, hand and thorax bones: PLAN's order, the last one unused (-1)."""
    heads = source.heads[0]
    eye, skull = heads[source.bone("eye.L")], heads[source.bone("head")]
    middle = np.abs(v[:, 0]) < 1e-6

    def nearest(point, allowed) -> int:
        distance = np.linalg.norm(v - np.asarray(point), axis=1)
        return int(np.where(allowed, distance, np.inf).argmin())

    brow = nearest([0, eye[1] + 0.03, eye[2] + 0.05], middle)
    nape = nearest([0, eye[1] - 0.01, skull[2] - 0.15], middle)
    neck = nearest([0, heads[source.bone("neck03")][1] + 0.01, skull[2] - 0.1], middle)
    top = int(np.where(middle, v[:, 1], -9).argmax())
    temple = int(np.where((np.abs(v[:, 1] - eye[1] - 0.05) < 0.02) & (np.abs(v[:, 0]) < 0.12), v[:, 0], -9).argmax())
    wrist, knuckle = heads[source.bone("wrist.L")], heads[source.bone("finger3-1.L")]
    palm = (wrist + knuckle) / 2
    in_hand = (v[:, 0] > wrist[0]) & (v[:, 0] < knuckle[0])
    back_of_hand = nearest(palm + np.array([0, 0.05, 0]), in_hand)
    hollow = nearest(palm - np.array([0, 0.05, 0]), in_hand)
    middle_tip = [i for i, b in enumerate(source.bones) if b.startswith("finger3") and b.endswith(".L")]
    fingertip = int(np.where(anny[:, middle_tip].sum(1) > 0.5, v[:, 0], -9).argmax())
    wrist_side = nearest(wrist + np.array([0, 0.05, 0]), np.ones(len(v), bool))
    # High on the chest, where little flesh covers the bones.
    collar = heads[source.bone("clavicle.L")]
    spine = nearest([0, collar[1] - 0.05, -0.2], middle)
    front_low, front_high = nearest([0, collar[1] - 0.06, 0.2], middle), nearest([0, collar[1] - 0.02, 0.2], middle)
    return np.array(
        [
            brow,
            nape,
            top,
            neck,
            temple,
            mirror[temple],
            back_of_hand,
            hollow,
            wrist_side,
            fingertip,
            spine,
            front_low,
            front_high,
            -1,
        ]
    )
