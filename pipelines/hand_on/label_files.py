"""The command `hmr-skel export`: shards back to the field's label files, one .npz per label file they were made from.

Members are stored uncompressed and written a piece at a time, so that neither this command nor a reader by row range
holds a whole column; at most one shard's column is in memory.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from pipelines.command.hmr_skel import console
from pipelines.command.options import Positional, arg, parse_options
from pipelines.command.progress import progress_bar
from pipelines.files.npz import write_member
from pipelines.files.outputs import check_output_folder
from pipelines.files.shards import Shard, body_models_of, checked_labels, concatenated, find_shards, read_parts
from pipelines.files.storage import published
from schemas import HMR_SKEL, InputError, field_dtype, field_shape

EXPORTED = {
    "imgname": "imgname",
    "center": "box_center",
    "scale": "box_extent",
    "pose_cam": "smpl_poses",
    "shape": "smpl_betas",
    "trans_cam": "smpl_trans",
    "cam_int": "cam_int",
    "gtkps": "keypoints_2d",
    "keypoints3d": "keypoints_3d",
    "gender": "gender",
    "skel_poses": "poses",
    "skel_betas": "betas",
    "skel_trans": "trans",
    "skel_converged": "converged",
    "skel_vertex_error_mm": "vertex_error_mm",
    "label_row": "label_row",
}
"""Name in the label file -> field of HMR_SKEL. `scale` is the box's width and height divided by 200."""

ROWS_AT_A_TIME = 1 << 14


@dataclass
class ExportOptions:
    """What to export, and where to."""

    output: Annotated[Path, arg(metavar="DIR", aliases=("-o",))]
    """Folder for the label files; each gets the name of the label file that its rows came from."""
    shards: Annotated[list[str], Positional, arg(metavar="SHARDS...")] = field(default_factory=list)
    """A folder of shards, a glob or single shards."""
    converged_only: bool = False
    """Leave out people whose fit did not converge."""
    overwrite: bool = False
    """Replace label files that are already in the output folder."""


@dataclass(frozen=True)
class ExportRows:
    """Where the rows of one label file are, in their original order: shard and row in it, (N,) each."""

    shard: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def main(argv: list[str], prog: str = "hmr-skel export") -> int:
    """Turn HMR-SKEL shards back into label files (.npz) for the released trainers."""
    from rich.table import Table

    options = parse_options(ExportOptions, argv, prog, "Turn HMR-SKEL shards back into label files (.npz).")
    if not options.shards:
        raise InputError("no shards given", expected="a folder of shards, a glob or single shards")
    check_output_folder(options.output, "--output")
    shards = find_shards(options.shards)
    groups = rows_by_label_file(shards, options.converged_only)
    if not groups:
        raise InputError("the shards hold no people", file=options.shards[0])
    targets = {name: options.output / name for name in groups}
    for target in targets.values():
        if target.exists() and not options.overwrite:
            raise InputError("is already there", file=target, expected="another folder, or --overwrite")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", file=options.output, field="--output") from error
    table = Table("label file", "people", "MB", "seconds", title=str(options.output), title_justify="left")
    for name, rows in groups.items():
        began = time.perf_counter()
        export_rows(shards, rows, targets[name])
        size = targets[name].stat().st_size / 1e6
        table.add_row(name, f"{len(rows):,}", f"{size:,.1f}", f"{time.perf_counter() - began:.1f}")
    console().print(table)
    return 0


def rows_by_label_file(shards: Sequence[Shard], converged_only: bool = False) -> dict[str, ExportRows]:
    """The people of each label file, ordered as its rows were, however the shards are ordered."""
    import pyarrow.compute as pc

    for shard in shards:
        checked_labels(shard)
    parts = read_parts(shards, ["label_file", "label_row", "converged"])
    counts = [len(part) for part in parts]
    shard = np.repeat(np.arange(len(shards)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    table = concatenated(parts)
    label_row, kept = table["label_row"].to_numpy(), np.ones(len(row), bool)
    if converged_only:
        kept = table["converged"].to_numpy()
    groups = {}
    for name in pc.unique(table["label_file"]).to_pylist():
        if name != Path(name).name or name in ("", ".", ".."):
            raise InputError(f"{name!r} is no file name", file=shards[0].parquet, field="label_file")
        members = np.flatnonzero(pc.equal(table["label_file"], name).to_numpy() & kept)
        ordered = members[np.argsort(label_row[members], kind="stable")]
        repeated = np.flatnonzero(np.diff(label_row[ordered]) == 0)
        if len(repeated):
            second = ordered[repeated[0] + 1]
            problem = f"row {label_row[second]} of {name} is there twice"
            raise InputError(problem, file=shards[shard[second]].parquet, field="label_row")
        if len(ordered):
            groups[name] = ExportRows(shard[ordered], row[ordered])
    return dict(sorted(groups.items()))


def export_rows(shards: Sequence[Shard], rows: ExportRows, path: Path) -> None:
    """Writes the .npz of one label file. The same shards give the same bytes."""
    try:
        with (
            published(path) as hidden,
            zipfile.ZipFile(hidden, "w", zipfile.ZIP_STORED) as archive,
            progress_bar(desc=path.name, unit="values", total=len(rows) * len(EXPORTED), unit_scale=True) as bar,
        ):
            if models := "; ".join(dict.fromkeys(filter(None, (body_models_of(shard.folder) for shard in shards)))):
                write_member(archive, "skel_body_models", np.array(models).dtype, (), [np.array(models)])
            for name, source in EXPORTED.items():
                shape = (len(rows), *field_shape(HMR_SKEL.field(source)))
                dtype = field_dtype(HMR_SKEL.field(source))
                if dtype.kind == "O":
                    dtype = np.dtype(f"<U{max(1, _longest(shards, rows, source))}")
                pieces = _pieces(shards, rows, source)
                if name == "scale":
                    pieces = (values / np.float32(200) for values in pieces)
                write_member(archive, name, dtype, shape, pieces)
                bar.update(len(rows))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error


def _pieces(shards: Sequence[Shard], rows: ExportRows, source: str) -> Iterator[np.ndarray]:
    """Values (n, ...) of one field, in the rows' order."""
    held, values = -1, np.empty(0)
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        shard, row = rows.shard[first : first + ROWS_AT_A_TIME], rows.row[first : first + ROWS_AT_A_TIME]
        piece: np.ndarray | None = None
        for index in np.unique(shard):
            if index != held:
                held, values = index, _column(shards[index], source)
            if piece is None:
                piece = np.empty((len(row), *values.shape[1:]), values.dtype)
            piece[shard == index] = values[row[shard == index]]
        yield piece


def _column(shard: Shard, source: str) -> np.ndarray:
    column = concatenated(read_parts([shard], [source]))[source].combine_chunks()
    if source == "box_extent" and column.null_count:  # a shard of before 1.3 knows the longer side only
        return np.repeat(_column(shard, "box_size")[:, None], 2, 1)
    shape = field_shape(HMR_SKEL.field(source))
    if shape:
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), *shape)
    return column.to_numpy(zero_copy_only=False)


def _longest(shards: Sequence[Shard], rows: ExportRows, source: str) -> int:
    """Characters of the longest text, of which a numpy array of text makes every one as long."""
    import pyarrow.compute as pc

    lengths = (
        pc.max(pc.utf8_length(concatenated(read_parts([shards[index]], [source]))[source])).as_py()
        for index in np.unique(rows.shard)
    )
    return max(length or 0 for length in lengths)
