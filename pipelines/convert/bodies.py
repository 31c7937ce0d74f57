"""The body models of a run: one fitter per process or accelerator."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pipelines.command.devices import devices_of
from pipelines.convert.sharing import SharedBodies
from pipelines.files.body_models import BodyModels


class Bodies(Protocol):
    """What the conversion needs of body models. `gender` is that of the SMPL source."""

    def fit(
        self,
        gender: str,
        poses: np.ndarray,
        betas: np.ndarray,
        trans: np.ndarray,
        progress: Callable[[int], object],
        *,
        spent: Callable[[str, float], object] = ...,
    ) -> dict[str, np.ndarray]:
        """Fields of fitting.SKELFit as arrays, for SMPL poses (B, 72), betas (B, 10), trans (B, 3).

        `spent` is told the name of the device and for how many seconds it was busy with this.
        """
        ...

    def keypoints(self, gender: str, poses: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 44 keypoints of the SMPL body at translation zero (B, 44, 3) m, and their confidence (44,)."""
        ...


@dataclass
class LoadedBodies:
    """Fitters and keypoints of body models as they are needed. Callers take turns.

    On the CPU, batches are spread over `threads` (see `fitting.SKELFitter.fit`).
    """

    body_models: str
    gender: str
    device: str
    batch_size: int | None
    limits: str
    threads: int = 1
    fit_options: dict[str, Any] = field(default_factory=dict)
    """More of `fitting.FitOptions`."""
    models: BodyModels = field(init=False, repr=False)
    _fitters: dict[str, Any] = field(default_factory=dict, repr=False)
    _keypoints: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self.models = BodyModels(self.body_models, self.gender, self.device)

    def load(self, gender: str = "neutral"):
        """The fitter for SMPL of this gender. Raises InputError for missing or damaged body-model files."""
        from fitting import FitOptions

        _compute_alone()
        with self._lock:
            if gender not in self._fitters:
                options = FitOptions(limits=self.limits, **self.fit_options)
                self._fitters[gender] = self.models.fitter(gender, options)
            return self._fitters[gender]

    def fit(self, gender, poses, betas, trans, progress, sequence=False, *, spent=lambda device, seconds: None):
        with self._lock:
            fitter = self.load(gender)
            run = fitter.fit_sequence if sequence else fitter.fit
            began = time.perf_counter()
            source = (self._tensor(values) for values in (poses, betas, trans))
            found = run(*source, batch_size=self.batch_size, threads=self.threads, progress=progress).numpy()
            spent(f"{platform.node()} {self.device} of process {os.getpid()}", time.perf_counter() - began)
            return found

    def keypoints(self, gender, poses, betas):
        import torch

        from fitting.body.keypoints import SMPLKeypoints

        with self._lock, torch.no_grad():
            if gender not in self._keypoints:
                self._keypoints[gender] = SMPLKeypoints(
                    self.load(gender).smpl, self.models.regressors.get("SMPL_to_J19")
                )
            parts, confidence = [], np.zeros(44)
            for first in range(0, len(poses), 512):
                some = (self._tensor(values[first : first + 512]) for values in (poses, betas))
                found, sure = self._keypoints[gender](*some)
                parts.append(found.cpu().numpy())
                confidence = sure.cpu().numpy()
            return np.concatenate(parts) if parts else np.zeros((0, 44, 3), np.float32), confidence

    def _tensor(self, values: np.ndarray):
        """A copy in torch's own memory: products of arrays at other addresses may end in other digits."""
        import torch

        return torch.tensor(values, dtype=torch.float32, device=self.device)


def _compute_alone() -> None:
    """Keep torch from sharing a product among threads. The setting is the calling thread's as well as the process's."""
    import torch

    torch.set_num_threads(1)


_loaded: dict[tuple, LoadedBodies | SharedBodies] = {}
_loading = threading.Lock()


def bodies_of_process(
    body_models: str,
    gender: str,
    device: str,
    batch_size: int | None,
    limits: str,
    threads: int,
    joint_limits: tuple[tuple[float, float], ...] | None = None,
) -> LoadedBodies | SharedBodies:
    """The body models for this process, loaded once however many callers ask, for fits on `threads` CPU threads.

    On accelerators they are shared with all other processes of this machine, one model per device. torch and OpenCV
    are told to use no threads of their own: the workers' threads are the only ones.
    """
    import cv2

    devices = devices_of(device)
    settings = {"body_models": body_models, "gender": gender, "batch_size": batch_size}
    settings |= {"limits": limits, "threads": threads}
    key = (*devices, *settings.values(), joint_limits)
    if joint_limits:
        settings["fit_options"] = {"joint_limits": joint_limits}
    with _loading:
        if key not in _loaded:
            cv2.setNumThreads(1)
            alone = devices == ["cpu"]
            _loaded[key] = LoadedBodies(device="cpu", **settings) if alone else SharedBodies(devices, settings)
        return _loaded[key]


def body_models_sha256(body_models: str, gender: str, device: str, **settings: Any) -> str:
    """`BodyModels.sha256`, after the models were loaded. Raises InputError for those that are missing or damaged.

    `settings` are the further ones of `bodies_of_process`: what this has to load on a CPU is kept for the fits if they
    are done there.
    """
    if devices_of(device) == ["cpu"]:
        bodies = bodies_of_process(body_models, gender, "cpu", **settings)
    else:
        bodies = LoadedBodies(body_models, gender, "cpu", None, "bounds")
    bodies.load()
    return bodies.models.sha256()
