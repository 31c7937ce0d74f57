"""The bone mesh: a procedural human skeleton inside the template skin (build time only).

Measures are read from the joint centres and finger and toe bones of the template where they exist and set by eye
elsewhere, in the template's frame (x left, y up, z forward, metres). Left bones are modelled and mirrored. Every vertex
is then kept a few millimetres under the skin and stored in its bone's own frame, as step 7 of SKEL wants it.
"""

from __future__ import annotations

import numpy as np

from fitting.anatomy import SKEL_JOINTS
from fitting.demo_body.build.bone_parts import COVER, Part, SkinDepth
from fitting.demo_body.build.joints import mirror_joints
from fitting.demo_body.build.limb_bones import arm, leg, scapula
from fitting.demo_body.build.solids import mirrored
from fitting.demo_body.build.trunk_bones import pelvis, ribs, skull, spine

TRUNK_COVER = 0.011  # more over ribs and spine: their scale follows the spine's length, not the trunk's girth


def build_bones(
    template: np.ndarray,
    faces: np.ndarray,
    joints: np.ndarray,
    heads: dict[str, np.ndarray],
    to_local: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """Bone mesh for the template.

    joints: (24,3) SKEL joint centres. heads: template positions of Anny's left and middle bones.
    to_local: A (24,3,3) and uniform bone scale (24,) at zero shape.
    Returns v (Nk,3) in bone frames, f (Fk,3), rigid (Nk,24) and weights (Nk,24).
    """
    at = dict(zip(SKEL_JOINTS, joints, strict=True))
    index = {n: i for i, n in enumerate(SKEL_JOINTS)}
    skin = SkinDepth(template, faces)
    left = leg(at, heads, index) + arm(at, heads, index, skin) + scapula(at, index, skin) + ribs(at, index)
    twins = mirror_joints(SKEL_JOINTS)
    parts = skull(index, skin, heads) + spine(at, index) + pelvis(at, index, skin) + left
    for part in left:
        other = twins[part.other] if part.other >= 0 else -1
        parts.append(Part(mirrored(part.mesh), twins[part.owner], other, part.share))
    vertices, triangles, rigid, weights, used = [], [], [], [], 0
    frames, scale = to_local
    trunk = (index["thorax"], index["lumbar_body"])
    for part in parts:
        v, f = part.mesh
        v = skin.covered(v, TRUNK_COVER if part.owner in trunk else COVER)
        own, pose = np.zeros((len(v), 24)), np.zeros((len(v), 24))
        own[:, part.owner] = 1
        share = part.share if part.other >= 0 else np.zeros(len(v))
        pose[:, part.owner] = 1 - share
        if part.other >= 0:
            pose[:, part.other] = share
        vertices.append((v - joints[part.owner]) @ frames[part.owner] / scale[part.owner])
        triangles.append(f + used)
        rigid.append(own)
        weights.append(pose)
        used += len(v)
    return {
        "v": np.concatenate(vertices),
        "f": np.concatenate(triangles),
        "rigid": np.concatenate(rigid),
        "weights": np.concatenate(weights),
    }
