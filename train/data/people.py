"""Which of the people in shards are drawn from, found in the Parquet files alone."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.files.shards import Shard
from schemas import LABEL_CHECKS, VERDICTS, Columns, InputError
from train.data.config import DataConfig
from train.data.shards import read_label_columns

log = logging.getLogger(__name__)

_AGREEING = [word for word in LABEL_CHECKS if word != "contradicts_keypoints"]
_LATER = ("verdict", "label_check", "reprojection_error")
"""What older shards do not have."""
_FILTERED = ("dataset", "imgname", "converged", "vertex_error_mm", "crop_size", "box_size")


@dataclass(frozen=True, eq=False)
class People:
    """Who can be drawn: for each person the number of its shard, its place there, the number of its data set."""

    shard: np.ndarray
    place: np.ndarray
    dataset: np.ndarray
    datasets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.shard)

    def fingerprint(self) -> str:
        """Changes when other people, or in another order, are drawn from."""
        digest = hashlib.sha256(repr((self.datasets, len(self))).encode())
        for part in (self.shard, self.place, self.dataset):
            digest.update(np.ascontiguousarray(part, np.int64).tobytes())
        return digest.hexdigest()[:16]


def select_people(shards: Sequence[Shard], config: DataConfig) -> tuple[People, list[int]]:
    """Who passes the filters, and how many people each shard holds in all. Reads Parquet files only.

    Raises InputError if nobody passes, and for damaged or outdated files.
    """
    _check_words(config)
    names: dict[str, int] = {}
    parts: list[np.ndarray] = []
    totals: list[int] = []
    dropped: Counter[str] = Counter()
    for number, shard in enumerate(shards):
        columns = read_label_columns(shard, _FILTERED, later=_LATER)
        totals.append(len(columns["dataset"]))
        kept = np.ones(totals[-1], bool)
        checks = {
            "no image": columns["crop_size"].reshape(-1, 2).min(1) > 0,
            "not converged": columns["converged"].astype(bool) | config.unconverged,
            "error": columns["vertex_error_mm"] <= config.max_vertex_error_mm,
            "verdict": _word_passes(columns, "verdict", config.verdicts),
            "label check": _word_passes(columns, "label_check", config.label_checks or _AGREEING),
            "reprojection": _reprojection_passes(columns, config.max_reprojection_error),
            "small box": columns["box_size"] >= config.smallest_box,
            "other part": _in_part(columns["imgname"], config),
        }
        for reason, passes in checks.items():
            dropped[reason] += int((kept & ~passes).sum())
            kept &= passes
        places = np.flatnonzero(kept)
        codes = [names.setdefault(str(name), len(names)) for name in columns["dataset"][places]]
        parts.append(np.stack([np.full(len(places), number), places, np.array(codes, np.int64)]))
    shard, place, dataset = np.concatenate(parts, 1).astype(np.int32)[:, : config.limit or None]
    people = People(shard, place, dataset, tuple(names))
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    log.info("%d of %d people in %d shards%s", len(people), sum(totals), len(shards), reasons and f"; left: {reasons}")
    if not len(people):
        raise InputError(f"none of {sum(totals)} people pass the filters ({reasons})", file=shards[0].tar)
    return people, totals


def _check_words(config: DataConfig) -> None:
    """Raises InputError for a word that no person can have."""
    for option, words, known in (
        ("--verdicts", config.verdicts, VERDICTS),
        ("--label-checks", config.label_checks, LABEL_CHECKS),
    ):
        if unknown := [word for word in words if word not in known]:
            raise InputError(f"{', '.join(unknown)} given", field=option, expected=f"some of {', '.join(known)}")


def _word_passes(columns: Columns, field: str, allowed: Sequence[str]) -> np.ndarray:
    """Shards from before there were such words have none; their people pass."""
    if field not in columns:
        return np.ones(len(columns["dataset"]), bool)
    return np.isin(columns[field].astype(str), list(allowed))


def _reprojection_passes(columns: Columns, most: float) -> np.ndarray:
    """Errors that could not be told are -1, and pass."""
    if "reprojection_error" not in columns:
        return np.ones(len(columns["dataset"]), bool)
    return columns["reprojection_error"] <= most


def _in_part(images: np.ndarray, config: DataConfig) -> np.ndarray:
    if config.part == "all":
        return np.ones(len(images), bool)
    held = np.array([zlib.crc32(str(name).encode()) % 10_000 < config.held_out * 10_000 for name in images], bool)
    return held if config.part == "held-out" else ~held
