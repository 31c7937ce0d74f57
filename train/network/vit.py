"""ViTPose's image encoder: a plain vision transformer on a 256x192 person crop.

Source: Xu et al., ViTPose, NeurIPS 2022; parameter names are those of its released checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from train.config import BackboneSize
from train.network.movenet_tokens import MoveNetTokens

PATCH = 16
PADDING = 2
"""The patches start two pixels outside the image."""
GRID = (16, 12)
"""Rows and columns of patches of a 256x192 crop."""
TOKENS = GRID[0] * GRID[1]
STEM_STRIDES = (4, 2, 2)


class Attention(nn.Module):
    """Multi-head self-attention with a bias on queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block. In training a residual branch is skipped per sample with probability `skip`."""

    def __init__(self, dim: int, heads: int, skip: float) -> None:
        super().__init__()
        self.skip = skip
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._sometimes(self.attn(self.norm1(x)))
        return x + self._sometimes(self.mlp(self.norm2(x)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        if not self.training or self.skip == 0:
            return branch
        keep = 1 - self.skip
        kept = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * (kept.to(branch.dtype) / keep)


class PatchEmbedding(nn.Module):
    """One token per patch: from one convolution as in ViTPose, or, with a `stem`, from three small ones.

    Such a stem learns from fewer images. Source: Xiao et al., Early Convolutions Help Transformers See Better, 2021.
    """

    def __init__(self, dim: int, stem: tuple[int, ...] = ()) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise((3, *stem)), STEM_STRIDES, strict=bool(stem)):
            conv = nn.Conv2d(before, after, 2 * stride - 1, stride, stride - 1)
            layers += [conv, nn.GroupNorm(after // 8, after), nn.GELU()]
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Conv2d(stem[-1], dim, 1) if stem else nn.Conv2d(3, dim, PATCH, PATCH, PADDING)
        initialise(self.proj)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(self.stem(image)).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Tokens (B, 192, dim) of crops (B, 3, 256, 192), row by row."""

    def __init__(
        self, size: BackboneSize, stochastic_depth: float | None = None, checkpoint_activations: bool = False
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        rate = size.stochastic_depth if stochastic_depth is None else stochastic_depth
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS + 1, size.dim))
        self.patch_embed = MoveNetTokens(size.dim) if size.pretrained else PatchEmbedding(size.dim, size.stem)
        steps = max(size.depth - 1, 1)
        self.blocks = nn.ModuleList(Block(size.dim, size.heads, rate * i / steps) for i in range(size.depth))
        self.last_norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.blocks.apply(initialise)
        with torch.no_grad():
            self.pos_embed[0, 1:] = grid_waves(size.dim)

    def forward(self, image: Tensor) -> Tensor:
        # The first position is that of a class token, which ViTPose dropped but adds to every patch.
        x = self.patch_embed(image) + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.last_norm(x)


def initialise(module: nn.Module) -> None:
    """Weights of linear layers and projections drawn so that outputs have their inputs' deviation, biases zero."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def grid_waves(dim: int) -> Tensor:
    """(TOKENS, dim) sines and cosines of the patches' rows and columns, from which places can be read linearly."""
    turns = 100 ** -torch.linspace(0, 1, dim // 4)
    rows, columns = (torch.arange(n)[:, None] * turns for n in GRID)
    waves = [
        function(angles).reshape(shape).expand(*GRID, -1)
        for angles, shape in ((rows, (GRID[0], 1, -1)), (columns, (1, GRID[1], -1)))
        for function in (torch.sin, torch.cos)
    ]
    return torch.cat(waves, -1).flatten(0, 1)
