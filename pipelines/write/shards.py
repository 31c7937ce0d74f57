"""Writing shards: NNNNNN.tar, NNNNNN.parquet, NNNNNN.json, and at the end rejects.parquet and dataset.json.

The same samples give the same bytes: members have no time and no owner, and stand in the order of the label rows. A
file gets its name when it is complete (`storage.published`), the tar last, for trainers look for tars; a tar whose
sha256 is the one its statistics tell is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files.npz import npz_bytes
from pipelines.files.storage import UrlPath, file_sha256, output_problems, published, readable
from pipelines.plan.planning import ShardSpec
from pipelines.write.ledger import Ledger
from schemas import (
    COUNTED_WORDS,
    ERROR_QUANTILES,
    HMR_SKEL,
    QUANTILE_FIELDS,
    REJECTS,
    SHARD_STATS,
    STAGES,
    Columns,
    InputError,
    columns_to_table,
    record_name,
    record_version,
    samples,
    with_float_width,
)
from schemas.run import DATASET

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_SHARD_FILE = re.compile(r"(\d{6,})\.(tar|parquet|json)$")


def write_shard(
    directory: Path | UrlPath,
    spec: ShardSpec,
    columns: Columns,
    images: Sequence[bytes | None],
    rejected: list[dict[str, Any]],
    float_width: int,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Write one shard and return its statistics (schemas.SHARD_STATS as a document).

    `columns` are HMR_SKEL columns, `images` their JPEG bytes (None: sample without image), `rejected` the rows left
    out (schemas.REJECTS as documents).
    """
    schema = with_float_width(HMR_SKEL, float_width)
    with output_problems(directory), ExitStack() as files:  # closed in reverse: the tar gets its name last
        tar, table, document = (
            files.enter_context(published(directory / f"{spec.name}.{ending}")) for ending in ("tar", "parquet", "json")
        )
        _write_tar(tar, schema, columns, images)
        write_labels(table, columns_to_table(schema, columns))
        stats = {
            "record": record_name(SHARD_STATS),
            "version": record_version(SHARD_STATS),
            "shard": spec.name,
            "spec_hash": spec.hash,
            "tar_sha256": file_sha256(tar),
            "parquet_sha256": file_sha256(table),
            "tar_bytes": tar.stat().st_size,
            "rows": len(spec),
            "samples": len(images),
            "converged": int(np.sum(columns["converged"])),
            "verdicts": _counts(columns["verdict"]),
            "label_checks": _counts(columns["label_check"]),
            "smpl_genders": _counts(columns["gender"]),
            "rejects": _count_reasons(rejected),
            "errors": error_quantiles(columns),
            "stage_errors": stage_means(columns["stage_vertex_error_mm"]),
            "versions": versions,
            "rejected_rows": rejected,
        }
        stats["document_sha256"] = _document_sha256(stats)
        document.write_text(_json(stats) + "\n")
    return stats


def write_labels(path: Path, table: pa.Table) -> None:
    """A shard's Parquet file, made to be read by the column.

    Only text is stored by dictionary: numbers hardly repeat. Single numbers are not packed: they would hardly get
    smaller, and unpacking is a third of what it takes to read some columns of a thousand files.
    """
    import pyarrow.parquet as pq
    import pyarrow.types

    text = [field.name for field in table.schema if pyarrow.types.is_string(field.type)]
    lists = [f"{f.name}.list.element" for f in table.schema if pyarrow.types.is_fixed_size_list(f.type)]
    pq.write_table(table, path, compression=dict.fromkeys([*text, *lists], "zstd"), use_dictionary=text)


def finished_shard(directory: Path | UrlPath, spec: ShardSpec) -> dict[str, Any] | None:
    """Statistics of the shard if it is there, was made from this very spec and is undamaged; else None."""
    try:
        stats = json.loads((directory / f"{spec.name}.json").read_text())
        if stats["spec_hash"] != spec.hash or stats["version"] != record_version(SHARD_STATS):
            return None
        if stats["document_sha256"] != _document_sha256(stats):
            log.warning("%s.json does not have its checksum; the shard is made again", directory / spec.name)
            return None
        for ending in ("tar", "parquet"):
            if file_sha256(directory / f"{spec.name}.{ending}") != stats[f"{ending}_sha256"]:
                log.warning("%s.%s does not have its checksum; the shard is made again", directory / spec.name, ending)
                return None
        return stats
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_dataset(
    directory: Path | UrlPath,
    shards: Iterable[str],
    options: dict[str, Any],
    versions: dict[str, str],
    inputs: dict[str, str],
    joint_limits: dict[str, list[float | None]],
    planned: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Write rejects.parquet and dataset.json from the shards' files, and return the manifest (schemas.DATASET).

    Reads the statistics of each shard and, for exact quantiles, the distances in its Parquet file. With `planned`
    (label file -> rows) the files must account for each of these rows once: raises InputError, and writes no
    dataset.json, if they do not.
    """
    import pyarrow.parquet as pq

    names = sorted(shards)
    summaries, counts = [], {"rows": 0, "samples": 0, "converged": 0}
    reasons: Counter[str] = Counter()
    words: dict[str, Counter[str]] = {name: Counter() for name in COUNTED_WORDS}
    distances: dict[str, list[np.ndarray]] = {name: [] for name in QUANTILE_FIELDS}
    stages = np.zeros(len(STAGES))
    label_files: dict[str, int] = {}
    label_file_of: list[np.ndarray] = []  # numbers, for a name is a string of its own for every person
    ledger = Ledger(planned or {})
    with (
        output_problems(directory),
        published(directory / "rejects.parquet") as path,
        pq.ParquetWriter(path, REJECTS, compression="zstd") as writer,
    ):
        for name in names:
            stats = json.loads((directory / f"{name}.json").read_text())
            rejected = stats.pop("rejected_rows")
            if rejected:
                table = _rejects_table(rejected)
                writer.write_table(table)
                ledger.add(table)
            for key in ("record", "version", "versions", "document_sha256"):
                stats.pop(key)
            summaries.append(stats)
            for key in counts:
                counts[key] += stats[key]
            reasons.update(stats["rejects"])
            for key, counted in words.items():
                counted.update(stats.get(key, {}))
            columns = ["label_file", "label_row", *QUANTILE_FIELDS]
            table = pq.read_table(readable(directory / f"{name}.parquet"), columns=columns)
            ledger.add(table)
            for chunk in table.column("label_file").chunks:
                encoded = chunk.dictionary_encode()
                numbers = [label_files.setdefault(name, len(label_files)) for name in encoded.dictionary.to_pylist()]
                label_file_of.append(np.array(numbers, np.int32)[encoded.indices.to_numpy()])
            for key in QUANTILE_FIELDS:
                distances[key].append(table.column(key).to_numpy())
            if stats["samples"]:
                stages += stats["samples"] * np.array([stats["stage_errors"][stage] for stage in STAGES])
    if planned is not None and (problems := ledger.problems()):
        (directory / "rejects.parquet").unlink(missing_ok=True)
        raise InputError(f"the rows do not add up: {'; '.join(problems)}", file=directory)
    gathered = {key: np.concatenate(parts) if parts else np.zeros(0) for key, parts in distances.items()}
    means = stages / counts["samples"] if counts["samples"] else [None] * len(STAGES)
    manifest = {
        "record": record_name(DATASET),
        "version": record_version(DATASET),
        "name": "hmr-skel",
        **counts,
        **{key: dict(sorted(counted.items())) for key, counted in words.items()},
        "rejects": dict(sorted(reasons.items())),
        "errors": error_quantiles(gathered),
        "stage_errors": {stage: _rounded(mean) for stage, mean in zip(STAGES, means, strict=True)},
        "dataset_errors": _by_label_file(label_files, label_file_of, gathered),
        "options": options,
        "joint_limits": joint_limits,
        "inputs": inputs,
        "versions": versions,
        "shards": summaries,
    }
    with output_problems(directory), published(directory / "dataset.json") as path:
        path.write_text(_json(manifest, indent=1) + "\n")
    return manifest


def remove_leftovers(directory: Path | UrlPath) -> None:
    """Remove what killed runs left half written."""
    for path in directory.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)


def withdraw_dataset(directory: Path | UrlPath) -> None:
    """Remove what only a finished run may show."""
    for name in ("dataset.json", "rejects.parquet", "run.json", "report.html"):
        (directory / name).unlink(missing_ok=True)


def remove_stale_shards(directory: Path | UrlPath, shards: Iterable[str]) -> int:
    """Remove shards that this plan does not have (an earlier run had more); returns how many."""
    wanted, stale = set(shards), set()
    for path in sorted(directory.iterdir()):
        match = _SHARD_FILE.fullmatch(path.name)
        if match and match.group(1) not in wanted:
            path.unlink()
            stale.add(match.group(1))
    if stale:
        log.info("%s: removed %d shards of an earlier, longer run", directory, len(stale))
    return len(stale)


def error_quantiles(columns: Columns) -> dict[str, dict[str, float | None]]:
    """Mean and quantiles over people for each distance, mm: {"vertex_error_mm": {"mean": .., "p50": .., ...}, ...}."""
    found: dict[str, dict[str, float | None]] = {}
    for name in QUANTILE_FIELDS:
        values = np.asarray(columns[name], np.float64)
        numbers = [values.mean(), *np.quantile(values, ERROR_QUANTILES)] if len(values) else [None] * 5
        names = ["mean", *("max" if q == 1 else f"p{100 * q:g}" for q in ERROR_QUANTILES)]
        found[name] = {key: _rounded(number) for key, number in zip(names, numbers, strict=True)}
    return found


def stage_means(errors: np.ndarray) -> dict[str, float | None]:
    """Mean vertex distance after each stage of the fit, mm, from (N, 4)."""
    means = np.asarray(errors, np.float64).mean(axis=0) if len(errors) else [None] * len(STAGES)
    return {stage: _rounded(mean) for stage, mean in zip(STAGES, means, strict=True)}


def _write_tar(path: Path, schema, columns: Columns, images: Sequence[bytes | None]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for image, (document, arrays) in zip(images, samples(schema, columns), strict=True):
            key = document["key"]
            if image is not None:
                _add(tar, f"{key}.jpg", image)
            _add(tar, f"{key}.json", _json(document).encode())
            _add(tar, f"{key}.npz", npz_bytes(arrays))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    info.mtime = 0
    tar.addfile(info, io.BytesIO(data))


def _by_label_file(
    label_files: dict[str, int], numbers: list[np.ndarray], distances: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """`error_quantiles` and the number of people per label file."""
    if not label_files:
        return {}
    number_of_row = np.concatenate(numbers)
    found = {}
    for label_file, number in sorted(label_files.items()):
        mine = number_of_row == number
        found[label_file] = {"samples": int(mine.sum()), **error_quantiles({k: v[mine] for k, v in distances.items()})}
    return found


def _document_sha256(stats: dict[str, Any]) -> str:
    """sha256 of a shard's statistics but for this very field."""
    facts = {key: value for key, value in stats.items() if key != "document_sha256"}
    return hashlib.sha256(_json(facts).encode()).hexdigest()


def _rejects_table(rejected: list[dict[str, Any]]):
    columns = {}
    for field in REJECTS:
        column = np.empty(len(rejected), object)
        column[:] = [row.get(field.name) for row in rejected]
        columns[field.name] = column.astype(np.int64) if field.name == "label_row" else column
    return columns_to_table(REJECTS, columns)


def _counts(words: np.ndarray) -> dict[str, int]:
    return dict(sorted(Counter(words.tolist()).items()))


def _count_reasons(rejected: list[dict[str, Any]]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for row in rejected:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    return dict(sorted(reasons.items()))


def _rounded(value: float | None) -> float | None:
    """Six digits: what a file written twice must repeat, and more than a distance deserves."""
    return None if value is None else float(f"{value:.6g}")


def _json(document: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(document, allow_nan=False, indent=indent)
