"""What says who is in a crop: networks, the mean person, and files of fitted SMPL estimates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from train.benchmarks.stream import CropBatch
from train.network.camera import Framing, bbox_cue, cam_to_translation, focal_length
from train.network.decoder import Estimate
from train.network.inputs import assumed_framing, normalised


class Estimated(NamedTuple):
    """SKEL parameters of B people, and where they stand if the method says so."""

    poses: Tensor
    """(B, 46) q, rad"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor | None = None
    """(B, 3) m, in the frame of the camera of `framing`"""
    framing: Framing | None = None


Stages = dict[str, Estimated]
FINAL = "final"
"""The stage that is a method's answer; others show how it came about."""


@dataclass
class Method:
    """A row of the table."""

    name: str
    estimate: Callable[[CropBatch], Stages]
    images: bool = True
    """it looks at crops"""
    seconds: float = field(default=0.0)
    """spent on `people`"""
    people: int = 0

    def __call__(self, batch: CropBatch) -> Stages:
        began = time.perf_counter()
        found = self.estimate(batch)
        if found[FINAL].poses.device.type == "cuda":
            torch.cuda.synchronize(found[FINAL].poses.device)
        self.seconds, self.people = self.seconds + time.perf_counter() - began, self.people + len(batch.people)
        return found

    @property
    def seconds_per_person(self) -> float:
        return self.seconds / max(self.people, 1)


def network_method(
    name: str, model: nn.Module, camera: nn.Module | None, focal: float = 0.0, layers: bool = False
) -> Method:
    """A network; focal lengths are `focal` px, or what the focal-length network `camera` says, or the image's diagonal.

    With `layers` also every stage before the last, and combinations of the last and earlier cameras.
    """

    def estimate(batch: CropBatch) -> Stages:
        framing = assumed_framing(model, batch.framing(focal_lengths(batch, camera, focal)))
        output = model(normalised(batch.image), bbox_cue(framing))
        stages = {FINAL: output.final}
        if layers:
            stages |= _stages(output.coarse, output.layers)
        return {
            stage: Estimated(e.poses, e.betas, cam_to_translation(e.cam, framing), framing)
            for stage, e in stages.items()
        }

    return Method(name, estimate)


def mean_method(poses: Tensor, betas: Tensor, cam: Tensor) -> Method:
    """Says the same (46,), (10,), (3,) of everybody, seen with the image's diagonal as focal length."""

    def estimate(batch: CropBatch) -> Stages:
        count, device = len(batch.people), batch.center.device
        p, b, c = (value.to(device).expand(count, -1) for value in (poses, betas, cam))
        if not len(batch.image):
            return {FINAL: Estimated(p, b)}
        framing = batch.framing(focal_lengths(batch, None, 0.0))
        return {FINAL: Estimated(p, b, cam_to_translation(c, framing), framing)}

    return Method("mean person", estimate)


def known_method(name: str, poses: np.ndarray, betas: np.ndarray, seconds: float) -> Method:
    """What was worked out before, in `seconds`: q (N, 46) and betas (N, 10) of all of a benchmark's people."""

    def estimate(batch: CropBatch) -> Stages:
        device = batch.center.device
        tensors = (torch.as_tensor(v[batch.people], dtype=torch.float32, device=device) for v in (poses, betas))
        return {FINAL: Estimated(*tensors)}

    return Method(name, estimate, images=False, seconds=seconds)


def focal_lengths(batch: CropBatch, camera: nn.Module | None, focal: float) -> Tensor:
    """(B,) px."""
    if focal:
        return torch.full_like(batch.box, focal)
    if camera is None:
        return batch.image_size.norm(dim=1)
    vertical = camera(batch.whole).vertical
    return focal_length(vertical[batch.image_of], batch.image_size[:, 1])


def _stages(coarse: Estimate | None, layers: tuple[Estimate, ...]) -> dict[str, Estimate]:
    """Coarse and each layer; then, for the study of the paper's table S2, the last layer's pose and scale with the
    translation of layer i ("shift i"), and the reverse ("shift last, rest i")."""
    found = {} if coarse is None else {"coarse": coarse}
    found |= {f"layer {n}": layer for n, layer in enumerate(layers, 1)}
    for n, layer in enumerate(layers[:-1], 1):
        last = layers[-1]
        found[f"last, shift {n}"] = last._replace(cam=torch.cat([last.cam[:, :1], layer.cam[:, 1:]], 1))
        found[f"layer {n}, last shift"] = layer._replace(cam=torch.cat([layer.cam[:, :1], last.cam[:, 1:]], 1))
    return found
