"""Checkpoints: this project's, and those released for SKEL-CF, HSMR, ViTPose and CameraHMR.

Only tensors are read (`torch_files`); what a file is, and how large its network, is told from names and shapes.
Names and shapes must fit exactly, and an error lists those that do not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipelines.files.storage import published
from pipelines.files.torch_files import Inert, StoredTensor, load_tensors, read_torch_file
from schemas import InputError
from train.config import NetworkConfig, config_from_dict, config_to_dict
from train.network.flnet import FLNet
from train.network.kinds import (
    BACKBONE,
    CAMERA,
    HMR2,
    HSMR,
    HSMR_HEAD,
    SKEL_CF,
    Kind,
    State,
    build_network,
    difference,
    own_names,
    prefix_of,
)
from train.network.model import SKELCF
from train.network.vit import ViT

FORMAT, VERSION = "hmr-skel checkpoint", 1

Which = Literal["model", "ema", "camera"]

_SHOWN = 8
"""Names that an error lists of each kind."""


def load_checkpoint(
    path: str | PathLike[str], which: Which = "model", into: nn.Module | None = None, device: str = "cpu"
) -> nn.Module:
    """The network that a file holds, in evaluation mode; or `into`, with its parameters replaced.

    `which` is "model", "ema" (the moving average of this project's and SKEL-CF's files; "model" gives it, too, where a
    file has nothing else) or "camera" (the focal-length network, alone or inside a SKEL-CF file). Without `into`,
    SKEL-CF and HSMR files give a SKELCF, ViTPose backbones a ViT, camera files an FLNet; an HSMR head needs `into`.
    With `into`, whatever of it the file holds is loaded: all of a SKELCF, or its backbone or head alone if the file
    has no more; a ViT or FLNet from any file that holds one.

    Raises InputError for files that cannot be read safely, that hold no such network, and for names that are missing,
    unexpected or of another shape.
    """
    if which not in ("model", "ema", "camera"):
        raise InputError(f"which={which!r}", expected="model, ema or camera")
    tree = _dictionary(path)
    state, own_config = _state(tree, which, path)
    for kind, target in _candidates(which, into):
        prefix = prefix_of(state, kind)
        if prefix is None:
            continue
        found = own_names(state, prefix, kind)
        if target is None:
            with torch.device("meta"):
                built = SKELCF(own_config) if own_config else build_network(kind, found, path)
            _fill(built, found, kind, path, assign=True)
            if isinstance(built, SKELCF):
                built.crops = _crops(tree)
            return built.to(device).eval()
        if apart := difference(kind, found, own_config, target, path):
            _refuse_another(found, target, apart, path)
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
    tree["origin"] = {"crops": network.crops}
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
    return load_tensors(_of_this_project(path).get("training", {}), path)


def saved_config(path: str | PathLike[str]) -> NetworkConfig:
    """The network's settings in a checkpoint of this project. Raises InputError for others."""
    settings = _of_this_project(path).get("config")
    return config_from_dict(settings if isinstance(settings, dict) else {}, path)


def has_average(path: str | PathLike[str]) -> bool:
    """Whether a file holds a moving average."""
    return isinstance(_dictionary(path).get("ema_model"), dict)


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


def _of_this_project(path: str | PathLike[str]) -> dict[str, Any]:
    tree = _dictionary(path)
    if tree.get("format") != FORMAT:
        raise InputError("not a checkpoint of this project", file=path, expected=f"format {FORMAT!r}")
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
        return _average(tree["ema_model"]), config
    if which == "camera":
        # It lies among a SKEL-CF network's tensors, or is all there is.
        groups = {str(key): value for key, value in tree.items() if isinstance(value, dict)}
        nested = {f"{key}.{name}": value for key, group in groups.items() for name, value in group.items()}
        return _tensors(tree | nested), config
    for key in ("model", "state_dict"):
        if isinstance(tree.get(key), dict):
            return _tensors(tree[key]), config
    if isinstance(tree.get("ema_model"), dict):
        return _average(tree["ema_model"]), config
    state = _tensors(tree)
    if not state:
        inert = ", ".join(sorted({v.source for v in tree.values() if isinstance(v, Inert)}))
        held = f"keys {', '.join(map(str, tree))}" + (f" and objects of {inert}" if inert else "")
        raise InputError(f"no tensors; {held}", file=path, expected="tensors under model or state_dict")
    return state, config


def _average(tree: dict[str, Any]) -> State:
    """A moving average's tensors, without its own counters."""
    return _tensors({name: value for name, value in tree.items() if str(name).startswith("model.")} or tree)


def _crops(tree: dict[str, Any]) -> Literal["released", "ours"]:
    """Whose crops the network of a file was taught on: what the file says, or its format."""
    origin = tree.get("origin")
    said = origin.get("crops") if isinstance(origin, dict) else None
    return "ours" if tree.get("format") == FORMAT and said != "released" else "released"


def _tensors(tree: dict[str, Any]) -> State:
    return {name: value for name, value in _plain_names(tree).items() if isinstance(value, StoredTensor)}


def _plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).replace("_orig_mod.", ""): value for name, value in state.items()}


def _candidates(which: str, into: nn.Module | None) -> list[tuple[Kind, nn.Module | None]]:
    """What to look for, and the module that takes it, the most comprehensive first."""
    into = into if into is None else unwrapped(into)
    if which == "camera" or isinstance(into, FLNet):
        return [(CAMERA, into)]
    if into is None:
        return [(kind, None) for kind in (SKEL_CF, HSMR, HMR2, CAMERA, HSMR_HEAD, BACKBONE)]
    if isinstance(into, ViT):
        return [(BACKBONE, into)]
    if isinstance(into, SKELCF):
        if into.config.architecture == "hsmr":
            return [(HSMR, into), (HSMR_HEAD, into.head), (BACKBONE, into.backbone)]
        return [(SKEL_CF, into), (BACKBONE, into.backbone)]
    raise InputError(f"a {type(into).__name__} takes no checkpoint", expected="a SKELCF, ViT or FLNet")


def _refuse_another(found: State, module: nn.Module, apart: str, path: str | PathLike[str]) -> None:
    """Raises InputError if the tensors of a network with other settings have other names or shapes."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if own != {name: value.shape for name, value in found.items()}:
        raise InputError(f"another network: {apart}", file=path, expected="one with the same settings")


def _fill(module: nn.Module, found: State, kind: Kind, path: str | PathLike[str], assign: bool) -> None:
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
