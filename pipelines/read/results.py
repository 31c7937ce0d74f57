"""Results of well-known programs that are no label files: SMPL parameters inside pickled dictionaries.

| of | layout |
| --- | --- |
| 3DPW (`.pkl`) | poses, betas, trans: lists with an array per person; genders: a letter per person |
| WHAM | person -> pose (N, 72), betas (N, 10), trans (N, 3) |
| 4DHumans, PHALP | frame -> smpl: list of global_orient (1, 3, 3), body_pose (23, 3, 3), betas (10,) |
| TRAM (`.npy`) | pred_rotmat (N, 24, 3, 3), pred_shape (N, 10), pred_trans (N, 1, 3), as arrays or torch tensors |
| CameraHMR's demo (`.npz`) | pred_smpl_parms: global_orient_axis_angle, body_pose_axis_angle, betas; no position |
| HMR2.0 (`.npz`, `.pkl`, `.pt`) | pred_smpl_params: global_orient (N, 1, 3, 3), body_pose (N, 23, 3, 3), betas |
| ROMP (`.npz`) | results: a dictionary with smpl_thetas (N, 72), smpl_betas (N, 10); no position |
| GVHMR (`.pt`) | smpl_params_incam, smpl_params_global: SMPL-X's global_orient, body_pose (N, 63), betas, transl |
| any | one dictionary of arrays with a label file's names (pipelines.read.labels), or ROMP's or CameraHMR's |

All are read without running anything (fitting.body.inert_pickle, pipelines.files.torch_files), so only arrays, tensors
and plain values are. Files of joblib are named, with the way to convert them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np

from pipelines.files.npz import npz_members
from pipelines.files.npz_objects import read_arrays
from pipelines.files.npz_whole import WHOLE_BYTES, WHOLE_RATIO
from pipelines.files.urls import is_url
from pipelines.read.label_arrays import WORLD_SPELLINGS
from schemas import InputError

log = logging.getLogger(__name__)

_CONVERT = "an .npz, made by numpy.savez('x.npz', poses=..., betas=..., trans=...): axis-angle (N, 72), (N, 10), (N, 3)"
_KINDS = {
    ".pt": "a torch file",
    ".pth": "a torch file",
    ".ckpt": "a torch checkpoint",
    ".npy": "a lone array or a pickled dictionary",
    ".joblib": "a joblib file",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".json": "a JSON file",
}
_NAMES = {"pose": "poses", "smpl_pose": "poses", "smpl_betas": "betas", "smpl_trans": "trans"}
_NAMES |= {"pred_rotmat": "poses", "pred_shape": "betas", "pred_trans": "trans"}
_NAMES |= {"pose_cam": "poses", "shape": "betas", "trans_cam": "trans", "smpl_thetas": "poses"}
_NAMES |= {"global_orient_axis_angle": "global_orient", "body_pose_axis_angle": "body_pose"}
_WRAPPED = {
    "pred_smpl_parms": "what CameraHMR's demo writes",
    "pred_smpl_params": "HMR2.0's output",
    "results": "ROMP's output",
}
"""Member that holds the parameters -> whose file that is."""
_BARE = {"smpl_thetas": "ROMP's parameters", "body_pose_axis_angle": "CameraHMR's parameters"}
"""The same of files that hold the parameters themselves, under names of their own."""
_LABEL_POSES = {"pose_cam", "poses", "pose", "global_orient", "root_orient"}
"""Members by which an .npz is a label file, whatever else is in it."""
_GVHMR = {"camera": "smpl_params_incam", "world": "smpl_params_global"}


def is_result(path: str | PathLike[str]) -> bool:
    """Whether the file's name is that of a result which is no .npz, or its members are those of one."""
    return PurePath(path).suffix.lower() in _KINDS or bool(_whose(path))


def refuse_result(path: str | PathLike[str]) -> None:
    """Raises InputError that says what a file of this ending is and how to convert it; nothing for other endings."""
    if is_result(path):
        kind = _KINDS.get(PurePath(path).suffix.lower()) or _whose(path)
        raise InputError(f"this is {kind}, no label file", file=path, expected=_CONVERT)


def label_file_of(path: str | PathLike[str], frame: str = "camera") -> Path:
    """An .npz in a temporary folder, of the same name, with the SMPL or SMPL-X parameters of a result.

    People stand one after another; a line tells their rows. Of GVHMR's two sets that of `frame` is taken, and told.
    Raises InputError for other results.
    """
    source = Path(path)
    value = _content(source)
    try:
        people = _people(_of_frame(value, frame, path), path)
    except InputError:
        raise
    except Exception as error:  # what stands where is anybody's guess
        raise InputError(f"no layout that is known ({error})", file=path, expected=_CONVERT) from error
    if len(people) > 1:
        ends = np.cumsum([len(person["betas"]) for person in people]).tolist()
        rows = ", ".join(f"{first}:{end}" for first, end in zip([0, *ends], ends, strict=False))
        log.warning("%s: %d people, in rows %s", path, len(people), rows)
    names = set.intersection(*(set(person) for person in people))
    found = Path(_folder()) / f"{source.stem}.npz"
    np.savez(found, **{name: np.concatenate([person[name] for person in people]) for name in sorted(names)})
    return found


def _of_frame(value: Any, frame: str, path: str | PathLike[str]) -> Any:
    """Of GVHMR's two sets of parameters the one that is asked for; anything else as it is."""
    if not isinstance(value, Mapping) or not all(name in value for name in _GVHMR.values()):
        return value
    other = next(name for key, name in _GVHMR.items() if key != frame)
    log.warning("%s: poses are read from %s, not from %s (--frame %s)", path, _GVHMR[frame], other, frame)
    return {**value[_GVHMR[frame]], "jaw_pose": np.zeros((1, 3), np.float32)}  # SMPL-X's, with the face at rest


def _content(path: Path) -> Any:
    """The dictionary of a result, its arrays and tensors as far as they are looked at. Raises InputError."""
    from fitting.body.inert_pickle import parse_pickle, read_pickle

    ending = path.suffix.lower()
    if ending == ".npz":
        found = read_arrays(str(path), {*_WRAPPED, *_BARE, *_NAMES, *_READ})
        return _camerahmr_demo(path, found["pred_smpl_parms"]) if "pred_smpl_parms" in found else found
    if ending in (".pt", ".pth"):
        from pipelines.files.torch_files import read_torch_file

        return read_torch_file(path)
    if ending not in (".pkl", ".pickle", ".npy"):
        refuse_result(path)
    try:
        if ending != ".npy":
            return read_pickle(path)
        with path.open("rb") as file:
            shape, _, dtype = _npy_header(file, path)
            if dtype.kind != "O" or shape != ():
                raise InputError(f"a lone array of shape {shape}", file=path, expected=_CONVERT)
            return parse_pickle(file, path).item()
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror or error})", file=path) from error
    except InputError as error:
        if "refers to joblib" in error.problem:
            kind = "written with joblib, which is not opened (WHAM's, 4DHumans' and PHALP's results are)"
            raise InputError(kind, file=path, expected=_CONVERT) from error
        raise


def _whose(path: str | PathLike[str]) -> str:
    """Whose an .npz is by its members; empty if it is a label file or nobody's."""
    if PurePath(path).suffix.lower() != ".npz" or is_url(path) or not Path(path).is_file():
        return ""
    members = npz_members(fspath(path))
    if _LABEL_POSES & set(members):
        return ""
    return next((whose for name, whose in (_WRAPPED | _BARE).items() if name in members), "")


def _camerahmr_demo(path: Path, parameters: Any) -> dict[str, np.ndarray]:
    """Parameters of its people. Raises InputError that names what is absent or of another shape."""
    if not isinstance(parameters, dict):
        problem = f"holds a {type(parameters).__name__}"
        raise InputError(problem, file=path, field="pred_smpl_parms", expected="a dictionary")
    found: list[np.ndarray] = []
    for name, width in (("global_orient_axis_angle", 3), ("body_pose_axis_angle", 69), ("betas", 10)):
        value = np.asarray(parameters.get(name, ()), dtype=object)
        try:
            value = value.astype(np.float32).reshape(len(value), -1)
        except (TypeError, ValueError):
            value = np.zeros((0, 0), np.float32)
        if not len(value) or value.shape[1] < width or (found and len(value) != len(found[0])):
            field, expected = f"pred_smpl_parms.{name}", f"numbers (N, {width})"
            raise InputError("absent, or of another shape", file=path, field=field, expected=expected)
        found.append(value[:, :width])
    return {"poses": np.concatenate(found[:2], 1), "betas": found[2]}


def _npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        return read(file)
    except Exception as error:  # NumPy's own parser has many words for nonsense
        raise InputError(f"no .npy file ({error})", file=path, expected=_CONVERT) from error


def _array(value: Any) -> np.ndarray:
    """An array, a tensor of a torch file, or whatever else a dictionary has: then objects."""
    load = getattr(value, "load", None)
    return load().float().numpy() if load is not None else np.asarray(value)


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
        for name in _WRAPPED:
            if isinstance(value.get(name), Mapping):
                return [_person({"imgname": value.get("imgname"), **value[name]}, path)]
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


_READ = ("poses", "global_orient", "root_orient", "body_pose", "pose_body", "betas", "trans", "transl", "gender")
_READ += ("imgname", *(name for names in WORLD_SPELLINGS.values() for name in names), "jaw_pose", "expression")
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
    named = {_NAMES.get(str(k), str(k)): v for k, v in values.items() if v is not None}
    arrays = {name: _array(named[name]) for name in _READ if name in named}
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind in "fiuUS"}
    first = next((arrays[name] for name in ("poses", "global_orient", "root_orient") if name in arrays), None)
    if first is None or not first.ndim or "betas" not in arrays:
        raise InputError(f"no SMPL parameters in {', '.join(map(str, values))}", file=path, expected=_CONVERT)
    rows = len(first)
    found = {}
    for name in _READ:
        if name in arrays:
            array = arrays[name]
            lone = array[None] if array.ndim == 0 or (name == "betas" and array.ndim == 1) else array
            found[name] = np.repeat(lone, rows, 0) if len(lone) == 1 != rows else lone
    if not any(name in found for name in ("poses", "pose_body", "body_pose")):
        raise InputError("no pose", file=path, expected=_CONVERT)
    return found
