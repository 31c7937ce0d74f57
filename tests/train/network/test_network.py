"""The networks: agreement with the released ones, and what holds for every variant."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from seeded_weights import MEAN_BETAS, MEAN_CAM, MEAN_POSES, REFERENCE, names_of, released_names, seeded_state

from fitting import SKEL
from schemas import InputError
from train import SKELCF, FLNet
from train.config import BACKBONES, VARIANTS, BackboneSize, NetworkConfig, variant
from train.network.camera import focal_length
from train.network.flnet import whole_image
from train.network.model import forward_flops
from train.network.pose_representation import poses_to_representation
from train.network.vit import PatchEmbedding, ViT

TINY = NetworkConfig(backbone="tiny", heads=2, head_dim=16, mlp_dim=64, hidden_dim=32, query_dim=48)


pytestmark = pytest.mark.usefixtures("one_thread", "small_backbone")


def _inputs(count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    image = torch.randn((count, 3, 256, 256), generator=g)
    return image, torch.randn((count, 3), generator=g) * 0.3


def _network(config: NetworkConfig = TINY, seed: int = 0) -> SKELCF:
    """With outputs of the size that a trained network has: at the start residuals are nearly zero."""
    torch.manual_seed(seed)
    model = SKELCF(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("_decoder.2.weight", "_decoder.weight")):
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def _flat(output) -> torch.Tensor:
    return torch.cat([torch.cat([e.poses_6d.flatten(1), e.betas, e.cam], 1) for e in output.layers or [output.coarse]])


def _agree(found: torch.Tensor, golden: np.ndarray) -> None:
    """To 1e-4 of the largest value."""
    golden = torch.from_numpy(golden)
    assert found.shape == golden.shape
    assert (found - golden).abs().max() <= 1e-4 * golden.abs().max()


# ------------------------------------------------------------------------------------------ the released networks


def test_skelcf_with_vit_b_computes_the_released_numbers():
    model = SKELCF(NetworkConfig(backbone="b")).eval()
    state = seeded_state(model.state_dict())
    state["decoder.mean_poses"] = poses_to_representation(torch.tensor(MEAN_POSES)).reshape(1, 144)
    state["decoder.mean_betas"], state["decoder.mean_cam"] = torch.tensor([MEAN_BETAS]), torch.tensor([MEAN_CAM])
    model.load_state_dict(state)
    image, bbox = _inputs()
    with torch.no_grad(), np.load(REFERENCE / "golden_skelcf_vitb.npz") as golden:
        tokens = model.backbone(image[..., 32:224])
        _agree(tokens[:, ::16, ::64], golden["tokens"])
        out = model(image, bbox)
        for name in ("poses", "betas", "cam"):
            _agree(getattr(out.coarse, name), golden[f"pd_enc_{name}"])
            _agree(getattr(out.final, name), golden[f"pd_dec_{name}"])
        assert len(out.layers) == 6
        for n, layer in enumerate(out.layers):
            _agree(layer.poses_6d.flatten(1), golden[f"layer/pd_poses_{n}"])
            _agree(layer.betas, golden[f"layer/pd_betas_{n}"])
            _agree(layer.cam, golden[f"layer/pd_cam_{n}"])


def test_focal_length_network_computes_the_released_numbers():
    model = FLNet().eval()
    model.load_state_dict(seeded_state(model.state_dict(), "cam_model."))
    image = torch.randn((2, 3, 256, 256), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), np.load(REFERENCE / "golden_flnet.npz") as golden:
        out = model(image)
        _agree(out.features[:, ::9], golden["features"])
        _agree(out.cam, golden["cam"])
    assert torch.equal(out.vertical, out.cam[:, 1])


@pytest.mark.parametrize("size", ["b", "h"])
def test_names_and_shapes_are_those_of_the_released_networks(size):
    with torch.device("meta"):
        model = SKELCF(NetworkConfig(backbone=size))
    assert names_of(model.state_dict()) == released_names(f"state_dict_skelcf_vit{size}.tsv")


def test_names_and_shapes_of_the_focal_length_network():
    with torch.device("meta"):
        model = FLNet()
    assert names_of(model.state_dict()) == released_names("state_dict_flnet.tsv", "cam_model.")


# ------------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_all_of_its_parameters(name):
    config, _ = variant(name, TINY)
    model = _network(config).train()
    output = model(*_inputs())
    assert output.final.poses.shape == (2, 46)
    assert output.final.betas.shape == (2, 10)
    assert output.final.cam.shape == (2, 3)
    coarse = output.coarse.poses_6d.square().mean() if output.coarse else 0.0
    (_flat(output).square().mean() + coarse).backward()
    assert all(p.grad is not None for p in model.parameters())
    idle = [n for n, p in model.named_parameters() if not p.grad.abs().max() > 0]
    # HSMR's query is the number zero, as HMR2.0's was: its weight is there and does nothing.
    assert idle == (["head.transformer.to_token_embedding.weight"] if name == "hsmr" else [])


def test_what_each_variant_has():
    def output(name):
        return _network(variant(name, TINY)[0])(*_inputs())

    assert len(output("skel-cf").layers) == 6
    assert output("skel-cf").coarse is not None
    assert output("no-coarse").coarse is None
    assert output("no-refinement").coarse is not None and len(output("no-refinement").layers) == 1
    assert output("coarse-only").layers == ()
    assert output("hsmr").coarse is None
    assert len(output("hsmr").layers) == 1
    assert len(output("looped").layers) == 6
    assert variant("full-supervision")[1].layer_supervision == "full"


def test_only_variants_with_camera_look_at_the_box():
    image, bbox = _inputs()
    for name, looks in (("skel-cf", True), ("no-coarse", True), ("no-camera", False), ("hsmr", False)):
        model = _network(variant(name, TINY)[0]).eval()
        with torch.no_grad():
            assert torch.equal(_flat(model(image, bbox)), _flat(model(image, bbox + 0.1))) is not looks
            # The coarse heads see the image alone.
            if looks and name == "skel-cf":
                assert torch.equal(model(image, bbox).coarse.cam, model(image, bbox + 0.1).coarse.cam)


def test_a_looped_layer_is_six_layers_of_equal_weights():
    looped, unrolled = _network(replace(TINY, looped=True)).eval(), _network(TINY, seed=1).eval()
    state = looped.state_dict()
    first = "decoder.transformer.layers.0."
    for n in range(1, 6):
        copies = {k.replace(first, f"decoder.transformer.layers.{n}."): v for k, v in state.items() if first in k}
        state = state | copies
    unrolled.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(_flat(looped(*_inputs())), _flat(unrolled(*_inputs())))


def test_without_coarse_heads_the_refinement_starts_from_the_mean():
    model = _network(replace(TINY, coarse=False)).eval()
    for head in (model.decoder.poses_decoder, model.decoder.betas_decoder, model.decoder.cam_decoder):
        torch.nn.init.zeros_(head[2].weight)
    with torch.no_grad():
        final = model(*_inputs()).final
    torch.testing.assert_close(final.poses_6d.flatten(1), model.decoder.mean_poses.expand(2, -1))


def test_unknown_settings_are_named():
    with pytest.raises(InputError, match=r"backbone.*'x'.*tiny or movenet or s or b"):
        NetworkConfig(backbone="x")
    with pytest.raises(InputError, match="no-camera"):
        variant("nothing")
    with pytest.raises(InputError, match="coarse"):
        NetworkConfig(coarse=False, refinement_layers=0)


@pytest.mark.parametrize("name, prefix", [("skel-cf", "decoder.mean"), ("hsmr", "head.init")])
def test_fresh_networks_start_from_the_published_means(name, prefix):
    network = SKELCF(variant(name, TINY)[0]).eval()
    state = network.state_dict()
    poses = poses_to_representation(torch.tensor(MEAN_POSES))
    torch.testing.assert_close(state[f"{prefix}_poses"], poses.reshape(1, 144))
    torch.testing.assert_close(state[f"{prefix}_betas"], torch.tensor([MEAN_BETAS]))
    torch.testing.assert_close(state[f"{prefix}_cam"], torch.tensor([MEAN_CAM]))
    with torch.no_grad():
        final = network(*_inputs()).final
    # The pelvis' angle of pi may come out as -pi.
    assert (final.poses - torch.tensor(MEAN_POSES)).sin().abs().max() < 0.3
    assert (final.cam - torch.tensor(MEAN_CAM)).abs().max() < 0.3


def test_the_mean_person_stands_upright_and_faces_the_camera():
    skel = SKEL.demo()
    joints = skel(torch.tensor([MEAN_POSES]), torch.zeros(1, 10), torch.zeros(1, 3)).joints[0]
    head, pelvis, ankle, toes = (joints[n] for n in (13, 0, 3, 5))
    assert head[1] < pelvis[1] - 0.4 and ankle[1] > pelvis[1] + 0.6  # y points down
    assert toes[2] < ankle[2] - 0.05  # z points away from the camera


def test_without_refinement_there_is_one_residual_after_six_layers():
    """Table 4's row: camera and coarse heads stay; tokens are made once, the heads add to the coarse estimate once."""
    model = _network(variant("no-refinement", replace(TINY, refinement_layers=6))[0]).eval()
    image, bbox = _inputs()
    with torch.no_grad():
        found = model(image, bbox)
        decoder, tokens = model.decoder, model.backbone(image[..., 32:224])
        x = decoder.embed(found.coarse, bbox) + decoder.transformer.pos_embedding
        for n in range(6):
            x = decoder.transformer.layer(n, x, tokens)
        added = (decoder.poses_decoder(x[:, 0]), decoder.betas_decoder(x[:, 1]), decoder.cam_decoder(x[:, 2]))
        expected = found.coarse.add(*added)
    assert len(found.layers) == 1
    for value, wanted in zip(found.final, expected, strict=True):
        torch.testing.assert_close(value, wanted)
    assert names_of(model.state_dict()) == names_of(SKELCF(replace(TINY, refinement_layers=6)).state_dict())


# --------------------------------------------------------------------------- precision, memory, speed and chance


def test_autocast_gives_float32_parameters_near_those_of_float32():
    model = _network().train()
    image, bbox = _inputs()
    exact = _flat(model(image, bbox))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image, bbox)
    rough = _flat(output)
    assert output.final.poses_6d.dtype == output.coarse.betas.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1
    assert not torch.equal(rough, exact)
    rough.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_checkpointed_activations_change_no_gradient():
    gradients = []
    for keep in (False, True):
        model = _network(replace(TINY, checkpoint_activations=keep, stochastic_depth=0.5)).train()
        torch.manual_seed(3)
        _flat(model(*_inputs())).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_stochastic_depth_skips_whole_samples_in_training_only():
    size = BackboneSize(depth=2, dim=32, heads=2, stochastic_depth=0.5)
    torch.manual_seed(0)
    encoder = ViT(size)
    image = torch.randn(1, 3, 256, 192).expand(64, -1, -1, -1)
    with torch.no_grad():
        even = encoder.eval()(image)
        drawn = encoder.train()(image)
    assert (even - even[:1]).abs().max() < 1e-5
    # Only the second block skips, each of its two branches or not: four results.
    assert len(torch.unique(drawn[:, 0].mul(1e3).round(), dim=0)) == 4


@pytest.mark.parametrize("stem", [(), (8, 16, 32)])
def test_tokens_come_row_by_row_from_their_patches(stem):
    torch.manual_seed(0)
    embed = PatchEmbedding(32, stem)
    image = torch.zeros(1, 3, 256, 192)
    row, column = 5, 7
    image[:, :, 16 * row : 16 * row + 10, 16 * column : 16 * column + 10] = 3.0
    with torch.no_grad():
        changed = (embed(image) - embed(torch.zeros_like(image)))[0].norm(dim=-1)
    assert changed.shape == (192,)
    assert changed.argmax() == 12 * row + column


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["skel-cf", "hsmr"])
def test_compiles_as_one_graph(name, training, monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", BackboneSize(2, 48, 3, 0.0, stem=(8, 16, 24)))
    model = _network(replace(variant(name, TINY)[0], refinement_layers=2, keypoint_maps=True)).train(training)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    output = compiled(*_inputs())
    again = model(*_inputs())
    torch.testing.assert_close(_flat(output), _flat(again))
    torch.testing.assert_close(output.maps, again.maps)
    _flat(output).square().mean().backward()


def test_columns_beside_the_person_do_not_matter():
    model = _network().eval()
    image, bbox = _inputs()
    other = image.clone()
    other[..., :32], other[..., 224:] = 7.0, -7.0
    with torch.no_grad():
        assert torch.equal(_flat(model(image, bbox)), _flat(model(other, bbox)))
        other[..., 32] += 1
        assert not torch.equal(_flat(model(image, bbox)), _flat(model(other, bbox)))


@pytest.mark.parametrize("name", ["b", "h"])
def test_operations_of_a_forward_pass_are_those_of_its_matrix_products(name):
    size, tokens, inner = BACKBONES[name], 192, 8 * 64
    d = size.dim
    encoder = tokens * 768 * d + size.depth * (tokens * 12 * d * d + 2 * tokens * tokens * d)
    layer = 3 * d * 4 * inner + 2 * 3 * 3 * inner  # self-attention of the three queries
    layer += 3 * d * inner + tokens * d * 2 * inner + 2 * 3 * tokens * inner + 3 * inner * d  # their look at the image
    layer += 2 * 3 * d * 1024 + (147 + 13 + 6) * d  # feed-forward, and the tokens made again
    heads = 3 * d * 256 + (144 + 10 + 3) * 256
    assert forward_flops(NetworkConfig(name)) == 2 * (encoder + 6 * layer + 7 * heads)


# ------------------------------------------------------------------------------------------------ whole photographs


def test_a_whole_photograph_is_centred_and_keeps_its_proportions():
    photograph = np.zeros((300, 600, 3), np.uint8)
    photograph[:, :, 0] = 255
    image = whole_image(photograph)
    assert image.shape == (3, 256, 256)
    pixels = image * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = (pixels + torch.tensor([0.485, 0.456, 0.406])[:, None, None]) * 255
    torch.testing.assert_close(pixels[:, 128, 128], torch.tensor([255.0, 0.0, 0.0]), rtol=0, atol=1e-3)
    assert pixels[1, :64].min() > 254
    assert pixels[1, 64:192].abs().max() < 1e-3
    assert pixels[1, 192:].min() > 254


def test_focal_length_of_a_field_of_view():
    # Half the height is seen under half the angle.
    focal = focal_length(torch.tensor([math.pi / 2]), torch.tensor([480.0]))
    torch.testing.assert_close(focal, torch.tensor([240.0]))
    for impossible in (0.0, -0.5, 3.5, math.nan):
        with pytest.raises(InputError, match="a vertical field of view of"):
            focal_length(torch.tensor([1.0, impossible]), torch.tensor([480.0, 480.0]))
