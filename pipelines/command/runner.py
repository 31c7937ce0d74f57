"""Which of Beam's runners does a job, with which options, and how many workers share this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.command.devices import cores

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_LOCAL = ("DirectRunner", "SwitchingDirectRunner")
_LOST = ("Channel closed prematurely", "Worker subprocess exited")
_LOG_OPTIONS = ("--default_sdk_harness_log_level", "--sdk_harness_log_level")


class WorkerLost(RuntimeError):
    """The run ended before its time for no fault of the input."""


def is_worker_lost(error: BaseException) -> bool:
    """Whether a runner gave up because a worker process is gone."""
    return any(text in str(error) for text in _LOST)


@dataclass(frozen=True)
class Runner:
    """Beam's options, and how many workers and worker processes share this machine's cores."""

    options: PipelineOptions
    workers: int
    processes: int

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Runner:
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
        return cls(options, workers, workers if mode == "multi_processing" else 1)

    @property
    def name(self) -> str:
        from apache_beam.options.pipeline_options import StandardOptions

        return self.options.view_as(StandardOptions).runner or "DirectRunner"

    @property
    def workers_are_here(self) -> bool:
        """Whether this machine's devices are the workers'."""
        from apache_beam.options.pipeline_options import PortableOptions

        return self.name in _LOCAL or self.options.view_as(PortableOptions).environment_type == "LOOPBACK"

    def beams(self) -> Any:
        """What `beam.Pipeline` takes. `DirectRunner` is Beam's local Python runner, whose running modes it then has.

        Left to itself, Beam's DirectRunner first downloads a program for another runner (Prism) and tries that.
        """
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
