"""Where keypoints are and what is seen there, told to every token: for encoders that begin from little."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body.constants import constant
from schemas import KEYPOINT_NAMES
from train.network.vit import GRID

FINE = 2
"""Cells of a token's patch along each side, among which keypoints are placed."""
_SEEN = 16
"""Channels that are read at each keypoint."""
_PLACE_SCALE = 4.0
"""Makes crop coordinates, most within 0.25 of the middle, about as large as other inputs."""


def _cells() -> np.ndarray:
    """(768, 2) x and y of the cells in crop coordinates, row by row."""
    rows, columns = (FINE * n for n in GRID)
    y, x = ((np.arange(n) + 0.5) / rows - n / rows / 2 for n in (rows, columns))
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


_CELLS = _cells()


class Summary(NamedTuple):
    """What maps of keypoints say of B people."""

    tokens: Tensor
    """(B, 192, dim) with what is known of the whole person added to each."""
    maps: Tensor
    """(B, 44, 192) logits of each keypoint's place among the tokens."""
    places: Tensor
    """(B, 44, 2) the maps' means, crop coordinates (-0.5 to 0.5 inside the box)."""
    first: tuple[Tensor, ...] | None
    """What to add to the mean parameters (B, 144), (B, 10), (B, 3) for a first estimate."""


class KeypointSummary(nn.Module):
    """Reads maps of keypoints from tokens (B, 192, dim), four cells a token, and what follows for the whole person.

    A small decoder cannot find out from few people that it must look at knees to know where knees are. Here each
    keypoint's place (the map's mean), its certainty (the map's sharpness) and features (the tokens' mean under the map)
    go through hidden layers to every token and, with `estimates` (numbers of each), to a first estimate. Sources:
    soft-argmax of Sun et al., Integral Human Pose Regression, ECCV 2018; features under maps as in Kocabas et al.,
    PARE, ICCV 2021; poses from places as in Martinez et al., A simple yet effective baseline for 3d human pose, 2017.
    """

    def __init__(self, dim: int, hidden: int, cue: int, estimates: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.cue, self.estimates = cue, estimates
        self.map_head = nn.Linear(dim, len(KEYPOINT_NAMES) * FINE**2)
        self.read = nn.Linear(dim, _SEEN)
        numbers = len(KEYPOINT_NAMES) * (3 + _SEEN) + cue
        self.mix = _perceptron(numbers, hidden, 1, dim)
        if estimates:
            self.lift = _perceptron(numbers, hidden, 2, sum(estimates))
            # Start near the mean person.
            nn.init.trunc_normal_(self.lift[-1].weight, std=0.002)
            nn.init.zeros_(self.lift[-1].bias)

    def forward(self, tokens: Tensor, bbox: Tensor) -> Summary:
        """`bbox` (B, 3) is the bounding-box cue, of which the first `cue` numbers are looked at."""
        logits = self.map_head(tokens).float().unflatten(1, GRID).unflatten(3, (len(KEYPOINT_NAMES), FINE, FINE))
        logits = logits.permute(0, 3, 1, 4, 2, 5)  # B, keypoint, row of tokens, row in the token, column, column
        share = logits.flatten(2).softmax(-1)
        places = share @ constant(_CELLS, share.device, share.dtype)
        sharp = share.square().sum(-1, keepdim=True).sqrt()
        maps = logits.logsumexp((3, 5)).flatten(2)
        seen = maps.softmax(-1).to(tokens.dtype) @ self.read(tokens)
        numbers = torch.cat([_PLACE_SCALE * places, sharp, seen], -1).flatten(1)
        numbers = torch.cat([numbers, bbox[:, : self.cue]], 1).to(tokens.dtype)
        first = self.lift(numbers).split(self.estimates, 1) if self.estimates else None
        return Summary(tokens + self.mix(numbers)[:, None], maps, places, first)


def _perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """With `layers` hidden layers after the first one."""
    between = [layer for _ in range(layers) for layer in (nn.Linear(hidden, hidden), nn.GELU())]
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), *between, nn.Linear(hidden, outputs))
