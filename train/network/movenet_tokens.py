"""Image tokens from MoveNet's features: an encoder that has seen people before, for training on few of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fitting.body.constants import constant
from train.config import IMAGE_MEAN, IMAGE_STD
from train.network.movenet import KEYPOINTS, MoveNet, weights

SCALE = Path(__file__).with_name("movenet_scale.npz")
"""How large the features are: `mean` and `deviation` (836,), float32, over the demo's people, of which
`python -m tests.train.network.movenet_scale` made them."""
_SMALLEST_DEVIATION = 1e-3
"""Channels that say nothing are not blown up."""
SHRINK = 2
"""MoveNet sees the crop at half its size, where its stride 8 is that of the tokens."""
_BLOCKS = (4, 11, 15)
"""Blocks whose output is read, with strides 8, 16 and 32."""
_CHANNELS = 48 + 144 + 480 + 4 * 24 + 4 * KEYPOINTS
_KEPT = 5
"""Blocks, from the first, that are not trained, nor what lies before them. They know edges and textures of photographs,
and with their gradients a step takes a third more time."""


class MoveNetTokens(nn.Module):
    """Tokens (B, 192, dim) of normalised crops (B, 3, 256, 192), as train.network.vit.PatchEmbedding gives them.

    Training begins with Google's weights; MoveNet's first blocks keep them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.movenet = MoveNet().requires_grad_(False)
        net = self.movenet
        later = (net.blocks[_KEPT:], net.last, net.top, net.laterals, net.merges, net.heads["heatmap"])
        for part in later:
            part.requires_grad_(True)
        if not self.movenet.stem.weight.is_meta:
            self.movenet.load_state_dict(weights())
        for name, value in zip(("mean", "deviation"), _scale(), strict=True):
            self.register_buffer(name, value.clone().to(self.movenet.stem.weight.device))
        self.proj = nn.Conv2d(_CHANNELS, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = (self.features(image) - self.mean[:, None, None]) / self.deviation[:, None, None]
        return self.proj(x).flatten(2).transpose(1, 2)

    def features(self, image: Tensor) -> Tensor:
        """(B, 836, 16, 12) MoveNet's features of each token's patch."""
        mean, std = (255 * constant(v, image.device, image.dtype)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))
        small = functional.avg_pool2d(image * std + mean, SHRINK)
        # Channels last is how convolutions of this kind are quickest, by a sixth on a CPU.
        small = small.contiguous(memory_format=torch.channels_last)
        found = self.movenet.features(small)
        fine = torch.cat([found[-1], self.movenet.heads["heatmap"](found[-1])], 1)
        parts = [functional.pixel_unshuffle(fine, 2)]
        for n in _BLOCKS:
            parts.append(functional.interpolate(found[n], parts[0].shape[-2:], mode="bilinear", align_corners=False))
        return torch.cat(parts, 1)


@cache
def _scale() -> tuple[Tensor, Tensor]:
    """Mean and deviation (836,) of the features; loaded once."""
    with np.load(SCALE, allow_pickle=False) as stored:
        mean, deviation = (torch.from_numpy(stored[name]) for name in ("mean", "deviation"))
    return mean, deviation.clamp_min(_SMALLEST_DEVIATION)
