"""What a run says of itself: options.yaml, and run.json with what it took.

run.json differs from run to run, so it stands apart from the files whose bytes repeat.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.command.devices import cores
from pipelines.command.option_files import write_options
from pipelines.files.storage import output_problems, published
from pipelines.files.urls import UrlPath
from schemas import InputError

RUN_FILE = "run.json"
OPTIONS_FILE = "options.yaml"


def check_writable(directory: Path | UrlPath) -> None:
    """Makes the output folder if need be. Raises InputError if nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.tmp-{os.getpid()}"
        try:
            probe.write_text("can this be written?")  # some file systems write no empty file
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        problem = f"cannot be written to: {error.strerror or error}"
        raise InputError(problem, file=directory, field="--output", expected="a folder") from error


def save_options(directory: Path | UrlPath, options: dict[str, Any]) -> None:
    """The options of the job (`BuildOptions.recorded`), as `--config` reads them."""
    with published(directory / OPTIONS_FILE) as hidden:
        write_options(hidden, options)


def run_facts(**more: Any) -> dict[str, Any]:
    """Where and when this run began, with `more` beside it; plain values."""
    return {
        "started": time.time(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu_cores": cores(),
        **more,
    }


def _devices(made: list[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Device -> seconds of fitting and busy share."""
    busy: dict[str, float] = {}
    for shard in made:
        for device, seconds in shard["fit"].items():
            busy[device] = busy.get(device, 0.0) + seconds
    span = max(shard["ended"] for shard in made) - min(shard["began"] for shard in made) if made else 0.0
    return {
        device: {"fit_s": round(seconds, 3), "busy_share": round(seconds / span, 4) if span > 0 else 0.0}
        for device, seconds in sorted(busy.items())
    }


def write_run(
    directory: Path | UrlPath, facts: Mapping[str, Any], shards: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write run.json from the statistics that the workers sent; returns it.

    `devices` tells how long each device fitted, and which share of the time from the first shard's beginning to the
    last one's end that is (`busy_share`; in all, the mean over devices); for a CPU, each worker process is a device.
    Of the workers' time `worker_s`, `device_wait_share` is spent waiting for a device that fits for another worker, and
    `image_wait_share` waiting for images after a fit; the rest is fitting, reading labels and writing. Images, and
    writing in other threads, go on while a device fits: shares can add up to more than 1.
    """
    shards = list(shards)
    made = [shard["seconds"] | {"rows": shard["rows"]} for shard in shards if "seconds" in shard]
    wall, work = time.time() - facts["started"], sum(shard["all"] for shard in made)
    rows = sum(shard["rows"] for shard in made)
    devices = _devices(made)
    document = {
        "shards_renamed": 0,
        "shards_removed": 0,
        **facts,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts["started"])),
        "wall_s": round(wall, 3),
        "shards_made": len(made),
        "shards_kept": len(shards) - len(made),
        "rows_made": rows,
        "rows_kept": sum(shard["rows"] for shard in shards) - rows,
        "rows_per_s": round(rows / wall, 3) if wall > 0 else None,
        "worker_s": round(work, 3),
        "devices": devices,
        "busy_share": round(sum(d["busy_share"] for d in devices.values()) / len(devices), 4) if devices else None,
        "device_wait_share": round(sum(shard["device_wait"] for shard in made) / work, 4) if work else None,
        "image_wait_share": round(sum(shard["images"] for shard in made) / work, 4) if work else None,
    }
    with output_problems(directory), published(directory / RUN_FILE) as hidden:
        hidden.write_text(json.dumps(document, indent=1) + "\n")
    return document
