"""What work must cost on a device: operations, bytes and calls are counted, what the device can do is measured.

A floor is the longest of three times: operations in matrix products at the rate of a large product, bytes at the rate
of a large copy (each call reads its arguments and writes its results; what stays in a cache is counted all the same, so
work that fits into caches can be faster), calls at the rate at which empty ones can be made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.host_waits import is_host_wait


@dataclass(frozen=True)
class Count:
    """What one run of some work asks of the device."""

    flops: float
    """in matrix products and convolutions"""
    bytes: float
    calls: int
    """without views, which launch nothing"""
    waits: int
    """times that the host waits for the device"""


@dataclass(frozen=True)
class Rates:
    """What the device does, as measured."""

    float32: float
    """FLOP/s in a large matrix product, TF32 not allowed"""
    bf16: float
    copy: float
    """bytes/s, read and written"""
    calls: float
    """1/s, of an operation on a few numbers"""

    def floor(self, count: Count, flops_per_s: float | None = None) -> dict[str, float]:
        """Milliseconds by each of the three, and the longest."""
        parts = {
            "floor_flops_ms": 1e3 * count.flops / (flops_per_s or self.float32),
            "floor_bytes_ms": 1e3 * count.bytes / self.copy,
            "floor_calls_ms": 1e3 * count.calls / self.calls,
        }
        return parts | {"floor_ms": max(parts.values())}


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.calls, self.waits = 0, 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits += is_host_wait(function, args)
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.calls += 1
            self.bytes += sum(t.nbytes for t in [*_tensors(args), *_tensors(found)])
        return found


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [t for value in values for t in _tensors(value)] if isinstance(values, (list, tuple)) else []


def counted(work: Callable[[], object]) -> Count:
    """Counts one run of the work."""
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        work()
    return Count(flops.get_total_flops(), traffic.bytes, traffic.calls, traffic.waits)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return min(found)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates_of(device: torch.device, reduced: bool) -> Rates:
    """Measures a matrix product, a copy and a small operation."""
    torch.backends.cuda.matmul.allow_tf32 = False
    size, words, calls = (256, 1 << 20, 200) if reduced else (8192, 1 << 28, 2000)

    def product(dtype: torch.dtype) -> float:
        a = torch.randn(size, size, device=device).to(dtype)
        return 2 * size**3 / seconds_of(lambda: a @ a, device)

    source, few = torch.zeros(words, device=device), torch.zeros(8, device=device)
    target = torch.empty_like(source)
    return Rates(
        float32=product(torch.float32),
        bf16=product(torch.bfloat16),
        copy=2 * source.nbytes / seconds_of(lambda: target.copy_(source), device),
        calls=calls / seconds_of(lambda: [few.add_(1) for _ in range(calls)], device),
    )


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB that a GPU holds at most while the work is done; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**20
