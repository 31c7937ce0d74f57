"""A file system of another scheme for fsspec, `memtest://`, as awkward as any that the job may meet.

Like an object store it has no folders; like HDFS it neither creates nor renames to a name that is taken; no file can be
empty. Its files lie in the folder that MEMTEST_FILES names, one file per URL, so that other processes see them too:
those that import this module (`--beam_plugins memory_files`).
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import fsspec
from fsspec import AbstractFileSystem

PREFIX = "memtest://"
read: dict[str, int] = {}
"""URL -> bytes that were read of it in this process."""
requests: dict[str, int] = {}
"""URL -> how often any of it was asked for in this process."""


def file_of(url: str) -> Path:
    return Path(os.environ["MEMTEST_FILES"]) / quote(url, safe="")


def content(prefix: str) -> dict[str, bytes]:
    """What lies below a URL: name -> bytes."""
    urls = {unquote(path.name): path for path in sorted(Path(os.environ["MEMTEST_FILES"]).iterdir())}
    return {url[len(prefix) + 1 :]: path.read_bytes() for url, path in urls.items() if url.startswith(prefix + "/")}


class MemoryFiles(AbstractFileSystem):
    """What the project asks of a file system, and no more than an object store promises."""

    protocol = "memtest"
    root_marker = ""

    def ls(self, path, detail=True, **rest):
        folder = self._strip_protocol(path)
        found = {}
        for file in sorted(Path(os.environ["MEMTEST_FILES"]).iterdir()):
            name = unquote(file.name).removeprefix(PREFIX)
            if name == folder:
                found[name] = {"name": name, "size": file.stat().st_size, "type": "file"}
            elif not folder or name.startswith(folder + "/"):
                here = name[len(folder) + 1 if folder else 0 :].partition("/")
                name = f"{folder}/{here[0]}" if folder else here[0]
                size, kind = (0, "directory") if here[1] else (file.stat().st_size, "file")
                found[name] = {"name": name, "size": size, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def modified(self, path):
        return datetime.fromtimestamp(self._there(path).stat().st_mtime, UTC)

    def cat_file(self, path, start=None, end=None, **rest):
        data = self._there(path).read_bytes()[start:end]
        url = PREFIX + self._strip_protocol(path)
        read[url] = read.get(url, 0) + len(data)
        requests[url] = requests.get(url, 0) + 1
        return data

    def get_file(self, rpath, lpath, **rest):
        Path(lpath).write_bytes(self.cat_file(rpath))

    def put_file(self, lpath, rpath, callback=None, mode="overwrite", **rest):
        target = self._new(rpath)
        if not os.path.getsize(lpath):
            raise OSError("MalformedXML when calling the CompleteMultipartUpload operation")
        shutil.copyfile(lpath, target)

    def mv(self, path1, path2, **rest):
        shutil.copyfile(self._there(path1), self._new(path2))
        self.rm_file(path1)

    def rm_file(self, path):
        self._there(path).unlink()

    def _there(self, path):
        file = file_of(PREFIX + self._strip_protocol(path))
        if not file.is_file():
            raise FileNotFoundError(path)
        return file

    def _new(self, path):
        file = file_of(PREFIX + self._strip_protocol(path))
        if file.exists():
            raise FileExistsError(path)
        return file


fsspec.register_implementation("memtest", MemoryFiles, clobber=True)
