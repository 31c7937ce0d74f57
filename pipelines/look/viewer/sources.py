"""Where clips come from: a fit's .npz, shards, or predictions.

Every kind of file has a loader; to show another, write a function like `fit_clip` and name it in `open_clip`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.convert.ground import UP_AXES, detect_up
from pipelines.files.body_models import DEMO, BodyModels
from pipelines.files.npz import texts
from pipelines.files.npz_whole import read_whole
from pipelines.files.parquet import read_schema
from pipelines.files.predictions import FILE_NAME
from pipelines.files.shards import IMAGE_ENDINGS, find_shards, read_columns, read_members, read_people
from pipelines.look.viewer.clips import CAMERA, Clip, View, one_by_one
from pipelines.look.viewer.prediction_clips import prediction_clip
from schemas import PREDICTION, InputError, record_name

AUTO = "auto"
_FIT_FIELDS = {"poses": (46,), "betas": (10,), "trans": (3,), "valid": ()}
_ASSUMED_FRAME_RATE = 30.0


def open_clip(
    sources: Sequence[str],
    rows: slice,
    people: int,
    up: str = AUTO,
    body_models: str | None = None,
    source: str | None = None,
    images: Path | None = None,
) -> Clip:
    """What the paths hold: `rows` of one fit's .npz, up to `people` of shards, spread over them, or a prediction.

    `up` says which axis of a fit points up; `source` and `images` which pictures or film of a prediction is shown and
    in which folder they are; `body_models` by default those named by shards or prediction, or the embedded body.
    Raises InputError for what cannot be read or is none of these.
    """
    if len(sources) == 1 and sources[0].endswith(".npz"):
        return fit_clip(Path(sources[0]), rows, up, body_models)
    if len(sources) == 1 and _is_prediction(Path(sources[0])):
        return prediction_clip(Path(sources[0]), rows, people, source, images, body_models)
    for option, value in (("--source", source), ("--images", images)):
        if value is not None:
            raise InputError(f"{value} given", field=option, expected="only with a prediction")
    if rows != slice(None):
        raise InputError("given for shards", field="--rows", expected="only with a fit or a film; see --people")
    return shards_clip(sources, people, body_models)


def _is_prediction(path: Path) -> bool:
    """Whether `hmr-skel predict` wrote this folder or file."""

    if path.suffix != ".parquet" or not path.is_file():
        return (path / FILE_NAME).is_file()
    facts = read_schema(path).metadata or {}
    return facts.get(b"record", b"").decode(errors="replace") == record_name(PREDICTION)


def fit_clip(path: Path, rows: slice, up: str, body_models: str | None) -> Clip:
    """The valid ones of some rows that `hmr-skel fit` wrote."""
    arrays = _fit_arrays(path)
    picked = np.arange(len(arrays["poses"]))[rows]
    picked = picked[arrays["valid"][picked].astype(bool)]
    if not len(picked):
        raise InputError(f"none of {len(arrays['poses'])} rows is there and was fitted", file=path, field="--rows")
    if up == AUTO:
        if "smpl_poses" not in arrays:
            raise InputError("the fit does not hold its source", file=path, field="--up", expected=", ".join(UP_AXES))
        up = detect_up(arrays["smpl_poses"][picked, :3])
    where, gender = body_models or DEMO, _word(arrays, "gender", "male")
    errors = arrays.get("vertex_error_mm")
    source_rows = arrays.get("source_row", np.arange(len(arrays["poses"])))[picked]
    rate = _rate(arrays, path)
    return Clip(
        title=_word(arrays, "source", path.name),
        skel=BodyModels(where, gender).skel,
        body=where,
        **{name: arrays[name][picked].astype(np.float32) for name in ("poses", "betas", "trans")},
        **one_by_one(len(picked)),
        captions=[
            f"row {row}" + ("" if errors is None else f", {errors[i]:.1f} mm from SMPL")
            for row, i in zip(source_rows, picked, strict=True)
        ],
        up=up,
        frame_rate=rate / abs(rows.step or 1),
        begins=float(source_rows[0]) / rate,
    )


def _fit_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = read_whole(str(path))
    rows = len(arrays["poses"]) if arrays.get("poses", np.zeros(())).ndim else 0
    for name, shape in _FIT_FIELDS.items():
        if name not in arrays:
            raise InputError("the array is missing", file=path, field=name, expected="what hmr-skel fit wrote")
        if arrays[name].shape != (rows, *shape) or arrays[name].dtype.kind not in "fiub":
            expected = f"numbers {('N', *shape)}".replace("'", "")
            raise InputError(f"an array of shape {arrays[name].shape}", file=path, field=name, expected=expected)
    return arrays


def _rate(arrays: dict[str, np.ndarray], path: Path) -> float:
    value = arrays.get("mocap_framerate", np.array(_ASSUMED_FRAME_RATE))
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < value.item() < np.inf:
        raise InputError("no frame rate", file=path, field="mocap_framerate", expected="a positive number")
    return float(value.item())


def _word(arrays: dict[str, np.ndarray], name: str, otherwise: str) -> str:
    found = texts(arrays[name].reshape(-1)[:1]) if name in arrays and arrays[name].dtype.kind in "US" else ()
    return found[0] if len(found) and found[0] else otherwise


def shards_clip(sources: Sequence[str], people: int, body_models: str | None) -> Clip:
    """People evenly spread over shards, with their pictures."""
    from pipelines.draw.sheet import body_of

    shards = find_shards(sources)
    total = read_columns(shards, ["converged"]).num_rows
    if not total:
        raise InputError("no samples to show", file=shards[0].parquet)
    picked = np.unique(np.linspace(0, total - 1, min(people, total)).round().astype(int))
    samples = read_people(shards, picked)
    members = {shard: read_members(shard, [s["key"] for own, s in samples if own == shard]) for shard, _ in samples}
    found = [sample for _, sample in samples]
    return Clip(
        title=str(shards[0].folder.name if len(shards) > 1 else shards[0].name),
        skel=body_of(shards, body_models),
        body=body_models or "as the shards name them",
        **{name: np.stack([s[name] for s in found]).astype(np.float32) for name in ("poses", "betas", "trans")},
        **one_by_one(len(picked)),
        captions=[
            f"{s['key']}, {s['vertex_error_mm']:.1f} mm from SMPL{'' if s['converged'] else ', not converged'}"
            for s in found
        ],
        up=CAMERA,
        views=[_view(sample, members[shard].get(sample["key"], {})) for shard, sample in samples],
    )


def _view(sample: dict, parts: dict[str, bytes]) -> View | None:
    """The stored picture, if there is one and it is known where the person is in it."""
    ending = next((ending for ending in IMAGE_ENDINGS if ending in parts), None)
    camera = np.asarray(sample["cam_int"], np.float64)
    if ending is None or not camera[0, 0] > 0 or sample["trans_source"] == "none":
        return None
    width, height = (int(side) for side in sample["crop_size"])
    media_type = "image/png" if ending == "png" else "image/jpeg"
    affine = np.vstack([np.asarray(sample["crop_affine"], np.float64), [0, 0, 1]])
    return View(parts[ending], media_type, (width, height), (affine @ camera)[:2])
