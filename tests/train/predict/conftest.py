"""A picture of four people, and a network that knows nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from train import SKELCF
from train.config import NetworkConfig
from train.network.checkpoints import save_checkpoint


@pytest.fixture(scope="session")
def crowd() -> np.ndarray:
    """Four rendered people in 256 px, uint8 RGB."""
    with np.load(Path(__file__).parent / "detect" / "movenet_golden.npz") as stored:
        return stored["picture"]


@pytest.fixture(scope="module")
def model() -> SKELCF:
    torch.manual_seed(0)
    return SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1, heads=1, head_dim=8, mlp_dim=16)).eval()


@pytest.fixture
def checkpoint(model, tmp_path) -> str:
    save_checkpoint(tmp_path / "model.pt", model, model.state_dict())
    return str(tmp_path / "model.pt")


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])
    return path
