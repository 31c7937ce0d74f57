"""Body models on accelerators that all processes and threads of this machine share.

Each accelerator has one process that owns it (`device_server`), so that there is one model per device however
many workers a runner starts. Workers hold a lease, a file lock, on a device while they use it: whoever comes takes a
device that nobody has, which spreads the work evenly over several, and waits if there is none. The system releases
the leases of a killed worker, and a killed server is started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np

from schemas import InputError

_LONGEST_START = 60.0
"""Seconds within which a server must answer its socket; models are loaded after that."""

_TRIES = 3
_POLL = 0.002
_SERVER = (sys.executable, "-m", "pipelines.convert.device_server")


def run_folder() -> Path:
    """Where sockets and leases of this user are; made so that nobody else can reach them."""
    folder = Path(tempfile.gettempdir()) / f"hmr-skel-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or not folder.is_dir():
        raise InputError("belongs to somebody else or is open to others", file=folder, expected="a folder of our own")
    return folder


def _digest(*facts: object) -> str:
    """Another name for other facts; what CUDA shows to this process says which device `cuda:0` is."""
    text = json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), *facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class SharedBodies:
    """`pipelines.convert.bodies.Bodies` on these devices; `settings` are what LoadedBodies needs besides the device."""

    devices: Sequence[str]
    settings: dict[str, Any]
    folder: Path = field(default_factory=run_folder)
    server: Sequence[str] = _SERVER
    _mine: threading.local = field(default_factory=threading.local, repr=False)
    _turn: int = field(default_factory=os.getpid, repr=False)

    def fit(
        self,
        gender: str,
        poses: np.ndarray,
        betas: np.ndarray,
        trans: np.ndarray,
        progress: Callable[[int], object],
        *,
        spent: Callable[[str, float], object] = lambda device, seconds: None,
    ) -> dict[str, np.ndarray]:
        """See Bodies.fit. People whose server died are counted once."""
        counted = 0

        def count(people: int, so_far: list[int]) -> None:
            nonlocal counted
            so_far[0] += people
            if so_far[0] > counted:
                progress(so_far[0] - counted)
                counted = so_far[0]

        with self._lease() as device:
            request = {"call": "fit", "gender": gender}
            found, seconds = self._ask(device, request, {"poses": poses, "betas": betas, "trans": trans}, count)
        spent(f"{platform.node()} {device}", seconds)
        return found

    def keypoints(self, gender: str, poses: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._lease() as device:
            request = {"call": "keypoints", "gender": gender}
            found, _ = self._ask(device, request, {"poses": poses, "betas": betas}, lambda people, so_far: None)
        return found["points"], found["confidence"]

    @contextmanager
    def _lease(self) -> Iterator[str]:
        """A device that is nobody else's meanwhile."""
        while True:
            self._turn += 1
            for number in range(len(self.devices)):
                device = self.devices[(self._turn + number) % len(self.devices)]
                with open(self.folder / f"{_digest(device)}.lease", "w") as lease:
                    try:  # with one device there is nothing to choose: sleep until it is free
                        fcntl.flock(lease, fcntl.LOCK_EX | (fcntl.LOCK_NB if len(self.devices) > 1 else 0))
                    except BlockingIOError:
                        continue
                    yield device
                    return
            time.sleep(_POLL)

    def _ask(
        self,
        device: str,
        request: dict[str, Any],
        arrays: dict[str, np.ndarray],
        progress: Callable[[int, list[int]], object],
    ) -> tuple[dict[str, np.ndarray], float]:
        """The answer of the device's server and how long it took there; a server that dies is asked again."""
        from pipelines.convert.device_server import receive_arrays, send

        for attempt in range(_TRIES):
            so_far = [0]
            connection = self._connection(device)
            try:
                send(connection, request, arrays)
                while True:
                    answer = json.loads(connection.recv_bytes())
                    if "progress" in answer:
                        progress(answer["progress"], so_far)
                    elif "error" in answer:
                        raise InputError(**answer["error"])
                    elif "failure" in answer:
                        raise RuntimeError(f"the process of {device} failed:\n{answer['failure']}")
                    else:
                        return receive_arrays(connection), answer["seconds"]
            except (EOFError, OSError):
                self._connections().pop(device).close()
                if attempt + 1 == _TRIES:
                    raise RuntimeError(
                        f"the process of {device} died {_TRIES} times; see {self._log(device)}"
                    ) from None
        raise AssertionError

    def _connections(self) -> dict[str, Connection]:
        """Of the calling thread: device -> connection to its server."""
        if not hasattr(self._mine, "connections"):
            self._mine.connections = {}
        return self._mine.connections

    def _connection(self, device: str) -> Connection:
        mine = self._connections()
        if device not in mine:
            mine[device] = self._connected(device) or self._started(device)
        return mine[device]

    def _connected(self, device: str) -> Connection | None:
        try:
            return Client(str(self._socket(device)), "AF_UNIX")
        except OSError:
            return None

    def _started(self, device: str) -> Connection:
        """Starts the device's server, unless another worker has just done so."""
        socket = self._socket(device)
        with open(socket.with_suffix(".start"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (connection := self._connected(device)) is not None:
                return connection
            root = str(Path(__file__).parents[2])
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
            with open(self._log(device), "w") as log:
                server = subprocess.Popen(
                    [*self.server, str(socket), json.dumps(self.settings | {"device": device})],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            began = time.monotonic()
            while (connection := self._connected(device)) is None:
                if server.poll() is not None or time.monotonic() - began > _LONGEST_START:
                    server.kill()
                    raise RuntimeError(f"the process of {device} does not start; see {self._log(device)}")
                time.sleep(0.02)
            return connection

    def _socket(self, device: str) -> Path:
        """One per device and settings; a Unix socket's path has at most 107 characters."""
        return self.folder / f"{_digest(device, self.settings, self.server, __file__)}.socket"

    def _log(self, device: str) -> Path:
        return self._socket(device).with_suffix(".log")
