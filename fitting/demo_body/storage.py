"""The embedded body's file: compact on disk, full precision arrays in memory.

Lengths are 16-bit fixed point per component, weights 16-bit, pose correctives a bit mask and the values under it;
regressors and weights are normalised on reading so that rows sum to 1 in float64. No pickled objects.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FULL = 32767
SPARSE = (
    "smpl_weights",
    "skel_weights",
    "smpl_regressor",
    "skel_regressor",
    "j19",
    "mix",
    "bone_rigid",
    "bone_weights",
)
FIXED = ("shapedirs", "posedirs")
PLAIN = {
    "template": np.float32,
    "faces": np.uint16,
    "mirror": np.uint16,
    "vertex_joint_ids": np.int32,
    "landmarks": np.int32,
    "bone_v": np.float32,
    "bone_f": np.uint16,
    "per_joint_rot": np.float64,
    "apose_rel_transfo": np.float64,
    "apose_transfo": np.float64,
    "tpose_transfo": np.float64,
}


def _fixed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """16-bit integers and the scale of each slice along the last axis."""
    scale = np.abs(values).max(axis=tuple(range(values.ndim - 1))) / FULL
    scale[scale == 0] = 1.0
    return np.rint(values / scale).astype(np.int16), scale


def as_stored(template: np.ndarray, shapedirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Template and shape directions as the file will hold them."""
    codes, scale = _fixed(shapedirs)
    return template.astype(np.float32).astype(float), codes * scale


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    codes = np.rint(rows * 65535)
    return codes / codes.sum(1, keepdims=True)


def rounded_rows(rows: np.ndarray) -> np.ndarray:
    """Rows that sum to 1 as the file will hold them."""
    return _unit_rows(rows)


def pack(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the file; every array of `build.build` is needed."""
    out: dict[str, np.ndarray] = {}
    for name, kind in PLAIN.items():
        out[name] = np.ascontiguousarray(arrays[name]).astype(kind)
    for name in FIXED:
        codes, scale = _fixed(arrays[name])
        mask = codes != 0
        out[f"{name}_scale"] = scale
        out[f"{name}_shape"] = np.array(codes.shape, np.int32)
        out[f"{name}_mask"] = np.packbits(mask)
        # Bytes apart: the high ones are nearly constant and compress well.
        values = codes[mask].astype("<i2").view(np.uint8).reshape(-1, 2)
        out[f"{name}_bytes"] = np.ascontiguousarray(values.T)
    for name in SPARSE:
        codes = np.rint(arrays[name] * 65535).astype(np.uint16)
        row, col = np.nonzero(codes)
        out[f"{name}_row"], out[f"{name}_col"] = row.astype(np.uint16), col.astype(np.uint16)
        out[f"{name}_value"] = codes[row, col]
        out[f"{name}_shape"] = np.array(codes.shape, np.int32)
    np.savez_compressed(path, **out)


def unpack(path: Path) -> dict[str, np.ndarray]:
    """Read the file into dense float64 / int64 arrays named as in `pack`."""
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    out: dict[str, np.ndarray] = {}
    for name, kind in PLAIN.items():
        out[name] = data[name].astype(np.float64 if kind in (np.float32, np.float64) else np.int64)
    for name in FIXED:
        shape = tuple(data[f"{name}_shape"])
        mask = np.unpackbits(data[f"{name}_mask"], count=int(np.prod(shape))).view(bool).reshape(shape)
        values = np.zeros(shape)
        values[mask] = np.ascontiguousarray(data[f"{name}_bytes"].T).view("<i2")[:, 0]
        values *= data[f"{name}_scale"]
        out[name] = values
    for name in SPARSE:
        rows = np.zeros(tuple(data[f"{name}_shape"]))
        rows[data[f"{name}_row"], data[f"{name}_col"]] = data[f"{name}_value"]
        out[name] = rows / rows.sum(1, keepdims=True)
    return out
