"""The processes that train together, one or those that torchrun started, and the signals that end them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from pipelines.command.devices import one_device

log = logging.getLogger(__name__)


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


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that gets SIGTERM and SIGINT as they come: the step under way is finished. A second SIGINT interrupts."""
    asked: list[int] = []

    def ask(number: int, _frame: Any) -> None:
        if number == signal.SIGINT:
            if number in asked:
                raise KeyboardInterrupt
            log.warning("stopping after this step, with a checkpoint; Ctrl-C again to stop at once")
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
