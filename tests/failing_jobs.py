"""Jobs that end with exit code 1, and what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def told_by_failing_jobs(*jobs: list[str]) -> list[str]:
    """The one line of each, run one after another in a process of their own; the log that it names must be there."""
    runs = f"from pipelines.build_hmr_skel import main; print([main(job) for job in {list(jobs)!r}])"
    done = subprocess.run([sys.executable, "-c", runs], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == str([1] * len(jobs)), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("build_hmr_skel: error")]
    assert len(lines) == len(jobs), done.stderr
    for line in lines:
        Path(line.rpartition(" ")[2]).unlink()
    return lines
