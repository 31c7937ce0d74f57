"""Which of Beam's runners does a job, with which options, and how many workers share this machine."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipelines.command.devices import cores
from pipelines.command.waiting import NoWorker, wait_for_workers
from schemas import InputError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

DASK = "DaskRunner"
_LOCAL = ("DirectRunner", "SwitchingDirectRunner")
_LOST = ("Channel closed prematurely", "Worker subprocess exited")
_FAILED = "failed in state"
"""Beam's word for a job that its service could not bring to an end."""
_LOG_OPTIONS = ("--default_sdk_harness_log_level", "--sdk_harness_log_level")


class WorkerLost(RuntimeError):
    """The run ended before its time for no fault of the input."""


def register_options(arguments: Sequence[str]) -> None:
    """Make Beam know the options of the runner that these arguments name. Raises InputError if it is not installed."""
    if _named(arguments) == DASK:
        _dask()


def _named(arguments: Sequence[str]) -> str:
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    return PipelineOptions(list(arguments)).view_as(StandardOptions).runner or _LOCAL[0]


def _dask() -> ModuleType:
    try:
        from pipelines.command import runner_dask
    except ImportError as error:
        problem, expected = f"{DASK} given, but Dask is not installed", "pip install 'hmr-skel[dask]'"
        raise InputError(problem, field="--runner", expected=expected) from error
    return runner_dask


def _lost_elsewhere(error: Exception) -> str | None:
    """`Runner.what_is_lost` where a job service takes the job."""
    import grpc

    if isinstance(error, grpc.FutureTimeoutError):
        return "the job service does not answer (--job_endpoint, --job_server_timeout)"
    if isinstance(error, grpc.RpcError):
        return "the job service is gone"
    if isinstance(error, RuntimeError) and _FAILED in str(error):
        told = re.search(r'details = "(.+?)"', str(error))  # of a call that went wrong, below its traceback
        last = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)][-1]
        return f"the job failed where it was run ({told[1] if told else last})"
    return None


@dataclass(frozen=True)
class Runner:
    """Beam's options, how many workers and worker processes share this machine's cores, and our patience."""

    options: PipelineOptions
    workers: int
    processes: int
    patience: float = 0.0
    """Seconds in which a first worker must begin that is not ours to start; 0 waits for ever."""

    @classmethod
    def of(cls, arguments: Sequence[str], patience: float = 0.0) -> Runner:
        """From the arguments that are Beam's."""
        from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

        arguments = list(arguments)
        if not any(argument.startswith(_LOG_OPTIONS) for argument in arguments):
            # Workers tell much about themselves; of what they log, only our own warnings matter.
            overrides = json.dumps({"pipelines": "WARNING", "fitting": "WARNING"})
            arguments += ["--default_sdk_harness_log_level=ERROR", f"--sdk_harness_log_level_overrides={overrides}"]
            logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)
        options = PipelineOptions(arguments)
        direct = options.view_as(DirectOptions)
        mode = direct.direct_running_mode
        workers = 1 if mode == "in_memory" else direct.direct_num_workers or cores()
        return cls(options, workers, workers if mode == "multi_processing" else 1, patience)

    @property
    def name(self) -> str:
        from apache_beam.options.pipeline_options import StandardOptions

        return self.options.view_as(StandardOptions).runner or _LOCAL[0]

    @property
    def workers_are_here(self) -> bool:
        """Whether this machine's devices are the workers'."""
        from apache_beam.options.pipeline_options import PortableOptions

        return self.name in _LOCAL or self.options.view_as(PortableOptions).environment_type == "LOOPBACK"

    def wait(self, result: PipelineResult, begun: Callable[[], bool]) -> None:
        """Wait for the job's end. Raises what the runner raises, NoWorker if others should have `begun` long ago."""
        if self.workers_are_here or not self.patience:
            result.wait_until_finish()
        else:
            wait_for_workers(result, begun, self.patience)

    def what_is_lost(self, error: Exception) -> str | None:
        """What to say of an error by which a runner gives up for no fault of the input; None for other errors."""
        if isinstance(error, NoWorker):
            return str(error)
        if self.name == DASK:
            return _dask().what_is_lost(error)
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST):
            return "a worker process died (killed, or out of memory?)"
        return None if self.name in _LOCAL else _lost_elsewhere(error)

    def beams(self, elements: int) -> Any:
        """What `beam.Pipeline` takes, for a job of so many elements.

        `DirectRunner` is Beam's local Python runner, whose running modes it then has.

        Left to itself, Beam's DirectRunner first downloads a program for another runner (Prism) and tries that.
        """
        if self.name == DASK:
            return _dask().DaskRunner(elements)
        if self.name not in _LOCAL:
            return self.name
        from apache_beam.portability.api import beam_provision_api_pb2
        from apache_beam.runners.portability.fn_api_runner import fn_runner
        from apache_beam.runners.portability.portable_runner import JobServiceHandle

        from pipelines.command.worker_processes import watch_worker_processes

        watch_worker_processes()
        encoded = JobServiceHandle.encode_pipeline_options(self.options.get_all_options())
        provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision))
