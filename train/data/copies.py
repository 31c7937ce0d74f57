"""Copies of files behind URLs, in a folder on local disk that all processes of a machine share.

A file is fetched by webdataset's readers (http, s3, gs, ..., `pipe:`), by one process at a time, and has its name only
when it is complete. Copies that were not used for longest make room for others.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import logging
import os
import queue
import re
import shlex
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipelines.files.storage import published
from schemas import InputError

log = logging.getLogger(__name__)

TRIES = 3
_PAUSE = 2.0
"""Seconds between tries."""
_ENDINGS = (".tar", ".parquet", ".json")
_BLOCK = 1 << 20
_AT_ONCE = 16
"""Small files that are fetched at the same time."""


PIPE = "pipe:"
"""Begins a shell command whose output is the file."""


def beside(url: str, ending: str) -> str:
    """The URL of the file that lies beside a tar and has another ending, also inside a `pipe:` command."""
    head, dot, tail = url.rpartition(".tar")
    return f"{head}.{ending}{tail}" if dot else f"{url}.{ending}"


class Copies:
    """Copies in `folder`, whose tars together take `gigabytes` at most (0: as much as comes)."""

    def __init__(self, folder: str | os.PathLike[str], gigabytes: float = 0.0) -> None:
        self.folder, self.most = Path(folder), int(gigabytes * 1e9)
        self._thread: threading.Thread | None = None
        self._wanted: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._asked: list[str] = []

    def __reduce__(self):  # threads do not travel to another process
        return Copies, (self.folder, self.most / 1e9)

    def path(self, url: str) -> Path:
        """Where the copy of a shard's tar, or of a file beside it, lies, whether it is there or not."""
        ending = max(_ENDINGS, key=url.rfind)
        head, dot, tail = url.rpartition(ending)
        if not dot:
            raise InputError("not a shard", file=url, expected="the URL of a .tar")
        place, _, name = head.rpartition("/")
        return self.folder / hashlib.sha256((place + tail).encode()).hexdigest()[:12] / f"{name}{ending}"

    def fetch(self, url: str) -> Path:
        """The copy of a file, made if it is not there. It is held to the checksum in the JSON file beside it.

        Raises InputError if the file cannot be had.
        """
        target = self.path(url)
        while True:
            self._copy(url, target)
            with contextlib.suppress(FileNotFoundError):  # another process may just have needed the room
                os.utime(target)
                return target

    def forget(self, url: str) -> None:
        """Removes a copy that turned out to be of no use."""
        self.path(url).unlink(missing_ok=True)

    def fetch_all(self, urls: Iterable[str]) -> list[Path]:
        """Several small files at once, with a progress bar if they take long."""
        from tqdm import tqdm

        urls = list(urls)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(tqdm(threads.map(self.fetch, urls), "labels", len(urls), delay=2, unit="file", disable=None))

    def ahead(self, urls: list[str]) -> None:
        """Fetch these tars in the background, first things first; what was asked for earlier is forgotten."""
        if urls == self._asked:
            return
        self._asked = urls
        if self._thread is None or not self._thread.is_alive():  # as in a process that was forked
            self._wanted = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._fetch_ahead, args=(self._wanted,), daemon=True)
            self._thread.start()
        self._wanted.put(urls)

    def _fetch_ahead(self, wanted: queue.SimpleQueue[list[str]]) -> None:
        while True:
            for url in wanted.get():
                if not wanted.empty():
                    break
                try:
                    self._copy(url, self.path(url), wait=False)
                except (InputError, OSError) as error:  # whoever needs the file will be told
                    log.debug("%s: %s", url, error)

    def _copy(self, url: str, target: Path, wait: bool = True) -> None:
        """Makes a copy if nobody has; waits for another process that is at it, if told to."""
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{target.name}.lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return
            for left in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):  # of a process that was killed
                left.unlink(missing_ok=True)
            tries = 0
            while not target.exists():
                try:
                    _download(url, target)
                except Exception as error:  # each protocol's reader has its own
                    problem, tries = _problem(error), tries + 1
                    if tries == TRIES:
                        raise InputError(f"cannot be fetched: {problem}", file=url) from error
                    log.warning("%s: %s; trying again", url, problem)
                    time.sleep(_PAUSE)
        self._make_room()

    def _make_room(self) -> None:
        found = []
        for tar in self.folder.glob("*/*.tar") if self.most else ():
            with contextlib.suppress(FileNotFoundError):  # other processes make room, too
                found.append((tar.stat().st_mtime, tar.stat().st_size, tar))
        found.sort()
        over = sum(size for _, size, _ in found) - self.most
        for _, size, tar in found[:-1]:
            if over <= 0:
                break
            # Processes that have it open go on reading it.
            tar.unlink(missing_ok=True)
            over -= size


def _download(url: str, target: Path) -> None:
    """Fetches a file whole or not at all. Raises whatever the protocol's reader does, and OSError for other bytes."""
    digest = hashlib.sha256()
    with published(target) as hidden:
        with _opened(url) as stream, open(hidden, "wb") as file:
            while block := stream.read(_BLOCK):
                digest.update(block)
                file.write(block)
        if not hidden.stat().st_size:
            raise OSError("nothing came")
        if target.suffix != ".json" and digest.hexdigest() != (_checksum(url) or digest.hexdigest()):
            raise OSError("not the bytes that the JSON file beside it tells")


def _checksum(url: str) -> str | None:
    """What a shard's JSON file says of the file; None if there is no such file, as beside shards that others wrote."""
    ending = max(_ENDINGS, key=url.rfind)
    head, _, tail = url.rpartition(ending)
    try:
        with _opened(f"{head}.json{tail}") as stream:
            return str(json.loads(stream.read())[f"{ending[1:]}_sha256"])
    except Exception as error:  # each protocol's reader has its own
        log.debug("%s: no checksum (%s)", url, error)
        return None


def _problem(error: Exception) -> str:
    """webdataset tells of a reader that failed by the arguments of its making."""
    match = re.match(r"\(\(\[?'(.*?)'.*exit (\d+) \(read\)", str(error))
    return f"{match[1].partition(' ')[0]} ended with exit status {match[2]}" if match else str(error)


def _opened(url: str) -> BinaryIO:
    from webdataset.gopen import gopen

    # webdataset reads s3 by such commands only.
    return gopen(f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url)
