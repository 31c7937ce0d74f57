"""One pipeline file under several runners: the same bytes from all of them, the same words for what is wrong.

The portable runner is Beam's own, against a job service in another process: jobs, data and results travel over gRPC as
they would to Flink or Spark. No Flink, Spark or Dataflow takes part.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from failing_jobs import REPOSITORY, told_by_failing_jobs

from pipelines.build_hmr_skel import main
from pipelines.convert import rows
from schemas import InputError


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.1, (9, 72)).astype(np.float32)
    poses[4, 3] = np.nan
    np.savez(folder / "aic.npz", pose_cam=poses, shape=rng.normal(0, 0.5, (9, 10)).astype(np.float32))
    return folder / "aic.npz"


@pytest.fixture(scope="module")
def job_service(tmp_path_factory):
    """`localhost:PORT` of Beam's local job service, a process of its own."""
    folder = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
    command += ["--port", "0", "--port_file", str(folder / "port"), "--staging_dir", str(folder / "staging")]
    with (folder / "log").open("w") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while not (folder / "port").exists() or not (folder / "port").read_text():
        assert service.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.1)
    yield f"localhost:{(folder / 'port').read_text().strip()}"
    service.terminate()
    service.wait(20)


def arguments_of(labels, output):
    always = ["--annotations", str(labels), "--images", "none", "--samples-per-shard", "2", "--threads", "1", "--quiet"]
    return [*always, "--output", str(output)]


WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took: they differ from run to run."""


def content(output):
    files = (path for path in sorted(Path(output).rglob("*")) if path.is_file() and path.name not in WHEN)
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def in_memory(labels, tmp_path_factory):
    output = tmp_path_factory.mktemp("memory")
    assert main([*arguments_of(labels, output), "--runner=DirectRunner"]) == 0
    return content(output)


def portable(job_service):
    return ["--runner=PortableRunner", f"--job_endpoint={job_service}", "--environment_type=LOOPBACK"]


def test_portable_runner_over_grpc(labels, job_service, in_memory, tmp_path):
    assert main([*arguments_of(labels, tmp_path), *portable(job_service)]) == 0
    assert content(tmp_path) == in_memory
    assert json.loads((tmp_path / "run.json").read_text())["runner"] == "PortableRunner"
    # and it resumes what another runner has begun
    (tmp_path / "000002.tar").unlink()
    inode = (tmp_path / "000001.tar").stat().st_ino
    assert main([*arguments_of(labels, tmp_path), *portable(job_service)]) == 0
    assert content(tmp_path) == in_memory and (tmp_path / "000001.tar").stat().st_ino == inode


@pytest.fixture(scope="module")
def pool_with(tmp_path_factory):
    """Starts Beam's worker pool, which starts workers with the `python` of this folder; gives its address."""
    pools = []

    def start(folder):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        log = (tmp_path_factory.mktemp("pool") / "log").open("w")
        pools.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        while pools[-1].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
                return f"localhost:{port}"
            time.sleep(0.1)
        raise AssertionError(Path(log.name).read_text())

    yield start
    for pool in pools:
        pool.kill()
        pool.wait(20)


def external(job_service, pool):
    return [
        *("--runner=PortableRunner", f"--job_endpoint={job_service}"),
        *("--environment_type=EXTERNAL", f"--environment_config={pool}"),
    ]


def test_workers_that_are_not_ours(labels, job_service, pool_with, in_memory, tmp_path):
    """From Beam's worker pool, as Flink and Spark have them."""
    pool = pool_with(Path(sys.executable).parent)
    assert main([*arguments_of(labels, tmp_path), *external(job_service, pool)]) == 0
    assert content(tmp_path) == in_memory


def test_workers_that_never_come(labels, job_service, pool_with, tmp_path):
    """A pool whose Python has no Beam, where no pool is, and no job service: a line each."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    job = arguments_of(labels, tmp_path / "out")
    waits = [*job, *external(job_service, pool_with(tmp_path)), "--worker-timeout", "1"]
    nowhere = [*job, *external(job_service, "localhost:1")]
    without = [*job, *external("localhost:1", "localhost:1"), "--job_server_timeout=1"]
    told = told_by_failing_jobs(waits, nowhere, without)
    assert "no worker has begun within 1 seconds" in told[0]
    assert "failed to connect" in told[1].lower()
    assert "the job service does not answer" in told[2]


def test_threads_as_workers(labels, in_memory, tmp_path):
    workers = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    assert main([*arguments_of(labels, tmp_path), *workers]) == 0
    assert content(tmp_path) == in_memory


def test_what_a_worker_finds_is_told_in_one_line(labels, job_service, tmp_path, monkeypatch, capfd):
    """LOOPBACK workers are threads of this process, fed over gRPC: one finds the label file gone."""

    def gone(path, *rest):
        raise InputError("cannot be read: gone", file=path)

    monkeypatch.setattr("pipelines.convert.rows.open_for_job", gone)
    rows._labels.cache_clear()
    assert main([*arguments_of(labels, tmp_path), *portable(job_service)]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("build_hmr_skel: error")]
    assert lines == [f"build_hmr_skel: error: {labels}: cannot be read: gone"]
    assert not (tmp_path / "dataset.json").exists()
