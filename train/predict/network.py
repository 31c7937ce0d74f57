"""Networks on people of photographs: crops, estimates, and the focal length that a focal-length network sees."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from pipelines.draw.warp import square_affine, warp
from schemas import InputError
from train.benchmarks.images import released_crop
from train.network.camera import Framing, bbox_cue, cam_to_translation, focal_length
from train.network.flnet import whole_image
from train.network.inputs import assumed_framing, normalised
from train.network.model import IMAGE, SKELCF

Patches = Literal["released", "ours"]


class Crops(NamedTuple):
    """What a network sees of B people, and where in their photographs, px."""

    pixels: np.ndarray
    """(B, 256, 256, 3) uint8 RGB"""
    centers: np.ndarray
    """(B, 2)"""
    sides: np.ndarray
    """(B,)"""
    focal: np.ndarray
    """(B,)"""
    principal: np.ndarray
    """(B, 2)"""


def cut_crops(
    photograph: np.ndarray, boxes: np.ndarray, focal: float, margin: float = 1.0, patches: Patches = "ours"
) -> Crops:
    """Squares about boxes (B, 4) of a photograph (H, W, 3), uint8 RGB. Raises InputError for boxes without area."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sizes = boxes[:, 2:] - boxes[:, :2]
    if not (np.isfinite(boxes).all() and (sizes > 0).all()):
        raise InputError(f"{boxes.tolist()} given", field="--boxes", expected="left < right and top < bottom, px")
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, sizes.max(1, initial=0) * margin
    pixels = [
        released_crop(photograph, *square)
        if patches == "released"
        else warp(photograph, square_affine(*square, IMAGE), IMAGE)
        for square in zip(centers, sides, strict=True)
    ]
    shape = (len(boxes), IMAGE, IMAGE, 3)
    middle = np.broadcast_to([photograph.shape[1] / 2, photograph.shape[0] / 2], centers.shape)
    return Crops(np.array(pixels, np.uint8).reshape(shape), centers, sides, np.full(len(boxes), focal), middle)


@torch.inference_mode()
def estimate(model: SKELCF, crops: Crops) -> dict[str, np.ndarray]:
    """poses (B, 46), betas (B, 10), trans (B, 3) m in the photographs' camera frame, and cam (B, 3), of the crops.

    Networks without camera place people where the far camera that they assume shows them.
    """
    device = next(model.parameters()).device
    tensor = lambda value: torch.as_tensor(np.array(value), dtype=torch.float32, device=device)  # noqa: E731
    real = Framing(tensor(crops.centers), tensor(crops.sides), tensor(crops.focal), tensor(crops.principal))
    framing = assumed_framing(model, real)
    final = model.eval()(normalised(torch.from_numpy(crops.pixels).to(device)), bbox_cue(framing)).final
    # Scale and shift say how the crop looks; seen through the photograph's own camera they say where somebody stands.
    trans = cam_to_translation(final.cam, real)
    found = {"poses": final.poses, "betas": final.betas, "trans": trans, "cam": final.cam}
    return {name: value.float().cpu().numpy() for name, value in found.items()}


def predict(
    model: SKELCF,
    photograph: np.ndarray,
    boxes: np.ndarray,
    focal: float,
    margin: float = 1.0,
    patches: Patches | None = None,
) -> dict[str, np.ndarray]:
    """People in a photograph (H, W, 3), uint8 RGB, from boxes (B, 4): left, top, right, bottom, px.

    `focal` in px; the principal point is the image's middle. The result is that of `estimate`, with box_center (B, 2)
    and box_size (B,), px. Crops are cut as `patches` says, by default as those that the network was taught on. Raises
    InputError for boxes without area.
    """
    crops = cut_crops(photograph, boxes, focal, margin, patches or model.crops)
    return estimate(model, crops) | {"box_center": crops.centers, "box_size": crops.sides}


def estimated_focal(photograph: np.ndarray, network: nn.Module | None = None) -> float:
    """Focal length, px, of a photograph (H, W, 3): by a focal-length network, or without one the image's diagonal."""
    height, width = photograph.shape[:2]
    if network is None:
        return math.hypot(width, height)
    device = next(network.parameters()).device
    with torch.inference_mode():
        vertical = network(whole_image(photograph)[None].to(device)).vertical
    return float(focal_length(vertical, torch.full_like(vertical, height))[0])
