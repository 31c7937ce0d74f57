"""What the fit minimises, and its exact value and gradient.

Per person: sum over points p of w_p |S_p - T_p|^2 + sum over coordinates of prior (q - q_start)^2, plus the same for betas
around their transferred value. Points are the V skin vertices (weights 1/V, times a factor) followed by the 24 anatomical
joint centres, which SKEL carries rigidly with its bones: a joint is a point with all its skinning weight on itself, so one
code path serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.skel import SKEL


@dataclass(frozen=True)
class Points:
    """SKEL's vertices and joint centres as one set of N skinned points."""

    template: Tensor
    """(N, 3) m"""
    shapedirs: Tensor
    """(10, 3N)"""
    posedirs: Tensor
    """(207, 3N)"""
    skinning: Tensor
    """(N, 24)"""

    @classmethod
    def of(cls, skel: SKEL) -> Points:
        joints = torch.eye(24, dtype=skel.weights.dtype, device=skel.weights.device)
        shapedirs = torch.cat([skel.shapedirs, skel.J_shapedirs]).flatten(0, 1).T.contiguous()
        still = skel.posedirs.new_zeros(len(skel.posedirs), 3 * 24)
        return cls(
            template=torch.cat([skel.v_template, skel.J_template]),
            shapedirs=shapedirs,
            posedirs=torch.cat([skel.posedirs, still], 1).contiguous(),
            skinning=torch.cat([skel.weights, joints]),
        )

    def at_rest(self, betas: Tensor, features: Tensor) -> Tensor:
        """(B, N, 3) points of a shape (B, 10) with the pose correctives of features (B, 207)."""
        flat = torch.addmm(self.template.reshape(1, -1), betas, self.shapedirs)
        return flat.addmm_(features, self.posedirs).unflatten(1, (-1, 3))


@dataclass(frozen=True)
class Residual:
    """Exact state of the data term of B people at one pose and shape."""

    cost: Tensor
    """(B,) sum of w |r|^2, m^2"""
    wrench: Tensor
    """(B, 24, 3, 4) per joint: sum of w * skinning weight * r [x; 1]^T, with x the point at rest."""
    unposed: Tensor
    """(B, 3N) w r turned back into the rest frame: the gradient (halved) by the rest points."""
    distances: Tensor
    """(B, N) |r|, m"""


def residual(
    points: Points, weights: Tensor, transforms: Tensor, at_rest: Tensor, target: Tensor, *, gradient: bool = True
) -> Residual:
    """Skin the points and compare.

    `weights` (N,), `transforms` (B, 24, 3, 4), `at_rest` and `target` (B, N, 3). Without `gradient`, wrench and unposed
    are empty.
    """
    people = len(transforms)
    blended = (points.skinning @ transforms.flatten(2)).unflatten(2, (3, 4))
    r = (blended[..., :3] @ at_rest[..., None]).squeeze(-1) + blended[..., 3] - target
    squares = r.square().sum(-1)
    cost = squares @ weights
    if not gradient:
        empty = r.new_zeros(0)
        return Residual(cost, empty, empty, squares.sqrt())
    weighted = r * weights[:, None]
    unposed = (weighted[..., None, :] @ blended[..., :3]).flatten(1)
    moment = torch.cat([weighted[..., None] * at_rest[..., None, :], weighted[..., None]], -1)
    wrench = (points.skinning.T @ moment.flatten(2)).unflatten(2, (3, 4))
    return Residual(cost, wrench.reshape(people, 24, 3, 4), unposed, squares.sqrt())


class Moments:
    """Second moments of the skinned points, as a polynomial in betas.

    A posed point is S = T y with T (3, 96) the joints' transforms side by side and y (96,) its skinning weights times
    [x; 1]. With pose correctives left out, y = y_0 + sum_i beta_i y_i, so sum_p w_p y y^T needs no vertices once
    sum_p w_p y_a y_b^T is known for a, b = 0..10 (DESIGN section 4).
    """

    def __init__(self, points: Points, weights: Tensor) -> None:
        seen = weights > 0
        skinning = points.skinning[seen].double()
        weights = weights[seen].double()
        count = len(points.template)
        shapes = (
            torch.cat([points.template.reshape(1, -1), points.shapedirs]).unflatten(1, (count, 3))[:, seen].double()
        )
        one = torch.zeros(*shapes.shape[:2], 1, dtype=torch.float64, device=shapes.device)
        one[0] = 1
        homogeneous = torch.cat([shapes, one], 2)
        size = 24 * 4
        y = (skinning[None, :, :, None] * homogeneous[:, :, None, :]).flatten(2)
        scaled = y * weights[None, :, None]
        table = torch.stack([scaled[a].T @ y[b] for a in range(len(y)) for b in range(len(y))])
        self._table = table.unflatten(0, (len(y), len(y))).to(points.template.dtype).contiguous()
        self._size = size
        self.shape_gram = (shapes[1:].flatten(1) * weights.repeat_interleave(3)) @ shapes[1:].flatten(1).T
        self.shape_gram = self.shape_gram.to(points.template.dtype)

    def __call__(self, betas: Tensor) -> Tensor:
        """(B, 96, 96) second moment of the points of a shape (B, 10)."""
        full = torch.cat([torch.ones_like(betas[:, :1]), betas], 1)
        products = (full[:, :, None] * full[:, None, :]).flatten(1)
        return (products @ self._table.flatten(2).flatten(0, 1)).unflatten(1, (self._size, self._size))

    def with_shapes(self, betas: Tensor) -> Tensor:
        """(B, 10, 96, 96) moments of the points y with each shape direction y_i: sum of w y y_i^T."""
        full = torch.cat([torch.ones_like(betas[:, :1]), betas], 1)
        cross = self._table[:, 1:].flatten(1)
        return (full @ cross).unflatten(1, (betas.shape[1], self._size, self._size))
