"""What a runner says when it fails goes to a file; a person gets one line that names it.

A worker that dies takes with it a dozen of Beam's threads, each of which prints how it ended.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.files.temporary import lasting_folder
from schemas import InputError

_beam = logging.getLogger("apache_beam")
_ENGINES = (_beam, *map(logging.getLogger, ("distributed", "distributed.client", "tornado", "asyncio")))
"""Beam, Dask, and what Dask talks through."""


@contextmanager
def runner_log() -> Iterator[Path]:
    """Beam's log and the tracebacks of threads go to this file. It stays if the run fails for no fault of the input.

    After such a failure nothing is put back: threads of the runner may end later than the run, and the process is next.
    """
    path = lasting_folder() / f"hmr-skel-run-{uuid.uuid4().hex}.log"
    handler = logging.FileHandler(path, delay=True)  # there is no file unless there is something to tell
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for engine in _ENGINES:
        for earlier in engine.handlers[:]:
            engine.removeHandler(earlier)
        engine.addHandler(handler)
        engine.propagate = False
    threading.excepthook = _log_end_of_thread

    def of_beam(record: logging.LogRecord) -> bool:
        """What a job service tells is logged by Beam under no name."""
        if "apache_beam" in record.pathname:
            handler.handle(record)
        return "apache_beam" not in record.pathname

    logging.getLogger().addFilter(of_beam)
    try:
        yield path
    except InputError:
        _put_back(handler, of_beam, path)
        raise
    except Exception as error:
        _beam.error("the run ended", exc_info=error)
        raise
    _put_back(handler, of_beam, path)


def _put_back(handler: logging.Handler, of_beam: Callable[[logging.LogRecord], bool], path: Path) -> None:
    logging.getLogger().removeFilter(of_beam)
    for engine in _ENGINES:
        engine.removeHandler(handler)
        engine.propagate = True
    threading.excepthook = threading.__excepthook__
    handler.close()
    path.unlink(missing_ok=True)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "?"
    _beam.error("thread %s ended", name, exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback))
