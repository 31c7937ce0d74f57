"""SMPL-X: its mesh from parameters, and from its topology to SMPL's by the published deformation-transfer matrix.

SMPL-X's shape space is another than SMPL's, so its parameters say nothing to SMPL; its mesh does, on SMPL's topology.
The matrix is `smplx2smpl_deftrafo_setup.pkl` of SMPL-X's download page (registration needed), or an .npz with the same
keys. Each of SMPL's vertices is a fixed sum of SMPL-X's: `matrix` (6890, 10475), or the left half of `mtx`
(6890, 2 x 10475), whose right half weighs normals and is not used.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix

from fitting.body.files import BETAS, DEMO, first_file, float_array, read_model_file, required
from schemas import InputError

TRANSFER_FILES = ("smplx2smpl_deftrafo_setup.pkl", "smplx2smpl_deftrafo_setup.npz")
SMPLX_JOINTS = 55
"""Pelvis, 21 body joints as SMPL has them, jaw, eyes, two times 15 finger joints."""

SHAPES = 300
"""Shape directions of the large files, before those of the expression; small files have 10 of each."""

_MODEL_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
"""What a mesh needs; files also hold Python objects, which are not opened."""


def smplx_to_smpl(path_or_dir: str | PathLike[str], vertices: int) -> csr_matrix:
    """The (V_smpl, V_smplx) matrix from the file itself, or from a body-model directory that holds it.

    `vertices` is SMPL's number of them. Raises InputError for a file that is missing, damaged or for another mesh.
    """
    path = _find(path_or_dir)
    values = read_model_file(path)
    key = next((key for key in ("mtx", "matrix") if key in values), None)
    if key is None:
        raise InputError(f"holds {', '.join(values) or 'nothing'}", file=path, expected="the key mtx or matrix")
    matrix = values[key]
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InputError("not a matrix of numbers", file=path, field=key)
    if matrix.shape[0] != vertices:
        problem = f"a matrix of {matrix.shape[0]} rows"
        raise InputError(problem, file=path, field=key, expected=f"{vertices}, as SMPL has vertices")
    if key == "mtx":
        matrix = matrix[:, : matrix.shape[1] // 2]
    found = csr_matrix(matrix)
    if not np.isfinite(found.data).all():
        raise InputError("not a finite number", file=path, field=key)
    return found


class SMPLXBody:
    """SMPL-X's mesh in a body pose, with flat hands and a face at rest, as SMPL has them: `SMPLXBody(path_or_dir)`.

    Reads the official SMPLX_NEUTRAL.npz or .pkl (or MALE, FEMALE) and runs nothing in it.
    """

    def __init__(self, path_or_dir: str | PathLike[str], gender: str = "neutral") -> None:
        """Raises InputError for a file that is missing, damaged or of another layout."""
        path = self._find(path_or_dir, gender)
        values = read_model_file(path, _MODEL_KEYS)

        def floats(key: str, *shape: int | str) -> torch.Tensor:
            return torch.from_numpy(float_array(required(values, key, path), key, path, shape)).float()

        self.v_template = floats("v_template", "V", 3)
        count = len(self.v_template)
        shapes = floats("shapedirs", count, 3, f">={BETAS}")
        self.shapedirs = shapes[..., : SHAPES if shapes.shape[2] > SHAPES else BETAS]
        self.J_regressor = floats("J_regressor", SMPLX_JOINTS, count)
        self.weights = floats("weights", count, SMPLX_JOINTS)
        features = 9 * (SMPLX_JOINTS - 1)
        self.posedirs = floats("posedirs", count, 3, features).flatten(0, 1).T.contiguous()
        table = float_array(required(values, "kintree_table", path), "kintree_table", path, (2, SMPLX_JOINTS))
        parents = table[0].astype(np.int64)
        parents[0] = -1
        if (parents >= np.arange(SMPLX_JOINTS)).any() or (parents[1:] < 0).any():
            raise InputError("not a tree whose parents come first", file=path, field="kintree_table")
        self.parents = torch.from_numpy(parents)

    def __call__(self, body: np.ndarray, betas: np.ndarray, trans: np.ndarray) -> np.ndarray:
        """(B, V, 3) float32 m, from axis-angle of pelvis and 21 body joints (B, 66), betas (B, n), trans (B, 3) m."""
        from smplx.lbs import lbs

        poses = torch.zeros(len(body), 3 * SMPLX_JOINTS)
        poses[:, : body.shape[1]] = torch.from_numpy(body)
        count = min(betas.shape[1], self.shapedirs.shape[2])
        with torch.no_grad():
            vertices, _ = lbs(
                torch.from_numpy(betas[:, :count]),
                poses,
                self.v_template[None],
                self.shapedirs[..., :count],
                self.posedirs,
                self.J_regressor,
                self.parents,
                self.weights,
            )
        return vertices.numpy() + trans[:, None]

    @staticmethod
    def _find(path_or_dir: str | PathLike[str], gender: str) -> Path:
        given = Path(path_or_dir)
        if os.path.isfile(given):
            return given
        names = [f"SMPLX_{gender.upper()}.npz", f"SMPLX_{gender.upper()}.pkl"]
        path = first_file(_folders(path_or_dir), names)
        if path is None:
            expected = f"{names[0]} among the body models, from smpl-x.is.tue.mpg.de"
            raise InputError("these are SMPL-X's parameters, and its model is not there", file=given, expected=expected)
        return path


def _folders(path_or_dir: str | PathLike[str]) -> list[Path]:
    """A body-model directory and the folders in it."""
    given = Path(path_or_dir)
    if path_or_dir == DEMO or not os.path.isdir(given):
        return []
    return [given, *sorted(path for path in given.iterdir() if path.is_dir())]


def _find(path_or_dir: str | PathLike[str]) -> Path:
    given = Path(path_or_dir)
    if os.path.isfile(given):
        return given
    path = first_file(_folders(path_or_dir), list(TRANSFER_FILES))
    if path is None:
        expected = f"{TRANSFER_FILES[0]} among the body models, from smpl-x.is.tue.mpg.de"
        raise InputError("nothing to bring SMPL-X's mesh to SMPL's topology", file=given, expected=expected)
    return path
