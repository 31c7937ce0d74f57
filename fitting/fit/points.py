"""The points that are fitted: SKEL's skin vertices and joint centres, their residuals and their moments.

Skinning carries a joint centre rigidly with its bone: it is a point with all its skinning weight on itself. So vertices
and joints are one set of N points, and one code path serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.body.skel import NUM_BETAS, SKEL

_PEOPLE_IN_CACHE = 16
"""On a CPU, so many people's points are worked on at a time: their arrays (about 5 MB) stay in its caches."""


def people_at_a_time(people: int, points: Tensor) -> Iterator[slice]:
    """Slices of a batch whose points are worked on together."""
    step = max(people, 1) if points.is_cuda else _PEOPLE_IN_CACHE
    for first in range(0, people, step):
        yield slice(first, first + step)


@dataclass(frozen=True)
class Points:
    """SKEL's vertices and joint centres as one set of N skinned points.

    Coordinates come before points, (3, N): every operation then runs along memory.
    """

    directions: Tensor
    """(1 + 10 + 207, 3N) template (m), shape directions, pose correctives."""
    skinning: Tensor
    """(24, N)"""

    @classmethod
    def of(cls, skel: SKEL) -> Points:
        """Vertices and joint centres of SKEL."""
        eye = torch.eye(24, dtype=skel.weights.dtype, device=skel.weights.device)
        return cls.of_arrays(
            torch.cat([skel.v_template, skel.J_template]),
            torch.cat([skel.shapedirs, skel.J_shapedirs]),
            torch.cat([skel.posedirs, skel.posedirs.new_zeros(len(skel.posedirs), 24 * 3)], 1),
            torch.cat([skel.weights, eye]),
        )

    @classmethod
    def of_arrays(cls, template: Tensor, shapedirs: Tensor, posedirs: Tensor, weights: Tensor) -> Points:
        """Template (N, 3), shapedirs (N, 3, 10), posedirs (207, 3N), skinning weights (N, 24), as in model files."""
        rows = [template[None], shapedirs.permute(2, 0, 1), posedirs.unflatten(1, (-1, 3))]
        directions = torch.cat(rows).transpose(1, 2).flatten(1)
        return cls(directions.contiguous(), weights.T.contiguous())

    def __len__(self) -> int:
        return self.skinning.shape[1]

    def at_rest(self, betas: Tensor, features: Tensor) -> Tensor:
        """(B, 3, N) points of a shape (B, 10) with the pose correctives of features (B, 207)."""
        amounts = torch.cat([torch.ones_like(betas[:, :1]), betas, features], 1)
        return (amounts @ self.directions).unflatten(1, (3, -1))


@dataclass(frozen=True)
class Residual:
    """Exact state of the data term of B people at one pose and shape."""

    cost: Tensor
    """(B,) sum of w |r|^2, m^2"""
    distances: Tensor
    """(B, N) |r|, m"""
    wrench: Tensor | None
    """(B, 24, 3, 4) per joint: sum of w * skinning weight * r [x; 1]^T, with x the point at rest."""
    by_directions: Tensor | None
    """(B, 10 + 207) half the gradient through the points at rest, by betas and by the correctives' features."""


def residual(
    points: Points,
    weights: Tensor,
    transforms: Tensor,
    at_rest: Tensor,
    target: Tensor,
    *,
    wrench: bool = False,
    by_directions: bool = False,
) -> Residual:
    """Skin the points and compare: `weights` (N,), `transforms` (B, 24, 3, 4), `at_rest` and `target` (B, 3, N)."""
    people = len(transforms)
    squares = at_rest.new_empty(people, len(points))
    wrenches = at_rest.new_empty(people, 24, 3, 4) if wrench else None
    unposed = at_rest.new_empty(people, 3 * len(points)) if by_directions else None
    for some in people_at_a_time(people, at_rest):
        blended = blend(points, transforms[some])
        r = place(blended, at_rest[some]).sub_(target[some])
        squares[some] = r.square().sum(1)
        r *= weights
        if wrenches is not None:
            wrenches[some] = wrench_of(points, r, at_rest[some])
        if unposed is not None:
            unposed[some] = unpose(blended, r)
    slope = None if unposed is None else unposed @ points.directions[1:].T
    # A product with a vector would round differently for different numbers of people.
    return Residual((squares * weights).sum(1), squares.sqrt(), wrenches, slope)


def blend(points: Points, transforms: Tensor) -> Tensor:
    """(B, 3, 4, N) each point's own transform, from those of the joints (B, 24, 3, 4)."""
    return (transforms.flatten(2).transpose(1, 2) @ points.skinning).unflatten(1, (3, 4))


def place(blended: Tensor, at_rest: Tensor) -> Tensor:
    """(B, 3, N) points at rest moved by their transforms (B, 3, 4, N)."""
    moved = torch.addcmul(blended[:, :, 3], blended[:, :, 0], at_rest[:, None, 0])
    moved.addcmul_(blended[:, :, 1], at_rest[:, None, 1])
    return moved.addcmul_(blended[:, :, 2], at_rest[:, None, 2])


def wrench_of(points: Points, force: Tensor, at_rest: Tensor) -> Tensor:
    """(B, 24, 3, 4) per joint: sum of skinning weight * force [x; 1]^T, for forces and points at rest (B, 3, N)."""
    moment = force.new_empty(len(force), 3, 4, force.shape[2])
    torch.mul(force[:, :, None], at_rest[:, None], out=moment[:, :, :3])
    moment[:, :, 3] = force
    return (moment.flatten(1, 2) @ points.skinning.T).transpose(1, 2).unflatten(2, (3, 4))


def unpose(blended: Tensor, force: Tensor) -> Tensor:
    """(B, 3N) forces turned back into the rest frame: half the gradient by the points at rest."""
    turned = blended[:, 0, :3] * force[:, 0, None]
    turned.addcmul_(blended[:, 1, :3], force[:, 1, None])
    return turned.addcmul_(blended[:, 2, :3], force[:, 2, None]).flatten(1)


class Moments:
    """Second moments of the skinned points, as a polynomial in betas.

    A posed point is S = T y with T (3, 96) the joints' transforms side by side and y (96,) its skinning weights times
    [x; 1]. With pose correctives left out, y = y_0 + sum_i beta_i y_i, so sum_p w_p y y^T needs no vertices once
    sum_p w_p y_a y_b^T is known for a, b = 0..10 (`fitting/README.md`).
    """

    def __init__(self, points: Points, weights: Tensor) -> None:
        seen = weights > 0
        skinning = points.skinning.T[seen].double()
        weights = weights[seen].double()
        dtype = points.directions.dtype
        shapes = points.directions[: 1 + NUM_BETAS].unflatten(1, (3, -1)).transpose(1, 2)[:, seen].double()
        one = torch.zeros(*shapes.shape[:2], 1, dtype=torch.float64, device=shapes.device)
        one[0] = 1
        homogeneous = torch.cat([shapes, one], 2)
        size = 24 * 4
        y = (skinning[None, :, :, None] * homogeneous[:, :, None, :]).flatten(2)
        scaled = y * weights[None, :, None]
        table = torch.stack([scaled[a].T @ y[b] for a in range(len(y)) for b in range(len(y))])
        self._table = table.unflatten(0, (len(y), len(y))).to(dtype).contiguous()
        self._by_shape = self._table[:, 1:].reshape(-1, size)
        self._size = size

    def __call__(self, betas: Tensor) -> Tensor:
        """(B, 96, 96) second moment of the points of a shape (B, 10)."""
        full = torch.cat([torch.ones_like(betas[:, :1]), betas], 1)
        products = (full[:, :, None] * full[:, None, :]).flatten(1)
        return (products @ self._table.flatten(2).flatten(0, 1)).unflatten(1, (self._size, self._size))

    def of_shapes(self, betas: Tensor, transforms: Tensor) -> tuple[Tensor, Tensor]:
        """What the shape directions y_i add to J^T J under transforms T (B, 24, 3, 4).

        (B, 10, 3, 96) sum of w (T y_i) y^T, and (B, 10, 10) sum of w (T y_i).(T y_j).
        """
        people, modes = len(betas), betas.shape[1]
        full = torch.cat([torch.ones_like(betas[:, :1]), betas], 1)
        flat = transforms.transpose(1, 2).reshape(people, 3, self._size)
        products = (flat.view(-1, self._size) @ self._by_shape.T).view(people, 3, modes + 1, modes, self._size)
        carried = (full[:, None, None] @ products.flatten(3)).view(people, 3, modes, self._size).transpose(1, 2)
        gram = (products[:, :, 1:] * flat[:, :, None, None]).sum((1, 4))
        return carried, gram
