"""The command `hmr-skel fit`: SKEL parameters for one label file, motion sequence or file of meshes, without Beam.

The result is an .npz with one row per row read: what `fitting.SKELFit` has, under its names, beside the SMPL source.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from pipelines.command.hmr_skel import console
from pipelines.command.options import Positional, arg, parse_options, parse_row_range
from pipelines.command.progress import progress_bar
from pipelines.files.body_models import DEMO, DEMO_IS, body_models_in_words, tell_of_demo_body
from pipelines.files.npz import npz_members, write_npz
from pipelines.files.npz_whole import check_unpacked, checked_sha256
from pipelines.files.outputs import check_output_file, written
from pipelines.hand_on.fit_table import show_fit
from pipelines.hand_on.meshes import MeshFile, fit_meshes, is_mesh_file, open_meshes
from pipelines.hand_on.opensim import UP_CHOICES, MotionFiles, hand_on_motion, resolve_up
from pipelines.hand_on.smplx_parameters import SMPLXFile, is_smplx_file, open_smplx
from pipelines.read.labels import POSE_AND_SHAPE, Frame, LabelFile, open_labels
from pipelines.read.results import is_result, label_file_of
from schemas import STAGES, Columns, InputError

if TYPE_CHECKING:
    from pipelines.convert.bodies import LoadedBodies
    from pipelines.convert.settings import FitSettings

log = logging.getLogger(__name__)

ASSUMED_FRAME_RATE = 30.0
ROWS_AT_A_TIME = 1 << 16
_OPTIONAL = ("trans_cam", "gender", "imgname", "has_smpl", "cam_ext")


@dataclass
class FitSequenceOptions:
    """What to fit, with which bodies, and where to put it."""

    input: Annotated[Path, Positional, arg(metavar="IN")]
    """Label file (.npz, CameraHMR layout), motion sequence (AMASS layout: poses, betas, trans, mocap_framerate;
    also results of 3DPW, TRAM and GVHMR, and pickles of arrays or tensors), or
    meshes without parameters (.npz with vertices (N, V, 3) in metres, .ply) on SMPL's topology. SMPL-X's meshes and
    parameters need smplx2smpl_deftrafo_setup.pkl, parameters also SMPLX_NEUTRAL.npz among the body models."""
    output: Annotated[Path, arg(metavar="OUT", aliases=("-o",))]
    """The .npz to write."""
    rows: Annotated[str, arg(metavar="START:STOP")] = ":"
    """Rows to read, as in a Python slice."""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """Folder (or its URL) with the official SMPL and SKEL files, flat or in smpl/ and skel/; demo: embedded body."""
    gender: Literal["file", "male", "female"] = "file"
    """Which SKEL to fit; file: female for rows of SMPL female if that model is there, else male, which the field uses
    for everyone."""
    smpl_gender: Literal["file", "neutral", "male", "female"] = "file"
    """Gender of the SMPL model that the rows are for; file: what the file says, neutral if it says nothing."""
    frame: Frame = "camera"
    """Of files that hold poses in two frames, as BEDLAM's and WHAM's do, which to read: camera (pose_cam, poses, pose,
    trans_cam, trans, ...), or world (pose_world, poses_world, trans_world)."""
    limits: Annotated[str, arg(metavar="NAME|FILE")] = "human"
    """Joint limits, held exactly: human (all that flexible people can do), bsm (the BSM model's), none, or a CSV file
    of your own (coordinate,low,high in degrees; others keep the human ones)."""
    betas: Literal["keep", "near", "free"] = "near"
    """Shape: as transferred from SMPL's, near it with limbs of the same length, or whatever brings the mesh nearer."""
    betas_gain: bool = False
    """Fit everyone a second time with --betas keep, to tell what moving the shape gains."""
    sequence: bool = False
    """The rows are the frames of one motion: one shape for all, and surface velocities like the source's."""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    batch_size: int | None = None
    """People fitted at a time; by default what suits the device."""
    mot: Path | None = None
    """Also write the motion for OpenSim (.mot): degrees and metres, y up, x forward."""
    trc: Path | None = None
    """Also write joint centres and skin markers for OpenSim (.trc), in the same frame."""
    osim: Path | None = None
    """Also write an OpenSim model of the person (.osim) that the motion plays on, with bones in Geometry/ beside it."""
    angles: Path | None = None
    """Also write the numbers of the motion as .csv."""
    plot: Path | None = None
    """Also draw the joint angles over time (.png, .svg or .pdf)."""
    up: Literal[UP_CHOICES] = "auto"  # type: ignore[valid-type]
    """Which axis of the input points up: y (SMPL's own), z (AMASS) or camera (y points down); auto: as trunks tell."""
    frame_rate: float | None = None
    """Frames per second; by default what the file says, or 30."""


def main(argv: list[str], prog: str = "hmr-skel fit") -> int:
    """Fit SKEL to the SMPL parameters of one label file or motion sequence."""
    description = "Fit SKEL to the SMPL parameters of one label file or motion sequence."
    options = parse_options(FitSequenceOptions, argv, prog, description)
    check_output_file(options.output, "--output", [".npz"])
    files = MotionFiles(options.mot, options.trc, options.osim, options.angles, options.plot)
    files.check()
    if options.output.exists() and options.input.exists() and options.output.samefile(options.input):
        raise InputError("is the input file", file=options.output, field="--output", expected="another file")
    for name in ("batch_size", "frame_rate"):
        if (value := getattr(options, name)) is not None and not 0 < value < float("inf"):
            raise InputError(f"{value} given", field=f"--{name.replace('_', '-')}", expected="a positive number")
    tell_of_demo_body(options.body_models)
    smpl_gender = None if options.smpl_gender == "file" else options.smpl_gender
    bodies = _load_bodies(options, "male" if options.gender == "file" else options.gender)
    source = label_file_of(options.input, options.frame) if is_result(options.input) else options.input
    meshes = _open_meshes(source, smpl_gender, bodies)
    optional = [name for name in _OPTIONAL if name != "gender" or not smpl_gender]
    labels = meshes or open_labels(source, POSE_AND_SHAPE, optional, options.frame)
    if not meshes and labels.choice:
        log.warning("%s: %s (--frame %s)", options.input, labels.choice, options.frame)
    if not meshes:
        check_unpacked(str(source), [member for members in labels.members.values() for member in members])
    if source.suffix.lower() == ".npz":
        checked_sha256(str(source), npz_members(str(source)).values())
    start, stop = row_range(options.rows, labels)
    frame_rate = options.frame_rate or labels.frame_rate
    if meshes and files and options.up == "auto":
        raise InputError("meshes do not say which axis is up", field="--up", expected="y, z or camera")
    up = resolve_up(options.up, labels, start, stop) if files else None
    if meshes:
        smpl_gender = smpl_gender or "neutral"
    genders = [smpl_gender] if smpl_gender else smpl_genders(labels, start, stop)
    if options.gender == "file" and "female" in genders:
        bodies = _bodies_of_women(options, bodies, genders, labels.path)
    for gender in genders:
        bodies.load(gender)
    began = time.perf_counter()
    if meshes:
        fit = fit_meshes(meshes, start, stop, bodies, smpl_gender, options.sequence)
    else:
        fit = fit_rows(labels, start, stop, bodies, smpl_gender, options.sequence)
    seconds = time.perf_counter() - began
    if not meshes:
        _warn_of_units(fit, options.input)
    save_fit(options.output, fit, labels, start, frame_rate, bodies.settings)
    show_fit(fit, start, seconds, options.output, console(), bodies.settings)
    if up is not None:
        if frame_rate is None:
            log.warning("%s: no frame rate; %g frames/s are assumed", labels.path, ASSUMED_FRAME_RATE)
        rate = frame_rate or ASSUMED_FRAME_RATE
        made_with = body_models_in_words(options.body_models, bodies.settings.gender)
        hand_on_motion(files, bodies.models.skel, fit, start, rate, up, console(), made_with)
    return 0


def _open_meshes(path: Path, smpl_gender: str | None, bodies: LoadedBodies) -> MeshFile | SMPLXFile | None:
    """The input's meshes, if it is a file of meshes or of SMPL-X's parameters, which become some."""
    if is_smplx_file(path):
        return open_smplx(path, lambda gender: bodies.models.smplx(smpl_gender or gender))
    return open_meshes(path) if is_mesh_file(path) else None


def row_range(text: str, labels: LabelFile | MeshFile | SMPLXFile) -> tuple[int, int]:
    """`START:STOP` as two row numbers within the file. Raises InputError if they select nothing."""
    start, stop, _ = parse_row_range(text).indices(labels.rows)
    if labels.rows == 0:
        raise InputError("the file has no rows", file=labels.path)
    if start >= stop:
        raise InputError(f"{text} selects none of {labels.rows} rows", file=labels.path, field="--rows")
    return start, stop


def smpl_genders(labels: LabelFile, start: int, stop: int) -> list[str]:
    """Genders of the SMPL sources that the file states for rows [start, stop)."""
    stated = labels.read(start, stop, ["gender"]).get("gender")
    if stated is not None and None in stated:
        row = start + stated.tolist().index(None)
        expected = "male, female or neutral; --smpl-gender overrides it"
        raise InputError("a gender that is not known", file=labels.path, row=row, field="gender", expected=expected)
    return ["neutral"] if stated is None else sorted(set(stated.tolist()))


def fit_rows(
    labels: LabelFile, start: int, stop: int, bodies: LoadedBodies, gender: str | None = None, sequence: bool = False
) -> Columns:
    """Fits rows [start, stop): fields of SKELFit and the SMPL source (`smpl_poses`, ...), a row per row.

    `gender` overrides the file's. Rows whose pose or shape is not finite are NaN, with `valid` False; a translation
    that is absent or not finite is zero, with `trans_source` none. A `sequence` is solved as one.
    """
    pieces: list[Columns] = []
    # In a sequence, all frames are fitted alone before they are fitted together.
    rounds = 2 if sequence else 1
    with progress_bar(desc="fit", unit="frames" if sequence else "people", total=rounds * (stop - start)) as bar:
        for first in range(start, stop, ROWS_AT_A_TIME):
            pieces.append(_read_source(labels, first, min(first + ROWS_AT_A_TIME, stop), gender))
            if not sequence:
                pieces[-1] |= _fit_by_gender(pieces[-1], bodies, bar.update, sequence)
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return joined | _fit_by_gender(joined, bodies, bar.update, sequence) if sequence else joined


def _read_source(labels: LabelFile, start: int, stop: int, gender: str | None) -> Columns:
    """The SMPL source of rows [start, stop) under the names of the result."""
    read = labels.read(start, stop, (*POSE_AND_SHAPE, *_OPTIONAL, "kid_share"))
    count = len(read["pose_cam"])
    _leave_out(read, labels, start)
    trans = read.get("trans_cam", np.full((count, 3), np.nan, np.float32))
    placed = np.isfinite(trans).all(axis=1)
    source: Columns = {
        "smpl_poses": read["pose_cam"],
        "smpl_betas": np.ascontiguousarray(read["shape"]),
        "smpl_trans": np.where(placed[:, None], trans, 0),
        "trans_source": np.where(placed, "label", "none").astype(object),
        "smpl_gender": read.get("gender", np.full(count, "neutral", object)),
    }
    if gender is not None:
        source["smpl_gender"] = np.full(count, gender, object)
    if "imgname" in read:
        source["imgname"] = read["imgname"]
    return source


def _leave_out(read: Columns, labels: LabelFile, first: int) -> None:
    """Rows without SMPL parameters become NaN; the camera's share of a translation is added to it.

    Raises InputError for a child's shape.
    """
    if kids := np.flatnonzero(read.get("kid_share", np.zeros(0))).tolist():
        problem = "the 11th beta is not zero: a share of the child's template, which SKEL has not"
        raise InputError(problem, file=labels.path, row=first + kids[0], field="betas")
    if "has_smpl" in read:
        read["pose_cam"] = np.where(read["has_smpl"][:, None] == 0, np.float32(np.nan), read["pose_cam"])
    if "cam_ext" in read and "trans_cam" in read:
        read["trans_cam"] = read["trans_cam"] + read["cam_ext"]


def _fit_by_gender(source: Columns, bodies: LoadedBodies, progress: Callable[[int], object], sequence: bool) -> Columns:
    found: Columns = {}
    genders = source["smpl_gender"].astype(str)
    if sequence and len(np.unique(genders)) > 1:
        raise InputError("rows of several genders", field="--sequence", expected="the frames of one person")
    for gender in np.unique(genders):
        rows = np.flatnonzero(genders == gender)
        inputs = (source[name][rows] for name in ("smpl_poses", "smpl_betas", "smpl_trans"))
        for name, values in bodies.fit(str(gender), *inputs, progress, sequence).items():
            column = found.setdefault(name, np.zeros((len(genders), *values.shape[1:]), values.dtype))
            column[rows] = values
    return found


def save_fit(
    path: Path,
    fit: Columns,
    labels: LabelFile | MeshFile | SMPLXFile,
    start: int,
    frame_rate: float | None,
    settings: FitSettings,
) -> None:
    """Writes the fit as an .npz that numpy reads without pickle; parent folders are made.

    Beside the fit: what body models it was made with, and name, unit and limits of the coordinates of `poses`.
    """
    from pipelines.convert.settings import coordinates

    table = coordinates(settings.limits)
    arrays = {name: values.astype(str) if values.dtype == object else values for name, values in fit.items()}
    arrays |= {
        "gender": np.array(settings.gender),
        "body_models": np.array(f"demo: {DEMO_IS}" if settings.body_models == DEMO else "files"),
        "pose_names": np.array([coordinate["name"] for coordinate in table]),
        "pose_units": np.array([coordinate["unit"] for coordinate in table]),
        "pose_limits": np.array([[c["low"], c["high"]] for c in table], float),  # NaN where there is none
        "stage_names": np.array(STAGES),
        "source": np.array(labels.name),
        "source_row": np.arange(start, start + len(fit["poses"])),
    }
    if frame_rate is not None:
        arrays["mocap_framerate"] = np.array(float(frame_rate))
    with written(path) as hidden:
        write_npz(hidden, arrays)


def _warn_of_units(fit: Columns, path: Path) -> None:
    """Numbers of another unit are fitted as well as they can be, and named."""
    import torch

    from fitting.fit.verdict import in_degrees, in_millimetres

    for what, looks, wrong, right in (
        ("smpl_poses", in_degrees, "degrees", "radians"),
        ("smpl_trans", in_millimetres, "millimetres", "metres"),
    ):
        if count := int(looks(torch.from_numpy(np.asarray(fit[what], np.float32)))[fit["valid"]].sum()):
            name = what.removeprefix("smpl_")
            log.warning(
                "%s: %s of %d of %d rows look like %s; %s are expected", path, name, count, len(fit[what]), wrong, right
            )


def _bodies_of_women(options: FitSequenceOptions, male: LoadedBodies, genders: list[str], path: str) -> LoadedBodies:
    """SKEL female for rows that are all of SMPL female, if it is there; a line if it is not."""
    if options.body_models == DEMO:
        return male
    if genders != ["female"]:
        log.warning("%s: rows of %s; all are fitted with SKEL male (--gender)", path, " and ".join(genders))
    elif male.models.has_skel("female"):
        return _load_bodies(options, "female")
    else:
        log.warning("%s: female, but %s holds no SKEL female: SKEL male is fitted", path, options.body_models)
    return male


def _load_bodies(options: FitSequenceOptions, gender: str) -> LoadedBodies:
    from pipelines.command.devices import cores, one_device
    from pipelines.convert.bodies import LoadedBodies
    from pipelines.convert.settings import FitSettings, limits_for_workers

    settings = FitSettings(
        body_models=options.body_models,
        gender=gender,
        limits=limits_for_workers(options.limits),
        betas=options.betas,
        batch_size=options.batch_size,
        threads=cores(),
    )
    more = {"measure_betas_gain": options.betas_gain}
    return LoadedBodies(settings, one_device(options.device), more)
