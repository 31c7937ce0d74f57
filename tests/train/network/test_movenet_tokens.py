"""MoveNet as an encoder, and what the keypoints' maps tell every token."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from schemas import InputError
from train.config import IMAGE_MEAN, IMAGE_STD, NetworkConfig
from train.network import keypoint_summary
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
    keypoint_maps=True,
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
            one = tokens.norm(features[0, :, row, column])
            torch.testing.assert_close(found[0, 12 * row + column], tokens.proj(one[:, None, None])[:, 0, 0])


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
    for name, value in model.state_dict().items():
        expected = before[name] if moved[name] == 0 else (before[name] + value) / 2
        torch.testing.assert_close(average.state_dict()[name], expected)
        if ".movenet." not in name and "mean_" not in name:
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
    summary, tokens, maps = KeypointSummary(8, 16), torch.randn(2, 192, 8), torch.randn(2, 44, 192)
    added = summary(tokens, maps) - tokens
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    torch.testing.assert_close(summary(tokens, maps + 5), summary(tokens, maps))
    # A keypoint that is surely in row 3, column 10 lies there.
    sure = torch.full((1, 44, 192), -50.0)
    sure[:, :, 12 * 3 + 10] = 50.0
    place = sure.softmax(-1) @ torch.from_numpy(keypoint_summary._PLACES).float()
    torch.testing.assert_close(place, torch.tensor([2 * 10 / 11 - 1, 2 * 3 / 15 - 1]).expand(1, 44, 2))
    moved = sure.roll(1, -1)
    moved[:, 1:] = sure[:, 1:]
    assert not torch.allclose(summary(tokens[:1], moved), summary(tokens[:1], sure))


def test_a_summary_needs_maps():
    with pytest.raises(InputError, match="a summary without maps"):
        replace(SMALL, keypoint_maps=False)
