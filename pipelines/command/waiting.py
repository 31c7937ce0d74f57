"""Waiting for a job whose workers somebody else starts: for ever if they work, not if there are none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

_POLL_S = 0.2
_CANCEL_S = 10.0
"""How long a runner may take to cancel a job that has no workers."""


class NoWorker(RuntimeError):
    """No worker has begun to work."""


def wait_for_workers(result: PipelineResult, begun: Callable[[], bool], seconds: float) -> None:
    """`result.wait_until_finish()`; cancels the job and raises NoWorker if none has `begun` after so many seconds."""
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
        except BaseException as error:  # raised again by who waits
            raised.append(error)

    waiting = _in_thread(wait)
    end = time.monotonic() + seconds
    while waiting.is_alive() and not begun():
        if time.monotonic() > end:
            _in_thread(lambda: _cancel(result)).join(_CANCEL_S)
            raise NoWorker(f"no worker has begun within {seconds:g} seconds (--worker-timeout)")
        waiting.join(_POLL_S)
    waiting.join()
    if raised:
        raise raised[0]


def _cancel(result: PipelineResult) -> None:
    with contextlib.suppress(Exception):
        result.cancel()


def _in_thread(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
