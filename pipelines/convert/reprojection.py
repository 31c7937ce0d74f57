"""A label row compared with itself: where its SMPL body lies in the image, and where its 2D keypoints say it does.

The distance is the median over keypoints that are confident and that the body has, divided by the side of the box: a
tenth of a person is more than detectors, other SMPL genders and rounded cameras make of sound labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.convert.crops import box_side
from pipelines.convert.translation import solve_translation
from schemas import Columns

AGREEING = 0.1
"""Of the box: as far as this a row agrees with itself."""

CONTRADICTORY = 0.5
"""Of the box: farther than this, keypoints or position are somebody else's. SMPL and keypoints that two programs found
with cameras of their own differ as much, so such a row is marked; who trains on 2D keypoints can leave it out."""

_CONFIDENT = 0.3
_FEWEST_KEYPOINTS = 4
_SMALLER_UNITS = {"translation_in_mm": 1000.0, "translation_in_cm": 100.0}
_NEAREST_DEPTH = 1e-3
"""m; a body whose translation is nearer to the camera than this is not placed at all."""

_RESIZED, _EQUALLY = 0.1, 0.02
"""How far the principal point may lie from the image's centre, of half the image, before the image counts as resized;
and how equal the two factors of a resized image are."""


@dataclass
class CheckedPlaces:
    """Where people stand (B, 3) m, where that comes from (`trans_source`), the words of schemas.LABEL_CHECKS, and the
    reprojection error (B,) of the box, -1 if it cannot be told, infinite for a body behind the camera."""

    trans: np.ndarray
    source: np.ndarray
    check: np.ndarray
    error: np.ndarray


def reprojection_error(
    points: np.ndarray,
    points_confidence: np.ndarray,
    trans: np.ndarray,
    keypoints: np.ndarray,
    cam_int: np.ndarray,
    side: np.ndarray,
) -> np.ndarray:
    """(B,) median distance of keypoints from projected joints, divided by the box's `side` (B,) px.

    `points` (B, K, 3) m lie at translation zero, `points_confidence` (K,) is 0 where the body has none; `keypoints`
    (B, K, 3) are px and confidence, `cam_int` (B, 3, 3). NaN with fewer than 4 confident keypoints or without a box
    or camera; infinite if half of the joints lie behind the camera.
    """
    usable = _confident(keypoints) & (np.asarray(points_confidence) > 0)
    camera = np.asarray(cam_int, np.float64)
    placed = np.asarray(points, np.float64) + np.asarray(trans, np.float64)[:, None]
    with np.errstate(all="ignore"):
        seen = placed @ camera.transpose(0, 2, 1)
        pixels = seen[..., :2] / seen[..., 2:]
        distance = np.linalg.norm(pixels - keypoints[..., :2], axis=2) / np.asarray(side, np.float64)[:, None]
    distance[~(seen[..., 2] > 0)] = np.inf
    known = (usable.sum(1) >= _FEWEST_KEYPOINTS) & (np.asarray(side) > 0) & (camera[:, 0, 0] > 0)
    found = np.full(len(distance), np.nan)
    for row in np.flatnonzero(known):
        found[row] = np.median(distance[row, usable[row]])
    return found


def place_people(columns: Columns, rows: np.ndarray, points: np.ndarray, confidence: np.ndarray) -> CheckedPlaces:
    """Translations of label rows by what their labels and keypoints say together.

    `points` (B, 44, 3) m are the keypoints of the rows' SMPL bodies at translation zero, `confidence` (44,) theirs. A
    translation that agrees with the keypoints stays as it is. Others are, in this order, joined with the camera's
    (`cam_ext`), taken as millimetres or centimetres, or, at or behind the camera, solved from the keypoints, if that
    agrees with these. One that is absent is solved from the keypoints, or zero (`none`), which contradicts them if they
    are enough to tell.
    """
    keypoints, cameras = columns["gtkps"][rows], columns["cam_int"][rows]
    side = np.where(columns["known_box"][rows], box_side(columns["scale"][rows]), 0)
    side = np.where(side > 0, side, _extent(keypoints))

    def errors(trans: np.ndarray) -> np.ndarray:
        return reprojection_error(points, confidence, trans, keypoints, cameras, side)

    stated, ext = columns["trans_cam"][rows].astype(np.float32), columns["cam_ext"][rows].astype(np.float32)
    absent = ~np.isfinite(stated).all(axis=1)
    split = ~absent & np.isfinite(ext).all(axis=1) & ext.any(axis=1)
    solved, possible = _solved(columns, rows, points, confidence)
    trans = np.where(absent[:, None], solved, stated)
    source = np.where(absent, np.where(possible, "keypoints", "none"), "label").astype(object)
    check = np.full(len(rows), "unchecked", object)
    error = errors(trans)
    error[source == "none"] = np.nan
    joined = np.where(split[:, None], stated + np.nan_to_num(ext), trans)
    joined_error = errors(joined)
    better = split & ~(error <= np.minimum(joined_error, AGREEING))
    trans[better], error[better] = joined[better], joined_error[better]
    check[better] = "cam_ext_added"
    for word, unit in _SMALLER_UNITS.items():
        _mend(trans, error, check, word, source == "label", trans / np.float32(unit), errors)
    unplaced = possible & (source == "label") & (trans[:, 2] < _NEAREST_DEPTH)
    source[_mend(trans, error, check, "translation_from_keypoints", unplaced, solved, errors)] = "keypoints"
    check[(check == "unchecked") & (error <= AGREEING)] = "consistent"
    check[error > AGREEING] = "off_keypoints"
    check[error > CONTRADICTORY] = "contradicts_keypoints"
    check[(source == "none") & _should_be_placed(columns, rows, confidence)] = "contradicts_keypoints"
    return CheckedPlaces(trans, source, check, np.where(np.isnan(error), -1, error))


def sizes_that_contradict(image_size: np.ndarray, cam_int: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(N,) whether an image (width, height) (N, 2) px is not the one that the camera (N, 3, 3) is for.

    The principal point of labels lies in the image's middle, or nearly so. An image is another if both coordinates
    say so by the same factor (it was resized), if they fit it lying on its side, or if most confident `keypoints`
    (N, K, 3) lie outside of it, and inside of one that the principal point is the middle of.
    """
    size, meant = image_size.astype(np.float64), 2 * cam_int[:, :2, 2].astype(np.float64)
    known = (size > 0).all(axis=1) & (meant > 0).all(axis=1)
    with np.errstate(all="ignore"):
        factor, turned = meant / size, meant / size[:, ::-1]
        off = np.abs(np.log(factor))
        resized = (off > _RESIZED).all(axis=1) & (np.abs(np.log(factor[:, 0] / factor[:, 1])) < _EQUALLY)
        rotated = (off > _RESIZED).all(axis=1) & (np.abs(np.log(turned)) < _EQUALLY).all(axis=1)
    sure = _confident(keypoints)
    outside = _share(sure & ((keypoints[..., :2] > size[:, None]) | (keypoints[..., :2] < 0)).any(axis=2), sure)
    fits = _share(sure & ((keypoints[..., :2] >= 0) & (keypoints[..., :2] <= meant[:, None])).all(axis=2), sure) > 0.9
    return known & (resized | rotated | ((outside > 0.5) & fits & (off > _RESIZED).any(axis=1)))


def boxes_that_contradict(center: np.ndarray, side: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(N,) whether boxes around `center` (N, 2) with `side` (N,) px cannot be those of confident `keypoints`.

    20 times larger or smaller than what these span (a scale in pixels is 200 times), or all of them outside twice the
    box. Fewer than 4 keypoints tell nothing.
    """
    sure, extent = _confident(keypoints), _extent(keypoints)
    known = (sure.sum(axis=1) >= _FEWEST_KEYPOINTS) & (extent > 0)
    with np.errstate(all="ignore"):
        far = (np.abs(keypoints[..., :2] - center[:, None]) > side[:, None, None]).any(axis=2) | ~sure
        ratio = np.abs(np.log(side / extent))
    return known & ((ratio > np.log(20)) | far.all(axis=1))


def _mend(trans, error, check, word, where, candidate, errors) -> np.ndarray:
    """Takes the `candidate` (B, 3) for rows of `where` that disagree and agree with it; gives these rows."""
    found = np.flatnonzero(where & (error > AGREEING))
    if len(found):
        candidate_error = errors(candidate)
        found = found[candidate_error[found] <= AGREEING]
        trans[found], error[found], check[found] = candidate[found], candidate_error[found], word
    return found


def _solved(columns: Columns, rows: np.ndarray, points, confidence) -> tuple[np.ndarray, np.ndarray]:
    """`solve_translation` where there is a camera, else zero and False."""
    trans, possible = np.zeros((len(rows), 3), np.float32), np.zeros(len(rows), bool)
    stated = columns["trans_cam"][rows]
    wanted = np.flatnonzero(columns["known_camera"][rows] & ~(stated[:, 2] >= _NEAREST_DEPTH))
    wanted = np.union1d(wanted, np.flatnonzero(columns["known_camera"][rows] & ~np.isfinite(stated).all(axis=1)))
    if len(wanted):
        cameras, keypoints = columns["cam_int"][rows[wanted]], columns["gtkps"][rows[wanted]]
        trans[wanted], possible[wanted] = solve_translation(points[wanted], confidence, keypoints, cameras)
    return trans, possible


def _should_be_placed(columns: Columns, rows: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(B,) whether camera and keypoints are there from which a body that is theirs can be placed."""
    keypoints = columns["gtkps"][rows]
    enough = (_confident(keypoints) & (np.asarray(confidence) > 0)).sum(axis=1) >= _FEWEST_KEYPOINTS
    return columns["known_camera"][rows] & enough & (_extent(keypoints) > 0)


def _confident(keypoints: np.ndarray) -> np.ndarray:
    return np.isfinite(keypoints).all(axis=2) & (np.nan_to_num(keypoints[..., 2]) > _CONFIDENT)


def _extent(keypoints: np.ndarray) -> np.ndarray:
    """(N,) longer side of the box around confident keypoints, px; 0 without any."""
    sure = _confident(keypoints)[..., None]
    high = np.where(sure, keypoints[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    low = np.where(sure, keypoints[..., :2], np.inf).min(axis=1, initial=np.inf)
    return np.where(sure.any(axis=(1, 2)), (high - low).max(axis=1), 0)


def _share(chosen: np.ndarray, of: np.ndarray) -> np.ndarray:
    """(N,) how many of `of` (N, K) are `chosen`; none with fewer than 4."""
    total = of.sum(axis=1)
    return np.where(total >= _FEWEST_KEYPOINTS, chosen.sum(axis=1) / np.maximum(total, 1), 0)
