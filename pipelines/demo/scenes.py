"""One demo photograph: people placed in front of a camera, rendered, and the labels that go with them.

World frame as in `demo_scenery`; camera frame x right, y down, z forward, metres.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.sparse import coo_matrix, diags
from scipy.spatial.transform import Rotation

from fitting.body.keypoints import smpl_keypoints
from pipelines.demo.looks import BodyMap, Wearer, map_body, random_outfit
from pipelines.demo.poses import draw_poses, skel_rotations, smpl_pose
from pipelines.demo.scenery import PLACES, random_place, srgb
from pipelines.draw.rays import Hit, Scene, Tracer, cast_at, develop, pixels_of, render, vertex_normals

SIZES = ((640, 480), (800, 600), (720, 480), (480, 640), (600, 800), (640, 640))
"""Widths and heights of the pictures."""

_FLIP = np.diag([1.0, -1.0, -1.0])  # y up, z towards the camera <-> y down, z forward
_SELF_OCCLUSION = 0.2  # metres of a person's own body that may lie before a keypoint, which is inside the body
_OTHER_OCCLUSION = 0.03


@dataclass(frozen=True)
class Cast:
    """The people who may appear, in their poses: SMPL parameters in an upright frame that faces +z."""

    poses: np.ndarray
    """(P,72)"""
    betas: np.ndarray
    """(P,10)"""
    seated: np.ndarray
    """(P,) bool: gets a box to sit on."""

    def part(self, start: int, stop: int) -> Cast:
        """People start..stop-1."""
        return Cast(self.poses[start:stop], self.betas[start:stop], self.seated[start:stop])


@dataclass(frozen=True)
class Camera:
    """A camera at (0, height, 0) of the world."""

    size: tuple[int, int]
    cam_int: np.ndarray
    rotation: np.ndarray
    """(3,3) world -> camera frame."""
    height: float
    nearest: float
    """Depth (metres) at which the people begin."""
    farthest: float

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """Points (...,3) of the world in the camera frame."""
        return (points - [0.0, self.height, 0.0]) @ self.rotation.T


@dataclass(frozen=True)
class Staging:
    """How people are photographed."""

    lenses: tuple[float, ...] = (0.8, 1.1, 1.5, 2.1)
    """focal lengths in units of the picture's longer side"""
    lens_shares: tuple[float, ...] = (0.2, 0.35, 0.3, 0.15)
    fill: tuple[float, float] = (0.5, 0.85)
    """share of the picture's height that the nearest person takes, standing"""
    hidden: float = 0.5
    """share of a person's box that somebody else's box may cover"""
    apart: float = 0.8
    """least distance of two people in units of their radii"""


@dataclass(frozen=True)
class Photo:
    """A picture and the labels of its people, nearest first (n people; float64, camera frame, metres, pixels)."""

    image: np.ndarray
    """(h,w,3) uint8 RGB"""
    cam_int: np.ndarray
    poses: np.ndarray
    betas: np.ndarray
    trans: np.ndarray
    keypoints_2d: np.ndarray
    """(n,44,3) pixels and confidence: 1 where the keypoint can be seen, else 0"""
    keypoints_3d: np.ndarray
    """(n,44,4) metres and 1"""
    boxes: np.ndarray
    """(n,4) left, top, right, bottom of the visible person"""
    people: np.ndarray
    """(n,) index of each in the cast"""
    masks: np.ndarray
    """(h,w) which of the n people a pixel shows, -1 for none"""


class Studio:
    """The body models and what the pictures need of them."""

    def __init__(self, smpl, j19: np.ndarray) -> None:
        self.smpl = smpl
        self.j19 = torch.as_tensor(j19, dtype=smpl.v_template.dtype)
        self.faces = np.asarray(smpl.faces, dtype=np.int64)
        template = smpl.v_template.double().numpy()
        joints = (smpl.J_regressor.double() @ smpl.v_template.double()).numpy()
        landmarks = smpl.vertex_joint_selector.extra_joints_idxs[:3].numpy()
        edges = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        ones = np.ones(2 * len(edges))
        both = np.concatenate([edges, edges[:, ::-1]]).T
        neighbours = coo_matrix((ones, (both[0], both[1])), shape=(len(smpl.v_template),) * 2).tocsr()
        self._mean_of_neighbours = diags(1.0 / np.asarray(neighbours.sum(axis=1)).ravel()) @ neighbours
        self.body: BodyMap = map_body(template, joints, smpl.lbs_weights.double().numpy(), landmarks)

    def bodies(self, poses: np.ndarray, betas: np.ndarray, trans: np.ndarray) -> tuple[np.ndarray, ...]:
        """Vertices (n,V,3), joints (n,24,3) and 44 keypoints (n,44,3) of SMPL."""
        with torch.no_grad():
            values = [torch.as_tensor(a, dtype=self.smpl.v_template.dtype) for a in (poses, betas, trans)]
            out = self.smpl(
                global_orient=values[0][:, :3], body_pose=values[0][:, 3:], betas=values[1], transl=values[2]
            )
            keypoints, _ = smpl_keypoints(self.smpl, out, self.j19)
        return tuple(a.double().numpy() for a in (out.vertices, out.joints[:, :24], keypoints))

    def dress(self, vertices: np.ndarray, wearer: Wearer) -> np.ndarray:
        """The surface (V,3) that one sees of a body (V,3): clothes, shoes and hair."""
        share = wearer.smoothness()[:, None]
        for _ in range(8):
            vertices = vertices + share * (self._mean_of_neighbours @ vertices - vertices)
        return vertices + vertex_normals(vertices, self.faces) * wearer.standoff()[:, None]


def draw_cast(count: int, rng: np.random.Generator, among: Collection[str] | None = None) -> Cast:
    """People of the embedded body: poses within SKEL's limits, near key poses `among` some, shapes N(0, 1) cut at 2."""
    from fitting.body.skel import SKEL

    skel = SKEL.demo(dtype=torch.float64)
    drawn = draw_poses(count, skel, rng, among)
    poses = smpl_pose(skel_rotations(drawn.q, skel)).numpy()
    betas = np.clip(rng.normal(size=(count, 10)), -2.0, 2.0)
    return Cast(poses, betas, drawn.chair)


@cache
def demo_studio() -> Studio:
    """The embedded body, loaded once per process."""
    from fitting.body.files import keypoint_arrays
    from fitting.body.smpl import load_smpl

    # in single precision the last digits depend on threads and memory layout, and would show in the files
    smpl = load_smpl.demo(dtype=torch.float64)
    return Studio(smpl, keypoint_arrays("demo", len(smpl.v_template))["SMPL_to_J19"])


def take_photo(
    studio: Studio, cast: Cast, rng: np.random.Generator, draft: bool = False, staging: Staging = Staging()
) -> Photo:
    """Picture of the people of the cast; those for whom there is no room stay out of it.

    A draft has half the width and height and fewer rays.
    """
    camera = _random_camera(rng, 0.5 if draft else 1.0, staging)
    kind = str(rng.choice(PLACES, p=[0.17, 0.14, 0.14, 0.09, 0.13, 0.12, 0.08, 0.13]))
    place, light = random_place(kind, camera.rotation.T, camera.height, camera.farthest, rng)
    poses, trans, vertices, people = _place_people(studio, cast, camera, rng, staging)
    keypoints = studio.bodies(poses, cast.betas[people], trans)[2]

    seen = []
    for n, person in enumerate(people):
        wearer = Wearer(studio.body, random_outfit(rng), place.noise, int(person))
        seen.append((studio.dress(vertices[n], wearer), wearer))
    boxes = [_seat(vertices[n], studio, camera, rng) for n, p in enumerate(people) if cast.seated[p]]
    scene_vertices = np.concatenate([v for v, _ in seen] + [v for v, _, _ in boxes])
    starts = np.arange(len(seen)) * len(vertices[0])
    box_starts = len(seen) * len(vertices[0]) + np.cumsum([0] + [len(v) for v, _, _ in boxes])[:-1]
    scene_faces = np.concatenate(
        [studio.faces + s for s in starts] + [f + s for s, (_, f, _) in zip(box_starts, boxes, strict=True)]
    )
    owner = np.repeat(
        np.arange(len(seen) + len(boxes)), [len(studio.faces)] * len(seen) + [len(f) for _, f, _ in boxes]
    )

    def reflectance(faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        colour = np.empty((len(faces), 3))
        for n, (_, wearer) in enumerate(seen):
            mine = np.flatnonzero(owner[faces] == n)
            corners = studio.faces[faces[mine] - n * len(studio.faces)]
            points = np.einsum("nk,nkc->nc", weights[mine], studio.body.points[corners])
            headness = np.einsum("nk,nk->n", weights[mine], studio.body.headness[corners])
            colour[mine] = wearer.paint(points, headness)
        for n, (_, _, paint) in enumerate(boxes):
            colour[owner[faces] == len(seen) + n] = paint
        return colour

    mesh = Tracer(scene_vertices, scene_faces)
    scene = Scene(mesh, reflectance, place, light)
    radiance = render(scene, camera.cam_int, camera.size, rng, *((1, 4) if draft else ()))
    image = develop(radiance, rng, exposure=_exposure(radiance, rng), noise=rng.uniform(0.004, 0.018))

    hit = cast_at(mesh, camera.cam_int, camera.size)
    masks = np.where(hit.face >= 0, owner[hit.face], -1)
    masks[masks >= len(seen)] = -1
    return _labelled(image, camera, poses, cast, people, trans, keypoints, hit, masks)


def _exposure(radiance: np.ndarray, rng: np.random.Generator) -> float:
    """As a camera's automatic: the picture's middle tones come out mid-grey, more or less."""
    bright = np.log(np.maximum(radiance.mean(axis=-1), 1e-3)).mean()
    return float(0.23 / np.exp(bright) * rng.uniform(0.85, 1.2))


def _labelled(
    image: np.ndarray,
    camera: Camera,
    poses: np.ndarray,
    cast: Cast,
    people: np.ndarray,
    trans: np.ndarray,
    keypoints: np.ndarray,
    hit: Hit,
    masks: np.ndarray,
) -> Photo:
    """The labels of the people of whom enough is to be seen."""
    pixels = pixels_of(keypoints, camera.cam_int)
    visible = _visible(keypoints, pixels, hit, masks, camera.size)
    boxes = np.zeros((len(people), 4))
    for n in range(len(people)):
        rows, columns = np.nonzero(masks == n)
        if len(rows):
            boxes[n] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    shown = np.array([np.count_nonzero(masks == n) >= 200 for n in range(len(people))])
    renumbered = np.where(shown, np.cumsum(shown) - 1, -1)
    masks = np.where(masks >= 0, renumbered[masks], -1)
    return Photo(
        image=image,
        cam_int=camera.cam_int,
        poses=poses[shown],
        betas=cast.betas[people[shown]],
        trans=trans[shown],
        keypoints_2d=np.concatenate([pixels, visible[..., None]], axis=-1)[shown],
        keypoints_3d=np.concatenate([keypoints, np.ones_like(keypoints[..., :1])], axis=-1)[shown],
        boxes=boxes[shown],
        people=people[shown],
        masks=masks.astype(np.int16),
    )


def _visible(
    keypoints: np.ndarray, pixels: np.ndarray, hit: Hit, masks: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """(n,44) 1.0 where a keypoint is inside the picture with nothing before it but its own person's thickness."""
    width, height = size
    inside = ((pixels >= 0) & (pixels < [width, height])).all(axis=-1)
    column = np.where(inside, pixels[..., 0], 0).astype(int)
    row = np.where(inside, pixels[..., 1], 0).astype(int)
    own = masks[row, column] == np.arange(len(keypoints))[:, None]
    gap = keypoints[..., 2] - hit.depth[row, column]
    return (inside & (gap < np.where(own, _SELF_OCCLUSION, _OTHER_OCCLUSION))).astype(np.float64)


def _random_camera(rng: np.random.Generator, zoom: float, staging: Staging) -> Camera:
    width, height = SIZES[rng.choice(len(SIZES), p=[0.25, 0.2, 0.2, 0.14, 0.14, 0.07])]
    size = width, height = round(width * zoom), round(height * zoom)
    focal = max(size) * rng.choice(staging.lenses, p=staging.lens_shares) * rng.uniform(0.9, 1.1)
    nearest = focal * 1.7 / (height * rng.uniform(*staging.fill))
    farthest = nearest * rng.uniform(1.5, 2.2) + 0.5
    above = float(rng.choice([0.7, 1.5, 2.3], p=[0.2, 0.6, 0.2]) * rng.uniform(0.85, 1.15))
    aim = np.arctan2(above - rng.uniform(0.75, 1.0), (nearest + farthest) / 2)
    turn = Rotation.from_euler("xz", [aim + rng.normal() * 0.02, rng.normal() * 0.02]).as_matrix()
    centre = np.array(size) / 2 + rng.normal(size=2) * 2 * zoom
    cam_int = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    return Camera(size, cam_int, turn @ _FLIP, above, nearest, farthest)


def _place_people(
    studio: Studio, cast: Cast, camera: Camera, rng: np.random.Generator, staging: Staging, tries: int = 80
) -> tuple[np.ndarray, ...]:
    """Camera-frame SMPL poses, translations and vertices of those who found a place, nearest first."""
    width = camera.size[0]
    poses, betas, people = cast.poses.copy(), cast.betas, np.arange(len(cast.poses))
    heading = np.where(rng.random(len(people)) < 0.65, rng.normal(size=len(people)) * 0.7, 0)
    heading = np.where(heading == 0, rng.uniform(-np.pi, np.pi, size=len(people)), heading)
    turned = Rotation.from_euler("y", heading[:, None]) * Rotation.from_rotvec(poses[:, :3])
    poses[:, :3] = turned.as_rotvec()
    upright, _, _ = studio.bodies(poses, betas, np.zeros((len(people), 3)))
    outline = upright[:, ::9]  # enough of the vertices to know how much room a person takes
    centre, spread = (upright.max(axis=1) + upright.min(axis=1)) / 2, np.ptp(upright[..., [0, 2]], axis=1)
    placed: list[_Spot] = []
    for n in range(len(people)):
        for _ in range(tries):
            depth = rng.uniform(camera.nearest, camera.farthest)
            side = rng.uniform(-0.5, 0.5) * width / camera.cam_int[0, 0] * depth
            shift = np.array([side - centre[n, 0], -upright[n, :, 1].min(), -depth - centre[n, 2]])
            pixels = pixels_of(camera.from_world(outline[n] + shift), camera.cam_int)
            spot = _Spot(n, shift, np.array([side, -depth]), np.hypot(*spread[n]) / 2, _box(pixels))
            if _has_room(spot, placed, camera.size, staging):
                placed.append(spot)
                break
    placed.sort(key=lambda spot: -spot.centre[1])
    chosen = np.array([spot.index for spot in placed])
    world = upright[chosen] + np.stack([spot.shift for spot in placed])[:, None]
    # the camera's rotation goes into the global orientation, which turns about SMPL's own root joint
    poses = poses[chosen]
    turned = Rotation.from_matrix(camera.rotation) * Rotation.from_rotvec(poses[:, :3])
    poses[:, :3] = turned.as_rotvec()
    untranslated = studio.bodies(poses, betas[chosen], np.zeros((len(chosen), 3)))[0]
    trans = (camera.from_world(world) - untranslated).mean(axis=1)
    return poses, trans, untranslated + trans[:, None], people[chosen]


@dataclass(frozen=True)
class _Spot:
    """Where a person would stand."""

    index: int
    shift: np.ndarray
    centre: np.ndarray
    """(2,) x and z of the world"""
    radius: float
    box: np.ndarray


def _has_room(spot: _Spot, placed: list[_Spot], size: tuple[int, int], staging: Staging) -> bool:
    """Mostly inside the picture, not inside anybody, not hidden by (or hiding) too much of anybody's box."""
    if not np.isfinite(spot.box).all():
        return False
    area = np.prod(spot.box[2:] - spot.box[:2])
    inside = np.clip(spot.box, 0, [*size, *size])
    if np.prod(inside[2:] - inside[:2]) < 0.7 * area:
        return False
    for other in placed:
        if np.hypot(*(spot.centre - other.centre)) < max(staging.apart * (spot.radius + other.radius), 0.5):
            return False
        shared = np.minimum(spot.box[2:], other.box[2:]) - np.maximum(spot.box[:2], other.box[:2])
        if (shared > 0).all() and np.prod(shared) > staging.hidden * min(area, np.prod(other.box[2:] - other.box[:2])):
            return False
    return True


def _box(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def _seat(
    vertices: np.ndarray, studio: Studio, camera: Camera, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (camera frame), faces and colour of a box that ends where the person's buttocks begin."""
    world = vertices @ camera.rotation + [0.0, camera.height, 0.0]
    template = studio.body.points
    # the lowest part of the seated pelvis: around the hips in the rest pose, at the back
    hips = np.abs(template[:, 1] - studio.body.crotch - 0.08) < 0.1
    back = hips & (template[:, 2] < np.median(template[hips, 2]))
    low = np.quantile(world[back, 1], 0.03)
    knees = np.abs(template[:, 1] - studio.body.knee) < 0.03
    seat, knee = world[back].mean(axis=0), world[knees].mean(axis=0)
    forward = (knee - seat)[[0, 2]]
    forward = forward / max(np.linalg.norm(forward), 1e-6)
    centre = seat[[0, 2]] + 0.06 * forward
    half = rng.uniform(0.19, 0.25, size=2)
    axes = np.array([forward * half[0], [-forward[1] * half[1], forward[0] * half[1]]])
    corners = np.array([[a, b] for a in (-1, 1) for b in (-1, 1)]) @ axes + centre
    points = np.array([[x, y, z] for y in (0.0, max(low, 0.05)) for x, z in corners])
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    # a vertex per face corner, so that the edges stay sharp under interpolated normals
    points = points[quads].reshape(-1, 3)
    faces = np.concatenate([[[k, k + 1, k + 2], [k, k + 2, k + 3]] for k in range(0, 24, 4)])
    middle = points.mean(axis=0)
    for k in range(0, len(faces), 2):
        a, b, c = points[faces[k]]
        if np.cross(b - a, c - a) @ (a - middle) < 0:
            faces[k : k + 2] = faces[k : k + 2, ::-1]
    paint = srgb(*rng.choice([(150, 110, 76), (70, 70, 74), (188, 180, 168), (96, 60, 44), (60, 84, 100)]))
    return camera.from_world(points), faces, paint
