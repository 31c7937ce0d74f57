"""One pipeline file under several runners: the same bytes from all of them, the same words for what is wrong.

The portable runner is Beam's own, against a job service in another process: jobs, data and results travel over gRPC as
they would to Flink or Spark. No Flink, Spark or Dataflow takes part.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

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
