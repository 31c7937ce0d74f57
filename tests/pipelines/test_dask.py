"""The job on Dask: a scheduler and two workers as processes of their own, one of which is killed half-way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from failing_jobs import told_by_failing_jobs

from pipelines.build_hmr_skel import main

pytest.importorskip("distributed", reason="needs hmr-skel[dask]")

REPOSITORY = Path(__file__).parents[2]
WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took: they differ from run to run."""


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "aic.npz"
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.1, (12, 72)).astype(np.float32)
    poses[4, 3] = np.nan
    np.savez(path, pose_cam=poses, shape=rng.normal(0, 0.5, (12, 10)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(file by which the scheduler is found, the workers' processes)"""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    always = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = [["scheduler", "--port", "0", *always]]
    commands += [["worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder), *always]] * 2
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    processes = []
    for number, (kind, *arguments) in enumerate(commands):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        with (folder / f"log{number}").open("w") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    yield file, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def arguments_of(labels, output, *more):
    always = ["--annotations", str(labels), "--images", "none", "--samples-per-shard", "2", "--threads", "1", "--quiet"]
    return [*always, "--output", str(output), *more]


def on_dask(file):
    return ["--runner=DaskRunner", f"--dask_scheduler_file={file}"]


def content(output):
    files = (path for path in sorted(Path(output).rglob("*")) if path.is_file() and path.name not in WHEN)
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_dask_makes_the_same_bytes_and_survives_a_worker(labels, cluster, tmp_path):
    file, workers = cluster
    assert main(arguments_of(labels, tmp_path / "direct")) == 0
    direct = content(tmp_path / "direct")
    output = tmp_path / "dask"
    with ThreadPoolExecutor(1) as thread:
        job = thread.submit(main, arguments_of(labels, output, *on_dask(file)))
        while not list(output.glob("0*.tar")) and not job.done():
            time.sleep(0.02)
        workers[0].kill()
        assert len(list(output.glob("0*.tar"))) < 6, "all was done before the kill"
    assert job.result() == 0
    assert content(output) == direct
    run = json.loads((output / "run.json").read_text())
    assert (run["runner"], run["workers"]) == ("DaskRunner", None)
    assert run["device"] == json.loads(direct["dataset.json"])["options"]["device"]

    workers[1].kill()
    none_comes = arguments_of(labels, output, *on_dask(file), "--worker-timeout", "1")
    unreachable = arguments_of(labels, output, "--runner=DaskRunner", "--dask_client_address=tcp://localhost:1")
    told = told_by_failing_jobs(none_comes, [*unreachable, "--dask_connection_timeout=1"])
    assert len(told) == 2 and "no worker has begun within 1 seconds" in told[0], told
    assert "Dask's scheduler cannot be reached" in told[1]
