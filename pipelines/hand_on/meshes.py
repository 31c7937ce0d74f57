"""Files of meshes on SMPL's topology, and their fit: .npz with `vertices` (or `verts`), .ply with one mesh.

Meshes of another number of vertices are taken for SMPL-X's if the body models have the matrix that brings those to
SMPL's topology (`fitting.body.smplx_meshes`). `pipelines.hand_on.body_meshes` writes such files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike, fspath
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.command.progress import progress_bar
from pipelines.files.npz import Member, npz_members, read_member_rows
from pipelines.files.storage import place
from pipelines.read.labels import SPELLINGS, read_frame_rate, stated_frame_rate
from schemas import Columns, InputError

if TYPE_CHECKING:
    from pipelines.convert.bodies import LoadedBodies

SPELLINGS_OF_VERTICES = ("vertices", "verts")
_EXPECTED = "numbers (N, V, 3) or (V, 3), metres"


@dataclass(frozen=True)
class MeshFile:
    """Meshes of which only headers have been read; of a .ply, its one mesh."""

    path: str
    rows: int
    vertices: int
    """of each mesh"""
    stated_rate: Member | None = field(default=None, repr=False)
    _source: Member | np.ndarray | None = field(default=None, repr=False)
    _betas: Member | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return PurePath(self.path).name

    @cached_property
    def frame_rate(self) -> float | None:
        """Frames per second, None if the file does not say. Raises InputError if what it says is no positive number."""
        return None if self.stated_rate is None else read_frame_rate(self.path, self.stated_rate)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Vertices (B, V, 3) float32 of rows [start, stop)."""
        if isinstance(self._source, np.ndarray):
            return self._source[None][start:stop]
        return read_member_rows(self.path, self._source, start, stop).astype(np.float32)

    def betas(self, start: int, stop: int) -> np.ndarray | None:
        """Betas (B, 10) float32 of rows [start, stop), where the file has them."""
        if self._betas is None:
            return None
        shared = self._betas.shape[0] == 1
        rows = (0, 1) if shared else (start, stop)
        betas = read_member_rows(self.path, self._betas, *rows)[:, :10].astype(np.float32)
        return np.repeat(betas, stop - start, 0) if shared else betas


class Meshes(Protocol):
    """A file that gives meshes: `MeshFile`, or SMPL-X's parameters (`pipelines.hand_on.smplx_parameters`)."""

    path: str
    vertices: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Vertices (B, V, 3) of rows [start, stop)."""
        ...

    def betas(self, start: int, stop: int) -> np.ndarray | None:
        """SMPL's betas (B, 10) of rows [start, stop), where they are known."""
        ...


@dataclass(frozen=True)
class MeshRows:
    """Rows [start, stop) of a file as an array (B, V, 3) that is read where it is sliced."""

    file: Meshes
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.stop - self.start, self.file.vertices, 3

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        return self.file.read(self.start + first, self.start + max(first, last))


def is_mesh_file(path: str | PathLike[str]) -> bool:
    """Whether a file holds meshes and no poses."""
    if PurePath(path).suffix.lower() == ".ply":
        return True
    names = npz_members(fspath(path))
    posed = any(name in names for name in (*SPELLINGS["pose_cam"], "body_pose"))
    return not posed and any(name in names for name in SPELLINGS_OF_VERTICES)


def open_meshes(path: str | PathLike[str]) -> MeshFile:
    """Read headers and check them. Raises InputError that names file and field."""
    path = fspath(path)
    if PurePath(path).suffix.lower() == ".ply":
        vertices = _read_ply(path)
        return MeshFile(path, 1, len(vertices), None, vertices)
    arrays = npz_members(path)
    member = next((arrays[name] for name in SPELLINGS_OF_VERTICES if name in arrays), None)
    if member is None:
        raise InputError("no meshes", file=path, field="vertices", expected=_EXPECTED)
    if len(member.shape) not in (2, 3) or member.shape[-1] != 3 or member.dtype.kind not in "fiu":
        problem = f"an array of shape {member.shape} and type {member.dtype}"
        raise InputError(problem, file=path, field=member.name, expected=_EXPECTED)
    if len(member.shape) == 2:
        member = member.as_one_row()
    rows = member.shape[0]
    return MeshFile(
        path,
        rows,
        member.shape[1],
        stated_frame_rate(arrays),
        member,
        _betas(path, arrays, rows),
    )


def _betas(path: str, arrays: dict[str, Member], rows: int) -> Member | None:
    member = next((arrays[name] for name in SPELLINGS["shape"] if name in arrays), None)
    if member is None:
        return None
    if len(member.shape) == 1:
        member = member.as_one_row()
    fits = len(member.shape) == 2 and member.shape[0] in (1, rows) and member.shape[1] >= 10
    if not fits or member.dtype.kind not in "fiu":
        problem = f"an array of shape {member.shape} and type {member.dtype}"
        raise InputError(problem, file=path, field=member.name, expected=f"betas ({rows}, 10) or more, or one row")
    return member


def fit_meshes(
    meshes: Meshes, start: int, stop: int, bodies: LoadedBodies, gender: str, sequence: bool = False
) -> Columns:
    """Fits meshes [start, stop): fields of SKELFit, a row per mesh. `gender` is that of the SMPL they are taken for.

    A `sequence` is one motion. Raises InputError that names the file.
    """
    rows = MeshRows(meshes, start, stop)
    with progress_bar(desc="fit", unit="meshes", total=(1 + sequence) * len(rows)) as bar:
        try:
            return bodies.fit_vertices(gender, rows, meshes.betas(start, stop), bar.update, sequence)
        except InputError as error:
            if error.file is not None:
                raise
            raise InputError(error.problem, file=meshes.path, field=error.field, expected=error.expected) from error


def _read_ply(path: str) -> np.ndarray:
    """(V, 3) float32 vertices in the file's order."""
    import trimesh

    try:
        with place(path).open("rb") as file:
            # Without processing: merged or reordered vertices would be another topology.
            loaded = trimesh.load(file, file_type="ply", process=False, maintain_order=True)
        vertices = np.asarray(loaded.vertices, np.float32)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    except Exception as error:  # the parser has many words for damage
        raise InputError(f"not a readable .ply file ({error})", file=path, expected="one mesh") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
        raise InputError("no vertices", file=path, expected="one mesh")
    return vertices
