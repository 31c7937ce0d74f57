"""How long `hmr-skel inspect` takes for the numbers of a million people: `python -m tests.benchmarks.inspect_numbers`.

The time is that of the whole command, interpreter and imports included, the best of some runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

import written_shards

from pipelines.write.shards import write_labels
from schemas import HMR_SKEL, columns_to_table

log = logging.getLogger("inspect_numbers")
TARGET_SECONDS = 2.0


def main() -> int:
    """Writes shards without tars, runs the command on them, and fails if it takes longer than the target."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows-per-shard", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    worst = 0.0
    for size in options.rows_per_shard:
        with tempfile.TemporaryDirectory() as folder:
            columns = written_shards.label_columns(min(size, 10_000))
            table = columns_to_table(HMR_SKEL, columns)
            whole = pa.concat_tables([table] * (size // len(table)))
            write_labels(first := Path(folder) / "000000.parquet", whole)
            for index in range(1, options.rows // size):
                shutil.copyfile(first, Path(folder) / f"{index:06d}.parquet")
            seconds, processor = map(min, zip(*(_timed(folder) for _ in range(options.runs)), strict=True))
        log.info("%d rows in shards of %d: %.2f s, processor %.2f s", options.rows, size, seconds, processor)
        worst = max(worst, seconds)
    return 0 if worst < TARGET_SECONDS else 1


def _timed(folder: str) -> tuple[float, float]:
    """Seconds of the clock, and of the processor over all cores."""
    began, used = time.perf_counter(), os.times()
    subprocess.run(
        [Path(sys.executable).parent / "hmr-skel", "inspect", folder, "--json"], check=True, capture_output=True
    )
    now = os.times()
    processor = now.children_user + now.children_system - used.children_user - used.children_system
    return time.perf_counter() - began, processor


if __name__ == "__main__":
    sys.exit(main())
