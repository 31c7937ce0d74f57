"""What a training run tells: progress, TensorBoard scalars, pictures of predictions, measures on held-out people."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from schemas import InputError
from train.streaming import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from train.options import TrainOptions
    from train.processes import World
    from train.samplers import Cut
    from train.trainer import Run

log = logging.getLogger(__name__)

PANEL_PEOPLE = 16


class Records:
    """Of one run; ranks other than the first keep none."""

    def __init__(self, options: TrainOptions, run: Run, cut: Cut, done: int, last: int, world: World) -> None:
        self.options, self.run, self.world, self.done, self.last = options, run, world, done, last
        self.writer = self.bar = None
        self.data_time = self.step_time = 0.0
        self.people, self.steps, self.began = 0, 0, time.perf_counter()
        self._mark, self._held_out, self._panel, self._before = self.began, None, None, None
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
        self.bar.update()
        steps, panels = self.options.log_steps, self.options.panel_steps or self.options.log_steps
        if self.done % steps and self.done % panels and self.done != self.last:
            return
        elapsed = max(self.data_time + self.step_time, 1e-9)
        rate, waiting = self.people / elapsed, self.data_time / elapsed
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} people/s, {waiting:.0%} waiting")
        scalars = {f"loss/{name}": float(value) for name, value in terms.items()} | {
            "loss/total": loss,
            "optimiser/learning_rate": self.run.optimiser.param_groups[0]["lr"],
            "optimiser/gradient_norm": norm,
            "optimiser/skipped_steps": self.run.skipped,
            "time/people_per_second": rate,
            "time/seconds_per_step": self.step_time / self.steps,
            "time/share_waiting_for_data": waiting,
        }
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.done)
        left = (self.last - self.done) * elapsed / self.steps
        log.info("step %d/%d: loss %.4f, %.0f people/s, %.0f s left", self.done, self.last, loss, rate, left)
        if self.options.panel_steps and (self.done % self.options.panel_steps == 0 or self.done == self.last):
            self._draw()
        self.data_time = self.step_time = 0.0
        self.people = self.steps = 0
        self._mark = time.perf_counter()

    def epoch_done(self) -> None:
        """Measures the moving average on held-out people, on the first rank; the others wait at the next step."""
        if self.writer is not None and self.options.evaluate_people:
            numbers = self._measured()
            for name, value in numbers.items():
                self.writer.add_scalar(f"held_out/{name}", value, self.done)
            told = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            log.info("epoch %d, held-out people: %s", self.run.epoch, told)
        self._mark = time.perf_counter()

    def _measured(self) -> dict[str, float]:
        from train.evaluation import Bodies, evaluate, network_estimator, summary
        from train.streaming import PeopleStream

        options = self.options
        if self._held_out is None:
            data = replace(options.data, part="held-out", limit=options.evaluate_people, weights=[])
            try:
                people = PeopleStream(data, options.batch, shuffle=False)
            except InputError as error:
                log.warning("nobody to measure on: %s", error)
                options.evaluate_people = 0
                return {}
            self._held_out = people, Bodies(options.body_models, self.world.device)
        people, bodies = self._held_out
        protocol = "3dpw" if "J_regressor_SMPL_MALE" in bodies.regressors else "h36m"
        return summary(evaluate(network_estimator(self.run.ema), people, bodies, self.world.device, protocol))

    def _draw(self) -> None:
        """Writes OUTPUT/panels/NNNNNNNN.png: some people as the moving average sees them now."""
        import cv2

        from train.panels import draw_estimates, estimates, sheet

        folder = self.options.output / "panels"
        folder.mkdir(parents=True, exist_ok=True)
        batch, skel, labels = self._shown()
        now = draw_estimates(batch, skel, *estimates(self.run.ema, batch))
        crops = list(batch.image.cpu().numpy())
        picture = sheet({"image": crops, f"step {self.done}": now, "label": labels})
        cv2.imwrite(str(folder / f"{self.done:08d}.png"), picture[:, :, ::-1])
        self.writer.add_image("people", picture, self.done, dataformats="HWC")
        if self.done == 0:
            self._before = now
        elif self.done == self.last and self._before:
            columns = {"image": crops, "before": self._before, "after": now, "label": labels}
            cv2.imwrite(str(self.options.output / "before_after.png"), sheet(columns)[:, :, ::-1])

    def _shown(self):
        """The people whose pictures are drawn, SKEL, and the people with their labels drawn."""
        if self._panel is None:
            from fitting import SKEL
            from train.body import KeypointLayer
            from train.panels import draw_labels
            from train.streaming import PeopleStream, as_batch

            options = self.options
            people = PeopleStream(replace(options.data, limit=PANEL_PEOPLE, weights=[]), PANEL_PEOPLE, shuffle=False)
            batch = as_batch(people[0, 0, 0]).to(self.world.device)
            skel = SKEL.load(options.body_models).to(self.world.device)
            body = KeypointLayer.load(options.body_models).to(self.world.device)
            self._panel = batch, skel, draw_labels(batch, skel, body)
        return self._panel

    def close(self) -> None:
        if self.writer is not None:
            self.bar.close()
            self.writer.close()
