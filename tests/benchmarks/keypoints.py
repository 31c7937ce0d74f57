"""SKEL from 2D keypoints: this project's fit against the plain L-BFGS, on rendered people whose truth is known.

    python -m tests.benchmarks.keypoints [--people 200] [--plain 24] [--motion FILE.npz]

People are the demo's: SMPL in poses that the pose prior of the fit was made of as well, drawn anew, with other shapes,
seen by other cameras. `--motion` adds people of somebody's SMPL parameters in the camera frame (poses, betas, trans),
whose poses the prior has never seen. Errors in 3D are over the 44 keypoints, against those of the SMPL mesh: mean
distance with the pelvises together (MPJPE) and after the best similarity (PA). Reprojection is over the keypoints that
can be seen. Seconds are the process's own on one core, so that other processes do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from fitting import KeypointBody, fit_keypoints
from fitting.body.keypoints import skel_keypoints
from fitting.fit.keypoint_layouts import LAYOUTS, to_44
from pipelines.demo.scenes import demo_studio, draw_cast, take_photo
from pipelines.files.body_models import BodyModels
from schemas.camerahmr import KEYPOINT_NAMES
from tests.benchmarks.lbfgs_keypoints import plain_fit
from train.predict.detect.movenet_detector import MoveNetDetector
from train.predict.detect.people import SEEN, intersection_over_union
from train.run.body import KeypointLayer

SEED = 77
PEOPLE_PER_PICTURE = (1, 5)
LEAST_SEEN = 12
"""Keypoints of the 44 that must be seen of a person who is to be fitted."""
PELVIS = 39
COCO = [KEYPOINT_NAMES.index(name) for name in LAYOUTS["coco17"]]


@dataclass
class Options:
    people: int = 200
    """Rendered people."""
    plain: int = 24
    """People whom the plain fit is given, the first ones, in one batch; it takes seconds for each."""
    mesh: bool = False
    """Let the plain fit pose the whole mesh in each step, as published, rather than the vertices keypoints need."""
    motion: Path | None = None
    """SMPL parameters in the camera frame (.npz: poses, betas, trans), seen by a camera of 1,000 px."""


@dataclass(frozen=True)
class Truth:
    """B people, their cameras, and what is known of them."""

    keypoints: np.ndarray
    """(B, 44, 3) px and 1 where seen"""
    points: np.ndarray
    """(B, 44, 3) m"""
    focal: np.ndarray
    principal: np.ndarray
    boxes: np.ndarray

    def of(self, index: slice | np.ndarray) -> Truth:
        return Truth(*(value[index] for value in vars(self).values()))

    @property
    def sides(self) -> np.ndarray:
        return (self.boxes[:, 2:] - self.boxes[:, :2]).max(1)


def rendered(count: int) -> tuple[Truth, np.ndarray, float]:
    """People of demo pictures; MoveNet's keypoints of them (B, 17, 3), NaN where it found nobody; its seconds each."""
    rng = np.random.default_rng([SEED, 0])
    studio, detector = demo_studio(), MoveNetDetector()
    parts, found, seconds, pictures = [], [], 0.0, 0
    bar = tqdm(total=count, desc="Rendering people", unit="person")
    while sum(len(part.boxes) for part in parts) < count:
        cast = draw_cast(int(rng.integers(*PEOPLE_PER_PICTURE)), rng)
        photo = take_photo(studio, cast, np.random.default_rng([SEED, 1, pictures]))
        pictures += 1
        begun = time.process_time()
        people = detector(photo.image)
        seconds += time.process_time() - begun
        kept = np.flatnonzero((photo.keypoints_2d[..., 2] > 0).sum(1) >= LEAST_SEEN)
        overlap = intersection_over_union(photo.boxes, people.boxes)
        matched = {int(a): int(b) for a, b in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[a, b] > 0.5}
        for n in kept:
            found.append(people.keypoints[matched[n]] if n in matched else np.full((17, 3), np.nan))
        size = len(kept)
        parts.append(
            Truth(
                photo.keypoints_2d[kept],
                photo.keypoints_3d[kept, :, :3],
                np.full(size, photo.cam_int[0, 0]),
                np.tile(photo.cam_int[:2, 2], (size, 1)),
                photo.boxes[kept],
            )
        )
        bar.update(size)
    bar.close()
    truth = Truth(*(np.concatenate(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))
    return truth.of(slice(count)), np.array(found)[:count], seconds / pictures


def motion_people(path: Path, focal: float = 1000.0, middle: float = 500.0) -> Truth:
    """Every frame of a motion, as a camera sees it."""
    with np.load(path, allow_pickle=False) as stored:
        poses, betas, trans = (np.asarray(stored[name], np.float64) for name in ("poses", "betas", "trans"))
    betas = np.broadcast_to(betas[..., :10], (len(poses), 10)).copy()
    points = demo_studio().bodies(poses.reshape(len(poses), -1)[:, :72], betas, trans)[2]
    pixels = points[..., :2] / points[..., 2:] * focal + middle
    boxes = np.concatenate([pixels.min(1), pixels.max(1)], 1)
    seen = np.ones((*pixels.shape[:2], 1))
    camera = np.full(len(poses), focal), np.full((len(poses), 2), middle)
    return Truth(np.concatenate([pixels, seen], 2), points, *camera, boxes)


def aligned(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B,) mean distance after the best proper similarity of points (B, N, 3)."""
    a, b = (points - points.mean(1, keepdims=True) for points in (found, truth))
    u, s, vt = np.linalg.svd(np.einsum("bni,bnj->bij", a, b))
    hand = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= hand[:, None]
    s = np.concatenate([s[:, :2], s[:, 2:] * hand[:, None]], 1)
    scale = s.sum(1) / np.square(a).sum((1, 2))
    return np.linalg.norm(scale[:, None, None] * (a @ (u @ vt)) - b, axis=2).mean(1)


def add_row(table: Table, name: str, truth: Truth, pixels: np.ndarray, points: np.ndarray, seconds: float) -> None:
    """One line; mean and median over people."""
    seen = truth.keypoints[..., 2] > 0
    apart = np.linalg.norm(pixels - truth.keypoints[..., :2], axis=2)
    share = 100 * (apart / truth.sides[:, None])[seen].mean()
    moved = (points - points[:, PELVIS, None]) - (truth.points - truth.points[:, PELVIS, None])
    mpjpe, pa = 1000 * np.linalg.norm(moved, axis=2).mean(1), 1000 * aligned(points, truth.points)
    cells = (
        f"{apart[seen].mean():.2f}",
        f"{share:.2f}",
        *(f"{v.mean():.0f} ({np.median(v):.0f})" for v in (mpjpe, pa)),
    )
    table.add_row(name, str(len(pixels)), *cells, f"{seconds / len(pixels):.3f}")


def timed(work: Callable):
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    console = Console()
    truth, found, detecting = rendered(options.people)
    known = np.isfinite(found).all((1, 2))
    console.print(f"MoveNet finds {known.sum()} of {len(known)} people, {detecting:.3f} s a picture.")
    both = (truth.keypoints[:, COCO, 2] > 0) & (found[..., 2] >= SEEN)
    apart = np.linalg.norm(found[..., :2] - truth.keypoints[:, COCO, :2], axis=2) / truth.sides[:, None]
    console.print(f"Its keypoints lie {100 * np.median(apart[both]):.2f} % of the box's longer side off (median).")

    body = KeypointBody.load()
    layer = KeypointLayer.of(BodyModels("demo"))
    fit_keypoints(truth.keypoints[:8], truth.focal[:8], truth.principal[:8], body=body)
    table = Table(
        "fit, from", "people", "px", "% side", "MPJPE mm", "PA mm", "s/person", title="Mean (median) over people"
    )

    def ours(name: str, truth: Truth, given: np.ndarray) -> None:
        fit, seconds = timed(lambda: fit_keypoints(given, truth.focal, truth.principal, body=body))
        kept = fit.valid.numpy()  # of COCO's 17 somebody may show too few
        add_row(table, name, truth.of(kept), fit.keypoints_2d.numpy()[kept], fit.keypoints_3d.numpy()[kept], seconds)

    def plain(name: str, truth: Truth, given: np.ndarray) -> None:
        work = layer if not options.mesh else WholeMesh()
        fit, seconds = timed(lambda: plain_fit(work, given, truth.boxes))
        add_row(table, name, truth, fit.keypoints_2d.numpy(), fit.keypoints_3d.numpy(), seconds)

    few = truth.of(slice(options.plain))
    ours("ours, true 44", truth, truth.keypoints)
    ours("ours, true 44", few, few.keypoints)
    plain("plain, true 44", few, few.keypoints)
    seen = truth.of(known)
    ours("ours, true COCO", truth, truth.keypoints[:, COCO])
    ours("ours, MoveNet", seen, found[known])
    plain("plain, MoveNet", seen.of(slice(options.plain)), to_44(found[known][: options.plain]))
    if options.motion is not None:
        moving = motion_people(options.motion)
        ours("ours, motion", moving, moving.keypoints)
        plain("plain, motion", moving.of(slice(options.plain)), moving.keypoints[: options.plain])
    console.print(table)


class WholeMesh(torch.nn.Module):
    """The keypoints by way of all vertices."""

    def __init__(self) -> None:
        super().__init__()
        models = BodyModels("demo")
        self.skel = models.skel
        self.regressors = [models.regressor(name) for name in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19")]
        self.ids = torch.as_tensor(models.smpl().vertex_joint_selector.extra_joints_idxs, dtype=torch.long)

    def forward(self, poses: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        return skel_keypoints(self.skel(poses, betas).vertices, self.ids, *self.regressors)[0]


if __name__ == "__main__":
    main()
