"""Where the members of a tar lie, found from the headers alone: data is skipped by seeking.

Only regular files without holes are listed. Python's tarfile takes a damaged header in mid-archive for the end; here
damage is reported with its offset, and what lies before it stays usable.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from pipelines.files.storage import place, size_of
from pipelines.files.urls import is_url

_BLOCK = 512
_END = bytes(_BLOCK)
_LONGEST_NAME = 1 << 16
_SPARSE = "GNU.sparse"
"""Beginning of what an extended header says of a file with holes, whose bytes are not the file's."""
_READ_AHEAD = 1 << 22
"""Over a URL: reading what lies between two headers costs less than asking once more."""


class TarMember(NamedTuple):
    """A regular file in a tar: its bytes are [offset, offset + size) of the tar."""

    name: str
    offset: int
    size: int


@dataclass
class TarDamage:
    """What kept a tar from being read to its end: `problem`, found at byte `offset`."""

    offset: int
    problem: str


@dataclass
class TarScan:
    """One pass over a tar; `damage` and `links` are known after it."""

    path: str
    damage: TarDamage | None = None
    links: int = 0
    _file: BinaryIO | None = field(default=None, init=False, repr=False)

    def __iter__(self) -> Iterator[TarMember]:
        """Regular members in the order of the file. Raises OSError if the file cannot be opened."""
        with place(self.path).open("rb", buffering=_READ_AHEAD if is_url(self.path) else 0) as file:
            self._file = file
            try:
                yield from self._members(file, size_of(file))
            except _Damaged as error:
                self.damage = TarDamage(*error.args)

    def read(self, member: TarMember) -> bytes:
        """Content of the member that the pass has come to; fewer bytes if the file was cut meanwhile."""
        return _read_at(self._file, member.offset, member.size)

    def _members(self, file: BinaryIO, end: int) -> Iterator[TarMember]:
        position = 0
        overrides: dict[str, str] = {}
        shared: dict[str, str] = {}
        while True:
            header = _read_at(file, position, _BLOCK)
            if not header:
                raise _Damaged(position, "the file ends without the end mark of an archive; it may have been cut")
            if len(header) < _BLOCK:
                raise _Damaged(position, "the file ends within a header")
            if header == _END:
                return
            if not _checksum_holds(header):
                raise _Damaged(position, "not a tar header")
            kind = header[156:157]
            size = _number(header[124:136], position)
            if "size" in overrides and kind not in (b"L", b"K", b"x", b"g"):
                size = _decimal(overrides["size"], position)
            data = position + _BLOCK
            if data + size > end:
                raise _Damaged(position, f"the file ends within a member of {size} bytes")
            position = data + -(-size // _BLOCK) * _BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                if size > _LONGEST_NAME:
                    raise _Damaged(data, f"an extended header of {size} bytes")
                content = _read_at(file, data, size)
                if kind == b"L":
                    overrides["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif kind == b"x":
                    overrides.update(_pax_records(content, data))
                elif kind == b"g":
                    shared.update(_pax_records(content, data))
                continue
            name = overrides.get("path", shared.get("path")) or _header_name(header)
            sparse = _SPARSE in overrides or _SPARSE in shared
            overrides = {}
            if kind in (b"1", b"2"):
                self.links += 1
            elif kind in (b"0", b"\0", b"7") and not sparse and not name.endswith("/"):
                yield TarMember(name, data, size)


class _Damaged(Exception):
    """(offset, problem)"""


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _checksum_holds(header: bytes) -> bool:
    digits = header[148:156]
    try:
        stored = int(digits.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return False
    # The low half of Adler-32 is 1 + the sum of the bytes modulo 65521, in a tenth of the time that `sum` takes.
    return zlib.adler32(header) & 0xFFFF == (1 + stored + sum(digits) - 8 * 32) % 65521


def _number(digits: bytes, position: int) -> int:
    """A size: octal digits, or binary with the top bit set for sizes beyond 8 GiB."""
    if digits[0] & 0x80:
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    octal = digits.partition(b"\0")[0].strip() or b"0"
    if octal.strip(b"01234567"):  # a sign would lead back, and the scan in a circle
        raise _Damaged(position, "a header without a readable size")
    return int(octal, 8)


def _decimal(text: str, position: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _Damaged(position, "an extended header without a readable size")
    return int(text)


def _header_name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape")


def _pax_records(content: bytes, position: int) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\n` records; those that tell name, size and holes."""
    records, start = {}, 0
    while start < len(content) and content[start : start + 1] != b"\0":
        digits = content[start : start + 20].split(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[start + len(digits) + 1 : start + length]
        key, mark, value = record.partition(b"=")
        if length <= len(digits) + 1 or not mark or not value.endswith(b"\n"):
            raise _Damaged(position, "an extended header that cannot be read")
        if key in (b"path", b"size"):
            records[key.decode()] = value[:-1].decode("utf-8", "surrogateescape")
        elif key.startswith(_SPARSE.encode()):
            records[_SPARSE] = ""
        start += length
    return records
