"""What the pages of a Parquet file unpack to, by their own headers: Arrow makes room for what these say.

A page of 64 kB may say, and hold, that it unpacks to 2 GB, whatever the metadata say of it. Footer and page headers are
structs of Thrift's compact protocol; the few fields that lead to the sizes are read here, and nothing of the file is
trusted. pyarrow tells no page headers, and of damaged files not safely where pages begin.

Fields are taken as Arrow's reader takes them: the last one of the right kind counts. It does not look at what kind the
elements of a list are said to have, so lists that say another than the format has are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
"""Kinds of fields in the compact protocol; 0 ends a struct."""

_Reader = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, place) -> the value that begins there, and where it ends."""

_DEEPEST = 16
"""Structs and lists within one another."""
_HEADERS = (1 << 8, 1 << 16)
"""Bytes that are read for a page's header: as much as it usually has, and as much as it may have."""
_FOOTERS_END = 1 << 16
_MAGIC = b"PAR1"


def unpacked_bytes(file: BinaryIO, columns: Collection[str] | None = None) -> int:
    """Bytes that the pages of these columns of a table unpack to, all by default.

    Raises ValueError for a file whose pages do not lie as its footer says.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        groups = _struct(_FOOTER)(_footer(file, size), 0)[0][4]
        chunks = [chunk[3] for group in groups for chunk in group[1]]
        wanted = [facts for facts in chunks if columns is None or facts[3][0].decode() in columns]
        return sum(sum(_pages(file, *_extent(facts, size))) for facts in wanted)
    except (IndexError, KeyError) as error:
        raise ValueError("a footer or a page's header that breaks off") from error


def _footer(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - _FOOTERS_END))
    end = file.read(_FOOTERS_END)
    length = int.from_bytes(end[-8:-4], "little")
    if end[-4:] != _MAGIC or length > size - 8:
        raise ValueError("no footer")
    if length + 8 > len(end):
        file.seek(size - 8 - length)
        end = file.read(length + 8)
    return end[-8 - length : -8]


def _extent(facts: Mapping[int, Any], size: int) -> tuple[int, int]:
    """Where the pages of a column of a row group begin and end; a dictionary, if it has one, comes first."""
    if facts[5] <= 0:  # no page is read then, and places mean nothing
        return 0, 0
    data, dictionary = facts[9], facts.get(11, 0)
    start = dictionary if 0 < dictionary < data else data
    stop = start + facts[7]
    if not 0 < start <= stop <= size:
        raise ValueError("pages outside the file")
    return start, stop


def _pages(file: BinaryIO, at: int, stop: int) -> Iterator[int]:
    """Bytes that each page in [at, stop) unpacks to."""
    while at < stop:
        for most in _HEADERS:
            file.seek(at)
            data = file.read(most)
            try:
                header, length = _struct(_PAGE)(data, 0)
                break
            except IndexError:
                if most == _HEADERS[-1] or len(data) < most:
                    raise
        if header[2] < 0 or header[3] < 0:
            raise ValueError("a page of less than nothing")
        yield header[2]
        at += length + header[3]


def _struct(fields: Mapping[int, tuple[int, _Reader]]) -> _Reader:
    """A reader of structs: number of a field -> value, of those `fields` (number -> kind, reader) that are there."""

    def read(data: bytes, at: int) -> tuple[dict[int, Any], int]:
        found, number = {}, 0
        while kind := (head := data[at]) & 15:
            at += 1
            if head > 15:
                number += head >> 4
            else:
                number, at = _i16(data, at)
            wanted = fields.get(number)
            if wanted is not None and wanted[0] == kind:
                found[number], at = wanted[1](data, at)
            else:
                at = _after(data, at, kind)
        return found, at + 1

    return read


def _list(kind: int, element: _Reader) -> _Reader:
    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        if data[at] & 15 != kind:
            raise ValueError("a list of another kind")
        count, at = _count(data, at)
        found = []
        for _ in range(count):
            value, at = element(data, at)
            found.append(value)
        return found, at

    return read


def _signed(bits: int) -> _Reader:
    """Numbers of which Arrow takes so many bits."""

    def read(data: bytes, at: int) -> tuple[int, int]:
        value, at = _number(data, at)
        value &= (1 << bits) - 1
        return (value >> 1) ^ -(value & 1), at

    return read


def _binary(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _number(data, at)
    return data[at : at + length], at + length


def _passed(kind: int) -> _Reader:
    return lambda data, at: (None, _after(data, at, kind))


def _after(data: bytes, at: int, kind: int, depth: int = 0) -> int:
    """Where a value ends. Lists within what is passed over have numbers in the format, so others are refused."""
    if kind in (_I16, _I32, _I64):
        while data[at] > 127:
            at += 1
        return at + 1
    if kind == _BINARY:
        length, at = _number(data, at)
        return at + length
    if kind == _STRUCT and depth < _DEEPEST:
        while inner := (head := data[at]) & 15:
            at += 1
            if head < 16:
                at = _number(data, at)[1]
            if inner > _FALSE:
                at = _after(data, at, inner, depth + 1)
        return at + 1
    if kind == _LIST and (inner := data[at] & 15) in (_I16, _I32, _I64):
        count, at = _count(data, at)
        for _ in range(count):
            at = _after(data, at, inner)
        return at
    if kind not in (_TRUE, _FALSE, _BYTE, _DOUBLE):
        raise ValueError("a field of another kind")
    return at + {_BYTE: 1, _DOUBLE: 8}.get(kind, 0)


def _count(data: bytes, at: int) -> tuple[int, int]:
    """How many elements a list has, and where they begin."""
    count = data[at] >> 4
    return (count, at + 1) if count < 15 else _number(data, at + 1)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without end")


_i16, _i32, _i64 = map(_signed, (16, 32, 64))
_structs = (_LIST, _list(_STRUCT, _passed(_STRUCT)))

# Of parquet.thrift: the fields that are read, and all that are lists.
_PAGE = {2: (_I32, _i32), 3: (_I32, _i32)}
"""PageHeader: uncompressed_page_size, compressed_page_size."""
_META = {
    2: (_LIST, _list(_I32, _passed(_I32))),
    3: (_LIST, _list(_BINARY, _binary)),
    5: (_I64, _i64),
    7: (_I64, _i64),
    8: _structs,
    9: (_I64, _i64),
    11: (_I64, _i64),
    13: _structs,
}
"""ColumnMetaData: path_in_schema, num_values, total_compressed_size; data_page_offset (9), dictionary_page_offset."""
_GROUP = {1: (_LIST, _list(_STRUCT, _struct({3: (_STRUCT, _struct(_META))}))), 4: _structs}
"""RowGroup: columns (1), each a ColumnChunk with its meta_data (3)."""
_FOOTER = {2: _structs, 4: (_LIST, _list(_STRUCT, _struct(_GROUP))), 5: _structs, 7: _structs}
"""FileMetaData: row_groups (4)."""
