"""Checks of JSON documents (statistics, manifest) against their schema, down to the values inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import pyarrow as pa

from schemas.errors import InputError
from schemas.run import COUNTED_WORDS, SHARD_STATS


def document_problems(schema: pa.Schema, document: Mapping[str, Any], whole: bool = True) -> Iterator[tuple[str, str]]:
    """Fields that a document has in another type than its schema says, or (if `whole`) lacks: name, what is wrong."""
    for field in schema:
        if field.name not in document:
            if whole and not field.nullable:
                yield field.name, f"the field {field.name!r} is missing"
            continue
        value, meaning = document[field.name], field.metadata[b"doc"].decode()
        kind: type = int if pa.types.is_integer(field.type) else str
        if meaning.startswith("JSON"):
            kind = list if meaning.startswith("JSON list") else dict
        if not isinstance(value, kind) or isinstance(value, bool):
            yield field.name, f"the field {field.name!r} holds {type(value).__name__}, expected {kind.__name__}"
        elif field.name in _INSIDE:
            fits, expected = _INSIDE[field.name]
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            bad = next((key for key, inner in pairs if not fits(key, inner)), None)
            if bad is not None:
                yield field.name, f"the field {field.name!r} holds no {expected} for {str(bad)[:40]!r}"


def check_document(schema: pa.Schema, document: Mapping[str, Any], file: str | PathLike[str]) -> None:
    """Raises InputError for the first field of another type; those that are absent are none of its business."""
    for name, problem in document_problems(schema, document, whole=False):
        raise InputError(problem, file=file, field=name)


def _is_count(_key: Any, value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(_key: Any, value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 63)


def _is_distance(_key: Any, value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(_is_number("", number) for number in value.values()))


def _is_range(_key: Any, value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number("", number) for number in value)


def _is_text(_key: Any, value: Any) -> bool:
    return isinstance(value, str)


def _is_record(_key: Any, value: Any) -> bool:
    return isinstance(value, dict) and not any(document_problems(SHARD_STATS, value, whole=False))


def _is_option(key: Any, value: Any) -> bool:
    """The options that readers of a manifest go by; others may hold anything."""
    if key in ("body_models", "gender", "rows", "limits"):
        return isinstance(value, str)
    if key == "every":
        return _is_count(key, value)
    return key != "subset" or value is None or (isinstance(value, list) and all(map(_is_text, value, value)))


_INSIDE: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    **dict.fromkeys((*COUNTED_WORDS, "rejects"), (_is_count, "count")),
    **dict.fromkeys(("versions", "inputs"), (_is_text, "text")),
    "stage_errors": (_is_number, "number"),
    "errors": (_is_distance, "object of numbers"),
    "joint_limits": (_is_range, "pair of numbers"),
    "shards": (_is_record, "statistics of a shard"),
    "rejected_rows": (lambda _, value: isinstance(value, dict), "object"),
    "options": (_is_option, "such value as the job writes"),
}
"""What is inside nested fields: whether (key, value) fits, and what it is called."""
