"""Shape transfer: the betas with which SKEL has the rest shape of a given SMPL model and betas.

Every SMPL file has a shape space of its own (neutral, male, female), SKEL's is that of its gender. The best betas in
the least-squares sense over the vertices are an affine function of the given ones, solved once. The two templates may
also lie at different places; that offset is solved for as well and goes into the translation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShapeTransfer:
    """betas_skel = betas_smpl @ linear.T + constant; vertices_smpl ~ vertices_skel + offset."""

    linear: Tensor
    """(10, 10)"""
    constant: Tensor
    """(10,)"""
    offset_linear: Tensor
    """(3, 10)"""
    offset_constant: Tensor
    """(3,) m"""
    residual_mm: float
    """Root mean square distance of the two templates after the transfer of zero betas."""

    def __call__(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 10) SMPL betas -> (B, 10) SKEL betas, (B, 3) offset in metres."""
        return betas @ self.linear.T + self.constant, betas @ self.offset_linear.T + self.offset_constant


def shape_transfer(
    source_template: Tensor, source_shapedirs: Tensor, template: Tensor, shapedirs: Tensor
) -> ShapeTransfer:
    """Solve the transfer between two shape spaces on one topology.

    Templates (V, 3) and shapedirs (V, 3, n); computed in float64, returned in the type of `template`.
    """
    count = len(template)
    target = torch.cat([source_shapedirs.flatten(0, 1), (source_template - template).reshape(-1, 1)], 1).double()
    shift = torch.eye(3, dtype=torch.float64, device=template.device).repeat(count, 1)
    basis = torch.cat([shapedirs.flatten(0, 1).double(), shift], 1)
    gram = basis.T @ basis
    solution = torch.linalg.solve(gram, basis.T @ target)
    residual = (basis @ solution[:, -1] - target[:, -1]).square().sum() / count
    modes = shapedirs.shape[2]
    cast = solution.to(template.dtype)
    return ShapeTransfer(
        linear=cast[:modes, :-1].contiguous(),
        constant=cast[:modes, -1].contiguous(),
        offset_linear=cast[modes:, :-1].contiguous(),
        offset_constant=cast[modes:, -1].contiguous(),
        residual_mm=1000 * float(residual.sqrt()),
    )
