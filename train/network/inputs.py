"""What the network is given: pixels as it expects them, and the camera that its variant assumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fitting.body.constants import constant
from train.config import IMAGE_MEAN, IMAGE_STD
from train.network.camera import Framing
from train.network.checkpoints import unwrapped


def normalised(image: Tensor) -> Tensor:
    """(B, 3, H, W) network input of RGB pixels (B, H, W, 3) uint8, in their order in memory (channels last)."""
    # Whole rows at a time: arithmetic on the three channels of each pixel alone takes three times as long.
    mean, std = (255 * constant(v, image.device, torch.float32).repeat(image.shape[2]) for v in (IMAGE_MEAN, IMAGE_STD))
    return image.flatten(2).float().sub_(mean).div_(std).view(image.shape).permute(0, 3, 1, 2)


def assumed_framing(model: nn.Module, framing: Framing) -> Framing:
    """The camera that the network's variant assumes: the photograph's, or a far one that looks at the crop."""
    return framing if unwrapped(model).config.camera else Framing.of_crop(framing.center, framing.box)
