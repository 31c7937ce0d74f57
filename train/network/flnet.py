"""FLNet: the vertical field of view of a photograph, from the whole of it.

Source: Patel and Black, CameraHMR, 3DV 2025; HRNet-W48 of Sun et al., CVPR 2019. Parameter names are those of the
released checkpoint, including those of layers that nothing uses.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import IMAGE_MEAN, IMAGE_STD

SIDE = 256
"""Side of the input, px."""
WIDTHS = (48, 96, 192, 384)
"""Channels of the four branches, finest first; each has half the resolution of the one before."""
MODULES = (1, 4, 3)
"""Exchange modules of the stages with two, three and four branches."""
BLOCKS = 4
"""Residual blocks of a branch between two exchanges."""
FEATURES = sum(WIDTHS)


class FieldOfView(NamedTuple):
    """What FLNet says about B photographs."""

    cam: Tensor
    """(B, 2) of which the second is the vertical field of view, rad."""
    features: Tensor
    """(B, 720) mean-pooled features."""

    @property
    def vertical(self) -> Tensor:
        """(B,) vertical field of view, rad."""
        return self.cam[:, 1]


class FLNet(nn.Module):
    """Field of view of photographs (B, 3, 256, 256), RGB, normalised as the crops are (see `whole_image`)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = HRNet()
        self.fc1 = nn.Linear(FEATURES, 1024)
        self.fc2 = nn.Linear(1024, 1024)  # unused, as final_layer below; the released file has them
        self.fc3 = nn.Linear(1024, 2)

    def forward(self, image: Tensor) -> FieldOfView:
        features = self.backbone(image)
        return FieldOfView(self.fc3(self.fc1(features)), features)


class HRNet(nn.Module):
    """Four branches of different resolution that exchange their features; (B, 720) after pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64), *(Bottleneck(256) for _ in range(3)))
        self.transition1 = nn.ModuleList([_conv(256, WIDTHS[0]), nn.Sequential(_conv(256, WIDTHS[1], 2))])
        self.transition2 = self._widen(2)
        self.transition3 = self._widen(3)
        for branches, count in enumerate(MODULES, 2):
            self.add_module(f"stage{branches}", nn.Sequential(*(Exchange(branches) for _ in range(count))))
        self.final_layer = nn.Conv2d(WIDTHS[0], 24, 1)
        for n in range(1, 4):
            width = WIDTHS[n - 1]
            steps = [layer for _ in range(4 - n) for layer in _conv(width, width, 2)]
            self.add_module(f"downsample_stage_{n}", nn.Sequential(*steps))

    @staticmethod
    def _widen(branches: int) -> nn.ModuleList:
        """Nothing for the branches that are there, and a step to half the resolution for the new one."""
        step = nn.Sequential(_conv(WIDTHS[branches - 1], WIDTHS[branches], 2))
        return nn.ModuleList([*(nn.Identity() for _ in range(branches)), step])

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(image)))
        x = self.layer1(functional.relu(self.bn2(self.conv2(x))))
        branches = self.stage2([step(x) for step in self.transition1])
        branches = self.stage3([*branches, self.transition2[-1](branches[-1])])
        branches = self.stage4([*branches, self.transition3[-1](branches[-1])])
        steps = (self.downsample_stage_1, self.downsample_stage_2, self.downsample_stage_3)
        coarsest = [step(branch) for step, branch in zip(steps, branches, strict=False)]
        return torch.cat([*coarsest, branches[-1]], 1).mean((2, 3))


class Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256)
        if channels != 256:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 256, 1, bias=False), nn.BatchNorm2d(256))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x))


class BasicBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + x)


class Exchange(nn.Module):
    """Residual blocks per branch; then each branch becomes the sum of all, brought to its resolution."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        widths = WIDTHS[:branches]
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w) for _ in range(BLOCKS))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bring(source, target) for source in range(branches)) for target in range(branches)
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        x = [blocks(branch) for blocks, branch in zip(self.branches, branches, strict=True)]
        return [functional.relu(sum(step(b) for step, b in zip(steps, x, strict=True))) for steps in self.fuse_layers]


def _bring(source: int, target: int) -> nn.Module:
    """From one branch's channels and resolution to another's."""
    if source == target:
        return nn.Identity()
    if source > target:
        conv = nn.Conv2d(WIDTHS[source], WIDTHS[target], 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(WIDTHS[target]), nn.Upsample(scale_factor=2 ** (source - target)))
    steps = [_conv(WIDTHS[source], WIDTHS[source], 2) for _ in range(target - source - 1)]
    last = _conv(WIDTHS[source], WIDTHS[target], 2)
    return nn.Sequential(*steps, last[:2])


def _conv(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def whole_image(photograph: np.ndarray) -> Tensor:
    """(3, 256, 256) FLNet's input from a photograph (H, W, 3), uint8 RGB: its longer side 256, centred on white."""
    import cv2

    height, width = photograph.shape[:2]
    scale = SIDE / max(height, width)
    size = max(int(width * scale), 1), max(int(height * scale), 1)
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    image = torch.from_numpy(canvas).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
