"""What networks a file's tensors can be, and how large they are: told from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from os import PathLike

import torch
from torch import nn

from pipelines.files.torch_files import StoredTensor
from schemas import InputError
from train.config import BACKBONES, NetworkConfig
from train.network.flnet import FLNet
from train.network.model import SKELCF
from train.network.vit import ViT

State = dict[str, StoredTensor]


@dataclass(frozen=True)
class Kind:
    """A network that a file can hold, at any depth of its names."""

    says: str
    anchors: tuple[str, ...]
    """Names that tell it and, together, where it begins."""
    build: Callable[[State, str], nn.Module]
    strangers: tuple[str, ...] = ()
    """First name parts of what released files keep beside it, which is not read."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Names in other releases of the same architecture, as (pattern, replacement)."""


_HSMR_ALIASES = (
    (r"(^|\.)decpose\.", r"\1poses_decoder."),
    (r"(^|\.)decshape\.", r"\1betas_decoder."),
    (r"(^|\.)deccam\.", r"\1cam_decoder."),
    (r"(^|\.)init_body_pose$", r"\1init_poses"),
    (r"(^|\.)mean_(poses|betas|cam)$", r"\1init_\2"),
)
_BESIDE = (
    "cam_model",
    "skel_model",
    "smpl_model",
    "smpl",
    "discriminator",
    "keypoint_head",
    "associate_keypoint_heads",
)


def prefix_of(state: State, kind: Kind) -> str | None:
    """What stands before the network's own names, if the file holds it; the shortest of several."""
    aliased = {_alias(name, kind) for name in state}
    ends = [name for name in aliased if name == kind.anchors[0] or name.endswith(f".{kind.anchors[0]}")]
    prefixes = sorted((name.removesuffix(kind.anchors[0]) for name in ends), key=len)
    return next((p for p in prefixes if all(p + anchor in aliased for anchor in kind.anchors)), None)


def own_names(state: State, prefix: str, kind: Kind) -> State:
    names = {_alias(name, kind): value for name, value in state.items()}
    own = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if name.partition(".")[0] not in kind.strangers}


def _alias(name: str, kind: Kind) -> str:
    for pattern, replacement in kind.aliases:
        name = re.sub(pattern, replacement, name)
    return name


def build_network(kind: Kind, found: State, path: str | PathLike[str]) -> nn.Module:
    try:
        return kind.build(found, str(path))
    except (KeyError, IndexError) as error:
        raise InputError(f"does not tell the network's size ({error})", file=path, expected=kind.says) from error


def _count(found: State, pattern: str) -> int:
    """How many numbers there are at the place of the pattern's group."""
    return len({match[1] for name in found if (match := re.match(pattern, name))})


def _backbone_name(found: State, prefix: str, path: str) -> str:
    depth, dim = _count(found, rf"{re.escape(prefix)}blocks\.(\d+)\."), found[f"{prefix}pos_embed"].shape[-1]
    for name, size in BACKBONES.items():
        if (size.depth, size.dim) == (depth, dim):
            return name
    known = ", ".join(f"{name} ({size.depth}, {size.dim})" for name, size in BACKBONES.items())
    raise InputError(f"an encoder of {depth} blocks and {dim} channels", file=path, expected=f"one of {known}")


def _layer_shapes(config: NetworkConfig, found: State, transformer: str) -> NetworkConfig:
    """Sizes of a decoder's layers, in which heads always have 64 channels."""
    layers = _count(found, rf"{re.escape(transformer)}layers\.(\d+)\.")
    if not layers:
        return replace(config, refinement_layers=0)
    inner = found[f"{transformer}layers.0.0.fn.to_qkv.weight"].shape[0] // 3
    hidden = found[f"{transformer}layers.0.2.fn.net.0.weight"].shape[0]
    return replace(config, refinement_layers=layers, heads=inner // config.head_dim, mlp_dim=hidden)


def _build_skelcf(found: State, path: str) -> nn.Module:
    config = NetworkConfig(backbone=_backbone_name(found, "backbone.", path))  # type: ignore[arg-type]
    config = _layer_shapes(config, found, "decoder.transformer.")
    config = replace(config, hidden_dim=found["decoder.poses_decoder.0.weight"].shape[0])
    if config.refinement_layers:
        config = replace(config, camera=found["decoder.to_pose_embedding.weight"].shape[1] == 147)
    return SKELCF(config)


def _build_hsmr(found: State, path: str) -> nn.Module:
    backbone = _backbone_name(found, "backbone.", path)
    config = NetworkConfig(backbone, architecture="hsmr", camera=False, coarse=False)  # type: ignore[arg-type]
    config = _layer_shapes(config, found, "head.transformer.transformer.")
    return SKELCF(replace(config, query_dim=found["head.transformer.pos_embedding"].shape[-1]))


def _build_backbone(found: State, path: str) -> nn.Module:
    return ViT(BACKBONES[_backbone_name(found, "", path)])


def _refuse_hmr2(_found: State, path: str) -> nn.Module:
    expected = "a SKEL-CF or HSMR network; hmr-skel train --initialise takes the backbone of this one"
    raise InputError("an HMR2.0 network, whose head regresses SMPL and not SKEL", file=path, expected=expected)


def _refuse_head(_found: State, path: str) -> nn.Module:
    raise InputError("an HSMR head without its backbone", file=path, expected="load_checkpoint(..., into=SKELCF)")


SKEL_CF = Kind(
    "a SKEL-CF network",
    ("decoder.poses_decoder.0.weight", "backbone.pos_embed"),
    _build_skelcf,
    strangers=_BESIDE,
)
HSMR = Kind(
    "an HSMR network",
    ("head.transformer.to_token_embedding.weight", "backbone.pos_embed"),
    _build_hsmr,
    strangers=_BESIDE,
    aliases=_HSMR_ALIASES,
)
HSMR_HEAD = Kind(
    "an HSMR head",
    ("transformer.to_token_embedding.weight", "poses_decoder.weight"),
    _refuse_head,
    aliases=_HSMR_ALIASES,
)
HMR2 = Kind(
    "an HMR2.0 network",
    ("smpl_head.transformer.to_token_embedding.weight", "backbone.pos_embed"),
    _refuse_hmr2,
)
CAMERA = Kind(
    "a focal-length network",
    ("backbone.downsample_stage_1.0.weight", "fc3.weight"),
    lambda _found, _path: FLNet(),
)
BACKBONE = Kind("a ViTPose backbone", ("pos_embed", "patch_embed.proj.weight"), _build_backbone, strangers=_BESIDE)


def difference(
    kind: Kind, found: State, own: NetworkConfig | None, module: nn.Module, path: str | PathLike[str]
) -> str:
    """In which settings a sound network of a file differs from a given one, in words; empty if it is not sound."""
    if not isinstance(module, SKELCF):
        return ""
    try:
        with torch.device("meta"):
            other = SKELCF(own) if own else build_network(kind, found, path)
    except InputError:
        return ""
    if {n: tuple(v.shape) for n, v in other.state_dict().items()} != {n: v.shape for n, v in found.items()}:
        return ""
    return settings_apart(other.config, module.config)


def settings_apart(theirs: NetworkConfig, ours: NetworkConfig) -> str:
    """`heads 2 instead of 8` and so on, of settings that decide what a network computes."""
    without = {"stochastic_depth", "checkpoint_activations"}
    if theirs.architecture == ours.architecture:
        without.add("query_dim" if ours.architecture == "skel-cf" else "hidden_dim")
    pairs = ((f.name, getattr(theirs, f.name), getattr(ours, f.name)) for f in fields(ours) if f.name not in without)
    return ", ".join(f"{name} {a} instead of {b}" for name, a, b in pairs if a != b)
