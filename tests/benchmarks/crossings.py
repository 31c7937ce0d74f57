"""Who is who in films of people who cross: how often a track changes the person, and a person the number.

    python -m tests.benchmarks.crossings [--films 4] [--every 1 3 6]

Films of 66 frames, 30 a second, in 320 x 240 px, compressed as films are: two who pass each other, one who overtakes
another, three at once, one who passes somebody who stands, and two who turn back where they meet. Whom MoveNet finds
is held to the truth by the keypoints (median distance below a quarter of the person's size).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from pipelines.files.films import FilmWriter, film_frames
from tests.benchmarks.walkers import COCO, FilmTruth, Walker, film, walker
from train.predict.detect.movenet_detector import MoveNetDetector
from train.predict.detect.people import DetectedPeople
from train.predict.tracks import Tracker

FRAMES, RATE = 66, 30
SIZE, FOCAL = (320, 240), 300.0
KINDS = ("pass", "overtake", "three", "stand", "turn")
NEAR_THE_TRUTH = 0.25


@dataclass
class Options:
    films: int = 4
    """Of each kind."""
    every: list[int] = field(default_factory=lambda: [1, 3, 6])
    """Look at each so many-th frame."""


def scene(kind: str, rng: np.random.Generator) -> list[Walker]:
    """The people of a film."""
    times = np.arange(FRAMES) / RATE
    meet = FRAMES / RATE / 2 + rng.uniform(-0.15, 0.15)
    near, far = rng.uniform(3.0, 3.8), rng.uniform(4.2, 5.4)
    height = rng.uniform(0.0, 0.3)

    def line(speed: float, depth: float, sign: int, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        x = start + sign * speed * (times - meet)
        return np.stack([x, 0 * x + height, 0 * x + depth], 1), np.full(FRAMES, sign * np.pi / 2)

    def back(speed: float, depth: float, sign: int) -> tuple[np.ndarray, np.ndarray]:
        places, headings = line(speed, depth, sign)
        places[:, 0] = sign * speed * (0.15 - np.hypot(times - meet, 0.15))
        return places, -headings * np.tanh((times - meet) / 0.25)

    def speed() -> float:
        return rng.uniform(0.9, 1.6)

    depths = [near, far]
    rng.shuffle(depths)
    if kind == "pass":
        ways = [line(speed(), depths[0], 1), line(speed(), depths[1], -1)]
    elif kind == "overtake":
        ways = [line(rng.uniform(1.3, 1.8), depths[0], 1), line(rng.uniform(0.3, 0.7), depths[1], 1)]
    elif kind == "three":
        ways = [line(speed(), near, 1), line(speed(), far, -1)]
        ways.append(line(speed(), far + 1, -1, rng.uniform(-0.3, 0.3)))
    elif kind == "stand":
        ways = [line(speed(), near, 1), (line(0.0, far, 1)[0], np.full(FRAMES, rng.uniform(-0.7, 0.7)))]
    else:
        ways = [back(speed(), near, 1), back(speed(), far, -1)]
    return [walker(*way, RATE, rng) for way in ways]


def looked_at(people: Sequence[Walker], seed: int) -> list[tuple[DetectedPeople, np.ndarray]]:
    """Of each frame whom MoveNet finds, and who that is, -1 for nobody."""
    truth, detector = list(film(people, SIZE, FOCAL, seed)), MoveNetDetector()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with FilmWriter(path, RATE) as writer:
            for frame in truth:
                writer.write(frame.pixels)
        found = [detector(frame.pixels) for frame in film_frames(path)]
    return [(here, persons(here, frame)) for here, frame in zip(found, truth, strict=True)]


def persons(found: DetectedPeople, truth: FilmTruth) -> np.ndarray:
    """(n,) who is who."""
    who = np.full(len(found), -1)
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    apart = np.linalg.norm(truth.keypoints_2d[:, None, COCO] - found.keypoints[None, :, :, :2], axis=-1)
    share = np.median(apart, -1) / np.sqrt(sides.prod(1))[:, None]
    for person, n in zip(*linear_sum_assignment(np.minimum(share, 1.0)), strict=True):
        if share[person, n] < NEAR_THE_TRUTH:
            who[n] = person
    return who


def switches(looked_at: Sequence[tuple[DetectedPeople, np.ndarray]], every: int) -> tuple[int, int]:
    """How often somebody gets the number of somebody else, and how often a new one."""
    tracker, numbers, owners, taken, new = Tracker(), {}, {}, 0, 0
    for frame in range(0, len(looked_at), every):
        people, who = looked_at[frame]
        for number, person in zip(tracker(frame / RATE, people).tolist(), who.tolist(), strict=True):
            if person < 0:
                continue
            if numbers.get(person, number) != number:
                stolen = owners.get(number, person) != person
                taken, new = taken + stolen, new + (not stolen)
            numbers[person], owners[number] = number, person
    return taken, new


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    table = Table("films", *(f"every {n}" for n in options.every), title="Somebody else's number + new number")
    for k, kind in enumerate(KINDS):
        counts = np.zeros((len(options.every), 2), int)
        for n in tqdm(range(options.films), desc=kind):
            looked = looked_at(scene(kind, np.random.default_rng([k, n])), n)
            counts += [switches(looked, every) for every in options.every]
        table.add_row(f"{options.films} {kind}", *(f"{taken} + {new}" for taken, new in counts))
    Console().print(table)


if __name__ == "__main__":
    main()
