"""The training step, prediction and the loader that must keep up with them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitting import SKEL
from tests.benchmarks.gpu.counted import Count, Rates, counted, peak_memory, seconds_of
from tests.benchmarks.loader import make_data, rate, stream_loader, waiting
from tests.benchmarks.train_step import measure
from train.config import NetworkConfig
from train.network.model import SKELCF, forward_flops
from train.network.movenet import decode_people, movenet
from train.predict.network import Crops, estimate

Row = dict[str, Any]

PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""FLOP/s of dense bfloat16, from NVIDIA's data sheets; the first name that a device's name holds."""

_SECONDS_TO_COMPILE = 150.0
"""So much must be left of the time for a compiled step to be begun."""


def peak_of(device: torch.device) -> float | None:
    """The data sheet's FLOP/s in bfloat16, if the device is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAK_BF16.items() if part in name), None)


def step_rows(
    backbone: str,
    batches: list[int],
    device: torch.device,
    rates: Rates,
    left: Callable[[], float],
    steps: int = 10,
    compiled: bool = True,
) -> Iterator[Row]:
    """Training steps, eager and compiled, with activations kept, or recomputed where they do not fit."""
    modes = [(batch, False) for batch in batches] + [(batch, True) for batch in batches if compiled]
    for batch, compile_it in modes:
        named = {"batch": batch, "mode": "compiled" if compile_it else "eager"}
        if compile_it and left() < _SECONDS_TO_COMPILE:
            yield named | {"problem": "left out: no time"}
            continue
        for again in (False, True):
            config = NetworkConfig(backbone, checkpoint_activations=again)
            options = argparse.Namespace(batch=batch, steps=steps, precision="bf16")
            try:
                found = measure(config, options, device, compile_it)
            except torch.OutOfMemoryError:
                yield named | {"activations": "recomputed" if again else "kept", "problem": "does not fit"}
                continue
            useful, peak = 3 * batch * forward_flops(config), peak_of(device)
            yield named | {
                "activations": "recomputed" if again else "kept",
                "people_per_s": batch / found["step"],
                "ms": 1e3 * found["step"],
                "floor_ms": 1e3 * useful / (peak or rates.bf16),
                "tflops": useful / found["step"] / 1e12,
                "share_of_peak": useful / found["step"] / peak if peak else None,
                "share_of_large_product": useful / found["step"] / rates.bf16,
                "memory_mib": found["peak"] / 2**20,
                "first_step_s": found["first"],
            }
            break


def predict_rows(backbone: str, batches: list[int], device: torch.device, rates: Rates) -> Iterator[Row]:
    """Crops to parameters, as `hmr-skel predict` does it (float32), and parameters to skin and bones."""
    config = NetworkConfig(backbone)
    model, skel = SKELCF(config).to(device).eval(), SKEL.demo().to(device)
    for batch in batches:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), np.uint8)
        middle = np.full((batch, 2), 400.0)
        crops = Crops(pixels, middle, np.full(batch, 300.0), np.full(batch, 1000.0), middle)
        found = estimate(model, crops)
        poses, betas = (torch.as_tensor(found[name], device=device) for name in ("poses", "betas"))

        @torch.no_grad()
        def meshes(poses: torch.Tensor = poses, betas: torch.Tensor = betas) -> Any:
            return skel(poses, betas, skeleton_mesh=True)

        seconds = seconds_of(lambda crops=crops: estimate(model, crops), device)
        yield {
            "batch": batch,
            "people_per_s": batch / seconds,
            "ms": 1e3 * seconds,
            "floor_ms": rates.floor(Count(batch * forward_flops(config), 0, 0, 0))["floor_ms"],
            "meshes_ms": 1e3 * seconds_of(meshes, device),
            "memory_mib": peak_memory(lambda crops=crops: estimate(model, crops), device),
        }


def detect_rows(looks: list[int], device: torch.device, rates: Rates) -> Iterator[Row]:
    """MoveNet's looks at 256 x 256 px; of a picture with n people `predict` takes one, and n more together."""
    network = movenet().to(device)
    for count in looks:
        pixels = torch.zeros(count, 3, 256, 256, dtype=torch.uint8, device=device)

        @torch.inference_mode()
        def look(pixels: torch.Tensor = pixels) -> Any:
            return decode_people(network(pixels))

        asked = counted(look)
        yield {
            "looks": count,
            "ms": 1e3 * seconds_of(look, device),
            **rates.floor(asked),
            "gflop": 1e-9 * asked.flops,
            "mbytes": 1e-6 * asked.bytes,
            "calls": asked.calls,
        }


def loader_rows(people: int, seconds: float, workers: list[int], steps: int, step: float) -> Iterator[Row]:
    """People per second of a core, and how long steps of `step` seconds and 64 people wait for workers."""
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name), people)
        yield {"workers": "one core", "people_per_s": rate(stream_loader(Path(name), normalise=False), seconds)}
        for count in workers:
            share, late = waiting(Path(name), count, steps, step, batch=min(64, people))
            yield {"workers": count, "share_waiting": share, "steps_late": late, "steps": steps, "step_s": step}
