"""What a training run tells: progress, TensorBoard scalars, pictures of predictions, measures on held-out people."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tqdm.contrib.logging import logging_redirect_tqdm

from pipelines.command.progress import on_terminal, progress_bar
from train.network.checkpoints import run_checkpoints
from train.run.curves import write_curves
from train.run.held_out import HeldOut
from train.run.panels import Panels
from train.run.state import first_network

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.files.body_models import BodyModels
    from train.data.order import Cut
    from train.options import TrainOptions
    from train.run.processes import World
    from train.run.state import Run

log = logging.getLogger(__name__)

_BAR = "{n_fmt}/{total_fmt} {bar} {elapsed}<{remaining}{postfix}"
"""Steps, time taken and left; within 80 columns with what follows."""


@dataclass
class Clock:
    """Where the time goes, since it was last told."""

    data_time: float = 0.0
    step_time: float = 0.0
    people: int = 0
    steps: int = 0
    mark: float = field(default_factory=time.perf_counter)

    def data_arrived(self) -> None:
        """The step's batches are here: what passed since the last step was waiting."""
        now = time.perf_counter()
        self.data_time, self.mark = self.data_time + now - self.mark, now

    def step_done(self, people: int) -> None:
        now = time.perf_counter()
        self.step_time, self.mark = self.step_time + now - self.mark, now
        self.steps, self.people = self.steps + 1, self.people + people

    def resume(self) -> None:
        """What passed since the last step was neither: pictures and measures."""
        self.mark = time.perf_counter()

    @property
    def seconds(self) -> float:
        return max(self.data_time + self.step_time, 1e-9)

    def scalars(self) -> dict[str, float]:
        return {
            "time/people_per_second": self.people / self.seconds,
            "time/seconds_per_step": self.step_time / max(self.steps, 1),
            "time/share_waiting_for_data": self.data_time / self.seconds,
        }


@dataclass
class Losses:
    """Losses of the finite steps since they were last told."""

    total: float = 0.0
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Added up where they are: to fetch them every step would take time."""
    count: int = 0

    def add(self, total: float, terms: dict[str, Tensor]) -> None:
        if math.isfinite(total):
            self.total, self.count = self.total + total, self.count + 1
            self.terms = {name: value + self.terms.get(name, 0) for name, value in terms.items()}

    def scalars(self) -> dict[str, float]:
        count = max(self.count, 1)
        means = {f"loss/{name}": float(value) / count for name, value in self.terms.items()}
        return means | {"loss/total": self.total / count}


class Records:
    """Of one run, by its first rank."""

    def __init__(self, options: TrainOptions, run: Run, models: BodyModels, cut: Cut, last: int, world: World) -> None:
        self.options, self.run, self.world, self.cut, self.last = options, run, world, cut, last
        self.clock, self.losses = Clock(), Losses()
        self.panels = Panels(options, models, world.device) if options.panel_steps else None
        measured = bool(options.evaluate_people)
        self.held_out = HeldOut(options, models, world.device, self.done >= cut.steps) if measured else None
        self._flops = 0
        self._open = contextlib.ExitStack()

    @property
    def done(self) -> int:
        """Steps since the beginning of the run."""
        return self.run.epoch * self.cut.steps + self.run.step

    def __enter__(self) -> Records:
        from torch.utils.tensorboard import SummaryWriter

        purge = self.done + 1 if self.done else None
        self.writer = SummaryWriter(str(self.options.output), purge_step=purge)
        self._open.callback(self.writer.close)
        self.bar = progress_bar(
            desc="train", unit="steps", total=self.last, initial=self.done, bar_format=_BAR, smoothing=0.05
        )
        self._open.callback(self.bar.close)
        if on_terminal():
            self._open.enter_context(logging_redirect_tqdm())
        if self.panels and self.done == 0:
            self._draw()
        self.clock.resume()
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def data_arrived(self) -> None:
        self.clock.data_arrived()

    def step_done(self, loss: float, terms: dict[str, Tensor], norm: float, people: int) -> None:
        """After the step of so many people on all ranks, with its loss, its terms and the norm of its gradient."""
        self.clock.step_done(people)
        self.losses.add(loss, terms)
        self.bar.update()
        if self._due(self.options.log_steps) or self._due(self.options.panel_steps):
            self._tell(norm)
        if self.panels and self._due(self.options.panel_steps):
            self._draw()
            self.clock.resume()

    def epoch_done(self) -> None:
        """Measures the moving average on held-out people; the other ranks wait at the next step."""
        if self.held_out:
            for name, value in self.held_out.measure(self.run.ema, self.run.epoch).items():
                self.writer.add_scalar(name, value, self.done)
        self.writer.flush()
        write_curves(self.options.output)
        self.clock.resume()

    def run_done(self) -> None:
        """Tells what the run has written."""
        self._open.close()
        output = self.options.output
        pictures = (output / name for name in ("curves.png", "before_after.png"))
        written = [*run_checkpoints(output)[-1:], *(picture for picture in pictures if picture.exists())]
        sys.stdout.write(", ".join(map(str, written)) + "\n")

    def _due(self, steps: int) -> bool:
        return bool(steps) and (self.done % steps == 0 or self.done == self.last)

    def _tell(self, norm: float) -> None:
        """Scalars, the bar and a line of the log, over the steps since the last time."""
        scalars = (
            self.losses.scalars()
            | self.clock.scalars()
            | {
                "optimiser/learning_rate": self.run.optimiser.param_groups[0]["lr"],
                "optimiser/gradient_norm": norm,
                "optimiser/skipped_steps": self.run.skipped,
            }
        )
        rate, loss = scalars["time/people_per_second"], scalars["loss/total"]
        if self.options.peak_tflops:
            scalars["time/model_flop_utilisation"] = self._utilisation(rate)
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.done)
        waiting = scalars["time/share_waiting_for_data"]
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f}/s, {waiting:.0%} wait")
        left = (self.last - self.done) * self.clock.seconds / max(self.clock.steps, 1)
        log.info("step %d/%d: loss %.4f, %.0f people/s, %.0f s left", self.done, self.last, loss, rate, left)
        self.clock, self.losses = Clock(), Losses()

    def _utilisation(self, rate: float) -> float:
        """Useful operations per second and device, as a share of what it could do.

        Three forward passes' worth per step: the backward pass takes two. What is computed twice counts once.
        """
        from train.network.model import forward_flops

        self._flops = self._flops or forward_flops(self.run.ema.config)
        return 3 * self._flops * rate / self.world.ranks / (1e12 * self.options.peak_tflops)

    def _draw(self) -> None:
        """People as the moving average sees them now; at the end also as seen before and after the training."""
        picture = self.panels.draw(self.run.ema, self.done)
        self.writer.add_image("people", picture, self.done, dataformats="HWC")
        if self.done == self.last:
            self.panels.draw_before_after(first_network(self.options, self.world.device), self.run.ema)


class NoRecords:
    """Of the other ranks."""

    def __enter__(self) -> NoRecords:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def data_arrived(self) -> None:
        pass

    def step_done(self, *_told: object) -> None:
        pass

    def epoch_done(self) -> None:
        pass

    def run_done(self) -> None:
        pass
