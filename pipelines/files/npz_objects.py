"""Members of an .npz, those included that are pickles: arrays of Python objects, read without running anything."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fitting.body.inert_pickle import parse_pickle
from pipelines.files.npz import ZIP_DAMAGE, Member, check_readable, npz_members, read_all
from pipelines.files.npz_whole import check_whole
from schemas import InputError


def read_arrays(path: str, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Those of the named members that are there (all without `names`); an array of one object as that object."""
    members = npz_members(path)
    chosen = {name: members[name] for name in (members if names is None else names) if name in members}
    check_whole(path, chosen.values())
    return {name: _read(path, member) for name, member in chosen.items()}


def _read(path: str, member: Member) -> Any:
    if not member.dtype.hasobject:
        check_readable(path, member, member.name)
        return read_all(path, member)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member.name + ".npy") as stream:
            data = stream.read()
    except (OSError, *ZIP_DAMAGE) as error:
        raise InputError(f"cannot be read ({error})", file=path, field=member.name) from error
    start = member.offset if member.compressed else _header_bytes(data)
    try:
        value = parse_pickle(io.BytesIO(data[start:]), Path(path))
    except InputError as error:
        raise InputError(error.problem, file=path, field=member.name, expected=error.expected) from error
    array = np.asarray(value, dtype=object) if not isinstance(value, np.ndarray) else value
    if array.size != int(np.prod(member.shape)):
        raise InputError(f"{array.size} objects for an array of shape {member.shape}", file=path, field=member.name)
    return array.reshape(-1)[0] if member.shape == () else array.reshape(member.shape)


def _header_bytes(data: bytes) -> int:
    """Where the pickle begins: behind the header of the .npy format, which its own length field measures."""
    wide = data[6:7] >= b"\x02"
    return (12 if wide else 10) + int.from_bytes(data[8 : 12 if wide else 10], "little")
