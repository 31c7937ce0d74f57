"""The worker processes of `--direct_running_mode=multi_processing`: whichever dies, at whatever moment, ends the run.

Beam learns of a worker's death from its connections. One that dies before it has any leaves the runner waiting for
ever, and one that dies later is noticed when the work of those before it is done. Here the process itself is watched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    BeamFnControlServicer,
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance
from google.protobuf import json_format, text_format

from pipelines.command import quiet_worker

WORKER_EXITED = "Worker subprocess exited with return code"
"""Beam's words for it."""

_REPEAT_S = 0.1

log = logging.getLogger("apache_beam.worker_processes")  # a run keeps the log of Beam, whose part this is


def watch_worker_processes() -> None:
    """From now on, runs of this process have their worker processes watched."""
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(WatchedWorkerHandler)


@dataclass
class _Crew:
    """The worker processes of one run."""

    processes: list[subprocess.Popen] = field(default_factory=list)
    lost: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        with self.lock:
            self.processes.append(subprocess.Popen(command, env=environment))
            if self.lost:
                self.processes[-1].kill()
            return self.processes[-1]

    def lose(self) -> None:
        """One is gone: what the others do is of no use any more, and the runner would wait until all have done it."""
        with self.lock:
            self.lost = True
            for process in self.processes:
                process.kill()


_crews: weakref.WeakKeyDictionary[object, _Crew] = weakref.WeakKeyDictionary()
"""Runner's gRPC server, one for each run -> its workers."""


class WatchedWorkerHandler(GrpcWorkerHandler):
    """A worker process that ends the run if it ends before the run does. Takes the place of Beam's own handler."""

    def __init__(self, command_line: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        quiet = {quiet_worker.BEAMS: quiet_worker.__name__}
        self._command = [quiet.get(word, word) for word in shlex.split(command_line.decode())]
        self._crew = _crews.setdefault(grpc_server, _Crew())
        self._ending = threading.Event()

    def start_worker(self) -> None:
        """Start the process, as `local_job_service.SubprocessSdkWorker` does, and a thread that waits for its end."""
        self._logging_server = grpc.server(shared_unbounded_instance())
        port = self._logging_server.add_insecure_port("localhost:0")
        servicer = local_job_service.BeamFnLoggingServicer()
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(servicer, self._logging_server)
        self._logging_server.start()
        told = {
            "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(self.control_address),
            "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(f"localhost:{port}"),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._process = self._crew.start(self._command, dict(os.environ, **told))
        threading.Thread(target=self._watch, name=f"watch {self.worker_id}", daemon=True).start()

    def close(self) -> None:
        """End the worker: it is told so; one that has not been heard of yet is killed, as it could not be told."""
        self._ending.set()
        if self.control_conn._state == BeamFnControlServicer.UNSTARTED_STATE:
            self._process.kill()
        super().close()

    def stop_worker(self) -> None:
        self._process.wait()
        self._logging_server.stop(0)

    def _watch(self) -> None:
        code = self._process.wait()
        if self._ending.is_set():
            return
        self._crew.lose()
        with contextlib.suppress(Exception):  # the connection is broken already
            self.data_conn.close()
        died = RuntimeError(f"{WORKER_EXITED} {code}")
        log.error("%s: %s", self.worker_id, died)
        while not self._ending.wait(_REPEAT_S):  # the runner may send an instruction after its worker is gone
            with contextlib.suppress(RuntimeError):  # it did so while we looked
                self.control_conn.abort(died)


def _descriptor(url: str) -> str:
    return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))
