"""One work unit: the rows of a shard spec, read, checked, fitted, cut out and written.

Images are read, decoded, cropped and encoded by a few threads while the main one fits. Rows that cannot be used are
left out (pipelines.convert.rows). What the data set's rows say:

- a translation that is absent or not finite is solved from the 2D keypoints, else zero (`trans_source` tells);
- body and translation are compared with the 2D keypoints, and mended, flagged or rejected (`label_check` tells);
- 3D keypoints that are absent come from the SMPL source;
- 2D and 3D keypoints that are not finite get confidence 0;
- without images, label files may lack camera, box and keypoints: these fields are then zero.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.convert.bodies import Bodies
from pipelines.convert.crop_jobs import CropJobs, Geometry, images_sha256
from pipelines.convert.crops import box_side
from pipelines.convert.reprojection import place_people, sizes_that_contradict
from pipelines.convert.rows import Rows, read_rows
from pipelines.convert.settings import ConversionSettings
from pipelines.files.lock import check_still_ours
from pipelines.files.storage import place
from pipelines.plan.planning import ShardSpec
from pipelines.read.labels import dataset_name
from pipelines.write.shards import finished_shard, write_shard, write_statistics
from schemas import HMR_SKEL, Columns, field_dtype, field_shape

log = logging.getLogger(__name__)

_QUALITY = (
    *("converged", "iterations", "vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm", "joint_error_mm"),
    *("stage_vertex_error_mm", "stage_cost", "limits_exceeded", "worst_limit_excess", "betas_change", "verdict"),
)


@dataclass
class FittedShard:
    """A shard whose people are fitted, and whose images may still be on their way."""

    spec: ShardSpec
    rows: Rows
    wanted: np.ndarray
    """Rows (n,) that were fitted."""
    fitted: dict[str, np.ndarray]
    """Fields of fitting.SKELFit of these, and what `_fit` adds."""
    crops: CropJobs
    seconds: dict[str, Any]
    """What it took so far, as `write_fitted` tells."""


def finished(spec: ShardSpec, settings: ConversionSettings) -> dict[str, Any] | None:
    """Statistics of the shard if it is there already, made from such a spec and these images, and undamaged.

    Images whose files have other times than when the shard was made (copied, or changed in place) are read: the shard
    is kept if they are the same to the byte.
    """
    directory = place(settings.output)
    stats = finished_shard(directory, spec)
    if stats is None or stats["images_modified"] == spec.modified_sha256:
        return stats
    wanted = read_rows(spec, settings.fit.smpl_gender).sound
    if images_sha256(spec, wanted, settings.crop.image_threads) != stats["images_sha256"]:
        log.info("%s: images have changed; the shard is made again", directory / spec.name)
        return None
    check_still_ours(directory, settings.run)
    stats["images_modified"] = spec.modified_sha256
    write_statistics(directory, spec.name, stats)
    return stats


def convert_shard(
    spec: ShardSpec,
    settings: ConversionSettings,
    bodies: Bodies,
    progress: Callable[[int], object] = lambda people: None,
) -> dict[str, Any]:
    """Make one shard, or find it finished; returns its statistics. `progress` is told people as they are done.

    Raises InputError if a label file cannot be read, OutputTaken if another run has the folder by now.
    """
    if (stats := finished(spec, settings)) is not None:
        progress(len(spec))
        return stats
    return write_fitted(fit_shard(spec, settings, bodies, progress), settings)


def fit_shard(
    spec: ShardSpec, settings: ConversionSettings, bodies: Bodies, progress: Callable[[int], object]
) -> FittedShard:
    """The first half of a conversion: reads rows, begins to cut out their images, and fits."""
    clock = {"began": time.time()}
    began = time.perf_counter()
    rows = read_rows(spec, settings.fit.smpl_gender)
    wanted = rows.sound
    progress(len(spec) - len(wanted))
    crops = CropJobs(spec, rows, wanted, settings.crop)
    busy: dict[str, float] = {}
    start = time.perf_counter()
    try:
        fitted = _fit(rows, wanted, bodies, progress, busy)
    except BaseException:
        crops.cancel()
        raise
    end = time.perf_counter()
    seconds = clock | {"fit": busy, "device_wait": max(0.0, end - start - sum(busy.values())), "all": end - began}
    return FittedShard(spec, rows, wanted, fitted, crops, seconds)


def write_fitted(shard: FittedShard, settings: ConversionSettings) -> dict[str, Any]:
    """The second half: waits for the images, writes, and gives the statistics. Another thread may do it.

    "seconds" of the statistics: when the work began and ended (time.time), and how long it took to fit (by device), to
    wait for the device, to wait for images, and in all.
    """
    began = time.perf_counter()
    images, geometry = shard.crops.collect()
    waited = time.perf_counter() - began
    _reject_other_images(shard.rows, geometry)
    kept = _kept(shard)
    rows = shard.wanted[kept]
    fitted = {name: values[kept] for name, values in shard.fitted.items()}
    columns = _sample_columns(shard.spec, shard.rows, rows, fitted, geometry)
    directory = place(settings.output)
    check_still_ours(directory, settings.run)
    stats = write_shard(
        directory,
        shard.spec,
        columns,
        [images.get(row) for row in rows.tolist()],
        shard.rows.rejected(),
        settings.float_width,
        settings.versions,
        settings.made_with(),
        shard.crops.images_sha256,
        lambda: check_still_ours(directory, settings.run),
    )
    seconds = dict(shard.seconds, images=waited, ended=time.time())
    seconds["all"] += time.perf_counter() - began
    return stats | {"seconds": seconds}


def _kept(shard: FittedShard) -> np.ndarray:
    """Which of the wanted rows become samples: those whose fit is finite and that have not been rejected."""
    finite = np.ones(len(shard.wanted), bool)
    for name in ("poses", "betas", "trans", *_QUALITY):
        values = shard.fitted[name]
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    shard.rows.reject(shard.wanted[~finite], "non_finite_pose", "the fit is not finite")
    return np.array([i for i, row in enumerate(shard.wanted.tolist()) if row not in shard.rows.problems], np.int64)


def _fit(
    rows: Rows, wanted: np.ndarray, bodies: Bodies, progress: Callable[[int], object], busy: dict[str, float]
) -> dict[str, np.ndarray]:
    """Fields of SKELFit for the wanted rows, with the source's translation and keypoints beside them.

    Adds to `busy` the seconds that each device spent on it.
    """

    def spent(device: str, seconds: float) -> None:
        busy[device] = busy.get(device, 0.0) + seconds

    if not len(wanted):
        return {f.name: np.zeros((0, *field_shape(f)), field_dtype(f)) for f in HMR_SKEL}
    found: dict[str, np.ndarray] = {}
    for gender, chosen in _by_gender(rows.columns["gender"][wanted]):
        poses, betas = rows.columns["pose_cam"][wanted[chosen]], rows.columns["shape"][wanted[chosen]]
        points, confidence = bodies.keypoints(gender, poses, betas)
        placed = place_people(rows.columns, wanted[chosen], points, confidence)
        _reject_behind(rows, wanted[chosen], placed.error)
        trans = placed.trans
        fitted = dict(bodies.fit(gender, poses, betas, trans, progress, spent=spent))
        for name in ("limits_pressed", "betas_pressed"):
            fitted[name] = np.asarray(fitted[name]).reshape(len(poses), -1).sum(axis=1)
        fitted["verdict"] = fitted["verdict"].astype(object)
        fitted["smpl_trans"], fitted["trans_source"] = trans, placed.source
        fitted["label_check"], fitted["reprojection_error"] = placed.check, placed.error
        labelled = rows.columns["keypoints3d"][wanted[chosen]]
        fitted |= _keypoints_3d(labelled, points, confidence, trans)
        for name, values in fitted.items():
            values = np.asarray(values)
            if name not in found:
                found[name] = np.empty((len(wanted), *values.shape[1:]), values.dtype)
            found[name][chosen] = values
    return found


def _by_gender(genders: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for gender in sorted(set(genders.tolist())):
        yield gender, np.flatnonzero(genders == gender)


def _reject_behind(rows: Rows, chosen: np.ndarray, errors: np.ndarray) -> None:
    behind = chosen[np.isinf(errors)]
    rows.reject(behind, "behind_camera", "the body lies behind the camera that sees its 2D keypoints")


def _reject_other_images(rows: Rows, geometry: Geometry) -> None:
    columns = rows.columns
    for row in np.flatnonzero(sizes_that_contradict(geometry.image_size, columns["cam_int"], columns["gtkps"])):
        width, height = geometry.image_size[row]
        x, y = columns["cam_int"][row, :2, 2]
        detail = f"an image of {width} x {height} px, labels for one with its middle at ({x:g}, {y:g})"
        rows.reject([row], "other_image_size", detail)


def _keypoints_3d(labelled: np.ndarray, points: np.ndarray, confidence: np.ndarray, trans: np.ndarray) -> Columns:
    """The label's 3D keypoints, those of the SMPL body where there are none, and which of them it is."""
    absent = np.isnan(labelled).all(axis=(1, 2))
    found = labelled.astype(np.float32)
    placed = np.where(np.asarray(confidence)[:, None] > 0, points + trans[:, None], 0)
    sure = np.broadcast_to(np.asarray(confidence)[None, :, None], (*points.shape[:2], 1))
    found[absent] = np.concatenate([placed, sure], axis=2)[absent]
    of_body = "smpl" if np.all(confidence) else "smpl_joints"
    source = np.where(absent, of_body, "label").astype(object)
    return {"keypoints_3d": _without_gaps(found), "keypoints_3d_source": source}


def _without_gaps(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints that are not finite become zero with confidence zero."""
    finite = np.isfinite(keypoints).all(axis=2, keepdims=True)
    return np.where(finite, keypoints, 0).astype(np.float32)


def _sample_columns(
    spec: ShardSpec, rows: Rows, kept: np.ndarray, fitted: dict[str, np.ndarray], geometry: Geometry
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
        "exif_orientation": geometry.orientation[kept],
        "box_center": np.where(labels["known_box"][:, None], labels["center"], 0),
        "box_size": np.where(labels["known_box"], box_side(labels["scale"]), 0),
        "box_extent": np.where(labels["known_box"][:, None], 200 * labels["scale"], 0),
        "cam_int": labels["cam_int"],
        "crop_affine": geometry.affine[kept],
        "keypoints_2d": _without_gaps(labels["gtkps"]),
        "keypoints_3d": fitted["keypoints_3d"],
        "keypoints_3d_source": fitted["keypoints_3d_source"],
        "poses": fitted["poses"],
        "betas": fitted["betas"],
        "trans": fitted["trans"],
        **_mirrored(fitted["poses"], fitted["trans"]),
        "smpl_poses": labels["pose_cam"],
        "smpl_betas": labels["shape"],
        "smpl_trans": fitted["smpl_trans"],
        "trans_source": fitted["trans_source"],
        "limits_pressed": fitted["limits_pressed"].astype(np.int32),
        "betas_pressed": fitted["betas_pressed"].astype(np.int32),
    }
    columns |= {name: fitted[name] for name in (*_QUALITY, "label_check", "reprojection_error")}
    return columns


def _mirrored(poses: np.ndarray, trans: np.ndarray) -> Columns:
    """Parameters of the mirrored people: a permutation and changes of sign, so nothing is rounded."""
    import torch

    from fitting.body.mirror import mirror_poses, mirror_trans

    return {
        "mirrored_poses": mirror_poses(torch.from_numpy(poses)).numpy(),
        "mirrored_trans": mirror_trans(torch.from_numpy(trans)).numpy(),
    }
