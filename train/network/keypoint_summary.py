"""Where keypoints are and what is seen there, told to every token: for encoders that begin from little."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body.constants import constant
from schemas import KEYPOINT_NAMES
from train.network.vit import GRID

_PLACES = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID[::-1])), -1).reshape(-1, 2)
"""(192, 2) x and y of the tokens, -1 to 1."""
_SEEN = 16
"""Channels that are read at each keypoint."""


class KeypointSummary(nn.Module):
    """Adds to tokens (B, 192, dim) what the maps of keypoints (B, 44, 192), logits, say of the whole person.

    A small decoder cannot find out from few people that it must look at knees to know where knees are. Here each
    keypoint's place (the map's mean), its certainty (the map's sharpness) and features (the tokens' mean under the map)
    go through one hidden layer. Source: soft-argmax of Sun et al., Integral Human Pose Regression, ECCV 2018; features
    under maps as in Kocabas et al., PARE, ICCV 2021.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(dim, _SEEN)
        numbers = len(KEYPOINT_NAMES) * (3 + _SEEN)
        self.mix = nn.Sequential(nn.Linear(numbers, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor, maps: Tensor) -> Tensor:
        share = maps.softmax(-1)
        place, seen = share @ constant(_PLACES, share.device, share.dtype), share.to(tokens.dtype) @ self.read(tokens)
        sharp = share.square().sum(-1, keepdim=True).sqrt()
        numbers = torch.cat([place, sharp, seen], -1).flatten(1)
        return tokens + self.mix(numbers.to(tokens.dtype))[:, None]
