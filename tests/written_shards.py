"""Shards written by hand from the layout's description, not by the pipeline, for tests of what reads them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from schemas import (
    HMR_SKEL,
    QUANTILE_FIELDS,
    REJECTS,
    columns_to_table,
    field_dtype,
    field_shape,
    sample_parts,
    with_float_width,
)

CROP = 64
UNLISTED = ("versions", "rejected_rows")
"""What the manifest leaves out of a shard's statistics."""


def label_columns(count: int, seed: int = 0, dataset: str = "aic", first_row: int = 0, bits: int = 32) -> dict:
    """Plausible HMR_SKEL columns of `count` people who stand 4 m from a camera of 500 px, in 640 x 480 images."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for field in with_float_width(HMR_SKEL, bits):
        shape, dtype = (count, *field_shape(field)), field_dtype(field)
        if dtype.kind == "O":
            columns[field.name] = np.full(count, "", object)
        elif dtype.kind == "f":
            columns[field.name] = rng.normal(0.0, 0.1, shape).astype(dtype)
        else:
            columns[field.name] = np.zeros(shape, dtype)
    rows = np.arange(first_row, first_row + count)
    columns["label_row"][:] = rows
    columns["person"][:] = rows % 2
    columns["dataset"][:] = dataset
    columns["label_file"][:] = f"{dataset}-release.npz"
    columns["imgname"][:] = [f"{dataset}-train/{row // 2:06d}.jpg" for row in rows]
    columns["key"][:] = [f"{dataset}-{row // 2:06d}-{row % 2}" for row in rows]
    columns["gender"][:] = "neutral"
    columns["trans_source"][:] = "label"
    columns["image_size"][:] = [640, 480]
    columns["crop_size"][:] = CROP
    columns["box_center"][:] = rng.normal([320, 240], 20, (count, 2))
    columns["box_size"][:] = rng.uniform(240, 280, count)
    columns["box_extent"][:] = columns["box_size"][:, None] * [0.5, 1]
    columns["cam_int"][:] = [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    scale = CROP / (1.25 * columns["box_size"])
    columns["crop_affine"][:] = 0
    columns["crop_affine"][:, 0, 0] = columns["crop_affine"][:, 1, 1] = scale
    columns["crop_affine"][:, :, 2] = CROP / 2 - scale[:, None] * columns["box_center"]
    columns["trans"][:] = [0, 0, 4]
    columns["poses"][:, 0] += np.pi  # SKEL's y axis is up, the camera's is down
    columns["converged"][:] = rng.random(count) < 0.9
    columns["iterations"][:] = rng.integers(5, 30, count)
    for name in (*QUANTILE_FIELDS, "stage_vertex_error_mm", "worst_limit_excess", "betas_change"):
        columns[name] = np.abs(columns[name]) * (100 if name.endswith("_mm") else 1)
    if "verdict" in columns:
        columns["verdict"][:] = "good"
    columns["label_check"][:], columns["keypoints_3d_source"][:] = "consistent", "label"
    columns["limits_exceeded"][:] = rng.integers(0, 3, count)
    columns["limits_pressed"][:] = rng.integers(0, 5, count)
    return columns


def without_images(columns: dict) -> dict:
    """The same people as `--images none` would write them."""
    count = len(columns["key"])
    return columns | {"crop_size": np.zeros((count, 2), np.int32), "image_size": np.full((count, 2), -1, np.int32)}


def write_shard(folder: Path, name: str, columns: dict, rejects: dict[str, int] | None = None, bits: int = 32) -> dict:
    """Writes NAME.tar, .parquet and .json; returns the statistics."""
    schema = with_float_width(HMR_SKEL, bits)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        for row, key in enumerate(columns["key"]):
            document, arrays = sample_parts(schema, columns, row)
            packed = io.BytesIO()
            np.savez(packed, **arrays)
            members = {"json": json.dumps(document).encode(), "npz": packed.getvalue()}
            if columns["crop_size"][row].any():
                members = {"jpg": jpeg(row)} | members
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    pq.write_table(columns_to_table(schema, columns), folder / f"{name}.parquet")
    return write_stats(folder, name, columns, rejects or {})


def write_stats(folder: Path, name: str, columns: dict, rejects: dict[str, int]) -> dict:
    """Writes NAME.json, true for the files that are there."""
    tar, parquet = (folder / f"{name}.{ending}" for ending in ("tar", "parquet"))
    people = max(len(columns["key"]), 1)
    stats = {
        "shard": name,
        "spec_hash": "0" * 64,
        "tar_sha256": hashlib.sha256(tar.read_bytes()).hexdigest(),
        "parquet_sha256": hashlib.sha256(parquet.read_bytes()).hexdigest(),
        "tar_bytes": tar.stat().st_size,
        "rows": len(columns["key"]) + sum(rejects.values()),
        "samples": len(columns["key"]),
        "converged": int(columns["converged"].sum()),
        "verdicts": dict(Counter(columns.get("verdict", np.zeros(0)).tolist())),
        "rejects": rejects,
        "errors": {field: {"mean": float(columns[field].sum(dtype=float)) / people} for field in QUANTILE_FIELDS},
        "stage_errors": {},
        "rejected_rows": [],
        "versions": {"hmr-skel": "0.1.0"},
    }
    (folder / f"{name}.json").write_text(json.dumps(stats))
    return stats


def write_manifest(folder: Path, stats: list[dict]) -> None:
    """Writes dataset.json and _rejects/rejects.parquet of the shards with these statistics."""
    rejects: dict[str, int] = {}
    for entry in stats:
        for reason, count in entry["rejects"].items():
            rejects[reason] = rejects.get(reason, 0) + count
    manifest = {
        "name": "hmr-skel",
        "shards": [{key: value for key, value in entry.items() if key not in UNLISTED} for entry in stats],
        **{total: sum(entry[total] for entry in stats) for total in ("rows", "samples", "converged")},
        "rejects": rejects,
        "errors": {},
        "stage_errors": {},
        "inputs": {},
        "options": {"body_models": "demo"},
        "versions": {"hmr-skel": "0.1.0"},
    }
    (folder / "dataset.json").write_text(json.dumps(manifest))
    reasons = [reason for reason, count in rejects.items() for _ in range(count)]
    rows = {
        "label_file": np.full(len(reasons), "aic-release.npz", object),
        "label_row": np.arange(len(reasons)),
        "reason": np.array(reasons, object),
        "detail": np.full(len(reasons), "", object),
    }
    (folder / "_rejects").mkdir(exist_ok=True)
    pq.write_table(columns_to_table(REJECTS, rows), folder / "_rejects" / "rejects.parquet")


def write_dataset(folder: Path, counts: tuple[int, ...] = (7, 5)) -> Path:
    """A whole folder: shards of these sizes with consecutive rows, three rejects, manifest. Returns the folder."""
    stats, first = [], 0
    for index, count in enumerate(counts):
        columns = label_columns(count, seed=index, first_row=first)
        rejects = {"missing_image": 2, "non_finite_pose": 1} if index == 0 else {}
        stats.append(write_shard(folder, f"{index:06d}", columns, rejects))
        first += count + sum(rejects.values())
    write_manifest(folder, stats)
    return folder


def jpeg(seed: int) -> bytes:
    """A small picture with some structure."""
    ramp = np.linspace(0, 255, CROP).astype(np.uint8)
    image = np.stack([np.broadcast_to(ramp, (CROP, CROP)), np.full((CROP, CROP), 40 * seed % 255)], -1)
    image = np.concatenate([image, np.broadcast_to(ramp[:, None, None], (CROP, CROP, 1))], -1).astype(np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()
