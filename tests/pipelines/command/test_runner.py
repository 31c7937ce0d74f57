"""What Beam's arguments say of a job's workers."""

from __future__ import annotations

import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.command.devices import cores
from pipelines.command.runner import Runner


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
