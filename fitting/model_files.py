"""Body-model files of the official layouts, read without running anything that they hold.

SMPL's and SKEL's files are pickles, and a pickle can call any function. Here every class that a pickle refers to is
replaced by an inert record of its arguments and its state; arrays are rebuilt from those records afterwards. Only
numpy arrays, scipy.sparse matrices, chumpy arrays and builtin containers are known, anything else is refused by name.
`.npz` files hold the same keys. There, a sparse matrix is either dense or the four arrays `KEY_data`, `KEY_row`,
`KEY_col` and `KEY_shape`.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import re
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

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

_ADMITTED = "numpy arrays, scipy.sparse matrices, chumpy arrays and plain Python values"
_LARGEST = 2**28  # elements of one array; a claimed shape beyond it is damage or malice
_CONTAINERS = {"set": set, "frozenset": frozenset, "list": list, "dict": dict, "tuple": tuple, "object": object}
_NUMPY = re.compile(
    r"numpy\.(ndarray|dtype|_?core\.multiarray\.(_reconstruct|scalar)|_?core\.numeric\._frombuffer"
    r"|matrixlib\.defmatrix\.matrix)"
)
_SPARSE = re.compile(r"scipy\.sparse\._?(csc|csr|coo)\.(csc|csr|coo)_(matrix|array)")
_CHUMPY = re.compile(r"chumpy(\.ch|\.reordering)?\.\w+")


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
        places = _places(given.parent if given.is_file() else given)
        found = {}
        for name in KEYPOINT_REGRESSORS:
            path = _first_file(places, [f"{name}{ending}" for ending in (".pkl", ".npz", ".npy")])
            if path is not None:
                found[name] = (path, _read_single(path, name))
    regressors = {}
    for name, points in KEYPOINT_REGRESSORS.items():
        if name in found:
            source, value = found[name]
            regressors[name] = _float_array(value, name, source, (points, vertices))
    return regressors


def find_model_file(path_or_dir: str | PathLike[str], kind: Literal["smpl", "skel"], gender: str) -> Path:
    """The file of a body model: `path_or_dir` itself, or the official name in that directory, its smpl/ or its skel/.

    Names are compared without regard to case; `.pkl` comes before `.npz`. Raises InputError that names what was
    looked for and what is there.
    """
    genders = ("neutral", "male", "female") if kind == "smpl" else ("male", "female")
    if gender not in genders:
        raise InputError(f"no {kind.upper()} body model of gender {gender!r}", expected=" or ".join(genders))
    given = Path(path_or_dir)
    if given.is_file():
        return given
    stem = f"SMPL_{gender.upper()}" if kind == "smpl" else f"skel_{gender}"
    names = [f"{stem}.pkl", f"{stem}.npz"]
    if not given.is_dir():
        raise InputError("no such file or directory", file=given, expected=f"{names[0]} or a directory that holds it")
    places = _places(given)
    path = _first_file(places, names)
    if path is None:
        there = sorted(str(p.relative_to(given)) for place in places for p in place.iterdir() if p.is_file())
        shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        problem = f"no {kind.upper()} body model in this directory; it holds {shown or 'no files'}"
        raise InputError(problem, file=given, expected=f"{' or '.join(names)}, there or in {kind}/")
    return path


def read_model_file(path: str | PathLike[str]) -> dict[str, Any]:
    """All keys of a `.pkl` or `.npz` body-model file as dense numpy arrays and plain Python values.

    A chumpy expression whose value cannot be told from its state becomes an `Unrecoverable`. Raises InputError for a
    file that cannot be read or refers to a class other than those of the module's docstring.
    """
    path = Path(path)
    values = _read_npz(path) if path.suffix.lower() == ".npz" else _read_pickle(path)
    if not isinstance(values, dict):
        raise InputError(f"holds a {type(values).__name__}", file=path, expected="a dictionary of a body model")
    return {str(key): value for key, value in values.items()}


def check_arrays(values: dict[str, Any], kind: Literal["smpl", "skel"], file: str | PathLike[str]) -> dict[str, Any]:
    """Keys, version, shapes, index ranges and finiteness of a body model; a copy in plain types.

    Raises InputError that names the field. What comes back is described at `smpl_arrays` and `skel_arrays`.
    """
    checked = dict(values)
    if kind == "skel":
        version = _text(_required(values, "version", file))
        if version != SKEL_VERSION:
            raise InputError(f"SKEL version {version!r}", file=file, field="version", expected=repr(SKEL_VERSION))
        checked["version"] = version
        template, faces, table = "skin_template_v", "skin_template_f", "osim_kintree_table"
    else:
        template, faces, table = "v_template", "f", "kintree_table"

    def floats(key: str, *shape: int | str) -> None:
        checked[key] = _float_array(_required(values, key, file), key, file, shape)

    floats(template, "V", 3)
    count = len(checked[template])
    floats("shapedirs", count, 3, f">={BETAS}")
    floats("posedirs", count, 3, POSE_FEATURES)
    floats("J_regressor", JOINTS, count)
    checked[faces] = _indices(_required(values, faces, file), faces, file, count, columns=3)
    checked["parents"] = _parents(_required(values, table, file), table, file)
    checked[table] = np.stack([checked["parents"], np.arange(JOINTS)])
    if kind == "smpl":
        floats("weights", count, JOINTS)
        ids = values.get("vertex_joint_ids")
        if ids is None and count != SMPL_VERTICES:
            problem = f"the key is missing; a mesh of {count} vertices is not SMPL's"
            raise InputError(problem, file=file, field="vertex_joint_ids", expected="21 vertex indices")
        checked["vertex_joint_ids"] = (
            None if ids is None else _indices(ids, "vertex_joint_ids", file, count, size=21)
        )
        return checked

    floats("skel_template_v", "N", 3)
    bones = len(checked["skel_template_v"])
    checked["skel_template_f"] = _indices(
        _required(values, "skel_template_f", file), "skel_template_f", file, bones, columns=3
    )
    floats("J_regressor_osim", JOINTS, count)
    floats("skin_weights", count, JOINTS)
    floats("skel_weights", bones, JOINTS)
    if "skel_weights_rigid" in values:
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


class Unrecoverable:
    """The place of a value that a file holds only as an expression."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


# ------------------------------------------------------------------------------------------------------ pickles


class _Record:
    """What a pickle says about one object: its class, the arguments of its construction, its state."""

    source = ""

    def __new__(cls, *args: Any, **_named: Any) -> _Record:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *_args: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Admits names by a fixed list and hands out inert records in the place of their classes and functions."""

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._records: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        if full == "collections.OrderedDict":
            return collections.OrderedDict
        plain = full in ("copyreg._reconstructor", "copy_reg._reconstructor", "_codecs.encode")
        empty = full in ("builtins.bytes", "__builtin__.bytes")
        if not (plain or empty or any(known.fullmatch(full) for known in (_NUMPY, _SPARSE, _CHUMPY))):
            raise InputError(f"the pickle refers to {full}, which is refused", file=self._path, expected=_ADMITTED)
        if full not in self._records:
            self._records[full] = type(name, (_Record,), {"source": full})
        return self._records[full]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("the pickle refers to data outside it", file=self._path, expected=_ADMITTED)


def _read_pickle(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            tree = _Unpickler(file, path).load()
        return _Rebuilder().value(tree)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})", file=path) from error
    except Exception as error:  # damaged pickles raise whatever their bytes happen to mean
        problem = f"truncated or damaged pickle ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, expected=f"a pickle of {_ADMITTED}") from error


class _Rebuilder:
    """Turns records into numpy arrays. Objects that a pickle shares are rebuilt once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, item: Any) -> Any:
        if not isinstance(item, (_Record, dict, list, tuple)):
            return item
        if id(item) in self._done:
            return self._done[id(item)]
        if id(item) in self._open:
            raise ValueError("an object contains itself")
        self._open.add(id(item))
        if isinstance(item, _Record):
            result = self._record(item)
        elif isinstance(item, dict):
            result = {self.value(key): self.value(element) for key, element in item.items()}
        else:
            result = [self.value(element) for element in item]
            result = tuple(result) if isinstance(item, tuple) else result
        self._open.remove(id(item))
        self._done[id(item)] = result
        return result

    def _record(self, record: _Record) -> Any:
        source, args, state = record.source, record.args, record.state
        if source.endswith("copyreg._reconstructor") or source.endswith("copy_reg._reconstructor"):
            source, args = args[0].source, ()
        name = source.rpartition(".")[2]
        if name == "encode":
            return str(args[0]).encode("latin1")
        if name == "bytes":
            return b""
        if name == "_reconstruct":
            _, shape, kind, fortran, data = state
            return self._array(data, kind, shape, "F" if fortran else "C")
        if name == "_frombuffer":
            data, kind, shape, order = args
            return self._array(data, kind, shape, order)
        if name == "scalar":
            return self._array(args[1], args[0], (), "C")[()]
        if name == "dtype":
            return _numpy_type(args[0], state)
        if source.startswith("scipy."):
            return _dense(name, self.value(state))
        if source.startswith("chumpy."):
            return self._chumpy(source, self.value(state))
        raise ValueError(f"{source} without contents")

    def _array(self, data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
        kind, data = self.value(kind), self.value(data)
        shape = tuple(int(n) for n in shape)
        if kind.kind == "O":
            array = np.empty(len(data), object)
            array[:] = [self.value(element) for element in data]
            return array.reshape(shape, order=order)
        raw = data.encode("latin1") if isinstance(data, str) else data
        if len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{len(raw)} bytes for an array of shape {shape}")
        return np.frombuffer(raw, kind).reshape(shape, order=order).copy()

    def _chumpy(self, source: str, state: dict) -> Any:
        name = source.rpartition(".")[2]
        if name == "Ch" and isinstance(state.get("x"), np.ndarray):
            return state["x"]
        inner = state.get("a")
        if isinstance(inner, np.ndarray):
            if name == "Select":
                picked = inner.ravel()[np.asarray(state["idxs"], dtype=np.int64)]
                shape = state.get("preferred_shape")
                return picked if shape is None else picked.reshape(tuple(shape))
            if name == "transpose":
                return np.transpose(inner, state.get("axes"))
            if name == "reshape":
                return inner.reshape(state["newshape"])
        return Unrecoverable(source)


def _numpy_type(text: Any, state: Any) -> np.dtype:
    """A dtype from its short text such as 'f8' and the byte order of its state; nothing else is taken over."""
    kind = np.dtype(text.decode("latin1") if isinstance(text, bytes) else str(text))
    if kind.kind not in "biufcSUO":
        raise ValueError(f"array of type {text!r}")
    return kind.newbyteorder(state[1]) if state is not None and state[1] in ("<", ">") else kind


def _dense(name: str, state: dict) -> np.ndarray:
    """A scipy.sparse matrix as an array, from the attributes that the pickle stores."""
    rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
    data = np.asarray(state["data"])
    if name.startswith("coo"):
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
    else:
        pointers = np.asarray(state["indptr"], dtype=np.int64)
        major = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        row, column = (state["indices"], major) if name.startswith("csc") else (major, state["indices"])
    return _scatter(data, row, column, rows, columns)


def _scatter(data: np.ndarray, row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if not 0 <= rows * columns <= _LARGEST:
        raise ValueError(f"a sparse matrix of shape ({rows}, {columns})")
    row, column = np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64)
    if row.size and (min(row.min(), column.min()) < 0 or row.max() >= rows or column.max() >= columns):
        raise ValueError("a sparse matrix with entries outside its shape")
    matrix = np.zeros((rows, columns), dtype=data.dtype)
    np.add.at(matrix, (row, column), data)  # entries of the same place add up
    return matrix


# ---------------------------------------------------------------------------------------------------- npz, npy


def _read_npz(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    key = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                values[key] = archive[key]
        for key in [k.removesuffix("_shape") for k in values if k.endswith("_shape") and f"{k[:-6]}_row" in values]:
            data, row, column, shape = (values.pop(f"{key}_{part}") for part in ("data", "row", "col", "shape"))
            values[key] = _scatter(data, row, column, *(int(n) for n in shape))
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
    value = _read_npz(path) if path.suffix.lower() == ".npz" else _read_pickle(path)
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
    """The directory, then its smpl/ and skel/ in whatever case."""
    if not directory.is_dir():
        raise InputError("no such directory", file=directory)
    inner = sorted(p for p in directory.iterdir() if p.is_dir() and p.name.lower() in ("smpl", "skel"))
    return [directory, *inner]


def _first_file(places: list[Path], names: list[str]) -> Path | None:
    for name in names:
        for place in places:
            for path in sorted(place.iterdir()):
                if path.name.lower() == name.lower() and path.is_file():
                    return path
    return None


def _required(values: dict[str, Any], key: str, file: str | PathLike[str]) -> Any:
    if key not in values:
        raise InputError("the key is missing", file=file, field=key, expected=f"one of the keys {', '.join(values)}")
    return values[key]


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _float_array(value: Any, key: str, file: str | PathLike[str], shape: tuple[int | str, ...]) -> np.ndarray:
    """`value` as float64; a size in `shape` is exact, ">=n" or a letter for any size but zero."""
    wanted = f"shape ({', '.join(str(size) for size in shape)})"
    if isinstance(value, Unrecoverable):
        raise InputError(f"holds an expression of the kind {value.kind}", file=file, field=key, expected="its values")
    try:
        array = np.asarray(value, dtype=np.float64)
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
    array = np.asarray(value)
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
    table = np.asarray(value)
    if table.shape != (2, JOINTS) or table.dtype.kind not in "iuf":
        raise InputError(f"array of shape {table.shape}", file=file, field=key, expected=f"shape (2, {JOINTS})")
    column = {int(own): i for i, own in enumerate(table[1])}
    parents = [-1] + [column.get(int(parent), JOINTS) for parent in table[0, 1:]]
    if any(parent >= joint for joint, parent in enumerate(parents)):
        raise InputError("not a tree whose parents come first", file=file, field=key)
    return np.asarray(parents, dtype=np.int64)


__all__ = [
    "KEYPOINT_REGRESSORS",
    "OFFICIAL_LANDMARKS",
    "Unrecoverable",
    "check_arrays",
    "find_model_file",
    "keypoint_arrays",
    "read_model_file",
    "skel_arrays",
    "smpl_arrays",
]
