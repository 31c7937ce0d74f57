"""SKEL's mathematics, step by step, in float64 numpy, one person and one joint at a time.

An oracle for tests: written from the description of the model (`fitting/README.md`, steps 1 to 7), with loops and
without any of the product's code, so that a mistake has to be made twice to stay unseen.
"""

from __future__ import annotations

import numpy as np

JOINTS = 24
X, Y, Z = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])
SMPL_JOINT = [0, 2, 5, 8, 8, 11, 1, 4, 7, 7, 10, 3, 6, 15, 14, 17, 19, 0, 21, 13, 16, 18, 0, 20]
UNTURNED = (0, 5, 10, 13, 18, 23)


def rotation(axis, angle):
    """Rodrigues' formula."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def rxyz(a, b, c):
    return rotation(X, a) @ rotation(Y, b) @ rotation(Z, c)


TALUS = rxyz(0.175895, -0.105208, 0.0186622) @ Z
SPINE = [(X, 1), (Z, 1), (Y, 1)]
HUMERUS = [(X, 1), (Y, 1), (Z, 1)]

AXES_AND_FLIPS = {
    0: [(Z, 1), (X, 1), (Y, 1)],
    1: [(Z, 1), (X, 1), (Y, 1)],
    2: [(-Z, 1)],
    3: [(TALUS, 1)],
    4: [(rxyz(-1.76818999, 0.906223, 1.8196) @ Z, 1)],
    5: [(rxyz(-3.141589999, 0.619901, 0) @ Z, 1)],
    6: [(Z, 1), (X, -1), (Y, -1)],
    7: [(-Z, 1)],
    8: [(TALUS, 1)],
    9: [(rxyz(1.768189999, -0.906223, 1.8196) @ Z, 1)],
    10: [(rxyz(-3.141589999, -0.619901, 0) @ Z, 1)],
    11: SPINE,
    12: SPINE,
    13: SPINE,
    14: [(Y, 1), (Z, -1), (X, -1)],
    15: HUMERUS,
    16: [((0.0494, 0.0366, 0.99810825), 1)],
    17: [((-0.01716099, 0.99266564, -0.11966796), 1)],
    18: [(X, 1), (-Z, 1)],
    19: [(Y, 1), (Z, 1), (X, 1)],
    20: HUMERUS,
    21: [((-0.0494, -0.0366, 0.99810825), 1)],
    22: [((0.01716099, -0.99266564, -0.11966796), 1)],
    23: [(-X, 1), (-Z, 1)],
}


def smallest_rotation(origin, onto):
    """The rotation about the common normal of two vectors that takes one's direction to the other's."""
    a, b = origin / np.linalg.norm(origin), onto / np.linalg.norm(onto)
    normal = np.cross(a, b)
    if np.linalg.norm(normal) < 1e-14:
        assert a @ b > 0, "opposite directions have no smallest rotation"
        return np.eye(3)
    return rotation(normal, np.arctan2(np.linalg.norm(normal), a @ b))


def arc(length, angle):
    if angle == 0:
        return 0.0, length
    # 1 - cos written without cancellation, so that small angles keep their digits
    return length * 2 * np.sin(angle / 2) ** 2 / angle, length * np.sin(angle) / angle


def homogeneous(rotation_part, translation):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation_part, translation
    return matrix


def literal_skel(arrays, pose, betas, trans):
    """Skin (V,3), joints (24,3) and bone mesh (Nk,3) of one person; `arrays` as `fitting.body.files.skel_arrays`."""
    table = np.asarray(arrays["osim_kintree_table"])
    column = {int(own): i for i, own in enumerate(table[1])}
    parent = [-1] + [column[int(table[0, j])] for j in range(1, JOINTS)]
    child = [0] * JOINTS
    for j in range(JOINTS):
        own = [k for k in range(1, JOINTS) if parent[k] == j]
        child[j] = own[0] if own else 0
    relative = np.asarray(arrays["apose_rel_transfo"], float)
    per_joint_rot = np.asarray(arrays["per_joint_rot"], float)
    landmarks = list(arrays["landmarks"])
    template = np.asarray(arrays["skin_template_v"], float)

    # 1. shape
    shaped = template.copy()
    for k in range(10):
        shaped += betas[k] * arrays["shapedirs"][:, :, k]
    J = arrays["J_regressor_osim"] @ shaped
    d = np.array([J[j] - J[parent[j]] if j else J[0] for j in range(JOINTS)])

    # 2. bone frames
    b = np.array([d[child[j]] for j in range(JOINTS)])
    c = np.array([relative[child[j], :3, 3] for j in range(JOINTS)])
    b[12] = b[11]
    b[16] = b[16] + b[17]
    b[21] = b[21] + b[22]
    c[16] = c[16] + c[17]
    c[21] = c[21] + c[22]
    A = []
    for j in range(JOINTS):
        turn = np.eye(3) if j in UNTURNED else smallest_rotation(per_joint_rot[j] @ c[j], b[j])
        A.append(turn @ per_joint_rot[j])

    # 3. local rotations
    R, q = [], 0
    for j in range(JOINTS):
        Rp = np.eye(3)
        for axis, flip in AXES_AND_FLIPS[j]:
            Rp = rotation(axis, flip * pose[q]) @ Rp
            q += 1
        Ra = relative[j, :3, :3]
        R.append(A[j] @ Ra.T @ Rp @ Ra @ A[j].T)
    assert q == 46

    # 4. local translations
    step = d.copy()
    for j, bending, extension in ((11, 17, 18), (12, 20, 21), (13, 23, 24)):
        length = abs(J[j, 1] - J[parent[j], 1])
        xb, yb = arc(length, pose[bending])
        xe, ye = arc(length, pose[extension])
        step[j] += [-xb, yb + ye - 2 * length, -xe]
    width, height = np.linalg.norm(J[19] - J[14]), np.linalg.norm(J[12] - J[11])

    def on_thorax(s, u, e):
        return np.array(
            [
                s * width / 4 * np.cos(e - np.pi / 4) * np.cos(u),
                -height / 2 * np.sin(e - np.pi / 4),
                width / 4 * np.sin(u),
            ]
        )

    step[14] += on_thorax(-1, pose[26], pose[27]) - on_thorax(-1, 0, 0)
    step[19] += on_thorax(1, -pose[36], -pose[37]) - on_thorax(1, 0, 0)

    # 5. chain, pose correctives
    G = []
    for j in range(JOINTS):
        local = homogeneous(R[j], step[j])
        G.append(local if j == 0 else G[parent[j]] @ local)
    from_rest = [G[j] @ homogeneous(np.eye(3), -J[j]) for j in range(JOINTS)]
    smpl_rotations = [np.eye(3) for _ in range(JOINTS)]
    for j in range(JOINTS):
        smpl_rotations[SMPL_JOINT[j]] = R[j]
    features = np.concatenate([(smpl_rotations[k] - np.eye(3)).ravel() for k in range(1, JOINTS)])
    corrected = shaped + arrays["posedirs"] @ features

    # 6. skin and joints
    def skinned(points, weights):
        moved = np.zeros_like(points)
        for j in range(JOINTS):
            there = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ from_rest[j].T
            moved += np.asarray(weights)[:, j : j + 1] * there[:, :3]
        return moved

    skin = skinned(corrected, arrays["skin_weights"]) + trans
    joints = np.array([g[:3, 3] for g in G]) + trans

    # 7. bone mesh
    offset = relative[:, :3, 3]
    scale = np.ones((JOINTS, 3))
    for j in range(JOINTS):
        if child[j]:
            scale[j] = np.linalg.norm(d[child[j]]) / np.linalg.norm(offset[child[j]])
    scale[16] = scale[17]
    scale[21] = scale[22]
    scale[12] = scale[11]
    scale[11] = abs(d[11, 1]) / abs(offset[11, 1])

    def stretch(one, other, axis):
        return abs(shaped[one, axis] - shaped[other, axis]) / abs(template[one, axis] - template[other, axis])

    scale[13, 0] = stretch(landmarks[0], landmarks[1], 2)
    scale[13, 1] = stretch(landmarks[2], landmarks[3], 1)
    scale[13, 2] = stretch(landmarks[4], landmarks[5], 0)
    for hand in (18, 23):
        scale[hand, 0] = stretch(landmarks[6], landmarks[7], 1)
        scale[hand, 1] = stretch(landmarks[8], landmarks[9], 0)
    scale[12, 0] = min(stretch(landmarks[10], landmarks[11], 2), stretch(landmarks[10], landmarks[12], 2))
    scale[11, 0] = scale[12, 0]
    placed = np.zeros_like(np.asarray(arrays["skel_template_v"], float))
    for v, point in enumerate(arrays["skel_template_v"]):
        j = int(np.argmax(arrays["skel_weights_rigid"][v]))
        placed[v] = A[j] @ (scale[j] * point) + J[j]
    bones = skinned(placed, arrays["skel_weights"]) + trans
    return skin, joints, bones
