"""What planning takes: `python -m tests.benchmarks.planning [--rows 200000 2000000] [--folder DIR]`.

For each number of rows a label file and, with an image per row, a tar of several GB are written, planned in a process
of its own as the job plans them (index of the tar, persons, specs to a plan file), and 2,000 images read by range. The
peak memory must not grow with the rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ALLOWED_SECONDS = 120
ALLOWED_GROWTH_MB = 20
_IMAGE_BYTES = 1024
PLAN = """
import os, pathlib, random, re, sys, time
from pipelines.read.images import open_images, read_image
from pipelines.plan.plan_file import plan_file
from pipelines.plan.planning import find_label_files, plan_shards
began, cpu = time.perf_counter(), time.process_time()
labels, where, out = sys.argv[1:]
images = open_images(where)
specs = plan_shards(find_label_files([labels], with_images=False), images, 1000)
with plan_file(pathlib.Path(out), "bench", specs) as planned:
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = os.path.getsize(planned[0].plan)
    if images is not None:
        for shard in random.Random(0).sample(planned, 20):
            spec = shard.spec()
            assert all(len(read_image(spec.image_root, spec.image(i))) for i in range(100))
status = pathlib.Path("/proc/self/status").read_text()  # getrusage would tell what the parent had when it forked
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(len(planned), round(size / 1e6), round(seconds, 1), round(cpu, 1), round(int(peak) / 1e3))
"""


def main() -> int:
    """Prints a table; fails if planning takes too long, or more memory for more rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--folder", type=Path, help="where to write; needs some 2 KB per row. Default: TMPDIR")
    options = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    table = Table("rows", "images", "labels, MB", "tar, MB", title="planning, one process")
    for title in ("shards", "plan, MB", "seconds", "CPU seconds", "peak memory, MB"):
        table.add_column(title, justify="right")
    peaks: dict[str, list[int]] = {"none": [], "tar": []}
    slowest = 0.0
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            labels, tar = Path(folder) / "insta1-release.npz", Path(folder) / "insta.tar"
            write_labels(labels, rows)
            write_tar(tar, rows)
            for images in peaks:
                where = str(tar) if images == "tar" else "none"
                command = [sys.executable, "-c", PLAN, str(labels), where, folder]
                found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                sizes = [f"{path.stat().st_size / 1e6:,.0f}" for path in (labels, tar)]
                table.add_row(f"{rows:,}", images, *sizes, *found)
                peaks[images].append(int(found[-1]))
                slowest = max(slowest, float(found[2]))
    Console(width=140).print(table)
    return int(slowest > ALLOWED_SECONDS or any(max(peak) - min(peak) > ALLOWED_GROWTH_MB for peak in peaks.values()))


def image_name(number: int) -> str:
    return f"insta/train/{number // 10_000:05d}/{number:012d}"


def write_labels(path: Path, rows: int) -> None:
    """Names, poses and shapes, uncompressed as `np.savez` leaves them; the rows of an image lie far apart."""
    images = np.random.default_rng(0).permutation(rows)
    names = np.array([image_name(number) + ".jpg" for number in np.minimum(images, images[::-1]).tolist()])
    np.savez(path, imgname=names, pose_cam=np.zeros((rows, 72), np.float32), shape=np.zeros((rows, 10), np.float32))


def write_tar(path: Path, members: int) -> None:
    """KEY.jpg of the same bytes each; headers are made many at a time."""
    template = np.frombuffer(_header(image_name(0) + ".jpg"), np.uint8)
    plain = int(template.sum()) - int(template[148:156].sum()) + 8 * 32
    with path.open("wb") as file:
        for first in range(0, members, 20_000):
            numbers = range(first, min(first + 20_000, members))
            blocks = np.zeros((len(numbers), 512 + _IMAGE_BYTES), np.uint8)
            blocks[:, :512], blocks[:, 512:] = template, 7
            names = np.frombuffer(b"".join(image_name(n).encode() for n in numbers), np.uint8).reshape(len(numbers), -1)
            blocks[:, : names.shape[1]] = names
            sums = plain + names.sum(axis=1, dtype=int) - int(template[: names.shape[1]].sum())
            blocks[:, 148:154] = np.frombuffer(b"".join(b"%06o" % s for s in sums.tolist()), np.uint8).reshape(-1, 6)
            file.write(blocks.tobytes())
        file.write(bytes(1024))


def _header(name: str) -> bytes:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = _IMAGE_BYTES
    return info.tobuf(tarfile.USTAR_FORMAT)


if __name__ == "__main__":
    sys.exit(main())
