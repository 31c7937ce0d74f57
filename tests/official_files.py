"""Small body models with random contents, and writers of the layouts in which the official files come.

The models are shaped like a body only as far as the mathematics needs it (bones of plausible length and direction).
"""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation

SKEL_PARENTS = [-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 12, 14, 15, 16, 17, 12, 19, 20, 21, 22]
SMPL_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
_LEG_NAMES, _ARM_NAMES = ("femur", "tibia", "talus", "calcn", "toes"), ("scapula", "humerus", "ulna", "radius", "hand")
JOINT_NAMES = [
    *("pelvis", *(f"{bone}_{side}" for side in "rl" for bone in _LEG_NAMES), "lumbar_body", "thorax", "head"),
    *(f"{bone}_{side}" for side in "rl" for bone in _ARM_NAMES),
]
_RIGHT_LEG = [(-0.08, -0.08, 0), (-0.09, -0.46, 0), (-0.09, -0.86, -0.02), (-0.09, -0.9, -0.06), (-0.1, -0.92, 0.07)]
_RIGHT_ARM = [(-0.06, 0.38, -0.04), (-0.17, 0.4, -0.03), (-0.43, 0.4, -0.04), (-0.45, 0.41, -0.04), (-0.7, 0.4, -0.03)]
_SPINE = [(0, 0.12, -0.02), (0, 0.33, -0.03), (0, 0.53, 0.02)]


def _mirrored(points):
    return [(-x, y, z) for x, y, z in points]


SKEL_JOINTS = np.array(
    [(0, 0, 0), *_RIGHT_LEG, *_mirrored(_RIGHT_LEG), *_SPINE, *_RIGHT_ARM, *_mirrored(_RIGHT_ARM)], float
)
_SMPL_RIGHT = {2: 1, 5: 2, 8: 3, 11: 5, 14: 14, 17: 15, 19: 16, 21: 18}
_SMPL_LEFT = {1: 6, 4: 7, 7: 8, 10: 10, 13: 19, 16: 20, 18: 21, 20: 23}
SPARSE_KEYS = {
    "J_regressor": "csc",
    "J_regressor_osim": "coo",
    "skin_weights": "coo",
    "skel_weights": "coo",
    "skel_weights_rigid": "coo",
}


def _smpl_joints():
    joints = np.zeros((24, 3))
    for smpl, skel in {**_SMPL_RIGHT, **_SMPL_LEFT}.items():
        joints[smpl] = SKEL_JOINTS[skel]
    for smpl, height in {3: 0.1, 6: 0.22, 9: 0.3, 12: 0.48, 15: 0.56}.items():
        joints[smpl] = (0, height, -0.01)
    joints[22], joints[23] = SKEL_JOINTS[23] + (0.08, 0, 0), SKEL_JOINTS[18] - (0.08, 0, 0)
    return joints


def _regressor(rng, vertices, joints):
    """(24, V): the mean of a joint's nearest vertices, unevenly."""
    matrix = np.zeros((24, len(vertices)))
    for j, joint in enumerate(joints):
        near = np.argsort(np.linalg.norm(vertices - joint, axis=1))[:6]
        matrix[j, near] = rng.dirichlet(np.full(6, 5.0))
    return matrix


def _weights(rng, points, joints):
    """(n, 24): four nearest joints."""
    matrix = np.zeros((len(points), 24))
    for v, point in enumerate(points):
        near = np.argsort(np.linalg.norm(joints - point, axis=1))[:4]
        matrix[v, near] = rng.dirichlet(np.full(4, 0.7))
    return matrix


def _landmarks(rng, vertices):
    """Pairs that lie apart along the axis along which they are measured."""
    pairs = []
    for axis in (2, 1, 0, 1, 0):
        one = rng.integers(len(vertices))
        apart = np.flatnonzero(np.abs(vertices[:, axis] - vertices[one, axis]) > 0.02)
        pairs += [one, rng.choice(apart)]
    one = rng.integers(len(vertices))
    apart = np.flatnonzero(np.abs(vertices[:, 2] - vertices[one, 2]) > 0.02)
    return np.array([*pairs, one, *rng.choice(apart, 2, replace=False), -1])


def random_models(seed: int = 0, vertices: int = 240, bone_vertices: int = 120) -> tuple[dict, dict]:
    """(SMPL, SKEL) dictionaries with dense float64 arrays, on one topology. 6890 vertices use the official indices."""
    rng = np.random.default_rng(seed)
    skin = SKEL_JOINTS[np.arange(vertices) % 24] + rng.normal(0, 0.04, (vertices, 3))
    faces = np.array([rng.choice(vertices, 3, replace=False) for _ in range(2 * vertices)])
    shapedirs = rng.normal(0, 0.008, (vertices, 3, 12))
    smpl_joints = _smpl_joints()
    unsigned_root = np.array([2**32 - 1, *SMPL_PARENTS[1:]], np.uint32)
    smpl = {
        "v_template": skin + rng.normal(0, 0.002, skin.shape),
        "f": faces.astype(np.uint32),
        "shapedirs": shapedirs + rng.normal(0, 0.001, shapedirs.shape),
        "posedirs": rng.normal(0, 0.004, (vertices, 3, 207)),
        "J_regressor": _regressor(rng, skin, smpl_joints),
        "kintree_table": np.stack([unsigned_root, np.arange(24, dtype=np.uint32)]),
        "weights": _weights(rng, skin, smpl_joints),
    }
    regressor = _regressor(rng, skin, SKEL_JOINTS)
    joints = regressor @ skin
    offsets = joints - np.where(np.array(SKEL_PARENTS)[:, None] < 0, 0, joints[SKEL_PARENTS])
    per_joint_rot = Rotation.from_rotvec(rng.normal(0, 0.3, (24, 3))).as_matrix()
    relative = np.tile(np.eye(4), (24, 1, 1))
    relative[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, (24, 3))).as_matrix()
    for j, parent in enumerate(SKEL_PARENTS):
        frame = per_joint_rot[max(parent, 0)]
        relative[j, :3, 3] = frame.T @ (offsets[j] * rng.uniform(0.9, 1.1) + rng.normal(0, 0.005, 3))
    bone_of = np.arange(bone_vertices) % 24
    rigid = np.eye(24)[bone_of]
    blended = rigid * 0.8
    blended[np.arange(bone_vertices), np.maximum(np.array(SKEL_PARENTS)[bone_of], 0)] += 0.2
    skel = {
        "version": "1.1.1",
        "skin_template_v": skin,
        "skin_template_f": faces.astype(np.int64),
        "skel_template_v": rng.normal(0, 0.05, (bone_vertices, 3)),
        "skel_template_f": np.array([rng.choice(bone_vertices, 3, replace=False) for _ in range(bone_vertices)]),
        "shapedirs": shapedirs,
        "posedirs": rng.normal(0, 0.004, (vertices, 3, 207)),
        "J_regressor": smpl["J_regressor"],
        "J_regressor_osim": regressor,
        "skin_weights": _weights(rng, skin, joints),
        "skel_weights": blended,
        "skel_weights_rigid": rigid,
        "per_joint_rot": per_joint_rot,
        "osim_kintree_table": np.stack([SKEL_PARENTS, np.arange(24)]),
        "apose_rel_transfo": relative,
        "apose_transfo": relative.copy(),
        "tpose_transfo": relative.copy(),
        "joints_name": list(JOINT_NAMES),
        "bone_names": list(JOINT_NAMES),
        "pose_params_name": [f"q{i}" for i in range(46)],
        "parameter_mapping": np.arange(46),
    }
    if vertices != 6890:
        skel["landmarks"] = _landmarks(rng, skin)
        smpl["vertex_joint_ids"] = rng.permutation(vertices)[:21]
    return smpl, skel


# ----------------------------------------------------------------------------------------------------- writers


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as the byte strings that Python 2 had, with the module names of its time."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_string(self, text):
        raw = text.encode("latin1") if isinstance(text, str) else text
        short = len(raw) < 256
        self.write((b"U" + bytes([len(raw)]) if short else b"T" + struct.pack("<i", len(raw))) + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = _save_string


def python2_pickle(value) -> bytes:
    """The pickle, protocol 2, that Python 2 with the numpy and scipy of its time would have written."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, 2, fix_imports=True).dump(value)
    raw = buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
    for kind in (b"csc", b"csr", b"coo"):
        raw = raw.replace(b"cscipy.sparse._" + kind + b"\n", b"cscipy.sparse." + kind + b"\n")
    return raw


@contextlib.contextmanager
def chumpy_in_memory():
    """Modules of chumpy's names for the time of writing; its classes hold their state in attributes, as these do."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")

    def class_of(name, module, **contents):
        setattr(module, name, type(name, (), {"__module__": module.__name__, "__qualname__": name, **contents}))

    class_of("Ch", ch)
    class_of("MatVecMult", ch)
    class_of("Select", reordering)
    class_of("transpose", reordering)
    class_of("reshape", reordering)
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)

    def make(kind, **state):
        instance = getattr(ch, kind, None) or getattr(reordering, kind)
        instance = instance()
        instance.__dict__.update(state)
        return instance

    try:
        yield make
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def write_official_smpl(path: Path, smpl: dict) -> Path:
    """A Python-2 pickle with chumpy arrays, a chumpy selection and a scipy matrix, as SMPL is distributed."""
    with chumpy_in_memory() as make:

        def ch(array):
            return make("Ch", x=array, _dirty_vars=set(), _itr=None, _status="new")

        # The selection takes the betas that come first out of a longer array.
        wide = np.concatenate([smpl["shapedirs"], smpl["shapedirs"][:, :, :3] + 1], axis=2)
        shape = smpl["shapedirs"].shape
        indices = np.arange(wide.size).reshape(wide.shape)[:, :, : shape[2]].ravel()
        values = {
            **smpl,
            "v_template": ch(smpl["v_template"]),
            "shapedirs": make("Select", a=ch(wide), idxs=indices, preferred_shape=shape),
            "weights": ch(np.asfortranarray(smpl["weights"])),
            "posedirs": smpl["posedirs"].astype(">f8"),
            "J_regressor": sparse.csc_matrix(smpl["J_regressor"]),
            "J": make("MatVecMult", mtx=None, vec=None),
            "bs_type": "lrotmin",
            "bs_style": "lbs",
        }
        path.write_bytes(python2_pickle(values))
    return path


def write_official_skel(path: Path, skel: dict) -> Path:
    """A Python-3 pickle with scipy COO matrices, as SKEL is distributed."""
    values = {k: sparse.coo_matrix(v) if k in SPARSE_KEYS else v for k, v in skel.items()}
    path.write_bytes(pickle.dumps(values, protocol=4))
    return path


def write_npz(path: Path, values: dict, sparse_triplets: bool = False) -> Path:
    """The same keys as .npz; sparse matrices dense, or as coordinate triplets."""
    arrays = {}
    for key, value in values.items():
        if sparse_triplets and key in SPARSE_KEYS:
            matrix = sparse.coo_matrix(value)
            arrays |= {f"{key}_data": matrix.data, f"{key}_row": matrix.row, f"{key}_col": matrix.col}
            arrays[f"{key}_shape"] = np.array(matrix.shape)
        else:
            arrays[key] = np.asarray(value)
    np.savez(path, **arrays)
    return path


def write_model_directory(directory: Path, smpl: dict, skel: dict) -> Path:
    """A body-model directory with the official file names in smpl/ and skel/."""
    (directory / "smpl").mkdir(parents=True)
    (directory / "skel").mkdir()
    for gender in ("NEUTRAL", "MALE"):
        write_official_smpl(directory / "smpl" / f"SMPL_{gender}.pkl", smpl)
    write_official_skel(directory / "skel" / "skel_male.pkl", skel)
    return directory
