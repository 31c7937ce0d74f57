"""One work unit: the rows of a shard spec, read, checked, fitted, cut out and written.

Images are read, decoded, cropped and encoded by a few threads while the main one fits. Rows that cannot be used are
left out with one of schemas.REJECT_REASONS; the first that applies counts, in that order. What the data set's rows say:

- a translation that is absent or not finite is solved from the 2D keypoints, else zero (`trans_source` tells);
- 3D keypoints that are absent come from the SMPL source;
- 2D and 3D keypoints that are not finite get confidence 0;
- without images, label files may lack camera, box and keypoints: these fields are then zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from pipelines.bodies import Bodies
from pipelines.crops import Crop, ImageError, box_side, decode_image, image_size, person_crop, reduction, whole_frame
from pipelines.images import ImageRef, read_image
from pipelines.labels import IMAGE_LABELS, POSE_AND_SHAPE, LabelFile, dataset_name, open_labels
from pipelines.output_lock import check_still_ours
from pipelines.planning import ShardSpec, image_name, sample_key
from pipelines.shards import finished_shard, write_shard
from pipelines.storage import place
from pipelines.translation import solve_translation
from schemas import HMR_SKEL, KEYPOINTS, Columns, InputError, field_dtype, field_shape

SMALLEST_BOX = 4.0
"""A box whose side is less, in px, shows nobody."""

LARGEST_BOX = 1e5
LARGEST_IMAGE_FILE = 1 << 28
"""Bytes of an encoded image beyond which it is refused unread."""

_QUALITY = (
    *("converged", "iterations", "vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm", "joint_error_mm"),
    *("stage_vertex_error_mm", "stage_cost", "limits_exceeded", "worst_limit_excess", "betas_change"),
)


@dataclass(frozen=True)
class ConversionSettings:
    """How rows become samples; plain values that travel to the workers."""

    output: str
    crop: Literal["person", "none"] = "person"
    crop_size: int = 384
    context: float = 1.5
    jpeg_quality: int = 90
    float_width: int = 32
    image_threads: int = 2
    versions: dict[str, str] = field(default_factory=dict)
    run: str = ""
    """Token of the run that may write to `output`."""


@dataclass
class _Rows:
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


def convert_shard(
    spec: ShardSpec,
    settings: ConversionSettings,
    bodies: Bodies,
    progress: Callable[[int], object] = lambda people: None,
) -> dict[str, Any]:
    """Make one shard, or find it finished; returns its statistics. `progress` is told people as they are done.

    The statistics of a shard that was made have besides "seconds": what fitting, waiting for images, and all took.
    Raises InputError if a label file cannot be read, OutputTaken if another run has the folder by now.
    """
    began = time.perf_counter()
    directory = place(settings.output)
    stats = finished_shard(directory, spec)
    if stats is not None:
        progress(len(spec))
        return stats
    rows = _read_rows(spec)
    _check_rows(rows)
    if spec.image_root is not None:
        for row in rows.sound:
            found = spec.image(row)
            if isinstance(found, str):
                rows.reject([row], "missing_image", found)
    fitted_rows = rows.sound
    progress(len(spec) - len(fitted_rows))
    with ThreadPoolExecutor(max(1, settings.image_threads), thread_name_prefix="images") as pool:
        crops = _start_crops(pool, spec, rows, fitted_rows, settings)
        start = time.perf_counter()
        fitted = _fit(rows, fitted_rows, bodies, progress)
        fit_end = time.perf_counter()
        images, sizes = _collect(crops, rows, fitted_rows)
        image_end = time.perf_counter()
    finite = np.ones(len(fitted_rows), bool)
    for values in fitted.values():
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    rows.reject(fitted_rows[~finite], "non_finite_pose", "the fit is not finite")
    kept = np.array([i for i, row in enumerate(fitted_rows.tolist()) if row not in rows.problems], np.int64)
    columns = _sample_columns(spec, rows, fitted_rows[kept], {k: v[kept] for k, v in fitted.items()}, sizes)
    check_still_ours(directory, settings.run)
    stats = write_shard(
        directory,
        spec,
        columns,
        [images.get(row) for row in fitted_rows[kept].tolist()],
        _rejected(rows),
        settings.float_width,
        settings.versions,
    )
    seconds = {"fit": fit_end - start, "images": image_end - fit_end, "all": time.perf_counter() - began}
    return stats | {"seconds": seconds}


def _read_rows(spec: ShardSpec) -> _Rows:
    parts, files, numbers, keys = [], [], [], []
    persons = iter(spec.persons)
    for part in spec.rows:
        try:
            facts = place(part.label_file).stat()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=part.label_file) from error
        labels = _labels(part.label_file, spec.image_root is not None, (facts.st_size, facts.st_mtime_ns))
        columns = {name: values[:: part.step] for name, values in labels.read(part.start, part.stop).items()}
        chosen = range(part.start, part.stop, part.step)
        columns = _filled(columns, labels, chosen)
        parts.append(columns)
        files += [labels.name] * len(chosen)
        numbers += chosen
        names = columns["imgname"]
        keys += [sample_key(dataset_name(labels.name), n or "", p) for n, p in zip(names, persons, strict=False)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Rows(columns, files, np.array(numbers, np.int64), keys)


@lru_cache(maxsize=64)
def _labels(path: str, with_images: bool, state: tuple[int, int]) -> LabelFile:
    return open_labels(path, IMAGE_LABELS if with_images else POSE_AND_SHAPE)


def _filled(columns: Columns, labels: LabelFile, rows: range) -> Columns:
    """All CAMERAHMR columns. Absent numbers are NaN (optional ones) or zero with `known_...` False."""
    count = len(rows)
    columns = dict(columns)
    columns["known_box"] = np.full(count, "center" in columns and "scale" in columns)
    columns["known_camera"] = np.full(count, "cam_int" in columns)
    if "imgname" not in columns:
        columns["imgname"] = np.array([image_name(labels, row) for row in rows], object)
    if "gender" not in columns:
        columns["gender"] = np.full(count, "neutral", object)
    for name, shape, value in (
        ("center", (2,), 0.0),
        ("scale", (2,), 0.0),
        ("cam_int", (3, 3), 0.0),
        ("gtkps", (KEYPOINTS, 3), 0.0),
        ("trans_cam", (3,), np.nan),
        ("keypoints3d", (KEYPOINTS, 4), np.nan),
    ):
        if name not in columns:
            columns[name] = np.full((count, *shape), value, np.float32)
    return columns


def _check_rows(rows: _Rows) -> None:
    """Find rows whose labels cannot be used."""
    columns = rows.columns

    def finite(name: str) -> np.ndarray:
        return np.isfinite(columns[name].reshape(len(rows), -1)).all(axis=1)

    unreadable = [i for i, name in enumerate(columns["imgname"]) if not name or not _is_text(name)]
    rows.reject(unreadable, "unreadable_row", "imgname is empty or not text")
    rows.reject(np.flatnonzero(~finite("pose_cam")), "non_finite_pose", "pose_cam holds NaN or infinity")
    rows.reject(np.flatnonzero(~finite("shape")), "non_finite_shape", "shape holds NaN or infinity")
    side = box_side(columns["scale"])
    boxed = finite("center") & np.isfinite(side) & (side >= SMALLEST_BOX) & (side <= LARGEST_BOX)
    for row in np.flatnonzero(~boxed & columns["known_box"]).tolist():
        center = ", ".join(f"{x:g}" for x in columns["center"][row])
        rows.reject([row], "degenerate_box", f"box of {side[row]:g} px around ({center})")
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


_CropJob = tuple[list[int], "Future[list[Crop | tuple[str, str]]]"]


def _start_crops(
    pool: ThreadPoolExecutor, spec: ShardSpec, rows: _Rows, wanted: np.ndarray, settings: ConversionSettings
) -> list[_CropJob]:
    """Jobs by image, so that an image with several people is decoded once."""
    if spec.image_root is None:
        return []
    people: dict[ImageRef, list[int]] = {}
    for row in wanted.tolist():
        people.setdefault(spec.image(row), []).append(row)  # type: ignore[arg-type]
    centers, sides = rows.columns["center"], box_side(rows.columns["scale"])
    jobs = []
    for ref, members in people.items():
        boxes = [(centers[row], float(sides[row])) for row in members]
        jobs.append((members, pool.submit(_crop_people, spec.image_root, ref, boxes, settings)))
    return jobs


def _crop_people(
    root: str, ref: ImageRef, boxes: list[tuple[np.ndarray, float]], settings: ConversionSettings
) -> list[Crop | tuple[str, str]]:
    """The crop of each box, or (reason, detail)."""
    try:
        if ref.size > LARGEST_IMAGE_FILE:
            raise ImageError(f"a file of {ref.size} bytes")
        data = read_image(root, ref)
        shrink = min(side for _, side in boxes) * settings.context / settings.crop_size
        factor = reduction(data, shrink) if settings.crop == "person" else 1
        pixels, full = decode_image(data, factor), image_size(data)
    except OSError as error:
        return [("missing_image", f"{ref.label}: {error.strerror or error}")] * len(boxes)
    except (EOFError, ImageError) as error:
        return [("corrupt_image", f"{ref.label}: {error}")] * len(boxes)
    found: list[Crop | tuple[str, str]] = []
    width, height = full
    for center, side in boxes:
        half = side / 2
        inside = -half < center[0] < width + half and -half < center[1] < height + half
        if not inside:
            where = f"({center[0]:g}, {center[1]:g})"
            found.append(("degenerate_box", f"box of {side:g} px around {where} outside the {width} x {height} image"))
        elif settings.crop == "none":
            found.append(whole_frame(data, pixels, settings.jpeg_quality))
        else:
            size, quality = settings.crop_size, settings.jpeg_quality
            found.append(person_crop(pixels, center, side, settings.context, size, quality, full, factor))
    return found


@dataclass
class _Geometry:  # per row of the shard
    image_size: np.ndarray
    crop_size: np.ndarray
    affine: np.ndarray


def _collect(jobs: list[_CropJob], rows: _Rows, wanted: np.ndarray) -> tuple[dict[int, bytes], _Geometry]:
    count = len(rows)
    geometry = _Geometry(
        np.full((count, 2), -1, np.int32), np.zeros((count, 2), np.int32), np.tile(np.eye(3)[:2], (count, 1, 1))
    )
    images: dict[int, bytes] = {}
    for members, job in jobs:
        for row, crop in zip(members, job.result(), strict=True):
            if isinstance(crop, tuple):
                rows.reject([row], *crop)
                continue
            images[row] = crop.data
            geometry.image_size[row] = crop.image_size
            geometry.crop_size[row] = crop.crop_size
            geometry.affine[row] = crop.affine
    return images, geometry


def _fit(rows: _Rows, wanted: np.ndarray, bodies: Bodies, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
    """Fields of SKELFit for the wanted rows, with the source's translation and keypoints beside them."""
    if not len(wanted):
        return {f.name: np.zeros((0, *field_shape(f)), field_dtype(f)) for f in HMR_SKEL}
    found: dict[str, np.ndarray] = {}
    for gender, chosen in _by_gender(rows.columns["gender"][wanted]):
        poses, betas = rows.columns["pose_cam"][wanted[chosen]], rows.columns["shape"][wanted[chosen]]
        points, confidence = bodies.keypoints(gender, poses, betas)
        trans, source = _translations(rows.columns, wanted[chosen], points, confidence)
        fitted = dict(bodies.fit(gender, poses, betas, trans, progress))
        fitted["limits_pressed"] = np.asarray(fitted["limits_pressed"]).reshape(len(poses), -1).sum(axis=1)
        fitted["smpl_trans"], fitted["trans_source"] = trans, source
        fitted["keypoints_3d"] = _keypoints_3d(rows.columns["keypoints3d"][wanted[chosen]], points, confidence, trans)
        for name, values in fitted.items():
            values = np.asarray(values)
            if name not in found:
                found[name] = np.empty((len(wanted), *values.shape[1:]), values.dtype)
            found[name][chosen] = values
    return found


def _by_gender(genders: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for gender in sorted(set(genders.tolist())):
        yield gender, np.flatnonzero(genders == gender)


def _translations(
    columns: Columns, rows: np.ndarray, points: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    trans = columns["trans_cam"][rows].astype(np.float32)
    source = np.full(len(rows), "label", object)
    absent = np.flatnonzero(~np.isfinite(trans).all(axis=1))
    trans[absent], source[absent] = 0, "none"
    seen = absent[columns["known_camera"][rows[absent]]]
    if len(seen):
        cameras, keypoints = columns["cam_int"][rows[seen]], columns["gtkps"][rows[seen]]
        solved, possible = solve_translation(points[seen], confidence, keypoints, cameras)
        trans[seen] = solved
        source[seen[possible]] = "keypoints"
    return trans, source


def _keypoints_3d(labelled: np.ndarray, points: np.ndarray, confidence: np.ndarray, trans: np.ndarray) -> np.ndarray:
    absent = np.isnan(labelled).all(axis=(1, 2))
    found = labelled.astype(np.float32)
    placed = np.where(np.asarray(confidence)[:, None] > 0, points + trans[:, None], 0)
    sure = np.broadcast_to(np.asarray(confidence)[None, :, None], (*points.shape[:2], 1))
    found[absent] = np.concatenate([placed, sure], axis=2)[absent]
    return _without_gaps(found)


def _without_gaps(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints that are not finite become zero with confidence zero."""
    finite = np.isfinite(keypoints).all(axis=2, keepdims=True)
    return np.where(finite, keypoints, 0).astype(np.float32)


def _sample_columns(
    spec: ShardSpec, rows: _Rows, kept: np.ndarray, fitted: dict[str, np.ndarray], geometry: _Geometry
) -> Columns:
    """HMR_SKEL columns of the kept rows."""
    labels = {name: values[kept] for name, values in rows.columns.items()}
    chosen = kept.tolist()
    images = [spec.image(row) for row in chosen] if spec.image_root is not None else []
    columns: Columns = {
        "key": np.array([rows.keys[row] for row in chosen], object),
        "dataset": np.array([dataset_name(rows.label_file[row]) for row in chosen], object),
        "label_file": np.array([rows.label_file[row] for row in chosen], object),
        "label_row": rows.label_row[kept],
        "imgname": labels["imgname"],
        "person": np.array([spec.persons[row] for row in chosen], np.int32),
        "image_source": np.array([image.label for image in images] or [""] * len(chosen), object),  # type: ignore
        "gender": labels["gender"],
        "image_size": geometry.image_size[kept],
        "crop_size": geometry.crop_size[kept],
        "box_center": np.where(labels["known_box"][:, None], labels["center"], 0),
        "box_size": np.where(labels["known_box"], box_side(labels["scale"]), 0),
        "cam_int": labels["cam_int"],
        "crop_affine": geometry.affine[kept],
        "keypoints_2d": _without_gaps(labels["gtkps"]),
        "keypoints_3d": fitted["keypoints_3d"],
        "poses": fitted["poses"],
        "betas": fitted["betas"],
        "trans": fitted["trans"],
        **_mirrored(fitted["poses"], fitted["trans"]),
        "smpl_poses": labels["pose_cam"],
        "smpl_betas": labels["shape"],
        "smpl_trans": fitted["smpl_trans"],
        "trans_source": fitted["trans_source"],
        "limits_pressed": fitted["limits_pressed"].astype(np.int32),
    }
    columns |= {name: fitted[name] for name in _QUALITY}
    return columns


def _mirrored(poses: np.ndarray, trans: np.ndarray) -> Columns:
    """Parameters of the mirrored people: a permutation and changes of sign, so nothing is rounded."""
    import torch

    from fitting.mirror import mirror_poses, mirror_trans

    return {
        "mirrored_poses": mirror_poses(torch.from_numpy(poses)).numpy(),
        "mirrored_trans": mirror_trans(torch.from_numpy(trans)).numpy(),
    }


def _rejected(rows: _Rows) -> list[dict[str, Any]]:
    """schemas.REJECTS as documents, in the order of the rows."""
    found = []
    for row in sorted(rows.problems):
        reason, detail = rows.problems[row]
        name = rows.columns["imgname"][row]
        document = {"label_file": rows.label_file[row], "label_row": int(rows.label_row[row])}
        document["imgname"] = name if name is not None and _is_text(name) else None
        found.append({**document, "reason": reason, "detail": detail})
    return found
