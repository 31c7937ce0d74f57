"""Label files: CameraHMR's .npz layout and its relatives, as columns of schemas.CAMERAHMR.

| field | spellings accepted |
| --- | --- |
| pose_cam | pose_cam, poses, pose (72 or 24x3 axis-angle, or 156 or 52x3 of SMPL-H), or global_orient + body_pose |
| | root_orient + pose_body; any of them as rotation matrices (N, J, 3, 3) |
| | in the world's frame, if that is asked for: pose_world, poses_world |
| shape | shape, betas; more than 10 are cut; one row may serve the whole file. Of 11 the last is a child's share |
| trans_cam | trans_cam, transl, trans; of the world's frame trans_world, transl_world |
| cam_ext | as it is: the camera's share of a translation, in its last column |
| has_smpl | as it is: 0 where the parameters are a filler |
| center, imgname, gtkps | as they are; gtkps may have more than 44 keypoints, which are cut |
| scale | one number, or width and height |
| cam_int | one matrix per row or one for the file |
| keypoints3d | with confidence, or without (then it is 1) |
| gender | text per row or one for the file, in the words of `telltales.smpl_gender`; anything else is refused |
| frame rate | mocap_framerate, mocap_frame_rate, frame_rate, framerate, fps: one number, looked at when it is needed |

Parameters of other models than SMPL and SMPL-H are refused (pipelines.read.telltales).
SMPL-H's joints 22 and 23 are fingers where SMPL has hands, so its 21 body joints are taken and SMPL's hands are zero.
Rows are read by range: a stored member is read where it lies, a compressed one is streamed (pipelines.files.npz).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike, fspath
from pathlib import PurePath
from typing import Literal

import numpy as np

from pipelines.files.npz import (
    Member,
    check_readable,
    chunk_rows,
    iterate_rows,
    npz_members,
    read_all,
    read_member_rows,
    texts,
)
from pipelines.files.npz_whole import checked_sha256
from pipelines.read.label_arrays import (
    SPELLINGS,
    SPLIT_POSES,
    WORLD_SPELLINGS,
    check_shape,
    is_constant,
    one_row,
    with_rows,
)
from pipelines.read.results import refuse_result
from pipelines.read.rotations import rotation_vectors
from pipelines.read.telltales import (
    KID_BETAS,
    MODEL_TYPE_SPELLINGS,
    refuse_other_models,
    smpl_gender,
    tell_unread,
)
from schemas import KEYPOINTS, Columns, InputError

Frame = Literal["camera", "world"]

IMAGE_LABELS = ("imgname", "center", "scale", "pose_cam", "shape", "cam_int", "gtkps")
"""What a label file must have when images are cut."""

POSE_AND_SHAPE = ("pose_cam", "shape")
"""What a fit needs, and all that a sequence such as AMASS's has to have."""

FRAME_RATE_SPELLINGS = ("mocap_framerate", "mocap_frame_rate", "frame_rate", "framerate", "fps")
"""Names under which sequences state their frames per second."""

MOST_ROWS = 100_000_000
"""The field's largest label file has 1.5 million; the ledger needs two bytes of memory per row."""

_TOLD = {*FRAME_RATE_SPELLINGS, *MODEL_TYPE_SPELLINGS}
_BODY_JOINTS = 21


@dataclass(frozen=True)
class LabelFile:
    """A label file whose headers have been read and checked, nothing else.

    `fields` are the CAMERAHMR names that the file can deliver, `stated_rate` is where it has its frame rate, if it has.
    """

    path: str
    rows: int
    fields: tuple[str, ...]
    members: dict[str, tuple[Member, ...]] = field(repr=False)
    stated_rate: Member | None = field(default=None, repr=False)
    other_poses: tuple[str, ...] = ()
    """Arrays that are poses as well, and are not read."""

    @property
    def choice(self) -> str:
        """Which of several poses are read, in words; empty where there is but one."""
        read = " + ".join(member.name for member in self.members["pose_cam"])
        return f"poses are read from {read}, not from {', '.join(self.other_poses)}" if self.other_poses else ""

    @property
    def name(self) -> str:
        return PurePath(self.path).name

    @property
    def dataset(self) -> str:
        """Data-set name: the file's name without .npz and -release."""
        return dataset_name(self.path)

    @cached_property
    def frame_rate(self) -> float | None:
        """Frames per second, None if the file does not say. Raises InputError if what it says is no positive number."""
        return None if self.stated_rate is None else read_frame_rate(self.path, self.stated_rate)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file's content, read when it is first asked for.

        The members that are used are held to the archive's own checksums in the same pass: InputError if they do not
        agree.
        """
        return self.watch({})

    def watch(self, watch: Mapping[str, Callable[[memoryview], object]]) -> str:
        """`sha256`, found in a pass over the file in which `watch` is given arrays, by member, in pieces."""
        members = {member for parts in self.members.values() for member in parts}
        self.__dict__["sha256"] = found = checked_sha256(self.path, members, watch)
        return found

    def read(self, start: int = 0, stop: int | None = None, fields: Sequence[str] | None = None) -> Columns:
        """Rows [start, stop) as CAMERAHMR columns: those of `fields` that the file has, all of them by default.

        float32, text as objects; beside them `cam_ext` (N, 3) m, `has_smpl` (N,) and `kid_share` (N,), the 11th beta.
        Values are not checked: NaN comes through, so that a row can be rejected by name.
        Raises InputError if the file is damaged.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        start = min(max(start, 0), stop)
        wanted = self.fields if fields is None else [name for name in fields if name in self.fields]
        return {name: _canonical(self, name, self._raw(name, start, stop), stop - start, start) for name in wanted}

    def iterate(self, name: str, chunk: int = 65536) -> Iterator[np.ndarray]:
        """One field from first row to last in pieces of `chunk` rows, in one pass over the file."""
        members = self.members[name]
        chunk = min(chunk_rows(member, chunk) for member in members)
        if len(members) != 1 or is_constant(members[0], name, self.rows):
            for start in range(0, self.rows, chunk):
                yield self.read(start, start + chunk, [name])[name]
            return
        start = 0
        for rows in iterate_rows(self.path, members[0], chunk):
            yield _canonical(self, name, [rows], len(rows), start)
            start += len(rows)

    def has_rows(self, member: Member) -> bool:
        """Whether a member has something for each row, and not one thing for all of them."""
        return not any(is_constant(member, name, self.rows) for name, parts in self.members.items() if member in parts)

    def _raw(self, name: str, start: int, stop: int) -> list[np.ndarray]:
        found = []
        for member in self.members[name]:
            if is_constant(member, name, self.rows):
                value = read_all(self.path, member)
                value = value.reshape(one_row(value.shape, name))
                found.append(np.broadcast_to(value, (stop - start, *value.shape)))
            else:
                found.append(read_member_rows(self.path, with_rows(member, self.rows, name), start, stop))
        return found


def open_labels(
    path: str | PathLike[str],
    require: Sequence[str] = POSE_AND_SHAPE,
    also: Sequence[str] | None = None,
    frame: Frame = "camera",
) -> LabelFile:
    """Read the headers of a label file and check names, types and shapes.

    `require` are the CAMERAHMR fields that must be there, `also` those to take if they are (by default all); others
    are not looked at. In the world's `frame` poses and translations go by WORLD_SPELLINGS, and there is no cam_ext.
    Raises InputError that names file and field.
    """
    path = fspath(path)
    refuse_result(path)
    arrays = npz_members(path)
    members: dict[str, tuple[Member, ...]] = {}
    wanted = SPELLINGS if frame == "camera" else SPELLINGS | WORLD_SPELLINGS | {"cam_ext": ()}
    for name, spellings in wanted.items():
        if also is not None and name not in (*require, *also):
            continue
        for spelling in spellings:
            if spelling in arrays:
                members[name] = (arrays[spelling],)
                break
    if frame == "camera" and "pose_cam" in require and "pose_cam" not in members:
        pair = next((pair for pair in SPLIT_POSES if all(part in arrays for part in pair)), ())
        members |= {"pose_cam": tuple(arrays[part] for part in pair)} if pair else {}
    if {"pose_cam", "shape"} & members.keys():
        refuse_other_models(path, arrays)
    if "shape" in members and _is_kid(members["shape"][0]):
        members["kid_share"] = members["shape"]
    tell_unread(path, arrays, {part.name for parts in members.values() for part in parts} | _TOLD)
    for name in require:
        if name not in members:
            raise InputError("the field is missing", file=path, field=name, expected=_expected(name, frame, arrays))
    rows = _count_rows(path, members)
    if rows > MOST_ROWS:
        raise InputError(f"{rows} rows", file=path, expected=f"at most {MOST_ROWS}; split the file")
    for name, parts in members.items():
        for member in parts:
            if name != "gender":  # of which `check_shape` tells what stands in for it
                check_readable(path, member, name)
            check_shape(path, name, member, rows)
    return LabelFile(
        path=path,
        rows=rows,
        fields=tuple(name for name in (*SPELLINGS, "kid_share") if name in members),
        members=members,
        stated_rate=stated_frame_rate(arrays),
        other_poses=_other_poses(arrays, members),
    )


def _expected(name: str, frame: Frame, arrays: Mapping[str, Member]) -> str:
    """What a missing field could be called."""
    if frame == "world" and name in WORLD_SPELLINGS:
        return f"an array named {' or '.join(WORLD_SPELLINGS[name])}, or --frame camera"
    split = [" + ".join(pair) for pair in SPLIT_POSES] if name == "pose_cam" else []
    found = f"an array named {' or '.join([*SPELLINGS[name], *split])}"
    world = next((spelling for spelling in WORLD_SPELLINGS.get(name, ()) if spelling in arrays), None)
    return f"{found}; hmr-skel fit --frame world reads {world}" if world else found


def _other_poses(arrays: Mapping[str, Member], members: Mapping[str, Sequence[Member]]) -> tuple[str, ...]:
    """Arrays that could have been read as poses."""
    if "pose_cam" not in members:
        return ()
    used = {member.name for member in members["pose_cam"]}
    single = [n for n in (*SPELLINGS["pose_cam"], *WORLD_SPELLINGS["pose_cam"]) if n in arrays]
    split = [" + ".join(pair) for pair in SPLIT_POSES if all(n in arrays for n in pair) and not used & set(pair)]
    return tuple(name for name in (*single, *split) if name not in used)


def stated_frame_rate(arrays: dict[str, Member]) -> Member | None:
    """Where a file has its frame rate, if it has."""
    return next((arrays[name] for name in FRAME_RATE_SPELLINGS if name in arrays), None)


def read_frame_rate(path: str, member: Member) -> float:
    """Frames per second. Raises InputError if that is no positive number."""
    found, expected = f"values of type {member.dtype}", "a positive number"
    if member.dtype.kind in "fiu":
        found = f"{math.prod(member.shape)} numbers"
        if math.prod(member.shape) == 1:
            found = rate = float(read_all(path, member).reshape(()))
            if 0 < rate < math.inf:
                return rate
    raise InputError(f"{found} given", file=path, field=member.name, expected=expected)


def _is_kid(member: Member) -> bool:
    return member.shape[-1:] == (KID_BETAS,)


def dataset_name(path: str | PathLike[str]) -> str:
    """`/data/aic-release.npz` -> `aic`."""
    return re.sub(r"-release$", "", re.sub(r"\.npz$", "", PurePath(path).name, flags=re.IGNORECASE))


def _count_rows(path: str, members: dict[str, tuple[Member, ...]]) -> int:
    """Rows of the field that no file shares among its rows; a lone 72-vector is one row."""
    for name in ("pose_cam", "imgname", "center"):
        if name in members:
            shape = members[name][0].shape
            if name == "pose_cam" and len(shape) == 1:
                return 1
            if not shape:
                raise InputError("a single value", file=path, field=name, expected="one row per person")
            return shape[0]
    return max((parts[0].shape[0] for parts in members.values() if parts[0].shape), default=0)


def _canonical(labels: LabelFile, name: str, parts: list[np.ndarray], rows: int, start: int) -> np.ndarray:
    values = parts[0]
    if name in ("imgname", "gender"):
        found = texts(values.reshape(rows))
        if name == "gender":
            found[:] = [None if text is None else smpl_gender(text) for text in found]
        return found
    if name == "pose_cam":
        where = f"{labels.path}, field {labels.members[name][0].name!r}"
        values = np.concatenate([_vectors(part, where, start) for part in parts], axis=1)
    with np.errstate(over="ignore"):  # a number too large becomes infinite, and its row a reject
        values = values.astype(np.float32)
    if name == "pose_cam":
        return _smpl_pose(_flat(values))
    if name == "shape":
        return values[:, :10]
    if name == "kid_share":
        return values[:, 10]
    if name == "has_smpl":
        return values.reshape(rows)
    if name == "cam_ext":
        return values[:, :3, 3]
    if name == "scale":
        return np.broadcast_to(_flat(values), (rows, 2)).copy()
    if name == "gtkps":
        return values[:, :KEYPOINTS]
    if name == "trans_cam":
        return values.reshape(rows, 3)
    if name == "keypoints3d":
        values = values[:, :KEYPOINTS]
        if values.shape[2] == 3:
            values = np.concatenate([values, np.ones_like(values[..., :1])], axis=2)
    return values


def _vectors(values: np.ndarray, where: str, start: int) -> np.ndarray:
    """Rotation vectors (N, 3 J), of matrices if `values` are some."""
    if values.shape[1:][-2:] != (3, 3):
        return _flat(values)
    return rotation_vectors(values.reshape(len(values), -1, 3, 3), where, start)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _smpl_pose(values: np.ndarray) -> np.ndarray:
    """72 numbers; a body without SMPL's two hands (66 numbers, or SMPL-H's 156) gets zeros there."""
    if values.shape[1] == 72:
        return values
    pose = np.zeros((len(values), 72), np.float32)
    pose[:, : 3 * (1 + _BODY_JOINTS)] = values[:, : 3 * (1 + _BODY_JOINTS)]
    return pose
