"""Files that torch.save wrote, read for their tensors without running anything that they hold.

Such a file is a zip archive of one pickle and of the raw bytes of each tensor. Released checkpoints also pickle
configuration objects and random states, of classes that need not be installed and could run code. Here every class and
function that the pickle names is replaced by an inert record; tensors are found among the records afterwards, and their
bytes are read only when asked for.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas import InputError

_LARGEST_PICKLE = 2**28
"""Bytes of the pickle, which holds names and shapes but no numbers."""
_LARGEST_TENSOR = 2**34
"""Elements; a claimed shape beyond it is damage or malice."""
_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}
_DTYPE_NAMES = {str(dtype): dtype for dtype in _DTYPES.values()}
_UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage")
_CONTAINERS = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "int": int, "float": float}


class Inert:
    """The place of an object that is neither tensor nor plain value. `source` names its class; no more is kept."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"<{self.source}, not read>"


class StoredTensor:
    """A tensor whose bytes are still in the file."""

    def __init__(self, archive: _Archive, key: str, dtype: torch.dtype, layout: tuple) -> None:
        self.shape, self.dtype = tuple(layout[1]), dtype
        self._archive, self._key, self._offset, self._stride = archive, key, layout[0], tuple(layout[2])

    def load(self) -> Tensor:
        """The tensor, on the CPU. Raises InputError if the file is damaged."""
        whole = self._archive.storage(self._key, self.dtype)
        last = self._offset + sum((n - 1) * step for n, step in zip(self.shape, self._stride, strict=True))
        if math.prod(self.shape) and last >= len(whole):
            raise InputError(f"tensor data {self._key} too short for shape {self.shape}", file=self._archive.path)
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=self.dtype)
        view = whole.as_strided(self.shape, self._stride, self._offset)
        if view.numel() < whole.numel() or not view.is_contiguous():
            return view.clone()
        self._archive.forget()
        return view


def read_torch_file(path: str | PathLike[str]) -> Any:
    """What torch.save wrote: plain containers and values, with a StoredTensor for each tensor and an Inert for others.

    Raises InputError for a file that cannot be opened, that is not a zip archive of torch's (as those of torch before
    1.6 are not), or that is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})", file=path) from error
    if start[:2] != b"PK":
        legacy = start[:1] == b"\x80"
        problem = "a file in torch's old format, which only a full unpickling reads" if legacy else "not a torch file"
        expected = (
            "a zip file of torch.save; torch.save(torch.load(old, weights_only=True), new) makes one of an old file"
        )
        raise InputError(problem, file=path, expected=expected)
    try:
        archive = _Archive(path)
        tree = _Unpickler(io.BytesIO(archive.pickle()), path).load()
        return _Rebuilder(archive).value(tree)
    except InputError:
        raise
    except Exception as error:  # damaged archives and pickles raise whatever their bytes happen to mean
        problem = f"truncated or damaged ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, expected="a file of torch.save") from error


def load_tensors(tree: Any, file: str | PathLike[str]) -> Any:
    """A tree of `read_torch_file` with its tensors read. Raises InputError if it holds anything inert."""
    if isinstance(tree, StoredTensor):
        return tree.load()
    if isinstance(tree, Inert):
        raise InputError(f"holds an object of {tree.source}", file=file, expected="tensors and plain Python values")
    if isinstance(tree, dict):
        return {key: load_tensors(value, file) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(load_tensors(value, file) for value in tree)
    return tree


class _Archive:
    """The zip file. It stays open as long as one of its tensors may still be asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self._size = path.stat().st_size
        self._last: tuple[tuple[str, torch.dtype], Tensor] | None = None
        pickles = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError("a zip file without torch's data.pkl", file=path, expected="a file of torch.save")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}byteorder" in self._zip.namelist() and self._member("byteorder") != b"little":
            raise InputError("written on a big-endian machine", file=path)

    def _member(self, name: str, largest: int | None = None) -> bytearray:
        info = self._zip.getinfo(f"{self._root}{name}")
        # torch stores without compression; a compressed member could expand without bound.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise InputError(f"compressed member {info.filename}", file=self.path, expected="a file of torch.save")
        if largest is not None and info.file_size > largest:
            raise InputError(f"member {info.filename} of {info.file_size} bytes is too large", file=self.path)
        data = bytearray(info.file_size)
        with self._zip.open(info) as member:
            if member.readinto(data) != len(data) or member.read(1):
                raise InputError(f"truncated member {info.filename}", file=self.path)
        return data

    def pickle(self) -> bytearray:
        return self._member("data.pkl", _LARGEST_PICKLE)

    def storage(self, key: str, dtype: torch.dtype) -> Tensor:
        """All elements of a storage. The last one is kept: parameters that share one come one after another."""
        if self._last is None or self._last[0] != (key, dtype):
            try:
                data = self._member(f"data/{key}")
            except (KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"truncated or damaged tensor data {key} ({error})", file=self.path) from error
            count = len(data) // dtype.itemsize
            tensor = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            self._last = (key, dtype), tensor
        return self._last[1]

    def forget(self) -> None:
        """Two tensors of a file never share memory once they are read, whatever they did when they were written."""
        self._last = None


class _Record:
    """What a pickle says about one object: its class and the arguments of its construction."""

    source = ""

    def __new__(cls, *args: Any, **_named: Any) -> _Record:
        self = object.__new__(cls)
        self.args = args
        return self

    def __init__(self, *_args: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    # Pickles fill objects that derive from containers through these.
    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _value: Any) -> None:
        pass

    def extend(self, _values: Any) -> None:
        pass

    def add(self, _value: Any) -> None:
        pass


class _StateDict(dict):
    """An ordered dictionary whose attributes (versions of modules, in state dictionaries) are dropped."""

    def __setstate__(self, _state: Any) -> None:
        pass


class _Storage:
    def __init__(self, dtype: torch.dtype | None, key: str) -> None:
        self.dtype, self.key = dtype, key


class _Unpickler(pickle.Unpickler):
    """Hands out inert records in the place of every class and function that a pickle names."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._records: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        full = f"{module}.{name}"
        if full not in self._records:
            # Classes of this reading alone: a pickle may set attributes of what it is given.
            base = _StateDict if full == "collections.OrderedDict" else _Record
            self._records[full] = type("Record", (base,), {"source": full})
        return self._records[full]

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _place, _count = pid
        source = getattr(storage, "source", "")
        if kind != "storage" or not (source in _STORAGES or source in _UNTYPED):
            raise InputError(f"tensor data of an unknown kind ({kind} {source})", file=self._path)
        return _Storage(_STORAGES.get(source), str(key))


class _Rebuilder:
    """Turns records into StoredTensors, plain values and Inerts. Objects that a pickle shares are rebuilt once."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._done: dict[int, tuple[Any, Any]] = {}  # with the object itself, whose id must not be given anew
        self._open: set[int] = set()

    def value(self, item: Any) -> Any:
        if isinstance(item, type):
            return Inert(getattr(item, "source", item.__name__))
        if not isinstance(item, (_Record, _Storage, dict, list, tuple)):
            return item
        if id(item) in self._done:
            return self._done[id(item)][1]
        if id(item) in self._open:
            raise ValueError("an object contains itself")
        self._open.add(id(item))
        if isinstance(item, _Record):
            result = self._record(item)
        elif isinstance(item, _Storage):
            result = Inert("torch.storage")
        elif isinstance(item, dict):
            result = {key: self.value(element) for key, element in dict.items(item) if _plain_key(key)}
        else:
            result = [self.value(element) for element in item]
            result = tuple(result) if isinstance(item, tuple) else result
        self._open.remove(id(item))
        self._done[id(item)] = item, result
        return result

    def _record(self, record: _Record) -> Any:
        source, args = record.source, record.args
        if source in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor") and len(args) >= 4:
            return self._tensor(args[0], args[0].dtype, *args[1:4])
        if source == "torch._utils._rebuild_tensor_v3" and len(args) >= 7:
            return self._tensor(args[0], _DTYPE_NAMES[getattr(args[6], "source", "")], *args[1:4])
        if source in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state") and args:
            return self.value(args[0])
        if source == "torch.Size":
            return tuple(self.value(list(args[0])))
        return Inert(source)

    def _tensor(
        self, storage: _Storage, dtype: torch.dtype | None, offset: int, size: Any, stride: Any
    ) -> StoredTensor:
        size = tuple(size.args[0]) if isinstance(size, _Record) else tuple(size)
        numbers = (offset, *size, *stride)
        if dtype is None or len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor of impossible layout")
        if math.prod(size) > _LARGEST_TENSOR:
            raise ValueError(f"a tensor of shape {size}")
        return StoredTensor(self._archive, storage.key, dtype, (offset, size, tuple(stride)))


def _plain_key(key: Any) -> bool:
    return isinstance(key, (str, int, float, bytes, bool)) or key is None
