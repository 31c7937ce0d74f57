"""The images of a shard's people, cut out by a few threads while something else goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from pipelines.convert.crops import Crop, box_side, person_crop, whole_frame
from pipelines.convert.rows import Rows
from pipelines.convert.settings import CropSettings
from pipelines.files.jpeg import ImageError, decode_image, image_size, reduction
from pipelines.files.pictures import exif_orientation
from pipelines.plan.planning import ShardSpec
from pipelines.read.images import ImageRef, read_image

LARGEST_IMAGE_FILE = 1 << 28
"""Bytes of an encoded image beyond which it is refused unread."""

_MISSING, _CORRUPT = "missing_image", "corrupt_image"


@dataclass
class Geometry:
    """Sizes (n, 2) of image and crop, px, affines (n, 2, 3) between them, and EXIF orientations (n,), 0 without image,
    as HMR_SKEL has them."""

    image_size: np.ndarray
    crop_size: np.ndarray
    affine: np.ndarray
    orientation: np.ndarray


class CropJobs:
    """Cuts out the people of the rows `wanted`, from now on; `collect` waits for it, `cancel` gives it up."""

    def __init__(self, spec: ShardSpec, rows: Rows, wanted: np.ndarray, settings: CropSettings) -> None:
        self.rows = rows
        self._pool = ThreadPoolExecutor(max(1, settings.image_threads), thread_name_prefix="images")
        self._jobs: list[tuple[list[int], Future[tuple[str, list[Crop | tuple[str, str]]]]]] = []
        self.images_sha256 = ""
        """Stands for the images that were read, after `collect`; empty without images."""
        people = _people(spec, wanted)
        centers, sides = rows.columns["center"], box_side(rows.columns["scale"])
        for ref, members in people.items():
            boxes = [(centers[row], float(sides[row])) for row in members]
            self._jobs.append((members, self._pool.submit(_crop_people, spec.image_root, ref, boxes, settings)))

    def collect(self) -> tuple[dict[int, bytes], Geometry]:
        """The image of each row that has one, and the geometry of all rows; rows without image are rejected."""
        count = len(self.rows)
        affines = np.tile(np.eye(3)[:2], (count, 1, 1))
        geometry = Geometry(
            np.full((count, 2), -1, np.int32), np.zeros((count, 2), np.int32), affines, np.zeros(count, np.int32)
        )
        images: dict[int, bytes] = {}
        read: list[str] = []
        with self._pool:
            for members, job in self._jobs:
                sha256, crops = job.result()
                read.append(sha256)
                for row, crop in zip(members, crops, strict=True):
                    if isinstance(crop, tuple):
                        self.rows.reject([row], *crop)
                        continue
                    images[row] = crop.data
                    geometry.image_size[row] = crop.image_size
                    geometry.crop_size[row] = crop.crop_size
                    geometry.affine[row] = crop.affine
                    geometry.orientation[row] = crop.orientation
        self.images_sha256 = _together(read)
        return images, geometry

    def cancel(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def images_sha256(spec: ShardSpec, wanted: np.ndarray, threads: int) -> str:
    """What `CropJobs.images_sha256` is, from reading the images and no more."""
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="images") as pool:
        return _together(pool.map(lambda ref: _sha256(spec.image_root or "", ref), _people(spec, wanted)))


def _people(spec: ShardSpec, wanted: np.ndarray) -> dict[ImageRef, list[int]]:
    """The rows that each image is of: an image with several people is decoded once."""
    people: dict[ImageRef, list[int]] = {}
    for row in wanted.tolist() if spec.image_root is not None else ():
        people.setdefault(spec.image(row), []).append(row)  # type: ignore[arg-type]
    return people


def _together(sums: Iterable[str]) -> str:
    lines = "\n".join(sums)
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""


def _sha256(root: str, ref: ImageRef) -> str:
    """Of an image's bytes; of one that cannot be read, what `_crop_people` says of it."""
    try:
        return hashlib.sha256(_encoded(root, ref)).hexdigest()
    except OSError:
        return _MISSING
    except (EOFError, ImageError):
        return _CORRUPT


def _encoded(root: str, ref: ImageRef) -> bytes:
    if ref.size > LARGEST_IMAGE_FILE:
        raise ImageError(f"a file of {ref.size} bytes")
    return read_image(root, ref)


def _crop_people(
    root: str, ref: ImageRef, boxes: list[tuple[np.ndarray, float]], settings: CropSettings
) -> tuple[str, list[Crop | tuple[str, str]]]:
    """sha256 of the image, and the crop of each box, or (reason, detail)."""
    sha256 = ""
    try:
        data = _encoded(root, ref)
        sha256 = hashlib.sha256(data).hexdigest()
        shrink = min(side for _, side in boxes) * settings.context / settings.crop_size
        factor = reduction(data, shrink) if settings.crop == "person" else 1
        pixels, full = decode_image(data, factor), image_size(data)
    except OSError as error:
        return sha256 or _MISSING, [(_MISSING, f"{ref.label}: {error.strerror or error}")] * len(boxes)
    except (EOFError, ImageError) as error:
        return sha256 or _CORRUPT, [(_CORRUPT, f"{ref.label}: {error}")] * len(boxes)
    found: list[Crop | tuple[str, str]] = []
    orientation = exif_orientation(data)
    width, height = full
    for center, side in boxes:
        half = side / 2
        inside = -half < center[0] < width + half and -half < center[1] < height + half
        if not inside:
            where = f"({center[0]:g}, {center[1]:g})"
            found.append(("degenerate_box", f"box of {side:g} px around {where} outside the {width} x {height} image"))
            continue
        if settings.crop == "none":
            crop = whole_frame(data, pixels, settings.jpeg_quality)
        else:
            size, quality = settings.crop_size, settings.jpeg_quality
            crop = person_crop(pixels, center, side, settings.context, size, quality, full, factor)
        found.append(replace(crop, orientation=orientation))
    return sha256, found
