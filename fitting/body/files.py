"""Body-model files of the official layouts, read without running anything that they hold.

Pickles go through `inert_pickle`. `.npz` files hold the same keys; there, a sparse matrix is either dense or
the four arrays `KEY_data`, `KEY_row`, `KEY_col` and `KEY_shape`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fitting.body.inert_pickle import Unrecoverable, read_pickle, scatter
from schemas import InputError

DEMO = "demo"
"""The path that stands for the embedded body."""

JOINTS = 24
POSE_FEATURES = 207
BETAS = 10
SMPL_VERTICES = 6890
SKEL_VERSION = "1.1.1"
OFFICIAL_LANDMARKS = (410, 384, 414, 384, 196, 3708, 6179, 6137, 5670, 5906, 3027, 3495, 3506, -1)
"""head x, head y, head z (pairs), hand x, hand y (pairs), thorax (from, to, other to), unused; for SMPL's topology."""

KEYPOINT_REGRESSORS = {"SMPL_to_J19": 19, "J_regressor_SKEL_mix_MALE": 24, "J_regressor_SMPL_MALE": 24}
"""Optional files beside the body models, without their ending, and the number of points that each gives."""

EVALUATION_REGRESSORS = {"J_regressor_h36m": 17}
"""The same, of files that only evaluation needs: Human3.6M's joints, as SPIN's file has them."""


_WHOLE_RATIO, _WHOLE_BYTES = 100, 1 << 26
"""An archive may unpack to so many times its size, or to so many bytes."""

_DOWNLOADED = "basicmodel_{}_lbs_10_207_0_v1.{}.pkl"
_GENDER_WORDS = {"neutral": ("neutral",), "male": ("m", "male"), "female": ("f", "female")}
_MODEL_FOLDER = re.compile(r"(smpl|skel|models|skel_models_v[\d.]+|smpl_python_v\.?[\d.]+)")
_DEEPEST = 3
"""Folders within folders: what the downloads of SMPL and SKEL unpack to."""


# ---------------------------------------------------------------------------------------------- what users call


def smpl_arrays(path_or_dir: str | PathLike[str], gender: str = "neutral") -> dict[str, Any]:
    """The checked contents of an SMPL file, with the official keys.

    `path_or_dir` is a file, a body-model directory or "demo" (one embedded body for every gender). Floats are dense
    float64 arrays, `f`, `kintree_table` and `vertex_joint_ids` int64; `parents` (24,) is added, the root's is -1.
    `vertex_joint_ids` (21,) is None for an official file, whose topology smplx knows.
    Raises InputError for everything that is wrong with the files.
    """
    if _is_demo(path_or_dir):
        from fitting import demo_body

        return check_arrays(demo_body.smpl_arrays(), "smpl", DEMO)
    path = find_model_file(path_or_dir, "smpl", gender)
    return check_arrays(read_model_file(path), "smpl", path)


def skel_arrays(path_or_dir: str | PathLike[str], gender: str = "male") -> dict[str, Any]:
    """The checked contents of a SKEL 1.1.1 file, with the official keys.

    `path_or_dir` is a file, a body-model directory or "demo" (one embedded body for every gender). Floats and
    sparse matrices are dense float64 arrays, faces, `osim_kintree_table` and `landmarks` (14,) int64, names lists of
    str; `parents` (24,) is added, the root's is -1. Raises InputError for everything that is wrong with the files.
    """
    if _is_demo(path_or_dir):
        from fitting import demo_body

        return check_arrays(demo_body.skel_arrays(), "skel", DEMO)
    path = find_model_file(path_or_dir, "skel", gender)
    return check_arrays(read_model_file(path), "skel", path)


def keypoint_arrays(path_or_dir: str | PathLike[str], vertices: int) -> dict[str, np.ndarray]:
    """The keypoint regressors that are there: file name without ending -> float64 (points, vertices).

    Looks where `find_model_file` looks; a file given as path stands for its directory. A file that is absent is
    simply not among the results; one that does not fit `vertices` raises InputError.
    """
    if _is_demo(path_or_dir):
        from fitting import demo_body

        found = {name: (DEMO, array) for name, array in demo_body.keypoint_arrays().items()}
    else:
        given = Path(path_or_dir)
        folders = _places(given.parent if os.path.isfile(given) else given)
        found = {}
        for name in KEYPOINT_REGRESSORS | EVALUATION_REGRESSORS:
            path = first_file(folders, [f"{name}{ending}" for ending in (".pkl", ".npz", ".npy")])
            if path is not None:
                found[name] = (path, _read_single(path, name))
    regressors = {}
    for name, points in (KEYPOINT_REGRESSORS | EVALUATION_REGRESSORS).items():
        if name in found:
            source, value = found[name]
            regressors[name] = float_array(value, name, source, (points, vertices))
    return regressors


def find_model_file(path_or_dir: str | PathLike[str], kind: Literal["smpl", "skel"], gender: str) -> Path:
    """The file of a body model: `path_or_dir` itself, or the official name in that directory, its smpl/ or its skel/.

    Names are compared without regard to case; `.pkl` comes before `.npz`. SMPL is known by its download's name as
    well. Raises InputError that names what was looked for and what is there.
    """
    genders = ("neutral", "male", "female") if kind == "smpl" else ("male", "female")
    if gender not in genders:
        raise InputError(f"no {kind.upper()} body model of gender {gender!r}", expected=" or ".join(genders))
    given = Path(path_or_dir)
    if os.path.isfile(given):  # unlike pathlib's, false also of a name that is longer than any may be
        return given
    stem = f"SMPL_{gender.upper()}" if kind == "smpl" else f"skel_{gender}"
    names = [f"{stem}.pkl", f"{stem}.npz"]
    if not os.path.isdir(given):
        raise InputError("no such file or directory", file=given, expected=f"{names[0]} or a directory that holds it")
    folders = _places(given)
    path = first_file(folders, names) or (_downloaded_smpl(folders, gender) if kind == "smpl" else None)
    if path is None:
        there = sorted(str(p.relative_to(given)) for folder in folders for p in folder.iterdir() if p.is_file())
        shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        problem = f"no {kind.upper()} body model in this directory; it holds {shown or 'no files'}"
        if kind == "smpl":
            names.append(_DOWNLOADED.format(_GENDER_WORDS[gender][0], "x.0"))
        raise InputError(problem, file=given, expected=f"{' or '.join(names)}, there or in {kind}/")
    return path


def read_model_file(path: str | PathLike[str], keys: Collection[str] | None = None) -> dict[str, Any]:
    """A `.pkl` or `.npz` body-model file as dense numpy arrays and plain Python values: all keys, or some of them.

    A chumpy expression whose value cannot be told from its state becomes an `Unrecoverable`. Raises InputError for a
    file that cannot be read or refers to a class other than those of the module's docstring.
    """
    path = Path(path)
    values = _read_npz(path, keys) if path.suffix.lower() == ".npz" else read_pickle(path)
    if not isinstance(values, dict):
        raise InputError(f"holds a {type(values).__name__}", file=path, expected="a dictionary of a body model")
    return {str(key): value for key, value in values.items() if keys is None or str(key) in keys}


def check_arrays(values: dict[str, Any], kind: Literal["smpl", "skel"], file: str | PathLike[str]) -> dict[str, Any]:
    """Keys, version, shapes, index ranges and finiteness of a body model; a copy in plain types.

    Raises InputError that names the field. What comes back is described at `smpl_arrays` and `skel_arrays`.
    """
    checked = dict(values)
    if kind == "skel":
        if "version" not in values:
            problem = f"the file is older than {SKEL_VERSION}: the key is missing"
            raise InputError(
                problem, file=file, field="version", expected=f"SKEL {SKEL_VERSION}, to be downloaded anew"
            )
        version = _text(values["version"])
        if version != SKEL_VERSION:
            raise InputError(f"SKEL version {version!r}", file=file, field="version", expected=repr(SKEL_VERSION))
        checked["version"] = version
        template, faces, table = "skin_template_v", "skin_template_f", "osim_kintree_table"
    else:
        template, faces, table = "v_template", "f", "kintree_table"

    def floats(key: str, *shape: int | str) -> None:
        checked[key] = float_array(required(values, key, file), key, file, shape)

    floats(template, "V", 3)
    count = len(checked[template])
    floats("shapedirs", count, 3, f">={BETAS}")
    floats("posedirs", count, 3, POSE_FEATURES)
    floats("J_regressor", JOINTS, count)
    checked[faces] = _indices(required(values, faces, file), faces, file, count, columns=3)
    checked["parents"] = _parents(required(values, table, file), table, file)
    checked[table] = np.stack([checked["parents"], np.arange(JOINTS)])
    if kind == "smpl":
        floats("weights", count, JOINTS)
        ids = values.get("vertex_joint_ids")
        if ids is None and count != SMPL_VERTICES:
            problem = f"the key is missing; a mesh of {count} vertices is not SMPL's"
            raise InputError(problem, file=file, field="vertex_joint_ids", expected="21 vertex indices")
        checked["vertex_joint_ids"] = None if ids is None else _indices(ids, "vertex_joint_ids", file, count, size=21)
        return checked

    floats("skel_template_v", "N", 3)
    bones = len(checked["skel_template_v"])
    checked["skel_template_f"] = _indices(
        required(values, "skel_template_f", file), "skel_template_f", file, bones, columns=3
    )
    floats("J_regressor_osim", JOINTS, count)
    floats("skin_weights", count, JOINTS)
    floats("skel_weights", bones, JOINTS)
    floats("skel_weights_rigid", bones, JOINTS)
    floats("per_joint_rot", JOINTS, 3, 3)
    floats("apose_rel_transfo", JOINTS, 4, 4)
    for key in ("apose_transfo", "tpose_transfo"):
        if key in values:
            floats(key, JOINTS, 4, 4)
    for key in ("joints_name", "bone_names", "pose_params_name"):
        if key in values:
            checked[key] = [_text(name) for name in np.ravel(np.asarray(values[key], dtype=object))]
    landmarks = values.get("landmarks")
    if landmarks is None:
        if count != SMPL_VERTICES:
            problem = f"the key is missing; a mesh of {count} vertices is not SMPL's"
            raise InputError(problem, file=file, field="landmarks", expected="14 vertex indices")
        landmarks = OFFICIAL_LANDMARKS
    checked["landmarks"] = _indices(landmarks, "landmarks", file, count, size=14, least=-1)
    return checked


# ---------------------------------------------------------------------------------------------------- npz, npy


def _read_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    key = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            unpacked, packed = sum(info.file_size for info in archive.zip.infolist()), path.stat().st_size
            if unpacked > max(_WHOLE_BYTES, _WHOLE_RATIO * packed):
                raise ValueError(f"{packed} bytes unpack to {unpacked}")
            for key in archive.files:
                if keys is None or key in keys:
                    values[key] = np.asarray(archive[key])
        for key in [k.removesuffix("_shape") for k in values if k.endswith("_shape") and f"{k[:-6]}_row" in values]:
            data, row, column, shape = (values.pop(f"{key}_{part}") for part in ("data", "row", "col", "shape"))
            values[key] = scatter(data, row, column, *(int(n) for n in shape))
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror or error})", file=path) from error
    except Exception as error:
        problem = f"truncated or damaged ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, field=key, expected="an .npz of plain arrays") from error
    return {name: value.item() if value.ndim == 0 else value for name, value in values.items()}


def _read_single(path: Path, name: str) -> Any:
    """The one array of a keypoint regressor's file, whatever key it has."""
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"truncated or damaged ({error})", file=path, expected="an array") from error
    value = _read_npz(path) if path.suffix.lower() == ".npz" else read_pickle(path)
    if isinstance(value, dict):
        arrays = [v for v in value.values() if isinstance(v, np.ndarray) and v.ndim == 2]
        value = value.get(name, arrays[0] if len(arrays) == 1 else None)
        if value is None:
            raise InputError("no array that is the regressor", file=path, field=name)
    return value


# ------------------------------------------------------------------------------------------ directories, checks


def _is_demo(path_or_dir: str | PathLike[str]) -> bool:
    return isinstance(path_or_dir, str) and path_or_dir == DEMO


def _places(directory: Path) -> list[Path]:
    """The directory, then its smpl/ and skel/ in whatever case, and the folders that the downloads unpack to."""
    if not directory.is_dir():
        raise InputError("no such directory", file=directory)
    places = [directory]
    for place in places:  # grows by folders in folders: SMPL_python_v.1.1.0/smpl/models
        deep = len(place.relative_to(directory).parts)
        inner = sorted(place.iterdir()) if deep < _DEEPEST else []
        places += [p for p in inner if p.is_dir() and _MODEL_FOLDER.fullmatch(p.name.lower())]
    return places


def _downloaded_smpl(places: list[Path], gender: str) -> Path | None:
    """SMPL under the name that it is downloaded with; of several versions the newest."""
    words = "|".join(_GENDER_WORDS[gender])
    name = re.compile(rf"basicmodel_({words})_lbs_10_207_0_v([\d.]+)\.(pkl|npz)", re.IGNORECASE)
    found = [
        (match.group(2), path)
        for place in places
        for path in sorted(place.iterdir())
        if (match := name.fullmatch(path.name)) and path.is_file()
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def first_file(folders: list[Path], names: list[str]) -> Path | None:
    """The first of some file names, in whatever case, in the first folder that has it."""
    for name in names:
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if path.name.lower() == name.lower() and path.is_file():
                    return path
    return None


def required(values: dict[str, Any], key: str, file: str | PathLike[str]) -> Any:
    if key not in values:
        raise InputError(f"the key is missing; the file has {', '.join(values)}", file=file, field=key)
    return values[key]


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def float_array(value: Any, key: str, file: str | PathLike[str], shape: tuple[int | str, ...]) -> np.ndarray:
    """`value` as float64; a size in `shape` is exact, ">=n" or a letter for any size but zero."""
    wanted = f"shape ({', '.join(str(size) for size in shape)})"
    if isinstance(value, Unrecoverable):
        raise InputError(f"holds an expression of the kind {value.kind}", file=file, field=key, expected="its values")
    try:
        # The embedded body hands over scipy matrices, files come dense.
        array = np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("not an array of numbers", file=file, field=key, expected=wanted) from error
    fits = array.ndim == len(shape)
    for found, size in zip(array.shape, shape, strict=False):
        least = int(size[2:]) if isinstance(size, str) and size.startswith(">=") else 1
        fits = fits and (found >= least if isinstance(size, str) else found == size)
    if not fits:
        raise InputError(f"array of shape {array.shape}", file=file, field=key, expected=wanted)
    if not np.isfinite(array).all():
        raise InputError("not a finite number", file=file, field=key)
    return array


def _indices(
    value: Any, key: str, file: str | PathLike[str], count: int, *, columns: int = 0, size: int = 0, least: int = 0
) -> np.ndarray:
    """`value` as int64 indices in [least, count): (n, columns) or (size,)."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError("not an array", file=file, field=key, expected="vertex indices") from error
    if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and (array == np.floor(array)).all()):
        raise InputError(f"values of type {array.dtype}", file=file, field=key, expected="vertex indices")
    fits = array.shape == (size,) if size else array.ndim == 2 and array.shape[1] == columns
    if not fits:
        wanted = f"shape ({size},)" if size else f"shape (n, {columns})"
        raise InputError(f"array of shape {array.shape}", file=file, field=key, expected=wanted)
    array = array.astype(np.int64)
    if array.size and (array.min() < least or array.max() >= count):
        problem = f"vertex indices from {array.min()} to {array.max()}"
        raise InputError(problem, file=file, field=key, expected=f"{least} to {count - 1}")
    return array


def _parents(value: Any, key: str, file: str | PathLike[str]) -> np.ndarray:
    """Parent columns (24,) from a table of parent ids and own ids; every parent comes before its children."""
    table = np.asarray(value) if not isinstance(value, Unrecoverable) else np.empty(0)
    if table.shape != (2, JOINTS) or table.dtype.kind not in "iuf":
        raise InputError(f"array of shape {table.shape}", file=file, field=key, expected=f"shape (2, {JOINTS})")
    column = {int(own): i for i, own in enumerate(table[1])}
    parents = [-1] + [column.get(int(parent), JOINTS) for parent in table[0, 1:]]
    if any(parent >= joint for joint, parent in enumerate(parents)):
        raise InputError("not a tree whose parents come first", file=file, field=key)
    return np.asarray(parents, dtype=np.int64)


__all__ = [
    "EVALUATION_REGRESSORS",
    "KEYPOINT_REGRESSORS",
    "OFFICIAL_LANDMARKS",
    "Unrecoverable",
    "check_arrays",
    "find_model_file",
    "first_file",
    "float_array",
    "keypoint_arrays",
    "read_model_file",
    "required",
    "skel_arrays",
    "smpl_arrays",
]
