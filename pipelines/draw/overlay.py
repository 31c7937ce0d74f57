"""SKEL's skin and bones over the image they were fitted to.

Rays are cast by `pipelines.draw.rays`; here is shading and transparency. Image frames have their origin at the outer
corner of the top left pixel.
"""

from __future__ import annotations

import numpy as np

from pipelines.draw.rays import cast

SKIN = np.array([0.40, 0.62, 0.95])
BONE = np.array([0.97, 0.93, 0.80])
_TO_LIGHT = np.array([-0.35, -0.65, -0.68])
_SAMPLES = 2
"""Rays per pixel and axis."""


def draw_overlay(
    image: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    cam_int: np.ndarray,
    crop_affine: np.ndarray,
    skeleton_vertices: np.ndarray,
    skeleton_faces: np.ndarray,
) -> np.ndarray:
    """The image with translucent skin over the bone mesh, seen through the camera; a new (h,w,3) uint8 array.

    `image` (h,w,3) uint8 RGB; `vertices` (V,3), `skeleton_vertices` (Nk,3): camera frame, metres; `cam_int` (3,3):
    camera of the full image, px; `crop_affine` (2,3): full image -> this image. What lies outside the image or behind
    the camera is not drawn. Bones that stick out of the skin are drawn before it.
    """
    height, width = image.shape[:2]
    size = (width * _SAMPLES, height * _SAMPLES)
    affine = np.asarray(crop_affine, np.float64) * _SAMPLES
    skin = cast(vertices, faces, cam_int, size, affine)
    bone = cast(skeleton_vertices, skeleton_faces, cam_int, size, affine)

    canvas = np.repeat(np.repeat(image, _SAMPLES, 0), _SAMPLES, 1).astype(np.float64) / 255.0
    bone_seen, skin_seen = np.isfinite(bone.depth), np.isfinite(skin.depth)
    bone_colour = _shaded(BONE, bone.normal)
    canvas[bone_seen] = bone_colour[bone_seen]
    # Skin is glass: clearest where one looks straight through it, denser towards the silhouette.
    facing = np.clip(-skin.normal[..., 2], 0.0, 1.0)
    density = np.where(bone_seen, 0.25, 0.5) + 0.4 * (1.0 - facing) ** 2
    skin_first = skin_seen & ~(bone_seen & (bone.depth < skin.depth))
    density = (density * skin_first)[..., None]
    canvas = canvas * (1.0 - density) + _shaded(SKIN, skin.normal) * density
    small = canvas.reshape(height, _SAMPLES, width, _SAMPLES, 3).mean(axis=(1, 3))
    return np.clip(np.rint(small * 255.0), 0, 255).astype(np.uint8)


def neutral_background(width: int, height: int) -> np.ndarray:
    """A plain backdrop (h,w,3) uint8 for labels without images."""
    shade = np.linspace(214, 176, height)[:, None, None]
    return np.broadcast_to(shade, (height, width, 3)).astype(np.uint8)


def _shaded(colour: np.ndarray, normal: np.ndarray) -> np.ndarray:
    light = _TO_LIGHT / np.linalg.norm(_TO_LIGHT)
    return colour * (0.42 + 0.58 * np.clip(normal @ light, 0.0, 1.0))[..., None]
