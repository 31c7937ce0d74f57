"""How likely a pose is: a Gaussian over the 43 coordinates of the body.

Mean and covariance are those of the demo's key poses, drawn and mirrored by `python -m pipelines.demo.pose_prior`:
standing, walking, running, sitting, bending, with everyday arms, written by hand for this project. No captured motion
and no licensed data is in them. They are few, so the covariance is widened: people do more than these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).with_name("pose_prior.npz")

_WIDEN = 1.5
"""Factor on the covariance."""
_LEAST = 0.12
"""Standard deviation, rad, added to every coordinate on its own."""


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian over poses."""

    mean: Tensor
    """(43,) rad"""
    precision: Tensor
    """(43, 43) 1 / rad^2"""

    @classmethod
    def load(cls, like: Tensor) -> PosePrior:
        """The prior of the file beside this module, on the device and in the precision of `like`."""
        with np.load(FILE, allow_pickle=False) as stored:
            mean, covariance = stored["mean"].astype(np.float64), stored["covariance"].astype(np.float64)
        wide = _WIDEN * covariance + _LEAST**2 * np.eye(len(mean))
        return cls(*(torch.as_tensor(part).to(like) for part in (mean, np.linalg.inv(wide))))
