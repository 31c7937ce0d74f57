"""Markers of a SKEL body: its 24 joint centres, and skin markers that are defined by the body itself.

A skin marker is a vertex: of the skin that belongs to some bones, the one nearest to a ray from a joint, or the
farthest in a direction, on the mean shape in the T-pose (palms down, thumbs forward). So every mesh has the same
markers, whatever its topology, and a vertex stays the marker of its body for all shapes. The places are those of
common marker sets, but palpated landmarks they are not: skin over a joint's centre, not over a bony point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitting.anatomy import SKEL_JOINTS, SKEL_PARENTS

if TYPE_CHECKING:
    from fitting import SKEL

JOINT_CENTRES = tuple(f"jc_{name}" for name in SKEL_JOINTS)
"""Markers at the joint centres; in the .osim each lies at the origin of its body."""

FORWARD, BACK, UP, DOWN, RIGHT, LEFT = (
    np.array(direction, float) for direction in ((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (-1, 0, 0), (1, 0, 0))
)
"""In the model frame of SMPL and SKEL."""


@dataclass(frozen=True)
class SkinMarker:
    """A marker and where it lies: from the mean of the `origin` joints in a `direction`."""

    name: str
    body: str
    """The bone that it is fixed to in a .osim; the skin of its neighbours counts as well."""
    origin: tuple[str, ...]
    direction: np.ndarray
    farthest: bool = False
    """The farthest vertex in the direction instead of the one on the ray."""


def _of_side(r: str) -> list[SkinMarker]:
    out, inward = (RIGHT, LEFT) if r == "r" else (LEFT, RIGHT)
    hip, knee, ankle, heel, toes = (f"{bone}_{r}" for bone in ("femur", "tibia", "talus", "calcn", "toes"))
    shoulder, elbow, radius, hand = (f"{bone}_{r}" for bone in ("humerus", "ulna", "radius", "hand"))
    return [
        SkinMarker(f"pelvis_front_{r}", "pelvis", (hip, "lumbar_body"), FORWARD),
        SkinMarker(f"pelvis_back_{r}", "pelvis", (hip, "pelvis", "lumbar_body"), BACK),
        SkinMarker(f"hip_{r}", hip, (hip,), out),
        SkinMarker(f"thigh_{r}", hip, (hip, knee), FORWARD),
        SkinMarker(f"knee_lateral_{r}", hip, (knee,), out),
        SkinMarker(f"knee_medial_{r}", hip, (knee,), inward),
        SkinMarker(f"shank_{r}", knee, (knee, ankle), FORWARD),
        SkinMarker(f"ankle_lateral_{r}", knee, (ankle,), out),
        SkinMarker(f"ankle_medial_{r}", knee, (ankle,), inward),
        SkinMarker(f"heel_{r}", heel, (heel,), BACK, farthest=True),
        SkinMarker(f"toe_lateral_{r}", heel, (toes,), out),
        SkinMarker(f"toe_medial_{r}", heel, (toes,), inward),
        SkinMarker(f"toe_tip_{r}", toes, (toes,), FORWARD, farthest=True),
        SkinMarker(f"shoulder_{r}", shoulder, (shoulder,), UP),
        SkinMarker(f"upper_arm_{r}", shoulder, (shoulder, elbow), UP),
        SkinMarker(f"elbow_lateral_{r}", shoulder, (elbow,), UP),
        SkinMarker(f"elbow_medial_{r}", shoulder, (elbow,), DOWN),
        SkinMarker(f"forearm_{r}", radius, (elbow, hand), UP),
        SkinMarker(f"wrist_radial_{r}", radius, (hand,), FORWARD),
        SkinMarker(f"wrist_ulnar_{r}", radius, (hand,), BACK),
        SkinMarker(f"finger_tip_{r}", hand, (hand,), out, farthest=True),
    ]


SKIN_MARKERS = (
    SkinMarker("head_top", "head", ("head",), UP, farthest=True),
    SkinMarker("head_front", "head", ("head",), FORWARD),
    SkinMarker("head_back", "head", ("head",), BACK),
    SkinMarker("head_side_r", "head", ("head",), RIGHT),
    SkinMarker("head_side_l", "head", ("head",), LEFT),
    SkinMarker("sternum", "thorax", ("scapula_r", "scapula_l", "thorax"), FORWARD),
    SkinMarker("back_upper", "thorax", ("scapula_r", "scapula_l"), BACK),
    SkinMarker("back_middle", "thorax", ("thorax",), BACK),
    SkinMarker("sacrum", "pelvis", ("femur_r", "femur_l", "pelvis"), BACK),
    *_of_side("r"),
    *_of_side("l"),
)


def skin_vertices(skel: SKEL) -> np.ndarray:
    """(M,) vertex of each of SKIN_MARKERS on this body's mesh."""
    import torch

    vertices = skel.v_template.double().numpy()
    joints = skel.rest_joints(torch.zeros(1, 10, dtype=skel.v_template.dtype))[0].double().numpy()
    bone = skel.weights.argmax(1).numpy()
    return np.array([_vertex(marker, vertices, joints, bone) for marker in SKIN_MARKERS])


def _vertex(marker: SkinMarker, vertices: np.ndarray, joints: np.ndarray, bone: np.ndarray) -> int:
    body = SKEL_JOINTS.index(marker.body)
    near = [body, SKEL_PARENTS[body], *(j for j, parent in enumerate(SKEL_PARENTS) if parent == body)]
    own = np.flatnonzero(np.isin(bone, [body] if marker.farthest else near))
    away = vertices[own] - joints[[SKEL_JOINTS.index(name) for name in marker.origin]].mean(0)
    along = away @ marker.direction
    if marker.farthest:
        return int(own[along.argmax()])
    beside = np.linalg.norm(away - along[:, None] * marker.direction, axis=1)
    return int(own[np.where(along > 0, beside, np.inf).argmin()])
