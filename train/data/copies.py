"""Copies of files behind URLs, in a folder on local disk that all processes of a machine share.

A file is fetched as the job reads URLs (`pipelines.files.urls`), or by a command (`pipe:`), by one process at a time,
and has its name only when it is complete. Copies that were not used for longest make room for others.

A copy is used only if it is what lies behind the URL now: each process reads it once and compares its checksum with
that of the JSON file beside the original. Where there is none, the checksum is compared with that of the day it was
copied, and size and ETag of the original with those of that day. The folder must be the user's own, and links in it
are not followed: whoever could put something there could put numbers into a training.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.command.progress import progress_bar
from pipelines.files.storage import published
from schemas import InputError
from train.data import origin
from train.data.origin import Told, beside, split

log = logging.getLogger(__name__)

TRIES = 3
_PAUSE = 2.0
"""Seconds between tries."""
_BLOCK = 1 << 20
_LARGEST_RECORD = 1 << 16
_AT_ONCE = 16
"""Small files that are fetched at the same time."""
_RECORD = ".origin"
"""Ending of the hidden file beside a copy that says of which content it was made."""


class Copies:
    """Copies in `folder`, whose tars together take `gigabytes` at most (0: as much as comes).

    `commands`: whether shell commands (`pipe:`) may be the source.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        gigabytes: float = 0.0,
        commands: bool = False,
        told: dict[str, Told] | None = None,
    ) -> None:
        self.folder, self.most, self.commands = Path(folder), int(gigabytes * 1e9), commands
        self._told = {} if told is None else told
        self._checked: dict[Path, tuple[int, ...]] = {}
        self._thread: threading.Thread | None = None
        self._wanted: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._asked: list[str] = []

    def __reduce__(self):  # threads do not travel to another process
        return Copies, (self.folder, self.most / 1e9, self.commands, self._told)

    def path(self, url: str) -> Path:
        """Where the copy of a shard's tar, or of a file beside it, lies, whether it is there or not."""
        head, ending, tail = split(url)
        place, _, name = head.rpartition("/")
        return self.folder / hashlib.sha256((place + tail).encode()).hexdigest()[:12] / f"{name}{ending}"

    def ask(self, urls: Iterable[str]) -> None:
        """Find out what lies behind the URLs of these shards now. Raises InputError for commands that are not allowed.

        Who cannot be reached is taken to be as he was when he was last asked.
        """
        urls = [url for url in urls if beside(url, "json") not in self._told]
        for url in urls:
            if url.startswith(origin.PIPE) and not self.commands:
                expected = "--allow-pipe, if you wrote it yourself"
                raise InputError("a shell command", file=url, field="--shards", expected=expected)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = dict(zip(urls, threads.map(origin.ask, urls), strict=True))
        silent = [url for url, told in found.items() if not told.reached]
        for url in silent:
            with contextlib.suppress(OSError):
                document = _read(self.path(beside(url, "json")), origin.LARGEST_DOCUMENT)
                found[url] = Told(origin.sums_of(document), reached=False)
        without = [url for url, told in found.items() if told.reached and not told.sums]
        if silent:
            log.warning("%s does not answer: copies of before are taken to be what is there", silent[0])
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            log.warning(
                "%s%s: no JSON file with checksums beside it; copies are held to the original's size, and its ETag or "
                "time, as far as these are told",
                *(without[0], more),
            )
        for url, told in found.items():
            self._told[beside(url, "json")] = told
            if told.document:
                self._keep_document(url, told.document)
            elif told.reached:  # one of before would be taken for what is there
                self.path(beside(url, "json")).unlink(missing_ok=True)

    def fetch(self, url: str) -> Path:
        """The copy of a file, made if it is not there, or not what lies behind the URL.

        Raises InputError if the file cannot be had, and for a folder that is not the user's own.
        """
        self.ask([url])
        target = self.path(url)
        while True:
            self._copy(url, target)
            with contextlib.suppress(FileNotFoundError):  # another process may just have needed the room
                # Its use is told by the time of access: that of the change stays, by which a check is remembered.
                os.utime(target, ns=(time.time_ns(), target.stat().st_mtime_ns))
                return target

    def forget(self, url: str) -> None:
        """Removes a copy that turned out to be of no use."""
        self.path(url).unlink(missing_ok=True)

    def fetch_all(self, urls: Iterable[str]) -> list[Path]:
        """Several small files at once, with a progress bar if they take long."""
        urls = list(urls)
        self.ask(urls)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(
                progress_bar(threads.map(self.fetch, urls), desc="labels", unit="files", total=len(urls), delay=2)
            )

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
                    self.ask([url])
                    self._copy(url, self.path(url), wait=False)
                except (InputError, OSError) as error:  # whoever needs the file will be told
                    log.debug("%s: %s", url, error)

    def _copy(self, url: str, target: Path, wait: bool = True) -> None:
        """Makes a copy if there is none that is sound; waits for another process that is at it, if told to."""
        _own_folder(self.folder)
        _own_folder(target.parent)
        if self._is_sound(url, target):
            return
        with _opened_own(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return
            for left in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):  # of a process that was killed
                left.unlink(missing_ok=True)
            tries = 0
            while not self._is_sound(url, target):
                target.unlink(missing_ok=True)
                try:
                    self._download(url, target)
                except InputError:
                    raise
                except Exception as error:  # each protocol's reader has its own
                    problem, tries = origin.problem(error), tries + 1
                    if tries == TRIES:
                        raise InputError(f"cannot be fetched: {problem}", file=url) from error
                    log.warning("%s: %s; trying again", url, problem)
                    time.sleep(_PAUSE)
        self._make_room()

    def _is_sound(self, url: str, target: Path) -> bool:
        """Whether there is a copy, and it is what lies behind the URL. Its bytes are looked at once per process."""
        try:
            with _opened_own(target, os.O_RDONLY) as file:
                facts = os.fstat(file)
                seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                if self._checked.get(target) == seen:
                    return True
                wanted, stale = self._wanted_sum(url, target)
                if stale or _sha256(file) != wanted:
                    log.warning("%s: the copy is not what is there; it is fetched again", url)
                    return False
        except FileNotFoundError:
            return False
        self._checked[target] = seen
        return True

    def _wanted_sum(self, url: str, target: Path) -> tuple[str | None, bool]:
        """The checksum that a copy must have, and whether the original has become another since it was made."""
        told = self._told[beside(url, "json")]
        if (known := told.sums.get(target.suffix)) is not None:
            return known, False
        try:
            record = json.loads(_read(_record_of(target), _LARGEST_RECORD))
            made, version = record["sha256"], record["version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, True
        now = origin.version_of(url) if told.reached else None
        # Of a copy that was made beside a JSON file, which is gone, no version is known: it may be of another content.
        return made, now is not None and now != version

    def _download(self, url: str, target: Path) -> None:
        """Fetches a file whole or not at all. Raises whatever the protocol's reader does, OSError for other bytes."""
        told = self._told[beside(url, "json")]
        version = None if told.sums else origin.version_of(url)
        with published(target) as hidden:
            os.close(_open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            found = origin.copy(url, hidden)
            if found != told.sums.get(target.suffix, found):
                raise OSError("not the bytes that the JSON file beside it tells")
        _write(_record_of(target), json.dumps({"url": url, "sha256": found, "version": version}).encode())

    def _keep_document(self, url: str, document: bytes) -> None:
        target = self.path(beside(url, "json"))
        _own_folder(self.folder)
        _own_folder(target.parent)
        _write(target, document)

    def _make_room(self) -> None:
        found = []
        for tar in self.folder.glob("*/*.tar") if self.most else ():
            with contextlib.suppress(FileNotFoundError):  # other processes make room, too
                found.append((tar.lstat().st_atime, tar.lstat().st_size, tar))
        found.sort()
        over = sum(size for _, size, _ in found) - self.most
        for _, size, tar in found[:-1]:
            if over <= 0:
                break
            # Processes that have it open go on reading it.
            tar.unlink(missing_ok=True)
            over -= size


def _own_folder(folder: Path) -> None:
    """Makes a folder if need be. Raises InputError if it belongs to somebody else, or everybody may write into it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = os.stat(folder.resolve(), follow_symlinks=False)
    except OSError as error:
        raise InputError(f"cannot be used: {error.strerror}", file=folder, field="--cache") from error
    whose = f"belongs to user {facts.st_uid}" if facts.st_uid != os.geteuid() else ""
    if whose or facts.st_mode & stat.S_IWOTH:
        problem = whose or "everybody can write into it"
        raise InputError(problem, file=folder, field="--cache", expected="a folder of your own for copies")


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


@contextlib.contextmanager
def _opened_own(path: Path, flags: int) -> Iterator[int]:
    """Descriptor of a regular file in a folder of copies. What is none, a link for instance, is removed: it is then not
    there (FileNotFoundError), or made."""
    try:
        file = _open(path, flags)
        foreign = not stat.S_ISREG(os.fstat(file).st_mode)
        if foreign:
            os.close(file)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        foreign = True
    if foreign:
        log.warning("%s: a link, a pipe or a device where a copy should be; it is removed", path)
        path.unlink(missing_ok=True)
        file = _open(path, flags)
    try:
        yield file
    finally:
        os.close(file)


def _read(path: Path, most: int) -> bytes:
    with _opened_own(path, os.O_RDONLY) as file:
        return os.pread(file, most, 0)


def _write(path: Path, data: bytes) -> None:
    """The file appears, or is replaced, as a whole; a link of this name is replaced, too."""
    hidden = path.with_name(f".{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    hidden.unlink(missing_ok=True)
    with os.fdopen(_open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(data)
    os.replace(hidden, path)


def _record_of(target: Path) -> Path:
    return target.with_name(f".{target.name}{_RECORD}")


def _sha256(file: int) -> str:
    digest, at = hashlib.sha256(), 0
    while block := os.pread(file, _BLOCK, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
