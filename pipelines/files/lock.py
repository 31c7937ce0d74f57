"""One run at a time in an output folder.

The lock is the file `.lock`, held by the operating system for as long as the run lives: what a killed run leaves
behind holds nobody up. The file tells who has it, so that a second run can name the first, and it holds a token by
which workers that outlive a killed run notice that the folder is no longer theirs; on the machine of the run they also
see that nobody holds the lock any more.

Behind a URL, and on a file system without `flock`, there is nothing that a system could hold, and no telling a killed
run from one that lives. There the last run that comes has the folder: it writes its token, and the workers of an
earlier one stop before they write their next shard.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.files.urls import UrlPath
from schemas import InputError

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_LONGEST = 1 << 16
_TRIES, _PAUSE_S = 5, 0.02


class OutputTaken(RuntimeError):
    """Another run has taken over the output folder since this one began."""


@contextmanager
def output_lock(directory: Path | UrlPath) -> Iterator[str]:
    """Hold the folder's lock; gives the run's token. Raises InputError that names the run that has it."""
    path = directory / LOCK_FILE
    token = uuid.uuid4().hex
    owner = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T %z")}
    if isinstance(path, UrlPath):
        before = _owner(path)
        if before:
            log.warning("%s: taken over from %s, which was killed or now stops", directory, _who(before))
        path.write_text(json.dumps(owner))
        try:
            yield token
        finally:
            _remove(path, token)
        return
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield token
    finally:
        _remove(path, token)  # before it is let go: whoever waits for this file finds that it has no name any more
        os.close(descriptor)


def check_still_ours(directory: Path | UrlPath, token: str) -> None:
    """Raise OutputTaken if the run of this token lives no more, or the folder is another's by now.

    An empty token is of a lone shard. Whether a run lives is known on its own machine only, by the lock that it holds.
    """
    if not token:
        return
    path = directory / LOCK_FILE
    owner = _owner(path)
    if owner.get("token") != token or (owner.get("host") == socket.gethostname() and _is_free(path)):
        raise OutputTaken(f"{directory}: the run that this worker belongs to has ended")


def _is_free(path: Path | UrlPath) -> bool:
    """Whether nobody holds the lock; False where that cannot be told."""
    import fcntl

    if isinstance(path, UrlPath):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:  # somebody holds it, or there are no locks here
        return False
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Descriptor of the lock file, locked. It is closed by the system when the process ends, however it ends."""
    import fcntl

    tries = _TRIES
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                log.warning("%s: this file system has no locks; an earlier run that writes here stops now", path.parent)
                return descriptor
            owner = _owner(path)
            os.close(descriptor)
            tries -= 1
            if tries:  # a worker of a run that was killed may be looking
                time.sleep(_PAUSE_S)
                continue
            problem, expected = f"another run writes here: {_who(owner)}", "one run per output folder"
            raise InputError(problem, file=path.parent, field="--output", expected=expected) from error
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its owner removed the file while we opened it


def _remove(path: Path | UrlPath, token: str) -> None:
    """Take the lock file away, unless another run has written its token there since: where nothing can be held."""
    if _owner(path).get("token") == token:
        with contextlib.suppress(OSError):
            path.unlink()


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')}"


def _owner(path: Path | UrlPath) -> dict[str, Any]:
    """Who holds the lock, as far as the file tells."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
