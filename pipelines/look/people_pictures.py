"""The best, median and worst people of a data set as pictures for a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.files.shards import Shard, read_columns, read_people

EACH = 3
TILE = 190
"""Side of a picture, pixels; a person has two."""

_JPEG_QUALITY = 85


def picked_people(errors: np.ndarray, each: int = EACH) -> dict[str, np.ndarray]:
    """Rows of the worst, the median and the best people by mean vertex distance; nobody twice."""
    order = np.argsort(-np.where(np.isfinite(errors), errors, np.inf), kind="stable")
    each = min(each, len(order) // 3) or min(1, len(order))
    middle = (len(order) - each) // 2
    found = {"worst": order[:each]}
    if len(order) >= 3 * each:
        found["median"] = order[middle : middle + each]
    if len(order) >= 2 * each:
        found["best"] = order[len(order) - each :]
    return found


def people_html(shards: Sequence[Shard], body_models: str | None = None, manifest: dict | None = None) -> list[str]:
    """A heading and a picture for each group. People behind a URL are drawn without their images: a shard's whole tar
    would be fetched for one of them.

    Raises InputError if the body models are not here, or the shards cannot be read.
    """
    from pipelines.draw.sheet import body_of, contact_sheet, tiles_of

    errors = read_columns(shards, ["vertex_error_mm"])["vertex_error_mm"].to_numpy()
    if not len(errors):
        return []
    skel, found = body_of(shards, body_models, manifest), []
    for name, rows in picked_people(errors).items():
        samples = read_people(shards, rows)
        for shard, sample in samples:
            if not isinstance(shard.base, Path) or not shard.tar.is_file():
                sample["crop_size"] = np.zeros(2, np.int32)
        sheet = contact_sheet(tiles_of(samples, skel), skel.faces, skel.skeleton_faces, TILE, EACH)
        found += [f"<h3>{name.capitalize()}</h3>", f'<img alt="{name} people" src="{_jpeg_url(sheet)}">']
    return found


def _jpeg_url(image: np.ndarray) -> str:
    import cv2

    content = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(content[1].tobytes()).decode()
