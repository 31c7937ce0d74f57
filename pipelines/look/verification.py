"""Does a shard hold what it says? Checksums, schemas, counts, and every sample against its row of labels."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.command.progress import progress_bar
from pipelines.files.jpeg import ImageError, decode_image
from pipelines.files.npz import read_npz
from pipelines.files.parquet import read_table
from pipelines.files.shards import (
    DATASET_FILE,
    IMAGE_ENDINGS,
    LARGEST_MEMBER,
    REJECTS_FILE,
    Shard,
    bases_in,
    read_document,
    rejects_of,
    tar_samples,
    whole_folder,
)
from pipelines.files.storage import file_sha256
from pipelines.files.urls import UrlPath

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

FAILURES_SHOWN = 10
"""A broken shard can fail a thousand times for one cause; more than this many per file are only counted."""


@dataclass(frozen=True)
class Verdict:
    """`failures`: (shard or file, what is wrong). `shards`, `samples`: how many were checked. `notes`: to be told."""

    shards: int
    samples: int
    failures: list[tuple[str, str]]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    def document(self) -> dict:
        failures = [{"where": where, "problem": problem} for where, problem in self.failures]
        counts = {"shards": self.shards, "samples": self.samples}
        return {"passed": self.passed, **counts, "failures": failures, "notes": list(self.notes)}

    def show(self, out: Console) -> None:
        from rich.table import Table

        checked = f"{self.shards:,} shards, {self.samples:,} samples"
        for note in self.notes:
            out.print(note, style="yellow", highlight=False, markup=False)
        if self.passed:
            out.print(f"verified: {checked}, nothing wrong", style="green", highlight=False)
            return
        table = Table("where", "what is wrong", title=f"{len(self.failures):,} failures in {checked}")
        shown: dict[str, int] = {}
        for where, problem in self.failures:
            shown[where] = shown.get(where, 0) + 1
            if shown[where] <= FAILURES_SHOWN:
                table.add_row(where, problem)
        for where, count in shown.items():
            if count > FAILURES_SHOWN:
                table.add_row(where, f"and {count - FAILURES_SHOWN:,} more")
        out.print(table, markup=False)


def verify(shards: Sequence[Shard], against: Sequence[str] = ()) -> Verdict:
    """Checks shards, and the manifest of a folder whose shards are all among them. Changes nothing.

    `against` are label files (paths, folders, globs): each of their rows that the data set was made from must be in
    one shard or among the rejects. Shards may be of several folders: parts of a data set.
    """
    failures: list[tuple[str, str]] = []
    samples = 0
    folders: dict[Path | UrlPath, list[Shard]] = {}
    for shard in progress_bar(shards, desc="verify", unit="shards", leave=False):
        folders.setdefault(shard.folder, []).append(shard)
        count, found = _check_shard(shard)
        samples += count
        failures += [(str(shard.base), problem) for problem in found]
    for folder, members in folders.items():
        if whole_folder(members):
            failures += [(str(folder / DATASET_FILE), problem) for problem in _check_manifest(folder, members)]
    notes: Sequence[str] = ()
    if against:
        from pipelines.look.account import account_of

        account = account_of(shards, against)
        failures, notes = failures + account.problems, account.notes
    return Verdict(len(shards), samples, failures, notes)


def _check_shard(shard: Shard) -> tuple[int, list[str]]:
    """How many rows of labels the shard has, and what is wrong with it."""
    import pyarrow as pa

    from schemas import (
        HMR_SKEL,
        SHARD_STATS,
        InputError,
        check_columns,
        check_schema,
        document_problems,
        table_to_columns,
    )

    failures = [f"{file.name} is missing" for file in (shard.tar, shard.stats) if not file.is_file()]
    stats: dict = {}
    if shard.stats.is_file():
        try:
            stats = read_document(shard.stats)
            problems = dict(document_problems(SHARD_STATS, stats))
            failures += [f"{shard.stats.name}: {problem}" for problem in problems.values()]
            stats = {name: value for name, value in stats.items() if name not in problems}
        except InputError as error:
            failures.append(str(error))
    for file, name in ((shard.tar, "tar_sha256"), (shard.parquet, "parquet_sha256")):
        if file.is_file() and name in stats and file_sha256(file) != stats[name]:
            failures.append(f"{file.name} has another checksum than {shard.stats.name} states")
    if shard.tar.is_file() and stats.get("tar_bytes", size := shard.tar.stat().st_size) != size:
        failures.append(f"{shard.tar.name} has {size} bytes, {shard.stats.name} states {stats['tar_bytes']}")
    try:
        table = read_table(shard.parquet)
        check_schema(table.schema, HMR_SKEL, shard.parquet.name)
        columns = table_to_columns(table)
        if table.num_rows:
            check_columns(HMR_SKEL, columns, shard.parquet.name)
    except (InputError, pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        return 0, [*failures, f"{shard.parquet.name} cannot be used: {error}"]
    failures += _count_problems(shard, stats, table.num_rows, columns)
    if shard.tar.is_file():
        try:
            failures += _sample_problems(shard, table.schema, columns)
        except InputError as error:
            failures.append(str(error))
    return table.num_rows, failures


def _count_problems(shard: Shard, stats: Mapping, rows: int, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    from schemas import COUNTED_WORDS

    labels = shard.parquet.name
    converged = int(np.sum(columns["converged"])) if rows else 0
    for words, column in COUNTED_WORDS.items():
        counted = Counter(columns[column].tolist()) if rows and column in columns else {}
        if stats.get(words, counted) != counted:
            yield f"{shard.stats.name} states {words.replace('_', ' ')} {stats[words]}, {labels} has {dict(counted)}"
    for name, found in (("samples", rows), ("converged", converged)):
        if stats.get(name, found) != found:
            yield f"{shard.stats.name} states {stats[name]} {name}, {labels} has {found}"
    if isinstance(stats.get("rejects"), dict) and "rows" in stats:
        rejected = sum(stats["rejects"].values())
        if stats["rows"] != rows + rejected:
            yield f"{stats['rows']} planned rows are not {rows} samples and {rejected} rejects"
    if stats.get("shard", shard.name) != shard.name:
        yield f"{shard.stats.name} is of shard {stats['shard']}"
    if rows and len(set(columns["key"])) != rows:
        yield f"{labels} has a key twice"
    for name, stated in stats.get("errors", {}).items() if rows else ():
        if name in columns and isinstance(stated, dict) and isinstance(stated.get("mean"), float | int):
            found = float(np.mean(columns[name], dtype=np.float64))
            if not math.isclose(found, stated["mean"], rel_tol=1e-2 if columns[name].dtype == np.float16 else 1e-4):
                yield f"{shard.stats.name} states a mean {name} of {stated['mean']}, {labels} has {found}"


def _sample_problems(shard: Shard, schema: pa.Schema, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Samples in the tar against rows of labels: same people in the same order, members present, decodable, equal."""
    from schemas import sample_parts

    row_of = {key: row for row, key in enumerate(columns.get("key", ()))}
    order: list[str] = []
    members: dict[str, bytes] = {}

    def finished() -> Iterator[str]:
        if order and order[-1] in row_of:
            row = row_of[order[-1]]
            for problem in _member_problems(members, schema, *sample_parts(schema, columns, row)):
                yield f"{shard.tar.name}: {order[-1]}{problem}"

    for key, ending, content in tar_samples(shard.tar):
        if not order or key != order[-1]:
            yield from finished()
            order.append(key)
            members.clear()
        if ending in members:
            yield f"{shard.tar.name}: {key}.{ending} is there twice"
        members[ending] = content
    yield from finished()
    if order != list(row_of):
        lost, foreign = row_of.keys() - set(order), set(order) - row_of.keys()
        yield f"{shard.tar.name} has {len(order)} samples, {shard.parquet.name} has {len(row_of)} rows" + (
            f"; not in the tar: {_some(lost)}" * bool(lost) + f"; not in the labels: {_some(foreign)}" * bool(foreign)
            if lost or foreign
            else ", or in another order"
        )


def _member_problems(
    members: Mapping[str, bytes], schema: pa.Schema, document: dict, arrays: dict[str, np.ndarray]
) -> Iterator[str]:
    """What is wrong with one sample's members, given the row as `sample_parts` has it."""
    if "json" not in members:
        yield ".json is missing"
    else:
        try:
            stored = {name: _narrowed(schema, name, value) for name, value in json.loads(members["json"]).items()}
            names = [name for name in {**document, **stored} if not _same(document.get(name), stored.get(name))]
            if names:
                yield f".json differs from the labels in {', '.join(names)}"
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            yield f".json cannot be decoded: {error}"
    if "npz" not in members:
        yield ".npz is missing"
    else:
        try:
            stored = read_npz(members["npz"], LARGEST_MEMBER)
            names = [name for name in {**arrays, **stored} if not _equal(arrays.get(name), stored.get(name))]
            if names:
                yield f".npz differs from the labels in {', '.join(names)}"
        except ValueError as error:
            yield f".npz cannot be decoded: {error}"
    size = tuple(document.get("crop_size", (0, 0)))
    images = [ending for ending in members if ending in IMAGE_ENDINGS]
    if len(images) != (1 if any(size) else 0):
        yield f" has {len(images)} images, its crop_size is {size[0]} x {size[1]}"
    for ending in images:
        try:
            pixels = decode_image(members[ending])
        except ImageError as error:
            yield f".{ending} cannot be decoded: {error}"
            continue
        if pixels.shape[1::-1] != size:
            yield f".{ending} is {pixels.shape[1]} x {pixels.shape[0]}, its crop_size is {size[0]} x {size[1]}"


def _check_manifest(folder: Path | UrlPath, shards: Sequence[Shard]) -> Iterator[str]:
    """The folder's manifest and list of rejects against its shards' statistics."""
    import pyarrow as pa

    from schemas import COUNTED_WORDS, DATASET, REJECTS, SHARD_STATS, InputError, check_schema, document_problems

    if not (folder / DATASET_FILE).is_file():
        yield "is missing: the run that wrote this folder has not finished"
        return
    try:
        manifest = read_document(folder / DATASET_FILE)
        stats = {shard.name: read_document(shard.stats) for shard in shards}
    except InputError as error:
        yield str(error)
        return
    problems = dict(document_problems(DATASET, manifest))
    yield from problems.values()
    if problems or any(next(document_problems(SHARD_STATS, document), None) for document in stats.values()):
        return
    listed = {entry.get("shard"): entry for entry in manifest["shards"] if isinstance(entry, dict)}
    if listed.keys() != stats.keys():
        lost, foreign = listed.keys() - stats.keys(), stats.keys() - listed.keys()
        yield f"shards that it lists but are absent: {_some(lost)}; that it does not list: {_some(foreign)}"
    unlisted = {base.name for base in bases_in(folder)} - listed.keys() - stats.keys()
    if unlisted:
        yield f"does not list shards that are there: {_some(unlisted)}"
    for name, entry in listed.items():
        differing = [key for key in entry if not _same(entry[key], stats.get(name, entry).get(key))]
        if differing:
            yield f"states other {', '.join(differing)} for shard {name} than {name}.json"
    for total in ("rows", "samples", "converged", "turned_images"):
        found = sum(entry.get(total, 0) for entry in stats.values())
        if manifest.get(total, found) != found:
            yield f"states {manifest[total]} {total}, its shards have {found}"
    rejects: dict[str, int] = {}
    for entry in stats.values():
        for reason, count in entry["rejects"].items():
            rejects[reason] = rejects.get(reason, 0) + count
    for words in COUNTED_WORDS:
        counted: Counter[str] = Counter()
        for entry in stats.values():
            counted.update(entry.get(words, {}))
        if manifest.get(words, counted) != counted:
            yield f"states {words.replace('_', ' ')} {manifest[words]}, its shards have {dict(counted)}"
    if manifest["rejects"] != rejects:
        yield f"states rejects {manifest['rejects']}, its shards have {rejects}"
    try:
        table = read_table(rejects_of(folder))
        check_schema(table.schema, REJECTS, REJECTS_FILE)
        counted = {entry["values"]: entry["counts"] for entry in table["reason"].value_counts().to_pylist()}
        if counted != rejects:
            yield f"{REJECTS_FILE} has {counted}, the shards' statistics {rejects}"
    except (InputError, pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        yield f"{REJECTS_FILE} cannot be used: {error}"


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None or a.dtype != b.dtype:
        return False
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _narrowed(schema: pa.Schema, name: str, value):
    """A number of a sample's JSON in the width that the labels have: JSON may keep more digits than half precision."""
    from schemas import field_dtype

    if schema.get_field_index(name) < 0 or field_dtype(schema.field(name)).kind != "f":
        return value
    return np.asarray(value, field_dtype(schema.field(name))).tolist()


def _same(a, b) -> bool:
    """Equality of JSON values in which NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def _some(names) -> str:
    listed = sorted(map(str, names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "") or "none"
