"""What Beam's arguments say of a job's workers."""

from __future__ import annotations

import sys

import distributed
import grpc
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.command.build_options import parse_build_options
from pipelines.command.devices import cores
from pipelines.command.runner import Runner
from schemas import InputError


@pytest.mark.parametrize(
    ("arguments", "workers", "processes"),
    [
        ([], 1, 1),
        (["--direct_num_workers=3"], 1, 1),  # in one thread, whatever their number
        (["--direct_running_mode=multi_threading", "--direct_num_workers=3"], 3, 1),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=3"], 3, 3),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=0"], cores(), cores()),
    ],
)
def test_workers_and_processes(arguments, workers, processes):
    runner = Runner.of(arguments)
    assert (runner.workers, runner.processes) == (workers, processes)


@pytest.mark.parametrize(
    ("arguments", "name", "here"),
    [
        ([], "DirectRunner", True),
        (["--runner=DirectRunner"], "DirectRunner", True),
        (["--runner=FlinkRunner"], "FlinkRunner", False),
        (["--runner=PortableRunner", "--environment_type=LOOPBACK"], "PortableRunner", True),
    ],
)
def test_where_the_workers_are(arguments, name, here):
    runner = Runner.of(arguments)
    assert (runner.name, runner.workers_are_here) == (name, here)
    beams = runner.beams(1)
    assert isinstance(beams, FnApiRunner) if name == "DirectRunner" else beams == name


FAILED = (
    'Pipeline job-1 failed in state FAILED: Traceback\n  StatusCode.UNAVAILABLE\n  details = "Connection refused"\n>\n'
)


@pytest.mark.parametrize(
    ("runner", "error", "words"),
    [
        ("DirectRunner", RuntimeError("Worker subprocess exited with return code -9"), "a worker process died"),
        ("PortableRunner", RuntimeError("error: Channel closed prematurely."), "a worker process died"),
        ("PortableRunner", RuntimeError(FAILED), "failed where it was run (Connection refused)"),
        ("PortableRunner", RuntimeError("Pipeline job-1 failed in state FAILED: a\nb: c\n\n"), "run (b: c)"),
        ("PortableRunner", grpc.FutureTimeoutError(), "the job service does not answer"),
        ("DaskRunner", distributed.scheduler.KilledWorker("shard", None, 3), "over the same shard 4 times"),
        ("DaskRunner", OSError("Timed out trying to connect to tcp://"), "scheduler cannot be reached"),
    ],
)
def test_what_a_runner_gives_up_for_is_said(runner, error, words):
    assert words in Runner.of([f"--runner={runner}"]).what_is_lost(error)


@pytest.mark.parametrize("runner", ["DirectRunner", "PortableRunner", "DaskRunner"])
def test_our_own_mistakes_are_not_taken_for_a_lost_worker(runner):
    assert Runner.of([f"--runner={runner}"]).what_is_lost(KeyError("gender")) is None
    assert Runner.of([f"--runner={runner}"]).what_is_lost(RuntimeError("shapes do not match")) is None


def test_without_dask_its_runner_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipelines.command.runner_dask", None)
    monkeypatch.delattr("pipelines.command.runner_dask", raising=False)
    with pytest.raises(InputError, match="Dask is not installed"):
        parse_build_options(["--runner=DaskRunner"])
