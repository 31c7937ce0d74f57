"""run.json: what one run took. It differs from run to run, so it stands apart from the files whose bytes repeat."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.shards import output_problems
from pipelines.storage import UrlPath

RUN_FILE = "run.json"


def run_facts(**more: Any) -> dict[str, Any]:
    """Where and when this run began, with `more` beside it; plain values."""
    return {
        "started": time.time(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        **more,
    }


def write_run(
    directory: Path | UrlPath, facts: Mapping[str, Any], shards: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write run.json from the statistics that the workers sent; returns it.

    `fit_share` is the part of the workers' time in which they fitted, `image_wait_share` the part in which a finished
    fit waited for images; the rest is reading labels and writing. On one GPU with one worker, `fit_share` is its busy
    share as the host sees it.
    """
    shards = list(shards)
    made = [shard["seconds"] | {"rows": shard["rows"]} for shard in shards if "seconds" in shard]
    wall, work = time.time() - facts["started"], sum(shard["all"] for shard in made)
    rows = sum(shard["rows"] for shard in made)
    document = {
        **facts,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts["started"])),
        "wall_s": round(wall, 3),
        "shards_made": len(made),
        "shards_kept": len(shards) - len(made),
        "rows_made": rows,
        "rows_kept": sum(shard["rows"] for shard in shards) - rows,
        "rows_per_s": round(rows / wall, 3) if wall > 0 else None,
        "worker_s": round(work, 3),
        "fit_s": round(sum(shard["fit"] for shard in made), 3),
        "fit_share": round(sum(shard["fit"] for shard in made) / work, 4) if work else None,
        "image_wait_share": round(sum(shard["images"] for shard in made) / work, 4) if work else None,
    }
    with output_problems(directory):
        (directory / RUN_FILE).write_text(json.dumps(document, indent=1) + "\n")
    return document
