"""A slow, plain fit of the same objective: the oracle for the fast one.

One person at a time in float64; residuals straight from the public forward pass, their Jacobian from autograd, and a
trust-region solver from scipy with bounds, from several starts. Nothing of the fitter's solver, twists or moments is
used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares

from fitting import SKELFitter


@dataclass(frozen=True)
class ReferenceFit:
    poses: np.ndarray
    betas: np.ndarray
    cost: float
    vertex_error_mm: np.ndarray
    """(V,) distance of each vertex"""
    joint_error_mm: np.ndarray
    """(24,) distance of each anatomical joint from those regressed from the target"""


def reference_fit(fitter: SKELFitter, poses, betas, starts: int = 3, iterations: int = 60) -> ReferenceFit:
    """The best of several starts for one person: SMPL poses (72,), betas (10,); `fitter` in float64."""
    problem, start, _ = fitter._problem(poses[None], betas[None], torch.zeros(1, 3, dtype=torch.float64))
    skel, options = fitter.skel, fitter.options
    vertices = skel.num_vertices
    weights = fitter.plan.regions["full"].weights.sqrt()
    shape_root = torch.linalg.cholesky(problem.betas_prior)
    bounds = fitter.plan.bounds[3:].numpy()
    centre = problem.betas_centre[0].numpy()
    low = np.concatenate([bounds[:, 0], centre - options.betas_reach])
    high = np.concatenate([bounds[:, 1], centre + options.betas_reach])

    def residuals(x: torch.Tensor) -> torch.Tensor:
        q = torch.cat([start[0, :3], x[:43]])[None]
        out = skel(q, x[None, 43:])
        points = torch.cat([out.vertices, out.joints], 1)[0].T
        data = (points - problem.target[0]) * weights
        away = (q - problem.pose_centre)[0] * options.pose_prior**0.5
        shape = (x[43:] - problem.betas_centre[0]) @ shape_root
        return torch.cat([data.flatten(), away, shape])

    jacobian = torch.func.jacfwd(residuals)
    generator = np.random.default_rng(0)
    begin = np.concatenate([start[0, 3:].numpy(), centre])
    best = None
    for attempt in range(starts):
        x = begin.copy()
        if attempt == 1:
            x[:43] = 0
        elif attempt > 1:
            x[:43] += 0.3 * generator.standard_normal(43)
        found = least_squares(
            lambda x: residuals(torch.as_tensor(x)).numpy(),
            np.clip(x, low + 1e-9, high - 1e-9),
            jac=lambda x: jacobian(torch.as_tensor(x)).numpy(),
            bounds=(low, high),
            xtol=1e-8,
            ftol=1e-9,
            max_nfev=iterations,
        )
        if best is None or found.cost < best.cost:
            best = found
    x = torch.as_tensor(best.x)
    q = torch.cat([start[0, :3], x[:43]])[None]
    out = skel(q, x[None, 43:])
    points = torch.cat([out.vertices, out.joints], 1)[0]
    distances = 1000 * (points - problem.target[0].T).norm(dim=-1).numpy()
    return ReferenceFit(q[0].numpy(), x[43:].numpy(), 2 * float(best.cost), distances[:vertices], distances[vertices:])
