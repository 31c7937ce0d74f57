"""A file system of another scheme for Beam, `memtest://`, as awkward as any that the job may meet.

Like an object store it has no folders; like HDFS it neither creates nor renames to a name that is taken; as with Beam's
S3 no file can be empty. Its files lie in the folder that MEMTEST_FILES names, one file per URL, so that other processes
see them too.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from urllib.parse import quote, unquote

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

PREFIX = "memtest://"
read: dict[str, int] = {}
"""URL -> bytes that were read of it in this process."""


def file_of(url: str) -> Path:
    return Path(os.environ["MEMTEST_FILES"]) / quote(url, safe="")


def content(prefix: str) -> dict[str, bytes]:
    """What lies below a URL: name -> bytes."""
    urls = {unquote(path.name): path for path in sorted(Path(os.environ["MEMTEST_FILES"]).iterdir())}
    return {url[len(prefix) + 1 :]: path.read_bytes() for url, path in urls.items() if url.startswith(prefix + "/")}


class _Counting(io.FileIO):
    """Told through `raw` of a BufferedReader as Beam's own downloads are."""

    def __init__(self, url: str) -> None:
        super().__init__(file_of(url))
        self.url = url

    def read(self, size=-1) -> bytes:
        data = super().read(size)
        read[self.url] = read.get(self.url, 0) + len(data)
        return data

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _NeverEmpty(io.FileIO):
    def close(self) -> None:
        if not self.closed and not self.tell():
            super().close()
            raise BeamIOError("MalformedXML when calling the CompleteMultipartUpload operation")
        super().close()


class MemoryFiles(FileSystem):
    """What FileSystem asks for, and nothing that pathlib would do besides."""

    @classmethod
    def scheme(cls):
        return "memtest"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        raise BeamIOError("there are no folders")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path in sorted(Path(os.environ["MEMTEST_FILES"]).iterdir()):
            if unquote(path.name).startswith(dir_or_prefix):
                facts = path.stat()
                yield FileMetadata(unquote(path.name), facts.st_size, facts.st_mtime)

    def create(self, path, mime_type="application/octet-stream", compression_type="auto"):
        if self.exists(path):
            raise BeamIOError("exists", {path: FileExistsError(path)})
        return _NeverEmpty(file_of(path), "wb")

    def open(self, path, mime_type="application/octet-stream", compression_type="auto"):
        try:
            return io.BufferedReader(_Counting(path), 1 << 24)
        except OSError as error:
            raise BeamIOError("open failed", {path: error}) from None

    def copy(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            with self.create(target) as file:
                file.write(file_of(source).read_bytes())

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return file_of(path).is_file()

    def size(self, path):
        return self.metadata(path).size_in_bytes

    def last_updated(self, path):
        return self.metadata(path).last_updated_in_seconds

    def metadata(self, path):
        if not self.exists(path):
            raise BeamIOError("metadata failed", {path: FileNotFoundError(2, "no such file")})
        facts = file_of(path).stat()
        return FileMetadata(path, facts.st_size, facts.st_mtime)

    def delete(self, paths):
        missing = {path: FileNotFoundError(2, "no such file") for path in paths if not self.exists(path)}
        if missing:
            raise BeamIOError("delete failed", missing)
        for path in paths:
            file_of(path).unlink()
