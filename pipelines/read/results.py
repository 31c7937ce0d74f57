"""Results of well-known programs that are no label files: SMPL parameters inside pickled dictionaries.

| of | layout |
| --- | --- |
| 3DPW (`.pkl`) | poses, betas, trans: lists with an array per person; genders: a letter per person |
| WHAM | person -> pose (N, 72), betas (N, 10), trans (N, 3) |
| 4DHumans, PHALP | frame -> smpl: list of global_orient (1, 3, 3), body_pose (23, 3, 3), betas (10,) |
| any | one dictionary of arrays with a label file's names (pipelines.read.labels) |

Pickles are read without running anything (fitting.body.inert_pickle), so only those of arrays and plain values are.
Files of torch and joblib are named, with the way to convert them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from pipelines.files.npz_whole import WHOLE_BYTES, WHOLE_RATIO
from pipelines.read.label_arrays import WORLD_SPELLINGS
from schemas import InputError

log = logging.getLogger(__name__)

_CONVERT = "an .npz, made by numpy.savez('x.npz', poses=..., betas=..., trans=...): axis-angle (N, 72), (N, 10), (N, 3)"
_KINDS = {
    ".pt": "a torch file (as of GVHMR, whose parameters are SMPL-X's)",
    ".pth": "a torch file",
    ".ckpt": "a torch checkpoint",
    ".npy": "a lone array or a pickled dictionary (as TRAM writes it)",
    ".joblib": "a joblib file",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".json": "a JSON file",
}
_PICKLES = (".pkl", ".pickle")
_NAMES = {"pose": "poses", "smpl_pose": "poses", "smpl_betas": "betas", "smpl_trans": "trans", "pred_trans": "trans"}


def is_result(path: str | PathLike[str]) -> bool:
    """Whether the file's name is that of a result which is no .npz."""
    return PurePath(path).suffix.lower() in _KINDS


def refuse_result(path: str | PathLike[str]) -> None:
    """Raises InputError that says what a file of this ending is and how to convert it; nothing for other endings."""
    if is_result(path):
        kind = _KINDS[PurePath(path).suffix.lower()]
        raise InputError(f"this is {kind}, no label file", file=path, expected=_CONVERT)


def label_file_of(path: str | PathLike[str]) -> Path:
    """An .npz in a temporary folder, of the same name, with the SMPL parameters of a pickled result.

    People stand one after another; a line tells their rows. Raises InputError for other results.
    """
    from fitting.body.inert_pickle import read_pickle

    source = Path(path)
    if source.suffix.lower() not in _PICKLES:
        refuse_result(path)
    try:
        value = read_pickle(source)
    except InputError as error:
        for library in ("joblib", "torch"):
            if f"refers to {library}" in error.problem:
                kind = f"written with {library}, which is not opened (WHAM's, 4DHumans' and PHALP's results are)"
                raise InputError(kind, file=path, expected=_CONVERT) from error
        raise
    try:
        people = _people(value, path)
    except InputError:
        raise
    except Exception as error:  # what stands where is anybody's guess
        raise InputError(f"no layout that is known ({error})", file=path, expected=_CONVERT) from error
    if len(people) > 1:
        ends = np.cumsum([len(person["poses"]) for person in people]).tolist()
        rows = ", ".join(f"{first}:{end}" for first, end in zip([0, *ends], ends, strict=False))
        log.warning("%s: %d people, in rows %s", path, len(people), rows)
    names = set.intersection(*(set(person) for person in people))
    found = Path(_folder()) / f"{source.stem}.npz"
    np.savez(found, **{name: np.concatenate([person[name] for person in people]) for name in sorted(names)})
    return found


@lru_cache(maxsize=1)
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="hmr-skel-")  # removed when the process ends


def _folder() -> str:
    return _temporary().name


def _stacked(bodies: list[Mapping], name: str, path: str | PathLike[str]) -> np.ndarray:
    """An array of many; a pickle may hold one of them and name it without end."""
    most = max(WHOLE_BYTES, WHOLE_RATIO * Path(path).stat().st_size)
    if len(bodies) * np.asarray(bodies[0][name]).nbytes > most:
        raise InputError(f"{len(bodies)} bodies", file=path, field=name, expected="as many as the file can hold")
    return np.stack([body[name] for body in bodies])


def _people(value: Any, path: str | PathLike[str]) -> list[dict[str, np.ndarray]]:
    """Arrays of each person under label files' names. Raises InputError for a layout that is not known."""
    if isinstance(value, Mapping) and value:
        if isinstance(value.get("poses"), list) and isinstance(value.get("betas"), list):
            return [_of_3dpw(value, i, path) for i in range(len(value["poses"]))]
        inner = list(value.values())
        if all(isinstance(person, Mapping) for person in inner):
            if all("smpl" in frame for frame in inner):
                frames = [frame for _, frame in sorted(value.items(), key=lambda item: str(item[0]))]
                bodies = [body for frame in frames for body in frame["smpl"]]
                if bodies and all(isinstance(b, Mapping) and b.keys() >= _PHALP_NAMES for b in bodies):
                    return [_person({name: _stacked(bodies, name, path) for name in _PHALP}, path)]
            elif all(isinstance(key, (int, np.integer, str)) for key in value):
                return [_person(person, path) for person in inner]
        else:
            return [_person(value, path)]
    names = ", ".join(str(key) for key in list(value)[:8]) if isinstance(value, Mapping) else type(value).__name__
    raise InputError(f"no layout that is known; it holds {names}", file=path, expected=_CONVERT)


_PHALP = ("global_orient", "body_pose", "betas")
_PHALP_NAMES = set(_PHALP)


def _of_3dpw(value: Mapping, i: int, path: str | PathLike[str]) -> dict[str, np.ndarray]:
    person = {"poses": value["poses"][i], "betas": np.ravel(value["betas"][i])[:10]}
    if isinstance(value.get("trans"), list):
        person["trans"] = value["trans"][i]
    if isinstance(value.get("genders"), list):
        person["gender"] = str(value["genders"][i])
    return _person(person, path)


def _person(values: Mapping, path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays with a row per frame; what is shared is repeated."""
    arrays = {_NAMES.get(str(k), str(k)): np.asarray(v) for k, v in values.items() if v is not None}
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind in "fiuUS"}
    first = next((arrays[name] for name in ("poses", "global_orient", "root_orient") if name in arrays), None)
    if first is None or not first.ndim or "betas" not in arrays:
        raise InputError(f"no SMPL parameters in {', '.join(map(str, values))}", file=path, expected=_CONVERT)
    rows = len(first)
    wanted = ("poses", "global_orient", "root_orient", "body_pose", "pose_body", "betas", "trans", "transl", "gender")
    found = {}
    for name in (*wanted, *(name for names in WORLD_SPELLINGS.values() for name in names), "jaw_pose", "expression"):
        if name in arrays:
            array = arrays[name]
            lone = array[None] if array.ndim == 0 or (name == "betas" and array.ndim == 1) else array
            found[name] = np.repeat(lone, rows, 0) if len(lone) == 1 != rows else lone
    if not any(name in found for name in ("poses", "pose_body", "body_pose")):
        raise InputError("no pose", file=path, expected=_CONVERT)
    return found
