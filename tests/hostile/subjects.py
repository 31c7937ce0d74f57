"""Sound files of each kind, and the readers that users' files of this kind meet.

A reader gives what it took: a value per field. It raises InputError for what it refuses. Where a format has checksums
(`checked`), a file whose bytes were changed must be refused, or give the values of the sound one.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from fitting.body.files import read_model_file, smpl_arrays
from fitting.body.limits import read_limits
from pipelines.command.build_options import BuildOptions
from pipelines.command.options import parse_options
from pipelines.draw.sheet import body_of
from pipelines.files.films import FilmError, FilmWriter, film_facts, film_frames
from pipelines.files.jpeg import ImageError, decode_image, read_encoded, reduction
from pipelines.files.npz import npz_members
from pipelines.files.npz_whole import checked_sha256
from pipelines.files.pictures import read_picture
from pipelines.files.predictions import FILE_NAME, prediction_schema, read_predictions
from pipelines.files.shards import find_shards
from pipelines.files.torch_files import load_tensors, read_torch_file
from pipelines.hand_on.label_files import export_rows, rows_by_label_file
from pipelines.hand_on.meshes import open_meshes
from pipelines.look.account import account_of
from pipelines.look.summary import summarise
from pipelines.look.verification import verify
from pipelines.look.viewer.sources import fit_clip
from pipelines.plan.plan_file import PlannedShard
from pipelines.plan.planning import find_label_files, plan_shards
from pipelines.read.images import ImageRef, open_images, read_image
from pipelines.read.labels import open_labels
from pipelines.read.results import label_file_of
from pipelines.write.shards import _document_sha256, finished_shard
from schemas import PREDICTION, InputError, columns_to_table, field_dtype, field_shape
from tests import official_files, written_shards
from tests.hostile.mutations import (
    Structured,
    edited_json,
    edited_pickle,
    edited_png,
    edited_tar,
    edited_yaml,
    edited_zip,
)
from train import SKELCF, load_checkpoint
from train.benchmarks.images import read_benchmark_image
from train.benchmarks.labels import read_benchmark
from train.config import BACKBONES, BackboneSize, NetworkConfig
from train.data.config import DataConfig
from train.data.loader import PeopleStream, stream
from train.network.checkpoints import read_training, save_checkpoint
from train.options import PRESETS, TrainOptions
from train.predict.detect.boxes_file import read_boxes
from train.run.resuming import tell_differences

Taken = Mapping[str, Any]
ROWS = 6


@dataclass(frozen=True)
class Subject:
    """`file` of `files` is mutated; `read` is given the folder where they lie; `share` is how often it has a turn."""

    kind: str
    name: str
    files: Mapping[str, bytes]
    file: str
    read: Callable[[Path], Taken]
    checked: bool = False
    structured: Structured | None = None
    share: int = 4
    resealed: Callable[[dict[str, bytes]], dict[str, bytes]] | None = None
    """Sets right what other files say of the mutated one, as somebody would who means harm."""


def subjects(folder: Path) -> list[Subject]:
    """All of them; what they need is made in the folder."""
    return [
        *_labels(),
        *_results(),
        *_images(),
        *_shards(folder),
        *_networks(folder),
        *_models(folder),
        *_texts(),
        *_predicted(folder),
        _plan(folder),
        *_geometry(folder),
    ]


def digest(value: Any) -> str:
    """Changes when the value does."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        value = repr(value.tolist())
    if isinstance(value, np.ndarray):
        data = f"{value.dtype.str} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    else:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


# ----------------------------------------------------------------------------------------------- labels, results


def label_arrays() -> dict[str, np.ndarray]:
    dice = np.random.default_rng(0)
    return {
        "imgname": np.array([f"aic/{row // 2}.jpg" for row in range(ROWS)]),
        "center": dice.uniform(50, 60, (ROWS, 2)),
        "scale": np.ones(ROWS),
        "pose_cam": dice.normal(0, 0.3, (ROWS, 72)).astype(np.float32),
        "shape": dice.normal(0, 1, (ROWS, 10)),
        "cam_int": np.tile(np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]), (ROWS, 1, 1)),
        "gtkps": dice.normal(50, 9, (ROWS, 44, 3)),
        "trans_cam": np.tile([0.0, 0, 3], (ROWS, 1)),
        "gender": np.array(["male"] * ROWS),
        "mocap_framerate": np.array(30.0),
    }


def archive(save: Callable, arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def _planned(folder: Path) -> Taken:
    """As the job takes label files: headers, checksums, names, then rows."""
    [labels] = find_label_files([str(folder / "aic.npz")], with_images=False)
    list(plan_shards([labels], None, 4))
    return {name: digest(values) for name, values in labels.read().items()}


def _fitted(folder: Path) -> Taken:
    """As `hmr-skel fit` takes them."""
    path = str(folder / "aic.npz")
    labels = open_labels(path)
    checked_sha256(path, npz_members(path).values())
    return {name: digest(values) for name, values in labels.read().items()} | {"rate": labels.frame_rate}


def _benchmark(folder: Path) -> Taken:
    people = read_benchmark(folder / "aic.npz")
    return {name: digest(value) for name, value in vars(people).items() if name not in ("file", "rows")}


def _clip(folder: Path) -> Taken:
    clip = fit_clip(folder / "aic.npz", slice(None), "y", None)
    return {name: digest(getattr(clip, name)) for name in ("poses", "betas", "trans")}


def _labels() -> list[Subject]:
    stored = {"aic.npz": archive(np.savez, label_arrays())}
    packed = {"aic.npz": archive(np.savez_compressed, label_arrays())}
    smpl = {"global_orient": np.zeros((4, 1, 3)), "body_pose": np.zeros((4, 23, 3)), "betas": np.zeros((4, 10))}
    moyo = {
        "names": np.array(list("aabb")),
        "img_paths": np.array([f"x/{n}.jpg" for n in range(4)]),
        "centers": np.full((4, 2), 100.0),
        "scales": np.full((4, 2), 200.0),
        "smpl": np.array(smpl, dtype=object),
    }
    fit = {
        "poses": np.zeros((4, 46)),
        "betas": np.zeros((4, 10)),
        "trans": np.zeros((4, 3)),
        "valid": np.ones(4, bool),
        "smpl_poses": np.zeros((4, 72)),
    }
    common = {"kind": "labels .npz", "file": "aic.npz", "checked": True, "structured": edited_zip}
    return [
        Subject(name="job, stored", files=stored, read=_planned, **common),
        Subject(name="job, packed", files=packed, read=_planned, **common),
        Subject(name="fit", files=stored, read=_fitted, **common),
        Subject(name="benchmark A", files=stored, read=_benchmark, **common),
        Subject(name="benchmark A, packed", files=packed, read=_benchmark, **common),
        Subject(name="benchmark B", files={"aic.npz": archive(np.savez, moyo)}, read=_benchmark, **common),
        Subject(name="view", files={"aic.npz": archive(np.savez, fit)}, read=_clip, share=1, **common),
    ]


def _result(folder: Path) -> Taken:
    labels = open_labels(label_file_of(folder / "result.pkl"))
    return {name: digest(values) for name, values in labels.read().items()}


def _results() -> list[Subject]:
    one = {"pose": np.zeros((4, 72)), "betas": np.zeros((4, 10)), "trans": np.zeros((4, 3))}
    dpw = {
        "poses": [np.zeros((4, 72))] * 2,
        "betas": [np.zeros(10)] * 2,
        "trans": [np.zeros((4, 3))] * 2,
        "genders": list("mf"),
    }
    body = {"global_orient": np.zeros((1, 3, 3)), "body_pose": np.zeros((23, 3, 3)), "betas": np.zeros(10)}
    common = {"kind": "results .pkl", "file": "result.pkl", "read": _result, "structured": edited_pickle}
    return [
        Subject(name=name, files={"result.pkl": pickle.dumps(value, protocol)}, **common)
        for name, value, protocol in (
            ("WHAM", {0: one, 1: one}, 4),
            ("3DPW", dpw, 2),
            ("PHALP", {"1.jpg": {"smpl": [body] * 2}}, 5),
        )
    ]


# -------------------------------------------------------------------------------------------------------- images


def picture() -> np.ndarray:
    return cv2.GaussianBlur((np.random.default_rng(0).random((70, 90, 3)) * 255).astype(np.uint8), (0, 0), 3)


def encoded(ending: str, *options: int) -> bytes:
    return cv2.imencode(ending, picture(), options)[1].tobytes()


def _decoded(folder: Path) -> Taken:
    try:
        return {"pixels": digest(decode_image((folder / "image").read_bytes()))}
    except ImageError as error:  # what the job makes a reject of
        raise InputError(str(error), file=folder / "image") from error


def _reduced(folder: Path) -> Taken:
    data = (folder / "image").read_bytes()
    try:
        return {"pixels": digest(decode_image(data, reduction(data, 6)))}
    except ImageError as error:
        raise InputError(str(error), file=folder / "image") from error


def _of_benchmark(folder: Path) -> Taken:
    return {"pixels": digest(read_benchmark_image(folder / "image", SimpleNamespace(file="aic.npz", rows=[0]), 0))}


def _photograph(folder: Path) -> Taken:
    try:
        return {"pixels": digest(read_picture(read_encoded(folder / "image")).pixels)}
    except ImageError as error:  # what is counted as skipped
        raise InputError(str(error), file=folder / "image") from error


def _in_tar(folder: Path) -> Taken:
    images = open_images(str(folder / "aic.tar"))
    found: dict[str, Any] = {}
    for name, ref in images.find_all("aic", ["aic/0.jpg", "aic/1", "aic/2.jpg", "../x.jpg"]).items():
        if isinstance(ref, ImageRef):
            try:
                found[name] = digest(decode_image(read_image(images.root, ref)))
            except (ImageError, OSError, EOFError):  # what the job makes a reject of
                continue
    return found


def _images() -> list[Subject]:
    found = []
    for kind, name, data, structured in (
        ("JPEG", "baseline", encoded(".jpg"), None),
        ("JPEG", "progressive", encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), None),
        ("PNG", "", encoded(".png"), edited_png),
        *(("other images", end, encoded(f".{end}"), None) for end in ("webp", "bmp", "tiff")),
    ):
        for where, read in (
            ("job", _decoded),
            ("reduced", _reduced),
            ("benchmark", _of_benchmark),
            ("predict", _photograph),
        ):
            if kind == "other images" and where == "reduced":  # JPEG alone is
                continue
            common = {"files": {"image": data}, "file": "image", "structured": structured, "share": 2}
            found.append(Subject(kind, f"{where} {name}".strip(), read=read, checked=kind == "PNG", **common))
    members = {f"aic/{n}{end}": encoded(end) for n, end in ((0, ".jpg"), (1, ".png"), (2, ".jpg"))}
    members |= {"aic/0.data.pyd": b"not read", "aic/" + "d/" * 60 + "long.jpg": encoded(".jpg")}
    tar = {"aic.tar": tar_of(members)}
    return [*found, Subject("images .tar", "job", tar, "aic.tar", _in_tar, structured=edited_tar, share=8)]


def tar_of(members: Mapping[str, bytes]) -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------------------- shards


def _trained(folder: Path) -> Taken:
    people = PeopleStream(DataConfig(shards=[str(folder)], verdicts=["good"], limit=4), 4)
    found: dict[str, Any] = {}
    for _, values in stream(people):
        if "error" in values:
            raise values["error"]
        for row, key in enumerate(values["keys"]):
            for name, value in values.items():
                if name not in ("keys", "image", "share", "people"):
                    found[f"{key} {name}"] = digest(value[row])
    return found


def _verified(folder: Path) -> Taken:
    verdict = verify(find_shards([folder]))
    if not verdict.passed:
        raise InputError(verdict.failures[0][1], file=verdict.failures[0][0])
    return {str(path): digest(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def _inspected(folder: Path) -> Taken:
    json.dumps(summarise(find_shards([folder])), allow_nan=False)
    return {}


def _exported(folder: Path) -> Taken:
    shards = find_shards([folder])
    found: dict[str, Any] = {}
    for rows in rows_by_label_file(shards).values():
        export_rows(shards, rows, folder / ".exported.npz")
        with np.load(folder / ".exported.npz") as stored:
            found |= {name: digest(stored[name]) for name in stored.files}
    return found


def _accounted(folder: Path) -> Taken:
    """As `hmr-skel inspect --verify --against LABELS`."""
    (folder / "labels").mkdir(exist_ok=True)
    labels = folder / "labels" / "aic-release.npz"
    if not labels.exists():
        np.savez(labels, pose_cam=np.zeros((4, 72)), shape=np.zeros((4, 10)))
    account_of(find_shards([folder]), [str(labels)])
    return {}


def _drawn(folder: Path) -> Taken:
    """As everything that draws finds its body."""
    return {"vertices": body_of(find_shards([folder]), None).num_vertices}


def _planned_shard(folder: Path) -> Taken:
    path = folder / "plan"
    try:
        planned = PlannedShard(name="000000", rows=4, hash="", plan=str(path), offset=0, size=path.stat().st_size)
        return {"spec": planned.spec().to_json()}
    except OSError as error:  # as when the plan is gone
        raise InputError(str(error), file=path) from error


def _plan(folder: Path) -> Subject:
    np.savez(folder / "aic.npz", **label_arrays())
    [spec] = plan_shards(find_label_files([str(folder / "aic.npz")], with_images=False), None, 8)
    files = {"plan": zlib.compress(spec.to_json().encode())}
    return Subject("plan", "worker", files, "plan", _planned_shard, checked=True, share=1)


def _kept(folder: Path) -> Taken:
    """As a rerun of the job looks at what is there."""
    kept = finished_shard(folder, SimpleNamespace(name="000000", hash="0" * 64))
    if kept is None:
        raise InputError("made again", file=folder)
    return {"statistics": repr(kept)}


def _resealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The statistics say the checksums of tar and Parquet file as they are now."""
    stats = json.loads(files["000000.json"])
    for ending in ("tar", "parquet"):
        stats[f"{ending}_sha256"] = hashlib.sha256(files[f"000000.{ending}"]).hexdigest()
    stats["tar_bytes"] = len(files["000000.tar"])
    return files | {"000000.json": json.dumps(stats).encode()}


def _shards(folder: Path) -> list[Subject]:
    here = folder / "written"
    columns = written_shards.label_columns(3)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
    stats = written_shards.write_shard(here, "000000", columns, {"missing_image": 1})
    stats |= {"record": "x", "version": _stats_version()}
    stats["document_sha256"] = _document_sha256(stats)
    (here / "000000.json").write_text(json.dumps(stats))
    written_shards.write_manifest(here, [stats])
    files = {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    found = []
    ways = (
        ("account", _accounted, 2),
        ("draw", _drawn, 1),
        ("trainer", _trained, 3),
        ("verify", _verified, 2),
        ("inspect", _inspected, 2),
        ("export", _exported, 2),
        ("rerun", _kept, 1),
    )
    for kind, file, structured, seal in (
        ("shard .tar", "000000.tar", edited_tar, _resealed),
        ("shard .parquet", "000000.parquet", None, _resealed),
        ("shard .json", "000000.json", edited_json, None),
        ("dataset.json", "dataset.json", edited_json, None),
        ("rejects.parquet", "_rejects/rejects.parquet", None, None),
    ):
        for name, read, share in ways:
            held = {"shard .parquet": ("trainer", "verify", "export", "rerun"), "shard .tar": ("verify", "rerun")}
            checked = name in held.get(kind, ()) or (kind, name) == ("shard .json", "rerun")
            of_data_set = {"dataset.json": ("verify", "inspect", "account", "draw")}
            of_data_set["rejects.parquet"] = of_data_set["dataset.json"][:3]
            if name not in of_data_set.get(kind, ("trainer", "verify", "inspect", "export", "rerun")):
                continue
            if kind == "shard .tar" and name in ("inspect", "export"):
                continue
            found.append(Subject(kind, name, files, file, read, checked, structured, share, seal))
    return found


def _stats_version() -> str:
    from schemas import SHARD_STATS, record_version

    return record_version(SHARD_STATS)


# --------------------------------------------------------------------------------------------- networks, models


def _tensors(folder: Path) -> Taken:
    tree = load_tensors(read_torch_file(folder / "checkpoint.pt"), folder / "checkpoint.pt")
    found: dict[str, Any] = {}

    def walk(part: Any, name: str) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                walk(value, f"{name}.{key}")
        elif isinstance(part, (list, tuple)):
            for number, value in enumerate(part):
                walk(value, f"{name}.{number}")
        else:
            found[name] = digest(part)

    walk(tree, "")
    return found


def _network(folder: Path) -> Taken:
    found = load_checkpoint(folder / "checkpoint.pt", "ema").state_dict()
    read_training(folder / "checkpoint.pt")
    return {name: digest(value) for name, value in found.items()}


def _networks(folder: Path) -> list[Subject]:
    BACKBONES.setdefault("tiny", BackboneSize(1, 8, 1, 0.0))
    torch.manual_seed(0)
    config = NetworkConfig(
        backbone="tiny", refinement_layers=1, heads=1, head_dim=4, mlp_dim=4, hidden_dim=4, query_dim=4
    )
    network = SKELCF(config).eval()
    training = {"epoch": 1, "step": 2, "optimiser": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}}
    save_checkpoint(folder / "checkpoint.pt", network, network.state_dict(), training)
    save_checkpoint(folder / "small.pt", network, None, training)
    small: dict[str, Any] = {"format": "x", "values": [torch.zeros(3), torch.ones(2, 2).half()], "step": 3}
    torch.save(small, folder / "few.pt")
    common = {"kind": "checkpoint", "file": "checkpoint.pt", "checked": True, "structured": _edited_checkpoint}
    few = {"checkpoint.pt": (folder / "few.pt").read_bytes()}
    whole = {"checkpoint.pt": (folder / "checkpoint.pt").read_bytes()}
    return [
        Subject(name="tensors", files=few, read=_tensors, share=8, **common),
        Subject(name="network", files=whole, read=_network, share=1, **common),
    ]


def _edited_checkpoint(data: bytes, dice: Any) -> bytes:
    """The pickle inside changed as pickles are, or any member as archives' are."""
    import zipfile

    if dice.random() < 0.5:
        return edited_zip(data, dice)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("data.pkl"):
                content = edited_pickle(content, dice)
            target.writestr(info.filename, content)
    return out.getvalue()


def _model(folder: Path, name: str = "smpl.pkl") -> Taken:
    return {key: digest(value) for key, value in smpl_arrays(folder / name).items()}


def _model_npz(folder: Path) -> Taken:
    return _model(folder, "smpl.npz")


def _some_arrays(folder: Path) -> Taken:
    return {key: digest(value) for key, value in read_model_file(folder / "few.pkl").items()}


def _meshes(name: str) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        meshes = open_meshes(folder / name)
        return {"vertices": digest(meshes.read(0, meshes.rows))}

    return read


def _limits(folder: Path) -> Taken:
    return {"limits": digest(read_limits(folder / "limits.csv"))}


def _geometry(folder: Path) -> list[Subject]:
    """Meshes, and a table of joint limits."""
    import trimesh

    mesh = trimesh.creation.icosphere(1)
    found = []
    for name, encoding in (("binary.ply", "binary"), ("ascii.ply", "ascii")):
        files = {name: trimesh.exchange.ply.export_ply(mesh, encoding=encoding)}
        found.append(Subject("meshes", name, files, name, _meshes(name)))
    arrays = archive(np.savez, {"vertices": np.random.default_rng(0).random((3, 20, 3))})
    found.append(Subject("meshes", "npz", {"a.npz": arrays}, "a.npz", _meshes("a.npz"), structured=edited_zip))
    table = b"coordinate,low,high\nknee_angle_r,-5,120\nlumbar_bending,,20\n"
    return [*found, Subject("limits .csv", "fit", {"limits.csv": table}, "limits.csv", _limits, share=2)]


def _models(folder: Path) -> list[Subject]:
    smpl, _ = official_files.random_models(3, 30, 20)
    chumpy = official_files.write_official_smpl(folder / "smpl.pkl", smpl).read_bytes()
    npz = official_files.write_npz(folder / "smpl.npz", smpl).read_bytes()
    from scipy import sparse

    few = {"a": np.arange(6.0).reshape(2, 3), "b": sparse.csc_matrix(np.eye(3)), "c": ["x", {1, 2}], "d": b"y"}
    small = {f"few{p}": pickle.dumps(few, p) for p in (2, 4)}
    common = {"kind": "model .pkl", "structured": edited_pickle}
    return [
        Subject(name="SMPL", files={"smpl.pkl": chumpy}, file="smpl.pkl", read=_model, share=2, **common),
        *(
            Subject(name=name, files={"few.pkl": data}, file="few.pkl", read=_some_arrays, **common)
            for name, data in small.items()
        ),
        Subject("model .npz", "SMPL", {"smpl.npz": npz}, "smpl.npz", _model_npz, True, edited_zip),
    ]


# --------------------------------------------------------------------------------------------------------- texts


def _options_of(kind: type, presets: Path | None = None) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        values = parse_options(kind, ["--config", str(folder / "options.yaml")], "hostile", "", presets=presets)
        return {"options": repr(values)}

    return read


def _resumed(folder: Path) -> Taken:
    tell_differences(folder, {"seed": 0, "batch": 4})
    return {}


def _boxes(name: str) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        boxes = read_boxes(folder / name)
        taken = {picture: digest(given.people.boxes) for picture, given in boxes.pictures.items()}
        for film, frames in boxes.films.items():
            taken |= {f"{film}, {n}": digest(given.people.boxes) for n, given in frames.items()}
        return taken

    return read


def _texts() -> list[Subject]:
    options = yaml.safe_dump(
        {"seed": 1, "shards": ["a", "b"], "batch": 8, "learning_rate": 1e-4, "part": "all"}
    ).encode()
    job = yaml.safe_dump(
        {"images": "none", "rows": "0:5", "samples_per_shard": 8, "crop_size": 64, "device": "cpu"}
    ).encode()
    csv = b"image,left,top,right,bottom,score,frame\na.jpg,1,2,30,40,0.5,\nb.mp4,1,2,30,40,1,7\n"
    plain = {"a.jpg": [[1, 2, 30, 40], [1, 2, 3, 4, 0.5]], "b.jpg": [], "c.mp4": {"3": [[1, 2, 30, 40, 1, 2]]}}
    plain = json.dumps(plain).encode()
    annotation = {"image_id": 1, "bbox": [1, 2, 30, 40], "category_id": 1, "keypoints": [1.0] * 51}
    coco = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [annotation] * 2}).encode()
    common = {"kind": "options .yaml", "file": "options.yaml", "structured": edited_yaml}
    boxes = {"kind": "boxes", "share": 3}
    found = [
        Subject(
            name="train", files={"options.yaml": options}, read=_options_of(TrainOptions, PRESETS), share=1, **common
        ),
        Subject(name="job", files={"options.yaml": job}, read=_options_of(BuildOptions), share=1, **common),
        Subject(name="resumed", files={"options.yaml": options}, read=_resumed, **common),
        Subject(name="csv", files={"boxes.csv": csv}, file="boxes.csv", read=_boxes("boxes.csv"), **boxes),
    ]
    for name, data in (("plain", plain), ("coco", coco)):
        subject = Subject(name=name, files={"boxes.json": data}, file="boxes.json", read=_boxes("boxes.json"), **boxes)
        found.append(replace(subject, structured=edited_json))
    return found


# ---------------------------------------------------------------------------------------------------- predictions


def _predictions(folder: Path) -> Taken:
    found = read_predictions(folder)
    return {name: digest(np.ma.filled(values)) for name, values in found.columns.items()}


def _film(folder: Path) -> Taken:
    try:
        film_facts(folder / "film.mp4")
        return {str(frame.number): digest(frame.pixels) for frame in film_frames(folder / "film.mp4")}
    except FilmError as error:  # what is counted as skipped
        raise InputError(str(error), file=folder / "film.mp4") from error


def _predicted(folder: Path) -> list[Subject]:
    rng, columns = np.random.default_rng(0), {}
    for field in PREDICTION:
        shape, dtype = (ROWS, *field_shape(field)), field_dtype(field)
        words = dtype.kind == "O"
        columns[field.name] = np.full(shape, "word", object) if words else np.ones(shape, dtype)
    columns["poses"] = rng.normal(size=(ROWS, 46)).astype(np.float32)
    columns["angles"] = np.degrees(columns["poses"])
    columns["box"] = np.tile(np.float32([10, 20, 30, 60]), (ROWS, 1))
    pq.write_table(columns_to_table(prediction_schema(), columns), folder / FILE_NAME)
    with FilmWriter(folder / "film.mp4", 25) as film:
        for n in range(6):
            film.write(np.roll(picture(), 3 * n, 1))
    return [
        Subject(kind, "predict", {name: (folder / name).read_bytes()}, name, read)
        for kind, name, read in (("predictions", FILE_NAME, _predictions), ("film", "film.mp4", _film))
    ]
