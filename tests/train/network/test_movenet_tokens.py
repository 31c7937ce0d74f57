"""MoveNet as an encoder, and what the keypoints' maps tell every token."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from train.config import IMAGE_MEAN, IMAGE_STD, VARIANTS, NetworkConfig, variant
from train.network.checkpoints import load_checkpoint, save_checkpoint
from train.network.keypoint_summary import KeypointSummary
from train.network.model import SKELCF, forward_flops
from train.network.movenet import movenet
from train.network.movenet_tokens import MoveNetTokens
from train.options import TrainOptions
from train.run.state import first_network, optimiser_of, set_learning_rate, update_average

SMALL = NetworkConfig(
    backbone="movenet",
    refinement_layers=1,
    heads=1,
    head_dim=8,
    mlp_dim=16,
    hidden_dim=16,
    keypoint_summary=True,
)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Of (B, 3, H, W), 0 to 255."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGE_MEAN, IMAGE_STD))
    return (pixels / 255 - mean) / std


def test_features_are_those_of_the_detector_at_half_the_size():
    small = torch.randint(0, 256, (1, 3, 128, 96), generator=torch.Generator().manual_seed(0)).float()
    crop = normalised(small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    found = MoveNetTokens(32).features(crop)
    heat = movenet()(small)["heatmap"]
    # Of each token's four cells, row by row, after the pyramid's 24 channels.
    cells = found[:, 96 : 96 + 68].unflatten(1, (17, 2, 2))
    for row, column in ((0, 0), (5, 7), (15, 11)):
        mine = cells[0, :, :, :, row, column]
        theirs = heat[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_tokens_are_of_the_features_row_by_row():
    torch.manual_seed(0)
    tokens, image = MoveNetTokens(32), torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        features, found = tokens.features(image), tokens(image)
        assert features.shape == (1, 836, 16, 12) and found.shape == (1, 192, 32)
        for row, column in ((0, 0), (5, 7), (15, 11)):
            one = (features[0, :, row, column] - tokens.mean) / tokens.deviation
            torch.testing.assert_close(found[0, 12 * row + column], tokens.proj(one[:, None, None])[:, 0, 0])


def test_features_of_people_are_about_one_large_channel_by_channel():
    golden = Path(__file__).parents[1] / "predict" / "detect" / "movenet_golden.npz"
    with np.load(golden) as stored:
        picture = torch.from_numpy(stored["picture"]).float().permute(2, 0, 1)[None, :, :256, :192]
    tokens = MoveNetTokens(8)
    with torch.no_grad():
        scaled = (tokens.features(normalised(picture)) - tokens.mean[:, None, None]) / tokens.deviation[:, None, None]
    sizes = scaled.square().mean((0, 2, 3)).sqrt()
    assert 0.5 < sizes.median() < 2 and sizes.quantile(0.95) < 4


@pytest.mark.parametrize("encoder_rate", [0.1, 0.0])
def test_a_step_trains_movenets_later_layers_at_their_rate_and_the_rest_at_its_own(encoder_rate):
    model = first_network(TrainOptions(network=SMALL, encoder_rate=encoder_rate), torch.device("cpu")).train()
    average, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    # Without decay, AdamW's first step is the learning rate wherever the gradient is not next to nothing.
    optimiser = optimiser_of(model, 1e-2, 0.0, encoder_rate)
    set_learning_rate(optimiser, 1e-3)
    output = model(torch.randn(2, 3, 256, 256), torch.zeros(2, 3))
    loss = output.maps.square().mean() + sum(value.square().sum() for value in (*output.coarse, *output.final))
    (1e3 * loss).backward()
    optimiser.step()
    update_average(average, model, 0.5)
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.state_dict().items()}
    for name, value in model.named_parameters():
        expected = before[name] if moved[name] == 0 else (before[name] + value) / 2
        torch.testing.assert_close(average.state_dict()[name], expected)
        if ".movenet." not in name:
            assert moved[name] == pytest.approx(1e-3, rel=0.01), name
    encoder = {name.split(".movenet.")[1]: most for name, most in moved.items() if ".movenet." in name}
    later = ("blocks.5.", "blocks.10.", "blocks.15.", "last.", "top.", "laterals.0.", "merges.0.", "heads.heatmap.")
    trained = {name for name, most in encoder.items() if most}
    if encoder_rate == 0:
        assert not trained
    else:
        assert {prefix for prefix in later if any(name.startswith(prefix) for name in trained)} == set(later)
        assert max(encoder.values()) == pytest.approx(encoder_rate * 1e-3, rel=0.01)
    first = (
        "stem.",
        "first",
        *(f"blocks.{n}." for n in range(5)),
        "heads.center",
        "heads.box",
        "heads.reg",
        "heads.off",
    )
    assert not any(name.startswith(first) for name in trained)
    google = movenet().state_dict()
    assert all(torch.equal(before[f"backbone.patch_embed.movenet.{name}"], google[name]) for name in google)


def test_a_checkpoint_comes_back_whole(tmp_path):
    model = SKELCF(SMALL).eval()
    nn.init.normal_(model.backbone.patch_embed.movenet.stem.bias)  # no longer Google's: the file's own count
    save_checkpoint(tmp_path / "own.pt", model, model.state_dict(), {})
    loaded = load_checkpoint(tmp_path / "own.pt").eval()
    assert loaded.config == SMALL
    image, bbox = torch.randn(1, 3, 256, 256), torch.zeros(1, 3)
    with torch.no_grad():
        assert torch.equal(loaded(image, bbox).final.poses, model(image, bbox).final.poses)
    assert forward_flops(SMALL) > 2e8


def test_the_summary_knows_places_whatever_the_logits_level():
    torch.manual_seed(0)
    summary, tokens = KeypointSummary(8, 16, 3, (5, 2)), torch.randn(2, 192, 8)
    bbox = torch.randn(2, 3)
    found = summary(tokens, bbox)
    added = found.tokens - tokens
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    assert [part.shape for part in found.first] == [(2, 5), (2, 2)]
    assert not torch.allclose(summary(tokens, bbox + 1).tokens, found.tokens)
    with torch.no_grad():
        summary.map_head.bias += 5
    torch.testing.assert_close(summary(tokens, bbox).places, found.places)
    torch.testing.assert_close(summary(tokens, bbox).tokens, found.tokens)


def test_a_keypoint_lies_in_the_cell_that_its_token_names():
    summary = KeypointSummary(8, 16, 0)
    tokens = torch.zeros(1, 192, 8)
    tokens[0, 12 * 3 + 10, 0] = 1.0  # row 3, column 10 says of its lower left cell that keypoint 7 is there
    nn.init.zeros_(summary.map_head.weight)
    nn.init.zeros_(summary.map_head.bias)
    with torch.no_grad():
        summary.map_head.weight[4 * 7 + 2, 0] = 100.0
        found = summary(tokens, torch.zeros(1, 3))
    # A patch is 1/16 of the crop's side, of whose columns the middle 12/16 are looked at.
    torch.testing.assert_close(found.places[0, 7], torch.tensor([(10 + 0.25) / 16 - 0.375, (3 + 0.75) / 16 - 0.5]))
    torch.testing.assert_close(found.places[0, 6], torch.zeros(2), atol=1e-6, rtol=0)
    assert found.maps[0, 7].argmax() == 12 * 3 + 10 and found.first is None


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_taught_in_all_its_parts(name):
    """Several processes wait for ever for the gradient of a part that has none."""
    model = SKELCF(variant(name, SMALL)[0]).train()
    output = model(torch.randn(2, 3, 256, 256), torch.randn(2, 3))
    parts = [value for estimate in (output.coarse, *output.layers) if estimate for value in estimate]
    sum(value.square().sum() for value in (*parts, output.maps, output.places)).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
