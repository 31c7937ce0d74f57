"""A network measured on people whom it is not trained on, beside the mean person, whom any network must beat."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from schemas import InputError
from train.data.config import DataConfig
from train.data.loader import PeopleStream
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.shards import evaluate_shards, mean_estimator, mean_person, network_estimator, shard_summary

if TYPE_CHECKING:
    from pipelines.files.body_models import BodyModels
    from train.network.model import SKELCF
    from train.options import TrainOptions

log = logging.getLogger(__name__)


def held_out_people(data: DataConfig, limit: int, batch: int) -> PeopleStream | None:
    """The first `limit` (0 = all) of those who are not trained on, if there are any; always in the same order."""
    try:
        return PeopleStream(replace(data, part="held-out", limit=limit, weights=[]), batch)
    except InputError as error:
        log.warning("no held-out people: %s", error)
        return None


class HeldOut:
    """The run's held-out people, opened when they are first needed."""

    def __init__(
        self, options: TrainOptions, models: BodyModels, device: torch.device, mean_is_known: bool = False
    ) -> None:
        self.options, self.models, self.device, self.mean_is_known = options, models, device, mean_is_known
        self._opened = False

    def measure(self, network: SKELCF, epoch: int) -> dict[str, float]:
        """`held_out/mpjpe_mm` and so on; the first time also `mean_person/...`. Nothing if nobody is held out."""
        if not self._opened:
            self.people = held_out_people(self.options.data, self.options.evaluate_people, self.options.batch)
            self._opened = True
        if self.people is None:
            return {}
        measured = {"held_out": network_estimator(network)}
        if not self.mean_is_known:
            measured["mean_person"], self.mean_is_known = mean_estimator(*mean_person(self.people)), True
        bodies = EvaluationBodies(self.models)
        scalars: dict[str, float] = {}
        for kind, estimator in measured.items():
            numbers = shard_summary(evaluate_shards(estimator, self.people, bodies, self.device))
            scalars |= {f"{kind}/{name}": value for name, value in numbers.items()}
            told = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            log.info("epoch %d, %s: %s", epoch, kind.replace("_", " "), told)
        return scalars
