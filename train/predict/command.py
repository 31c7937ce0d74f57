"""The command `hmr-skel predict`: SKEL of everybody in photographs and films."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines.command.devices import one_device
from pipelines.command.option_files import write_options
from pipelines.command.options import Positional, arg, option_values, parse_options
from pipelines.command.progress import progress_bar
from schemas import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.files.body_models import BodyModels
    from train.predict.inputs import InputFile
    from train.predict.parts import Parts
    from train.predict.stream import Stream, Unit

WITHOUT_EFFECT = ("inputs", "output", "overlay", "meshes", "export", "opensim", "overwrite", "device")
"""Options that predictions.parquet does not depend on: a run may go on with others. Inputs are compared as files."""


@dataclass
class PredictOptions:
    """SKEL of everybody in photographs and films. Without --checkpoint it is fitted to the keypoints that are found."""

    inputs: Annotated[list[str], Positional, arg(metavar="IN...")] = field(default_factory=list)
    """photographs, films, folders of them (with all below), globs"""
    output: Annotated[Path, arg(metavar="DIR", aliases=("-o",))] = Path("prediction")
    """folder for predictions.parquet and all else; the same command goes on where it was stopped"""
    checkpoint: Annotated[str, arg(metavar="FILE|RUN")] = ""
    """this project's or a released network, or a training run's folder; without one, the fit to keypoints"""
    detector: Annotated[str, arg(metavar="NAME")] = "movenet"
    """who finds people: movenet, or transformers:ID, a detector of that library (pip install hmr-skel[detect])"""
    boxes: Path | None = None
    """boxes of the people instead, px of turned pictures: CSV (image,left,top,right,bottom, of films also frame), JSON
    ({"a.jpg": [[...]], "a.mp4": {FRAME: [[...]]}}) or COCO results (of films with frame_id). Frames count from 0; if
    boxes have a track, it is kept (CSV: track, JSON: sixth number, COCO: track_id)"""
    least_score: float | None = None
    """leave out people whom the detector is less sure of, 0 to 1; without it, the detector's own bound"""
    focal: float = 0.0
    """focal length, px; 0: the camera network's, or what EXIF data tell, or else the picture's diagonal"""
    camera: str = ""
    """checkpoint with the focal-length network (CameraHMR's, or SKEL-CF's); without it, the network's own file"""
    smooth: bool = False
    """films: fit the frames of each person together, with one shape and steady motion"""
    every: int = 1
    """films: look at each so many-th frame"""
    overlay: bool = False
    """also draw skin and bones over pictures and films, into DIR/overlays"""
    meshes: Literal["none", "glb", "ply"] = "none"
    """also write skin and bones of each picture, and of each frame, into DIR/meshes (m, y up)"""
    opensim: bool = False
    """also write model (.osim), motion (.mot), markers (.trc), angles (.csv) and, of films, their plot of each person
    into DIR/opensim: y up, x forward; up is what is up in the picture"""
    export: bool = False
    """also write an .npz per picture and film into DIR/export: poses, betas, trans, joints, cam, box, focal"""
    box_margin: float = 1.0
    """side of the square that the network sees divided by the longer side of the box"""
    patches: Literal["auto", "released", "ours"] = "auto"
    """how crops are cut: as the released code does, or antialiased; auto: as the network was taught"""
    which: Literal["ema", "model"] = "ema"
    """weights of the checkpoint to take: the moving average, or those last trained"""
    batch: int = 32
    """people that the network sees at a time"""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """folder with the official SKEL and SMPL files and regressors; demo is the embedded body"""
    gender: Literal["male", "female"] = "male"
    """of the SKEL model; the field uses male for everyone"""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N"""
    overwrite: bool = False
    """begin anew in a folder that holds another run"""

    def check(self) -> None:
        """Raises InputError for what cannot be."""
        if self.focal and not 0 < self.focal < math.inf:
            raise InputError(f"{self.focal}", field="--focal", expected="a length above 0, px, or 0: not known")
        if not 0 < self.box_margin < math.inf:
            raise InputError(f"{self.box_margin}", field="--box-margin", expected="a number above 0")
        for name in ("every", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{getattr(self, name)}", field=f"--{name}", expected="a number above 0")
        if self.least_score is not None and not 0 <= self.least_score <= 1:
            raise InputError(f"{self.least_score}", field="--least-score", expected="0 to 1")
        if self.boxes is not None and self.boxes.is_dir():
            raise InputError("is a folder", file=self.boxes, field="--boxes", expected="boxes as CSV or JSON")


def main(argv: list[str] | None = None, prog: str = "hmr-skel predict") -> int:
    """Predict SKEL of everybody in photographs and films."""
    options = parse_options(PredictOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__)
    options.check()
    from pipelines.files.lock import output_lock
    from pipelines.files.storage import output_problems
    from train.predict.inputs import find_sources
    from train.predict.summary import print_predictions

    sources = find_sources(options.inputs, options.output)
    with output_problems(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
        with output_lock(options.output):
            rate, made = _run(options, sources)
    people = print_predictions(options.output, made, *rate)
    if not people:
        sys.stdout.write("nobody was found\n")
    return 0 if people else 1


def _run(options: PredictOptions, sources: Sequence[InputFile]) -> tuple[tuple[int, float], dict[str, int]]:
    """Pictures looked at by this call and their seconds; how many files of each kind there are beside predictions."""
    import torch

    from pipelines.files.body_models import BodyModels
    from pipelines.files.storage import published
    from train.evaluate.networks import checkpoint_file
    from train.predict.parts import begin_run

    named = [options.boxes, checkpoint_file(options.checkpoint) if options.checkpoint else None, options.camera]
    files = [Path(file) for file in named if file]
    recorded = {name: value for name, value in option_values(options).items() if name not in WITHOUT_EFFECT}
    finished = begin_run(options.output, sources, recorded, files, options.overwrite)
    device = torch.device(one_device(options.device))
    models = BodyModels(options.body_models, options.gender, device)
    rate = (0, 0.0) if finished else _predict(options, sources, models)
    with published(options.output / "options.yaml") as hidden:
        write_options(hidden, option_values(options))
    return rate, _hand_over(options, sources, models)


def _predict(options: PredictOptions, sources: Sequence[InputFile], models: BodyModels) -> tuple[int, float]:
    """Everything up to predictions.parquet; how many pictures were looked at, in how many seconds."""

    from train.predict.merge import merge
    from train.predict.parts import Parts
    from train.predict.smooth import Smoother
    from train.predict.stream import count_pictures, units_of

    stream, units, parts = _stream(options, sources, models), units_of(sources), Parts(options.output)
    before, begun = _done(units, parts), time.monotonic()
    total = count_pictures(sources, options.every)
    with progress_bar(desc="predict", unit="pictures", total=total, initial=before) as bar:
        looked_at = stream.run(units, parts, bar.update)
    seconds = time.monotonic() - begun
    smoother = Smoother(stream.body, parts, bool(options.checkpoint)) if options.smooth else None
    with progress_bar(desc="smooth", unit="parts", quiet=not options.smooth) as bar:
        merge(options.output, units, parts, smoother, bar.update)
    return looked_at, seconds


def _stream(options: PredictOptions, sources: Sequence[InputFile], models: BodyModels) -> Stream:
    from train.evaluate.networks import open_network
    from train.predict.bodies import KeypointEstimator, NetworkEstimator, keypoint_body
    from train.predict.detect.boxes_file import read_boxes
    from train.predict.seen import Finder
    from train.predict.stream import FocalLengths, Stream

    boxes = read_boxes(options.boxes) if options.boxes else None
    if boxes is not None:
        boxes.check(sources, options.every)
    constants = {
        "track": None,
        "detector": "boxes" if options.boxes else options.detector,
        "method": "checkpoint" if options.checkpoint else "fit_keypoints",
        "checkpoint": options.checkpoint or None,
        "smoothed": False,
        "body_model": options.body_models,
        "gender": options.gender,
    }
    body = keypoint_body(models)
    if options.checkpoint:
        camera = None if options.focal else options.camera
        network = open_network(options.checkpoint, options.which, models.device, camera=camera, patches=options.patches)
        estimator, focal_network = NetworkEstimator(network, options.box_margin, options.batch), network.camera
    else:
        estimator, focal_network = KeypointEstimator(body), _focal_network(options, models)
    needs_keypoints = not options.checkpoint or options.smooth
    finder = Finder.of(options.detector, boxes, options.least_score, needs_keypoints, str(models.device))
    return Stream(finder, estimator, body, FocalLengths(options.focal, focal_network), constants, options.every)


def _focal_network(options: PredictOptions, models: BodyModels):
    """The focal-length network of --camera, where nothing else is asked of a network."""
    if options.focal or not options.camera:
        return None
    from train.network.checkpoints import load_checkpoint

    return load_checkpoint(options.camera, "camera", device=str(models.device))


def _done(units: Sequence[Unit], parts: Parts) -> int:
    """Pictures in parts of earlier runs."""
    count = 0
    for unit in units:
        for _, path in parts.of_unit(unit.number):
            facts = parts.facts(path)
            count += facts.pictures + (0 if unit.film else len(facts.skipped))
    return count


def _hand_over(options: PredictOptions, sources: Sequence[InputFile], models: BodyModels) -> dict[str, int]:
    """What was asked for beside the predictions; how many files of each kind."""

    from train.predict.hand_over import PeopleInOrder, write_exports, write_meshes, write_opensim
    from train.predict.overlays import write_overlays

    made = {}
    if options.overlay:
        people = PeopleInOrder(options.output, sources)
        with progress_bar(desc="overlay", unit="files", total=len(sources)) as bar:
            made["overlays"] = write_overlays(options.output, sources, people, models.skel, options.every, bar.update)
    if options.meshes != "none":
        with progress_bar(desc="meshes", unit="pictures") as bar:
            made["meshes"] = write_meshes(options.output, sources, models.skel, options.meshes, bar.update)
    if options.opensim:
        with progress_bar(desc="opensim", unit="pictures") as bar:
            made["OpenSim models"] = write_opensim(options.output, sources, models.skel, options.every, bar.update)
    if options.export:
        with progress_bar(desc="export", unit="pictures") as bar:
            made["export"] = write_exports(options.output, sources, options.box_margin, bar.update)
    return made


if __name__ == "__main__":
    sys.exit(main())
