"""The state of a training run: everything that changes in it, its beginning, its checkpoints."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from schemas import InputError
from train.config import variant
from train.data.loader import PeopleStream
from train.network.checkpoints import (
    load_checkpoint,
    read_training,
    run_checkpoints,
    save_checkpoint,
    saved_config,
    unwrapped,
)
from train.network.kinds import settings_apart
from train.network.model import SKELCF
from train.options import TrainOptions

log = logging.getLogger(__name__)

_PLACE = ("epoch", "step", "updates", "skipped")
"""Fields of a run that its checkpoints hold by name."""


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

    def update(self, options: TrainOptions) -> None:
        """Moves the parameters along the gradients, and the moving average after them."""
        self.optimiser.step()
        self.updates += 1
        decay = options.ema * (1 - math.exp(-self.updates / options.ema_ramp))
        update_average(self.ema, unwrapped(self.model), decay)


def first_network(options: TrainOptions, device: torch.device) -> SKELCF:
    """The network with which a run begins."""
    torch.manual_seed(options.seed)
    network = SKELCF(variant(options.variant, options.network)[0]).to(device)
    if options.initialise:
        load_checkpoint(options.initialise, into=network)
    if options.encoder_rate == 0:
        network.taught_before.requires_grad_(False)
    return network


def optimiser_of(
    model: SKELCF, learning_rate: float, weight_decay: float, encoder_rate: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW with one kernel per step and device, of the parameters that are trained.

    With an `encoder_rate` other than 1 what was taught before is a group of its own, the last one. A group's learning
    rate is multiplied by its `share`.
    """
    before = {id(p) for p in model.taught_before.parameters()} if encoder_rate != 1 else set()
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) not in before], "share": 1.0}]
    if encoder := [p for p in trained if id(p) in before]:
        groups.append({"params": encoder, "share": encoder_rate})
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group its share of `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate(options: TrainOptions, step: int, epoch_steps: int, last: int) -> float:
    """Linear warm-up, then constant or a half cosine down to zero."""
    warmup = max(1, round(options.warmup_epochs * epoch_steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.decay == "none":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, last - warmup)))


@torch.no_grad()
def update_average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """ema <- decay ema + (1 - decay) model, for all parameters that are trained."""
    pairs = zip(ema.parameters(), model.parameters(), strict=True)
    means, values = zip(*((mean, value.detach()) for mean, value in pairs if value.requires_grad), strict=True)
    torch._foreach_lerp_(list(means), list(values), 1 - decay)


def start(model: SKELCF, options: TrainOptions, people: PeopleStream) -> Run:
    """The run at its newest checkpoint, or at its beginning.

    Raises InputError for a checkpoint that was written with another order of people or by another network, and for
    options that end the run before it.
    """
    for left in options.output.glob(".checkpoint-*.tmp-*"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = optimiser_of(model, options.learning_rate, options.weight_decay, options.encoder_rate)
    run = Run(model, ema, optimiser)
    found = run_checkpoints(options.output)
    if not found:
        return run
    newest = found[-1]
    if apart := settings_apart(saved_config(newest), model.config):
        raise InputError(
            f"another network: {apart}", file=newest, expected="the same, or another --output for a new run"
        )
    state = read_training(newest)
    for name, value in _identity(options, people).items():
        if state.get(name) != value:
            problem = f"was written with {name.replace('_', ' ')} {state.get(name)}"
            hint = "; options that leave people out have changed them?" if name == "shards" else ""
            raise InputError(problem, file=newest, expected=f"{value}, or another --output for a new run{hint}")
    done = state["epoch"] * people.cut.steps + state["step"]
    for name, last in (("steps", options.steps or done), ("epochs", options.epochs * people.cut.steps)):
        if last < done:
            problem, given = f"{done} steps are done already", getattr(options, name)
            raise InputError(problem, file=newest, field=f"--{name}", expected=f"more than the {given} given")
    load_checkpoint(newest, into=model)
    load_checkpoint(newest, "ema", into=ema)
    now = [(len(group["params"]), group["share"]) for group in run.optimiser.param_groups]
    if [len(group["params"]) for group in state["optimiser"]["param_groups"]] != [count for count, _ in now]:
        raise InputError(
            "trained other parameters",
            file=newest,
            field="--encoder-rate",
            expected="0, below 1 or 1 as before, or another --output for a new run",
        )
    run.optimiser.load_state_dict(state["optimiser"])
    for group, (_, share) in zip(run.optimiser.param_groups, now, strict=True):
        # Of the run now, not of the one that wrote the checkpoint.
        group |= {"weight_decay": options.weight_decay, "share": share}
    for name in _PLACE:
        setattr(run, name, state[name])
    log.info("going on from %s: epoch %d, step %d", newest, run.epoch, run.step)
    return run


def write_checkpoint(run: Run, options: TrainOptions, people: PeopleStream) -> Path:
    """Writes OUTPUT/checkpoint-NNNNNNNN.pt, whole or not at all, and removes all but the newest few."""
    place = {name: getattr(run, name) for name in _PLACE}
    state = place | _identity(options, people) | {"optimiser": run.optimiser.state_dict()}
    path = options.output / f"checkpoint-{run.epoch * people.cut.steps + run.step:08d}.pt"
    save_checkpoint(path, run.model, run.ema.state_dict(), state)
    for old in run_checkpoints(options.output)[: -max(options.keep, 1)]:
        old.unlink()
    return path


def _identity(options: TrainOptions, people: PeopleStream) -> dict[str, Any]:
    """What must not change within a run, for its order to go on."""
    cut = people.cut
    return {"global_batch": cut.global_batch, "seed": options.seed, "shards": people.people.fingerprint()}
