"""Finished shards as a reader sees them: which files belong together, their labels by column or key, their samples.

A shard NAME is NAME.tar, NAME.parquet (the labels as columns, schema `HMR_SKEL`) and NAME.json (`SHARD_STATS`).
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.command.devices import cores
from pipelines.files.body_models import body_models_in_words
from pipelines.files.parquet import parquet_problems, read_table, row_count
from pipelines.files.storage import find, place
from pipelines.files.tar import TarMember, TarScan
from pipelines.files.urls import UrlPath, is_url

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

REJECTS_FILE = "rejects.parquet"
REJECTS_FOLDER = "_rejects"
"""Where it is: what looks for a folder's Parquet files (`FOLDER/*.parquet`, Arrow's data sets) finds people only."""

DATASET_FILE = "dataset.json"
SHARD_ENDINGS = (".tar", ".parquet", ".json")
REPEATED_TEXT = ("dataset", "label_file", "trans_source", "verdict", "label_check", "keypoints_3d_source")
LARGEST_MEMBER = 1 << 28
"""Bytes of a tar's member beyond which it is not read: no image is that large."""

IMAGE_ENDINGS = ("jpg", "jpeg", "png")


@dataclass(frozen=True)
class Shard:
    """The files of one shard; `base` is their path, or URL, without ending."""

    base: Path | UrlPath
    copied_from: str = ""
    """URL of the tar, if these are copies; the tar's may not have been made yet."""

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def folder(self) -> Path | UrlPath:
        return self.base.parent

    @property
    def tar(self) -> Path | UrlPath:
        return self.base.with_name(self.base.name + ".tar")

    @property
    def parquet(self) -> Path | UrlPath:
        return self.base.with_name(self.base.name + ".parquet")

    @property
    def stats(self) -> Path | UrlPath:
        return self.base.with_name(self.base.name + ".json")


def find_shards(paths: Sequence[str | Path]) -> list[Shard]:
    """The shards that paths name: a folder means those that its dataset.json lists, or without one all that are in it;
    a file of a shard means that shard; globs are expanded. The log tells of shards that are left aside.

    Raises:
        InputError: nothing is there, or a shard has no Parquet file.
    """
    from schemas import InputError

    bases: dict[Path, None] = {}
    for text in map(str, paths):
        if is_url(text):
            found = find(text) if glob.has_magic(text) else [text]
        else:
            found = sorted(glob.glob(text)) if glob.has_magic(text) and not os.path.exists(text) else [text]
        here = [base for path in found for base in _bases(place(path), (".parquet", ".tar"))]
        if not here:
            missing = not found or not all(place(path).exists() for path in found)
            problem = "nothing has this name" if missing else "no shard is here"
            expected = "a shard (NNNNNN.tar), a folder of shards or a glob"
            if not missing and any(list(place(path).glob(f"part-*/{DATASET_FILE}")) for path in found):
                expected = f"its parts, {text.rstrip('/')}/part-*, or what `hmr-skel merge` makes of them"
            raise InputError(problem, file=text, expected=expected)
        bases.update(dict.fromkeys(here))
    shards = [Shard(base) for base in bases]
    for shard in shards:
        if not shard.parquet.is_file():
            raise InputError("the file is missing", file=shard.parquet, expected=f"the labels of {shard.name}.tar")
    return shards


def _bases(path: Path | UrlPath, endings: Sequence[str] = (".parquet",)) -> list[Path | UrlPath]:
    """Shards that a file belongs to, or of which a folder has files with these endings."""
    if path.is_dir():
        here, listed = bases_in(path, endings), listed_shards(path)
        used = [base for base in here if listed is None or base.name in listed]
        if len(used) < len(here):
            left = sorted({base.name for base in here} - {base.name for base in used})
            more = f" and {len(left) - 1} more" if left[1:] else ""
            log.warning("%s: left aside shard %s%s, which %s does not list", path, left[0], more, DATASET_FILE)
        return used
    if path.suffix in SHARD_ENDINGS and path.name not in (REJECTS_FILE, DATASET_FILE) and path.exists():
        return [path.with_suffix("")]
    return []


def bases_in(folder: Path | UrlPath, endings: Sequence[str] = (".parquet",)) -> list[Path | UrlPath]:
    """All shards of which a folder has files with these endings, listed or not."""
    files = (p for p in folder.iterdir() if p.suffix in endings and not p.name.startswith("."))
    return sorted({p.with_suffix("") for p in files if p.name != REJECTS_FILE})


def listed_shards(folder: Path | UrlPath) -> set[str] | None:
    """Names of the shards that a folder's dataset.json lists; None if it has none, or one that lists none."""
    file = folder / DATASET_FILE
    try:
        shards = json.loads(file.read_bytes())["shards"] if file.is_file() else None
        return {entry["shard"] for entry in shards} if shards else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def whole_folder(shards: Sequence[Shard]) -> Path | UrlPath | None:
    """The folder whose shards these are, all of them; None for a part of a folder or for several."""
    folder = shards[0].folder
    names, listed = {shard.base for shard in shards}, listed_shards(folder)
    here = {base for base in bases_in(folder) if listed is None or base.name in listed}
    return folder if names == here else None


def rejects_of(folder: Path | UrlPath) -> Path | UrlPath:
    """The data set's rejects.parquet; in folders of before it lies among the shards."""
    older = folder / REJECTS_FILE
    return older if older.is_file() else folder / REJECTS_FOLDER / REJECTS_FILE


def body_models_of(folder: Path | UrlPath) -> str:
    """In words, the body models of a data set; empty if it has no manifest, or one that does not say."""
    manifest = read_document(folder / DATASET_FILE) if (folder / DATASET_FILE).is_file() else {}
    options = manifest.get("options")
    if not isinstance(options, dict) or not options.get("body_models"):
        return ""
    return body_models_in_words(str(options["body_models"]), str(options.get("gender") or "male"))


def read_document(file: Path | UrlPath, schema: pa.Schema | None = None) -> dict:
    """A JSON document (statistics of a shard, manifest of a data set). Raises InputError if it is absent or broken, or
    if a field has another type than the schema says."""
    from schemas import InputError, check_document

    try:
        if file.exists() and not file.is_file():
            raise InputError("not a regular file", file=file, expected="a JSON document")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(error.strerror or str(error), file=file, expected="a JSON document") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", file=file) from error
    if not isinstance(document, dict):
        raise InputError(f"a JSON {type(document).__name__}", file=file, expected="an object")
    if schema is not None:
        check_document(schema, document, file)
    return document


def checked_labels(shard: Shard) -> bytes:
    """The Parquet file, if it has the checksum that the JSON file beside it tells; without JSON, as it is.

    Raises InputError.
    """
    from schemas import SHARD_STATS, InputError

    try:
        content = shard.parquet.read_bytes()
        told = read_document(shard.stats, SHARD_STATS)["parquet_sha256"] if shard.stats.is_file() else None
    except (OSError, KeyError) as error:
        raise InputError(f"cannot be read: {error}", file=shard.parquet, expected="a whole shard") from error
    if told is not None and hashlib.sha256(content).hexdigest() != told:
        problem = f"another checksum than {shard.stats.name} states"
        raise InputError(problem, file=shard.parquet, expected="files of one run, undamaged")
    return content


def read_columns(shards: Sequence[Shard], names: Sequence[str]) -> pa.Table:
    """These columns of all shards as one table with full-width floats; no other column is touched.

    Text that repeats (REPEATED_TEXT) comes as a dictionary. Shards with other float widths can be mixed. Raises
    InputError for a file that is not Parquet or lacks a column.
    """
    return concatenated(read_parts(shards, names))


def concatenated(parts: Sequence[pa.Table]) -> pa.Table:
    """The tables of `read_parts` as one."""
    import pyarrow as pa

    return pa.concat_tables(parts).unify_dictionaries()


def read_parts(shards: Sequence[Shard], names: Sequence[str]) -> list[pa.Table]:
    """As `read_columns`, a table per shard."""
    import pyarrow as pa

    from schemas import HMR_SKEL

    fields = [HMR_SKEL.field(name) for name in names]
    repeated = pa.dictionary(pa.int32(), pa.string())
    kinds = [repeated if f.name in REPEATED_TEXT else f.type for f in fields]
    schema = pa.schema([pa.field(f.name, kind, f.nullable) for f, kind in zip(fields, kinds, strict=True)])
    workers = min(8, cores(), len(shards))
    with ThreadPoolExecutor(workers) as pool:  # a thousand small files: opening them is what takes the time
        return list(pool.map(lambda shard: _read_part(shard.parquet, schema), shards))


def _read_part(file: Path | UrlPath, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    from schemas import HMR_SKEL, InputError, describe

    table = read_table(file, schema.names, [name for name in REPEATED_TEXT if name in schema.names])
    with parquet_problems(file):
        for name in schema.names:
            if name in table.column_names:
                continue
            if schema.field(name).nullable:  # of a later version than these shards
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
            else:
                problem = "the column is missing"
                raise InputError(problem, file=file, field=name, expected=describe(HMR_SKEL.field(name)))
        table = table.select(schema.names)
        return table if table.schema.equals(schema) else table.cast(schema)  # a cast costs as much as the opening


def read_people(
    shards: Sequence[Shard],
    rows: Sequence[int],
    names: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
) -> list[tuple[Shard, dict]]:
    """Fields of some rows, all by default: (shard, field -> value) in the order asked.

    Rows are counted over the shards in their order, as `read_columns` has them; `counts` is how many each shard has.
    """
    from schemas import table_to_columns

    if counts is None:
        counts = [row_count(shard.parquet) for shard in shards]
    ends = np.cumsum(counts)
    place = np.searchsorted(ends, rows, side="right")
    found: dict[int, tuple[Shard, dict]] = {}
    for index in np.unique(place):
        start = ends[index] - counts[index]
        wanted = [int(row) for row, at in zip(rows, place, strict=True) if at == index]
        with parquet_problems(shards[index].parquet):
            table = read_table(shards[index].parquet, names)
            columns = table_to_columns(table.take([row - start for row in wanted]))
        for i, row in enumerate(wanted):
            found[row] = shards[index], {name: values[i] for name, values in columns.items()}
    return [found[int(row)] for row in rows]


def find_key(shards: Sequence[Shard], key: str) -> tuple[Shard, dict]:
    """The sample of this name: (shard, field -> value). Raises InputError, with a similar name, if there is none."""
    import pyarrow.compute as pc

    from schemas import InputError

    keys = read_columns(shards, ["key"])["key"]
    row = pc.index(keys, key).as_py()
    if row < 0:
        import difflib

        close = difflib.get_close_matches(key, keys.slice(0, 20_000).to_pylist(), n=1, cutoff=0.0)
        hint = f"a key such as {close[0]}" if close else None
        raise InputError(f"no sample {key!r} in {len(shards)} shards", field="--sample", expected=hint)
    return read_people(shards, [row])[0]


def read_members(shard: Shard, keys: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """What the tar holds for these samples: key -> ending -> bytes. A key that the tar lacks is absent.

    Raises InputError if the tar is absent or broken.
    """
    wanted = set(keys)
    found: dict[str, dict[str, bytes]] = {}
    for key, ending, content in tar_samples(shard.tar, wanted):
        found.setdefault(key, {})[ending] = content
    return found


def tar_samples(tar: Path | UrlPath, keys: set[str] | None = None) -> Iterator[tuple[str, str, bytes]]:
    """(key, ending, bytes) of a tar's members in order, for all or for some keys; as `sample_members`."""
    scan = TarScan(str(tar))
    for key, ending, member in sample_members(scan):
        if keys is None or key in keys:
            yield key, ending, scan.read(member)


def sample_members(scan: TarScan) -> Iterator[tuple[str, str, TarMember]]:
    """(key, ending, member) of a tar's members in order; names are split as webdataset does.

    Raises InputError for a tar that is absent or damaged, and for members larger than any sample's.
    """
    from schemas import InputError

    try:
        for member in scan:
            if member.size > LARGEST_MEMBER:
                problem = f"{member.name} has {member.size} bytes"
                raise InputError(problem, file=scan.path, expected="members of a sample")
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            yield f"{folder}{slash}{stem}", ending, member
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=scan.path) from error
    if scan.damage:
        problem = f"cannot be read: {scan.damage.problem}, at byte {scan.damage.offset}"
        raise InputError(problem, file=scan.path, expected="a whole tar of samples")
