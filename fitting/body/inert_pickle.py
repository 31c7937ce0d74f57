"""Pickles of arrays, read without running anything that they hold.

Arrays are rebuilt from inert records (`inert_records`). Only numpy arrays, scipy.sparse matrices, chumpy arrays, torch
tensors (`inert_tensors`) and builtin containers are known, and anything else is refused by name. That numpy itself
never sees the records matters: its own unpickling trusts type flags that a hostile file can set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fitting.body.inert_records import Rebuilder, Record, unpickle
from fitting.body.inert_tensors import TENSOR_NAMES, storage_array, tensor_array
from schemas import InputError

_ADMITTED = "numpy arrays, scipy.sparse matrices, chumpy arrays, torch tensors and plain Python values"
_LARGEST = 2**32  # bytes of all arrays of a file together
_LARGEST_DENSE = 2**24  # elements of a sparse matrix once it is dense; a claimed shape beyond it is damage or malice
_CONTAINERS = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "list", "dict")),
    *("builtins.tuple", "__builtin__.tuple", "collections.OrderedDict"),
}
_PLAIN = re.compile(
    r"collections\.OrderedDict|(copyreg|copy_reg)\._reconstructor|_codecs\.encode"
    r"|(builtins|__builtin__)\.(bytes|set|frozenset|list|dict|tuple|object)"
)
_NUMPY = re.compile(
    r"numpy\.(ndarray|dtype|_?core\.multiarray\.(_reconstruct|scalar)|_?core\.numeric\._frombuffer"
    r"|matrixlib\.defmatrix\.matrix)"
)
_SPARSE = re.compile(r"scipy\.sparse\._?(csc|csr|coo)\.(csc|csr|coo)_(matrix|array)")
_CHUMPY = re.compile(r"chumpy(\.ch|\.reordering)?\.\w+")


class Unrecoverable:
    """The place of a value that a file holds only as an expression."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def _refuse_unknown(path: Path) -> Callable[[str], None]:
    def refuse(full: str) -> None:
        if full not in TENSOR_NAMES and not any(k.fullmatch(full) for k in (_PLAIN, _NUMPY, _SPARSE, _CHUMPY)):
            raise InputError(f"the pickle refers to {full}, which is refused", file=path, expected=_ADMITTED)

    return refuse


def _refuse_outside(path: Path) -> Callable[[Any], Any]:
    def refuse(_pid: Any) -> None:
        raise InputError("the pickle refers to data outside it", file=path, expected=_ADMITTED)

    return refuse


def read_pickle(path: Path) -> Any:
    """What the pickle holds, as numpy arrays and plain Python values.

    Raises InputError for a file that is truncated or damaged, or that refers to a class other than those admitted.
    """
    try:
        with open(path, "rb") as file:
            return parse_pickle(file, path)
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})", file=path) from error


def parse_pickle(stream: BinaryIO, path: Path) -> Any:
    """`read_pickle` of a pickle that lies inside the file `path`; the stream is read from where it stands."""
    try:
        return _Arrays().value(unpickle(stream, _refuse_unknown(path), _refuse_outside(path)))
    except (InputError, OSError):
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes happen to mean
        problem = f"truncated or damaged pickle ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, expected=f"a pickle of {_ADMITTED}") from error


class _Arrays(Rebuilder):
    """Turns records into numpy arrays."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def record(self, record: Record) -> Any:
        source, args, state = record.source, record.args, record.state
        if source in _CONTAINERS:
            return self.builtin(record)
        if source.endswith(("copyreg._reconstructor", "copy_reg._reconstructor")):
            source, args = args[0].source, ()
        name = source.rpartition(".")[2]
        if name == "encode":
            return _text(args[0]).encode("latin1")
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
        if name == "_load_from_bytes":
            return self._counted(storage_array(self.value(args[0])))
        if name == "_rebuild_tensor_v2":
            return self._counted(tensor_array(self.value(args[0]), *args[1:4]))
        if name == "_rebuild_parameter":
            return self.value(args[0])
        if source.startswith("scipy."):
            return _dense(name, self.value(state))
        if source.startswith("chumpy."):
            return self._chumpy(source, self.value(state))
        raise ValueError(f"{source} without contents")

    def other(self, item: Any) -> Any:
        raise ValueError(f"{getattr(item, 'source', type(item).__name__)} without contents")

    def _array(self, data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
        kind, data = self.value(kind), self.value(data)
        shape = tuple(int(n) for n in shape)
        if kind.kind == "O":
            if not isinstance(data, list):
                raise ValueError("an array of objects without them")
            array = np.empty(len(data), object)
            for i, element in enumerate(data):
                array[i] = element
            return array.reshape(shape, order=order)
        raw = data.encode("latin1") if isinstance(data, str) else data
        if len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{len(raw)} bytes for an array of shape {shape}")
        return self._counted(np.frombuffer(raw, kind).reshape(shape, order=order)).copy()

    def _counted(self, array: np.ndarray) -> np.ndarray:
        self._bytes += array.nbytes
        if self._bytes > _LARGEST:  # arrays that share their bytes in the file do so no more
            raise ValueError(f"arrays of more than {_LARGEST} bytes")
        return array

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


def _text(value: Any) -> str:
    """A string as it is; all else is refused: a tuple that holds itself many times over would never be spelled out."""
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} in place of a text")
    return value


def _numpy_type(text: Any, state: Any) -> np.dtype:
    """A dtype from its short text such as 'f8' and the byte order of its state; nothing else is taken over."""
    kind = np.dtype(text.decode("latin1") if isinstance(text, bytes) else _text(text))
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
        # Before anything is made of them: a wrong pointer of four bytes stands for two billion entries.
        if (np.diff(pointers, prepend=0) < 0).any() or pointers[-1] != len(data):
            raise ValueError("a sparse matrix whose pointers are not those of its entries")
        major = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        row, column = (state["indices"], major) if name.startswith("csc") else (major, state["indices"])
    return scatter(data, row, column, rows, columns)


def scatter(data: np.ndarray, row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The dense (rows, columns) matrix of coordinate triplets; entries of the same place add up."""
    if not 0 <= rows * columns <= _LARGEST_DENSE:
        raise ValueError(f"a sparse matrix of shape ({rows}, {columns})")
    row, column = np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64)
    if data.ndim != 1 or not row.shape == column.shape == data.shape:
        raise ValueError("a sparse matrix with other places than entries")
    if row.size and (min(row.min(), column.min()) < 0 or row.max() >= rows or column.max() >= columns):
        raise ValueError("a sparse matrix with entries outside its shape")
    matrix = np.zeros((rows, columns), dtype=data.dtype)
    np.add.at(matrix, (row, column), data)
    return matrix
