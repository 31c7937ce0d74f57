"""The fit by batch size and stage, and SKEL's forward pass, beside their counted floors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fitting import SKEL, SKELFitter, load_smpl
from fitting.fit.result import SKELFit
from tests.benchmarks.fit import part_seconds, people
from tests.benchmarks.gpu.counted import Rates, counted, peak_memory, seconds_of

_DIFFERENT = 256
"""People that are drawn; larger batches have them several times over."""

CUDA_GRAPHS = "not there: the fitter asks after each step who goes on, and has no captured graphs to turn on or off"

Row = dict[str, Any]


class Bodies:
    """The embedded body on a device, and people for it."""

    def __init__(self, device: torch.device, most: int) -> None:
        self.device = device
        self.skel = SKEL.demo().to(device)
        self.fitter = SKELFitter(load_smpl.demo().to(device), self.skel)
        drawn = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in people(min(most, _DIFFERENT)))
        self.poses, self.betas = (t.repeat(-(-most // len(t)), 1)[:most] for t in drawn)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        return self.poses[:count], self.betas[:count]

    @torch.inference_mode()
    def one_batch(self, count: int) -> SKELFit:
        """What `fit` does with a batch, in the calling thread, where it can be counted."""
        poses, betas = self.first(count)
        everyone = torch.ones(count, dtype=torch.bool, device=self.device)
        problem = self.fitter._problem(poses, betas, torch.zeros_like(poses[:, :3]))
        return self.fitter._fit_batch(*problem, everyone)


def fit_rows(bodies: Bodies, sizes: list[int], rates: Rates) -> Iterator[Row]:
    """People per second, memory, calls and waits of the whole fit at each batch size."""
    for size in sizes:
        poses, betas = bodies.first(size)

        def fit(poses: Tensor = poses, betas: Tensor = betas, size: int = size) -> Any:
            return bodies.fitter.fit(poses, betas, batch_size=size, threads=1)

        row = _row(size, fit, bodies.device, rates, partial(bodies.one_batch, size))
        if "problem" not in row:
            row["iterations"] = int(fit().iterations.max())
        yield row


def stage_rows(bodies: Bodies, sizes: list[int], repeats: int = 3) -> Iterator[Row]:
    """Microseconds per person of each stage and kernel."""
    for size in sizes:
        try:
            seconds = part_seconds(bodies.fitter, *bodies.first(size), bodies.device.type, repeats)
        except torch.OutOfMemoryError:
            yield {"batch": size, "problem": "does not fit"}
            continue
        yield {"batch": size} | {f"{name}, us": 1e6 * value for name, value in seconds.items()}


def forward_rows(bodies: Bodies, sizes: list[int], rates: Rates) -> Iterator[Row]:
    """People per second of SKEL's forward pass, without gradients."""
    for size in sizes:
        _, betas = bodies.first(size)
        poses = torch.full((size, 46), 0.1, device=bodies.device)

        @torch.no_grad()
        def forward(poses: Tensor = poses, betas: Tensor = betas) -> Any:
            return bodies.skel(poses, betas)

        yield _row(size, forward, bodies.device, rates)


def _row(
    size: int,
    work: Callable[[], Any],
    device: torch.device,
    rates: Rates,
    alike: Callable[[], Any] | None = None,
) -> Row:
    """Measures `work` and counts it, or work that is `alike`."""
    try:
        seconds, memory = seconds_of(work, device), peak_memory(work, device)
        count = counted(alike or work)
    except torch.OutOfMemoryError:
        return {"batch": size, "problem": "does not fit"}
    floors = rates.floor(count)
    return {
        "batch": size,
        "people_per_s": size / seconds,
        "ms": 1e3 * seconds,
        **floors,
        "times_the_floor": 1e3 * seconds / floors["floor_ms"],
        "memory_mib": memory,
        "calls": count.calls,
        "host_waits": count.waits,
        "mflop_per_person": 1e-6 * count.flops / size,
        "mb_per_person": 1e-6 * count.bytes / size,
    }
