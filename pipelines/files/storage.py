"""Where files are: paths of this machine, and URLs (gs://, s3://, hdfs://) that Apache Beam's file systems open.

`place` gives a `pathlib.Path` for the one and a `UrlPath` for the other, which has the part of Path's interface that
this project uses: what reads and writes through it does not ask which of them it has. On this machine everything is
done by the operating system; Beam is imported only for URLs.

Files over a URL are read by range. What is written there is made in a local temporary file, copied under a hidden name
and renamed: an object store knows no renaming, so Beam copies and deletes, but the object appears whole under its name.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from schemas import InputError

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileSystem
    from apache_beam.options.pipeline_options import PipelineOptions

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_EXTRAS = {
    "gs": ("gcp", "google.cloud.storage"),
    "s3": ("aws", "boto3"),
    "hdfs": ("hadoop", "hdfs"),
    "azfs": ("azure", "azure.storage.blob"),
}
"""Scheme -> the extra of apache-beam that it needs, and a module that the extra brings."""

_PIECE = 1 << 22
READ_AHEAD = 1 << 18
"""Bytes that a file over a URL is read ahead unless its opener says otherwise."""


def is_url(where: str | os.PathLike[str] | UrlPath) -> bool:
    return isinstance(where, UrlPath) or bool(_URL.match(os.fspath(where)))


def place(where: str | os.PathLike[str] | UrlPath) -> Path | UrlPath:
    """A path of this machine, or a URL."""
    if isinstance(where, UrlPath):
        return where
    return UrlPath(os.fspath(where)) if is_url(where) else Path(where)


class Facts(NamedTuple):
    """What `UrlPath.stat` tells, under the names of os.stat: bytes, and when it was changed, s and ns."""

    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)


@dataclass(frozen=True, order=True)
class UrlPath:
    """A file or folder behind a URL, with pathlib.Path's words.

    Whatever a file system raises comes as OSError; what is missing to reach it (an extra of apache-beam, an option) as
    InputError. It is no os.PathLike on purpose: nothing can take it for a local path.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> UrlPath:
        return UrlPath(self.url.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        stem, dot, ending = self.name.rpartition(".")
        return dot + ending if stem else ""

    def with_name(self, name: str) -> UrlPath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> UrlPath:
        return self.with_name(self.name.removesuffix(self.suffix) + suffix)

    def open(self, mode: str = "rb", buffering: int = READ_AHEAD) -> BinaryIO:
        """The file for reading, seekable; `buffering` bytes are read ahead, 0 for none."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: files over a URL are written with `published`")
        with _problems(self.url) as system:
            raw = _Reader(self.url, system.open(self.url, compression_type="uncompressed"))
        return io.BufferedReader(raw, buffering) if buffering else raw  # type: ignore[return-value]

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """The file appears, or is replaced, as a whole."""
        with published(self) as file:
            file.write_bytes(text.encode(encoding))

    def exists(self) -> bool:
        with _problems(self.url) as system:
            return system.exists(self.url)

    is_file = exists

    def is_dir(self) -> bool:
        """Whether anything is below it; object stores know no empty folders."""
        try:
            return bool(_match(self / "**", limit=1))
        except OSError:  # file systems with folders refuse to list one that is not there
            return False

    def stat(self) -> Facts:
        with _problems(self.url) as system:
            found = system.metadata(self.url)
        return Facts(found.size_in_bytes, found.last_updated_in_seconds)

    def unlink(self, missing_ok: bool = False) -> None:
        if missing_ok and not self.exists():
            return
        with _problems(self.url) as system:
            system.delete([self.url])

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Folders come with the files in them."""

    def glob(self, pattern: str) -> list[UrlPath]:
        """Files that match, in order; `*` stops at `/`."""
        try:
            return [path for path, _ in _match(self / pattern)]
        except OSError:
            if self.is_dir():
                raise
            return []

    def iterdir(self) -> list[UrlPath]:
        return self.glob("*")

    def sizes(self) -> list[tuple[str, int]]:
        """(name, bytes) of the files that lie directly in this folder."""
        return [(path.name, size) for path, size in _match(self / "*")]


def find(pattern: str) -> list[str]:
    """Files that a path, URL or glob names, in order."""
    if not is_url(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    folder = place(pattern).parent
    return [str(path) for path in folder.glob(pattern.rpartition("/")[2])]


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


def read_range(path: UrlPath, offset: int, size: int) -> bytes:
    """Bytes [offset, offset + size) of a file, fewer if it ends before.

    The calling thread keeps the last file open, so that what a file system reads ahead of its own accord serves the
    next call.
    """
    held: BinaryIO | None = getattr(_of_thread, "file", None)
    if held is None or _of_thread.path != path:
        if held is not None:
            held.close()
        _of_thread.path, _of_thread.file = path, None
        _of_thread.file = held = path.open(buffering=0)
    held.seek(offset)
    pieces = []
    while size > 0 and (piece := held.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def readable(path: Path | UrlPath) -> Path | BinaryIO:
    """What pyarrow reads a file from: its path, or over a URL the open file."""
    return path if isinstance(path, Path) else path.open()


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
        hidden_url = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
        with _problems(path.url) as system:
            try:
                with local.open("rb") as source, system.create(hidden_url.url, compression_type="uncompressed") as file:
                    shutil.copyfileobj(source, file, _PIECE)
                path.unlink(missing_ok=True)  # HDFS renames to no name that is taken
                system.rename([hidden_url.url], [path.url])
            except BaseException:
                with contextlib.suppress(Exception):
                    system.delete([hidden_url.url])
                raise


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
        files = [file.url for file in path.iterdir()]
        if files:
            with _problems(path.url) as system:
                system.delete(files)


@lru_cache(maxsize=8)
def local_folder(url: str, endings: tuple[str, ...]) -> tempfile.TemporaryDirectory[str]:
    """Files with these endings in a folder behind a URL and in its sub-folders, fetched once per process."""
    folder = tempfile.TemporaryDirectory(prefix="hmr-skel-")
    root = UrlPath(url)
    for path in [*root.glob("*"), *root.glob("*/*")]:
        if path.name.lower().endswith(endings):
            target = Path(folder.name) / path.url.removeprefix(f"{root.url}/")
            target.parent.mkdir(exist_ok=True)
            with path.open() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _PIECE)
    return folder


def use_options(options: PipelineOptions) -> None:
    """Reach file systems with these options of Beam (endpoints, users, credentials)."""
    from apache_beam.io.filesystems import FileSystems

    FileSystems.set_options(options)


_of_thread = threading.local()


class _Reader(io.RawIOBase):
    """A file of Beam's without what it would read ahead, if that can be had; its problems are OSErrors."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._outer, self._file = url, file, getattr(file, "raw", file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _problems(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _problems(self._url):
            self._file.seek(offset, whence)
            return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._outer.close()
        super().close()


def _match(pattern: UrlPath, limit: int | None = None) -> list[tuple[UrlPath, int]]:
    """(file, bytes) of what matches, in order."""
    with _problems(pattern.url) as system:
        [found] = system.match([pattern.url], [limit])
    return sorted((UrlPath(facts.path), facts.size_in_bytes) for facts in found.metadata_list)


@contextmanager
def _problems(url: str) -> Iterator[FileSystem]:
    """The file system of a URL; whatever it raises becomes an OSError that says why in one line."""
    system = _file_system(url)
    try:
        yield system
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        details = getattr(error, "exception_details", None)
        reason = next(iter(details.values())) if isinstance(details, dict) and details else error
        number = getattr(error, "errno", None) or errno.EIO
        text = " ".join(str(reason).split()) or type(reason).__name__
        raise OSError(number, text) from error


def _file_system(url: str) -> FileSystem:
    """Raises InputError for a scheme that is unknown, or whose client is not installed or not configured."""
    scheme = url.partition(":")[0]
    extra, module = _EXTRAS.get(scheme, ("", ""))
    if extra and not _is_installed(module):
        problem = f"{scheme}:// needs an extra that is not installed"
        raise InputError(problem, file=url, expected=f"pip install 'apache-beam[{extra}]'")
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.value_provider import RuntimeValueProvider

    if FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None:
        FileSystems.set_options(PipelineOptions([]))
    try:
        return FileSystems.get_filesystem(url)
    except ValueError as error:
        if str(error).startswith("Unable to get filesystem"):
            known = ", ".join(f"{name}://" for name in _EXTRAS)
            problem = f"no file system is known for {scheme}://"
            raise InputError(problem, file=url, expected=f"a path, or one of {known}") from error
        raise InputError(f"{scheme}:// cannot be reached: {error}", file=url, expected="Beam's option") from error


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package on the way to it
        return False
