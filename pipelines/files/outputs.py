"""Files and folders that commands write: looked at before anything is computed, and there as a whole or not at all.

Folders on the way to them are made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.files.storage import published
from pipelines.files.urls import UrlPath
from schemas import InputError


def check_output_file(path: Path, option: str, endings: Sequence[str]) -> None:
    """Raises InputError for another ending than these, for a folder, and where no file can be made.

    `option` is how the user named it, as in `--output`.
    """
    if path.suffix.lower() not in endings:
        expected = f"a name that ends in {' or '.join(endings)}"
        raise InputError("cannot be written", file=path, field=option, expected=expected)
    if path.is_dir():
        raise InputError("is a folder", file=path, field=option, expected="the name of a file")
    _check_place(path.parent, path, option)


def check_output_folder(path: Path, option: str) -> None:
    """Raises InputError for a file, and where no folder can be made or nothing can be written in it."""
    if path.exists() and not path.is_dir():
        raise InputError("is a file", file=path, field=option, expected="a folder")
    _check_place(path, path, option)


def _check_place(folder: Path, path: Path, option: str) -> None:
    """Whether folders can be made down to `folder`, on whose nearest ancestor that is there it depends."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"cannot be written: {folder} is no folder", file=path, field=option)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot be written: no permission in {folder}", file=path, field=option)


@contextmanager
def written(path: Path | UrlPath) -> Iterator[Path]:
    """`storage.published`, with the folders on the way made. What the system says becomes an InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with published(path) as hidden:
            yield hidden
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error
