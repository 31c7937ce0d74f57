"""The training loop, on one page.

Every random number follows from (seed, epoch, step, rank), and a checkpoint is written between two steps, so that a run
that was stopped, however rudely, goes on as if it had not been. Gradients are means over the people of a step on all
ranks: one process and many with the same global batch take the same steps.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from schemas import InputError
from train.config import LossConfig, variant
from train.data.augmentation import root_basis
from train.data.batch import Batch, Targets, as_batch
from train.data.loader import PeopleStream, stream
from train.network.camera import bbox_cue
from train.network.checkpoints import load_checkpoint, read_training, run_checkpoints, save_checkpoint, unwrapped
from train.network.inputs import assumed_framing, normalised
from train.network.model import SKELCF, Output
from train.options import TrainOptions, write_options
from train.run.body import KeypointLayer
from train.run.losses import total
from train.run.processes import World, join_world

log = logging.getLogger(__name__)


@dataclass
class Run:
    """All that changes while training; `epoch` and `step` are the place of the next step in the data."""

    model: nn.Module
    ema: SKELCF
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    updates: int = 0
    skipped: int = 0


def train(options: TrainOptions) -> int:
    """Train until the end, or until SIGTERM or Ctrl-C, which write a checkpoint first; returns the exit status.

    Raises InputError for what is wrong with options, shards, body models and checkpoints.
    """
    with join_world(options.device) as world, asked_to_stop() as stop:
        loss_config = variant(options.variant, options.network, options.loss)[1]
        body = KeypointLayer.load(options.body_models)
        people = PeopleStream(
            options.data,
            options.batch,
            seed=options.seed,
            ranks=world.ranks,
            rank=world.rank,
            parts=options.accumulate,
            augmentation=options.augmentation,
            root_basis=root_basis(body.skel),
        )
        body = body.to(world.device)
        run = start(first_network(options, world.device), options, people)
        if world.rank == 0:
            options.output.mkdir(parents=True, exist_ok=True)
            write_options(options.output / "options.yaml", options)
        if options.compile:
            run.model = torch.compile(run.model)
        if world.ranks > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            run.model = nn.parallel.DistributedDataParallel(run.model, device_ids=ids)
        return loop(run, people, body, loss_config, options, world, stop)


def loop(
    run: Run,
    people: PeopleStream,
    body: KeypointLayer,
    loss_config: LossConfig,
    options: TrainOptions,
    world: World,
    stop: list[int],
) -> int:
    """Steps from the run's place to the end of the last epoch."""
    from train.run.records import Records

    last = options.epochs * people.cut.steps
    last = min(last, options.steps) if options.steps else last
    done = run.epoch * people.cut.steps + run.step
    records = Records(options, run, people.cut, done, last, world)
    batches = stream(people, run.epoch, run.step, options.epochs, options.workers, world.device.type == "cuda")
    saved = time.monotonic()
    run.model.train()
    while done < last:
        parts = [as_batch(next(batches)[1]).to(world.device) for _ in range(options.accumulate)]
        records.data_arrived()
        for group in run.optimiser.param_groups:
            group["lr"] = learning_rate(options, done, people.cut.steps, last)
        torch.manual_seed(int(np.random.SeedSequence([options.seed, done, world.rank]).generate_state(1)[0]))
        loss, terms = gradients(run.model, parts, body, loss_config, options.precision, world)
        norm = nn.utils.clip_grad_norm_(run.model.parameters(), options.gradient_norm)
        value, stopping = world.sum(loss), world.sum(float(len(stop))) > 0
        if math.isfinite(value) and math.isfinite(norm):
            run.optimiser.step()
            run.updates += 1
            decay = options.ema * (1 - math.exp(-run.updates / options.ema_ramp))
            update_average(run.ema, unwrapped(run.model), decay)
        else:
            run.skipped += 1
            log.warning("step %d skipped: loss %s, gradient norm %s", done, value, float(norm))
        run.optimiser.zero_grad(set_to_none=True)
        done += 1
        run.epoch, run.step = divmod(done, people.cut.steps)
        records.step_done(value, terms, float(norm), parts)
        if run.skipped >= options.nonfinite_limit:
            problem = f"the loss was not finite in {run.skipped} steps, the last of them step {done - 1}"
            raise InputError(problem, field="--nonfinite-limit", expected="a lower learning rate, or sound data")
        due = time.monotonic() - saved > 60 * options.checkpoint_minutes
        due |= bool(options.checkpoint_steps) and done % options.checkpoint_steps == 0
        if due or stopping or done == last:
            if world.rank == 0:
                write_checkpoint(run, options, people, done)
            saved = time.monotonic()
        if stopping:
            log.warning("stopped after step %d; the same command goes on from there", done)
            return 128 + (stop[0] if stop else signal.SIGTERM)
        if run.step == 0 or done == last:
            records.epoch_done()
    records.close()
    return 0


def gradients(
    model: nn.Module, parts: list[Batch], body: KeypointLayer, config: LossConfig, precision: str, world: World
) -> tuple[Tensor, dict[str, Tensor]]:
    """Adds up the step's gradients; this rank's share of its loss, and the terms of the last part."""
    whole, terms = torch.zeros((), device=world.device), {}
    for number, batch in enumerate(parts):
        waits = world.ranks > 1 and number + 1 < len(parts)
        with model.no_sync() if waits else contextlib.nullcontext():
            with torch.autocast(world.device.type, torch.bfloat16, enabled=precision == "bf16"):
                output, targets = forward(model, batch)
            loss = total(output, targets, body, config)
            # DistributedDataParallel takes the mean over ranks; `share` already divides by everybody's people.
            (loss.total * (batch.share * world.ranks)).backward()
        whole += loss.total.detach() * batch.share
        terms = loss.terms
    return whole, terms


def forward(model: nn.Module, batch: Batch) -> tuple[Output, Targets]:
    """The network's estimate for a batch, and its targets in the camera that the network's variant assumes."""
    framing = assumed_framing(model, batch.targets.framing)
    return model(normalised(batch.image), bbox_cue(framing)), batch.targets._replace(framing=framing)


def learning_rate(options: TrainOptions, step: int, epoch_steps: int, last: int) -> float:
    """Linear warm-up, then constant or a half cosine down to zero."""
    warmup = max(1, round(options.warmup_epochs * epoch_steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.decay == "none":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, last - warmup)))


def optimiser_of(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with one kernel per step and device."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


@torch.no_grad()
def update_average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """ema <- decay ema + (1 - decay) model, for all parameters."""
    torch._foreach_lerp_(list(ema.parameters()), [p.detach() for p in model.parameters()], 1 - decay)


def first_network(options: TrainOptions, device: torch.device) -> SKELCF:
    """The network with which a run begins."""
    torch.manual_seed(options.seed)
    network = SKELCF(variant(options.variant, options.network)[0]).to(device)
    if options.initialise:
        load_checkpoint(options.initialise, into=network)
    return network


def start(model: SKELCF, options: TrainOptions, people: PeopleStream) -> Run:
    """The run at its newest checkpoint, or at its beginning."""
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    run = Run(model, ema, optimiser_of(model, options.learning_rate, options.weight_decay))
    found = run_checkpoints(options.output)
    if not found:
        return run
    newest = found[-1]
    state = read_training(newest)
    expected = _identity(options, people)
    for name, value in expected.items():
        if state.get(name) != value:
            problem = f"was written with {name.replace('_', ' ')} {state.get(name)}"
            raise InputError(problem, file=newest, expected=f"{value}, or another --output for a new run")
    load_checkpoint(newest, into=model)
    load_checkpoint(newest, "ema", into=ema)
    run.optimiser.load_state_dict(state["optimiser"])
    for name in ("epoch", "step", "updates", "skipped"):
        setattr(run, name, state[name])
    log.info("going on from %s: epoch %d, step %d", newest, run.epoch, run.step)
    return run


def write_checkpoint(run: Run, options: TrainOptions, people: PeopleStream, done: int) -> Path:
    """Writes OUTPUT/checkpoint-NNNNNNNN.pt, whole or not at all, and removes all but the newest few."""
    place = {name: getattr(run, name) for name in ("epoch", "step", "updates", "skipped")}
    state = place | _identity(options, people) | {"optimiser": run.optimiser.state_dict()}
    path = options.output / f"checkpoint-{done:08d}.pt"
    save_checkpoint(path, run.model, run.ema.state_dict(), state)
    for old in run_checkpoints(options.output)[: -max(options.keep, 1)]:
        old.unlink()
    return path


def _identity(options: TrainOptions, people: PeopleStream) -> dict[str, Any]:
    """What must not change within a run, for its order to go on."""
    cut = people.cut
    return {"global_batch": cut.global_batch, "seed": options.seed, "shards": people.people.fingerprint()}


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
