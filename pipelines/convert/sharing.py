"""Which body models a process fits with: its own on CPUs, on accelerators those that this machine's processes share.

Each accelerator has one process that owns it (`apache_beam.utils.multi_process_shared`), so that there is one model per
device however many workers a runner starts. Workers hold a lease, a file lock, on a device while they use it: whoever
comes takes a device that nobody has, which spreads the work evenly over several, and waits if there is none. The system
releases the leases of a killed worker; a device's process ends with the worker that started it, and the next to ask
starts another.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command.devices import devices_of
from pipelines.convert.bodies import Bodies, LoadedBodies
from pipelines.convert.settings import FitSettings
from pipelines.files.temporary import lasting_folder
from schemas import InputError

_TRIES = 3
"""How often a fit is begun before processes that die under it are somebody's fault."""

_POLL_S = 0.002

_loaded: dict[tuple, LoadedBodies | SharedBodies] = {}
_loading = threading.Lock()


def bodies_of_process(settings: FitSettings, run: str = "") -> LoadedBodies | SharedBodies:
    """The body models for this process, loaded once however many callers ask.

    On accelerators they are shared with all other processes of the run (its token) on this machine, one model per
    device. torch and OpenCV are told to use no threads of their own: the workers' threads are the only ones.
    """
    import cv2

    devices = devices_of(settings.device)
    alone = devices == ["cpu"]
    key = (replace(settings, device=",".join(devices)), "" if alone else run)
    with _loading:
        if key not in _loaded:
            cv2.setNumThreads(1)
            _loaded[key] = LoadedBodies(settings, "cpu") if alone else SharedBodies(settings, devices, run)
        return _loaded[key]


def body_models_facts(settings: FitSettings) -> dict[str, Any]:
    """`BodyModels.facts`, after the models were loaded. Raises InputError for those that are missing or damaged.

    What this has to load on a CPU is kept for the fits if they are done there.
    """
    on_cpu = devices_of(settings.device) == ["cpu"]
    bodies = bodies_of_process(settings) if on_cpu else LoadedBodies(settings, "cpu")
    bodies.load()
    return bodies.models.facts()


def run_folder() -> Path:
    """Where leases and addresses of this user are; made so that nobody else can reach them."""
    folder = lasting_folder() / f"hmr-skel-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or not folder.is_dir():
        raise InputError("belongs to somebody else or is open to others", file=folder, expected="a folder of our own")
    return folder


@dataclass
class SharedBodies:
    """`pipelines.convert.bodies.Bodies` on several processes' devices; `make` makes those of one device."""

    settings: FitSettings
    devices: Sequence[str]
    run: str = ""
    make: Callable[[FitSettings, str], Bodies] = LoadedBodies
    folder: Path = field(default_factory=run_folder)
    _held: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _turn: int = field(default_factory=os.getpid, init=False, repr=False)

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
        """See Bodies.fit. Progress is told when all are fitted."""
        with self._lease() as device:
            found, seconds = self._ask(device, "fit", gender, poses, betas, trans)
        progress(len(poses))
        spent(f"{platform.node()} {device}", seconds)
        return found

    def keypoints(self, gender: str, poses: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._lease() as device:
            return self._ask(device, "keypoints", gender, poses, betas)

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
            time.sleep(_POLL_S)

    def _ask(self, device: str, call: str, *arguments: Any) -> Any:
        """The answer of the device's process; one that dies is replaced and asked again."""
        for _ in range(_TRIES):
            try:
                return getattr(self._owner(device), call)(*arguments)
            except (EOFError, ConnectionError, FileNotFoundError):  # the last: its address went while it was asked
                with self._lock:
                    self._held.pop(device, None)
        raise RuntimeError(f"the process of {device} died {_TRIES} times")

    def _owner(self, device: str) -> Any:
        """Stands for the `_Owner` in the device's process, which is started if there is none."""
        from apache_beam.utils import multi_process_shared  # a run on CPUs needs none of it

        with self._lock:
            if device not in self._held:
                if self.run:  # Beam's own key is the same everywhere: who knows it can make the process run anything
                    multi_process_shared.AUTH_KEY = self.run.encode()
                shared = multi_process_shared.MultiProcessShared(
                    partial(_Owner, self.make, self.settings, device),
                    tag=_digest(device, self.settings, self.run),
                    path=str(self.folder),
                    always_proxy=True,
                    spawn_process=True,
                )
                self._held[device] = shared.acquire()
            return self._held[device]


class _Owner:
    """The body models of one device, in its process."""

    def __init__(self, make: Callable[[FitSettings, str], Bodies], settings: FitSettings, device: str) -> None:
        root = logging.getLogger()  # on which Beam has this process tell where it listens and why it ends
        root.setLevel(logging.WARNING)
        root.addFilter(lambda record: record.module != "multi_process_shared")
        self._bodies = make(settings, device)

    def fit(self, *source: Any) -> tuple[dict[str, np.ndarray], float]:
        """Bodies.fit, and the seconds that it took."""
        times: list[float] = []
        found = self._bodies.fit(*source, lambda people: None, spent=lambda device, seconds: times.append(seconds))
        return found, sum(times)

    def keypoints(self, *source: Any) -> tuple[np.ndarray, np.ndarray]:
        return self._bodies.keypoints(*source)


def _digest(*facts: object) -> str:
    """Another name for other facts; what CUDA shows to this process says which device `cuda:0` is."""
    text = repr((os.environ.get("CUDA_VISIBLE_DEVICES"), *facts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
