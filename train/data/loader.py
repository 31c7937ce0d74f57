"""Batches of people from HMR-SKEL shards, in an order that can be taken up anywhere.

Every batch is a function of its place (epoch, step, part) alone: worker processes take places in turn, and random
changes are seeded by the place of the person in the epoch. So neither the number of workers nor an interruption
changes what comes.
"""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from schemas import InputError
from train.data.augmentation import augment
from train.data.augmentation_config import NONE, AugmentationConfig
from train.data.config import DataConfig
from train.data.copies import Copies
from train.data.order import Cut, Order, Places, parse_weights
from train.data.people import select_people
from train.data.shards import LABELS, OpenShards, training_shards

_PATIENCE = 1.0
"""Seconds that a batch is waited for when nobody wants it any more."""


class PeopleStream(Dataset):
    """Batches by place (epoch, step, part), for one rank."""

    def __init__(
        self,
        config: DataConfig,
        batch: int,
        *,
        seed: int = 0,
        ranks: int = 1,
        rank: int = 0,
        parts: int = 1,
        shuffle: bool = True,
        augmentation: AugmentationConfig = NONE,
        root_basis: np.ndarray | None = None,
        fields: Sequence[str] = LABELS,
    ) -> None:
        self.config, self.augmentation, self.root_basis, self.fields = config, augmentation, root_basis, fields
        copies = Copies(Path(config.cache).expanduser(), config.cache_gb, config.allow_pipe)
        self.shards = training_shards(config.shards, copies)
        self.people, totals = select_people(self.shards, config)
        self.order = Order(self.people, seed, config.window, shuffle, parse_weights(config.weights))
        self.cut = Cut(int(self.order.counts().sum()), batch, ranks, parts)
        self.seed, self.rank = seed, rank
        window = max(config.window, 1) * len(self.people.datasets)
        self.open = OpenShards(self.shards, fields, 2 * window + 2, copies)
        # People of a window: while they come, the shards of the next one are copied.
        self.ahead = window * sum(totals) // len(self.shards) if any(shard.copied_from for shard in self.shards) else 0

    def __getitem__(self, place: tuple[int, int, int]) -> dict[str, Any]:
        """The batch at a place, as the plain values that `as_batch` takes; or the InputError that reading it caused."""
        epoch, step, part = place
        start, stop = self.cut.piece(step, part, self.rank)
        first, last = self.cut.step(step)
        rows = []
        if self.ahead:
            coming = self.order.coming(epoch, first, self.ahead)
            self.open.soon(list(dict.fromkeys(self.people.shard[coming].tolist())))
        try:
            for at in range(start, stop) if stop > start else [first]:
                rows.append(self.read(epoch, at))
        except InputError as error:  # the loader would bury it in the worker's traceback
            return {"error": error}
        stacked: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "key"}
        # Between processes every tensor takes a socket of its own, which is quicker than a pipe for the pixels alone.
        stacked["image"] = torch.from_numpy(stacked["image"])
        share = (stop - start) / (last - first)
        return stacked | {"share": share, "people": last - first, "keys": [row["key"] for row in rows]}

    def read(self, epoch: int, position: int) -> dict[str, Any]:
        """The person at a position of an epoch, as network input and labels."""
        index = self.order.epoch(epoch)[position]
        person = self.open[int(self.people.shard[index])].person(int(self.people.place[index]))
        rng = np.random.default_rng([self.seed, epoch, position])
        found = augment(person, self.augmentation, rng, self.root_basis, self.config.margin)
        extra = {name: person.arrays[name] for name in self.fields if name not in LABELS}
        return found | extra | {"key": person.key}


def stream(
    people: PeopleStream, epoch: int = 0, step: int = 0, epochs: int = 1, workers: int = 0, pinned: bool = False
) -> Iterator[tuple[tuple[int, int, int], dict[str, Any]]]:
    """(place, values for `as_batch`) from a place on, to the end of epoch `epochs` - 1. Workers live that long."""
    places = Places(people.cut, epoch, step, epochs)
    loader = DataLoader(
        people,
        batch_size=None,
        collate_fn=_as_it_is,  # the default makes tensors of all arrays
        sampler=places,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
    )
    batches = iter(loader)
    if not workers:
        yield from zip(places, batches, strict=True)
        return
    # Python ends what its processes have left with a SIGTERM and waits; these outlive one, so they are ended in time.
    end = partial(_end, batches)
    atexit.register(end)
    ahead = _ahead(batches)
    try:
        yield from zip(places, ahead, strict=True)
    finally:
        ahead.close()
        end()
        atexit.unregister(end)


def _ahead(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same, the next one always being fetched: what a worker has made takes milliseconds to come over."""
    coming = _fetched(batches)
    try:
        while (batch := coming.result()) is not None:
            coming = _fetched(batches)
            yield batch
    finally:
        wait([coming], _PATIENCE)


def _fetched(batches: Iterator[dict[str, Any]]) -> Future[dict[str, Any] | None]:
    """The next batch, None at the end, from a thread that nobody has to wait for."""
    future: Future[dict[str, Any] | None] = Future()

    def fetch() -> None:
        try:
            future.set_result(next(batches, None))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=fetch, daemon=True).start()
    return future


def _end(batches: Any) -> None:
    """Ends a loader's workers: in peace, or those that are in the midst of something long by force."""
    batches._shutdown_workers()
    for worker in batches._workers:
        worker.kill()


def _as_it_is(values: dict[str, Any]) -> dict[str, Any]:
    return values


def _start_worker(_number: int) -> None:
    import cv2

    # A scheduler may send SIGTERM, a terminal SIGINT, to all processes; whether to stop is for the trainer to say.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
