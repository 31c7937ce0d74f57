"""Options that differ from those with which a run was begun, and whether that counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.command.option_files import read_options
from schemas import InputError

log = logging.getLogger(__name__)

FILE = "options.yaml"
"""In a run's folder: its options, as `--config` takes them."""

WITHOUT_EFFECT = {
    *(
        "output",
        "device",
        "workers",
        "compile",
        "checkpoint_activations",
        "peak_tflops",
        "cache",
        "cache_gb",
        "allow_pipe",
    ),
    *("checkpoint_minutes", "checkpoint_steps", "keep", "log_steps", "panel_steps", "evaluate_people"),
    *("nonfinite_limit", "shards", "batch", "accumulate"),
}
"""Options that change nothing of what is learnt. Other people than the run's and another global batch are refused: so
`shards` says only where they lie, `batch` and `accumulate` how a step is shared out."""

PAST = {"initialise"}
"""Options that had their effect when the run was begun."""


def tell_differences(folder: Path, options: Mapping[str, Any]) -> None:
    """Logs which options are other than those in the folder of a run that goes on."""
    file = folder / FILE
    if not file.is_file():
        return
    try:
        before = read_options(file)
    except InputError as error:
        log.warning("whether options have changed is not known: %s", error)
        return
    counts, without, past = differences(before, options)
    if counts:
        log.warning("going on with other options, which count from here on: %s", "; ".join(counts))
    if past:
        log.warning("without effect, because the run has begun: %s", "; ".join(past))
    if without:
        log.warning("going on with other options, which change nothing that is learnt: %s", "; ".join(without))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """`learning_rate 0.0001 (was 1e-05)` and so on: of options that count, that do not, and that did."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name, value in now.items():
        if name in before and before[name] != value:
            kind = 1 if name in WITHOUT_EFFECT else 2 if name in PAST else 0
            found[kind].append(f"{name} {value} (was {before[name]})")
    return found
