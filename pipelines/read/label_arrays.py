"""Names and shapes that the arrays of label files may have, and arrays that one value stands in for."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.files.npz import Member
from pipelines.read.telltales import KID_BETAS
from schemas import KEYPOINTS, InputError

SPELLINGS = {
    "imgname": ("imgname",),
    "center": ("center",),
    "scale": ("scale",),
    "pose_cam": ("pose_cam", "poses", "pose"),
    "shape": ("shape", "betas"),
    "cam_int": ("cam_int",),
    "gtkps": ("gtkps",),
    "trans_cam": ("trans_cam", "transl", "trans"),
    "keypoints3d": ("keypoints3d",),
    "gender": ("gender",),
    "has_smpl": ("has_smpl",),
    "cam_ext": ("cam_ext",),
}
"""Names under which each field is looked for, the first that is found wins. pose_cam has two members besides."""

WORLD_SPELLINGS = {"pose_cam": ("pose_world", "poses_world"), "trans_cam": ("trans_world", "transl_world")}
"""The same in the world's frame, in files that have both, as BEDLAM's and WHAM's."""

SPLIT_POSES = (("global_orient", "body_pose"), ("root_orient", "pose_body"))
"""Pairs of arrays that together are a pose."""

SMPLH_WIDTH = 156
"""Numbers of SMPL-H's pose."""

_PARTS = ("orient", "body")

_MOST_BETAS = 1000
"""More than any body model has."""

_ROW_SHAPES: dict[str, tuple[Callable[[tuple[int, ...]], bool], str]] = {
    "imgname": (lambda s: s in ((), (1,)), "text (N,)"),
    "center": (lambda s: s == (2,), "numbers (N, 2), px"),
    "scale": (lambda s: s in ((), (1,), (2,)), "numbers (N,) or (N, 2)"),
    "pose_cam": (
        lambda s: (math.prod(s) in (72, SMPLH_WIDTH) and s[-1:] in ((3,), (72,), (SMPLH_WIDTH,))) or s == (24, 3, 3),
        "axis-angle (N, 72), (N, 24, 3) or SMPL-H's (N, 156), rad, or matrices (N, 24, 3, 3)",
    ),
    "shape": (lambda s: len(s) == 1 and 10 <= s[0] <= _MOST_BETAS, "betas (N, 10) or more, or one row for the file"),
    "cam_int": (lambda s: s == (3, 3), "matrices (N, 3, 3)"),
    "gtkps": (lambda s: len(s) == 2 and s[0] >= KEYPOINTS and s[1] == 3, f"numbers (N, {KEYPOINTS}, 3)"),
    "trans_cam": (lambda s: s in ((3,), (1, 3)), "numbers (N, 3), m"),
    "keypoints3d": (
        lambda s: len(s) == 2 and s[0] >= KEYPOINTS and s[1] in (3, 4),
        f"numbers (N, {KEYPOINTS}, 3 or 4)",
    ),
    "gender": (lambda s: s in ((), (1,)), "text, one for the file or one per row; --smpl-gender overrides it"),
    "has_smpl": (lambda s: s in ((), (1,)), "0 or 1 (N,)"),
    "cam_ext": (lambda s: s in ((3, 4), (4, 4)), "matrices (N, 4, 4) or (N, 3, 4)"),
    "kid_share": (lambda s: s == (KID_BETAS,), ""),
    "orient": (
        lambda s: math.prod(s) == 3 or s in ((3, 3), (1, 3, 3)),
        "axis-angle (N, 3), rad, or matrices (N, 1, 3, 3)",
    ),
    "body": (
        lambda s: (math.prod(s) in (63, 69) and s[-1] in (3, 63, 69)) or s in ((23, 3, 3), (21, 3, 3)),
        "axis-angle (N, 69) or (N, 63), rad, or matrices (N, 23, 3, 3) or (N, 21, 3, 3)",
    ),
}


def check_shape(path: str, name: str, member: Member, rows: int) -> None:
    """Raises InputError for an array whose type, shape or number of rows is not that of the field `name`."""
    part = next(
        (part for pair in SPLIT_POSES for part, own in zip(_PARTS, pair, strict=True) if own == member.name), name
    )
    fits, expected = _ROW_SHAPES[part]
    if name in ("imgname", "gender"):
        if member.dtype.kind not in "US":
            raise InputError(f"values of type {member.dtype}", file=path, field=member.name, expected=expected)
    elif member.dtype.kind not in ("fiub" if name == "has_smpl" else "fiu"):
        raise InputError(f"values of type {member.dtype}", file=path, field=member.name, expected=expected)
    shape = one_row(member.shape, name) if is_constant(member, name, rows) else with_rows(member, rows, name).shape[1:]
    if not fits(shape):
        raise InputError(f"an array of shape {member.shape}", file=path, field=member.name, expected=expected)
    if not is_constant(member, name, rows) and with_rows(member, rows, name).shape[:1] != (rows,):
        expected = f"{rows} rows as the poses have"
        raise InputError(f"an array of shape {member.shape}", file=path, field=member.name, expected=expected)


_SHARED = {"shape": 1, "kid_share": 1, "cam_int": 2, "cam_ext": 2, "gender": 0, "has_smpl": 0}
"""Fields that one value may give for a whole file, and how many dimensions that value has."""


def is_constant(member: Member, name: str, rows: int) -> bool:
    """Whether the array is one value for the whole file."""
    dimensions = _SHARED.get(name)
    if dimensions is None:
        return False
    return len(member.shape) == dimensions or (member.shape[:1] == (1,) and rows != 1)


def one_row(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape of a constant's value."""
    return shape[1:] if len(shape) > _SHARED[name] else shape


def with_rows(member: Member, rows: int, name: str) -> Member:
    """A lone pose without a row dimension becomes one row."""
    lone = rows == 1 and len(member.shape) == 1 and member.shape[0] != 1
    if lone and name in ("pose_cam", "trans_cam", "center"):
        return member.as_one_row()
    return member
