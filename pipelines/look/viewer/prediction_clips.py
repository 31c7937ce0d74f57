"""Clips of predictions (`schemas.PREDICTION`): everybody in pictures, or the tracks of a film."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipelines.files.body_models import BodyModels
from pipelines.files.predictions import Predictions, frame_rate, read_predictions
from pipelines.look.viewer.clips import CAMERA, Clip
from pipelines.look.viewer.picture_views import film_views, picture_view
from schemas import InputError

log = logging.getLogger(__name__)


def prediction_clip(
    path: Path, rows: slice, most: int, source: str | None, images: Path | None, body_models: str | None
) -> Clip:
    """Up to `most` of the pictures, evenly spread, or of a film's tracks, the longest; `rows` are frames of a film.

    `source` is the picture or film to show, by default all pictures, or the film if there is one; `images` the folder
    in which sources are, by default the working directory. Raises InputError for what cannot be read or is not there.
    """
    found = read_predictions(path)
    if not len(found):
        raise InputError("nobody was found in it", file=found.path)
    found = _chosen(found, source)
    if _frames(found) is None:
        if rows != slice(None):
            raise InputError("pictures have no frames", field="--rows", expected="only with a fit or a film")
        return _pictures_clip(found, most, images, body_models)
    return _film_clip(found, rows, most, images, body_models)


def _chosen(found: Predictions, source: str | None) -> Predictions:
    """The people of one source, or of all pictures."""
    names = found.columns["source"].astype(str)
    if source is not None:
        kept = np.array([source in (name, Path(name).name) for name in names])
        if len(there := sorted(set(names[kept]))) != 1:
            problem = f"{source!r} are {', '.join(there)}" if there else f"nobody was found in {source!r}"
            raise InputError(problem, file=found.path, field="--source", expected=_some(names))
        return found.take(kept)
    frames = _frames(found)
    if frames is None:
        return found
    in_pictures = np.ma.getmaskarray(frames)
    films = sorted(set(names[~in_pictures]))
    if in_pictures.any():
        log.warning("%s: pictures are shown; --source shows a film: %s", found.path, _some(films))
        return found.take(in_pictures)
    if len(films) > 1:
        problem = f"people of {len(films)} films, of which a page shows one"
        raise InputError(problem, file=found.path, field="--source", expected=_some(films))
    return found


def _some(names) -> str:
    """A few of the names, to choose from."""
    unique = sorted(set(map(str, names)))
    return ", ".join(unique[:5]) + (", ..." if len(unique) > 5 else "")


def _frames(found: Predictions) -> np.ma.MaskedArray | np.ndarray | None:
    """Frames of people in films, None or masked for those in pictures."""
    frames = found.columns.get("frame")
    return None if frames is None or np.ma.getmaskarray(frames).all() else frames


def _pictures_clip(found: Predictions, most: int, images: Path | None, body_models: str | None) -> Clip:
    sources = list(dict.fromkeys(found.columns["source"].astype(str)))
    if len(sources) > most:
        sources = [sources[i] for i in np.unique(np.linspace(0, len(sources) - 1, most).round().astype(int))]
    moment_of = {source: moment for moment, source in enumerate(sources)}
    found = found.take(np.flatnonzero([name in moment_of for name in found.columns["source"]]))
    people = np.asarray(found.columns["person"], int)
    moments = np.array([moment_of[name] for name in found.columns["source"]])
    order = np.lexsort((people, moments))
    found, moments, people = found.take(order), moments[order], people[order]
    numbers, people = np.unique(people, return_inverse=True)
    _check_once(found, moments, people)
    firsts = [int(np.flatnonzero(moments == moment)[0]) for moment in range(len(sources))]
    return Clip(
        title=sources[0] if len(sources) == 1 else found.path.parent.resolve().name,
        **_bodies(found, body_models),
        moments=moments,
        people=people,
        names=[f"person {number}" for number in numbers],
        titles=sources,
        captions=[f"{found.columns['source'][row]}, {_caption(found, row)}" for row in range(len(found))],
        up=CAMERA,
        views=[picture_view(found, row, images) for row in firsts],
    )


def _film_clip(found: Predictions, rows: slice, most: int, images: Path | None, body_models: str | None) -> Clip:
    frames = np.asarray(_frames(found), int)
    every = int(np.gcd.reduce(np.diff(np.unique(frames)))) or 1  # a film may have been looked at in steps
    looked_at = np.arange(frames.min() % every, frames.max() + 1, every)
    shown = looked_at[np.isin(looked_at, np.arange(frames.max() + 1)[rows])]
    kept = np.flatnonzero(np.isin(frames, shown))
    if not len(kept):
        problem = f"nobody was found in these of {frames.max() + 1} frames"
        raise InputError(problem, file=found.path, field="--rows")
    step = (shown[1] - shown[0]) if len(shown) > 1 else 1
    found, frames = found.take(kept), frames[kept]
    tracks = found.columns.get("track")
    kind = "person" if tracks is None or np.ma.getmaskarray(tracks).any() else "track"
    tracks = np.asarray(found.columns[kind], int)
    numbers, lengths = np.unique(tracks, return_counts=True)
    longest = np.sort(numbers[np.argsort(-lengths, kind="stable")[:most]])
    if len(longest) < len(numbers):
        log.warning("%s: the longest %d of %d tracks are shown (--people)", found.path, most, len(numbers))
    kept = np.flatnonzero(np.isin(tracks, longest))
    kept = kept[np.lexsort((tracks[kept], frames[kept]))]
    found, frames, tracks = found.take(kept), frames[kept], tracks[kept]
    shown = shown[(shown >= frames.min()) & (shown <= frames.max())]
    moments, people = np.searchsorted(shown, frames), np.searchsorted(longest, tracks)
    _check_once(found, moments, people)
    rate = _rate(found, frames)
    return Clip(
        title=str(found.columns["source"][0]),
        **_bodies(found, body_models),
        moments=moments,
        people=people,
        names=[f"{kind} {number}" for number in longest],
        titles=[f"frame {frame}" for frame in shown],
        captions=[
            f"frame {frame}, {kind} {track}, {_caption(found, row, number=False)}"
            for row, (frame, track) in enumerate(zip(frames, tracks, strict=True))
        ],
        up=CAMERA,
        frame_rate=rate / step,
        begins=float(shown[0]) / rate,
        views=film_views(found, shown, images),
    )


def _rate(found: Predictions, frames: np.ndarray) -> float:
    try:
        return frame_rate(frames, np.asarray(found.columns["time_s"], float))
    except ValueError as error:
        raise InputError(str(error), file=found.path, field="time_s") from error


def _check_once(found: Predictions, moments: np.ndarray, people: np.ndarray) -> None:
    """Nobody is there twice at a moment."""
    pairs, counts = np.unique(np.stack([moments, people]), axis=1, return_counts=True)
    if (counts > 1).any():
        row = int(np.flatnonzero((moments == pairs[0, counts > 1][0]) & (people == pairs[1, counts > 1][0]))[1])
        raise InputError(f"{_caption(found, row)} is there twice in {found.columns['source'][row]}", file=found.path)


def _bodies(found: Predictions, body_models: str | None) -> dict:
    """Parameters, and the one body model that they are of."""
    columns = found.columns
    models = sorted(set(zip(columns["body_model"].astype(str), columns["gender"].astype(str), strict=True)))
    if len(models) > 1:
        problem = "people of several body models: " + ", ".join(" ".join(model) for model in models)
        raise InputError(problem, file=found.path, field="body_model", expected="one; --source shows one picture")
    where, gender = body_models or models[0][0], models[0][1]
    parameters = {name: np.asarray(columns[name], np.float32) for name in ("poses", "betas", "trans")}
    return {"skel": BodyModels(where, gender).skel, "body": str(where), **parameters}


def _caption(found: Predictions, row: int, number: bool = True) -> str:
    """Who this is and how well it went."""
    columns = found.columns
    words = [f"person {columns['person'][row]}"] if number else []
    words.append(f"score {columns['score'][row]:.2f}")
    error = columns.get("reprojection_error_px", np.ma.masked_all(len(found)))[row]
    if not np.ma.is_masked(error):
        words.append(f"{error:.1f} px off")
    verdict = columns.get("verdict", np.full(len(found), None, object))[row]
    if verdict not in (None, "good"):
        words.append(str(verdict))
    return ", ".join(words)
