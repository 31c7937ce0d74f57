"""The full-perspective camera: from a crop's scale and shift to a place in front of the photograph's camera, and back.

Camera frame: x right, y down, z forward, metres. Pixels of the full image have their origin at the outer corner of the
top left one. Source: CLIFF (Li et al., ECCV 2022) and CameraHMR (Patel and Black, 3DV 2025); see train/README.md.

Everything is elementwise arithmetic, which neither autocast nor TF32 lowers in precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from schemas import InputError

CROP_FOCAL = 5000.0
"""Focal length, in pixels of a crop of 256, of the camera that variants without camera assume (HMR's convention)."""
CROP_SIDE = 256.0
NEAREST = 0.05
"""Points are projected as if they lay at least this far (m) in front of the camera."""
SMALLEST_SCALE = 1e-4
"""The scale s is taken as at least this, which puts a person kilometres away; a network can predict less at first."""


class Framing(NamedTuple):
    """How the crops of B people lie in the photographs that they come from, px of the full image."""

    center: Tensor
    """(B, 2) centre of the box."""
    box: Tensor
    """(B,) side of the box."""
    focal: Tensor
    """(B,) focal length."""
    principal: Tensor
    """(B, 2) principal point; the image's middle if nothing else is known."""

    @classmethod
    def of_crop(cls, center: Tensor, box: Tensor) -> Framing:
        """A far camera that looks straight at each crop: what variants without camera assume."""
        return cls(center, box, box * (CROP_FOCAL / CROP_SIDE), center)


def focal_length(vertical_fov: Tensor, height: Tensor) -> Tensor:
    """(B,) px, from vertical fields of view (B,), rad, and image heights (B,), px.

    Raises InputError for a field of view that no camera has, which would give a focal length all the same.
    """
    seen = (vertical_fov > 0) & (vertical_fov < math.pi)
    if not seen.all():
        problem = f"the focal-length network sees a vertical field of view of {float(vertical_fov[~seen][0]):.3g} rad"
        raise InputError(problem, field="--camera", expected="0 to pi; --focal gives focal lengths without it")
    return height / (2 * torch.tan(vertical_fov / 2))


def bbox_cue(framing: Framing) -> Tensor:
    """(B, 3) direction and angular size of the box: what the network is told about where its crop comes from."""
    place = (framing.center - framing.principal) / framing.focal[:, None]
    return torch.cat([place, (framing.box / framing.focal)[:, None]], 1)


def cam_to_translation(cam: Tensor, framing: Framing) -> Tensor:
    """(B, 3) translation in the camera frame, m, from the crop's scale and shift (B, 3)."""
    scale = cam[:, 0].clamp_min(SMALLEST_SCALE)
    half = 2 / (scale * framing.box)
    shift = cam[:, 1:] + (framing.center - framing.principal) * half[:, None]
    return torch.cat([shift, (framing.focal * half)[:, None]], 1)


def translation_to_cam(translation: Tensor, framing: Framing) -> Tensor:
    """(B, 3) scale and shift of the crop: the inverse of `cam_to_translation` for points in front of the camera."""
    half = translation[:, 2] / framing.focal
    shift = translation[:, :2] - (framing.center - framing.principal) * half[:, None]
    return torch.cat([(2 / (half * framing.box))[:, None], shift], 1)


def project(points: Tensor, framing: Framing) -> Tensor:
    """(B, N, 2) px of the full image, of points (B, N, 3) in the camera frame, m."""
    depth = points[..., 2:].clamp_min(NEAREST)
    return points[..., :2] / depth * framing.focal[:, None, None] + framing.principal[:, None]


def to_crop(pixels: Tensor, framing: Framing) -> Tensor:
    """(B, N, 2) crop coordinates, -0.5 to 0.5 inside the box, of pixels (B, N, 2) of the full image."""
    return (pixels - framing.center[:, None]) / framing.box[:, None, None]


def project_to_crop(points: Tensor, cam: Tensor, framing: Framing) -> Tensor:
    """(B, N, 2) crop coordinates of a body's points (B, N, 3), m, that `cam` (B, 3) places before the camera."""
    placed = points + cam_to_translation(cam, framing)[:, None]
    return to_crop(project(placed, framing), framing)
