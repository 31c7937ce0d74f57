"""MoveNet MultiPose Lightning: up to six people of a picture with boxes and 17 COCO keypoints, in one pass.

Google's network (MobileNetV2 of width 1.5, a feature pyramid down to stride 4, CenterNet's heads) as a plain torch
module. Its weights lie beside this file; `MOVENET.md` tells where they come from. Arithmetic and constants are those of
the published graph, which the tests compare it with.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_name("movenet.npz")

PEOPLE = 6
"""Most people that one pass finds."""
KEYPOINTS = 17
STRIDE = 4
"""Pixels per cell of the network's maps."""
MULTIPLE = 32
"""Sides of the picture are multiples of this."""

_STAGES = (
    # channels, stride and number of blocks; each block widens to six times its input's channels
    *((40, 2, 2), (48, 2, 3), (96, 2, 4)),
    *((144, 1, 3), (240, 2, 3), (480, 1, 1)),
)
_TAPPED = (1, 4, 8)
"""Blocks whose output the pyramid reads, with strides 4, 8 and 16."""
_HEADS = {"center": 1, "box_scale": 2, "box_offset": 2, "heatmap": KEYPOINTS, "regress": 34, "offset": 34}

_PIXEL_SCALE = 0.007843017578125
"""2 / 255 in half precision, as the graph has it."""
_PEAK_WINDOW = 5
_PEAK_TOLERANCE = 1.0132789611816406e-06
_SPREAD = 0.300048828125
"""A keypoint's score falls with its squared distance (cells) from where the person's centre expects it, as exp(-d^2 /
(this share of the shorter side))."""
_COUNTED = 0.126953125
"""Keypoints with scores above this count in a person's score."""


class Convolution(nn.Conv2d):
    """Padded as TensorFlow's SAME: with stride 2, an even picture is padded below and to the right only."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1, bias: bool = True):
        super().__init__(inputs, outputs, size, stride, size // 2 if stride == 1 else 0, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride[0] == 1 else functional.pad(x, (0, 1, 0, 1)))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.expand = Convolution(inputs, wide)
        self.depthwise = Convolution(wide, wide, 3, stride, groups=wide)
        self.project = Convolution(wide, outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(functional.relu6(self.depthwise(functional.relu6(self.expand(x)))))
        return x + y if self.adds else y


class Separable(nn.Module):
    """Each channel filtered on its own, then mixed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = Convolution(inputs, inputs, 3, groups=inputs, bias=False)
        self.mix = Convolution(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.mix(self.depthwise(x)))


class MoveNet(nn.Module):
    """The network without its last step, which is `decode_people`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 48, 3, 2)
        self.first = Convolution(48, 48, 3, groups=48)
        self.first_project = Convolution(48, 24)
        blocks, width = [], 24
        for channels, stride, count in _STAGES:
            for n in range(count):
                blocks.append(InvertedResidual(width, channels, stride if n == 0 else 1))
                width = channels
        self.blocks = nn.ModuleList(blocks)
        self.last = Convolution(width, 1280)
        self.laterals = nn.ModuleList([Convolution(40, 24), Convolution(48, 32), Convolution(96, 64)])
        self.top = Convolution(1280, 64)
        self.merges = nn.ModuleList([Separable(24, 24), Separable(32, 24), Separable(64, 32)])
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(Separable(24, 96), Convolution(96, channels)) for name, channels in _HEADS.items()}
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H/4, W/4) by head, for pictures (B, 3, H, W) of 0..255 with sides that are multiples of 32."""
        x = self.features(pictures)[-1]
        return {name: head(x) for name, head in self.heads.items()}

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What each of the 16 blocks says, and at the end the pyramid's finest level (B, 24, H/4, W/4)."""
        x = functional.relu6(self.stem(pictures.float() * _PIXEL_SCALE - 1))
        x = self.first_project(functional.relu6(self.first(x)))
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        tapped = [found[n] for n in _TAPPED]
        x = self.top(functional.relu6(self.last(x)))
        for lateral, merge, fine in reversed(list(zip(self.laterals, self.merges, tapped, strict=True))):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = merge(x + lateral(fine))
        return [*found, x]


@cache
def weights() -> dict[str, Tensor]:
    """Google's, float32, on the CPU; loaded once."""
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}


@cache
def movenet() -> MoveNet:
    """The network with Google's weights, float32, on the CPU; loaded once."""
    network = MoveNet()
    network.load_state_dict(weights())
    return network.eval().requires_grad_(False)


def decode_people(maps: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The six best people of each picture: boxes (B, 6, 4), scores (B, 6), keypoints (B, 6, 17, 3).

    Pixels of the picture, left, top, right, bottom and x, y, score, with the origin at the outer corner of the top
    left pixel. Places without a person have scores near zero.
    """
    center = maps["center"][:, 0].sigmoid()
    height, width = center.shape[1:]
    highest = functional.max_pool2d(center[:, None], _PEAK_WINDOW, 1, _PEAK_WINDOW // 2)[:, 0]
    peaks = center * ((center - highest).abs() < _PEAK_TOLERANCE)
    best, place = peaks.flatten(1).topk(PEOPLE, 1)
    cells = torch.stack([place.div(width, rounding_mode="floor"), place % width], -1).float()  # row, column

    def at_place(name: str) -> Tensor:
        values = maps[name].flatten(2).transpose(1, 2)
        return values.gather(1, place[..., None].expand(-1, -1, values.shape[2]))

    size = cells.new_tensor([height, width])
    middle, half = cells + at_place("box_offset"), at_place("box_scale").clamp_min(0) / 2
    low, high = (middle - half).minimum(size).clamp_min(0), (middle + half).minimum(size).clamp_min(0)
    expected = cells[:, :, None] + at_place("regress").unflatten(2, (KEYPOINTS, 2))
    found, scores = _keypoints(maps, expected, low, high)
    counts = scores > _COUNTED
    person = best * (scores * counts).sum(2) / counts.sum(2).clamp_min(1)
    boxes = torch.cat([low.flip(-1), high.flip(-1)], -1)
    return boxes * STRIDE, person, torch.cat([found.flip(-1) * STRIDE, scores[..., None]], -1)


def _keypoints(maps: dict[str, Tensor], expected: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column (B, 6, 17, 2) and score of the heatmap's best cell near where each keypoint is expected.

    Only cells inside the person's box, from `low` to `high` (B, 6, 2), are looked at.
    """
    heat = maps["heatmap"].sigmoid()
    height, width = heat.shape[2:]
    rows, columns = torch.arange(height).to(heat), torch.arange(width).to(heat)

    def near(lines: Tensor, axis: int) -> Tensor:
        """(B, 6, 17, n) weight of each row or column."""
        apart = (lines - expected[..., axis, None]).square()
        inside = (lines >= low[:, :, None, axis, None]) & (lines < high[:, :, None, axis, None])
        return (-apart / (_SPREAD * min(height, width))).exp() * inside

    weighted = heat[:, None] * near(rows, 0)[..., :, None] * near(columns, 1)[..., None, :]
    flat = weighted.flatten(3)
    cell = flat.argmax(-1)
    # As in the graph, a cell counts with its weight for whoever expects the keypoint there most.
    scores = flat.amax(1).gather(2, cell.transpose(1, 2)).transpose(1, 2)
    place = torch.stack([cell.div(width, rounding_mode="floor"), cell % width], -1)
    offsets = maps["offset"].unflatten(1, (KEYPOINTS, 2)).flatten(3)  # B, 17, 2, H * W
    index = cell.transpose(1, 2)[:, :, None].expand(-1, -1, 2, -1)
    return place + offsets.gather(3, index).permute(0, 3, 1, 2), scores
