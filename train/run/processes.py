"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from pipelines.command.devices import one_device


@dataclass(frozen=True)
class World:
    """This process among `ranks` that train together."""

    rank: int
    ranks: int
    device: torch.device

    def sum(self, value: Tensor | float) -> float:
        """A number added up over all ranks."""
        if self.ranks == 1:
            return float(value)
        whole = torch.as_tensor(value, dtype=torch.float32).to(self.device).clone()
        distributed.all_reduce(whole)
        return float(whole)


@contextlib.contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Joins the other processes if torchrun started this one: nccl on GPUs, one each, gloo on CPUs.

    Raises InputError for a device that is not there.
    """
    ranks, rank = (int(os.environ.get(name, value)) for name, value in (("WORLD_SIZE", 1), ("RANK", 0)))
    chosen = torch.device(one_device(device, int(os.environ.get("LOCAL_RANK", 0))))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cuda.matmul.allow_tf32 = True
    if ranks > 1:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, ranks, chosen)
    finally:
        if ranks > 1:
            distributed.destroy_process_group()
