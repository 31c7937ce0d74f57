"""Which people come when: a pure function of seed and epoch, whatever the number of processes and workers.

An epoch is a list of people. Shards are shuffled, then people among `window` shards at a time, so that only few tars
are open; data sets are interleaved evenly. The list is cut into global batches; a step's batch is cut into equal
pieces (the sizes differ by one at most, in the last step), one for each rank and each accumulated part of the step.
So a run's place in its data is two numbers, epoch and step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas import InputError
from train.data.people import People


@dataclass(frozen=True, eq=False)
class Order:
    """Epochs over `people`.

    With `weights` (data set -> share; others 0) an epoch still has as many draws as there are people, divided by the
    shares; each data set is walked through in permutations that go on over the epochs, so that all of its people are
    seen equally often. Without, everybody is seen exactly once per epoch. Raises InputError for unknown data sets.
    """

    people: People
    seed: int = 0
    window: int = 8
    shuffle: bool = True
    weights: Mapping[str, float] | None = None
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.people):
            raise InputError("nobody is left to draw", expected="shards with people who pass the filters")
        for name, weight in (self.weights or {}).items():
            if name not in self.people.datasets:
                known = ", ".join(self.people.datasets)
                raise InputError(f"no data set {name!r}", field="--weights", expected=f"some of {known}")
            if not 0 <= weight < float("inf"):
                raise InputError(f"a weight of {weight} for {name}", field="--weights", expected="0 or more")
        if self.weights and not sum(self.weights.values()):
            raise InputError("all weights are 0", field="--weights")

    def counts(self) -> np.ndarray:
        """Draws per epoch from each data set."""
        sizes = np.bincount(self.people.dataset, minlength=len(self.people.datasets))
        if not self.weights:
            return sizes
        shares = np.array([self.weights.get(name, 0.0) for name in self.people.datasets])
        ends = np.rint(np.cumsum(shares * (sizes > 0)) / (shares * (sizes > 0)).sum() * sizes.sum()).astype(np.int64)
        return np.diff(ends, prepend=0)

    def epoch(self, number: int) -> np.ndarray:
        """People of an epoch in the order in which they come: indices into `people`. The last two are kept."""
        if number not in self._epochs:
            self._epochs[number] = self._drawn(number)
            for old in list(self._epochs)[:-2]:
                del self._epochs[old]
        return self._epochs[number]

    def coming(self, number: int, position: int, people: int) -> np.ndarray:
        """The next people from a position of an epoch on, into the next epoch if need be."""
        rest = self.epoch(number)[position : position + people]
        return rest if len(rest) == people else np.concatenate([rest, self.epoch(number + 1)[: people - len(rest)]])

    def _drawn(self, number: int) -> np.ndarray:
        counts = self.counts()
        turns = np.repeat(np.arange(len(counts)), counts)
        if self.shuffle:
            turns = self._rng(number, 0).permutation(turns)
        order = np.empty(len(turns), np.int64)
        for dataset, count in enumerate(counts):
            order[turns == dataset] = self._walk(dataset, number * int(count), int(count))
        return order

    def _walk(self, dataset: int, start: int, count: int) -> np.ndarray:
        members = np.flatnonzero(self.people.dataset == dataset)
        parts, stop = [members[:0]], start + count
        while start < stop:
            lap, offset = divmod(start, len(members))
            taken = min(len(members) - offset, stop - start)
            parts.append(self._shuffled(members, dataset, lap)[offset : offset + taken])
            start += taken
        return np.concatenate(parts)

    def _shuffled(self, members: np.ndarray, dataset: int, lap: int) -> np.ndarray:
        if not self.shuffle:
            return members
        rng = self._rng(lap, 1 + dataset)
        shards, of_member = np.unique(self.people.shard[members], return_inverse=True)
        group = rng.permutation(len(shards))[of_member] // max(self.window, 1)
        return members[np.lexsort((rng.random(len(members)), group))]

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])


@dataclass(frozen=True)
class Cut:
    """How an epoch of `people` is cut into steps, ranks and accumulated parts; `batch` people in each of the pieces."""

    people: int
    batch: int
    ranks: int = 1
    parts: int = 1

    @property
    def global_batch(self) -> int:
        return self.batch * self.ranks * self.parts

    @property
    def steps(self) -> int:
        """Steps per epoch, the same on all ranks."""
        return -(-self.people // self.global_batch)

    def step(self, step: int) -> tuple[int, int]:
        """[start, stop) of a step in the epoch."""
        return step * self.global_batch, min((step + 1) * self.global_batch, self.people)

    def piece(self, step: int, part: int = 0, rank: int = 0) -> tuple[int, int]:
        """[start, stop) in the epoch of one rank's part of a step; it can be empty in the last step."""
        start, stop = self.step(step)
        pieces, number = self.ranks * self.parts, part * self.ranks + rank
        return tuple(start + (stop - start) * n // pieces for n in (number, number + 1))  # type: ignore[return-value]


class Places:
    """A sampler: (epoch, step, part) from a place on, to the end of the last epoch."""

    def __init__(self, cut: Cut, epoch: int, step: int, epochs: int) -> None:
        self.cut, self.epoch, self.step, self.epochs = cut, epoch, step, epochs

    def __iter__(self):
        step = self.step
        for epoch in range(self.epoch, self.epochs):
            for s in range(step, self.cut.steps):
                yield from ((epoch, s, part) for part in range(self.cut.parts))
            step = 0

    def __len__(self) -> int:
        return max(0, (self.epochs - self.epoch) * self.cut.steps - self.step) * self.cut.parts


def parse_weights(texts: Sequence[str]) -> dict[str, float] | None:
    """`aic=2 coco=1` as a dictionary; None for nothing. Raises InputError."""
    weights = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            equals = ""
        if not (equals and name):
            raise InputError(f"{text!r} given", field="--weights", expected="DATASET=NUMBER, such as aic=2")
    return weights or None
