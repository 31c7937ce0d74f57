"""Detectors of the extra [detect]: pixels and classes, with a network that is told what to say and an untrained one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from schemas import InputError
from train.predict.detect.choice import detector
from train.predict.detect.transformers_detector import TransformersDetector


class Told(torch.nn.Module):
    """Says the same of every picture, and keeps what it was shown."""

    def __init__(self, logits, boxes) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.logits, self.boxes = torch.tensor([logits]), torch.tensor([boxes])

    def forward(self, pixel_values):
        self.seen = pixel_values
        return SimpleNamespace(logits=self.logits, pred_boxes=self.boxes)


def test_people_are_those_of_the_class_in_pixels():
    logits = [[-4.0, 3.0], [5.0, 1.0], [0.0, -3.0], [9.0, 2.0]]
    network = Told(logits, [[0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.5, 1.0], [0.1, 0.1, 0.1, 0.1], [0.9, 0.5, 0.4, 0.2]])
    picture = np.full((100, 200, 3), [255, 0, 51], np.uint8)
    found = TransformersDetector(network, person=1)(picture)
    np.testing.assert_allclose(found.boxes, [[50, 25, 150, 75], [140, 40, 200, 60], [0, 0, 100, 100]], atol=1e-4)
    np.testing.assert_allclose(found.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid(), rtol=1e-6)
    assert found.keypoints is None
    assert network.seen.shape == (1, 3, 640, 640)
    np.testing.assert_allclose(network.seen.mean((0, 2, 3)), [1, 0, 0.2], atol=1e-6)


def test_an_untrained_network_of_the_library_runs(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra [detect] is not installed")
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrV2Config(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8, 8],
        d_model=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        decoder_layers=2,
        num_queries=10,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_in_channels=[16, 16, 16],
        id2label={0: "bicycle", 1: "person"},
    )
    transformers.RTDetrV2ForObjectDetection(config).save_pretrained(tmp_path / "network")
    found = detector(f"transformers:{tmp_path / 'network'}", least_score=0.0)(np.zeros((60, 80, 3), np.uint8))
    assert len(found) > 0 and found.boxes.shape == (len(found), 4)
    assert (found.boxes >= 0).all() and (found.boxes <= [80, 60, 80, 60]).all()
    with pytest.raises(InputError, match="a detector"):
        detector(f"transformers:{tmp_path / 'nothing'}")


def test_other_names_are_refused():
    with pytest.raises(InputError, match="no detector"):
        detector("yolo")
