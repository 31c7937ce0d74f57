"""Slow, literal posing of both rigs in float64, to check the built body with (nothing at run time uses it).

Follows the steps of `fitting/README.md`, one person at a time. `smpl` and `skel` are the dictionaries of this package.
"""

from __future__ import annotations

import numpy as np

TO_SMPL = [0, 2, 5, 8, 8, 11, 1, 4, 7, 7, 10, 3, 6, 15, 14, 17, 19, 0, 21, 13, 16, 18, 0, 20]
FIXED = (0, 5, 10, 13, 18, 23)


def _dense(a) -> np.ndarray:
    return np.asarray(a.todense()) if hasattr(a, "todense") else np.asarray(a, dtype=float)


def rotation(axis, angle: float) -> np.ndarray:
    """Rotation matrix about an axis of unit length (normalised here)."""
    axis = np.asarray(axis, dtype=float)
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def _pin(a: float, b: float, c: float) -> np.ndarray:
    return (rotation([1, 0, 0], a) @ rotation([0, 1, 0], b) @ rotation([0, 0, 1], c))[:, 2]


X, Y, Z = np.eye(3)
_TALUS = _pin(0.175895, -0.105208, 0.0186622)
AXES: list[list[np.ndarray]] = [
    [Z, X, Y],
    [Z, X, Y],
    [-Z],
    [_TALUS],
    [_pin(-1.76818999, 0.906223, 1.8196)],
    [_pin(-3.141589999, 0.619901, 0)],
    [Z, -X, -Y],
    [-Z],
    [_TALUS],
    [_pin(1.768189999, -0.906223, 1.8196)],
    [_pin(-3.141589999, -0.619901, 0)],
    [X, Z, Y],
    [X, Z, Y],
    [X, Z, Y],
    [Y, -Z, -X],
    [X, Y, Z],
    [np.array([0.0494, 0.0366, 0.99810825])],
    [np.array([-0.01716099, 0.99266564, -0.11966796])],
    [X, -Z],
    [Y, Z, X],
    [X, Y, Z],
    [np.array([-0.0494, -0.0366, 0.99810825])],
    [np.array([0.01716099, -0.99266564, -0.11966796])],
    [-X, -Z],
]


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v = np.cross(a, b)
    s = np.linalg.norm(v)
    return np.eye(3) if s < 1e-12 else rotation(v, np.arctan2(s, a @ b))


def bone_frames(skel: dict, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (24,3,3), child offsets d (24,3) and the uniform bone scale (24,) for shaped joint centres (24,3)."""
    parents = np.asarray(skel["osim_kintree_table"])[0].astype(np.int64)
    child = [int(np.flatnonzero(parents == j)[0]) if (parents == j).any() else 0 for j in range(24)]
    d = joints.copy()
    d[1:] -= joints[parents[1:]]
    offset = _dense(skel["apose_rel_transfo"])[:, :3, 3]
    b, c = np.array([d[k] for k in child]), np.array([offset[k] for k in child])
    scale = np.array([np.linalg.norm(b[j]) / np.linalg.norm(c[j]) if child[j] else 1.0 for j in range(24)])
    scale[16], scale[21], scale[12] = scale[17], scale[22], scale[11]
    scale[11] = abs(d[11, 1]) / abs(offset[11, 1])
    b[16] += b[17]
    b[21] += b[22]
    b[12] = b[11]
    c[16] += c[17]
    c[21] += c[22]
    own = _dense(skel["per_joint_rot"])
    frames = np.array([own[j] if j in FIXED else _between(own[j] @ c[j], b[j]) @ own[j] for j in range(24)])
    return frames, d, scale


def _arc(angle: float, length: float) -> tuple[float, float]:
    if abs(angle) < 1e-7:
        return length * angle / 2, length
    return length * (1 - np.cos(angle)) / angle, length * np.sin(angle) / angle


def skel_joint_transforms(skel: dict, q: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Global transforms G (24,4,4), local rotations R (24,3,3) and frames A (24,3,3)."""
    frames, d, _ = bone_frames(skel, joints)
    parents = np.asarray(skel["osim_kintree_table"])[0].astype(np.int64)
    rel = _dense(skel["apose_rel_transfo"])[:, :3, :3]
    local = np.empty((24, 3, 3))
    used = 0
    for j in range(24):
        turn = np.eye(3)
        for axis in AXES[j]:
            turn = rotation(axis, q[used]) @ turn
            used += 1
        to_axes = frames[j] @ rel[j].T
        local[j] = to_axes @ turn @ to_axes.T
    move = d.copy()
    for j, bend, ext in ((11, 17, 18), (12, 20, 21), (13, 23, 24)):
        length = abs(joints[j, 1] - joints[parents[j], 1])
        (xb, yb), (xe, ye) = _arc(q[bend], length), _arc(q[ext], length)
        move[j] += [-xb, yb + ye - 2 * length, -xe]
    width, height = np.linalg.norm(joints[19] - joints[14]), np.linalg.norm(joints[12] - joints[11])
    for j, k, s in ((14, 26, -1.0), (19, 36, 1.0)):
        u, e = (q[k], q[k + 1]) if s < 0 else (-q[k], -q[k + 1])

        def place(u: float, e: float, s: float = s) -> np.ndarray:
            t = e - np.pi / 4
            return np.array([s * width / 4 * np.cos(t) * np.cos(u), -height / 2 * np.sin(t), width / 4 * np.sin(u)])

        move[j] += place(u, e) - place(0.0, 0.0)
    out = np.empty((24, 4, 4))
    for j in range(24):
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = local[j], move[j]
        out[j] = step if j == 0 else out[parents[j]] @ step
    return out, local, frames


def _skin(transforms: np.ndarray, joints: np.ndarray, weights: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    bind = transforms.copy()
    bind[:, :3, 3] -= np.einsum("jab,jb->ja", transforms[:, :3, :3], joints)
    blended = np.einsum("vj,jab->vab", weights, bind[:, :3])
    return np.einsum("vab,vb->va", blended[:, :, :3], vertices) + blended[:, :, 3]


def pose_skel(skel: dict, q, betas=None, bones: bool = False):
    """Skin (V,3), joints (24,3) and, if asked, bone mesh (Nk,3) of one person."""
    q = np.asarray(q, dtype=float)
    betas = np.zeros(10) if betas is None else np.asarray(betas, dtype=float)
    shaped = _dense(skel["skin_template_v"]) + _dense(skel["shapedirs"])[:, :, :10] @ betas
    joints = _dense(skel["J_regressor_osim"]) @ shaped
    transforms, local, _ = skel_joint_transforms(skel, q, joints)
    feature = np.tile(np.eye(3), (24, 1, 1))
    for j in range(24):
        feature[TO_SMPL[j]] = local[j]
    correctives = _dense(skel["posedirs"]) @ (feature[1:] - np.eye(3)).ravel()
    skin = _skin(transforms, joints, _dense(skel["skin_weights"]), shaped + correctives)
    if not bones:
        return skin, transforms[:, :3, 3]
    rest = rest_bones(skel, shaped, joints)
    return skin, transforms[:, :3, 3], _skin(transforms, joints, _dense(skel["skel_weights"]), rest)


def rest_bones(skel: dict, shaped: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Bone mesh of a shaped body at q = 0, (Nk, 3): scaled per bone and axis, placed by [A_j, J_j]."""
    frames, _, uniform = bone_frames(skel, joints)
    template = _dense(skel["skin_template_v"])
    scale = np.tile(uniform[:, None], (1, 3))
    mark = np.asarray(skel["landmarks"])

    def ratio(a: int, b: int, axis: int) -> float:
        return abs(shaped[mark[a], axis] - shaped[mark[b], axis]) / abs(
            template[mark[a], axis] - template[mark[b], axis]
        )

    scale[13] = ratio(0, 1, 2), ratio(2, 3, 1), ratio(4, 5, 0)
    for hand in (18, 23):
        scale[hand, 0], scale[hand, 1] = ratio(6, 7, 1), ratio(8, 9, 0)
    scale[12, 0] = scale[11, 0] = min(ratio(10, 11, 2), ratio(10, 12, 2))
    weights = _dense(skel["skel_weights_rigid"])
    local = _dense(skel["skel_template_v"])
    placed = np.einsum("jab,njb->nja", frames, local[:, None] * scale[None]) + joints
    return np.einsum("nj,nja->na", weights, placed)


def pose_smpl(smpl: dict, pose, betas=None):
    """Vertices (V,3) and joints (24,3) of one person; pose is 72 axis-angle numbers."""
    pose = np.asarray(pose, dtype=float).reshape(24, 3)
    betas = np.zeros(10) if betas is None else np.asarray(betas, dtype=float)
    shaped = _dense(smpl["v_template"]) + _dense(smpl["shapedirs"])[:, :, :10] @ betas
    joints = _dense(smpl["J_regressor"]) @ shaped
    parents = np.asarray(smpl["kintree_table"])[0].astype(np.int64)
    turn = np.array([rotation(p, np.linalg.norm(p)) if np.linalg.norm(p) > 0 else np.eye(3) for p in pose])
    correctives = _dense(smpl["posedirs"]) @ (turn[1:] - np.eye(3)).ravel()
    out = np.empty((24, 4, 4))
    for j in range(24):
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = turn[j], joints[j] - (joints[parents[j]] if j else 0)
        out[j] = step if j == 0 else out[parents[j]] @ step
    return _skin(out, joints, _dense(smpl["weights"]), shaped + correctives), out[:, :3, 3]
