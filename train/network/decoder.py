"""From image tokens to SKEL parameters: coarse heads and iterative refinement of SKEL-CF, and HSMR's decoder.

Source: Li, Jin et al., SKEL-CF, ECCV 2026 (arXiv 2511.20157); Xia et al., HSMR, CVPR 2025. Parameter names are
those of the released checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import NetworkConfig
from train.network import mean_parameters
from train.network.pose_representation import WIDTH, poses_to_representation, representation_to_poses
from train.network.vit import initialise

POSES_6D = 24 * WIDTH
BETAS = 10
CAM = 3
CUE = 3
"""Numbers of the bounding-box cue (train.network.camera.bbox_cue)."""


class Estimate(NamedTuple):
    """SKEL parameters of B people at one stage of the network, float32."""

    poses_6d: Tensor
    """(B, 24, 6) poses as the network regresses them (train.network.pose_representation); not normalised."""
    betas: Tensor
    """(B, 10)"""
    cam: Tensor
    """(B, 3) scale and shift s, tx, ty of the crop's camera (train.network.camera)."""

    @property
    def poses(self) -> Tensor:
        """(B, 46) SKEL q, rad; worked out at each access."""
        return representation_to_poses(self.poses_6d)

    def add(self, poses: Tensor, betas: Tensor, cam: Tensor) -> Estimate:
        """The estimate moved by residuals (B, 144), (B, 10), (B, 3), in float32 whatever their type."""
        poses = self.poses_6d + poses.float().unflatten(-1, (24, WIDTH))
        return Estimate(poses, self.betas + betas.float(), self.cam + cam.float())


class Normed(nn.Module):
    """Layer norm before a branch; what else the branch attends to is not normed."""

    def __init__(self, dim: int, branch: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = branch

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.fn(self.norm(x), *others)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _split(self.to_qkv(x), 3, self.heads)
        return self.to_out(_attend(q, k, v))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, context_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_kv = nn.Linear(context_dim, 2 * heads * head_dim, bias=False)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        (q,) = _split(self.to_q(x), 1, self.heads)
        k, v = _split(self.to_kv(context), 2, self.heads)
        return self.to_out(_attend(q, k, v))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # The released layers hold (inactive) dropout at the places 2 and 4, which numbers the second linear layer 3.
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TokenDecoder(nn.Module):
    """Layers of self-attention, cross-attention to the image tokens and a feed-forward net, each pre-norm, residual."""

    def __init__(self, dim: int, context_dim: int, layers: int, config: NetworkConfig) -> None:
        super().__init__()
        heads, width = config.heads, config.head_dim
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Normed(dim, SelfAttention(dim, heads, width)),
                    Normed(dim, CrossAttention(dim, context_dim, heads, width)),
                    Normed(dim, FeedForward(dim, config.mlp_dim)),
                ]
            )
            for _ in range(layers)
        )

    def layer(self, index: int, x: Tensor, context: Tensor) -> Tensor:
        attend, look, think = self.layers[index]
        x = x + attend(x)
        x = x + look(x, context)
        return x + think(x)


class QueryDecoder(TokenDecoder):
    """A token decoder that also holds the position embedding of its queries."""

    def __init__(self, dim: int, context_dim: int, layers: int, config: NetworkConfig) -> None:
        super().__init__(dim, context_dim, layers, config)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)


class CoarseToFine(nn.Module):
    """SKEL-CF's decoder: a first estimate from the mean token, then residuals from three tokens, layer by layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, cue = config.size.dim, CUE if config.camera else 0
        self.camera, self.coarse, self.steps = config.camera, config.coarse, config.refinement_layers
        self.stepwise = config.stepwise
        _register_means(self, "mean")
        for name, count in (("poses", POSES_6D), ("betas", BETAS), ("cam", CAM)):
            head = nn.Sequential(nn.Linear(dim, config.hidden_dim), nn.GELU(), nn.Linear(config.hidden_dim, count))
            self.add_module(f"{name}_decoder", head)
        if self.steps:
            self.transformer = QueryDecoder(dim, dim, 1 if config.looped else self.steps, config)
            self.to_pose_embedding = nn.Linear(POSES_6D + cue, dim)
            self.to_betas_embedding = nn.Linear(BETAS + cue, dim)
            self.to_cam_embedding = nn.Linear(CAM + cue, dim)
        self.apply(initialise)
        for head in (self.poses_decoder, self.betas_decoder, self.cam_decoder):
            # Start near the mean person: residuals add up over the layers.
            nn.init.trunc_normal_(head[2].weight, std=0.002)

    def forward(
        self, tokens: Tensor, bbox: Tensor, first: tuple[Tensor, ...] | None = None
    ) -> tuple[Estimate | None, tuple[Estimate, ...]]:
        """Coarse estimate (None in the variant without) and one estimate per refinement layer, or that of the last.

        `tokens` (B, 192, dim), `bbox` (B, 3) the bounding-box cue. `first` is what to add to the means for the coarse
        estimate, if that is known from elsewhere (train.network.keypoint_summary); then the heads say what comes after.
        """
        estimate = _means(self, "mean", len(tokens))
        coarse = None
        if first is not None:
            coarse = estimate = estimate.add(*first)
        if self.coarse and (first is None or not self.steps):
            token = tokens.mean(1)
            heads = (self.poses_decoder(token), self.betas_decoder(token), self.cam_decoder(token))
            coarse = estimate = estimate.add(*heads)
        layers: list[Estimate] = []
        for step in range(self.steps):
            if step == 0:
                x = self.embed(estimate, bbox) + self.transformer.pos_embedding
            elif self.stepwise:
                x = self.embed(estimate, bbox)
            x = self.transformer.layer(step % len(self.transformer.layers), x, tokens)
            if self.stepwise or step + 1 == self.steps:
                residuals = self.poses_decoder(x[:, 0]), self.betas_decoder(x[:, 1]), self.cam_decoder(x[:, 2])
                estimate = estimate.add(*residuals)
                layers.append(estimate)
        return coarse, tuple(layers)

    def embed(self, estimate: Estimate, bbox: Tensor) -> Tensor:
        """(B, 3, dim) one token each for pose, shape and camera."""
        cue = (bbox.to(estimate.betas.dtype),) if self.camera else ()
        pose = self.to_pose_embedding(torch.cat([estimate.poses_6d.flatten(1), *cue], 1))
        betas = self.to_betas_embedding(torch.cat([estimate.betas, *cue], 1))
        cam = self.to_cam_embedding(torch.cat([estimate.cam, *cue], 1))
        return torch.stack([pose, betas, cam], 1)


class SingleQuery(nn.Module):
    """HSMR's head, which is HMR2.0's: one learnt query looks at the image; linear layers read its answer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.query_dim
        self.transformer = nn.Module()
        self.transformer.to_token_embedding = nn.Linear(1, dim)
        self.transformer.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.transformer.transformer = TokenDecoder(dim, config.size.dim, config.refinement_layers, config)
        self.poses_decoder = nn.Linear(dim, POSES_6D)
        self.betas_decoder = nn.Linear(dim, BETAS)
        self.cam_decoder = nn.Linear(dim, CAM)
        _register_means(self, "init")
        self.apply(initialise)
        nn.init.trunc_normal_(self.transformer.pos_embedding, std=0.02)
        for head in (self.poses_decoder, self.betas_decoder, self.cam_decoder):
            nn.init.trunc_normal_(head.weight, std=0.002)

    def forward(self, tokens: Tensor, _bbox: Tensor) -> tuple[Estimate | None, tuple[Estimate, ...]]:
        """No coarse estimate, and one estimate. `tokens` (B, 192, dim)."""
        start = _means(self, "init", len(tokens))
        # The query's content is the number zero; only bias and position of it are learnt.
        x = self.transformer.to_token_embedding(torch.zeros_like(start.cam[:, None, :1]))
        x = x + self.transformer.pos_embedding
        for index in range(len(self.transformer.transformer.layers)):
            x = self.transformer.transformer.layer(index, x, tokens)
        x = x[:, 0]
        return None, (start.add(self.poses_decoder(x), self.betas_decoder(x), self.cam_decoder(x)),)


def _register_means(module: nn.Module, prefix: str) -> None:
    poses = poses_to_representation(torch.tensor(mean_parameters.POSES)).reshape(1, POSES_6D)
    module.register_buffer(f"{prefix}_poses", poses)
    module.register_buffer(f"{prefix}_betas", torch.tensor([mean_parameters.BETAS]))
    module.register_buffer(f"{prefix}_cam", torch.tensor([mean_parameters.CAM]))


def _means(module: nn.Module, prefix: str, count: int) -> Estimate:
    poses, betas, cam = (getattr(module, f"{prefix}_{name}").expand(count, -1) for name in ("poses", "betas", "cam"))
    return Estimate(poses.unflatten(-1, (24, WIDTH)), betas, cam)


def _split(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys, values (B, heads, tokens, channels) that lie side by side in the last dimension."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
