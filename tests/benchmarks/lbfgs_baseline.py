"""The way SMPL is usually fitted to SKEL, for comparison: one L-BFGS over a whole batch, stage by stage.

Written from the published description: pose from zero but for the root, translation copied, one step length for all
people, the loss a mean over the batch, limits as a penalty. It uses this project's SKEL, which is faster than the
released one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting import SKEL
from fitting.body.limits import BSM_LIMITS

STAGES = (slice(3, 17), slice(17, 46), slice(3, 46))


def lbfgs_fit(skel: SKEL, target: Tensor, root: Tensor, betas: Tensor, trans: Tensor, steps: int = 30) -> Tensor:
    """(B, 46) poses for target vertices (B, V, 3); `root` (B, 3) pelvis angles, betas (B, 10), trans (B, 3)."""
    low, high = torch.as_tensor(BSM_LIMITS, dtype=target.dtype).unbind(1)
    poses = torch.zeros(len(target), 46, dtype=target.dtype)
    poses[:, :3] = root
    for coordinates in STAGES:
        free = poses[:, coordinates].clone().requires_grad_()
        optimiser = torch.optim.LBFGS([free], max_iter=steps, line_search_fn="strong_wolfe")

        def loss(free=free, coordinates=coordinates, optimiser=optimiser) -> Tensor:
            optimiser.zero_grad()
            q = torch.cat([poses[:, : coordinates.start], free, poses[:, coordinates.stop :]], 1)
            away = (skel(q, betas, trans).vertices - target).square().sum(-1).mean()
            beyond = ((q - high).clamp_min(0) + (low - q).clamp_min(0)).square().sum(1).mean()
            value = away + 1e-3 * beyond
            value.backward()
            return value

        optimiser.step(loss)
        poses[:, coordinates] = free.detach()
    return poses
