"""What a training run tells: progress, TensorBoard scalars, pictures of predictions, measures on held-out people."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from schemas import InputError
from train.data.batch import Batch
from train.network.checkpoints import run_checkpoints
from train.run.curves import write_curves

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fitting import SKEL
    from train.data.loader import PeopleStream
    from train.data.order import Cut
    from train.network.model import SKELCF
    from train.options import TrainOptions
    from train.run.processes import World
    from train.run.trainer import Run

log = logging.getLogger(__name__)

PANEL_PEOPLE = 16


class Records:
    """Of one run; ranks other than the first keep none."""

    def __init__(self, options: TrainOptions, run: Run, cut: Cut, done: int, last: int, world: World) -> None:
        self.options, self.run, self.world, self.done, self.last = options, run, world, done, last
        self.writer = self.bar = None
        self.data_time = self.step_time = 0.0
        self._losses: list[float] = []
        self._terms: dict[str, Tensor] = {}
        """Of the steps since the last scalars, added up where they are: to fetch them every step would take time."""
        self.people, self.steps, self.began = 0, 0, time.perf_counter()
        self._mark, self._held_out, self._panel = self.began, None, None
        self._flops: int | None = None
        self._mean_is_known = done >= cut.steps
        if world.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(options.output), purge_step=done + 1 if done else None)
            self.bar = tqdm(total=last, initial=done, desc="train", unit="step", disable=None, smoothing=0.05)
            if options.panel_steps and done == 0:
                self._draw()

    def data_arrived(self) -> None:
        """The step's batches are here: what passed since the last step was waiting."""
        now = time.perf_counter()
        self.data_time, self._mark = self.data_time + now - self._mark, now

    def step_done(self, loss: float, terms: dict[str, Tensor], norm: float, parts: list[Batch]) -> None:
        now = time.perf_counter()
        self.step_time, self._mark = self.step_time + now - self._mark, now
        self.done, self.steps, self.people = self.done + 1, self.steps + 1, self.people + parts[0].people
        if self.writer is None:
            return
        if math.isfinite(loss):
            self._losses.append(loss)
            self._terms = {name: value + self._terms.get(name, 0) for name, value in terms.items()}
        self.bar.update()
        steps, panels = self.options.log_steps, self.options.panel_steps or self.options.log_steps
        if self.done % steps and self.done % panels and self.done != self.last:
            return
        elapsed = max(self.data_time + self.step_time, 1e-9)
        rate, waiting = self.people / elapsed, self.data_time / elapsed
        counted = max(len(self._losses), 1)
        mean_loss = sum(self._losses) / counted
        self.bar.set_postfix_str(f"loss {mean_loss:.4f}, {rate:,.0f} people/s, {waiting:.0%} waiting")
        scalars = {f"loss/{name}": float(value) / counted for name, value in self._terms.items()} | {
            "loss/total": mean_loss,
            "optimiser/learning_rate": self.run.optimiser.param_groups[0]["lr"],
            "optimiser/gradient_norm": norm,
            "optimiser/skipped_steps": self.run.skipped,
            "time/people_per_second": rate,
            "time/seconds_per_step": self.step_time / self.steps,
            "time/share_waiting_for_data": waiting,
        }
        if self.options.peak_tflops:
            # Three forward passes' worth per step: the backward pass takes two. What is computed twice counts once.
            useful = 3 * self._forward_flops() * rate / self.world.ranks
            scalars["time/model_flop_utilisation"] = useful / (1e12 * self.options.peak_tflops)
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.done)
        left = (self.last - self.done) * elapsed / self.steps
        log.info("step %d/%d: loss %.4f, %.0f people/s, %.0f s left", self.done, self.last, mean_loss, rate, left)
        if self.options.panel_steps and (self.done % self.options.panel_steps == 0 or self.done == self.last):
            self._draw()
        self.data_time = self.step_time = 0.0
        self.people = self.steps = 0
        self._losses.clear()
        self._terms.clear()
        self._mark = time.perf_counter()

    def _forward_flops(self) -> int:
        from train.network.model import forward_flops

        if self._flops is None:
            self._flops = forward_flops(self.run.ema.config)
        return self._flops

    def epoch_done(self) -> None:
        """Measures the moving average on held-out people, on the first rank; the others wait at the next step."""
        if self.writer is not None:
            if self.options.evaluate_people:
                self._measure()
            self.writer.flush()
            write_curves(self.options.output)
        self._mark = time.perf_counter()

    def _measure(self) -> None:
        from train.evaluate.command import Bodies, evaluate, mean_estimator, mean_person, network_estimator, summary

        options, device = self.options, self.world.device
        if self._held_out is None:
            people = self._held_out_people(options.evaluate_people, options.batch)
            if people is None:
                options.evaluate_people = 0
                return
            self._held_out = people, Bodies(options.body_models, device)
        people, bodies = self._held_out
        protocol = "3dpw" if "J_regressor_SMPL_MALE" in bodies.regressors else "h36m"
        measured = {"held_out": network_estimator(self.run.ema)}
        if not self._mean_is_known:
            measured["mean_person"], self._mean_is_known = mean_estimator(*mean_person(people)), True
        for kind, estimator in measured.items():
            numbers = summary(evaluate(estimator, people, bodies, device, protocol))
            for name, value in numbers.items():
                self.writer.add_scalar(f"{kind}/{name}", value, self.done)
            told = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            log.info("epoch %d, %s: %s", self.run.epoch, kind.replace("_", " "), told)

    def _held_out_people(self, limit: int, batch: int) -> PeopleStream | None:
        """The first `limit` (0 = all) of those who are not trained on, if there are any; always in the same order."""
        from train.data.loader import PeopleStream

        try:
            data = replace(self.options.data, part="held-out", limit=limit, weights=[])
            return PeopleStream(data, batch)
        except InputError as error:
            log.warning("no held-out people: %s", error)
            return None

    def _draw(self) -> None:
        """Writes OUTPUT/panels/NNNNNNNN.png: some people as the moving average sees them now.

        At the end also OUTPUT/before_after.png, the same people as seen before and after the training.
        """
        import cv2

        from train.run.panels import sheet
        from train.run.trainer import first_network

        folder = self.options.output / "panels"
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = self._shown()[2:]
        now = self._seen_by(self.run.ema)
        picture = sheet({"image": images, f"step {self.done}": now, "label": labels})
        cv2.imwrite(str(folder / f"{self.done:08d}.png"), picture[:, :, ::-1])
        self.writer.add_image("people", picture, self.done, dataformats="HWC")
        if self.done == self.last:
            before = self._seen_by(first_network(self.options, self.world.device))
            columns = {"image": images, "before": before, "after": now, "label": labels}
            cv2.imwrite(str(self.options.output / "before_after.png"), sheet(columns)[:, :, ::-1])

    def _seen_by(self, network: SKELCF) -> list[np.ndarray]:
        from train.run.panels import draw_estimates, estimates

        batch, skel = self._shown()[:2]
        return draw_estimates(batch, skel, *estimates(network, batch))

    def _shown(self) -> tuple[Batch, SKEL, list[np.ndarray], list[np.ndarray]]:
        """Some people, held-out ones if there are any; SKEL; the people's crops, bare and with labels."""
        if self._panel is None:
            from fitting import SKEL
            from train.data.batch import as_batch
            from train.data.loader import PeopleStream
            from train.run.body import KeypointLayer
            from train.run.panels import draw_labels

            options, device = self.options, self.world.device
            people = self._held_out_people(0, PANEL_PEOPLE) if options.data.part == "training" else None
            if people is None:
                people = PeopleStream(replace(options.data, weights=[]), PANEL_PEOPLE)
            batch, skel = as_batch(people[0, 0, 0]).to(device), SKEL.load(options.body_models).to(device)
            labels = draw_labels(batch, skel, KeypointLayer.load(options.body_models).to(device))
            self._panel = batch, skel, list(batch.image.cpu().numpy()), labels
        return self._panel

    def close(self) -> None:
        """Ends the run's records and tells what it has written."""
        if self.writer is None:
            return
        self.bar.close()
        self.writer.close()
        output = self.options.output
        pictures = (output / name for name in ("curves.png", "before_after.png"))
        written = [*run_checkpoints(output)[-1:], *(picture for picture in pictures if picture.exists())]
        sys.stdout.write(", ".join(map(str, written)) + "\n")
