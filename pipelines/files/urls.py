"""Files behind URLs (s3://, gs://, https://, ...), with pathlib's words, by fsspec and its file systems.

Files are read by range. What is written appears whole: an object store shows an object when it is complete; elsewhere
the file is written under a hidden name and moved. Where a file system needs to be told something (an endpoint, a key),
it reads it from the environment or fsspec's configuration, so that every worker has it.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from schemas import InputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READ_AHEAD = 1 << 18
"""Bytes that a file over a URL is read ahead unless its opener says otherwise."""

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_WHOLE_WHEN_SHOWN = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Object stores: what is put there has no name before it is complete."""
_PAGES = {"http", "https"}
"""Where a folder is a page that lists its files."""
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
)
"""What fsspec's file systems call that by which a content is told from another."""
_SILENCE = 60.0
"""Seconds after which a web server that sends nothing is given up."""
_WITHOUT_WRITING = "files behind it cannot be written"


def is_url(where: str | os.PathLike[str] | UrlPath) -> bool:
    return isinstance(where, UrlPath) or bool(_URL.match(os.fspath(where)))


class Facts(NamedTuple):
    """What `UrlPath.stat` tells, under the names of os.stat: bytes, and when it was changed, s and ns; 0 if unknown."""

    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)


@dataclass(frozen=True, order=True)
class UrlPath:
    """A file or folder behind a URL, with pathlib.Path's words.

    Whatever a file system raises comes as OSError; what is missing to reach it (a package, an option) as InputError.
    It is no os.PathLike on purpose: nothing can take it for a local path.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0].lower()

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
        raw = _Reader(self)
        return io.BufferedReader(raw, buffering) if buffering else raw  # type: ignore[return-value]

    def read_range(self, offset: int, size: int) -> bytes:
        """Bytes [offset, offset + size) in one request, fewer if the file ends before."""
        if size <= 0:
            return b""
        with _problems(self) as system:
            data = system.cat_file(self.url, start=offset, end=offset + size)
        if len(data) > size:
            problem = "the server gives whole files where a part is asked for"
            raise InputError(problem, file=self.url, expected="a server that serves ranges, or a copy on this machine")
        return data

    def read_bytes(self) -> bytes:
        with _problems(self) as system:
            return system.cat_file(self.url)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def get(self, local: Path) -> None:
        """Writes the content into a local file, as it comes, from first byte to last."""
        with _problems(self) as system:
            system.get_file(self.url, os.fspath(local))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """The file appears, or is replaced, as a whole."""
        with tempfile.TemporaryDirectory(prefix="hmr-skel-") as folder:
            local = Path(folder) / "text"
            local.write_bytes(text.encode(encoding))
            self.put(local)

    def put(self, local: Path) -> None:
        """The file appears, or is replaced, as a whole, with a local one's content."""
        if self.scheme in _PAGES:
            raise OSError(errno.EROFS, _WITHOUT_WRITING)
        if self.scheme in _WHOLE_WHEN_SHOWN:
            with _problems(self) as system:
                system.put_file(os.fspath(local), self.url)
            return
        hidden = self.with_name(f".{self.name}.tmp-{uuid.uuid4().hex}")
        with _problems(self) as system:
            try:
                system.put_file(os.fspath(local), hidden.url)
                self.unlink(missing_ok=True)  # HDFS moves to no name that is taken
                system.mv(hidden.url, self.url)
            except BaseException:
                with contextlib.suppress(Exception):
                    system.rm_file(hidden.url)
                raise

    def replace(self, target: UrlPath) -> None:
        """Give the file another name, also one that is taken."""
        target.unlink(missing_ok=True)
        with _problems(self) as system:
            system.mv(self.url, target.url)

    def exists(self) -> bool:
        return bool(self._info())

    def is_file(self) -> bool:
        return self._info().get("type") == "file"

    def is_dir(self) -> bool:
        """Whether anything is below it; object stores know no empty folders. Behind https, whether it is a page."""
        if self.scheme in _PAGES:
            return str(self._info().get("mimetype", "")).startswith("text/html")
        return self._info().get("type") == "directory"

    def stat(self) -> Facts:
        info = self._info()
        if not info:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        with _problems(self) as system:
            try:
                changed = system.modified(self.url).timestamp()
            except NotImplementedError:
                changed = 0.0
        return Facts(info.get("size") or 0, changed)

    def version(self) -> str:
        """Changes when another content lies here: size and ETag, or when it was changed; "" if neither is told.

        Raises OSError if nobody answers.
        """
        info = self._info()
        told = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
        return f"{info.get('size')} {told}" if told or info.get("size") else ""

    def unlink(self, missing_ok: bool = False) -> None:
        if not self.is_file():
            if missing_ok:
                return
            raise FileNotFoundError(errno.ENOENT, "no such file")
        with _problems(self) as system:
            system.rm_file(self.url)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Folders come with the files in them."""

    def glob(self, pattern: str) -> list[UrlPath]:
        """Files that match, in order; `*` stops at `/`."""
        found = self._listed(pattern)
        return sorted(UrlPath(url) for url, facts in found.items() if facts["type"] == "file")

    def iterdir(self) -> list[UrlPath]:
        return self.glob("*")

    def sizes(self) -> list[tuple[str, int]]:
        """(name, bytes) of the files that lie directly in this folder."""
        files = {UrlPath(url): facts for url, facts in self._listed("*").items() if facts["type"] == "file"}
        return [(path.name, files[path].get("size") or path.stat().st_size) for path in sorted(files)]

    def _info(self) -> dict:
        """What the file system knows of it; nothing if it is not there."""
        with _problems(self) as system:
            try:
                return system.info(self.url)
            except FileNotFoundError:
                return {}

    def _listed(self, pattern: str) -> dict[str, dict]:
        """URL -> facts of what matches in this folder."""
        with _problems(self) as system:
            found = system.glob(f"{glob.escape(self.url)}/{pattern}", detail=True)
            return {system.unstrip_protocol(name): facts for name, facts in found.items()}


class _Reader(io.RawIOBase):
    """A file by range: each read is one request for what is asked."""

    def __init__(self, path: UrlPath) -> None:
        self._path, self._position = path, 0
        info = path._info()
        if not info:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        if info.get("size") is None:
            raise OSError(errno.EIO, "the server does not tell the file's size")
        self._size = int(info["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        size = min(len(buffer), self._size - self._position)
        data = self._path.read_range(self._position, size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def _problems(path: UrlPath) -> Iterator[AbstractFileSystem]:
    """The file system of a URL; whatever it raises becomes an OSError that says why in one line."""
    system = _file_system(path)
    try:
        yield system
    except (InputError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file") from error
    except NotImplementedError as error:
        raise OSError(errno.EROFS, _WITHOUT_WRITING) from error
    except Exception as error:
        number = getattr(error, "errno", None) or errno.EIO
        text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise OSError(number, text) from error


def _file_system(path: UrlPath) -> AbstractFileSystem:
    """Raises InputError for a scheme that is unknown, or whose package is not installed or not configured."""
    import fsspec

    more = {}
    try:
        if path.scheme in _PAGES and not fsspec.config.conf.get(path.scheme, {}).get("client_kwargs"):
            from aiohttp import ClientTimeout

            # aiohttp's own limit is five minutes for a whole file, however well it comes.
            more["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)}
        return fsspec.filesystem(path.scheme, use_listings_cache=False, **more)
    except ValueError as error:
        problem = f"no file system is known for {path.scheme}://"
        expected = "a path, or a URL of one of fsspec's file systems (s3://, gs://, https://, ...)"
        raise InputError(problem, file=path.url, expected=expected) from error
    except ImportError as error:
        problem = f"{path.scheme}:// needs a package that is not installed: {error}"
        raise InputError(problem, file=path.url, expected="that package") from error
    except Exception as error:
        raise InputError(f"{path.scheme}:// cannot be reached: {error}", file=path.url) from error
