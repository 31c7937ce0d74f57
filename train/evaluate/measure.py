"""A benchmark's people measured: every method, every stage of it, as published and clean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.command.progress import progress_bar
from train.benchmarks.known import Opened
from train.benchmarks.people import BenchmarkPeople
from train.benchmarks.stream import BenchmarkCrops, CropBatch, crop_batches
from train.evaluate.bodies import EvaluationBodies, body_errors
from train.evaluate.estimates import Estimated, Method
from train.evaluate.metrics import correct_keypoints
from train.evaluate.protocols import CONFIDENT, THRESHOLDS, Protocol
from train.network.camera import project

log = logging.getLogger(__name__)

UNSTATED = "neutral"
"""SMPL of rows that say no gender."""


@dataclass(frozen=True)
class Measured:
    """One method's stage on one benchmark by one protocol."""

    method: str
    stage: str
    rules: Protocol
    people: np.ndarray
    """(N,) their numbers in the benchmark; the arrays below have the same order"""
    errors: dict[str, np.ndarray]
    """(N,) mpjpe_mm, ... ; (N, n) joints_mm; (N, 44) hits_0.05, hits_0.1, annotated, kpl2"""
    poses: np.ndarray
    """(N, 46)"""
    betas: np.ndarray
    trans: np.ndarray | None
    """(N, 3) before the camera of `focal` (N,) px whose principal point is `principal` (N, 2)"""
    focal: np.ndarray | None
    principal: np.ndarray | None


@torch.inference_mode()
def measure(
    opened: Opened,
    methods: Sequence[Method],
    protocols: Sequence[Protocol],
    bodies: EvaluationBodies,
    settings: BenchmarkCrops,
    device: torch.device,
    batch: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> list[Measured]:
    """Every method and stage by every protocol, in this order."""
    people, pieces, outside = opened.people, {}, []
    looked_at = any(method.images for method in methods)
    batches = crop_batches(people, opened.images, settings, batch, workers) if looked_at else _numbers(people, batch)
    with progress_bar(desc=opened.name, unit="people", total=len(people), quiet=not progress) as bar:
        for crops in batches:
            crops = crops.to(device)
            for method in methods:
                for stage, estimated in method(crops).items():
                    for n, errors in enumerate(_errors(estimated, crops.people, people, bodies, protocols, device)):
                        pieces.setdefault((method.name, stage, n), []).append((crops.people, errors, estimated))
            outside += _outside(crops)
            bar.update(len(crops.people))
    if outside:
        said = "%s: boxes of %d people lie outside their images, that of row %d the first: are these the images?"
        log.warning(said, people.file, len(outside), people.rows[min(outside)])
    return [_joined(key, protocols[key[2]], parts) for key, parts in pieces.items()]


def _outside(crops: CropBatch) -> list[int]:
    """People whose boxes show nothing of their images."""
    if not len(crops.image):
        return []
    half = crops.box[:, None] / 2
    beside = (crops.center + half <= 0) | (crops.center - half >= crops.image_size)
    return crops.people[beside.any(1).cpu().numpy()].tolist()


def _numbers(people: BenchmarkPeople, batch: int) -> Iterator[CropBatch]:
    """Batches without pictures."""
    for start in range(0, len(people), batch):
        rows = np.arange(start, min(start + batch, len(people)))
        yield CropBatch(rows, *(torch.zeros(0),) * 6)


def _errors(
    estimated: Estimated,
    rows: np.ndarray,
    people: BenchmarkPeople,
    bodies: EvaluationBodies,
    protocols: Sequence[Protocol],
    device: torch.device,
) -> list[dict[str, np.ndarray]]:
    """Of B people, by each protocol."""
    vertices = bodies.skel_vertices(estimated.poses, estimated.betas)
    seen = _accuracy(estimated, vertices, rows, people, bodies, device)
    found = []
    for rules in protocols:
        errors = {name: value.cpu().numpy() for name, value in seen.items()}
        if rules.chosen:
            goals, goal_vertices, confidence = _truth(rules, rows, people, bodies, device)
            points = bodies.points(vertices, rules)
            measured = body_errors(rules, points, goals, vertices, goal_vertices, confidence)
            errors |= {name: value.cpu().numpy() for name, value in measured.items()}
        found.append(errors)
    return found


def true_genders(stated: np.ndarray, rules: Protocol) -> np.ndarray:
    """(N,) of which SMPL truth's meshes are, by what labels state (N,)."""
    taken = {"unstated": UNSTATED, "neutral": rules.neutral}
    return np.array([taken.get(g, g) for g in stated], object)


def _truth(
    rules: Protocol, rows: np.ndarray, people: BenchmarkPeople, bodies: EvaluationBodies, device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Points (B, P, 3) m, vertices (B, V, 3) and the points' confidence (B, P), where the protocol has them."""
    if rules.points == "keypoints":
        known = _tensor(people.keypoints_3d[rows], device)
        return known[..., :3], None, known[..., 3]
    genders = true_genders(people.gender[rows], rules)
    vertices, joints = bodies.smpl(_tensor(people.poses[rows], device), _tensor(people.betas[rows], device), genders)
    return bodies.true_points(vertices, joints, genders, rules), vertices, None


def _accuracy(
    estimated: Estimated,
    vertices: Tensor,
    rows: np.ndarray,
    people: BenchmarkPeople,
    bodies: EvaluationBodies,
    device: torch.device,
) -> dict[str, Tensor]:
    """Hits of the 44 keypoints, in units of the longer side of the label's box; nothing where nobody says where."""
    if people.keypoints_2d is None or estimated.trans is None or not bodies.has_keypoints:
        return {}
    placed = bodies.keypoints(vertices) + estimated.trans[:, None]
    center, side = people.center[rows][:, None], people.label_box[rows].max(1)[:, None, None]
    pixels = (project(placed.double(), estimated.framing) - _tensor(center, device).double()) / _tensor(side, device)
    labels = people.keypoints_2d[rows].copy()
    labels[..., :2] = (labels[..., :2] - center) / side
    target = torch.as_tensor(labels, device=device)
    found = {}
    for threshold in THRESHOLDS:
        found[f"hits_{threshold}"], found["annotated"] = correct_keypoints(pixels, target, threshold, CONFIDENT)
    squared = (pixels - target[..., :2]).square().sum(-1)
    found["kpl2"] = (target[..., 2] * squared).mean(-1)
    return found


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def _joined(key: tuple[str, str, int], rules: Protocol, parts: list[tuple]) -> Measured:
    order = np.argsort(np.concatenate([rows for rows, _, _ in parts]), kind="stable")

    def together(values: list) -> np.ndarray | None:
        return None if values[0] is None else np.concatenate([np.asarray(v) for v in values])[order]

    estimates = [estimated for _, _, estimated in parts]
    framings = [e.framing for e in estimates]
    return Measured(
        method=key[0],
        stage=key[1],
        rules=rules,
        people=together([rows for rows, _, _ in parts]),
        errors={name: together([errors[name] for _, errors, _ in parts]) for name in parts[0][1]},
        poses=together([e.poses.cpu() for e in estimates]),
        betas=together([e.betas.cpu() for e in estimates]),
        trans=together([None if e.trans is None else e.trans.cpu() for e in estimates]),
        focal=together([None if f is None else f.focal.cpu() for f in framings]),
        principal=together([None if f is None else f.principal.cpu() for f in framings]),
    )
