"""Rotation matrices of label files, as rotation vectors."""

from __future__ import annotations

import logging

import numpy as np

log = logging.getLogger(__name__)

_ORTHONORMAL = 1e-2
"""How far an entry of R^T R may be from the identity's: half precision keeps 1e-3, anything else is no rotation."""


def rotation_vectors(matrices: np.ndarray, where: str, first_row: int) -> np.ndarray:
    """Rotation vectors (N, 3 J) rad of matrices (N, J, 3, 3). A row with a matrix that is no rotation becomes NaN.

    No rotation is what is not orthonormal within 0.01, or mirrors. `where` names file and field for the warning.
    """
    from scipy.spatial.transform import Rotation

    values = np.asarray(matrices, np.float64)
    count, joints = values.shape[:2]
    with np.errstate(all="ignore"):
        off = np.abs(np.swapaxes(values, 2, 3) @ values - np.eye(3)).max(axis=(2, 3), initial=0)
        proper = (off < _ORTHONORMAL) & (np.linalg.det(np.nan_to_num(values)) > 0)
    sound = proper.all(axis=1)
    if bad := (first_row + np.flatnonzero(~sound & np.isfinite(values).all(axis=(1, 2, 3)))).tolist():
        some = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        log.warning("%s: %d rows hold matrices that are no rotations (%s); they are left out", where, len(bad), some)
    found = np.full((count, 3 * joints), np.nan, np.float32)
    if sound.any():
        vectors = Rotation.from_matrix(values[sound].reshape(-1, 3, 3)).as_rotvec()
        found[sound] = vectors.reshape(-1, 3 * joints)
    return found
