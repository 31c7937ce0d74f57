"""Rotation matrices: about axes, between vectors, and what belongs to them in so(3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fitting.body.constants import constant

EYE = tuple(np.eye(3).flatten())
"""(9,) the identity, flat."""

_UPPER = ((0, 0, 0, 0, 1, 1, 0, 1, 2), (0, 1, 2, 1, 1, 2, 2, 2, 2))
"""Row and column of each entry of a symmetric 3x3 matrix in its upper triangle."""


def rotation_between(origin: Tensor, onto: Tensor) -> Tensor:
    """(..., 3, 3) smallest rotation that takes the direction of one vector (..., 3) to that of another."""
    a = torch.nn.functional.normalize(origin, dim=-1)
    b = torch.nn.functional.normalize(onto, dim=-1)
    cross = skew(torch.linalg.cross(a, b))
    scale = 1 / (1 + (a * b).sum(-1)).clamp_min(1e-12)
    return torch.eye(3, dtype=a.dtype, device=a.device) + cross + cross @ cross * scale[..., None, None]


def skew(v: Tensor) -> Tensor:
    """(..., 3, 3) matrix of the cross product with v (..., 3)."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def axial(matrices: Tensor) -> Tensor:
    """(..., 3) a with a . omega = <M, omega x> for the 3x3 part of M (..., 3, 3 or 4)."""
    width = matrices.shape[-1]
    flat = matrices.flatten(-2)
    above, below = ((2 * width + 1, 2, width), (width + 2, 2 * width, 1))
    return flat[..., constant(above, flat.device)] - flat[..., constant(below, flat.device)]


def rotation_about(axis: Tensor, angle: Tensor) -> Tensor:
    """(..., 3, 3) rotation by an angle (...) about a unit axis (..., 3); smooth everywhere."""
    return turn(turning(axis), angle)


def turning(axis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `turn` needs to know of unit axes (..., 3), each (..., 9)."""
    rows, columns = (constant(which, axis.device) for which in _UPPER)
    return axis[..., rows], axis[..., columns], skew(axis).flatten(-2)


def turn(about: tuple[Tensor, Tensor, Tensor], angle: Tensor) -> Tensor:
    """(..., 3, 3) rotation by an angle (...) about an axis that is made ready by `turning`."""
    first, second, cross = about
    s, c = angle.sin()[..., None], angle.cos()[..., None]
    outer = (1 - c) * first * second
    return (outer + (c * constant(EYE, angle.device, angle.dtype) + s * cross)).unflatten(-1, (3, 3))
