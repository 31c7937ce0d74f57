"""Parquet files, read within bounds: what values take and pages unpack to is known before they are read.

A column of one value repeated takes a few bytes, whatever its length. So columns may take 100 times the file's size, or
64 MiB, and no more; text is read by dictionary where it might take more, and counted before it is spelled out.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.files.npz_whole import WHOLE_BYTES, WHOLE_RATIO
from pipelines.files.parquet_pages import unpacked_bytes
from pipelines.files.storage import readable
from pipelines.files.urls import UrlPath

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError, MemoryError)
_POINTER = 8


@contextmanager
def parquet_problems(file: Path | UrlPath) -> Iterator[None]:
    """What pyarrow says of a file that is no Parquet, or is damaged, as an InputError that names it."""
    import pyarrow as pa

    from schemas import InputError

    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, *_DAMAGE) as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot be read: {text}", file=file, expected="a whole Parquet file of this project"
        ) from error


def read_table(
    file: Path | UrlPath,
    columns: Sequence[str] | None = None,
    dictionaries: Sequence[str] = (),
    content: bytes | None = None,
) -> pa.Table:
    """Those of the columns that the file has, all by default, of the file or of its `content`; `dictionaries` are texts
    that come by dictionary.

    Raises InputError for a file that is damaged or would take much more memory than it has bytes.
    """
    import pyarrow.parquet as pq

    with parquet_problems(file):
        source = readable(file) if content is None else io.BytesIO(content)
        size = file.stat().st_size if content is None else len(content)
        local = content is None and isinstance(file, Path)
        with pq.ParquetFile(source, pre_buffer=False, memory_map=local, read_dictionary=list(dictionaries)) as stored:
            long_texts = _check_size(stored, columns, dictionaries, file, size)
            with file.open("rb") if content is None else io.BytesIO(content) as pages:
                _check_most(unpacked_bytes(pages, columns), file, size)
            if not long_texts:
                return _sound(stored.read(columns=columns and list(columns), use_threads=False))
        source = readable(file) if content is None else io.BytesIO(content)
        with pq.ParquetFile(source, pre_buffer=False, read_dictionary=[*dictionaries, *long_texts]) as stored:
            table = _sound(stored.read(columns=columns and list(columns), use_threads=False))
        return _spelled_out(table, long_texts, file, size)


def row_count(file: Path | UrlPath) -> int:
    """Rows of a file. Raises InputError."""
    import pyarrow.parquet as pq

    with parquet_problems(file):
        return pq.read_metadata(readable(file)).num_rows


def read_schema(file: Path | UrlPath, content: bytes | None = None) -> pa.Schema:
    """The schema of a file, or of its `content`. Raises InputError."""
    import pyarrow.parquet as pq

    with parquet_problems(file):
        return pq.read_schema(readable(file) if content is None else io.BytesIO(content))


def _check_size(
    stored: pq.ParquetFile,
    columns: Sequence[str] | None,
    dictionaries: Collection[str],
    file: Path | UrlPath,
    size: int,
) -> list[str]:
    """The texts that might take more than is allowed once they are spelled out. Raises InputError if numbers do."""
    import pyarrow.types as types

    facts, schema = stored.metadata, stored.schema_arrow
    names = [name for name in schema.names if columns is None or name in columns]
    texts = {name for name in names if types.is_string(schema.field(name).type) or name in dictionaries}
    most = _check_most(facts.num_rows * sum(_width(schema.field(name).type) for name in names), file, size)
    longest = 0
    for number in range(facts.num_row_groups):
        # Of a damaged file's single columns pyarrow throws what ends the interpreter, so the group must do.
        group = facts.row_group(number)
        longest += max(group.total_byte_size, 0) * max(group.num_rows, 0)
    return [name for name in texts if longest > most and name not in dictionaries]


def _width(kind: pa.DataType) -> int:
    """Bytes of a value in memory; of a text those of the place that tells where it is."""
    import pyarrow.types as types

    if types.is_fixed_size_list(kind):
        return kind.list_size * _width(kind.value_type)
    if types.is_boolean(kind):
        return 1
    try:
        return kind.bit_width // 8
    except ValueError:
        return _POINTER


def _sound(table: pa.Table) -> pa.Table:
    """The table, if its texts are UTF-8 and its indices lead to something: Arrow looks at neither when it reads."""
    table.validate(full=True)
    return table


def _spelled_out(table: pa.Table, names: Sequence[str], file: Path | UrlPath, size: int) -> pa.Table:
    """The table with texts in place of dictionaries, if they are not too long together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in names:
        column = table[name]
        length = 0
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary)
            length += pc.sum(pc.cast(lengths.take(chunk.indices), pa.int64())).as_py() or 0
        _check_most(length, file, size, name)
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(name).with_type(pa.string()), column.cast(pa.string()))
    return table


def _check_most(unpacked: int, file: Path | UrlPath, size: int, name: str | None = None) -> int:
    """The most bytes that may come of a file of this size. Raises InputError for more."""
    from schemas import InputError

    most = max(WHOLE_BYTES, WHOLE_RATIO * size)
    if unpacked > most:
        problem = f"unpacks to {unpacked} bytes"
        raise InputError(problem, file=file, field=name, expected=f"at most {WHOLE_RATIO} times the file's size")
    return most
