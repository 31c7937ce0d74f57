"""Label files of benchmarks, told apart by their keys, never by their names.

Layouts and their units: train/benchmarks/README.md. Layout A has `pose_cam` (or `smpl` beside `center`), B has
`img_paths` and `centers`, C `body_keypoints_3d`, `extra_keypoints_3d` or their 2D relatives without SMPL poses.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.files.npz import npz_members, texts
from pipelines.files.npz_objects import read_arrays
from pipelines.read.telltales import smpl_gender
from schemas import KEYPOINTS, InputError
from train.benchmarks.people import BenchmarkPeople, Layout
from train.benchmarks.plausible import check_units

PIXELS_PER_SCALE = 200.0
"""Px of layout A's unit of `scale`."""
OPENPOSE, EXTRA = 25, 19
UNTRUSTED_3D = slice(1, 15)
"""Of layout C's `body_keypoints_3d`: confidence is taken as 0, as 4D-Humans does; its last 19 say the same joints."""
NETWORK_ASPECT = 256 / 192
"""Height over width to which layout B's boxes grow."""

_A = ("imgname", "center", "scale", "pose_cam", "smpl", "shape", "betas", "gender", "gtkps", "body_keypoints_2d")
_B = ("names", "img_paths", "centers", "scales", "smpl")
_C = ("imgname", "center", "scale")
_C_KEYPOINTS = ("body_keypoints_2d", "extra_keypoints_2d", "body_keypoints_3d", "extra_keypoints_3d")
COMPARED_3D = "extra_keypoints_3d"


def read_benchmark(path: str | PathLike[str]) -> BenchmarkPeople:
    """Everybody in a label file of layout A, B or C.

    Raises InputError that names file, row and field for files of another layout, for arrays of another shape or type,
    for numbers that are not finite or of another unit, and for files of nobody.
    """
    path = fspath(path)
    keys = npz_members(path)
    layout = layout_of(keys, path)
    file = _File(path, read_arrays(path, {"A": _A, "B": _B, "C": _C + _C_KEYPOINTS}[layout]))
    people = {"A": _camerahmr, "B": _moyo, "C": _humans4d}[layout](file)
    check_units(people)
    return people


def layout_of(keys: Mapping[str, Any], path: str) -> Layout:
    """Which layout a file with these keys has. Raises InputError if none."""
    if "img_paths" in keys and "centers" in keys:
        return "B"
    if "center" in keys and ("pose_cam" in keys or "smpl" in keys):
        return "A"
    if "center" in keys and any(name in keys for name in _C_KEYPOINTS):
        return "C"
    raise InputError(
        f"not a benchmark's label file: its keys are {', '.join(list(keys)[:12]) or 'none'}",
        file=path,
        expected=f"center with pose_cam or smpl, center with {' or '.join(_C_KEYPOINTS)}, or img_paths with centers",
    )


class _File:
    """The members of a label file, checked when they are asked for."""

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path, self.values, self.rows = path, values, -1

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def raw(self, name: str, source: Mapping[str, Any] | None = None, label: str = "") -> Any:
        source = self.values if source is None else source
        if name not in source:
            raise InputError("the field is missing", file=self.path, field=label or name)
        return source[name]

    def text(self, name: str) -> np.ndarray:
        """(N,) as str; bytes are UTF-8."""
        values = np.asarray(self.raw(name))
        if values.dtype.kind not in "USO":
            raise InputError(f"values of type {values.dtype}", file=self.path, field=name, expected="text (N,)")
        found = texts(values.reshape(-1))
        if None in found:
            row = found.tolist().index(None)
            raise InputError("not readable text", file=self.path, row=row, field=name, expected="text")
        self._count(name, len(found))
        if not len(found):
            raise InputError("nobody is in it", file=self.path, field=name, expected="at least one row")
        return found

    def numbers(
        self,
        name: str,
        *shapes: tuple[int, ...],
        source: Mapping[str, Any] | None = None,
        label: str = "",
        finite: bool = True,
    ) -> np.ndarray:
        """(N, ...) float64 whose rows have as many numbers as the first of `shapes`, in any of these shapes."""
        label = label or name
        expected = " or ".join(f"({', '.join(['N', *map(str, shape)])})" for shape in shapes)
        raw = self.raw(name, source, label)
        try:
            values = np.asarray(raw)
            if values.dtype.kind not in "fiub":
                raise ValueError
        except ValueError as error:
            raise InputError("not an array of numbers", file=self.path, field=label, expected=expected) from error
        if not values.shape or values.shape[1:] not in shapes:
            raise InputError(f"an array of shape {values.shape}", file=self.path, field=label, expected=expected)
        self._count(label, len(values))
        values = values.astype(np.float64).reshape(len(values), *shapes[0])
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        if finite and len(bad):
            raise InputError("not a finite number", file=self.path, row=bad[0], field=label)
        return values

    def first(
        self, name: str, count: int, *tail: int, source: Mapping[str, Any] | None = None, label: str = "", finite=True
    ) -> np.ndarray:
        """(N, count, ...) of an array that may have more than `count`."""
        width = np.shape(self.raw(name, source, label or name))
        longest = width[1] if len(width) > 1 and width[1] >= count else count
        return self.numbers(name, (longest, *tail), source=source, label=label, finite=finite)[:, :count]

    def keypoints(self, name: str, count: int, width: int, finite: bool = False) -> np.ndarray:
        """(N, count, width) of which the last column is confidence: 1 if absent, 0 where a keypoint is not `finite`."""
        shape = np.shape(self.raw(name))
        if len(shape) == 3 and shape[2] == width - 1:
            found = self.first(name, count, width - 1, finite=finite)
            found = np.concatenate([found, np.ones_like(found[..., :1])], 2)
        else:
            found = self.first(name, count, width, finite=finite)
        found[~np.isfinite(found).all(2)] = 0
        return found

    def positive(self, values: np.ndarray, name: str) -> np.ndarray:
        bad = np.flatnonzero(~(values.reshape(len(values), -1) > 0).all(1))
        if len(bad):
            found = values[bad[0]].tolist()
            raise InputError(f"a box of {found}", file=self.path, row=bad[0], field=name, expected="more than 0")
        return values

    def members(self, name: str) -> Mapping[str, Any]:
        """The dictionary that a pickled member holds."""
        value = self.raw(name)
        if not isinstance(value, dict):
            raise InputError(f"holds a {type(value).__name__}", file=self.path, field=name, expected="a dictionary")
        return value

    def scales(self) -> np.ndarray:
        """(N, 2) of `scale`, which may be one number for both sides."""
        width = np.shape(self.raw("scale"))
        shape = width[1:] if width[1:] in ((2,), (1,)) else ()
        return np.broadcast_to(self.numbers("scale", shape).reshape(len(self.values["scale"]), -1), (self.rows, 2))

    def _count(self, name: str, rows: int) -> None:
        if self.rows < 0:
            self.rows = rows
        if rows != self.rows:
            raise InputError(f"{rows} rows", file=self.path, field=name, expected=f"{self.rows}, as imgname has")


def _camerahmr(file: _File) -> BenchmarkPeople:
    """Layout A."""
    imgname, center = file.text("imgname"), file.numbers("center", (2,))
    box = file.positive(PIXELS_PER_SCALE * file.scales(), "scale")
    smpl = file.members("smpl") if "smpl" in file else {}
    poses = file.first("pose_cam", 72) if "pose_cam" in file else _split_pose(file, smpl)
    named = next((name for name in ("shape", "betas") if name in file), None)
    label = "smpl.betas" if "smpl" in file else "shape"
    betas = file.first(named, 10) if named else file.first("betas", 10, source=smpl, label=label)
    keypoints = None
    if "gtkps" in file:
        keypoints = file.keypoints("gtkps", KEYPOINTS, 3)
    elif "body_keypoints_2d" in file:
        keypoints = np.zeros((file.rows, KEYPOINTS, 3))
        keypoints[:, :OPENPOSE] = file.keypoints("body_keypoints_2d", OPENPOSE, 3)
    return BenchmarkPeople(
        *(file.path, "A", np.arange(file.rows), imgname, _folders(imgname), center, box, box.max(1)),
        *(poses, betas, _genders(file), keypoints),
    )


def _moyo(file: _File) -> BenchmarkPeople:
    """Layout B. Boxes grow to the network's aspect before the square is taken."""
    imgname, names, center = file.text("img_paths"), file.text("names"), file.numbers("centers", (2,))
    box, smpl = file.positive(file.numbers("scales", (2,)), "scales"), file.members("smpl")
    wide, high = box.T
    side = np.maximum(np.maximum(wide, high / NETWORK_ASPECT), np.maximum(high, wide * NETWORK_ASPECT))
    betas = file.first("betas", 10, source=smpl, label="smpl.betas")
    return BenchmarkPeople(
        *(file.path, "B", np.arange(file.rows), imgname, names, center, box, side),
        *(_split_pose(file, smpl), betas, np.full(file.rows, "unstated", object)),
    )


def _humans4d(file: _File) -> BenchmarkPeople:
    """Layout C. `scale` is in px."""
    imgname, center = file.text("imgname"), file.numbers("center", (2,))
    box = file.positive(np.array(file.scales()), "scale")
    keypoints_2d = np.zeros((file.rows, KEYPOINTS, 3))
    keypoints_3d = np.zeros((file.rows, KEYPOINTS, 4))
    for target, name, part, count in (
        (keypoints_2d, "body_keypoints_2d", slice(0, OPENPOSE), OPENPOSE),
        (keypoints_2d, "extra_keypoints_2d", slice(OPENPOSE, KEYPOINTS), EXTRA),
        (keypoints_3d, "body_keypoints_3d", slice(0, OPENPOSE), OPENPOSE),
        (keypoints_3d, "extra_keypoints_3d", slice(OPENPOSE, KEYPOINTS), EXTRA),
    ):
        if name in file:
            # 3D is compared whether it is confident or not, and all that is compared is among the last 19.
            target[:, part] = file.keypoints(name, count, target.shape[2], finite=name == COMPARED_3D)
    keypoints_3d[:, UNTRUSTED_3D, 3] = 0
    has_3d = COMPARED_3D in file
    has_2d = any(name in file for name in _C_KEYPOINTS[:2])
    return BenchmarkPeople(
        *(file.path, "C", np.arange(file.rows), imgname, _folders(imgname), center, box, box.max(1)),
        keypoints_2d=keypoints_2d if has_2d else None,
        keypoints_3d=keypoints_3d if has_3d else None,
    )


def _split_pose(file: _File, smpl: Mapping[str, Any]) -> np.ndarray:
    """(N, 72) of a dictionary with global_orient and body_pose."""
    orient = file.numbers("global_orient", (3,), (1, 3), source=smpl, label="smpl.global_orient")
    body = file.numbers("body_pose", (69,), (23, 3), source=smpl, label="smpl.body_pose")
    return np.concatenate([orient, body], 1)


def _genders(file: _File) -> np.ndarray:
    if "gender" not in file:
        return np.full(file.rows, "unstated", object)
    stated = file.text("gender")
    found = [smpl_gender(word) for word in stated]
    if None in found:
        row, expected = found.index(None), "male, female, neutral or their first letters"
        raise InputError(f"{stated[row]!r}", file=file.path, row=row, field="gender", expected=expected)
    return np.array(found, dtype=object)


def _folders(imgname: np.ndarray) -> np.ndarray:
    """The folder of each image, which is what these files have for a sequence."""
    return np.array([str(PurePosixPath(name).parent) for name in imgname], dtype=object)
