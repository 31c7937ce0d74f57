"""The body models of a run: one fitter per process or accelerator, and a hash of what it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.convert.sharing import SharedBodies
from pipelines.files.storage import file_sha256, is_url, local_folder
from schemas import InputError

DEMO = "demo"
SMPL_GENDERS = ("neutral", "male", "female")


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
    """SMPL of each gender as it is needed, SKEL, and fitters between them. Callers take turns.

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
    _fitters: dict[str, Any] = field(default_factory=dict, repr=False)
    _keypoints: dict[str, Any] = field(default_factory=dict, repr=False)
    _skel: Any = field(default=None, repr=False)
    _j19: Any = field(default=None, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def load(self, gender: str = "neutral"):
        """The fitter for SMPL of this gender. Raises InputError for missing or damaged body-model files."""
        import torch

        from fitting import SKEL, FitOptions, SKELFitter, load_smpl

        _compute_alone()
        with self._lock, model_files(self.body_models) as models:
            if self._skel is None:
                self._skel = SKEL.load(models, gender=self.gender).to(self.device)
                from fitting.body.files import keypoint_arrays

                regressors = keypoint_arrays(models, self._skel.num_vertices)
                if "SMPL_to_J19" in regressors:
                    self._j19 = torch.as_tensor(regressors["SMPL_to_J19"], dtype=torch.float32, device=self.device)
            if gender not in self._fitters:
                smpl = load_smpl(models, gender=gender).to(self.device)
                if len(smpl.v_template) != self._skel.num_vertices:
                    raise InputError(
                        f"SMPL has {len(smpl.v_template)} vertices, SKEL {self._skel.num_vertices}",
                        file=self.body_models,
                        expected="one topology",
                    )
                self._fitters[gender] = SKELFitter(smpl, self._skel, FitOptions(limits=self.limits, **self.fit_options))
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
                self._keypoints[gender] = SMPLKeypoints(self.load(gender).smpl, self._j19)
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


def mesh_vertices(body_models: str, gender: str, device: str, **settings: Any) -> int:
    """Vertices of the bodies' mesh. Raises InputError for body models that are missing or damaged.

    `settings` are the further ones of `bodies_of_process`: what this has to load on a CPU is kept for the fits if they
    are done there.
    """
    if devices_of(device) == ["cpu"]:
        return bodies_of_process(body_models, gender, "cpu", **settings).load().skel.num_vertices
    return LoadedBodies(body_models, gender, "cpu", None, "bounds").load().skel.num_vertices


@contextmanager
def model_files(body_models: str) -> Iterator[str]:
    """The folder of body models; of a URL a local copy, fetched once per process. Errors name what the user gave."""
    if not is_url(body_models):
        yield body_models
        return
    folder = local_folder(body_models, (".pkl", ".npz", ".npy")).name
    try:
        yield folder
    except InputError as error:
        file = (error.file or body_models).replace(folder, body_models.rstrip("/"))
        raise InputError(error.problem, file=file, field=error.field, expected=error.expected) from error


def devices_of(device: str) -> list[str]:
    """Devices of this machine that an option means: `cuda` is every GPU, `auto` as well if there is one."""
    import torch

    if device in ("auto", "cuda"):
        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        return found or (["cpu"] if device == "auto" else ["cuda"])
    return [device]


def resolve_device(device: str) -> str:
    """`auto` is the GPUs if there are any."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        if found.type == "cuda" and not torch.cuda.is_available():
            raise InputError("no GPU is available", field="device", expected="cpu or auto")
    except RuntimeError:
        raise InputError(f"{device!r} given", field="device", expected="auto, cpu, cuda or cuda:N") from None
    return device


def bodies_sha256(body_models: str, gender: str, vertices: int) -> str:
    """sha256 over what the fit is made from: files of SMPL in every gender that is there and of SKEL, regressors.

    `vertices` is the size of their mesh. Raises InputError if SMPL neutral or SKEL is missing.
    """
    from fitting.body.files import find_model_file, keypoint_arrays

    digest = hashlib.sha256()
    if body_models == DEMO:
        import fitting.demo_body

        for path in sorted(Path(fitting.demo_body.__file__).parent.glob("*.npz")):
            digest.update(file_sha256(path).encode())
        return digest.hexdigest()
    with model_files(body_models) as models:
        for kind, wanted in (("smpl", SMPL_GENDERS), ("skel", (gender,))):
            for name in wanted:
                optional = kind == "smpl" and name != "neutral"
                with contextlib.suppress(InputError) if optional else contextlib.nullcontext():
                    path = find_model_file(models, kind, name)
                    digest.update(f"{kind} {name} {file_sha256(path)}\n".encode())
        for name, values in sorted(keypoint_arrays(models, vertices).items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
