"""One folder for all that a run writes for itself outside its output: what killed runs left there, the next one sweeps.

The folder has a lock that the system holds for as long as the run lives. Whatever asks Python, or a program that the
run starts, for a temporary file gets one in there: the index of images, Beam's own folders, those of worker processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "hmr-skel-tmp-"
_LOCK = "lock"
_LASTING = "HMR_SKEL_TMPDIR"
"""Environment variable by which worker processes know the folder that is not the run's own."""


def lasting_folder() -> Path:
    """Where temporary files go that outlive a run or serve several."""
    return Path(os.environ.get(_LASTING) or tempfile.gettempdir())


@contextmanager
def run_temporaries() -> Iterator[Path]:
    """A folder in which everything temporary is made until the end of the context, and with which it goes."""
    import fcntl

    base = lasting_folder()
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    lock = os.open(folder / f".{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # without locks nothing is swept either
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(folder / f".{_LOCK}", folder / _LOCK)  # others see it held, or not at all
    before = {name: os.environ.get(name) for name in ("TMPDIR", _LASTING)}
    python_before, tempfile.tempdir = tempfile.tempdir, str(folder)
    os.environ |= {"TMPDIR": str(folder), _LASTING: str(base)}
    try:
        yield folder
    finally:
        tempfile.tempdir = python_before
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(base: Path) -> int:
    """Remove the folders of our own runs that live no more; gives how many."""
    import fcntl

    swept = 0
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError if its run lives
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
            finally:
                os.close(lock)
    if swept:
        log.info("%s: removed %d temporary folders of runs that were killed", base, swept)
    return swept
