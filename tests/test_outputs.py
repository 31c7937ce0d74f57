"""Every command with every output that it has: nowhere to write, no room, another kind of name.

What cannot be written ends with exit code 2 and one line that names it, before anything is computed where that can be
known, and leaves nothing half-written. Folders on the way to an output are made.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import written_shards
import yaml

from pipelines import build_hmr_skel
from pipelines.command import hmr_skel
from pipelines.command.build_options import BuildOptions
from pipelines.demo import benchmark, data, photo
from pipelines.files import storage
from pipelines.hand_on import fit
from pipelines.hand_on.label_files import ExportOptions
from pipelines.look.inspection import InspectOptions
from pipelines.look.viewer.command import ViewOptions
from pipelines.merge_parts import MergeOptions
from train import SKELCF
from train.config import NetworkConfig
from train.evaluate.options import EvaluateOptions
from train.network.checkpoints import save_checkpoint
from train.options import TrainOptions
from train.predict.command import PredictOptions

pytestmark = pytest.mark.usefixtures("one_thread", "small_backbone")

FOLDER = ""
"""The ending of an output that is a folder."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: how it is called, what it reads, and its outputs."""

    run: Callable[[list[str]], int]
    options: type
    outputs: dict[str, str]
    """Field of the options -> ending of the file, or FOLDER."""
    reads: tuple[str, ...] = ()
    """Fields that are paths as well."""
    given: Callable[[Path], list[str]] = lambda inputs: []
    """All other arguments, for a folder of inputs."""
    positional: bool = False
    """Of the output."""


def _hmr_skel(name: str) -> Callable[[list[str]], int]:
    return lambda argv: hmr_skel.main([name, *argv])


_SMALL = "--backbone tiny --refinement-layers 1 --heads 1 --head-dim 8 --mlp-dim 16 --batch 4 --steps 1 --workers 0"
_TRAIN = f"{_SMALL} --part all --precision float32 --device cpu --evaluate-people 0 --panel-steps 1".split()
_ON_SHARDS = ["--device", "cpu", "--workers", "0"]

COMMANDS = {
    "build": Command(
        build_hmr_skel.main,
        BuildOptions,
        {"output": FOLDER},
        ("images", "body_models"),
        lambda inputs: ["--annotations", str(inputs / "in.npz"), "--images", "none", "--device", "cpu", "--quiet"],
    ),
    "merge": Command(
        _hmr_skel("merge"), MergeOptions, {"output": FOLDER}, (), lambda inputs: [str(inputs / "built"), "--quiet"]
    ),
    "fit": Command(
        _hmr_skel("fit"),
        fit.FitSequenceOptions,
        {
            "output": ".npz",
            "mot": ".mot",
            "trc": ".trc",
            "osim": ".osim",
            "angles": ".csv",
            "plot": ".png",
        },
        ("input", "body_models"),
        lambda inputs: [str(inputs / "in.npz"), "--device", "cpu", "--up", "y"],
    ),
    "inspect": Command(
        _hmr_skel("inspect"),
        InspectOptions,
        {"contact_sheet": ".png", "report": ".html"},
        ("body_models",),
        lambda inputs: [str(inputs / "shards")],
    ),
    "view": Command(
        _hmr_skel("view"),
        ViewOptions,
        {"html": ".html"},
        ("images", "body_models"),
        lambda inputs: [str(inputs / "shards"), "--people", "1"],
    ),
    "export": Command(
        _hmr_skel("export"), ExportOptions, {"output": FOLDER}, (), lambda inputs: [str(inputs / "shards")]
    ),
    "train": Command(
        _hmr_skel("train"),
        TrainOptions,
        {"output": FOLDER},
        ("initialise", "body_models", "cache"),
        lambda inputs: ["--shards", str(inputs / "shards"), *_TRAIN],
    ),
    "evaluate": Command(
        _hmr_skel("evaluate"),
        EvaluateOptions,
        {"output": ".json"},
        ("data", "camera", "body_models", "cache"),
        lambda inputs: ["mean", "--shards", str(inputs / "shards"), *_ON_SHARDS],
    ),
    "predict": Command(
        _hmr_skel("predict"),
        PredictOptions,
        {"output": FOLDER},
        ("boxes", "checkpoint", "camera", "body_models"),
        lambda inputs: [
            *(str(inputs / "photo.png"), "--boxes", str(inputs / "boxes.json"), "--device", "cpu", "--overlay"),
            *("--checkpoint", str(inputs / "model.pt"), "--meshes", "glb", "--export"),
        ],
    ),
    "demo data": Command(
        data.main, data.DemoCommand, {"directory": FOLDER}, (), lambda inputs: ["--draft", "--images", "4"], True
    ),
    "demo benchmark": Command(
        benchmark.main, benchmark.BenchmarkCommand, {"directory": FOLDER}, (), lambda i: ["--images", "1"], True
    ),
    "demo photo": Command(photo.main, photo.PhotoCommand, {"output": ".jpg"}, (), lambda inputs: ["--draft"], True),
}
RENDERING = {"demo data", "demo benchmark", "demo photo"}
"""What takes long is rendered in its own tests; here only what comes before it."""

OUTPUTS = [(name, field) for name, command in COMMANDS.items() for field in command.outputs]
FILES = [(name, field) for name, field in OUTPUTS if COMMANDS[name].outputs[field]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, small_backbone):
    """A motion of two frames, shards, a picture with a box, a network that knows nothing."""
    folder = tmp_path_factory.mktemp("inputs")
    poses = np.random.default_rng(0).normal(0, 0.05, (2, 72))
    np.savez(folder / "in.npz", poses=poses, betas=np.zeros((2, 10)), trans=np.zeros((2, 3)))
    labels = ["--annotations", str(folder / "in.npz"), "--images", "none", "--device", "cpu", "--quiet"]
    assert build_hmr_skel.main([*labels, "--output", str(folder / "built")]) == 0
    columns = written_shards.label_columns(4)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 1
    written_shards.write_manifest(folder / "shards", [written_shards.write_shard(folder / "shards", "000000", columns)])
    cv2.imwrite(str(folder / "photo.png"), np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8))
    (folder / "boxes.json").write_text(json.dumps({"photo.png": [[10, 20, 90, 110]]}))
    torch.manual_seed(0)
    model = SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1, heads=1, head_dim=8, mlp_dim=16)).eval()
    save_checkpoint(folder / "model.pt", model, model.state_dict())
    return folder


@pytest.fixture(autouse=True)
def _one_fit(monkeypatch):
    """Body models are loaded, and the two frames fitted, once."""
    monkeypatch.setattr(fit, "_load_bodies", lambda options, gender: _Bodies.of(options, gender))


class _Bodies:
    made: typing.ClassVar[dict[str, Any]] = {}
    load_bodies = staticmethod(fit._load_bodies)

    @classmethod
    def of(cls, options, gender):
        if gender not in cls.made:
            bodies, found = cls.load_bodies(options, gender), {}
            fitted = bodies.fit

            def once(*given, **more):
                if not found:
                    found.update(fitted(*given, **more))
                return found

            bodies.fit = once
            cls.made[gender] = bodies
        return cls.made[gender]


def arguments(name: str, inputs: Path, outputs: dict[str, Path]) -> list[str]:
    command = COMMANDS[name]
    found = list(command.given(inputs))
    for field, path in outputs.items():
        found += [str(path)] if command.positional else [f"--{field.replace('_', '-')}", str(path)]
    return found


def call(name: str, inputs: Path, outputs: dict[str, Path], capsys) -> tuple[int, str]:
    """Exit code, and what is said on stderr besides warnings and bars."""
    capsys.readouterr()
    code = COMMANDS[name].run(arguments(name, inputs, outputs))
    lines = capsys.readouterr().err.splitlines()
    return code, "\n".join(line for line in lines if "error" in line or "Traceback" in line)


def usual(name: str, folder: Path) -> dict[str, Path]:
    """All outputs of a command, in a folder that is there."""
    return {field: folder / f"{field}{ending}" for field, ending in COMMANDS[name].outputs.items()}


def refused(name: str, inputs: Path, outputs: dict[str, Path], capsys) -> str:
    """The one line, with exit code 2."""
    code, said = call(name, inputs, outputs, capsys)
    assert code == 2, said
    assert len(said.splitlines()) == 1 and ": error: " in said
    return said


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def paths_of(options: type) -> set[str]:
    """Fields of options, and of options within them, that name files: by type, or by the name of a text."""
    found = set()
    for field, kind in typing.get_type_hints(options).items():
        kinds = {kind, *(typing.get_args(kind) if isinstance(kind, types.UnionType) else ())}
        if any(dataclasses.is_dataclass(kind) for kind in kinds):
            found |= {inner for kind in kinds if dataclasses.is_dataclass(kind) for inner in paths_of(kind)}
        told = field in ("output", "images", "body_models", "checkpoint", "camera", "initialise", "cache")
        if Path in kinds or (told and str in kinds):
            found.add(field)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_names_a_file_is_known(name):
    command = COMMANDS[name]
    assert paths_of(command.options) == {*command.outputs, *command.reads}, "a new option: is it written?"


def test_every_command_is_walked():
    import importlib.metadata

    there = {entry.name for entry in importlib.metadata.entry_points(group=hmr_skel.COMMAND_GROUP)}
    assert there - {"coordinates"} == set(COMMANDS) - RENDERING  # which prints, and writes nothing


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in RENDERING])
def test_folders_on_the_way_are_made(name, inputs, tmp_path, capsys):
    outputs = usual(name, tmp_path / "not" / "there" / "yet")
    assert call(name, inputs, outputs, capsys) == (0, "")
    for path in outputs.values():
        assert path.exists()
    assert not [path for path in leftovers(tmp_path) if ".tmp-" in path]


@pytest.mark.parametrize(("name", "field"), FILES)
def test_another_ending_is_refused_before_anything_is_computed(name, field, inputs, tmp_path, capsys, monkeypatch):
    outputs = usual(name, tmp_path) | {field: tmp_path / "x.other"}
    said = refused(name, inputs, outputs, capsys)
    assert "x.other" in said and COMMANDS[name].outputs[field] in said and not leftovers(tmp_path)


@pytest.mark.parametrize(("name", "field"), OUTPUTS)
def test_names_that_are_taken_and_places_that_cannot_be(name, field, inputs, tmp_path, capsys):
    """A folder where a file is to be and the other way round, below a file, where the system lets nobody write."""
    ending = COMMANDS[name].outputs[field]
    (tmp_path / "file").write_text("of the user")
    (tmp_path / f"folder{ending or '.x'}").mkdir()
    before = leftovers(tmp_path)
    taken = tmp_path / (f"folder{ending}" if ending else "file")
    for path in (taken, tmp_path / "file" / "below" / f"x{ending}", Path("/proc/nowhere") / f"x{ending}"):
        outputs = usual(name, tmp_path) | {field: path}
        if path.is_relative_to("/proc") and name in RENDERING:
            continue
        said = refused(name, inputs, outputs, capsys)
        assert str(path) in said
        if not path.is_relative_to("/proc"):  # such a place shows only when it is written to
            assert leftovers(tmp_path) == before
    assert (tmp_path / "file").read_text() == "of the user"


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1, 700])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in RENDERING])
def test_a_full_disk(name, room, inputs, tmp_path, capsys):
    outputs = usual(name, tmp_path)
    with no_room(room):
        said = refused(name, inputs, outputs, capsys)
    assert os.strerror(errno.EFBIG) in said
    for field, path in outputs.items():
        whole = [path] if COMMANDS[name].outputs[field] else list(path.rglob("*"))
        assert not [file for file in whole if file.is_file() and not _may_stay(file, inputs)]
    assert not [path for path in leftovers(tmp_path) if ".tmp-" in path and ".progress" not in path]


def _may_stay(file: Path, inputs: Path) -> bool:
    """Of a run that goes on: its lock, what it is, its log for TensorBoard, whole shards that take no room."""
    if (inputs / "built" / file.name).exists() and os.path.samefile(inputs / "built" / file.name, file):
        return True
    if file.name in ("run.json", "options.yaml"):  # by which the same command goes on
        return len(yaml.safe_load(file.read_text())) > 1
    return file.name == ".lock" or file.name.startswith("events.out")


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, field in FILES if name not in RENDERING])
def test_a_disk_that_is_full_when_a_file_is_there_already(name, field, inputs, tmp_path, capsys, monkeypatch):
    """Room for all outputs but one, which an earlier run has written: it stays as it was."""
    outputs = usual(name, tmp_path)
    outputs[field].write_text("of an earlier run")
    monkeypatch.setattr(storage.os, "fsync", _full_for(outputs[field].name))
    said = refused(name, inputs, outputs, capsys)
    assert os.strerror(errno.ENOSPC) in said and str(outputs[field]) in said
    assert outputs[field].read_text() == "of an earlier run"
    assert not [path for path in leftovers(tmp_path) if ".tmp-" in path]


def _full_for(name: str) -> Callable[[int], None]:
    """fsync on a disk that has no room for the file that is to get this name."""

    def fsync(descriptor: int) -> None:
        if f".{name}.tmp-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


@pytest.mark.parametrize("name", sorted(RENDERING))
def test_a_full_disk_under_rendered_data(name, inputs, tmp_path, capsys, monkeypatch):
    """With everything else as it is, for a picture of one colour."""
    monkeypatch.setattr(data, "_write_all", lambda root, *_: (root / "labels").write_text("x" * 1000))
    monkeypatch.setattr(photo, "street_photo", lambda *_: None)
    monkeypatch.setattr(photo, "jpeg_of", lambda _: b"x" * 1000)
    monkeypatch.setattr(benchmark, "GRADES", {"none": benchmark.Grade(1)})
    monkeypatch.setattr("pipelines.demo.scenes.take_photo", lambda *_: types.SimpleNamespace(image=IMAGE, people=[]))
    outputs = usual(name, tmp_path)
    with no_room(100):
        said = refused(name, inputs, outputs, capsys)
    assert os.strerror(errno.EFBIG) in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".partial")]


IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
