"""The body models of a command: SKEL, SMPL and keypoint regressors of one folder, URL or the embedded body."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files.storage import file_sha256, local_folder
from pipelines.files.urls import is_url
from schemas import InputError

if TYPE_CHECKING:
    import smplx
    import torch
    from scipy.sparse import csr_matrix

    from fitting import SKEL, FitOptions, SKELFitter
    from fitting.body.smplx_meshes import SMPLXBody

log = logging.getLogger(__name__)

DEMO = "demo"
"""The name that stands for the embedded body."""

DEMO_IS = "the embedded demo body, neither SMPL nor SKEL"
"""What to say wherever numbers of the embedded body are shown or kept."""

SMPLX_VERTICES = 10475

SMPL_GENDERS = ("neutral", "male", "female")
_MODEL_FILES = (".pkl", ".npz", ".npy")


@dataclass
class BodyModels:
    """What is loaded of body models, in float32, each when it is first asked for and then kept; for several threads.

    `where` is a folder with the official files, flat or in smpl/ and skel/, the URL of one, or "demo"; `gender` is
    SKEL's. Whatever is missing or damaged raises InputError, which names the file as the user gave it.
    """

    where: str = DEMO
    gender: str = "male"
    device: Any = "cpu"
    _smpl: dict[str, smplx.SMPL] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    @property
    def skel(self) -> SKEL:
        """SKEL of this gender, on the device."""
        with self._lock:
            return self._skel

    def smpl(self, gender: str = "neutral") -> smplx.SMPL:
        """SMPL of a gender, on the device; its mesh has SKEL's topology."""
        from fitting import load_smpl

        with self._lock:
            if gender not in self._smpl:
                with local_files(self.where) as folder:
                    smpl = load_smpl(folder, gender).to(self.device)
                if len(smpl.v_template) != self.skel.num_vertices:
                    raise InputError(
                        f"SMPL has {len(smpl.v_template)} vertices, SKEL {self.skel.num_vertices}",
                        file=self.where,
                        expected="one topology",
                    )
                self._smpl[gender] = smpl
            return self._smpl[gender]

    def has_skel(self, gender: str) -> bool:
        """Whether a file of SKEL of this gender is there; the demo body is one for all."""
        from fitting.body.files import find_model_file

        if self.where == DEMO:
            return False
        try:
            with local_files(self.where) as folder:
                return bool(find_model_file(folder, "skel", gender))
        except InputError:
            return False

    @property
    def regressors(self) -> dict[str, torch.Tensor]:
        """The keypoint regressors that are there: name -> (points, V), on the device."""
        with self._lock:
            return self._regressors

    def regressor(self, name: str) -> torch.Tensor:
        """The regressor of this name (KEYPOINT_ and EVALUATION_REGRESSORS of fitting.body.files), (points, V)."""
        if name not in self.regressors:
            problem, expected = "not among the body models, and is needed here", f"{name}.pkl, .npz or .npy, there"
            raise InputError(problem, file=self.where, field=name, expected=expected)
        return self.regressors[name]

    @property
    def smplx_to_smpl(self) -> csr_matrix:
        """The matrix (V_smpl, V_smplx) that brings SMPL-X's meshes to SMPL's topology."""
        with self._lock:
            return self._smplx_to_smpl

    def smplx(self, gender: str = "neutral") -> SMPLXBody:
        """SMPL-X of a gender, on the CPU; made anew with each call."""
        from fitting.body.smplx_meshes import SMPLXBody

        with local_files(self.where) as folder:
            return SMPLXBody(folder, gender)

    def fitter(self, gender: str = "neutral", options: FitOptions | None = None) -> SKELFitter:
        """A fitter from SMPL of this gender to SKEL. It is made anew with each call, from the bodies that are kept."""
        from fitting import FitOptions, SKELFitter

        skel = self.skel  # first: of a folder without any models it is SKEL that is named
        return SKELFitter(self.smpl(gender), skel, options or FitOptions())

    def sha256(self) -> str:
        """sha256 over what a fit is made from: files of SMPL in every gender that is there and of SKEL, regressors.

        InputError if SMPL neutral or SKEL is missing.
        """
        from fitting.body.files import KEYPOINT_REGRESSORS, find_model_file

        digest = hashlib.sha256()
        if self.where == DEMO:
            import fitting.demo_body

            for path in sorted(Path(fitting.demo_body.__file__).parent.glob("*.npz")):
                digest.update(file_sha256(path).encode())
            return digest.hexdigest()
        with local_files(self.where) as folder:
            for kind, wanted in (("smpl", SMPL_GENDERS), ("skel", (self.gender,))):
                for name in wanted:
                    optional = kind == "smpl" and name != "neutral"
                    with contextlib.suppress(InputError) if optional else contextlib.nullcontext():
                        path = find_model_file(folder, kind, name)
                        digest.update(f"{kind} {name} {file_sha256(path)}\n".encode())
        for name, values in sorted(self._regressor_arrays.items()):
            if name in KEYPOINT_REGRESSORS:
                digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What was fitted with, for what is written: `models` (demo or files), SKEL's gender, checksums.

        InputError if SMPL neutral or SKEL is missing.
        """
        from fitting.body.files import KEYPOINT_REGRESSORS

        regressors = {
            name: hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
            for name, values in sorted(self._regressor_arrays.items())
            if name in KEYPOINT_REGRESSORS
        }
        return {
            "models": DEMO if self.where == DEMO else "files",
            "skel_gender": self.gender,
            "sha256": self.sha256(),
            "keypoint_regressors": regressors,
        }

    @cached_property
    def _skel(self) -> SKEL:
        from fitting import SKEL

        with local_files(self.where) as folder:
            return SKEL.load(folder, gender=self.gender).to(self.device)

    @cached_property
    def _smplx_to_smpl(self) -> csr_matrix:
        from fitting.body.smplx_meshes import smplx_to_smpl

        with local_files(self.where) as folder:
            return smplx_to_smpl(folder, self.skel.num_vertices)

    @cached_property
    def _regressor_arrays(self) -> dict[str, np.ndarray]:
        from fitting.body.files import keypoint_arrays

        with local_files(self.where) as folder:
            return keypoint_arrays(folder, self.skel.num_vertices)

    @cached_property
    def _regressors(self) -> dict[str, torch.Tensor]:
        import torch

        arrays = self._regressor_arrays.items()
        return {name: torch.as_tensor(values, dtype=torch.float32, device=self.device) for name, values in arrays}


def body_models_in_words(where: str, skel_gender: str) -> str:
    """What tables and pages say of body models: the demo body, or where they are, and SKEL's gender."""
    return f"demo: {DEMO_IS}" if where == DEMO else f"{where}, SKEL {skel_gender}"


def tell_of_demo_body(where: str) -> None:
    """One line for those who bring labels of their own and no body models."""
    if where == DEMO:
        log.warning("fitting %s: numbers are for trying out; --body-models DIR names the official files", DEMO_IS)


@contextmanager
def local_files(where: str) -> Iterator[str]:
    """The folder of body models; of a URL a local copy, fetched once per process. Errors name what the user gave."""
    if not is_url(where):
        yield where
        return
    folder = local_folder(where, _MODEL_FILES).name
    try:
        yield folder
    except InputError as error:
        file = str(error.file or where).replace(folder, where.rstrip("/"))
        raise InputError(error.problem, file=file, field=error.field, expected=error.expected) from error
