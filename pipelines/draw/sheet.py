"""Contact sheets: many people of a data set on one picture, each as crop and overlay side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.draw.overlay import draw_overlay, neutral_background
from pipelines.draw.rays import pixels_of
from pipelines.draw.warp import inverse, square_affine, warp
from pipelines.files.body_models import DEMO, BodyModels
from pipelines.files.jpeg import ImageError, decode_image
from pipelines.files.shards import DATASET_FILE, IMAGE_ENDINGS, Shard, read_document, read_members
from schemas import InputError

if TYPE_CHECKING:
    from fitting import SKEL

log = logging.getLogger(__name__)

_CAPTION_HEIGHT = 20
_GAP = 6
_PAPER, _INK, _WARNING = (250, 250, 248), (30, 30, 30), (190, 30, 20)


@dataclass(frozen=True)
class Tile:
    """A person on a contact sheet.

    `image` (h,w,3) uint8 RGB as stored, None if there is none. `crop_affine` (2,3): full image -> stored image.
    `box_center` (2,), `box_size`: the person's box in the full image, px. Meshes (V,3): camera frame, metres.
    """

    caption: str
    image: np.ndarray | None
    cam_int: np.ndarray
    crop_affine: np.ndarray
    box_center: np.ndarray
    box_size: float
    vertices: np.ndarray
    skeleton_vertices: np.ndarray
    warning: bool = False


def contact_sheet(
    tiles: Sequence[Tile],
    faces: np.ndarray,
    skeleton_faces: np.ndarray,
    tile_size: int = 256,
    columns: int | None = None,
) -> np.ndarray:
    """A grid of people, each as crop and overlay side by side with a caption; (h,w,3) uint8 RGB."""
    if not tiles:
        raise ValueError("a contact sheet of no people")
    columns = columns or max(1, min(len(tiles), round(np.sqrt(len(tiles) * 0.75))))
    rows = -(-len(tiles) // columns)
    cell_width, cell_height = 2 * tile_size + _GAP, tile_size + _CAPTION_HEIGHT + _GAP
    sheet = np.empty((rows * cell_height + _GAP, columns * (cell_width + _GAP) + _GAP, 3), np.uint8)
    sheet[:] = _PAPER
    for i, tile in enumerate(tiles):
        top = _GAP + i // columns * cell_height
        left = _GAP + i % columns * (cell_width + _GAP)
        affine = _view(tile, tile_size)
        crop = _show(tile, affine, tile_size)
        drawn = draw_overlay(crop, tile.vertices, faces, tile.cam_int, affine, tile.skeleton_vertices, skeleton_faces)
        sheet[top : top + tile_size, left : left + tile_size] = crop
        sheet[top : top + tile_size, left + tile_size + 2 : left + 2 * tile_size + 2] = drawn
        _write(sheet, tile.caption, left, top + tile_size + _CAPTION_HEIGHT - 6, cell_width, tile.warning)
    return sheet


def _view(tile: Tile, size: int) -> np.ndarray:
    """Full image -> tile: the stored image if it is a crop, the surroundings of the person if it is more or absent."""
    center, side = np.asarray(tile.box_center, np.float64), 1.3 * float(tile.box_size)
    if tile.image is None:
        center, side = _around(tile)
    else:
        height, width = tile.image.shape[:2]
        to_image = inverse(tile.crop_affine)
        stored_side = max(width, height) * np.sqrt(abs(np.linalg.det(to_image[:2, :2])))
        if stored_side <= 2.5 * tile.box_size:
            side = stored_side
            center = (to_image @ [width / 2, height / 2, 1.0])[:2]
    return square_affine(center, max(side, 1e-6), size)


def _around(tile: Tile) -> tuple[np.ndarray, float]:
    """Centre and side of a square with the box and, as far as it is within three boxes, the body in it."""
    center, reach = np.asarray(tile.box_center, np.float64), float(tile.box_size) / 2
    points = pixels_of(tile.vertices, tile.cam_int)
    points = np.clip(points[np.isfinite(points).all(axis=1)], center - 3 * reach, center + 3 * reach)
    corners = np.concatenate([points, [center - reach, center + reach]])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return (low + high) / 2, 1.1 * float((high - low).max())


def _show(tile: Tile, affine: np.ndarray, size: int) -> np.ndarray:
    """What of the stored image lies in the tile."""
    if tile.image is None:
        return neutral_background(size, size)
    return warp(tile.image, affine @ inverse(tile.crop_affine), size)


def _write(sheet: np.ndarray, text: str, left: int, baseline: int, width: int, warning: bool) -> None:
    import cv2

    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    text = text.encode("ascii", "replace").decode()  # the font has no others
    while len(text) > 8 and cv2.getTextSize(text, font, scale, 1)[0][0] > width:
        middle = len(text) // 2 - 2
        text = f"{text[:middle].rstrip('.')}..{text[middle + 3 :].lstrip('.')}"
    cv2.putText(sheet, text, (left, baseline), font, scale, _WARNING if warning else _INK, 1, cv2.LINE_AA)


def body_of(shards: Sequence[Shard], body_models: str | None, manifest: dict | None = None) -> SKEL:
    """The SKEL body to draw: of a folder, its URL or "demo"; by default what the shards' manifest names, or else demo.

    `manifest` stands in for a dataset.json that is not there yet.

    Raises InputError if the model files are absent or broken.
    """
    from schemas import DATASET

    file = shards[0].folder / DATASET_FILE
    manifest = manifest or (read_document(file, DATASET) if file.is_file() else {})
    options = manifest.get("options") or {}
    models = BodyModels(body_models or options.get("body_models") or DEMO, options.get("gender") or "male")
    skel = models.skel
    stated = (manifest.get("inputs") or {}).get("body_models")
    with suppress(InputError):  # drawing needs SKEL only; a folder without SMPL cannot be compared
        if stated and stated != models.sha256():
            log.warning("%s: made with other body models than %s; what is drawn may not fit", file, models.where)
    return skel


def tiles_of(samples: Sequence[tuple[Shard, dict]], skel: SKEL) -> list[Tile]:
    """Samples with all their fields (`files.shards.read_people`), posed and with their images read from the tars.

    Where camera, position or box are unknown the body is shown from the front, and the caption says so.
    """
    import torch

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([sample[name] for _, sample in samples]).astype(np.float32))

    with torch.no_grad():
        body = skel(tensor("poses"), tensor("betas"), tensor("trans"), skeleton_mesh=True)
    keys: dict[Shard, list[str]] = {}
    for shard, sample in samples:
        if any(sample["crop_size"]):
            keys.setdefault(shard, []).append(sample["key"])
    members = {shard: read_members(shard, wanted) for shard, wanted in keys.items()}
    tiles = []
    for i, (shard, sample) in enumerate(samples):
        skin, bones = body.vertices[i].numpy(), body.skeleton_vertices[i].numpy()
        camera, center, size, shift, remark = _placed(skin, sample)
        parts = members.get(shard, {}).get(sample["key"], {})
        verdict = sample.get("verdict") or "good"
        if verdict != "good":
            remark += f"  {verdict}"
        if not sample["converged"]:
            remark += "  not converged"
        tiles.append(
            Tile(
                caption=f"{sample['key']}  {sample['vertex_error_mm']:.1f} mm{remark}",
                image=_picture(parts),
                cam_int=camera,
                crop_affine=sample["crop_affine"],
                box_center=center,
                box_size=size,
                vertices=skin + shift,
                skeleton_vertices=bones + shift,
                warning=not sample["converged"] or verdict != "good",
            )
        )
    return tiles


def _placed(vertices: np.ndarray, sample: dict) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, str]:
    """Camera (3,3), box centre (2,), box size, shift (3,) of the body, and a remark where the sample lacks them."""
    camera, center = np.asarray(sample["cam_int"], np.float64), np.asarray(sample["box_center"], np.float64)
    size = float(sample["box_size"])
    if camera[0, 0] > 0 and size > 0 and sample["trans_source"] != "none":
        return camera, center, size, np.zeros(3), ""
    remark = "  position unknown" if sample["trans_source"] == "none" else "  box unknown"
    if not camera[0, 0] > 0:
        camera, size, remark = np.diag([1000.0, 1000.0, 1.0]), 0.0, "  camera unknown"
    if not size > 0:
        center, size = camera[:2, 2], camera[1, 1] / 4
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    depth = camera[1, 1] * (high - low)[:2].max() / size
    x, y = (center - camera[:2, 2]) / camera[[0, 1], [0, 1]] * depth
    return camera, center, size, np.array([x, y, depth]) - (low + high) / 2, remark


def _picture(parts: dict[str, bytes]) -> np.ndarray | None:
    """(h, w, 3) uint8 RGB of a sample's image; None if there is none that can be decoded."""
    for ending in IMAGE_ENDINGS:
        if ending in parts:
            with suppress(ImageError):
                return np.ascontiguousarray(decode_image(parts[ending])[:, :, ::-1])
    return None
