"""What one training step costs on the device at hand: eager and compiled, with and without recomputed activations.

    python -m tests.benchmarks.train_step --backbone h --batch 64 --peak-tflops 989      (one H100, bfloat16)
    python -m tests.benchmarks.train_step --backbone tiny --batch 8 --precision float32 --device cpu

A step is what the trainer does once a batch is there: copy to the device, forward, loss with the SKEL layer, backward,
clipping, AdamW, moving average. Its pictures are noise. Useful operations are three forward passes' worth, so that
what is computed twice counts once; the share of the peak is of them alone.
"""

from __future__ import annotations

import argparse
import copy
import logging
import resource
import time

import torch
from rich.console import Console
from rich.table import Table

from pipelines.command.devices import one_device
from pipelines.files.body_models import BodyModels
from schemas import InputError
from train.config import BACKBONES, LossConfig, NetworkConfig
from train.data.batch import Batch, Targets
from train.network.camera import Framing
from train.network.model import SKELCF, forward_flops
from train.run.body import KeypointLayer
from train.run.processes import World
from train.run.state import optimiser_of, update_average
from train.run.trainer import gradients

log = logging.getLogger(__name__)


def made_up_batch(people: int, pinned: bool) -> Batch:
    """People 4 m from a camera of 1,000 px, seen in noise."""
    image = torch.randint(0, 256, (people, 256, 256, 3), dtype=torch.uint8)
    framing = Framing(
        torch.full((people, 2), 400.0),
        torch.full((people,), 300.0),
        torch.full((people,), 1000.0),
        torch.full((people, 2), 400.0),
    )
    keypoints = torch.rand(people, 44, 4) + torch.tensor([-0.5, -0.5, 3.5, 0.0])
    targets = Targets(
        torch.randn(people, 46) * 0.2, torch.randn(people, 10), keypoints, torch.rand(people, 44, 3) - 0.5, framing
    )
    return Batch(image.pin_memory() if pinned else image, targets, 1.0, people, [])


def measure(
    config: NetworkConfig, options: argparse.Namespace, device: torch.device, compiled: bool
) -> dict[str, float]:
    """Seconds per step, the median; seconds of the first one; peak memory in bytes."""
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.backends.cuda.matmul.allow_tf32 = True
    network = SKELCF(config).to(device).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    body, optimiser = KeypointLayer.of(BodyModels(device=device)), optimiser_of(network, 1e-5, 1e-4)
    model = torch.compile(network) if compiled else network
    batch, world = made_up_batch(options.batch, on_gpu), World(0, 1, device)
    times = []
    for _ in range(options.steps + 2):
        began = time.perf_counter()
        gradients(model, [batch.to(device)], body, LossConfig(), options.precision, world)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        update_average(average, network, 0.999)
        optimiser.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    peak = (
        torch.cuda.max_memory_allocated(device) if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"first": times[0], "step": sorted(times[2:])[len(times[2:]) // 2], "peak": float(peak)}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=BACKBONES, default="h")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, in this precision")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    options = parser.parse_args()
    device = torch.device(one_device(options.device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    table = Table(title=f"ViT-{options.backbone.upper()}, batch {options.batch}, {options.precision}, {name}")
    for heading in (
        "",
        "activations",
        "ms per step",
        "people/s",
        "TFLOP/s",
        "of the peak",
        "memory, GiB",
        "first step, s",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    useful = 3 * options.batch * forward_flops(NetworkConfig(options.backbone))
    for mode in options.modes:
        for again in (False, True):
            config = NetworkConfig(options.backbone, checkpoint_activations=again)
            try:
                found = measure(config, options, device, mode == "compiled")
            except torch.OutOfMemoryError:
                table.add_row(mode, "recomputed" if again else "kept", "does not fit")
                continue
            rate = useful / found["step"] / 1e12
            share = f"{rate / options.peak_tflops:.1%}" if options.peak_tflops else ""
            numbers = (f"{1e3 * found['step']:.1f}", f"{options.batch / found['step']:.1f}", f"{rate:.3g}", share)
            ends = (f"{found['peak'] / 2**30:.1f}", f"{found['first']:.1f}")
            table.add_row(mode, "recomputed" if again else "kept", *numbers, *ends)
    Console(width=110).print(table)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
