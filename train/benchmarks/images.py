"""Images of a benchmark: where they lie, decoded as stored, cut as the benchmark's released reader cuts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.files.jpeg import ImageError, opencv_image, read_encoded
from schemas import InputError
from train.benchmarks.people import BenchmarkPeople

CROP = 256
"""Side of the network's input, px."""


@dataclass(frozen=True)
class ImageFolders:
    """Folders below which image names are looked up, the first that has the file wins."""

    folders: tuple[Path, ...]

    def find(self, people: BenchmarkPeople, n: int) -> Path:
        """The image of person n. Raises InputError that names file and row if there is none."""
        name = str(people.imgname[n])
        bad = name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name or not name
        if not bad:
            for folder in self.folders:
                if (folder / name).is_file():
                    return folder / name
        looked = " or ".join(map(str, self.folders))
        problem = f"{name!r} leads out of the image folder" if bad else f"no image {name!r} below {looked}"
        raise InputError(problem, file=people.file, row=people.rows[n], field="imgname")


def read_benchmark_image(path: Path, people: BenchmarkPeople, n: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, pixels as stored: EXIF orientation is ignored. Raises InputError with the person's row."""
    try:
        pixels = opencv_image(read_encoded(path))
    except (OSError, ImageError) as error:
        problem = f"the image {path} cannot be decoded ({error})"
        raise InputError(problem, file=people.file, row=people.rows[n], field="imgname") from error
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def released_crop(image: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
    """(256, 256, 3): layouts A and C. Bilinear without antialiasing; the centre falls on pixel index 128."""
    zoom = CROP / side
    shift = CROP / 2 - zoom * np.asarray(center, np.float64)
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    return cv2.warpAffine(image, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR)


def whole_pixel_crop(image: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
    """(256, 256, 3): layout B. Corners are cut to whole pixels, towards zero; bilinear without antialiasing."""
    left, top, right, bottom = (int(v) for v in (*(center - side / 2), *(center + side / 2)))
    height, width = image.shape[:2]
    square = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), np.uint8)
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    rows, columns = inside.shape[:2]
    down, across = max(-top, 0), max(-left, 0)
    if rows and columns and top < height and left < width:
        square[down : down + rows, across : across + columns] = inside
    return cv2.resize(square, (CROP, CROP), interpolation=cv2.INTER_LINEAR)
