"""The training loss. Each of its equations is one function, in order:

(1) `joints_3d`   (2) `joints_2d`   (3) `parameters`   (4) `stage`   (5) `refinement`   (6) `total`

(1)-(3) compare one estimate with its target, (4) weighs them for the coarse and the final estimate, (5) holds the
layers between to the target's rotations, (6) is what is minimised. The camera is supervised only through (2). Sums run
over joints and coordinates, means over people. Source: SKEL-CF (arXiv 2511.20157) as in train/README.md. The numbers
are this project's, in the order of that page; the paper's own may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from train.config import LossConfig
from train.data.batch import Targets
from train.network.camera import project_to_crop
from train.network.decoder import Estimate
from train.network.model import Output
from train.network.pose_representation import poses_to_rotations, representation_to_rotations
from train.network.vit import GRID
from train.run.body import HIP_KEYPOINTS, PELVIS_KEYPOINT, KeypointLayer


class Loss(NamedTuple):
    """What is minimised, and what it is made of."""

    total: Tensor
    """() with its gradient."""
    terms: dict[str, Tensor]
    """() each, unweighted and detached: `coarse/joints_3d`, `final/betas`, `layers/rotations` and so on."""


def joints_3d(keypoints: Tensor, target: Tensor) -> Tensor:
    """(1) Mean over people of the confidence-weighted L1 distance of pelvis-relative keypoints (B, 44, 3).

    Where the label has no pelvis keypoint (shards made without the regressor SMPL_to_J19) both sides are relative to
    the middle of the hips; people who lack these, too, do not count.
    """
    goal, confidence = target[..., :3], target[..., 3:]
    pelvis = confidence[:, PELVIS_KEYPOINT : PELVIS_KEYPOINT + 1] > 0
    hips = (confidence[:, HIP_KEYPOINTS[0]] > 0) & (confidence[:, HIP_KEYPOINTS[1]] > 0)
    confidence = confidence * (pelvis | hips[:, None])
    moved, goal = (side - _origin(side, pelvis) for side in (keypoints, goal))
    return (confidence * (moved - goal).abs()).sum((1, 2)).mean()


def _origin(keypoints: Tensor, pelvis: Tensor) -> Tensor:
    """(B, 1, 3) the pelvis of keypoints (B, 44, 3) where `pelvis` (B, 1, 1) is known, else the middle of the hips."""
    right, left = (keypoints[:, hip : hip + 1] for hip in HIP_KEYPOINTS)
    return torch.where(pelvis, keypoints[:, PELVIS_KEYPOINT : PELVIS_KEYPOINT + 1], (right + left) / 2)


def joints_2d(projected: Tensor, target: Tensor) -> Tensor:
    """(2) Mean over people of the confidence-weighted L1 distance of keypoints in crop coordinates (B, 44, 2)."""
    return (target[..., 2:] * (projected - target[..., :2]).abs()).sum((1, 2)).mean()


class Parameters(NamedTuple):
    """Equation (3), by its three weights."""

    betas: Tensor
    body_rotations: Tensor
    root_rotation: Tensor


def parameters(estimate: Estimate, betas: Tensor, rotations: Tensor, squared: bool = False) -> Parameters:
    """(3) Mean over people of the L1 distances of shape, of the body's rotation matrices and of the root's.

    `betas` (B, 10) and `rotations` (B, 24, 3, 3) are the targets. `squared` differences are HSMR's.
    """
    size = torch.square if squared else torch.abs
    apart = size(representation_to_rotations(estimate.poses_6d) - rotations).sum((2, 3))
    shape = size(estimate.betas - betas).sum(1)
    return Parameters(shape.mean(), apart[:, 1:].sum(1).mean(), apart[:, 0].mean())


def stage(
    estimate: Estimate, keypoints: Tensor, targets: Targets, rotations: Tensor, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """(4) The weighted sum of (1)-(3) for one estimate, and its unweighted terms.

    `keypoints` (B, 44, 3) are the estimate's, `rotations` (B, 24, 3, 3) those of the target's poses.
    """
    projected = project_to_crop(keypoints, estimate.cam, targets.framing)
    terms = {
        "joints_3d": joints_3d(keypoints, targets.keypoints_3d),
        "joints_2d": joints_2d(projected, targets.keypoints_2d),
        **parameters(estimate, targets.betas, rotations, config.parameters == "squared")._asdict(),
    }
    return sum(getattr(config, name) * value for name, value in terms.items()), terms


def refinement(layers: Sequence[Estimate], rotations: Tensor) -> Tensor:
    """(5) Sum over layers of the mean absolute difference of rotation matrices, over people, joints and entries."""
    apart = [(representation_to_rotations(layer.poses_6d) - rotations).abs().mean() for layer in layers]
    return torch.stack(apart).sum()


def keypoint_maps(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over people and keypoints of the confidence-weighted cross-entropy of places among the tokens.

    `logits` (B, 44, 192), `target` (B, 44, 3) in crop coordinates. The true distribution is a Gaussian one patch wide;
    keypoints beside the tokens do not count. Not in SKEL-CF, whose encoder comes from ViTPose, which has learnt this.
    """
    rows, columns = (torch.arange(n, dtype=target.dtype, device=target.device) + 0.5 for n in GRID)
    # Tokens cover all rows of the crop and the middle of its columns.
    column, row = target[..., 0] * GRID[0] + GRID[1] / 2, (target[..., 1] + 0.5) * GRID[0]
    inside = (row > 0) & (row < GRID[0]) & (column > 0) & (column < GRID[1])
    square = (row[..., None] - rows).square()[..., :, None] + (column[..., None] - columns).square()[..., None, :]
    truth = (-square.flatten(2) / 2).softmax(-1)
    missed = -(truth * logits.log_softmax(-1)).sum(-1)
    return (missed * target[..., 2] * inside).mean()


def total(output: Output, targets: Targets, body: KeypointLayer, config: LossConfig | None = None) -> Loss:
    """(6) Coarse and final estimate by (4), the layers between by (5), or by (4) too if the configuration says so.

    Computed in float32 in any autocast. Stages that a variant does not have are left out; `keypoint_maps` joins in for
    networks that tell them.
    """
    config = config or LossConfig()
    with torch.autocast(targets.poses.device.type, enabled=False):
        rotations = poses_to_rotations(targets.poses)
        stages = {"final": output.final}
        if output.coarse is not None and output.layers:
            stages["coarse"] = output.coarse
        between = output.layers[:-1]
        if config.layer_supervision == "full":
            stages |= {f"layer_{n}": layer for n, layer in enumerate(between)}
        parts, terms = [], {}
        # One body for all stages together: it is many small operations, whose number counts more than their size.
        together = Estimate(*(torch.cat(values) for values in zip(*stages.values(), strict=True)))
        keypoints = body(together.poses, together.betas).chunk(len(stages))
        for (name, estimate), points in zip(stages.items(), keypoints, strict=True):
            value, found = stage(estimate, points, targets, rotations, config)
            parts.append(value)
            terms |= {f"{name}/{term}": loss.detach() for term, loss in found.items()}
        held = between if config.layer_supervision == "rotations" else output.layers
        if between and config.layer_supervision != "full":
            value = refinement(held, rotations)
            parts.append(config.refinement * value)
            terms["layers/rotations"] = value.detach()
        if output.maps is not None:
            value = keypoint_maps(output.maps, targets.keypoints_2d)
            parts.append(config.maps * value)
            terms["maps"] = value.detach()
        if output.places is not None:
            value = joints_2d(output.places, targets.keypoints_2d)
            parts.append(config.places * value)
            terms["places"] = value.detach()
        return Loss(torch.stack(parts).sum(), terms)
