"""Checkpoints: this project's, and those released for SKEL-CF, HSMR, ViTPose and CameraHMR.

Only tensors are read (`torch_files`); what a file is, and how large its network, is told from names and shapes.
Names and shapes must fit exactly, and an error lists those that do not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipelines.files.storage import published
from schemas import InputError
from train.config import BACKBONES, NetworkConfig, config_from_dict, config_to_dict
from train.network.flnet import FLNet
from train.network.model import SKELCF
from train.network.torch_files import Inert, StoredTensor, load_tensors, read_torch_file
from train.network.vit import ViT

FORMAT, VERSION = "hmr-skel checkpoint", 1

Which = Literal["model", "ema", "camera"]
State = dict[str, StoredTensor]

_SHOWN = 8
"""Names that an error lists of each kind."""


@dataclass(frozen=True)
class _Kind:
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


def load_checkpoint(
    path: str | PathLike[str], which: Which = "model", into: nn.Module | None = None, device: str = "cpu"
) -> nn.Module:
    """The network that a file holds, in evaluation mode; or `into`, with its parameters replaced.

    `which` is "model", "ema" (the moving average of this project's and SKEL-CF's files) or "camera" (the focal-length
    network, alone or inside a SKEL-CF file). Without `into`, SKEL-CF and HSMR files give a SKELCF, ViTPose backbones a
    ViT, camera files an FLNet; an HSMR head alone needs `into`. With `into`, whatever of it the file holds is loaded:
    all of a SKELCF, or its backbone or head alone if the file has no more; a ViT or FLNet from any file that holds one.

    Raises InputError for files that cannot be read safely, that hold no such network, and for names that are missing,
    unexpected or of another shape.
    """
    if which not in ("model", "ema", "camera"):
        raise InputError(f"which={which!r}", expected="model, ema or camera")
    tree = _dictionary(path)
    state, own_config = _state(tree, which, path)
    for kind, target in _candidates(which, into):
        prefix = _prefix(state, kind)
        if prefix is None:
            continue
        found = _own_names(state, prefix, kind)
        if target is None:
            with torch.device("meta"):
                built = SKELCF(own_config) if own_config else _build(kind, found, path)
            _fill(built, found, kind, path, assign=True)
            return built.to(device).eval()
        _fill(target, found, kind, path, assign=False)
        return into
    names = ", ".join(list(state)[:_SHOWN])
    wanted = " or ".join(kind.says for kind, _ in _candidates(which, into))
    raise InputError(
        f"holds no network that can be loaded here; its tensors are {names}, ...", file=path, expected=wanted
    )


def save_checkpoint(
    path: str | PathLike[str],
    model: nn.Module,
    ema: Mapping[str, Tensor] | None = None,
    training: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint of a SKELCF, whole or not at all.

    `ema` is the moving average's state_dict. `training` is whatever a trainer needs to go on: tensors and plain Python
    values in dicts, lists and tuples. Both modules wrapped for DDP and compiled ones are taken.
    """
    path, network = Path(path), unwrapped(model)
    tree: dict[str, Any] = {"format": FORMAT, "version": VERSION, "config": config_to_dict(network.config)}
    tree["model"] = dict(network.state_dict())
    if ema is not None:
        # As the released files spell it, so that the released code can read this one.
        tree["ema_model"] = {f"model.{name}": value for name, value in _plain_names(ema).items()}
    tree["training"] = training or {}
    with published(path) as hidden, open(hidden, "wb") as file:  # given a name, torch would write it into the file
        torch.save(tree, file)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_training(path: str | PathLike[str]) -> dict[str, Any]:
    """What `save_checkpoint` was given as `training`. Raises InputError for other files than this project's."""
    tree = _dictionary(path)
    if tree.get("format") != FORMAT:
        raise InputError("not a checkpoint of this project", file=path, expected=f"format {FORMAT!r}")
    return load_tensors(tree.get("training", {}), path)


def is_released(path: str | PathLike[str]) -> bool:
    """Whether a checkpoint is of another project: its network was taught on crops cut as the released code does."""
    return _dictionary(path).get("format") != FORMAT


def run_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that a training run wrote into its output folder, the newest last."""
    return sorted(folder.glob("checkpoint-????????.pt"))


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside those of DDP and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            return model
        model = inner


# --------------------------------------------------------------------------------- where the tensors of a file are


def _dictionary(path: str | PathLike[str]) -> dict[str, Any]:
    tree = read_torch_file(path)
    if not isinstance(tree, dict):
        raise InputError(f"holds a {type(tree).__name__}", file=path, expected="a dictionary of tensors")
    return tree


def _state(tree: dict[str, Any], which: str, path: str | PathLike[str]) -> tuple[State, NetworkConfig | None]:
    """The named tensors that are asked for, and the network's configuration if the file is this project's."""
    config = None
    if tree.get("format") == FORMAT:
        if tree.get("version") != VERSION:
            raise InputError(f"version {tree.get('version')!r}", file=path, field="version", expected=repr(VERSION))
        settings = tree.get("config")
        config = config_from_dict(settings if isinstance(settings, dict) else {}, path)
    if which == "ema":
        if not isinstance(tree.get("ema_model"), dict):
            raise InputError("no moving average", file=path, field="ema_model", expected="which='model' for this file")
        inner = {name: value for name, value in tree["ema_model"].items() if str(name).startswith("model.")}
        return _tensors(inner or tree["ema_model"]), config
    if which == "camera":
        # It lies among a SKEL-CF network's tensors, or is all there is.
        groups = {str(key): value for key, value in tree.items() if isinstance(value, dict)}
        nested = {f"{key}.{name}": value for key, group in groups.items() for name, value in group.items()}
        return _tensors(tree | nested), config
    for key in ("model", "state_dict"):
        if isinstance(tree.get(key), dict):
            return _tensors(tree[key]), config
    state = _tensors(tree)
    if not state:
        inert = ", ".join(sorted({v.source for v in tree.values() if isinstance(v, Inert)}))
        held = f"keys {', '.join(map(str, tree))}" + (f" and objects of {inert}" if inert else "")
        raise InputError(f"no tensors; {held}", file=path, expected="tensors under model or state_dict")
    return state, config


def _tensors(tree: dict[str, Any]) -> State:
    return {name: value for name, value in _plain_names(tree).items() if isinstance(value, StoredTensor)}


def _plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).replace("_orig_mod.", ""): value for name, value in state.items()}


def _candidates(which: str, into: nn.Module | None) -> list[tuple[_Kind, nn.Module | None]]:
    """What to look for, and the module that takes it, the most comprehensive first."""
    into = into if into is None else unwrapped(into)
    if which == "camera" or isinstance(into, FLNet):
        return [(_CAMERA, into)]
    if into is None:
        return [(kind, None) for kind in (_SKELCF, _HSMR, _CAMERA, _HSMR_HEAD, _BACKBONE)]
    if isinstance(into, ViT):
        return [(_BACKBONE, into)]
    if isinstance(into, SKELCF):
        if into.config.architecture == "hsmr":
            return [(_HSMR, into), (_HSMR_HEAD, into.head), (_BACKBONE, into.backbone)]
        return [(_SKELCF, into), (_BACKBONE, into.backbone)]
    raise InputError(f"a {type(into).__name__} takes no checkpoint", expected="a SKELCF, ViT or FLNet")


def _prefix(state: State, kind: _Kind) -> str | None:
    """What stands before the network's own names, if the file holds it; the shortest of several."""
    aliased = {_alias(name, kind) for name in state}
    ends = [name for name in aliased if name == kind.anchors[0] or name.endswith(f".{kind.anchors[0]}")]
    prefixes = sorted((name.removesuffix(kind.anchors[0]) for name in ends), key=len)
    return next((p for p in prefixes if all(p + anchor in aliased for anchor in kind.anchors)), None)


def _own_names(state: State, prefix: str, kind: _Kind) -> State:
    names = {_alias(name, kind): value for name, value in state.items()}
    own = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if name.partition(".")[0] not in kind.strangers}


def _alias(name: str, kind: _Kind) -> str:
    for pattern, replacement in kind.aliases:
        name = re.sub(pattern, replacement, name)
    return name


def _fill(module: nn.Module, found: State, kind: _Kind, path: str | PathLike[str], assign: bool) -> None:
    """Give a module the file's tensors, after their names and shapes have been compared with its own."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing = [name for name in own if name not in found]
    unexpected = [name for name in found if name not in own]
    misshapen = [
        f"{name} {found[name].shape} instead of {shape}"
        for name, shape in own.items()
        if name in found and found[name].shape != shape
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    problems = [f"{len(names)} {what}: {_listed(names)}" for what, names in groups if names]
    if problems:
        raise InputError(f"does not fit the network: {'; '.join(problems)}", file=path, expected=kind.says)
    targets = module.state_dict()
    loaded = {}
    for name, stored in found.items():
        tensor = stored.load()
        wanted = torch.float32 if targets[name].is_floating_point() else targets[name].dtype
        loaded[name] = tensor.to(wanted)
        if not torch.isfinite(loaded[name]).all():
            raise InputError("not a finite number", file=path, field=name)
    module.load_state_dict(loaded, assign=assign)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# ------------------------------------------------------------------------------- how large a network is, by shapes


def _build(kind: _Kind, found: State, path: str | PathLike[str]) -> nn.Module:
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


def _refuse_head(_found: State, path: str) -> nn.Module:
    raise InputError("an HSMR head without its backbone", file=path, expected="load_checkpoint(..., into=SKELCF)")


_SKELCF = _Kind(
    "a SKEL-CF network",
    ("decoder.poses_decoder.0.weight", "backbone.pos_embed"),
    _build_skelcf,
    strangers=_BESIDE,
)
_HSMR = _Kind(
    "an HSMR network",
    ("head.transformer.to_token_embedding.weight", "backbone.pos_embed"),
    _build_hsmr,
    strangers=_BESIDE,
    aliases=_HSMR_ALIASES,
)
_HSMR_HEAD = _Kind(
    "an HSMR head",
    ("transformer.to_token_embedding.weight", "poses_decoder.weight"),
    _refuse_head,
    aliases=_HSMR_ALIASES,
)
_CAMERA = _Kind(
    "a focal-length network",
    ("backbone.downsample_stage_1.0.weight", "fc3.weight"),
    lambda _found, _path: FLNet(),
)
_BACKBONE = _Kind("a ViTPose backbone", ("pos_embed", "patch_embed.proj.weight"), _build_backbone, strangers=_BESIDE)
