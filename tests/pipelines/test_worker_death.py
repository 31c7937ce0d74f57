"""A worker process that dies at any point of its life ends the job: exit code 1 and one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]

DYING_WORKER = """
import os, signal, sys

class Death:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["DIE_AT_IMPORT_OF"]:
            os.kill(os.getpid(), signal.SIGKILL)

if int(os.environ.get("WORKER_ID", "worker_0").partition("_")[2]) % 2:
    sys.meta_path.insert(0, Death())
"""
"""Python imports it first: every second worker kills itself when it comes to a module. The driver has no WORKER_ID."""


@pytest.mark.parametrize("module", ["apache_beam", "apache_beam.runners.worker.sdk_worker", "pipelines.build_hmr_skel"])
def test_the_job_ends_with_a_worker(module, tmp_path):
    """One dies as it starts, before it connects, or with its first work in hand; the other one lives."""
    labels, output = tmp_path / "aic.npz", tmp_path / "out"
    np.savez(labels, pose_cam=np.zeros((4, 72), np.float32), shape=np.zeros((4, 10), np.float32))
    (tmp_path / "sitecustomize.py").write_text(DYING_WORKER)
    command = [sys.executable, "-m", "pipelines.build_hmr_skel", "--annotations", str(labels), "--images", "none"]
    command += ["--samples-per-shard", "2", "--threads", "1", "--quiet", "--output", str(output)]
    command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "DIE_AT_IMPORT_OF": module}
    environment |= {"TMPDIR": str(tmp_path)}
    job = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert job.returncode == 1, job.stderr
    [told] = [line for line in job.stderr.splitlines() if "error:" in line]
    assert "a worker process died" in told and "the same command goes on from here" in told
    assert "Traceback" not in job.stderr and Path(told.rpartition(" ")[2]).is_file()
    assert not (output / "dataset.json").exists()
