"""Label rows of a shard: read, brought to the columns of CAMERAHMR, and checked.

Rows that cannot be used are left out with one of schemas.REJECT_REASONS; the first that applies counts, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from pipelines.convert.crops import box_side
from pipelines.convert.reprojection import boxes_that_contradict
from pipelines.files.storage import file_sha256, place
from pipelines.plan.planning import ShardSpec, image_name, open_for_job, sample_key
from pipelines.read.labels import LabelFile, dataset_name
from schemas import KEYPOINTS, Columns, InputError

SMALLEST_BOX = 4.0
"""A box whose side is less, in px, shows nobody."""

LARGEST_BOX = 1e5


@dataclass
class Rows:
    """Label rows of a shard in column form, and what is wrong with some of them."""

    columns: Columns
    label_file: list[str]
    label_row: np.ndarray
    keys: list[str]
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label_row)

    def reject(self, rows: np.ndarray | list[int], reason: str, detail: str) -> None:
        for row in np.asarray(rows, dtype=np.int64).tolist():
            self.problems.setdefault(row, (reason, detail))

    @property
    def sound(self) -> np.ndarray:
        return np.array([row for row in range(len(self)) if row not in self.problems], np.int64)

    def rejected(self) -> list[dict[str, Any]]:
        """schemas.REJECTS as documents, in the order of the rows."""
        found = []
        for row in sorted(self.problems):
            reason, detail = self.problems[row]
            name = self.columns["imgname"][row]
            document = {"label_file": self.label_file[row], "label_row": int(self.label_row[row])}
            document["imgname"] = name if name is not None and _is_text(name) else None
            found.append({**document, "reason": reason, "detail": detail})
        return found


def read_rows(spec: ShardSpec, smpl_gender: str | None = None) -> Rows:
    """The rows of a shard, those rejected that are seen to be unusable without their image.

    `smpl_gender` stands in the place of the files' genders.

    Raises InputError if a label file cannot be read.
    """
    parts, files, numbers, keys = [], [], [], []
    persons = iter(spec.persons)
    for part in spec.rows:
        try:
            facts = place(part.label_file).stat()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=part.label_file) from error
        _check_unchanged(part.label_file, part.sha256, (facts.st_size, facts.st_mtime_ns))
        labels = _labels(part.label_file, spec.image_root is not None, (facts.st_size, facts.st_mtime_ns), smpl_gender)
        columns = {name: values[:: part.step] for name, values in labels.read(part.start, part.stop).items()}
        chosen = range(part.start, part.stop, part.step)
        columns = _filled(columns, labels, chosen, smpl_gender or "neutral")
        parts.append(columns)
        files += [labels.name] * len(chosen)
        numbers += chosen
        names = columns["imgname"]
        keys += [sample_key(dataset_name(labels.name), n or "", p) for n, p in zip(names, persons, strict=False)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rows = Rows(columns, files, np.array(numbers, np.int64), keys)
    _check(rows)
    if spec.image_root is not None:
        for row in rows.sound:
            found = spec.image(row)
            if isinstance(found, str):
                rows.reject([row], "missing_image", found)
    return rows


@lru_cache(maxsize=256)
def _check_unchanged(path: str, planned: str, _state: tuple[int, int]) -> None:
    """Raises InputError for a file that is not the one planned. Read once per process, and again when it changes."""
    if planned and file_sha256(path) != planned:
        problem = "has changed since the run was planned"
        raise InputError(problem, file=path, expected="the file that was there; the same command plans again")


@lru_cache(maxsize=64)
def _labels(path: str, with_images: bool, state: tuple[int, int], smpl_gender: str | None) -> LabelFile:
    return open_for_job(path, with_images, smpl_gender)


def _filled(columns: Columns, labels: LabelFile, rows: range, gender: str) -> Columns:
    """All CAMERAHMR columns. Absent numbers are NaN (optional ones) or zero with `known_...` False."""
    count = len(rows)
    columns = dict(columns)
    columns["known_box"] = np.full(count, "center" in columns and "scale" in columns)
    columns["known_camera"] = np.full(count, "cam_int" in columns)
    if "imgname" not in columns:
        columns["imgname"] = np.array([image_name(labels, row) for row in rows], object)
    if "gender" not in columns:
        columns["gender"] = np.full(count, gender, object)
    for name, shape, value in (
        ("center", (2,), 0.0),
        ("scale", (2,), 0.0),
        ("cam_int", (3, 3), 0.0),
        ("gtkps", (KEYPOINTS, 3), 0.0),
        ("trans_cam", (3,), np.nan),
        ("keypoints3d", (KEYPOINTS, 4), np.nan),
        ("cam_ext", (3,), 0.0),
        ("has_smpl", (), 1.0),
        ("kid_share", (), 0.0),
    ):
        if name not in columns:
            columns[name] = np.full((count, *shape), value, np.float32)
    return columns


def _check(rows: Rows) -> None:
    """Find rows whose labels cannot be used."""
    columns = rows.columns

    def finite(name: str) -> np.ndarray:
        return np.isfinite(columns[name].reshape(len(rows), -1)).all(axis=1)

    unreadable = [i for i, name in enumerate(columns["imgname"]) if not name or not _is_text(name)]
    rows.reject(unreadable, "unreadable_row", "imgname is empty or not text")
    rows.reject(np.flatnonzero(columns["has_smpl"] == 0), "no_smpl_parameters", "has_smpl is 0")
    unknown = [i for i, gender in enumerate(columns["gender"]) if gender is None]
    rows.reject(unknown, "unknown_gender", "gender is none of male, female, neutral; --smpl-gender overrides it")
    kids = np.flatnonzero(columns["kid_share"] != 0)
    rows.reject(kids, "kid_shape", "the 11th beta is not zero: a share of the child's template, which SKEL has not")
    rows.reject(
        np.flatnonzero(~finite("pose_cam")),
        "non_finite_pose",
        "pose_cam holds NaN, infinity or no rotation",
    )
    rows.reject(np.flatnonzero(~finite("shape")), "non_finite_shape", "shape holds NaN or infinity")
    side = box_side(columns["scale"])
    boxed = finite("center") & np.isfinite(side) & (side >= SMALLEST_BOX) & (side <= LARGEST_BOX)
    for row in np.flatnonzero(~boxed & columns["known_box"]).tolist():
        center = ", ".join(f"{x:g}" for x in columns["center"][row])
        rows.reject([row], "degenerate_box", f"box of {side[row]:g} px around ({center})")
    odd = boxes_that_contradict(columns["center"], side, columns["gtkps"])
    for row in np.flatnonzero(boxed & odd & columns["known_box"]).tolist():
        detail = f"box of {side[row]:g} px is not that of the 2D keypoints (scale is px / 200)"
        rows.reject([row], "degenerate_box", detail)
    camera = columns["cam_int"].astype(np.float64)
    sound = finite("cam_int") & (camera[:, 0, 0] > 0) & (camera[:, 1, 1] > 0)
    sound &= (np.abs(camera[:, 2] - [0, 0, 1]) < 1e-6).all(axis=1) & (np.abs(camera[:, 1, 0]) < 1e-6)
    for row in np.flatnonzero(~sound & columns["known_camera"]).tolist():
        rows.reject([row], "bad_camera", f"cam_int is {columns['cam_int'][row].tolist()}")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
