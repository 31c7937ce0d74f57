"""Batches: spread over threads, and filled up so that nobody's result depends on how many share one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from fitting.fit.solver import LEAST_PEOPLE

_Item = TypeVar("_Item")


def spread(
    work: Callable[[int], _Item], items: Iterable[int], device: torch.device, threads: int | None
) -> Iterator[_Item]:
    """Results in order: on a CPU from threads of one core each, elsewhere one after the other."""
    if device.type != "cpu":
        yield from map(work, items)
        return
    threads = threads or torch.get_num_threads()
    with ThreadPoolExecutor(threads, "fit", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, items)


def filled(given: list[Tensor], valid: Tensor, *substitutes: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Rows that are not `valid` replaced (by zeros, or by a substitute), and a small batch filled up with them.

    Batches of fewer than LEAST_PEOPLE round otherwise.
    """
    missing = max(LEAST_PEOPLE - len(valid), 0)
    valid = torch.cat([valid, valid.new_zeros(missing)])
    full = []
    for number, values in enumerate(given):
        instead = substitutes[number] if substitutes else None
        instead = values.new_zeros(values.shape[1:]) if instead is None else instead
        values = torch.cat([values, instead.expand(missing, *values.shape[1:])])
        full.append(torch.where(valid.view(-1, *[1] * (values.ndim - 1)), values, instead))
    return full, valid
