"""SKEL-CF: SKEL parameters of one person from one image crop."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from schemas import KEYPOINT_NAMES
from train.config import NetworkConfig
from train.network.decoder import BETAS, CAM, CUE, POSES_6D, CoarseToFine, Estimate, SingleQuery
from train.network.keypoint_summary import KeypointSummary
from train.network.vit import ViT

IMAGE = 256
"""Side of the input crop, px."""
COLUMNS = slice(32, 224)
"""Columns of the crop that the encoder sees."""


class Output(NamedTuple):
    """Every stage of the network's estimate."""

    coarse: Estimate | None
    """Of the coarse heads; None in the variants that have none."""
    layers: tuple[Estimate, ...]
    """After each refinement layer, or after the last (`stepwise`); empty without refinement."""
    maps: Tensor | None = None
    """(B, 44, 192) logits of each keypoint's place among the tokens, if the network tells them."""
    places: Tensor | None = None
    """(B, 44, 2) keypoints in crop coordinates, if the network summarises them."""

    @property
    def final(self) -> Estimate:
        """The last of them."""
        return self.layers[-1] if self.layers else self.coarse


class SKELCF(nn.Module):
    """The network of train/README.md in the variant that `config` says; SKEL-CF with ViT-H without one.

    Source: Li, Jin et al., SKEL-CF, ECCV 2026 (arXiv 2511.20157). Parameters have the released names.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.backbone = ViT(
            self.config.size,
            stochastic_depth=self.config.stochastic_depth,
            checkpoint_activations=self.config.checkpoint_activations,
        )
        # Each architecture's decoder has its own name in the released files.
        name, decoder = ("head", SingleQuery) if self.config.architecture == "hsmr" else ("decoder", CoarseToFine)
        self.add_module(name, decoder(self.config))
        self.crops: Literal["ours", "released"] = "ours"
        """how the crops are cut that it was taught on (train.benchmarks.images)"""
        if self.config.keypoint_summary:
            estimates = (POSES_6D, BETAS, CAM) if name == "decoder" and self.config.coarse else ()
            hidden, cue = 2 * self.config.hidden_dim, CUE if self.config.camera else 0
            self.summary = KeypointSummary(self.config.size.dim, hidden, cue, estimates)
        elif self.config.keypoint_maps:
            self.map_head = nn.Linear(self.config.size.dim, len(KEYPOINT_NAMES))

    @property
    def taught_before(self) -> nn.Module:
        """What begins with weights that have seen people before: the encoder, as far as these are of other data."""
        return self.backbone.patch_embed.movenet if self.config.size.pretrained else self.backbone

    def forward(self, image: Tensor, bbox: Tensor) -> Output:
        """Estimates of B people.

        `image` (B, 3, 256, 256) RGB, normalised by IMAGE_MEAN and IMAGE_STD; `bbox` (B, 3) the bounding-box cue of
        train.network.camera.bbox_cue, ignored by variants without camera.
        """
        tokens = self.backbone(image[..., COLUMNS])
        maps = places = first = None
        if self.config.keypoint_summary:
            tokens, maps, places, first = self.summary(tokens, bbox)
        elif self.config.keypoint_maps:
            maps = self.map_head(tokens).transpose(1, 2).float()
        if self.config.architecture == "hsmr":
            return Output(*self.head(tokens, bbox), maps, places)
        return Output(*self.decoder(tokens, bbox, first), maps, places)


def forward_flops(config: NetworkConfig) -> int:
    """Floating-point operations of one forward pass for one person; a multiplication and its addition count as two.

    Counted by PyTorch over matrix products, convolutions and attention, without computing anything.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network, image, bbox = SKELCF(config).eval(), torch.empty(1, 3, IMAGE, IMAGE), torch.empty(1, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image, bbox)
    return counter.get_total_flops()
