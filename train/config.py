"""What the network is made of and what its loss weighs, as options; the paper's variants are settings of these.

Imports nothing heavy, so that command lines can show their options at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from schemas import InputError

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB; every network here takes images as (x / 255 - mean) / std."""


@dataclass(frozen=True)
class BackboneSize:
    """A ViTPose encoder. Source: Xu et al., NeurIPS 2022; `tiny` and `movenet` are this project's own, for CPUs."""

    depth: int
    dim: int
    heads: int
    stochastic_depth: float
    stem: tuple[int, ...] = ()
    """channels of three convolutions before the tokens; none: ViTPose's single one makes them"""
    pretrained: bool = False
    """tokens come from MoveNet's features (train.network.movenet_tokens)"""


BACKBONES = {
    "tiny": BackboneSize(3, 96, 3, 0.0, stem=(24, 48, 96)),
    "movenet": BackboneSize(0, 128, 1, 0.0, pretrained=True),
    "s": BackboneSize(12, 384, 12, 0.1),
    "b": BackboneSize(12, 768, 12, 0.3),
    "l": BackboneSize(24, 1024, 16, 0.5),
    "h": BackboneSize(32, 1280, 16, 0.55),
}


@dataclass(frozen=True)
class NetworkConfig:
    """The network. The defaults are SKEL-CF as published."""

    backbone: Literal["tiny", "movenet", "s", "b", "l", "h"] = "h"
    """size of the ViTPose encoder; movenet: the detector that comes with the package, whose later layers are trained"""
    architecture: Literal["skel-cf", "hsmr"] = "skel-cf"
    """coarse-to-fine decoder, or HSMR's single-query decoder"""
    camera: bool = True
    """tell the decoder where the box lies in the photograph; without, the camera is a fixed one per crop"""
    coarse: bool = True
    """start the refinement from the coarse heads; without, from the mean parameters"""
    refinement_layers: int = 6
    """refinement steps; 0 = coarse heads alone"""
    stepwise: bool = True
    """residuals after each refinement layer, and tokens made anew; without, one residual after the last"""
    looped: bool = False
    """one layer's weights for all refinement steps"""
    heads: int = 8
    """attention heads of the decoder"""
    head_dim: int = 64
    """channels per attention head of the decoder"""
    mlp_dim: int = 1024
    """hidden channels of the decoder's layers"""
    hidden_dim: int = 256
    """hidden channels of the three parameter heads (skel-cf)"""
    query_dim: int = 1024
    """channels of the single query (hsmr)"""
    stochastic_depth: float | None = None
    """rate of skipped residual branches at the encoder's last block; default: the size's own"""
    checkpoint_activations: bool = False
    """compute the encoder's blocks again in the backward pass instead of keeping their activations"""
    keypoint_maps: bool = False
    """also say token by token where keypoints are: a task that teaches encoders that begin from nothing"""

    keypoint_summary: bool = False
    """also begin from what such maps, finer ones, say of the whole person, and tell it to every token"""

    def __post_init__(self) -> None:
        _one_of("backbone", self.backbone, BACKBONES)
        _one_of("architecture", self.architecture, ("skel-cf", "hsmr"))
        if self.refinement_layers < 0:
            raise InputError(f"{self.refinement_layers} refinement layers", field="refinement_layers", expected=">= 0")
        if not self.coarse and self.refinement_layers == 0:
            raise InputError("neither coarse heads nor refinement", field="coarse", expected="one of the two")

    @property
    def size(self) -> BackboneSize:
        return BACKBONES[self.backbone]


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss (train/README.md). The defaults are SKEL-CF's as published."""

    joints_3d: float = 0.05
    """pelvis-relative 3D keypoints, m"""
    joints_2d: float = 0.05
    """2D keypoints in crop coordinates from -0.5 to 0.5"""
    betas: float = 0.0005
    """shape"""
    body_rotations: float = 0.001
    """rotation matrices of the 23 joints below the pelvis"""
    root_rotation: float = 0.002
    """rotation matrix of the pelvis"""
    parameters: Literal["absolute", "squared"] = "absolute"
    """differences of betas and rotation matrices: absolute as SKEL-CF's, or squared as HSMR's"""
    refinement: float = 0.1
    """the intermediate layers' rotation matrices: means per layer, summed over layers"""
    maps: float = 0.2
    """the keypoints' places among the tokens, for networks that tell them"""
    places: float = 0.25
    """distance of the maps' means from the keypoints, in crop coordinates, for networks that summarise them"""
    layer_supervision: Literal["rotations", "rotations-all", "full"] = "rotations"
    """what the intermediate layers are held to: rotation matrices; these in the final layer as well, as in the
    released code; or everything that the final one is held to"""

    def __post_init__(self) -> None:
        _one_of("layer_supervision", self.layer_supervision, ("rotations", "rotations-all", "full"))
        _one_of("parameters", self.parameters, ("absolute", "squared"))


_NETWORK_VARIANTS: dict[str, dict[str, Any]] = {
    "skel-cf": {},
    "no-camera": {"camera": False},
    "no-coarse": {"coarse": False},
    "no-refinement": {"stepwise": False},
    "coarse-only": {"refinement_layers": 0},
    "full-supervision": {},
    "looped": {"looped": True},
    "hsmr": {"architecture": "hsmr", "camera": False, "coarse": False},
}

VARIANTS = tuple(_NETWORK_VARIANTS)
"""The paper's ablations and its baseline; and the coarse heads alone."""


def variant(
    name: str, network: NetworkConfig | None = None, loss: LossConfig | None = None
) -> tuple[NetworkConfig, LossConfig]:
    """The settings of a variant, on top of given ones. Raises InputError for an unknown name."""
    _one_of("variant", name, VARIANTS)
    network = replace(network or NetworkConfig(), **_NETWORK_VARIANTS[name])
    loss = loss or LossConfig()
    return network, replace(loss, layer_supervision="full") if name == "full-supervision" else loss


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Plain values for a checkpoint."""
    return asdict(config)


def config_from_dict(values: dict[str, Any], file: Any = None) -> NetworkConfig:
    """The configuration that a checkpoint of this project holds. Raises InputError for unknown or unfit settings."""
    known = {f.name for f in fields(NetworkConfig)}
    unknown = sorted(str(key) for key in set(values) - known)
    if unknown:
        problem = f"unknown settings {', '.join(unknown)}"
        raise InputError(problem, file=file, field="config", expected=f"some of {', '.join(sorted(known))}")
    for f in fields(NetworkConfig):
        value = values.get(f.name, f.default)
        fits = value is None or isinstance(value, (int, float)) if f.default is None else type(value) is type(f.default)
        if not fits:
            raise InputError(f"{value!r}", file=file, field=f"config {f.name}", expected=f"such as {f.default!r}")
    return NetworkConfig(**values)


def _one_of(field: str, value: Any, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if value not in allowed:
        raise InputError(f"{value!r}", field=field, expected=" or ".join(allowed))
