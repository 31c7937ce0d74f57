"""What commands log, and how much of it."""

from __future__ import annotations

import logging
import sys


def set_up_logging(verbosity: int) -> None:
    """Log lines on stderr: warnings, with verbosity 1 also progress, with 2 everything."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if verbosity:
        logging.getLogger().setLevel(level)
