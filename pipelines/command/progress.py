"""How far a command is: a bar on a terminal, elsewhere a line in the log every half a minute."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds between two lines in the log; what takes less than that has none."""

_LINE = "{desc}: {n:,} of {total:,} {noun}, {rate_noinv_fmt}, {remaining} left{postfix}"
_LINE_WITHOUT_TOTAL = "{desc}: {n:,} {noun}, {rate_noinv_fmt}{postfix}"


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> tqdm:
    """A tqdm, of these `options` on a terminal, that is `quiet` or shows itself as there is a terminal or not.

    `unit` is the plural of what is counted, as in "120 people".
    """
    from tqdm import tqdm

    unit = f" {unit}"
    if quiet or on_terminal():
        return tqdm(iterable, desc=desc, unit=unit, total=total, disable=quiet, **options)
    log.setLevel(logging.INFO)
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    line = (_LINE_WITHOUT_TOTAL if total is None else _LINE).replace("{noun}", unit.strip())
    return tqdm(
        iterable,
        desc=desc,
        unit=unit,
        total=total,
        initial=options.get("initial", 0),
        file=_LogLines(),  # type: ignore[arg-type]
        bar_format=line,
        delay=LOG_EVERY,
        mininterval=LOG_EVERY,
        maxinterval=LOG_EVERY,
        miniters=1,
    )


def on_terminal() -> bool:
    """Whether somebody sees what is shown on stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


class _LogLines:
    """A file whose lines go to the log."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        if words := text.split():
            log.info("%s", " ".join(words))

    def flush(self) -> None:
        pass
