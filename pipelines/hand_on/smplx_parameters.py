"""Files of SMPL-X parameters, as meshes: SMPL-X's shape space is not SMPL's, so only the surface can be handed over.

Such a file has a pose of jaw or eyes or an expression beside `global_orient` and `body_pose`, or `poses` of 55 joints
(165 numbers, AMASS's SMPL-X layout). Fingers and face are left at rest, as SMPL has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike, fspath
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from pipelines.files.npz import Member, npz_members, read_all, read_member_rows
from pipelines.read.label_arrays import SPELLINGS
from pipelines.read.labels import read_frame_rate, stated_frame_rate
from pipelines.read.telltales import SMPLX_ONLY, smpl_gender
from schemas import InputError

if TYPE_CHECKING:
    from fitting.body.smplx_meshes import SMPLXBody

_BODY = 66
"""Numbers of the pelvis and 21 body joints."""
_ALL = 165
"""Numbers of all 55 joints."""


@dataclass(frozen=True)
class SMPLXFile:
    """SMPL-X parameters of which only headers have been read; `read` gives meshes."""

    path: str
    rows: int
    stated_rate: Member | None = field(default=None, repr=False)
    _poses: tuple[Member, ...] = field(default=(), repr=False)
    _shape: Member | None = field(default=None, repr=False)
    _trans: Member | None = field(default=None, repr=False)
    _body: SMPLXBody | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return PurePath(self.path).name

    @cached_property
    def frame_rate(self) -> float | None:
        """Frames per second, None if the file does not say. Raises InputError if what it says is no positive number."""
        return None if self.stated_rate is None else read_frame_rate(self.path, self.stated_rate)

    @property
    def vertices(self) -> int:
        """Of each mesh."""
        return len(self._body.v_template)

    def read(self, start: int, stop: int) -> np.ndarray:
        """SMPL-X meshes (B, V, 3) of rows [start, stop)."""
        poses = np.concatenate([self._rows(member, start, stop) for member in self._poses], 1)[:, :_BODY]
        betas = self._rows(self._shape, start, stop)
        trans = np.zeros((stop - start, 3), np.float32) if self._trans is None else self._rows(self._trans, start, stop)
        return self._body(poses, betas, trans)

    def betas(self, _start: int, _stop: int) -> None:
        """SMPL's betas are not known."""
        return None

    def _rows(self, member: Member, start: int, stop: int) -> np.ndarray:
        shared = member.shape[0] != self.rows
        values = read_member_rows(self.path, member, *((0, 1) if shared else (start, stop))).astype(np.float32)
        values = values.reshape(len(values), -1)
        return np.repeat(values, stop - start, 0) if shared else values


def is_smplx_file(path: str | PathLike[str]) -> bool:
    """Whether an .npz holds parameters of SMPL-X."""
    if PurePath(path).suffix.lower() != ".npz":
        return False
    arrays = npz_members(fspath(path))
    poses = arrays.get("poses")
    wide = poses is not None and len(poses.shape) > 1 and math.prod(poses.shape[1:]) == _ALL
    return wide or ("body_pose" in arrays and any(name in arrays for name in SMPLX_ONLY))


def open_smplx(path: str | PathLike[str], body: Callable[[str], SMPLXBody]) -> SMPLXFile:
    """Read headers, check them, and then make the `body` of the gender that the file states, or else of neutral.

    Raises InputError that names file and field.
    """
    path = fspath(path)
    arrays = npz_members(path)
    whole = "poses" in arrays
    rows = arrays["poses" if whole else "body_pose"].shape[0]
    if whole:
        poses = (_checked(path, arrays, "poses", rows, _ALL),)
    else:
        poses = (_checked(path, arrays, "global_orient", rows, 3), _checked(path, arrays, "body_pose", rows, _BODY - 3))
    trans = next((name for name in SPELLINGS["trans_cam"] if name in arrays), None)
    return SMPLXFile(
        path,
        rows,
        stated_frame_rate(arrays),
        poses,
        _checked(path, arrays, "betas", rows, None),
        None if trans is None else _checked(path, arrays, trans, rows, 3),
        body(_gender(path, arrays)),
    )


def _gender(path: str, arrays: dict[str, Member]) -> str:
    """The gender that the file states, neutral if it states none. Raises InputError for one that is not known."""
    member = arrays.get("gender")
    if member is None:
        return "neutral"
    gender = None
    if member.dtype.kind in "US" and math.prod(member.shape) == 1:
        text = np.asarray(read_all(path, member)).reshape(-1)[0]
        gender = smpl_gender(text.decode("latin1") if isinstance(text, bytes) else str(text))
    if gender is None:
        raise InputError("a gender that is not known", file=path, field="gender", expected="male, female or neutral")
    return gender


def _checked(path: str, arrays: dict[str, Member], name: str, rows: int, width: int | None) -> Member:
    """A member with `rows` rows of `width` numbers; of betas, one row may serve all, and any width from 10 will do."""
    expected = f"numbers ({rows}, {width or '10 or more'})"
    if name not in arrays:
        raise InputError("the field is missing", file=path, field=name, expected=expected)
    member = arrays[name]
    if width is None and len(member.shape) == 1:
        member = member.as_one_row()
    numbers = math.prod(member.shape[1:])
    fits = numbers >= 10 and member.shape[0] in (1, rows) if width is None else numbers == width
    if not fits or (width is not None and member.shape[0] != rows) or member.dtype.kind not in "fiu":
        problem = f"an array of shape {member.shape} and type {member.dtype}"
        raise InputError(problem, file=path, field=name, expected=expected)
    return member
