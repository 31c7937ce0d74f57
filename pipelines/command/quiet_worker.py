"""Beam's worker process, `python -m pipelines.command.quiet_worker`, without what it says on stderr when it starts.

Its errors, and what our code logs, are said as ever.
"""

from __future__ import annotations

import logging
import runpy

BEAMS = "apache_beam.runners.worker.sdk_worker_main"
"""The module that it runs, under the name __main__."""

_CHATTER = ("apitools not found", "Logging handler created")


def is_chatter(record: logging.LogRecord) -> bool:
    """Whether Beam says of itself what nobody needs: that Google's clients are absent, that it logs."""
    return str(record.msg).startswith(_CHATTER)


def main() -> None:
    for name in (None, "__main__"):
        logging.getLogger(name).addFilter(lambda record: not is_chatter(record))
    runpy.run_module(BEAMS, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
