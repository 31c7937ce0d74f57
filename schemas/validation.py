"""Checks of records against their schema. Every complaint names file, row and field."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np
import pyarrow as pa

from schemas.errors import InputError
from schemas.fields import field_dtype, field_shape, record_name, record_version


def check_columns(
    schema: pa.Schema, columns: Mapping[str, np.ndarray], file: str | PathLike[str], *, finite: bool = True
) -> None:
    """Names, shapes, types and (if `finite`) values of columns; raises InputError at the first thing that is wrong."""
    counts = {name: len(values) for name, values in columns.items() if name in schema.names}
    rows = max(counts.values(), default=0)
    for field in schema:
        if field.name not in columns:
            if not field.nullable:
                raise InputError("the field is missing", file=file, field=field.name, expected=describe(field))
            continue
        values = np.asarray(columns[field.name])
        if len(values) != rows:
            raise InputError(f"{len(values)} rows where others have {rows}", file=file, field=field.name)
        if values.shape[1:] != field_shape(field):
            raise InputError(f"rows of shape {values.shape[1:]}", file=file, field=field.name, expected=describe(field))
        wanted = field_dtype(field)
        if not _castable(values.dtype, wanted):
            raise InputError(f"values of type {values.dtype}", file=file, field=field.name, expected=describe(field))
        if finite and wanted.kind == "f":
            bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            if len(bad):
                raise InputError("not a finite number", file=file, row=bad[0], field=field.name)


def check_schema(found: pa.Schema, expected: pa.Schema, file: str | PathLike[str]) -> None:
    """A stored table's schema against the one this version writes; float widths may differ."""
    facts = found.metadata or {}
    name, version = (facts.get(key, b"?").decode("utf-8", "replace") for key in (b"record", b"version"))
    if name != record_name(expected):
        raise InputError(f"holds records of kind {name!r}", file=file, expected=repr(record_name(expected)))
    if version.split(".")[0] != record_version(expected).split(".")[0]:
        raise InputError(f"{name} version {version}", file=file, expected=f"version {record_version(expected)}")
    for field in expected:
        if field.name not in found.names:
            if field.nullable:
                continue
            raise InputError("the column is missing", file=file, field=field.name, expected=describe(field))
        stored = found.field(field.name)
        for fact in (b"shape", b"form"):
            if (stored.metadata or {}).get(fact) != field.metadata[fact]:
                problem = f"the column's metadata lack its {fact.decode()}, or say another"
                raise InputError(problem, file=file, field=field.name, expected=describe(field))
        same_kind = field_dtype(stored).kind == field_dtype(field).kind
        if not same_kind or pa.types.is_fixed_size_list(stored.type) != pa.types.is_fixed_size_list(field.type):
            raise InputError(f"column of type {stored.type}", file=file, field=field.name, expected=describe(field))
        if pa.types.is_fixed_size_list(stored.type) and stored.type.list_size != field.type.list_size:
            raise InputError(f"{stored.type.list_size} values", file=file, field=field.name, expected=describe(field))


def describe(field: pa.Field) -> str:
    """The field in words: `float32 (46,), rad`."""
    dtype, shape = field_dtype(field), field_shape(field)
    kind = "text" if dtype.kind == "O" else str(dtype)
    unit = field.metadata[b"unit"].decode()
    return f"{kind}{f' {shape}' if shape else ''}{f', {unit}' if unit else ''}"


def _castable(found: np.dtype, wanted: np.dtype) -> bool:
    if wanted.kind == "O":
        return found.kind in "UOS"
    if wanted.kind == "f":
        return found.kind in "fiu"
    if wanted.kind == "b":
        return found.kind == "b"
    return found.kind in "iu"
