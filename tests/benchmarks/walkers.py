"""Films of people who walk before a camera that stands still, quickly rendered, and the truth about them.

Camera frame: x right, y down, z forward, metres; the camera looks straight ahead. People are the demo's, dressed, lit
by one lamp, before a blurred wall.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from fitting.fit.keypoint_layouts import LAYOUTS
from pipelines.demo.looks import Wearer, random_outfit
from pipelines.demo.scenery import Noise
from pipelines.demo.scenes import demo_studio
from pipelines.draw.rays import Tracer, cast_at, develop, pixels_of
from schemas.camerahmr import KEYPOINT_NAMES

COCO = [KEYPOINT_NAMES.index(name) for name in LAYOUTS["coco17"]]
_FLIP = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
"""SMPL's y up, z forward -> the camera's frame: upright, face to face with the camera."""
_ARMS_DOWN = 1.2
_LAMP = np.array([0.4, -0.7, -0.6])
"""Towards the lamp."""


@dataclass(frozen=True)
class Walker:
    """One person over T frames."""

    poses: np.ndarray
    """(T, 72) SMPL, camera frame"""
    betas: np.ndarray
    """(10,)"""
    trans: np.ndarray
    """(T, 3) m"""
    wearer: Wearer


@dataclass(frozen=True)
class FilmTruth:
    """A frame of n people."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB"""
    keypoints_2d: np.ndarray
    """(n, 44, 2) px"""
    keypoints_3d: np.ndarray
    """(n, 44, 3) m"""
    boxes: np.ndarray
    """(n, 4) px, of the whole person"""
    seen: np.ndarray
    """(n,) share of the person's pixels before which nobody stands"""


def walker(places: np.ndarray, headings: np.ndarray, rate: float, rng: np.random.Generator) -> Walker:
    """Somebody whose pelvis is at places (T, 3), facing headings (T,), rad: 0 to the camera, pi/2 to the right.

    Steps are as long as the way that is walked.
    """
    gone = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))])
    phase = 2 * np.pi * gone / 1.4 + rng.uniform(0, 2 * np.pi)
    speed = np.gradient(gone) * rate
    swing = np.clip(speed / 1.2, 0.05, 1.0) * 0.45
    poses = np.zeros((len(places), 24, 3))
    poses[:, 16, 2], poses[:, 17, 2] = -_ARMS_DOWN, _ARMS_DOWN
    for side, sign in ((0, 1.0), (1, -1.0)):
        leg = sign * np.sin(phase)
        poses[:, 1 + side, 0] = -swing * leg  # hip
        poses[:, 4 + side, 0] = 0.1 + 0.9 * swing * np.clip(
            sign * np.cos(phase), 0, None
        )  # knee, of the leg in the air
        arm = Rotation.from_euler("x", (0.8 * swing * leg)[:, None]) * Rotation.from_rotvec(poses[:, 16 + side])
        poses[:, 16 + side] = arm.as_rotvec()
        poses[:, 18 + side, 1] = -sign * 0.4  # elbow
    poses[:, 0] = (_FLIP * Rotation.from_euler("y", headings[:, None])).as_rotvec()
    betas = np.clip(rng.normal(size=10), -1.5, 1.5)
    wearer = Wearer(demo_studio().body, random_outfit(rng), Noise(rng), int(rng.integers(97)))
    return Walker(poses.reshape(len(places), 72), betas, places, wearer)


def film(walkers: Sequence[Walker], size: tuple[int, int], focal: float, seed: int = 0) -> Iterator[FilmTruth]:
    """The frames, as a camera of a focal length (px) sees them; the principal point is the middle."""
    studio, rng = demo_studio(), np.random.default_rng(seed)
    width, height = size
    cam_int = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    coarse = rng.uniform(0.2, 0.6, (5, 7, 1)) * rng.uniform(0.85, 1.15, (5, 7, 3))
    wall = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0.05, 0.8)
    lamp, count = _LAMP / np.linalg.norm(_LAMP), len(studio.faces)
    for t in range(len(walkers[0].poses)):
        poses, trans = (np.array([getattr(w, name)[t] for w in walkers]) for name in ("poses", "trans"))
        betas = np.array([w.betas for w in walkers])
        vertices, _, points = studio.bodies(poses, betas, trans)
        dressed = [studio.dress(v, w.wearer) for v, w in zip(vertices, walkers, strict=True)]
        faces = [studio.faces + n * len(v) for n, v in enumerate(dressed)]
        hit = cast_at(Tracer(np.concatenate(dressed), np.concatenate(faces)), cam_int, size)
        light = wall.copy()
        owner = np.where(hit.face >= 0, hit.face // count, -1)
        for n, person in enumerate(walkers):
            mine = owner == n
            corners, weights = studio.faces[hit.face[mine] - n * count], hit.weights[mine]
            surface = np.einsum("nk,nkc->nc", weights, studio.body.points[corners])
            colour = person.wearer.paint(surface, np.einsum("nk,nk->n", weights, studio.body.headness[corners]))
            light[mine] = colour * (0.45 + 0.9 * np.clip(hit.normal[mine] @ lamp, 0, None))[:, None]
        alone = [(cast_at(Tracer(v, studio.faces), cam_int, size).face >= 0).sum() for v in dressed]
        share = np.array([(owner == n).sum() / max(whole, 1) for n, whole in enumerate(alone)])
        outline = pixels_of(vertices, cam_int)
        boxes = np.concatenate([outline.min(1), outline.max(1)], 1)
        yield FilmTruth(develop(light, rng, 1.1, 0.01), pixels_of(points, cam_int), points, boxes, share)
