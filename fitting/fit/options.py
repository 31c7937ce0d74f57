"""What a fit is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from schemas import InputError


@dataclass(frozen=True)
class BetasPrior:
    """How firmly betas stay with the transferred ones."""

    own: float
    """m^2 per squared standard deviation of each of them"""
    limb_lengths: float
    """per bone of the limbs: on its squared change of length, m^2 per m^2"""


BETAS_PRIORS = {"keep": BetasPrior(0.0, 0.0), "near": BetasPrior(1e-5, 10.0), "free": BetasPrior(1e-6, 0.0)}
"""`keep` does not move betas; `near` lets the outline follow the mesh, while limbs keep the length that the source's
shape gives them; `free` takes whatever brings the mesh nearer, errors of pose included (fitting/README.md)."""


@dataclass(frozen=True)
class FitOptions:
    """What the fit minimises and how long it tries."""

    limits: str | Path | ArrayLike = "human"
    """Joint limits, held exactly: `human`, `bsm`, `none`, a CSV file (see `fitting.read_limits`), or (46, 2) rad."""
    betas: Literal["keep", "near", "free"] = "near"
    """Whether the last stage moves betas: not at all, near the transferred ones, or freely (see BETAS_PRIORS)."""
    measure_betas_gain: bool = False
    """Fit everyone a second time with betas as transferred, to know what moving them gains."""
    joint_weight: float = 0.1
    """Weight of the 24 anatomical joints together, against 1 for all vertices together."""
    shoulder_weight: float = 2.0
    """Factor on scapulae and humeri among the joints, so that shoulders do not collapse."""
    pose_prior: float = 5e-6
    """Pull of each coordinate towards SMPL's own joint rotations, m^2 per rad^2. It decides what the skin does not
    show, scapula against humerus above all; with less, float32's rounding would."""
    betas_reach: float = 3.0
    """Betas may move so far from the transferred ones; only hopeless targets pull them there."""
    second_try_above_mm: float = 20.0
    """Mean vertex distance above which a fit is tried again from the rest pose, and the better one kept."""
    region_iterations: int = 20
    """Most iterations of the lower- and of the upper-body stage."""
    full_iterations: int = 50
    """Most iterations of the full-body stage."""
    step_tolerance: float = 3e-4
    """A person has converged when no unknown moved by more than this, rad or standard deviations."""
    cost_tolerance: float = 1e-4
    """A person has also converged when a step lowered the cost by less than this fraction."""

    def __post_init__(self) -> None:
        if self.betas not in BETAS_PRIORS:
            raise InputError(f"{self.betas!r} given", field="betas", expected="keep, near or free")
