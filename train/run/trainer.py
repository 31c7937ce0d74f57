"""The training loop, on one page.

Every random number follows from (seed, epoch, step, rank), and a checkpoint is written between two steps, so that a run
that was stopped, however rudely, goes on as if it had not been. Gradients are means over the people of a step on all
ranks: one process and many with the same global batch take the same steps.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.command.option_files import write_options
from pipelines.command.options import option_values
from pipelines.files.body_models import BodyModels
from pipelines.files.outputs import check_output_folder, written
from schemas import InputError
from train.config import LossConfig, variant
from train.data.augmentation import root_basis
from train.data.batch import Batch, Targets, as_batch
from train.data.loader import PeopleStream, stream
from train.network.camera import bbox_cue
from train.network.inputs import assumed_framing, normalised
from train.network.model import Output
from train.options import TrainOptions
from train.run.body import KeypointLayer
from train.run.losses import total
from train.run.processes import World, asked_to_stop, join_world
from train.run.records import NoRecords, Records
from train.run.resuming import FILE, tell_differences
from train.run.state import Run, first_network, learning_rate, set_learning_rate, start, write_checkpoint

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> int:
    """Train until the end, or until SIGTERM or Ctrl-C, which write a checkpoint first; returns the exit status.

    Raises InputError for what is wrong with options, shards, body models and checkpoints.
    """
    check_output_folder(options.output, "--output")
    with join_world(options.device) as world, asked_to_stop() as stop:
        models = BodyModels(options.body_models, device=world.device)
        body = KeypointLayer.of(models)
        people = PeopleStream(
            options.data,
            options.batch,
            seed=options.seed,
            ranks=world.ranks,
            rank=world.rank,
            parts=options.accumulate,
            augmentation=options.augmentation,
            root_basis=root_basis(models.skel),
        )
        run = start(first_network(options, world.device), options, people)
        if world.rank == 0:
            if run.epoch or run.step:
                tell_differences(options.output, option_values(options))
            with written(options.output / FILE) as hidden:
                write_options(hidden, option_values(options))
        if options.compile:
            run.model = torch.compile(run.model)
        if world.ranks > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            run.model = nn.parallel.DistributedDataParallel(run.model, device_ids=ids)
        last = options.epochs * people.cut.steps
        last = min(last, options.steps) if options.steps else last
        with Records(options, run, models, people.cut, last, world) if world.rank == 0 else NoRecords() as records:
            return loop(run, last, people, body, options, world, records, stop)


def loop(
    run: Run,
    last: int,
    people: PeopleStream,
    body: KeypointLayer,
    options: TrainOptions,
    world: World,
    records: Records | NoRecords,
    stop: list[int],
) -> int:
    """Steps from the run's place to step `last`; returns the exit status."""
    loss_config, steps = variant(options.variant, options.network, options.loss)[1], people.cut.steps
    batches = stream(people, run.epoch, run.step, options.epochs, options.workers, world.device.type == "cuda")
    saved = time.monotonic()
    run.model.train()
    for step in range(run.epoch * steps + run.step, last):
        parts = [as_batch(next(batches)[1]).to(world.device) for _ in range(options.accumulate)]
        records.data_arrived()
        torch.manual_seed(int(np.random.SeedSequence([options.seed, step, world.rank]).generate_state(1)[0]))
        set_learning_rate(run.optimiser, learning_rate(options, step, steps, last))
        loss, terms = gradients(run.model, parts, body, loss_config, options.precision, world)
        norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), options.gradient_norm))
        value, stopping = world.sum(loss), world.sum(float(len(stop))) > 0
        if math.isfinite(value) and math.isfinite(norm):
            run.update(options)
        else:
            run.skipped += 1
            log.warning("step %d skipped: loss %s, gradient norm %s", step, value, norm)
        run.optimiser.zero_grad(set_to_none=True)
        run.epoch, run.step = divmod(step + 1, steps)
        records.step_done(value, terms, norm, parts[0].people)
        if run.skipped >= options.nonfinite_limit:
            problem = f"the loss was not finite in {run.skipped} steps, the last of them step {step}"
            raise InputError(problem, field="--nonfinite-limit", expected="a lower learning rate, or sound data")
        due = time.monotonic() - saved > 60 * options.checkpoint_minutes
        due |= bool(options.checkpoint_steps) and (step + 1) % options.checkpoint_steps == 0
        if due or stopping or step + 1 == last:
            if world.rank == 0:
                write_checkpoint(run, options, people)
            saved = time.monotonic()
        if stopping:
            log.warning("stopped after step %d; the same command goes on from there", step + 1)
            return 128 + (stop[0] if stop else signal.SIGTERM)
        if run.step == 0 or step + 1 == last:
            records.epoch_done()
    records.run_done()
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
