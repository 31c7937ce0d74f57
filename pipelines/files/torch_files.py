"""Files that torch.save wrote, read for their tensors without running anything that they hold.

Such a file is a zip archive of one pickle and of the raw bytes of each tensor. Released checkpoints also pickle
configuration objects and random states, of classes that need not be installed and could run code; here they become
inert records (`fitting.body.inert_records`). Bytes of tensors are read only when asked for, held to their checksum.
torch.load itself is not used: it hands a file with a member of TorchScript's to an interpreter, whatever the unpickler,
checks no checksum, and believes the sizes that the pickle claims.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fitting.body.inert_records import Rebuilder, Record, unpickle
from pipelines.files.npz import ZIP_DAMAGE
from schemas import InputError

_LARGEST_PICKLE = 2**28
"""Bytes of the pickle, which holds names and shapes but no numbers."""
_LARGEST_NUMBER = 2**40
"""Of elements, and of strides and offsets."""
_MOST_REPEATED = 2**29
"""Bytes by which the tensors of a file may exceed it: they may repeat what they share, but not without end."""
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
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


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
        """The tensor, on the CPU, in memory of its own. Raises InputError if the file is damaged."""
        whole, count = self._archive.storage(self._key, self.dtype), math.prod(self.shape)
        if not count:
            return torch.empty(self.shape, dtype=self.dtype)
        last = self._offset + sum((n - 1) * step for n, step in zip(self.shape, self._stride, strict=True))
        if last >= len(whole):
            raise InputError(f"tensor data {self._key} too short for shape {self.shape}", file=self._archive.path)
        self._archive.take(count * self.dtype.itemsize)
        return whole.as_strided(self.shape, self._stride, self._offset).clone(memory_format=torch.contiguous_format)


def read_torch_file(path: str | PathLike[str]) -> Any:
    """What torch.save wrote: plain containers and values, with a StoredTensor for each tensor and an Inert for others.

    Objects that derive from dictionaries become dictionaries. Raises InputError for a file that cannot be opened, that
    is not a zip archive of torch's (as those of torch before 1.6 are not), or that is damaged.
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
        return _Tensors(archive).value(unpickle(io.BytesIO(archive.pickle()), outside=_Storage))
    except InputError:
        raise
    except Exception as error:  # damaged archives and pickles raise whatever their bytes happen to mean
        problem = f"truncated or damaged ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, expected="a file of torch.save") from error


def load_tensors(tree: Any, file: str | PathLike[str]) -> Any:
    """A tree of `read_torch_file` with its tensors read. Raises InputError if it holds anything inert."""
    for inert in _found(tree, Inert, set()):
        raise InputError(f"holds an object of {inert.source}", file=file, expected="tensors and plain Python values")
    return _loaded(tree, {})


def _found(tree: Any, kind: type, seen: set[int]) -> Iterator[Any]:
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (dict, list, tuple)) and id(tree) not in seen:
        seen.add(id(tree))
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _found(value, kind, seen)


def _loaded(tree: Any, done: dict[int, Any]) -> Any:
    """Containers that the file shares are gone through once: they may be shared 2 ** 40 times."""
    if isinstance(tree, StoredTensor):
        return tree.load()
    if not isinstance(tree, (dict, list, tuple)):
        return tree
    if id(tree) not in done:
        if isinstance(tree, dict):
            done[id(tree)] = {key: _loaded(value, done) for key, value in tree.items()}
        else:
            done[id(tree)] = type(tree)(_loaded(value, done) for value in tree)
    return done[id(tree)]


class _Archive:
    """The zip file. It stays open as long as one of its tensors may still be asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self._left = path.stat().st_size + _MOST_REPEATED
        self._size = path.stat().st_size
        self._last: tuple[tuple[str, torch.dtype], Tensor] | None = None
        names = self._zip.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError("a zip file without torch's data.pkl", file=path, expected="a file of torch.save")
        # torch writes zeros if it was told to write no checksums (torch.serialization.set_crc32_options).
        self._checked = any(info.CRC for info in self._zip.infolist())
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in names:
            raise InputError("a TorchScript program", file=path, expected="a file of torch.save")
        if f"{self._root}byteorder" in names and self._member("byteorder") != b"little":
            raise InputError("written on a big-endian machine", file=path)

    def _member(self, name: str, largest: int | None = None) -> bytearray:
        info = self._zip.getinfo(f"{self._root}{name}")
        # torch stores without compression; a compressed member could expand without bound.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise InputError(f"compressed member {info.filename}", file=self.path, expected="a file of torch.save")
        if largest is not None and info.file_size > largest:
            raise InputError(f"member {info.filename} of {info.file_size} bytes is too large", file=self.path)
        if not self._checked:
            info.CRC = None
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
            self._last = None
            try:
                data = self._member(f"data/{key}")
            except (OSError, *ZIP_DAMAGE) as error:
                raise InputError(f"truncated or damaged tensor data {key} ({error})", file=self.path) from error
            count = len(data) // dtype.itemsize
            tensor = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            self._last = (key, dtype), tensor
        return self._last[1]

    def take(self, size: int) -> None:
        """Counts the bytes of a tensor that is read: more than the file can honestly hold are refused."""
        self._left -= size
        if self._left < 0:
            problem = f"its tensors claim more numbers than its {self._size} bytes can hold"
            raise InputError(problem, file=self.path, expected="a file of torch.save")


class _Storage:
    """The bytes of tensors, as a pickle names them."""

    def __init__(self, pid: Any) -> None:
        kind, storage, key, _place, _count = pid
        source = getattr(storage, "source", "")
        # Only strings are spelled out: a tuple that holds itself many times over would never end.
        if not isinstance(kind, str) or not isinstance(key, str):
            raise ValueError("tensor data without a name")
        if kind != "storage" or not (source in _STORAGES or source in _UNTYPED):
            raise ValueError(f"tensor data of an unknown kind ({kind} {source})")
        self.dtype, self.key = _STORAGES.get(source), key


class _Tensors(Rebuilder):
    """Turns records into StoredTensors, plain values and Inerts."""

    def __init__(self, archive: _Archive) -> None:
        super().__init__()
        self._archive = archive

    def other(self, item: Any) -> Any:
        return Inert(getattr(item, "source", None) or type(item).__name__)

    def dictionary(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        plain = (str, int, float, bytes, bool, type(None))
        return {key: self.value(element) for key, element in pairs if isinstance(key, plain)}

    def record(self, record: Record) -> Any:
        source, args = record.source, record.args
        if source in _TENSORS and len(args) >= 4:
            return self._tensor(args[0], args[0].dtype, *args[1:4])
        if source == "torch._utils._rebuild_tensor_v3" and len(args) >= 7:
            return self._tensor(args[0], _DTYPE_NAMES[getattr(args[6], "source", "")], *args[1:4])
        if source in _PARAMETERS and args:
            return self.value(args[0])
        if source == "torch.Size":
            return tuple(self.value(list(args[0])))
        if record.pairs:
            return self.dictionary(record.pairs)
        try:
            return self.builtin(record)
        except KeyError:
            return Inert(source)

    def _tensor(
        self, storage: _Storage, dtype: torch.dtype | None, offset: int, size: Any, stride: Any
    ) -> StoredTensor:
        size = tuple(size.args[0]) if isinstance(size, Record) else tuple(size)
        numbers = (offset, *size, *stride)
        sound = len(size) == len(stride) and all(type(n) is int and 0 <= n <= _LARGEST_NUMBER for n in numbers)
        if not sound or dtype not in _DTYPES.values() or math.prod(max(n, 1) for n in size) > _LARGEST_NUMBER:
            raise ValueError("a tensor of impossible layout")
        return StoredTensor(self._archive, str(storage.key), dtype, (offset, size, tuple(stride)))
