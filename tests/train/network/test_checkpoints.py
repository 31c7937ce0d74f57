"""Checkpoints of this project and of others: what loads, what is refused, and that nothing in them runs."""

from __future__ import annotations

import collections
import os
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.body.inert_pickle import read_pickle
from pipelines.files.torch_files import Inert, StoredTensor, load_tensors, read_torch_file
from schemas import InputError
from train import SKELCF, FLNet, load_checkpoint
from train.config import VARIANTS, NetworkConfig, variant
from train.network.checkpoints import has_average, read_training, save_checkpoint
from train.network.vit import ViT

SMALL = NetworkConfig(backbone="tiny", refinement_layers=2, heads=2, mlp_dim=32, hidden_dim=16, query_dim=24)


pytestmark = pytest.mark.usefixtures("one_thread", "small_backbone")


class Trap:
    """An object that, if it is ever unpickled for what it is, leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Settings(collections.OrderedDict):
    """A configuration object such as released files pickle: a container with attributes."""


def _network(config: NetworkConfig = SMALL, seed: int = 0) -> SKELCF:
    torch.manual_seed(seed)
    return SKELCF(config).eval()


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _camera_state(prefix: str = "cam_model.") -> dict[str, torch.Tensor]:
    """Names and shapes of the focal-length network; expanded zeros, which take no space in a file."""
    with torch.device("meta"):
        state = FLNet().state_dict()
    return {f"{prefix}{name}": torch.zeros((), dtype=v.dtype).expand(v.shape) for name, v in state.items()}


def _released(path: Path, model: SKELCF, ema: SKELCF, **more) -> Path:
    """A file laid out as SKEL-CF's trainer writes it."""
    settings = Settings(lr=1e-5)
    settings.owner = model.config
    state = {**model.state_dict(), **_camera_state(), "skel_model.skin_template_v": torch.zeros(3, 3)}
    average = {f"model.{name}": value for name, value in ema.state_dict().items()}
    average |= {f"model.{name}": value for name, value in _camera_state().items()}
    tree = {
        "epoch": 3,
        "model": collections.OrderedDict(state),
        "ema_model": {"initted": torch.tensor(True), "step": torch.tensor(5), **average},
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "cfg": settings,
        "rng": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        **more,
    }
    torch.save(tree, path)
    return path


# -------------------------------------------------------------------------------------------------- released files


def test_model_and_moving_average_of_a_released_file(tmp_path):
    model, ema = _network(seed=1), _network(seed=2)
    path = _released(tmp_path / "skelcf.pth", model, ema)
    loaded = load_checkpoint(path)
    assert isinstance(loaded, SKELCF)
    assert _same(loaded, model)
    assert _same(load_checkpoint(path, which="ema"), ema)
    assert not loaded.training
    assert loaded.config == SMALL.__class__(**{**vars(SMALL), "query_dim": loaded.config.query_dim})
    image, bbox = torch.randn(1, 3, 256, 256), torch.zeros(1, 3)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image, bbox).final.poses, model(image, bbox).final.poses)


def test_the_focal_length_network_inside_a_released_file_and_alone(tmp_path):
    path = _released(tmp_path / "skelcf.pth", _network(), _network())
    assert isinstance(load_checkpoint(path, which="camera"), FLNet)
    alone = tmp_path / "cam_model.ckpt"
    torch.save({"state_dict": _camera_state(""), "epoch": 1, "hyper_parameters": Settings(a=1)}, alone)
    assert load_checkpoint(alone).fc3.weight.shape == (2, 1024)
    assert load_checkpoint(alone, which="camera", into=FLNet()).fc3.weight.abs().max() == 0


def test_nothing_that_a_file_holds_is_executed(tmp_path):
    trap = tmp_path / "sprung"
    path = _released(tmp_path / "skelcf.pth", _network(), _network(), trap=Trap(trap))
    assert isinstance(load_checkpoint(path), SKELCF)
    assert not trap.exists()
    tree = read_torch_file(path)
    assert isinstance(tree["trap"], Inert)
    assert "mkdir" in tree["trap"].source
    assert tree["cfg"] == {"lr": 1e-5}  # a dictionary by inheritance is one here, without its attributes
    assert tree["epoch"] == 3
    with pytest.raises(InputError, match=r"Settings|mkdir|numpy"):
        load_tensors(tree, path)
    # Among the tensors, too, and as something that a pickle calls, changes and fills.
    torch.save({"model": {"a": Trap(trap), **_network().state_dict()}}, path)
    load_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert not trap.exists()


def test_a_vitpose_backbone_alone_and_into_a_network(tmp_path):
    backbone = _network(seed=3).backbone
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    path = tmp_path / "vitpose.pth"
    torch.save(
        {"meta": {"epoch": 210}, "state_dict": {**state, "keypoint_head.final_layer.bias": torch.ones(17)}}, path
    )
    loaded = load_checkpoint(path)
    assert isinstance(loaded, ViT)
    assert _same(loaded, backbone)
    model = _network()
    before = model.decoder.state_dict()["to_cam_embedding.weight"].clone()
    assert load_checkpoint(path, into=model) is model
    assert _same(model.backbone, backbone)
    assert torch.equal(model.decoder.to_cam_embedding.weight, before)
    # HSMR's backbone files have bare names.
    torch.save({"state_dict": backbone.state_dict()}, path)
    assert _same(load_checkpoint(path), backbone)


def test_a_backbone_out_of_a_whole_network(tmp_path):
    model = _network(seed=4)
    path = _released(tmp_path / "skelcf.pth", model, _network())
    assert _same(load_checkpoint(path, into=_network().backbone), model.backbone)


@pytest.mark.parametrize("spelling", ["hsmr", "hmr2"])
def test_hsmr_whole_and_its_head_alone(tmp_path, spelling):
    config = variant("hsmr", SMALL)[0]
    model = _network(config, seed=5)
    names = {"poses_decoder": "decpose", "betas_decoder": "decshape", "cam_decoder": "deccam"}

    def spelt(name: str) -> str:
        for ours, theirs in names.items() if spelling == "hmr2" else ():
            name = name.replace(ours, theirs)
        return name.replace("init_poses", "init_body_pose") if spelling == "hmr2" else name

    path = tmp_path / "hsmr.ckpt"
    state = {spelt(name): value for name, value in model.state_dict().items()}
    torch.save({"state_dict": {**state, "smpl.faces": torch.zeros(2)}, "pytorch-lightning_version": "2"}, path)
    loaded = load_checkpoint(path)
    assert loaded.config.architecture == "hsmr"
    assert _same(loaded, model)
    torch.save({spelt(name): value for name, value in model.head.state_dict().items()}, path)
    fresh = _network(config)
    backbone = {name: value.clone() for name, value in fresh.backbone.state_dict().items()}
    load_checkpoint(path, into=fresh)
    assert _same(fresh.head, model.head)
    assert all(torch.equal(fresh.backbone.state_dict()[name], value) for name, value in backbone.items())
    with pytest.raises(InputError, match="without its backbone"):
        load_checkpoint(path)


@pytest.mark.parametrize("wrapping", ["module.", "_orig_mod.", "module._orig_mod.", "network.model."])
def test_names_that_wrappers_put_before_a_networks_own(tmp_path, wrapping):
    model = _network(seed=6)
    path = tmp_path / "wrapped.pth"
    torch.save({"model": {f"{wrapping}{name}": value for name, value in model.state_dict().items()}}, path)
    assert _same(load_checkpoint(path), model)


@pytest.mark.parametrize("name", ["no-camera", "coarse-only"])
def test_variants_that_shapes_tell_apart(tmp_path, name):
    model = _network(variant(name, SMALL)[0])
    path = tmp_path / "variant.pth"
    torch.save({"model": model.state_dict()}, path)
    assert _same(load_checkpoint(path), model)


def test_half_precision_files_become_float32(tmp_path):
    model = _network()
    path = tmp_path / "half.pth"
    torch.save({"model": {name: value.bfloat16() for name, value in model.state_dict().items()}}, path)
    loaded = load_checkpoint(path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    # bfloat16 keeps eight bits.
    torch.testing.assert_close(loaded.backbone.pos_embed, model.backbone.pos_embed, rtol=2**-8, atol=0)


# ------------------------------------------------------------------------------------------------------ complaints


def test_missing_unexpected_and_misshapen_names_are_listed(tmp_path):
    state = _network().state_dict()
    del state["backbone.last_norm.weight"]
    state["decoder.something.weight"] = torch.zeros(3)
    state["decoder.mean_cam"] = torch.zeros(1, 4)
    path = tmp_path / "odd.pth"
    torch.save({"model": state}, path)
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    text = str(error.value)
    assert str(path) in text
    assert "1 missing: backbone.last_norm.weight" in text
    assert "1 unexpected: decoder.something.weight" in text
    assert "1 misshapen: decoder.mean_cam (1, 4) instead of (1, 3)" in text
    assert "\n" not in text


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": _network(replace(SMALL, hidden_dim=20)).state_dict()}, path)
    model, same = _network(seed=7), _network(seed=7)
    with pytest.raises(InputError, match=r"another network: hidden_dim 20 instead of 16; expected") as error:
        load_checkpoint(path, into=model)
    assert len(str(error.value)) < 200 + len(str(path))
    assert _same(model, same)


def test_a_file_of_nothing_but_a_moving_average(tmp_path):
    model, path = _network(seed=3), tmp_path / "ema.pth"
    average = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"ema_model": {"initted": torch.tensor(True), "step": torch.tensor(5), **average}}, path)
    assert _same(load_checkpoint(path), model) and _same(load_checkpoint(path, "ema"), model)
    assert has_average(path)


def test_an_hmr2_network_is_named_and_lends_its_backbone(tmp_path):
    model, path = _network(variant("hsmr", SMALL)[0], seed=5), tmp_path / "hmr2.ckpt"
    spelt = {name.replace("head.", "smpl_head.", 1): value for name, value in model.state_dict().items()}
    torch.save({"state_dict": {**spelt, "smpl.faces": torch.zeros(2)}, "pytorch-lightning_version": "1.8"}, path)
    with pytest.raises(InputError, match=r"an HMR2\.0 network, whose head regresses SMPL") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    fresh = _network()
    load_checkpoint(path, into=fresh)
    assert _same(fresh.backbone, model.backbone)


def test_a_checkpoint_says_on_whose_crops_its_network_was_taught(tmp_path):
    released, own = tmp_path / "released.pth", tmp_path / "own.pt"
    torch.save({"model": _network().state_dict()}, released)
    model = load_checkpoint(released)
    assert model.crops == "released" and _network().crops == "ours"
    save_checkpoint(own, model)
    assert load_checkpoint(own).crops == "released"
    save_checkpoint(own, _network())
    assert load_checkpoint(own).crops == "ours"
    assert load_checkpoint(released, into=_network()).crops == "ours"  # what it is then taught on


def test_long_lists_are_cut(tmp_path):
    state = _network().state_dict()
    kept = {name: value for name, value in state.items() if "transformer.layers.1" not in name}
    kept |= {f"decoder.more_{n}": torch.zeros(1) for n in range(40)}
    path = tmp_path / "odd.pth"
    torch.save({"model": kept}, path)
    with pytest.raises(InputError, match=r"40 unexpected: .* and 32 more"):
        load_checkpoint(path, into=_network())


def test_no_moving_average(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save({"model": _network().state_dict()}, path)
    with pytest.raises(InputError, match="no moving average"):
        load_checkpoint(path, which="ema")


def test_files_that_are_something_else(tmp_path):
    def complaint(content, **options) -> str:
        path = tmp_path / "file.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **options)
        with pytest.raises(InputError) as error:
            load_checkpoint(path)
        return str(error.value)

    assert "old format" in complaint(_network().state_dict(), _use_new_zipfile_serialization=False)
    assert "not a torch file" in complaint(b"hello")
    assert "not a torch file" in complaint(b"")
    assert "damaged" in complaint(b"PK\x03\x04 and then nothing")
    assert "holds a list" in complaint([1, 2])
    assert "no tensors" in complaint({"a": 1})
    assert "no network" in complaint({"a": torch.zeros(3)})
    assert "blocks" in complaint({k: v for k, v in _network().state_dict().items() if "backbone.blocks.1" not in k})
    with pytest.raises(InputError, match="cannot be opened"):
        load_checkpoint(tmp_path / "absent.pth")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match=r"data\.pkl"):
        load_checkpoint(tmp_path / "plain.zip")


def test_damage_is_found(tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"model": _network().state_dict()}, path)
    content = path.read_bytes()
    (tmp_path / "short.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path / "short.pth")
    # One flipped bit in the numbers of a tensor.
    broken = bytearray(content)
    broken[len(content) // 2] ^= 1
    (tmp_path / "broken.pth").write_bytes(broken)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path / "broken.pth")


def test_numbers_that_are_none_are_refused(tmp_path):
    state = _network().state_dict()
    state["backbone.pos_embed"] = state["backbone.pos_embed"].clone()
    state["backbone.pos_embed"][0, 0, 0] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=r"backbone\.pos_embed.*not a finite number"):
        load_checkpoint(tmp_path / "nan.pth")


def _rewritten(path: Path, target: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """A torch file with members changed by `change(name, bytes)`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_hostile_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.arange(10.0)}}, path)
    squeezed = _rewritten(path, tmp_path / "b.pth", lambda _, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        read_torch_file(squeezed)
    short = _rewritten(path, tmp_path / "c.pth", lambda name, data: data[:8] if "/data/" in name else data)
    with pytest.raises(InputError, match="too short"):
        load_tensors(read_torch_file(short), short)

    def huge(name, data):
        return data.replace(b"K\n\x85", b"J\xff\xff\xff\x7f\x85") if name.endswith("data.pkl") else data

    with pytest.raises(InputError, match=r"too short|damaged"):
        load_tensors(read_torch_file(_rewritten(path, tmp_path / "d.pth", huge)), path)
    # Attributes for what stands in the place of a function, which would outlast this file.
    poison = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + b"N}X\x08\x00\x00\x00__init__K\x01s\x86b" + b"."
    with pytest.raises(InputError, match="damaged"):
        read_torch_file(_rewritten(path, tmp_path / "e.pth", lambda n, d: poison if n.endswith("data.pkl") else d))
    assert torch.equal(load_tensors(read_torch_file(path), path)["model"]["a"], torch.arange(10.0))


def _with_pickle(path: Path, target: Path, content: bytes) -> Path:
    return _rewritten(path, target, lambda name, data: content if name.endswith("data.pkl") else data)


def test_keys_that_would_end_the_interpreter_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.arange(10.0)}}, path)
    deep = b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u."
    # Each tuple holds the one before twice: 2 ** 40 values to hash.
    doubled = b"\x80\x02}(K\x01\x85" + b"2\x86" * 40 + b"K\x01u."
    in_sets = [b"\x80\x04\x8f(" + key + b"\x90." for key in (deep[4:-4], doubled[4:-4])]
    for content in (deep, doubled, *in_sets, in_sets[0].replace(b"\x8f(", b"(").replace(b"\x90", b"\x91")):
        with pytest.raises(InputError, match="damaged"):
            read_torch_file(_with_pickle(path, tmp_path / "b.pth", content))
        (tmp_path / "skel_male.pkl").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_pickle(tmp_path / "skel_male.pkl")


def test_tuples_shared_without_end_are_not_spelled_out(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.arange(10.0)}}, path)
    doubled = b"K\x01\x85" + b"2\x86" * 40
    storage = b"(%bctorch\nFloatStorage\n%bX\x03\x00\x00\x00cpuK\x04tQ."
    word, key = b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000"
    for content in (storage % (word, doubled), storage % (doubled, key)):
        with pytest.raises(InputError, match="without a name"):
            read_torch_file(_with_pickle(path, tmp_path / "b.pth", b"\x80\x02" + content))
    for name in (b"numpy\ndtype", b"_codecs\nencode"):
        (tmp_path / "skel_male.pkl").write_bytes(b"\x80\x02c" + name + b"\n(" + doubled + b"tR.")
        with pytest.raises(InputError, match="tuple in place of a text"):
            read_pickle(tmp_path / "skel_male.pkl")
    shared = _with_pickle(path, tmp_path / "c.pth", b"\x80\x02" + doubled + b".")
    tree = load_tensors(read_torch_file(shared), shared)
    assert tree[0] is tree[1]


def test_claims_of_more_numbers_than_the_file_holds_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.zeros(1).expand(2**31), "b": torch.zeros(1).expand(2**20)}}, path)
    assert path.stat().st_size < 3000
    tree = read_torch_file(path)["model"]
    with pytest.raises(InputError, match="claim more numbers"):
        tree["a"].load()
    assert read_torch_file(path)["model"]["b"].load().shape == (2**20,)


def test_a_program_of_torchscript_is_no_checkpoint(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": _network().state_dict()}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/constants.pkl", b"")
    with pytest.raises(InputError, match="TorchScript"):
        load_checkpoint(path)


def test_files_without_checksums_load(tmp_path):
    path, model = tmp_path / "a.pth", _network(seed=9)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": model.state_dict()}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read(archive.namelist()[0])
    assert _same(load_checkpoint(path), model)


def test_dictionaries_by_inheritance_are_taken(tmp_path):
    """Lightning and others keep tensors in dictionaries of their own."""
    path, model = tmp_path / "a.ckpt", _network(seed=9)
    state = Settings(model.state_dict())
    state.owner = "anybody"
    torch.save({"state_dict": state, "hyper_parameters": collections.defaultdict(list, lr=[1])}, path)
    assert _same(load_checkpoint(path), model)
    assert read_torch_file(path)["hyper_parameters"] == {"lr": [1]}


# --------------------------------------------------------------------------------------------- reading of tensors


def test_tensors_of_every_layout_are_read_as_torch_reads_them(tmp_path):
    base = torch.arange(24.0)
    tree = {
        "view": base[3:9],
        "strided": base.view(4, 6).t()[1::2],
        "same": base,
        "again": base.view(4, 6),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "expanded": torch.ones(1).expand(3, 5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "bool": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.5], dtype=torch.float16),
        "bfloat": torch.tensor([1.5], dtype=torch.bfloat16),
        "double": [torch.tensor([1.5], dtype=torch.float64)],
        "plain": {"a": (1, 2.5, None, "text", True, b"raw"), 3: {"x"}},
        "size": torch.Size([2, 3]),
    }
    path = tmp_path / "t.pth"
    torch.save(tree, path)
    read = load_tensors({k: v for k, v in read_torch_file(path).items() if k != "plain"}, path)
    wanted = torch.load(path, weights_only=True)
    for name, value in read.items():
        if name == "size":
            assert value == (2, 3)
        elif name == "double":
            assert torch.equal(value[0], wanted[name][0])
        else:
            assert value.dtype == wanted[name].dtype
            assert torch.equal(value, wanted[name])
    plain = read_torch_file(path)["plain"]
    assert plain["a"][:5] == (1, 2.5, None, "text", True)
    assert plain[3] == {"x"}
    # Tensors that shared memory when they were written do so no more.
    read["view"].zero_()
    read["again"].zero_()
    assert torch.equal(read["same"], base)


def test_tensors_are_read_only_when_asked_for(tmp_path):
    path = tmp_path / "t.pth"
    torch.save({"a": torch.ones(4), "b": torch.zeros(4)}, path)
    tree = read_torch_file(path)
    assert isinstance(tree["a"], StoredTensor)
    assert tree["a"].shape == (4,)
    # Damage to one tensor's bytes is no matter to the other.
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.ones(4).numpy().tobytes(), torch.full((4,), 2.0).numpy().tobytes()))
    tree = read_torch_file(path)
    assert torch.equal(tree["b"].load(), torch.zeros(4))
    with pytest.raises(InputError, match="damaged tensor data"):
        tree["a"].load()


# --------------------------------------------------------------------------------------------- this project's files


@pytest.mark.parametrize("name, maps", [*((name, False) for name in VARIANTS), ("skel-cf", True)])
def test_every_variant_comes_back_with_its_configuration(tmp_path, name, maps):
    config = replace(variant(name, SMALL)[0], keypoint_maps=maps)
    model, ema = _network(config, seed=1), _network(config, seed=2)
    path = tmp_path / "own.pt"
    save_checkpoint(
        path, model, ema.state_dict(), {"step": 7, "optimizer": {"exp_avg": [torch.ones(3)], 0: (0.9, None)}}
    )
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    assert _same(loaded, model)
    assert _same(load_checkpoint(path, which="ema"), ema)
    training = read_training(path)
    assert training["step"] == 7
    assert torch.equal(training["optimizer"]["exp_avg"][0], torch.ones(3))
    assert training["optimizer"][0] == (0.9, None)


def test_an_optimiser_and_random_states_survive(tmp_path):
    model = _network().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(1, 3, 256, 256), torch.zeros(1, 3)).final.cam.sum().backward()
    optimiser.step()
    training = {"optimizer": optimiser.state_dict(), "rng": torch.get_rng_state(), "python": random.getstate()}
    save_checkpoint(tmp_path / "own.pt", model, training=training)
    back = read_training(tmp_path / "own.pt")
    assert torch.equal(back["rng"], training["rng"])
    random.setstate(back["python"])
    fresh = torch.optim.AdamW(_network().parameters(), lr=1.0)
    fresh.load_state_dict(back["optimizer"])
    assert fresh.param_groups[0]["lr"] == 1e-3
    mine, theirs = (list(o.state.values()) for o in (optimiser, fresh))
    assert all(torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in zip(mine, theirs, strict=True))


def test_compiled_and_wrapped_networks_are_saved_under_their_own_names(tmp_path):
    model = _network()
    compiled = torch.compile(model)
    average = {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "own.pt", compiled, average)
    assert _same(load_checkpoint(tmp_path / "own.pt"), model)
    assert _same(load_checkpoint(tmp_path / "own.pt", which="ema"), model)
    target = _network(seed=8)
    load_checkpoint(tmp_path / "own.pt", into=torch.compile(target))
    assert _same(target, model)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "own.pt"
    save_checkpoint(path, _network(seed=1))
    content = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, _network(seed=2))
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["own.pt"]


def test_files_of_another_version_and_settings(tmp_path):
    path = tmp_path / "own.pt"
    save_checkpoint(path, _network())
    tree = torch.load(path, weights_only=True)
    torch.save({**tree, "version": 99}, path)
    with pytest.raises(InputError, match="version 99"):
        load_checkpoint(path)
    torch.save({**tree, "config": {**tree["config"], "wings": 2}}, path)
    with pytest.raises(InputError, match="wings"):
        load_checkpoint(path)
    torch.save({**tree, "config": {**tree["config"], "heads": "many"}}, path)
    with pytest.raises(InputError, match=r"config heads.*'many'"):
        load_checkpoint(path)
    torch.save({"model": _network().state_dict()}, path)
    with pytest.raises(InputError, match="not a checkpoint of this project"):
        read_training(path)
