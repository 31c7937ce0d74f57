"""People per second and core: this project's stream against a loader that reads and crops whole photographs.

    python -m tests.benchmarks.loader [--seconds 10] [--people 128]

The other loader does what the field's trainers do for each person: read a photograph of one megapixel, decode it with
OpenCV, draw the same augmentation, cut the crop with cv2.warpAffine, normalise in float32. Both run in one process on
one core, on the same made-up pictures (smooth noise, JPEG quality 90), by turns. This project sends pixels as uint8 and
normalises them where the network is, so its rate is told with and without that.

Then the stream feeds a loop whose steps last 100 ms each and use no processor, as with a network on another device: how
long do its batches, as large as the preset tiny's, keep it waiting?
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.written_shards import label_columns, write_shard

PHOTOGRAPH = (1152, 864)
CROP, CONTEXT = 384, 1.5


def make_data(folder: Path, people: int) -> dict[str, np.ndarray]:
    """A shard of crops, and photographs PHOTO_N.jpg of the same people; the labels."""
    from tests import written_shards

    rng = np.random.default_rng(0)
    columns = label_columns(people)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
    columns["image_size"][:], columns["crop_size"][:] = PHOTOGRAPH, CROP
    columns["box_center"][:] = rng.uniform([350, 350], [800, 500], (people, 2))
    columns["box_size"][:] = rng.uniform(300, 600, people)
    zoom = CROP / (CONTEXT * columns["box_size"])
    columns["crop_affine"][:, 0, 0] = columns["crop_affine"][:, 1, 1] = zoom
    columns["crop_affine"][:, :, 2] = CROP / 2 - zoom[:, None] * columns["box_center"]
    columns["keypoints_2d"][..., :2] = columns["box_center"][:, None] + rng.normal(0, 100, (people, 44, 2))
    columns["keypoints_2d"][..., 2] = 1
    stored = []
    for n in range(people):
        # Energy falls with frequency as in photographs, so that the JPEGs have photographs' sizes.
        picture = sum(
            cv2.resize(rng.normal(0, 22, (864 // s, 1152 // s, 3)).astype(np.float32), PHOTOGRAPH)
            for s in (3, 9, 27, 81)
        )
        picture = (picture + 120).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"photo_{n}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        crop = cv2.warpAffine(picture, columns["crop_affine"][n], (CROP, CROP))
        stored.append(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    jpeg, written_shards.jpeg = written_shards.jpeg, stored.__getitem__
    try:
        write_shard(folder, "000000", columns)
    finally:
        written_shards.jpeg = jpeg
    return columns


def photograph_loader(folder: Path, columns: dict[str, np.ndarray], people: int, batch: int = 64):
    """Batches as the field's trainers make them."""
    rng = np.random.default_rng(1)
    mean, std = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    while True:
        images = []
        for n in rng.integers(0, people, batch):
            picture = cv2.imread(str(folder / f"photo_{n}.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            picture = picture[:, :, ::-1]
            zoom = 256 / (columns["box_size"][n] * (1 + rng.uniform(-0.1, 0.1)))
            affine = np.array([[zoom, 0, 0], [0, zoom, 0]])
            affine[:, 2] = 128 - zoom * columns["box_center"][n]
            if zoom < 1:  # against aliasing the field blurs the whole photograph first
                picture = cv2.GaussianBlur(picture, (0, 0), (1 / zoom - 1) / 2)
            crop = cv2.warpAffine(picture, affine, (256, 256), flags=cv2.INTER_LINEAR).astype(np.float32)
            crop = np.clip(crop * rng.uniform(0.8, 1.2, 3), 0, 255)
            images.append(torch.from_numpy(((crop - mean) / std).transpose(2, 0, 1).astype(np.float32)))
        yield torch.stack(images)


def stream_loader(folder: Path, normalise: bool, batch: int = 64):
    """Batches of this project: as they reach the device, or, as the other loader's, normalised in float32."""
    from train.data.augmentation_config import AugmentationConfig
    from train.data.batch import as_batch
    from train.data.config import DataConfig
    from train.data.loader import PeopleStream, stream
    from train.network.inputs import normalised

    people = PeopleStream(DataConfig(shards=[str(folder)]), batch, augmentation=AugmentationConfig())
    for _, values in stream(people, epochs=1_000_000):
        yield normalised(as_batch(values).image) if normalise else as_batch(values).image


def waiting(folder: Path, workers: int, steps: int, step: float = 0.1, batch: int = 32) -> tuple[float, int]:
    """Share of time that steps of `step` seconds wait for batches, and how many of them wait over 10 ms."""
    from train.data.augmentation_config import AugmentationConfig
    from train.data.batch import as_batch
    from train.data.config import DataConfig
    from train.data.loader import PeopleStream, stream
    from train.network.inputs import normalised

    people = PeopleStream(DataConfig(shards=[str(folder)]), batch, augmentation=AugmentationConfig())
    batches = stream(people, epochs=1_000_000, workers=workers)
    next(batches)  # starting the workers is no part of it
    waits = []
    for _ in range(steps):
        time.sleep(step)
        began = time.perf_counter()
        values = next(batches)[1]
        waits.append(time.perf_counter() - began)
        normalised(as_batch(values).image)
    return sum(waits) / (sum(waits) + steps * step), sum(wait > 0.01 for wait in waits)


def rate(batches, seconds: float) -> float:
    """People per second of processor time (which is what a core can do, however many others run beside)."""
    next(batches)
    people, start, began = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        people += len(next(batches))
    return people / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="per loader and turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--people", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100, help="of 100 ms, to wait for batches in")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns = make_data(folder, options.people)
        photographs = photograph_loader(folder, columns, options.people)
        loaders = photographs, stream_loader(folder, normalise=True), stream_loader(folder, normalise=False)
        rates = [tuple(rate(batches, options.seconds) for batches in loaders) for _ in range(options.turns)]
        waits = {workers: waiting(folder, workers, options.steps) for workers in (1, 2)}
        sizes = [np.mean([f.stat().st_size for f in folder.glob(g)]) / 1024 for g in ("photo_*.jpg",)]
        sizes.append((folder / "000000.tar").stat().st_size / 1024 / options.people)
    table = Table(title="People per second of one core")
    for heading in ("turn", "whole photographs", "shards, float32 batches", "shards, as trained (uint8)", "ratio"):
        table.add_column(heading, justify="right")
    rows = {str(number + 1): row for number, row in enumerate(rates)}
    rows["median"] = tuple(float(np.median(column)) for column in zip(*rates, strict=True))
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in row), f"{row[1] / row[0]:.1f}, {row[2] / row[0]:.1f}")
    table.add_row("KiB each", f"{sizes[0]:.0f}", f"{sizes[1]:.0f}", "", "")
    Console(width=100).print(table)
    for workers, (share, late) in waits.items():
        sys.stdout.write(
            f"{options.steps} steps of 100 ms, batches of 32, {workers} worker(s): "
            f"{share:.1%} of the time waiting, {late} steps over 10 ms\n"
        )


if __name__ == "__main__":
    main()
