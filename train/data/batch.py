"""What a training step is given: crops of people and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from train.network.camera import Framing


class Targets(NamedTuple):
    """The labels of B people."""

    poses: Tensor
    """(B, 46) SKEL q, rad."""
    betas: Tensor
    """(B, 10)"""
    keypoints_3d: Tensor
    """(B, 44, 4) m in any translation, and confidence."""
    keypoints_2d: Tensor
    """(B, 44, 3) crop coordinates, -0.5 to 0.5 inside the box, and confidence."""
    framing: Framing
    """Of the crops in their photographs."""


@dataclass
class Batch:
    """People, and what share of the step's people they are. Tensors are on the device that `to` was last given."""

    image: Tensor
    """(B, 256, 256, 3) uint8 RGB."""
    targets: Targets
    share: float
    """This batch's people divided by those of its step on all ranks; 0 for a stand-in that nothing is left for."""
    people: int
    """People of the step on all ranks."""
    keys: list[str]
    """Tar members without ending."""

    def to(self, device: torch.device | str) -> Batch:
        move = lambda value: value.to(device, non_blocking=True)  # noqa: E731
        framing = Framing(*map(move, self.targets.framing))
        targets = Targets(*map(move, self.targets[:-1]), framing)
        return Batch(move(self.image), targets, self.share, self.people, self.keys)


def as_batch(values: dict[str, Any]) -> Batch:
    """What a PeopleStream gave, as a Batch. Raises the InputError that reading it caused."""
    if "error" in values:
        raise values["error"]
    framing = Framing(*(torch.from_numpy(values[name]) for name in Framing._fields))
    targets = Targets(*(torch.from_numpy(values[name]) for name in Targets._fields[:-1]), framing)
    return Batch(values["image"], targets, values["share"], values["people"], values["keys"])
