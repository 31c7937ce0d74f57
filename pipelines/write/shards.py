"""Writing shards: NNNNNN.tar, NNNNNN.parquet, NNNNNN.json.

The same samples give the same bytes: members have no time and no owner, and stand in the order of the label rows. A
file gets its name when it is complete (`storage.published`), the tar last, for trainers look for tars; a tar whose
sha256 is the one its statistics tell is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files.npz import npz_bytes
from pipelines.files.storage import file_sha256, output_problems, published
from pipelines.files.urls import UrlPath
from pipelines.plan.planning import ShardSpec
from pipelines.write.statistics import error_quantiles, stage_means
from schemas import (
    HMR_SKEL,
    SHARD_STATS,
    Columns,
    columns_to_table,
    record_name,
    record_version,
    samples,
    with_float_width,
)

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


def write_shard(
    directory: Path | UrlPath,
    spec: ShardSpec,
    columns: Columns,
    images: Sequence[bytes | None],
    rejected: list[dict[str, Any]],
    float_width: int,
    versions: dict[str, str],
    made_with: Mapping[str, Any] | None = None,
    images_sha256: str = "",
    before_publishing: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Write one shard and return its statistics (schemas.SHARD_STATS as a document).

    `columns` are HMR_SKEL columns, `images` their JPEG bytes (None: sample without image), `rejected` the rows left
    out (schemas.REJECTS as documents), `made_with` what the Parquet file's metadata tells besides, as JSON: body models
    and the coordinates of poses, `images_sha256` stands for the images that were read. What `before_publishing` raises
    leaves nothing under the shard's names.
    """
    schema = with_float_width(HMR_SKEL, float_width)
    with output_problems(directory), ExitStack() as files:  # closed in reverse: the tar gets its name last
        tar, table, document = (
            files.enter_context(published(directory / f"{spec.name}.{ending}")) for ending in ("tar", "parquet", "json")
        )
        _write_tar(tar, schema, columns, images)
        told = {name: to_json(value) for name, value in (made_with or {}).items()}
        labels = columns_to_table(schema, columns)
        write_labels(table, labels.replace_schema_metadata({**(labels.schema.metadata or {}), **told}))
        stats = {
            "record": record_name(SHARD_STATS),
            "version": record_version(SHARD_STATS),
            "shard": spec.name,
            "spec_hash": spec.hash,
            "settings_sha256": spec.settings,
            "label_rows": [
                {
                    "label_file": PurePath(part.label_file).name,
                    "start": part.start,
                    "stop": part.stop,
                    "step": part.step,
                }
                for part in spec.rows
            ],
            "images_sha256": images_sha256,
            "images_modified": spec.modified_sha256,
            "tar_sha256": file_sha256(tar),
            "parquet_sha256": file_sha256(table),
            "tar_bytes": tar.stat().st_size,
            "rows": len(spec),
            "samples": len(images),
            "converged": int(np.sum(columns["converged"])),
            "verdicts": _counts(columns["verdict"].tolist()),
            "label_checks": _counts(columns["label_check"].tolist()),
            "smpl_genders": _counts(columns["gender"].tolist()),
            "keypoints_3d_sources": _counts(columns["keypoints_3d_source"].tolist()),
            "turned_images": int(np.sum(columns["exif_orientation"] > 1)),
            "body_models": (made_with or {}).get("body_models", {}),
            "rejects": _counts(row["reason"] for row in rejected),
            "errors": error_quantiles(columns),
            "stage_errors": stage_means(columns["stage_vertex_error_mm"]),
            "versions": versions,
            "rejected_rows": rejected,
        }
        document.write_text(_sealed(stats))
        before_publishing()
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
    """Statistics of the shard if it is there, was made from such a spec and is undamaged; else None."""
    stats = sealed_statistics(directory, spec.name)
    if stats is None or stats["spec_hash"] != spec.hash:
        return None
    try:
        for ending in ("tar", "parquet"):
            if file_sha256(directory / f"{spec.name}.{ending}") != stats[f"{ending}_sha256"]:
                log.warning("%s.%s does not have its checksum; the shard is made again", directory / spec.name, ending)
                return None
    except (OSError, KeyError):
        return None
    return stats


def sealed_statistics(directory: Path | UrlPath, name: str) -> dict[str, Any] | None:
    """Statistics of a shard if they are there, of the present version, and have their own checksum."""
    try:
        stats = json.loads((directory / f"{name}.json").read_text())
        if stats["version"] != record_version(SHARD_STATS):
            return None
        if stats["document_sha256"] != _document_sha256(stats):
            log.warning("%s.json does not have its checksum; the shard is made again", directory / name)
            return None
        return stats if isinstance(stats["spec_hash"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_statistics(directory: Path | UrlPath, name: str, stats: dict[str, Any]) -> None:
    """Replace the statistics of a shard whose other files stay as they are."""
    with output_problems(directory), published(directory / f"{name}.json") as document:
        document.write_text(_sealed(stats))


def _write_tar(path: Path, schema, columns: Columns, images: Sequence[bytes | None]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for image, (document, arrays) in zip(images, samples(schema, columns), strict=True):
            key = document["key"]
            if image is not None:
                _add(tar, f"{key}.jpg", image)
            _add(tar, f"{key}.json", to_json(document).encode())
            _add(tar, f"{key}.npz", npz_bytes(arrays))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    info.mtime = 0
    tar.addfile(info, io.BytesIO(data))


def _sealed(stats: dict[str, Any]) -> str:
    """The statistics as text, after they were given their checksum."""
    stats["document_sha256"] = _document_sha256(stats)
    return to_json(stats) + "\n"


def _document_sha256(stats: dict[str, Any]) -> str:
    """sha256 of a shard's statistics but for this very field."""
    facts = {key: value for key, value in stats.items() if key != "document_sha256"}
    return hashlib.sha256(to_json(facts).encode()).hexdigest()


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def to_json(document: Any, indent: int | None = None) -> str:
    """The document as text; raises ValueError for what JSON cannot hold."""
    return json.dumps(document, allow_nan=False, indent=indent)
