"""An .npz file as a whole: its checksums, what it unpacks to, all of its arrays."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

import numpy as np

from pipelines.files.npz import ZIP_DAMAGE, Member, data_offset, npz_members, read_all, refuse_objects
from pipelines.files.storage import place
from schemas import InputError

_PIECE = 1 << 20
WHOLE_RATIO, WHOLE_BYTES = 100, 1 << 26
"""What is read at once may unpack to so many times the file, or to so much."""


def check_whole(path: str, members: Iterable[Member]) -> None:
    """Before members are read as a whole: `check_unpacked`, and the checksums of the archive."""
    members = list(members)
    check_unpacked(path, members)
    checked_sha256(path, members)


def check_unpacked(path: str, members: Iterable[Member]) -> None:
    """Raises InputError if members, read as a whole, would take much more memory than the file has bytes."""
    try:
        most = max(WHOLE_BYTES, WHOLE_RATIO * place(path).stat().st_size)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    size = sum(member.unpacked for member in members)
    if size > most:
        raise InputError(f"unpacks to {size} bytes", file=path, expected=f"at most {WHOLE_RATIO} times its size")


def read_whole(path: str) -> dict[str, np.ndarray]:
    """All arrays of a file that fits into memory. Raises InputError for damage, and for arrays of Python objects."""
    members = npz_members(path)
    for name, member in members.items():
        refuse_objects(path, member, name)
    check_whole(path, members.values())
    return {name: read_all(path, member) for name, member in members.items()}


def checked_sha256(
    path: str, members: Iterable[Member], watch: Mapping[str, Callable[[memoryview], object]] | None = None
) -> str:
    """sha256 of the file; the same pass holds members to the checksums of the archive.

    Rows are later read by range, where damage would pass for numbers. `watch` is given, member by name, the bytes of
    the array in pieces. Raises InputError for a member whose bytes are not those that were written.
    """
    digest, wanted = hashlib.sha256(), {member.name + ".npy": member for member in members}
    try:
        with place(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if info.filename in wanted]
            sums = [_Sum(file, info, wanted[info.filename], watch or {}) for info in infos]
            position = file.seek(0)
            while piece := file.read(_PIECE):
                digest.update(piece)
                for found in sums:
                    found.update(piece, position)
                position += len(piece)
    except (OSError, *ZIP_DAMAGE) as error:
        raise InputError(f"cannot be read ({error})", file=path) from error
    for found in sums:
        if found.problem():
            raise InputError(f"cannot be read ({found.problem()})", file=path, field=found.name)
    return digest.hexdigest()


class _Sum:
    """The checksum of one member, from the pieces of a file that is read from its beginning."""

    def __init__(
        self, file: BinaryIO, info: zipfile.ZipInfo, member: Member, watch: Mapping[str, Callable[[memoryview], object]]
    ) -> None:
        self.name = member.name
        self._start = data_offset(file, info)
        self._watch, self._header = watch.get(member.name), member.offset - (not member.compressed) * self._start
        self._stop = self._start + info.compress_size
        self._size, self._wanted = info.file_size, info.CRC
        self._inflate = None if info.compress_type == zipfile.ZIP_STORED else zlib.decompressobj(-zlib.MAX_WBITS)
        self._crc = self._found = 0
        self._damage = ""

    def update(self, piece: bytes, position: int) -> None:
        """`piece` are the file's bytes from `position` on."""
        data = memoryview(piece)[max(0, self._start - position) : max(0, self._stop - position)]
        try:
            while data and self._found <= self._size:
                plain = data if self._inflate is None else self._inflate.decompress(data, _PIECE)
                if self._watch is not None:
                    self._watch(memoryview(plain)[max(0, self._header - self._found) :])
                self._crc, self._found = zlib.crc32(plain, self._crc), self._found + len(plain)
                data = b"" if self._inflate is None else self._inflate.unconsumed_tail
        except zlib.error as error:
            self._damage, self._stop = str(error), 0

    def problem(self) -> str:
        if self._damage:
            return self._damage
        if self._found != self._size:
            return f"{self._size} bytes are promised, {self._found} are there"
        return "" if self._crc == self._wanted else "its checksum does not hold"
