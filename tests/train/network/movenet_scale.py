"""Measures how large MoveNet's features are, channel by channel, over people of the demo, and writes that for training.

    make demo
    python -m tests.train.network.movenet_scale demo/hmr_skel

writes `train/network/movenet_scale.npz`: `mean` and `deviation` (836,) over all patches of crops as training sees them.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from tqdm import tqdm

from pipelines.files.body_models import BodyModels
from train.data.augmentation import root_basis
from train.data.augmentation_config import AugmentationConfig
from train.data.batch import as_batch
from train.data.config import DataConfig
from train.data.loader import PeopleStream
from train.network.inputs import normalised
from train.network.model import COLUMNS
from train.network.movenet_tokens import SCALE, MoveNetTokens


@torch.no_grad()
def measure(shards: str, epochs: int = 2, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (836,), float64, of everybody in the shards, augmented as preset `tiny` does."""
    augmentation = AugmentationConfig("even", mirror=0.5, shift=0.05, photometric=0.0, extreme_crop=0.0)
    basis = root_basis(BodyModels("demo").skel)
    people = PeopleStream(DataConfig([shards]), batch, augmentation=augmentation, root_basis=basis)
    tokens = MoveNetTokens(1)
    count, total, squares = 0, 0.0, 0.0
    for place in tqdm([(epoch, step, 0) for epoch in range(epochs) for step in range(people.cut.steps)], ncols=80):
        image = normalised(as_batch(people[place]).image)[..., COLUMNS]
        found = tokens.features(image).double().transpose(0, 1).flatten(1)
        count, total, squares = count + found.shape[1], total + found.sum(1), squares + found.square().sum(1)
    mean = total / count
    return mean.numpy(), (squares / count - mean.square()).sqrt().numpy()


if __name__ == "__main__":
    mean, deviation = measure(sys.argv[1])
    np.savez(SCALE, mean=mean.astype(np.float32), deviation=deviation.astype(np.float32))
    print(f"{SCALE}: deviations {deviation.min():.3g} to {deviation.max():.3g}")
