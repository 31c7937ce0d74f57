"""The fitters of one process: what the conversion asks of body models, and those that it has loaded itself."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.convert.settings import FitSettings
from pipelines.files.body_models import SMPLX_VERTICES, BodyModels
from schemas import InputError

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

    from fitting import SKELFitter
    from fitting.body.keypoints import SMPLKeypoints

_KEYPOINTS_AT_A_TIME = 512
"""People whose keypoints are computed in one pass."""


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


@dataclass(frozen=True)
class _BroughtMeshes:
    """Meshes on another topology, an array of which slices are read and multiplied by a matrix."""

    meshes: Any
    matrix: csr_matrix

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.meshes), self.matrix.shape[0], 3

    def __len__(self) -> int:
        return len(self.meshes)

    def __getitem__(self, rows: slice) -> np.ndarray:
        brought = [self.matrix @ mesh for mesh in self.meshes[rows]]
        return np.stack(brought).astype(np.float32) if brought else np.zeros((0, *self.shape[1:]), np.float32)


@dataclass
class LoadedBodies:
    """Fitters and keypoints on one device, made as they are needed. Callers take turns.

    On the CPU, batches are spread over the settings' `threads` (see `fitting.SKELFitter.fit`).
    """

    settings: FitSettings
    device: str
    fit_options: dict[str, Any] = field(default_factory=dict)
    """More of `fitting.FitOptions`."""
    models: BodyModels = field(init=False, repr=False)
    _fitters: dict[str, SKELFitter] = field(default_factory=dict, init=False, repr=False)
    _keypoints: dict[str, SMPLKeypoints] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.models = BodyModels(self.settings.body_models, self.settings.gender, self.device)

    def load(self, gender: str = "neutral") -> SKELFitter:
        """The fitter for SMPL of this gender. Raises InputError for missing or damaged body-model files."""
        from fitting import FitOptions

        _compute_alone()
        with self._lock:
            if gender not in self._fitters:
                options = FitOptions(limits=self.settings.limits, betas=self.settings.betas, **self.fit_options)
                self._fitters[gender] = self.models.fitter(gender, options)
            return self._fitters[gender]

    def fit(self, gender, poses, betas, trans, progress, sequence=False, *, spent=lambda device, seconds: None):
        with self._lock:
            fitter = self.load(gender)
            run = fitter.fit_sequence if sequence else fitter.fit
            began = time.perf_counter()
            source = (self._tensor(values) for values in (poses, betas, trans))
            how = {"batch_size": self.settings.batch_size, "threads": self.settings.threads}
            found = run(*source, **how, progress=progress).numpy()
            spent(f"{platform.node()} {self.device} of process {os.getpid()}", time.perf_counter() - began)
            return found

    def fit_vertices(self, gender, vertices, betas, progress, sequence=False):
        """Fields of fitting.SKELFit as arrays, for meshes and SMPL betas as `SKELFitter.fit_vertices` takes them.

        Meshes of SMPL-X are brought to SMPL's topology. `sequence` takes them as frames of one motion.
        """
        from fitting.fit.sequence import SequenceOptions

        with self._lock:
            fitter = self.load(gender)
            count = fitter.skel.num_vertices
            if vertices.shape[1] != count:
                vertices = _BroughtMeshes(vertices, self._matrix(vertices.shape[1], count))
            shape = None if betas is None else self._tensor(betas)
            how = {"batch_size": self.settings.batch_size, "threads": self.settings.threads, "progress": progress}
            motion = SequenceOptions() if sequence else None
            return fitter.fit_vertices(vertices, shape, sequence=motion, **how).numpy()

    def _matrix(self, given: int, count: int) -> csr_matrix:
        """What brings meshes of as many vertices as SMPL-X has to SMPL's. InputError for those that are of neither."""
        try:
            matrix = self.models.smplx_to_smpl
        except InputError:
            if given == SMPLX_VERTICES:
                raise
        else:
            if given == matrix.shape[1]:
                return matrix
        expected = f"{count}, as SMPL has, or {SMPLX_VERTICES}, as SMPL-X has"
        raise InputError(f"meshes of {given} vertices", field="vertices", expected=expected)

    def keypoints(self, gender, poses, betas):
        import torch

        from fitting.body.keypoints import SMPLKeypoints

        with self._lock, torch.no_grad():
            if gender not in self._keypoints:
                j19 = self.models.regressors.get("SMPL_to_J19")
                self._keypoints[gender] = SMPLKeypoints(self.load(gender).smpl, j19)
            parts, confidence = [], np.zeros(44)
            for first in range(0, len(poses), _KEYPOINTS_AT_A_TIME):
                some = (self._tensor(values[first : first + _KEYPOINTS_AT_A_TIME]) for values in (poses, betas))
                found, sure = self._keypoints[gender](*some)
                parts.append(found.cpu().numpy())
                confidence = sure.cpu().numpy()
            return np.concatenate(parts) if parts else np.zeros((0, 44, 3), np.float32), confidence

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        """A copy in torch's own memory: products of arrays at other addresses may end in other digits."""
        import torch

        return torch.tensor(values, dtype=torch.float32, device=self.device)


def _compute_alone() -> None:
    """Keep torch from sharing a product among threads. The setting is the calling thread's as well as the process's."""
    import torch

    torch.set_num_threads(1)
