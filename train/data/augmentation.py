"""From a stored person to a network input, changed at random, with labels that stay true.

All changes of geometry are changes of the camera, so that image, 2D, 3D and parameters agree under the full-perspective
camera: another box in the same photograph (scale, shift, extreme crop), a camera rolled about its axis (rotation), and
a mirrored world (mirror). In pixels the last two turn or flip the photograph about its principal point. One affine
takes the stored crop to the input. Pixel convention: schemas.hmr_skel (origin at the outer corner of the first pixel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import simplejpeg

from fitting.body.mirror import COUNTERPART, MIRROR_SIGN
from pipelines.draw.warp import inverse, warp
from pipelines.files.jpeg import image_size
from schemas import KEYPOINT_NAMES, MIRRORED_KEYPOINTS, InputError
from train.data.augmentation_config import NONE, AugmentationConfig
from train.data.photometric import change_colours
from train.data.shards import Person

INPUT = 256
"""Side of the network's input, px."""


def _bodies_part(*names: str) -> np.ndarray:
    return np.array([any(name in keypoint for name in names) for keypoint in KEYPOINT_NAMES])


_SIDES = ("left", "right")
_HEAD = ("nose", "eye", "ear", "neck", "head", "jaw")
_PARTS = np.stack([
    _bodies_part(*_HEAD, "shoulder", "elbow", "wrist", "hip", "pelvis", "thorax", "spine"),
    _bodies_part(*_HEAD, "shoulder", "elbow", "thorax"),
    _bodies_part(*_HEAD, "shoulder"),
    _bodies_part("hip", "knee", "ankle", "toe", "heel", "pelvis"),
    _bodies_part("shoulder", "hip", "neck", "thorax", "spine", "pelvis"),
    _bodies_part("left_shoulder", "left_elbow", "left_wrist"),
    _bodies_part("right_shoulder", "right_elbow", "right_wrist"),
    _bodies_part("left_hip", "left_knee", "left_ankle", "left_heel"),
    _bodies_part("right_hip", "right_knee", "right_ankle", "right_heel"),
])  # fmt: skip
"""(9, 44) what an extreme crop can show: without legs, above the waist, the head, the legs, the trunk, one limb."""
_ABOVE_WAIST = [1, 2, 5, 6]
"""Of these, those that need no hips."""
_UPPER_BODY = [KEYPOINT_NAMES.index(f"{side}_{j}") for side in _SIDES for j in ("shoulder", "elbow", "wrist")]
_BODY = [*_UPPER_BODY, *(KEYPOINT_NAMES.index(f"{side}_{joint}") for side in _SIDES for joint in ("knee", "ankle"))]
"""The ten joints by which somebody is seen whole."""
_PART_MARGIN = 1.25
_SMALLEST_PART = 0.1
"""An extreme crop is at least this part of the person's box."""


@dataclass(frozen=True)
class Change:
    """What is drawn for one person: another box in the same photograph, then a mirrored world and a rolled camera."""

    center: np.ndarray
    """(2,) of the box, px of the photograph"""
    box: float
    mirrored: bool
    roll: float
    """rad"""

    @property
    def turn(self) -> np.ndarray:
        """(2, 2) what mirror and roll do to x and y, about the principal point."""
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return turn @ np.diag([-1.0, 1.0]) if self.mirrored else turn


def augment(
    person: Person,
    config: AugmentationConfig = NONE,
    rng: np.random.Generator | None = None,
    root_basis: np.ndarray | None = None,
    margin: float = 1.0,
) -> dict[str, Any]:
    """The network's input and its labels; `rng` is needed unless `config` is NONE.

    The result has `image` (256, 256, 3) uint8 RGB; `poses` (46,), `betas` (10,); `keypoints_3d` (44, 4) m in the
    (changed) camera's frame; `keypoints_2d` (44, 3) in crop coordinates, -0.5 to 0.5; and the framing: `center` (2,),
    `box`, `focal`, `principal` (2,), px of the changed photograph; float32.

    `root_basis` (3, 3), from `root_basis()`, is needed for rotations. The input shows the box times `margin`. Raises
    InputError, with tar and key, for an image that cannot be decoded and for a person without box.
    """
    rng = rng or np.random.default_rng(0)
    center, box = np.asarray(person.document["box_center"], np.float64), float(person.document["box_size"]) * margin
    if not box > 0:
        raise InputError(f"sample {person.key}: no box", file=person.tar, field="box_size", expected="more than 0 px")
    focal, principal = _camera(person.arrays["cam_int"], person.document["image_size"], center, box)
    change = draw_change(person.arrays["keypoints_2d"], center, box, config, rng)
    on_grid = not change.roll and config.scale_change > 0
    if on_grid:
        change = _on_the_grid(change, person.arrays["crop_affine"])
    found = _changed_labels(person, change, principal, root_basis)
    image = _cut(person, change) if on_grid else _turned(person, change, principal)
    return {
        "image": change_colours(image, config, rng),
        **found,
        "box": np.float32(change.box),
        "focal": np.float32(focal),
        "principal": principal.astype(np.float32),
    }


def draw_change(
    keypoints: np.ndarray, center: np.ndarray, box: float, config: AugmentationConfig, rng: np.random.Generator
) -> Change:
    """A change of a person with keypoints (44, 3), px and confidence, in a box around `center` (2,), px."""
    even = config.distributions == "even"

    def drawn(count: int | None = None) -> Any:
        """From -1 to 1."""
        return rng.uniform(-1, 1, count) if even else np.clip(rng.standard_normal(count), -1, 1)

    if rng.random() < config.extreme_crop:
        center, box = _part_box(keypoints, center, box, _PARTS if even else _parts_of(keypoints), rng)
    box *= 1 + drawn() * config.scale_change
    center = center + drawn(2) * config.shift * box
    mirrored, roll = rng.random() < config.mirror, math.radians(drawn() * config.rotation)
    if config.rotation_share < 1 and rng.random() >= config.rotation_share:
        roll = 0.0
    return Change(center, box, mirrored, roll)


def _changed_labels(
    person: Person, change: Change, principal: np.ndarray, root_basis: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Poses, betas, keypoints and the box's centre after a change, in the changed photograph and camera."""
    labels, turn = person.arrays, change.turn
    keypoints_2d, keypoints_3d = labels["keypoints_2d"].astype(np.float64), labels["keypoints_3d"].copy()
    poses = labels["poses"].copy()
    if change.mirrored:
        keypoints_2d, keypoints_3d = keypoints_2d[MIRRORED_KEYPOINTS], keypoints_3d[MIRRORED_KEYPOINTS]
        poses = poses[COUNTERPART] * MIRROR_SIGN.astype(np.float32)
    if change.roll:
        poses = rotate_root(poses, change.roll, root_basis)
    keypoints_3d[:, :2] = keypoints_3d[:, :2] @ turn.T
    center = principal + turn @ (change.center - principal)
    keypoints_2d[:, :2] = (principal + (keypoints_2d[:, :2] - principal) @ turn.T - center) / change.box
    return {
        "poses": poses,
        "betas": labels["betas"],
        "keypoints_3d": keypoints_3d,
        "keypoints_2d": keypoints_2d.astype(np.float32),
        "center": center.astype(np.float32),
    }


def root_basis(skel) -> np.ndarray:
    """(3, 3) frame in which SKEL's pelvis angles turn (fitting.fit.root), of a fitting.SKEL."""
    return (skel.per_joint_rot[0] @ skel.apose_rotations[0].T).double().cpu().numpy()


def rotate_root(poses: np.ndarray, roll: float, basis: np.ndarray | None) -> np.ndarray:
    """Poses (46,) of the same person seen by a camera rolled by -`roll` about its optical axis, rad."""
    if basis is None:
        raise InputError("rotation needs the body's frame", field="rotation", expected="root_basis of the body")
    tilt, lean, turn = poses[:3].astype(np.float64)
    pelvis = _rotation(1, turn) @ _rotation(0, lean) @ _rotation(2, tilt)
    r = basis.T @ _rotation(2, roll) @ basis @ pelvis
    changed = poses.copy()
    changed[:3] = np.arctan2(r[1, 0], r[1, 1]), -np.arcsin(np.clip(r[1, 2], -1, 1)), np.arctan2(r[0, 2], r[2, 2])
    return changed


def decode(person: Person, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """RGB pixels, at the smallest scale at which a `zoom` of the stored image still loses nothing, and that scale (2,).

    Raises InputError that names tar and key.
    """
    try:
        width, height = image_size(person.image)
        # The decoder halves the size as long as both sides stay above these.
        least = (0, 0) if zoom > 0.5 else (math.ceil(width * zoom), math.ceil(height * zoom))
        pixels = simplejpeg.decode_jpeg(
            person.image, colorspace="RGB", fastdct=True, fastupsample=True, min_width=least[0], min_height=least[1]
        )
    except ValueError as error:
        problem = f"sample {person.key}: its .jpg cannot be decoded ({error})"
        raise InputError(problem, file=person.tar, expected="a whole JPEG image") from error
    return pixels, np.array([pixels.shape[1] / width, pixels.shape[0] / height])


def _on_the_grid(change: Change, crop_affine: np.ndarray) -> Change:
    """The box moved by less than a pixel of the stored image, so that it begins and ends between two pixels."""
    zoom, shift = crop_affine[0, 0].astype(np.float64), crop_affine[:, 2].astype(np.float64)
    side = max(round(change.box * zoom), 1)
    corner = np.rint(zoom * change.center + shift - side / 2)
    return replace(change, center=(corner + side / 2 - shift) / zoom, box=side / zoom)


def _cut(person: Person, change: Change) -> np.ndarray:
    """The input for a box on the grid of the stored image: a rectangle of it, resized, which is quicker than a warp."""
    crop_affine = person.arrays["crop_affine"]
    zoom = float(crop_affine[0, 0])
    side = round(change.box * zoom)
    left, top = np.rint(zoom * change.center + crop_affine[:, 2] - side / 2).astype(int).tolist()
    pixels, scale = decode(person, INPUT / side)
    if (scale != 1).any():
        affine = np.array([[INPUT / side, 0, -left * INPUT / side], [0, INPUT / side, -top * INPUT / side]])
        image = _warped(pixels, scale, affine)
    else:
        inside = pixels[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
        if inside.shape[:2] != (side, side):
            canvas = np.zeros((side, side, 3), np.uint8)
            y, x = max(-top, 0), max(-left, 0)
            canvas[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
            inside = canvas
        image = cv2.resize(inside, (INPUT, INPUT), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(image, 1) if change.mirrored else image


def _turned(person: Person, change: Change, principal: np.ndarray) -> np.ndarray:
    """The input for any change, of which one affine takes the stored image there."""
    zoom, turn = INPUT / change.box, change.turn
    center = principal + turn @ (change.center - principal)
    to_input = np.zeros((2, 3))
    to_input[:, :2] = zoom * turn
    to_input[:, 2] = zoom * (principal - turn @ principal - center) + INPUT / 2
    affine = to_input @ inverse(person.arrays["crop_affine"])
    return _warped(*decode(person, math.sqrt(abs(np.linalg.det(affine[:, :2])))), affine)


def _warped(pixels: np.ndarray, scale: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """What `decode` gave, under an affine from the stored image's pixels; it has no more of them than are needed."""
    return warp(pixels, affine @ np.diag([1 / scale[0], 1 / scale[1], 1]), INPUT, antialias=False)


def _camera(cam_int: np.ndarray, image_size, center: np.ndarray, box: float) -> tuple[float, np.ndarray]:
    """Focal length and principal point. Unknown cameras get the image's diagonal as focal length and its middle."""
    focal = float(cam_int[0, 0] + cam_int[1, 1]) / 2
    if focal > 0:
        return focal, cam_int[:2, 2].astype(np.float64)
    size = np.asarray(image_size, np.float64)
    return (float(np.hypot(*size)), size / 2) if (size > 0).all() else (5 * box, center)


def _parts_of(keypoints: np.ndarray) -> np.ndarray:
    """The parts (n, 44) that an extreme crop may show of a person: all of one seen whole, or those above the waist."""
    seen = keypoints[:, 2] > 0
    if seen[_BODY].all():
        return _PARTS
    return _PARTS[_ABOVE_WAIST] if seen[_UPPER_BODY].all() else _PARTS[:0]


def _part_box(
    keypoints: np.ndarray, center: np.ndarray, box: float, parts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Centre and side of a square around one of the parts; the box as it is if too little of the part is known."""
    if not len(parts):
        return center, box
    shown = keypoints[parts[rng.integers(len(parts))] & (keypoints[:, 2] > 0), :2]
    if len(shown) < 2:
        return center, box
    low, high = shown.min(0), shown.max(0)
    side = max(float((high - low).max()) * _PART_MARGIN, _SMALLEST_PART * box)
    return ((low + high) / 2, side) if side < box else (center, box)


def _rotation(axis: int, angle: float) -> np.ndarray:
    rotation, (i, j) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
    rotation[i, i] = rotation[j, j] = math.cos(angle)
    rotation[i, j], rotation[j, i] = -math.sin(angle), math.sin(angle)
    return rotation
