"""What the job costs beyond its work: `python -m tests.benchmarks.pipeline [--people N] [--runs N]`.

The same people, with images in a tar, once by the job (Beam, shards, checksums, statistics, report) and once by one
bare loop: read, crop, fit, encode and write a tar. Both on one core, so that what the job does beside the fit is not
free, and by the processor's time, as the clock depends on what else the machine does. What planning many rows takes
is measured by `tests.benchmarks.planning`.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.build_hmr_skel import main as job
from pipelines.convert.crops import box_side, person_crop
from pipelines.convert.settings import FitSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.files.jpeg import decode_image, encode_jpeg
from pipelines.files.npz import npz_bytes
from pipelines.read.images import open_images, read_image
from pipelines.read.labels import open_labels

log = logging.getLogger("pipeline")
ALLOWED_OVERHEAD = 0.15


def main() -> int:
    """Prints a table; fails if the job costs more than the allowed overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    from rich.console import Console
    from rich.table import Table

    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_inputs(root, options.people)
        bodies_of_process(FitSettings(device="cpu")).load()
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        bare, whole = np.full(2, np.inf), np.full(2, np.inf)
        for run in range(options.runs):
            bare = np.minimum(bare, _bare_loop(root))
            whole = np.minimum(whole, _job(root, root / f"out{run}"))
        os.sched_setaffinity(0, cores)
        title = f"{options.people} people, one core, best of {options.runs}"
        table = Table("", "processor, s", "clock, s", "people/s by the clock", title=title)
        for name, spent in (("bare loop", bare), ("the job, planning and report included", whole)):
            table.add_row(name, *(f"{seconds:.2f}" for seconds in spent), f"{options.people / spent[1]:.1f}")
        table.add_row("overhead", *(f"{share:+.1%}" for share in whole / bare - 1))
        console.print(table)
    return 0 if whole[0] / bare[0] - 1 < ALLOWED_OVERHEAD else 1


def _clocks() -> np.ndarray:
    """Seconds of the processor (this process and its threads), and of the clock."""
    return np.array([time.process_time(), time.perf_counter()])


def _write_inputs(root: Path, people: int) -> None:
    """Two people per image of 640 x 480, noise and patches that compress as photographs do."""
    rng = np.random.default_rng(0)
    with tarfile.open(root / "aic.tar", "w") as tar:
        for number in range((people + 1) // 2):
            patches = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            image = np.kron(patches, np.ones((40, 40, 1), np.uint8))
            image = np.clip(image.astype(int) + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)
            data = encode_jpeg(image, 92)
            info = tarfile.TarInfo(f"aic-train/{number}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    poses = rng.normal(0, 0.15, (people, 72)).astype(np.float32)
    poses[:, 0] += np.pi
    np.savez(
        root / "aic.npz",
        imgname=np.array([f"aic-train/{i // 2}.jpg" for i in range(people)]),
        center=rng.uniform([200, 180], [440, 300], (people, 2)),
        scale=rng.uniform(0.8, 2.0, people),
        pose_cam=poses,
        shape=rng.normal(0, 0.5, (people, 10)).astype(np.float32),
        cam_int=np.tile(np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), (people, 1, 1)),
        gtkps=rng.uniform(0, 480, (people, 44, 3)),
        trans_cam=np.tile(np.array([0, 0, 4.0]), (people, 1)),
    )


def _job(root: Path, output: Path) -> np.ndarray:
    """`_clocks` for the job."""
    began = _clocks()
    arguments = ["--annotations", str(root / "aic.npz"), "--images", str(root / "aic.tar"), "--quiet"]
    if job([*arguments, "--threads", "1", "--output", str(output), "--samples-per-shard", "256"]):
        raise RuntimeError("the job failed")
    return _clocks() - began


def _bare_loop(root: Path) -> np.ndarray:
    """`_clocks` for the work alone: no plan, no statistics, no checksums, one thread."""
    fitter = bodies_of_process(FitSettings(device="cpu")).load()
    began = _clocks()
    labels = open_labels(root / "aic.npz").read()
    images = open_images(str(root / "aic.tar"))
    with tarfile.open(root / "bare.tar", "w") as tar:
        for first in range(0, len(labels["pose_cam"]), 256):
            rows = slice(first, first + 256)
            fit = fitter.fit(labels["pose_cam"][rows], labels["shape"][rows], labels["trans_cam"][rows]).numpy()
            name = pixels = None
            for i, row in enumerate(range(len(labels["pose_cam"]))[rows]):
                if labels["imgname"][row] != name:
                    name = labels["imgname"][row]
                    pixels = decode_image(read_image(images.root, images.find("aic", name)))
                side = float(box_side(labels["scale"][row]))
                crop = person_crop(pixels, labels["center"][row], side, 1.5, 384, 90)
                arrays = {key: fit[key][i] for key in ("poses", "betas", "trans")}
                arrays |= {key: labels[key][row] for key in ("pose_cam", "shape", "cam_int", "gtkps")}
                for ending, data in (("jpg", crop.data), ("npz", npz_bytes(arrays))):
                    info = tarfile.TarInfo(f"{row}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return _clocks() - began


if __name__ == "__main__":
    sys.exit(main())
