"""Members of an .npz file by row range, without loading the rest.

A stored member is a run of bytes in the file: its .npy header gives type and shape, and rows are read where they lie.
A compressed member is streamed up to the last row asked for, in pieces. Arrays of Python objects are never opened:
they are pickles. What is written is stored, not compressed, and its bytes depend on the arrays alone.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

import numpy as np

from pipelines.files.storage import place, size_of
from pipelines.files.urls import UrlPath
from schemas import InputError

_PIECE = 1 << 20
_MAX_ROW_BYTES = 1 << 16
_MAX_CHUNK_BYTES = 1 << 24
_MAX_HEADER_BYTES = 1 << 14
_MAX_DEFLATE_RATIO = 1040
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP64_FROM = 1 << 31
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END, _MANY = struct.Struct("<10xH10x"), 0xFFFF
"""End of an archive's directory: how many entries it has; of very many another record tells."""
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError)
ZIP_DAMAGE += (KeyError, IndexError, struct.error)
"""What zipfile says of archives that nobody wrote whole (UnicodeDecodeError is a ValueError)."""


@dataclass(frozen=True)
class Member:
    """One array of an .npz file.

    `offset` is where the array's bytes begin: in the file if the member is stored, in the member if it is compressed.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    compressed: bool
    offset: int
    unpacked: int
    """Bytes of the whole member."""

    def as_one_row(self) -> Member:
        """The whole array as the only row of another one."""
        return replace(self, shape=(1, *self.shape))

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])


def npz_members(path: str) -> dict[str, Member]:
    """The arrays of an .npz file by name; only headers are read.

    Raises InputError if the file is no .npz. Object arrays are listed: `check_readable` refuses them when needed.
    """
    try:
        with place(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    member = _member(path, file, archive, info)
                    if member.name in members:
                        raise InputError("two members of this name", file=path, field=member.name)
                    members[member.name] = member
                else:  # a damaged name: an array must not vanish from the archive's directory unnoticed
                    archive.open(info).close()
            _check_count(file, archive)
            return members
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    except ZIP_DAMAGE as error:
        problem = f"not a readable .npz file ({error})"
        raise InputError(problem, file=path, expected="a zip archive of arrays") from error


def refuse_objects(path: str, member: Member, field: str) -> None:
    """Raise InputError for an array of Python objects."""
    if member.dtype.hasobject:
        raise InputError(
            f"{member.name!r} is an array of Python objects, that is a pickle, which is not opened",
            file=path,
            field=field,
            expected="an array of numbers or strings",
        )


def check_readable(path: str, member: Member, field: str) -> None:
    """Raise InputError for arrays of Python objects and for rows of absurd size."""
    refuse_objects(path, member, field)
    if member.row_bytes > _MAX_ROW_BYTES:
        raise InputError(f"{member.name!r} has rows of {member.row_bytes} bytes", file=path, field=field)


def read_all(path: str, member: Member) -> np.ndarray:
    """The whole of a small member, scalars included."""
    if not member.shape:
        return read_member_rows(path, member.as_one_row(), 0, 1)[0]
    return read_member_rows(path, member, 0, member.shape[0])


def _check_count(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Raises BadZipFile if the directory has another number of entries than its end says: a damaged length makes one
    entry swallow those behind it, which zipfile does not mind."""
    file.seek(-_END.size - len(archive.comment), os.SEEK_END)
    count = _END.unpack(file.read(_END.size))[0]
    if count not in (len(archive.infolist()), _MANY):
        raise zipfile.BadZipFile(f"{count} members are promised, {len(archive.infolist())} are there")


def texts(values: np.ndarray) -> np.ndarray:
    """(N,) text as str objects; None where it is none: bytes that are not UTF-8, code points beyond Unicode."""
    found = np.empty(len(values), object)
    readable = np.ones(len(values), bool)
    if values.dtype.kind == "U" and values.dtype.itemsize:  # Python refuses the whole array for one code point
        native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
        readable = (native.view(np.uint32).reshape(len(values), native.itemsize // 4) <= sys.maxunicode).all(axis=1)
    for i, value in zip(np.flatnonzero(readable).tolist(), values[readable].tolist(), strict=True):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                continue
        found[i] = value if isinstance(value, str) else None
    return found


def read_member_rows(path: str, member: Member, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of a member, in C order."""
    with _array_bytes(path, member) as stream:
        return _read_rows(path, stream, member, start, stop)


def iterate_rows(path: str, member: Member, chunk: int) -> Iterator[np.ndarray]:
    """All rows in pieces of `chunk`, in one pass over the member."""
    if member.fortran_order and member.compressed and len(member.shape) > 1:
        for start in range(0, member.shape[0], chunk):  # its strips cannot be read in one pass
            yield read_member_rows(path, member, start, min(start + chunk, member.shape[0]))
        return
    chunk = chunk_rows(member, chunk)
    with _array_bytes(path, member) as stream:
        for start in range(0, member.shape[0], chunk):
            yield _read_rows(path, stream, member, start, min(start + chunk, member.shape[0]))


def write_npz(file: str | os.PathLike[str] | BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays as an uncompressed .npz."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            write_member(archive, name, array.dtype, array.shape, [array])


def write_member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], pieces: Iterable[np.ndarray]
) -> None:
    """One array of an .npz that is being written, in pieces along its first dimension."""
    large = dtype.itemsize * math.prod(shape) >= _ZIP64_FROM
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=large) as member:
        member.write(_header(dtype.str, shape))
        for piece in pieces:
            member.write(np.ascontiguousarray(piece, dtype).tobytes())


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as an uncompressed .npz in memory."""
    buffer = io.BytesIO()
    write_npz(buffer, arrays)
    return buffer.getvalue()


def read_npz(content: bytes, largest: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz in memory, which together take `largest` bytes at most. Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(info.file_size for info in packed.infolist()) > largest:
                raise ValueError("it unpacks to more than a sample can be")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # Python's own parser reads the header, and has many words for nonsense
        raise ValueError(str(error) or type(error).__name__) from error


@lru_cache(maxsize=256)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def chunk_rows(member: Member, wanted: int) -> int:
    """How many rows to take at a time: `wanted`, or fewer so that they stay below 16 MiB."""
    return max(1, min(wanted, _MAX_CHUNK_BYTES // max(1, member.row_bytes)))


def _member(path: str, file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.filename[: -len(".npy")]
    if info.flag_bits & 1:
        raise InputError("the member is encrypted", file=path, field=name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError("the member is compressed in another way than NumPy's", file=path, field=name)
    ends = info.header_offset + _LOCAL_HEADER.size + info.compress_size
    most = info.compress_size * (_MAX_DEFLATE_RATIO if info.compress_type else 1)
    if ends > size_of(file) or info.file_size > most + _MAX_DEFLATE_RATIO:
        raise InputError(f"the archive promises {info.file_size} bytes that it cannot hold", file=path, field=name)
    try:
        with archive.open(info) as packed:
            start = packed.read(_MAX_HEADER_BYTES)  # a header may claim to be 4 GB long
    except ZIP_DAMAGE as error:  # with the numbers that come after the header
        raise InputError(f"cannot be read ({error})", file=path, field=name) from error
    try:
        length = 10 + int.from_bytes(start[8:10], "little")
        shape, fortran_order, dtype, header = _parsed_header(start[:length] if start[6:7] == b"\1" else start)
    except Exception as error:  # Python's own parser reads the header, and has many words for nonsense
        raise InputError("the member is not an array in .npy form", file=path, field=name) from error
    size = dtype.itemsize * math.prod(shape)
    if not dtype.hasobject and (min(shape, default=0) < 0 or header + size > info.file_size):
        held = info.file_size - header
        raise InputError(f"the header promises {size} bytes, the member has {held}", file=path, field=name)
    if info.compress_type != zipfile.ZIP_STORED:
        return Member(name, dtype, shape, fortran_order, True, header, info.file_size)
    try:
        offset = data_offset(file, info) + header
    except zipfile.BadZipFile as error:
        raise InputError(str(error), file=path, field=name) from error
    return Member(name, dtype, shape, fortran_order, False, offset, info.file_size)


@lru_cache(maxsize=1024)
def _parsed_header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, type and bytes of a .npy header. The thousands of files of a motion library have a few of them."""
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    return *reader(stream), stream.tell()


def data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin in the file. Raises BadZipFile."""
    file.seek(info.header_offset)
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("the archive's directory points to no member")
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length


@contextmanager
def _array_bytes(path: str, member: Member) -> Iterator[_Cursor | _Ranges]:
    """The array's bytes as a cursor whose position 0 is the array's first byte."""
    where = place(path)
    try:
        if isinstance(where, UrlPath) and not member.compressed:
            yield _Ranges(where, member.offset)
            return
        with where.open("rb") as file:
            if not member.compressed:
                yield _Cursor(file, member.offset, seekable=True)
                return
            with zipfile.ZipFile(file) as archive, archive.open(member.name + ".npy") as stream:
                _skip(stream, member.offset)
                yield _Cursor(stream, 0, seekable=False)
    except InputError:
        raise
    except (OSError, *ZIP_DAMAGE) as error:
        raise InputError(f"cannot be read ({error})", file=path, field=member.name) from error


@dataclass(frozen=True)
class _Ranges:
    """Reads over a URL, where opening a file for each member would take longer than reading it."""

    path: UrlPath
    base: int

    def read(self, position: int, size: int) -> bytes:
        return self.path.read_range(self.base + position, size)


class _Cursor:
    """Reads at positions that do not decrease."""

    def __init__(self, stream: BinaryIO, base: int, seekable: bool) -> None:
        self.stream, self.base, self.seekable, self.position = stream, base, seekable, 0

    def read(self, position: int, size: int) -> bytes:
        if self.seekable:
            self.stream.seek(self.base + position, os.SEEK_SET)
        else:
            _skip(self.stream, position - self.position)
        data = self.stream.read(size)
        self.position = position + len(data)
        return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        piece = len(stream.read(min(size, _PIECE)))
        if not piece:
            raise EOFError("the member ends early")
        size -= piece


def _read_rows(path: str, cursor: _Cursor | _Ranges, member: Member, start: int, stop: int) -> np.ndarray:
    shape = (stop - start, *member.shape[1:])
    if member.fortran_order and len(member.shape) > 1:
        # Fortran order keeps each column of a row's values together: one strip of rows per column.
        columns = math.prod(member.shape[1:])
        item, rows = member.dtype.itemsize, member.shape[0]
        strips = [cursor.read((c * rows + start) * item, (stop - start) * item) for c in range(columns)]
        flat = _array(path, member, b"".join(strips), columns * (stop - start))
        return np.ascontiguousarray(flat.reshape(shape[:0:-1] + shape[:1]).T)
    data = cursor.read(start * member.row_bytes, (stop - start) * member.row_bytes)
    return _array(path, member, data, math.prod(shape)).reshape(shape)


def _array(path: str, member: Member, data: bytes, count: int) -> np.ndarray:
    if len(data) != count * member.dtype.itemsize:
        raise InputError("the file ends within the array", file=path, field=member.name)
    return np.frombuffer(data, dtype=member.dtype) if data else np.zeros(count, member.dtype)
