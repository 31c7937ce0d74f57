"""One word on whether a fit can be used: `schemas.VERDICTS`, of which the first that applies is given.

`converged` says that the solver stopped at an optimum. This says whether the optimum is a body that somebody had:

    doubtful_source     the SMPL parameters are no body's: rotations that look like degrees, or a place in millimetres
    implausible_shape   the norm of betas is above IMPLAUSIBLE_BETAS, or one of them is at the end of its reach
    far                 SKEL's skin stays farther than FAR_MM from the target on average
    at_limits           a joint angle on or beyond its limit: the target's pose is not one that a human takes
    good                none of these
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from schemas import VERDICTS

FAR_MM = 20.0
"""Mean vertex distance. Everyday people end at 1 to 3 mm, extreme poses of the embedded body below 10; the second
try from the rest pose, which begins at the same distance, has failed as well."""

IMPLAUSIBLE_BETAS = 10.0
"""Standard deviations. Ten normally distributed numbers have a norm of 3, and of ten billion people nobody has 9;
released labels beyond it are known to be broken (880 of BEDLAM's, 15 to 113)."""

_FULL_TURN = 2 * math.pi
"""A rotation vector longer than this says what a shorter one says. Joints of the body have them in no convention; in
degrees one of 23 always is. The root's may count turns."""

_OUT_OF_SIGHT = 1000.0
"""m; a camera sees nobody there, but a metre in front of it in millimetres."""


def in_degrees(poses: Tensor) -> Tensor:
    """(B,) whether SMPL poses (B, 72), which are radians, look like degrees."""
    return poses.unflatten(1, (-1, 3))[:, 1:].norm(dim=2).amax(1) > _FULL_TURN


def in_millimetres(trans: Tensor) -> Tensor:
    """(B,) whether translations (B, 3), which are metres, look like millimetres."""
    return trans.norm(dim=1) > _OUT_OF_SIGHT


def doubtful(poses: Tensor, trans: Tensor) -> Tensor:
    """(B,) whether SMPL poses (B, 72) and translations (B, 3) cannot be meant."""
    return in_degrees(poses) | in_millimetres(trans)


def verdicts(doubted: Tensor, betas: Tensor, betas_pressed: Tensor, mean_mm: Tensor, limits_pressed: Tensor) -> Tensor:
    """(B,) index in VERDICTS, from doubts (B,), betas and which of them are at their reach (B, 10), mean vertex
    distances (B,) and which angles are on or beyond a limit (B, 46)."""
    found = {
        "doubtful_source": doubted,
        "far": ~(mean_mm <= FAR_MM),
        "implausible_shape": (betas.norm(dim=1) > IMPLAUSIBLE_BETAS) | betas_pressed.any(1),
        "at_limits": limits_pressed.any(1),
        "good": torch.ones_like(doubted),
    }
    # The first word that is true of a person: argmax finds the first of equal ones.
    return torch.stack([found[word] for word in VERDICTS], 1).int().argmax(1)
