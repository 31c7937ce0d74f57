"""Where files are: paths of this machine, and URLs (`pipelines.files.urls`).

`place` gives a `pathlib.Path` for the one and a `UrlPath` for the other, which has the part of Path's interface that
this project uses: what reads and writes through it does not ask which of them it has. On this machine everything is
done by the operating system.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pipelines.files.urls import UrlPath, is_url
from schemas import InputError

_PIECE = 1 << 22


def place(where: str | os.PathLike[str] | UrlPath) -> Path | UrlPath:
    """A path of this machine, or a URL."""
    if isinstance(where, UrlPath):
        return where
    return UrlPath(os.fspath(where)) if is_url(where) else Path(where)


def find(pattern: str) -> list[str]:
    """Files that a path, URL or glob names, in order."""
    if not is_url(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if UrlPath(pattern).is_file():  # a query may look like a glob
        return [pattern]
    folder, _, names = pattern.rpartition("/")
    return [str(path) for path in UrlPath(folder).glob(names)]


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, which then stands at its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def file_sha256(path: str | os.PathLike[str] | UrlPath) -> str:
    """sha256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with place(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def readable(path: Path | UrlPath) -> Path | BinaryIO:
    """What pyarrow reads a file from: its path, or over a URL the open file."""
    return path.absolute() if isinstance(path, Path) else path.open()


@contextmanager
def published(path: Path | UrlPath) -> Iterator[Path]:
    """A local file to write; at the end it is `path`, in one step, or disappears after an error."""
    if isinstance(path, Path):
        hidden = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        try:
            yield hidden
            with open(hidden, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="hmr-skel-") as folder:
        local = Path(folder) / path.name
        yield local
        path.put(local)


@contextmanager
def output_problems(directory: Path | UrlPath) -> Iterator[None]:
    """What the system says of writing (a full disk, no permission) as an InputError that names the folder."""
    try:
        yield
    except OSError as error:
        problem = f"cannot be written to: {error.strerror or error}"
        expected = "room to write; the same command goes on from here"
        raise InputError(problem, file=directory, field="--output", expected=expected) from error


def remove_folder(path: Path | UrlPath) -> None:
    """A folder and the files in it, if it is there; what cannot be removed stays."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for file in path.iterdir():
            file.unlink(missing_ok=True)


def local_folder(url: str, endings: tuple[str, ...]) -> tempfile.TemporaryDirectory[str]:
    """Files with these endings in a folder behind a URL and in its sub-folders, fetched once per process and run."""
    return _local_folder(url, endings, tempfile.gettempdir())


@lru_cache(maxsize=8)
def _local_folder(url: str, endings: tuple[str, ...], temporary: str) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="hmr-skel-", dir=temporary, ignore_cleanup_errors=True)
    root = UrlPath(url)
    for path in [*root.glob("*"), *root.glob("*/*")]:
        if path.name.lower().endswith(endings):
            target = Path(folder.name) / path.url.removeprefix(f"{root.url}/")
            target.parent.mkdir(exist_ok=True)
            with path.open() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _PIECE)
    return folder
