"""MOYO-HARD from MOYO's labels: of every test sequence the front camera's middle half.

    python -m train.benchmarks.moyo_hard moyo_v2.npz moyo_hard.npz

Source: Li, Jin et al., SKEL-CF, ECCV 2026: camera 1, the middle 50 % of each of 29 sequences, 9,725 images.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command.hmr_skel import guarded
from pipelines.files.npz_objects import read_arrays
from pipelines.files.outputs import written
from schemas import InputError
from train.benchmarks.labels import read_benchmark

SEQUENCES, IMAGES = 29, 9725
FRONT = re.compile(r"(^|/)YOGI_Cam_0?1(/|$)")


def middle_half(sequence: Sequence[str], imgname: Sequence[str]) -> np.ndarray:
    """Rows of the front camera, of each sequence those frames whose rank lies in [n/4, 3n/4), in the file's order.

    Frames are ranked by the number in the image's name, so that the file's order does not matter.
    """
    front = np.array([bool(FRONT.search(name)) for name in imgname])
    kept, names = [], np.asarray(sequence, object)
    for name in dict.fromkeys(sequence):
        rows = np.flatnonzero((names == name) & front)
        rows = np.array(sorted(rows, key=lambda n: _frame(imgname[n])), dtype=int)
        kept.append(rows[len(rows) // 4 : 3 * len(rows) // 4])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)


def build_moyo_hard(source: str, target: str) -> tuple[int, int]:
    """Writes MOYO-HARD in MOYO's layout; how many sequences and images it has. Raises InputError."""
    people = read_benchmark(source)
    if people.layout != "B":
        raise InputError(f"a label file of layout {people.layout}", file=source, expected="MOYO's, with img_paths")
    rows = middle_half(people.sequence.tolist(), people.imgname.tolist())
    if not len(rows):
        raise InputError("no images of the front camera", file=source, field="img_paths", expected="YOGI_Cam_01/")
    members = {name: _rows(value, rows, len(people)) for name, value in read_arrays(source).items()}
    with written(Path(target)) as hidden, open(hidden, "wb") as file:  # given a name, NumPy would add an ending
        np.savez(file, **members)
    return len(set(people.sequence[rows])), len(rows)


def _rows(value: Any, rows: np.ndarray, count: int) -> Any:
    """What a member holds of these rows; what has no rows is kept whole."""
    if isinstance(value, dict):
        return np.array({key: _rows(inner, rows, count) for key, inner in value.items()}, dtype=object)
    if isinstance(value, np.ndarray) and value.shape[:1] == (count,):
        return value[rows]
    return value


def _frame(name: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else -1, name


def main(argv: list[str] | None = None) -> int:
    """Command line: SOURCE TARGET."""
    given = sys.argv[1:] if argv is None else argv
    if len(given) != 2:
        sys.stderr.write("usage: python -m train.benchmarks.moyo_hard MOYO.npz MOYO-HARD.npz\n")
        return 2
    return guarded(lambda: _told(*given), "moyo_hard")


def _told(source: str, target: str) -> None:
    sequences, images = build_moyo_hard(source, target)
    sys.stdout.write(f"{target}: {images:,} images of {sequences} sequences")
    same = (sequences, images) == (SEQUENCES, IMAGES)
    sys.stdout.write("\n" if same else f"; the paper's has {IMAGES:,} of {SEQUENCES}\n")


if __name__ == "__main__":
    sys.exit(main())
