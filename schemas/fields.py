"""One declaration per field, from which the Arrow schema and the npz, JSON and Parquet forms of a record follow.

A record travels in column form: a dict of numpy arrays whose first dimension is the row. An Arrow field stores an
array of shape (a, b) as a fixed-size list of a*b values, and keeps shape, unit, frame and meaning as metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

Columns = dict[str, np.ndarray]

_ARROW_TYPES = {
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "str": pa.string(),
}
_NUMPY_TYPES = {arrow: name for name, arrow in _ARROW_TYPES.items()}


@dataclass(frozen=True)
class Field:
    """One named quantity of a record.

    `frame` is the coordinate frame ("camera", "image", "crop", "model"), `form` the part of a shard's sample that
    holds the field ("npz" for arrays, "json" for identity and scalars), `wide` keeps a float at 32 bits when narrower
    ones are asked for.
    """

    name: str
    dtype: str
    doc: str
    shape: tuple[int, ...] = ()
    unit: str = ""
    frame: str = ""
    form: str = "json"
    optional: bool = False
    wide: bool = False

    def to_arrow(self) -> pa.Field:
        """The Arrow field, with everything but the value type as metadata."""
        value = _ARROW_TYPES[self.dtype]
        kind = pa.list_(value, math.prod(self.shape)) if self.shape else value
        facts = {"doc": self.doc, "unit": self.unit, "frame": self.frame, "form": self.form}
        facts["shape"] = json.dumps(self.shape)
        if self.wide:
            facts["wide"] = "true"
        return pa.field(self.name, kind, nullable=self.optional, metadata=facts)


def arrow_schema(name: str, version: str, fields: list[Field], **facts: object) -> pa.Schema:
    """An Arrow schema whose metadata holds the record's name and version, and `facts` as JSON."""
    metadata = {"record": name, "version": version} | {key: json.dumps(value) for key, value in facts.items()}
    return pa.schema([f.to_arrow() for f in fields], metadata=metadata)


def record_name(schema: pa.Schema) -> str:
    return schema.metadata[b"record"].decode()


def record_version(schema: pa.Schema) -> str:
    return schema.metadata[b"version"].decode()


def field_shape(field: pa.Field) -> tuple[int, ...]:
    """Shape of one row's value; () for scalars."""
    return tuple(json.loads(field.metadata[b"shape"]))


def field_dtype(field: pa.Field) -> np.dtype:
    """numpy type of the field's values (object for strings)."""
    value = field.type.value_type if pa.types.is_fixed_size_list(field.type) else field.type
    return np.dtype(object) if pa.types.is_string(value) else np.dtype(_NUMPY_TYPES[value])


def with_float_width(schema: pa.Schema, bits: int) -> pa.Schema:
    """The schema with its float fields stored in 16, 32 or 64 bits.

    At 16 bits, fields declared `wide` (positions, pixels, camera: half precision is centimetres there) stay at 32.
    """
    if bits not in (16, 32, 64):
        raise ValueError(f"float width is 16, 32 or 64 bits, not {bits}")
    fields = []
    for field in schema:
        if field_dtype(field).kind == "f":
            width = max(bits, 32) if b"wide" in field.metadata else bits
            value = _ARROW_TYPES[f"float{width}"]
            kind = pa.list_(value, field.type.list_size) if pa.types.is_fixed_size_list(field.type) else value
            field = field.with_type(kind)
        fields.append(field)
    return pa.schema(fields, metadata=schema.metadata)


def columns_to_table(schema: pa.Schema, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Columns as an Arrow table of exactly this schema; optional fields that are absent become nulls.

    Single nulls: None among strings, masked numbers of a masked array.
    """
    count = len(next(iter(columns.values())))
    arrays = []
    for field in schema:
        if field.name not in columns:
            if not field.nullable:
                raise KeyError(f"{record_name(schema)} record without the field {field.name!r}")
            arrays.append(pa.nulls(count, field.type))
            continue
        values = columns[field.name]
        if not isinstance(values, np.ma.MaskedArray):
            values = np.asarray(values)
        if pa.types.is_fixed_size_list(field.type):
            flat = np.ascontiguousarray(values, dtype=field_dtype(field)).reshape(-1)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), field.type.list_size))
        elif pa.types.is_string(field.type):
            arrays.append(pa.array([None if v is None else str(v) for v in values], field.type))
        else:
            arrays.append(pa.array(values.astype(field_dtype(field)), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def table_to_columns(table: pa.Table, names: list[str] | None = None) -> Columns:
    """The inverse of `columns_to_table`; columns of nulls only are left out, numbers with some nulls come masked."""
    columns: Columns = {}
    for field in table.schema if names is None else [table.schema.field(n) for n in names]:
        column = table.column(field.name).combine_chunks()
        if column.null_count and column.null_count == len(column):
            continue
        if pa.types.is_fixed_size_list(field.type):
            values = column.flatten().to_numpy(zero_copy_only=False)
            columns[field.name] = values.reshape(len(column), *field_shape(field))
        elif column.null_count and not pa.types.is_string(field.type):
            numbers = column.fill_null(False if pa.types.is_boolean(field.type) else 0)
            mask = column.is_null().to_numpy(zero_copy_only=False)
            columns[field.name] = np.ma.masked_array(numbers.to_numpy(zero_copy_only=False), mask)
        else:
            columns[field.name] = column.to_numpy(zero_copy_only=False)
    return columns


def samples(
    schema: pa.Schema, columns: Mapping[str, np.ndarray]
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Each row in the two forms a shard's sample has: (what its .json holds, what its .npz holds).

    The JSON part also names record and version, so that a lone sample says what it is.
    """
    identity = {"record": record_name(schema), "version": record_version(schema)}
    documents: dict[str, list] = {}
    arrays: dict[str, np.ndarray] = {}
    for field in schema:
        if field.name not in columns:
            continue
        values = np.asarray(columns[field.name])
        if field.metadata[b"form"] == b"npz":
            arrays[field.name] = values.astype(field_dtype(field)).reshape(len(values), *field_shape(field))
        else:
            documents[field.name] = values.tolist()
    for row in range(len(next(iter(columns.values())))):
        document = identity | {name: values[row] for name, values in documents.items()}
        yield document, {name: values[row] for name, values in arrays.items()}


def sample_parts(
    schema: pa.Schema, columns: Mapping[str, np.ndarray], row: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One row as `samples` has it."""
    return next(samples(schema, {name: values[row : row + 1] for name, values in columns.items()}))
