"""Pictures and films with the predicted people drawn over them: bones, and the skin as glass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from fitting import SKEL
from pipelines.draw.overlay import draw_overlay
from pipelines.files.films import FilmError, FilmWriter, film_facts, film_frames
from pipelines.files.jpeg import ImageError, encode_jpeg, read_encoded
from pipelines.files.pictures import read_picture
from pipelines.files.storage import published
from schemas import Columns
from train.predict.inputs import OVERLAYS, InputFile

LONGEST_SIDE = 1600
"""px; larger pictures are drawn on smaller copies."""
_QUALITY = 92
_AROUND = 2
"""px of the picture around a person that are drawn anew."""

People = Callable[[str, int | None], Columns | None]
"""The people of a source's picture or frame, None for nobody."""


def draw_people(pixels: np.ndarray, skel: SKEL, people: Columns) -> np.ndarray:
    """A picture (H, W, 3), uint8 RGB, with its people (fields of `schemas.PREDICTION`); at most LONGEST_SIDE long."""
    zoom = min(1.0, LONGEST_SIDE / max(pixels.shape[:2]))
    size = [max(1, round(side * zoom)) for side in pixels.shape[1::-1]]
    picture = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if zoom < 1 else pixels.copy()
    scale = np.array(size) / pixels.shape[1::-1]
    for person in np.argsort(-people["trans"][:, 2]):  # the farthest first
        body = (torch.as_tensor(people[name][[person]]).to(skel.v_template) for name in ("poses", "betas", "trans"))
        with torch.inference_mode():
            out = skel(*body, skeleton_mesh=True)
        skin, bones = (mesh[0].double().cpu().numpy() for mesh in (out.vertices, out.skeleton_vertices))
        focal, (x, y) = float(people["focal"][person]), people["principal"][person]
        camera = np.diag([*scale, 1]) @ [[focal, 0, x], [0, focal, y], [0, 0, 1]]
        _draw(picture, skin, bones, skel, camera)
    return picture


def _draw(picture: np.ndarray, skin: np.ndarray, bones: np.ndarray, skel: SKEL, camera: np.ndarray) -> None:
    """One person, in place; only the part of the picture that shows the body is looked at."""
    left, top, right, bottom = _shown_box(np.concatenate([skin, bones]), camera, picture.shape[1], picture.shape[0])
    if left < right and top < bottom:
        shift = np.array([[1, 0, -left], [0, 1, -top]], np.float64)
        part = np.ascontiguousarray(picture[top:bottom, left:right])
        drawn = draw_overlay(part, skin, skel.faces, camera, shift, bones, skel.skeleton_faces)
        picture[top:bottom, left:right] = drawn


def _shown_box(points: np.ndarray, camera: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Where the picture shows points (N, 3); all of it if some are beside the camera or behind."""
    if points[:, 2].min() < 0.05:
        return 0, 0, width, height
    seen = points @ camera.T
    seen = seen[:, :2] / seen[:, 2:]
    low = np.floor(seen.min(0) - _AROUND).clip(0, [width, height]).astype(int)
    high = np.ceil(seen.max(0) + _AROUND).clip(0, [width, height]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def write_overlays(
    output: Path,
    sources: Sequence[InputFile],
    people: People,
    skel: SKEL,
    every: int,
    progress: Callable[[int], object],
) -> int:
    """Write OUTPUT/overlays: a .jpg per picture that shows people, an .mp4 per film; how many there are.

    Those that an earlier run has written stay. Raises OSError if one cannot be written.
    """
    count = 0
    for source in sources:
        path = output / OVERLAYS / f"{source.stem}{'.mp4' if source.is_film else '.jpg'}"
        if path.exists():
            count += 1
        elif source.is_film:
            count += _film(path, source, people, skel, every)
        else:
            count += _picture(path, source, people, skel)
        progress(1)
    return count


def _picture(path: Path, source: InputFile, people: People, skel: SKEL) -> bool:
    found = people(source.name, None)
    if found is None:
        return False
    try:
        pixels = read_picture(read_encoded(source.path)).pixels
    except ImageError:  # it was whole when it was looked at
        return False
    drawn = draw_people(pixels, skel, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as hidden:
        hidden.write_bytes(encode_jpeg(drawn[:, :, ::-1], _QUALITY))
    return True


def _film(path: Path, source: InputFile, people: People, skel: SKEL, every: int) -> bool:
    try:
        rate = film_facts(source.path).rate / every
    except FilmError:
        return False
    drawn = _drawn_frames(source, people, skel, every)
    first = next(drawn, None)
    if first is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as hidden, FilmWriter(hidden, rate) as film:
        film.write(first)
        for picture in drawn:
            film.write(picture)
    return True


def _drawn_frames(source: InputFile, people: People, skel: SKEL, every: int) -> Iterator[np.ndarray]:
    """Frames up to where the film is damaged, with and without people."""
    nobody: Columns = {name: np.zeros((0, 3), np.float32) for name in ("poses", "betas", "trans")}
    try:
        for frame in film_frames(source.path, 0, every):
            yield draw_people(frame.pixels, skel, people(source.name, frame.number) or nobody)
    except FilmError:
        return
