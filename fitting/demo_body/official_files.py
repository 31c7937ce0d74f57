"""Writes model dictionaries as pickles of the official layouts, without chumpy and without Python 2.

SMPL's originals were written by Python 2: byte strings, `numpy.core`, `scipy.sparse.csc`, arrays inside
`chumpy.ch.Ch` objects. A pickle only names its classes, so writing such names needs none of the packages.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

_OLD_MODULES = {"builtins": "__builtin__", "copyreg": "copy_reg"}


class _Named:
    """An object of a class that is only named: pickled as `module.name` with this state."""

    def __init__(self, module: str, name: str, state: dict[str, Any]):
        self.module, self.name, self.state = module, name, state


class _Pickler(pickle._Pickler):
    """Pickles for numpy 1 readers: `numpy._core` is written as `numpy.core`; `_Named` as the class it names."""

    dispatch = pickle._Pickler.dispatch.copy()

    def _module(self, module: str) -> str:
        return module.replace("numpy._core", "numpy.core")

    def _global(self, module: str, name: str) -> None:
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write a class or function by name."""
        self._global(self._module(obj.__module__), obj.__qualname__)
        self.memoize(obj)

    def save_named(self, obj: _Named) -> None:
        """Write `obj` as an instance of the class it names."""
        self._global(obj.module, obj.name)
        self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        self.memoize(obj)
        self.save(obj.state)
        self.write(pickle.BUILD)

    dispatch[_Named] = save_named
    dispatch[type] = save_global
    dispatch[type(lambda: 0)] = save_global
    dispatch[type(len)] = save_global

    def reducer_override(self, obj: Any) -> Any:
        """Classes such as numpy.dtype's have metaclasses: name them too."""
        if isinstance(obj, type):
            return f"{self._module(obj.__module__)}\n{obj.__qualname__}"
        return NotImplemented

    def save_reduce(self, func: Any, args: Any, *rest: Any, **named: Any) -> None:
        """As the base class, but the callable's module is renamed by save_global."""
        super().save_reduce(func, args, *rest, **named)


class _Python2Pickler(_Pickler):
    """The same as Python 2 wrote: text and bytes are both byte strings."""

    dispatch = _Pickler.dispatch.copy()

    def _module(self, module: str) -> str:
        return _OLD_MODULES.get(module, super()._module(module))

    def _string(self, data: bytes, obj: Any) -> None:
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(obj)

    def save_text(self, obj: str) -> None:
        """str as a Python 2 byte string."""
        self._string(obj.encode("latin-1"), obj)

    def save_data(self, obj: bytes) -> None:
        """bytes as a Python 2 byte string."""
        self._string(obj, obj)

    dispatch[str] = save_text
    dispatch[bytes] = save_data


def _chumpy(array: np.ndarray) -> _Named:
    return _Named("chumpy.ch", "Ch", {"x": np.ascontiguousarray(array), "_dirty_vars": set(), "_itr": None})


def _sparse(matrix: Any, kind: str, module: str) -> _Named:
    m = matrix.asformat(kind)
    names = ("indices", "indptr", "data") if kind == "csc" else ("row", "col", "data")
    state = {"_shape": tuple(int(n) for n in m.shape), "maxprint": 50}
    state |= {n: np.asarray(getattr(m, n)) for n in names}
    return _Named(module, f"{kind}_matrix", state)


def _dump(value: Any, path: Path, pickler: type[_Pickler], protocol: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    pickler(buffer, protocol).dump(value)
    path.write_bytes(buffer.getvalue())
    return path


def write_files(directory: Path, smpl: dict, skel: dict, keypoints: dict) -> list[Path]:
    """Write the five files; returns their paths."""
    as_chumpy = ("v_template", "shapedirs", "posedirs", "weights", "J")
    old = {k: _chumpy(v) if k in as_chumpy else v for k, v in smpl.items()}
    old["J_regressor"] = _sparse(smpl["J_regressor"], "csc", "scipy.sparse.csc")
    new = {k: _sparse(v, "coo", "scipy.sparse._coo") if hasattr(v, "tocoo") else v for k, v in skel.items()}
    written = [
        _dump(old, directory / "smpl" / "SMPL_NEUTRAL.pkl", _Python2Pickler, 2),
        _dump(new, directory / "skel" / "skel_male.pkl", _Pickler, 3),
    ]
    for name, rows in keypoints.items():
        written.append(_dump(rows, directory / f"{name}.pkl", _Pickler, 3))
    return written
