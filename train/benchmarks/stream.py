"""People of a benchmark in batches, as a network takes them: crops, and whole images for the focal length."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.draw.warp import square_affine, warp
from train.benchmarks.images import CROP, ImageFolders, read_benchmark_image, released_crop, whole_pixel_crop
from train.benchmarks.people import BenchmarkPeople
from train.network.camera import Framing
from train.network.flnet import whole_image

Patches = Literal["released", "ours"]
"""released: bilinear without antialiasing, box centre at pixel index 128; ours: antialiased and centred."""


@dataclass(frozen=True)
class CropBatch:
    """B people, who may share images."""

    people: np.ndarray
    """(B,) their numbers among the benchmark's people"""
    image: Tensor
    """(B, 256, 256, 3) uint8 RGB"""
    center: Tensor
    """(B, 2) of the box, px of the full image"""
    box: Tensor
    """(B,) side that the network is told, px"""
    image_size: Tensor
    """(B, 2) width and height"""
    whole: Tensor
    """(I, 3, 256, 256) FLNet's inputs of the images, or (0,) where nobody asked"""
    image_of: Tensor
    """(B,) which of them"""

    def framing(self, focal: Tensor) -> Framing:
        """With focal lengths (B,) px; the principal point is the image's middle."""
        return Framing(self.center, self.box, focal, self.image_size / 2)

    def to(self, device: torch.device) -> CropBatch:
        names = ("image", "center", "box", "image_size", "whole", "image_of")
        return CropBatch(self.people, *(getattr(self, name).to(device) for name in names))


@dataclass(frozen=True)
class BenchmarkCrops:
    """How people are cut out."""

    patches: Patches = "released"
    whole: bool = True
    """also make FLNet's input"""
    quirks: frozenset[str] = frozenset()


class _Images(Dataset):
    """One item per image: its people's crops."""

    def __init__(self, people: BenchmarkPeople, folders: ImageFolders, settings: BenchmarkCrops) -> None:
        self.people, self.folders, self.settings = people, folders, settings
        names, index = np.unique(people.imgname.astype(str), return_inverse=True)
        order = np.argsort(index, kind="stable")
        self.rows = np.split(order, np.cumsum(np.bincount(index, minlength=len(names)))[:-1])
        self.rows.sort(key=lambda rows: rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n: int) -> dict:
        rows, people = self.rows[n], self.people
        image = read_benchmark_image(self.folders.find(people, rows[0]), people, rows[0])
        found = {
            "people": rows,
            "crops": np.stack([self._crop(image, row) for row in rows]),
            "size": image.shape[1::-1],
        }
        if self.settings.whole:
            swapped = "bgr-focal" in self.settings.quirks and people.layout != "A"
            found["whole"] = whole_image(np.ascontiguousarray(image[:, :, ::-1]) if swapped else image)
        return found

    def _crop(self, image: np.ndarray, row: int) -> np.ndarray:
        center, side = self.people.center[row], float(self.people.side[row])
        if self.settings.patches == "ours":
            return warp(image, square_affine(center, side, CROP), CROP)
        if self.people.layout == "B" and "whole-pixel-crop" in self.settings.quirks:
            return whole_pixel_crop(image, center, side)
        return released_crop(image, center, side)


def told_side(people: BenchmarkPeople, quirks: Set[str]) -> np.ndarray:
    """(N,) side of the box in the network's cue, px."""
    if people.layout == "B" and "cue-before-aspect" in quirks:
        return people.label_box.max(1)
    return people.side


def crop_batches(
    people: BenchmarkPeople, folders: ImageFolders, settings: BenchmarkCrops, batch: int = 32, workers: int = 0
) -> Iterator[CropBatch]:
    """Everybody once, image by image; batches have at least `batch` people but for the last, and whole images."""
    sides = told_side(people, settings.quirks)
    images = _Images(people, folders, settings)
    loader = DataLoader(images, batch_size=None, num_workers=min(workers, len(images)), collate_fn=None)
    waiting: list[dict] = []
    for item in loader:
        waiting.append(item)
        if sum(len(i["people"]) for i in waiting) >= batch:
            yield _joined(waiting, people, sides)
            waiting = []
    if waiting:
        yield _joined(waiting, people, sides)


def _joined(items: list[dict], people: BenchmarkPeople, sides: np.ndarray) -> CropBatch:
    chosen = np.concatenate([np.asarray(i["people"]) for i in items])
    counts = torch.tensor([len(i["people"]) for i in items])
    sizes = torch.tensor([[float(v) for v in i["size"]] for i in items])
    return CropBatch(
        people=chosen,
        image=torch.from_numpy(np.concatenate([np.asarray(i["crops"]) for i in items])),
        center=torch.as_tensor(people.center[chosen], dtype=torch.float32),
        box=torch.as_tensor(sides[chosen], dtype=torch.float32),
        image_size=sizes.repeat_interleave(counts, 0),
        whole=torch.stack([i["whole"] for i in items]) if "whole" in items[0] else torch.zeros(0),
        image_of=torch.arange(len(items)).repeat_interleave(counts),
    )
