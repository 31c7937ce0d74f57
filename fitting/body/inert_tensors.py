"""Torch's tensors inside ordinary pickles, as arrays, without torch and without running anything.

A tensor that is pickled with its dictionary, instead of by torch.save, carries its bytes as a small file of torch's old
format: five pickles (magic number, version, system, storage, keys), then 8 bytes of length and the numbers.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np

from fitting.body.inert_records import Record, unpickle

TENSOR_NAMES = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.storage._load_from_bytes",
    "collections.OrderedDict",
)
"""What a pickle of such tensors refers to."""

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
_LARGEST_NUMBER = 2**40


def storage_array(content: Any) -> np.ndarray:
    """All numbers (n,) of a storage in torch's old format. Raises ValueError for what is none."""
    if not isinstance(content, bytes):
        raise ValueError("tensor data that are no bytes")
    stream = io.BytesIO(content)
    if unpickle(stream) != _MAGIC:
        raise ValueError("tensor data of another format")
    unpickle(stream)
    system = unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("tensor data of a big-endian machine")
    found: list[tuple[Any, ...]] = []
    unpickle(stream, outside=lambda pid: found.append(pid))
    unpickle(stream)
    if len(found) != 1 or not isinstance(found[0], tuple) or len(found[0]) < 5 or found[0][0] != "storage":
        raise ValueError("tensor data without a storage")
    kind = _TYPES.get(getattr(found[0][1], "source", ""))
    if kind is None:
        raise ValueError("tensor data of an unknown type")
    head = stream.read(8)
    (count,) = struct.unpack("<q", head) if len(head) == 8 else (-1,)
    data = stream.read()
    if count < 0 or len(data) != count * np.dtype(kind).itemsize:
        raise ValueError(f"{len(data)} bytes of tensor data for {count} numbers")
    return np.frombuffer(data, kind)


def tensor_array(storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """The array that a tensor's layout makes of a storage's numbers. Raises ValueError for an impossible one."""
    size, stride = (tuple(part.args[0]) if isinstance(part, Record) else tuple(part) for part in (size, stride))
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise ValueError("a tensor without numbers")
    if not all(type(n) is int and 0 <= n <= _LARGEST_NUMBER for n in numbers):
        raise ValueError("a tensor of impossible layout")
    if not math.prod(size):
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(storage) or math.prod(size) > len(storage):
        raise ValueError(f"a tensor of {size} in {len(storage)} numbers")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()
