"""The page: its model against SKEL's own meshes, its files, and what a browser makes of it, pixel by pixel."""

from __future__ import annotations

import json
import re
import struct

import cv2
import numpy as np
import pytest
import torch
import written_shards
from page_pictures import WIDTH, changed, screenshot
from scipy.spatial.transform import Rotation

from pipelines.command.hmr_skel import guarded
from pipelines.convert.ground import TO_Y_UP
from pipelines.draw.rays import cast
from pipelines.files.shards import find_shards, read_people
from pipelines.look.viewer.clips import Clip, one_by_one
from pipelines.look.viewer.command import main
from pipelines.look.viewer.gltf import TOLERANCE_MM, clip_glb, pose_clip
from pipelines.look.viewer.sources import open_clip


def run(*arguments) -> int:
    return guarded(lambda: main([str(argument) for argument in arguments]), "hmr-skel")


def motion(count: int = 5, seed: int = 0, **changes) -> dict[str, np.ndarray]:
    """What `hmr-skel fit` writes of a person with y up who moves."""
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, 0.25, (count, 46)).astype(np.float32)
    poses[:, 1:3] *= 0.2
    arrays = {
        "poses": poses,
        "betas": np.tile(rng.normal(0, 0.7, (1, 10)), (count, 1)).astype(np.float32),
        "trans": rng.normal(0, 1, (count, 3)).astype(np.float32),
        "valid": np.ones(count, bool),
        "smpl_poses": np.zeros((count, 72), np.float32),
        "vertex_error_mm": np.linspace(1, 5, count).astype(np.float32),
        "gender": np.array("male"),
        "source": np.array("a<b.npz"),
        "source_row": np.arange(10, 10 + count),
        "mocap_framerate": np.array(25.0),
    }
    return {name: values for name, values in (arrays | changes).items() if values is not None}


class Model:
    """A .glb, read and posed from the words of the glTF specification."""

    def __init__(self, content: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON"
        self.document = json.loads(content[20 : 20 + size])
        assert content[24 + size : 28 + size] == b"BIN\0"
        self.binary = content[28 + size :]

    def array(self, number: int) -> np.ndarray:
        accessor = self.document["accessors"][number]
        view = self.document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        kind = {5126: "<f4", 5121: "u1", 5125: "<u4"}[accessor["componentType"]]
        found = np.frombuffer(self.binary, kind, accessor["count"] * width, view["byteOffset"])
        assert found.nbytes == view["byteLength"]
        return found.reshape(-1, width)

    def vertices(self, name: str, moment: int) -> np.ndarray:
        """Where a mesh is at a moment that one of its keys is at, or after its last one."""
        nodes, animation = self.document["nodes"], self.document["animations"][0]
        place = next(i for i, node in enumerate(nodes) if node["name"] == name)
        state: dict[int, dict[str, np.ndarray]] = {}
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"])
            before = max(int(np.searchsorted(times, moment, "right")) - 1, 0)
            count = len(values) // len(times)
            target = state.setdefault(channel["target"]["node"], {})
            target[channel["target"]["path"]] = values[before * count : (before + 1) * count]
        mesh = self.document["meshes"][nodes[place]["mesh"]]["primitives"][0]
        points = self.array(mesh["attributes"]["POSITION"]).astype(float)
        for weight, target in zip(state.get(place, {}).get("weights", []), mesh.get("targets", []), strict=True):
            points = points + weight * self.array(target["POSITION"])
        skin = self.document["skins"][nodes[place]["skin"]]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        transforms = np.zeros((len(skin["joints"]), 4, 4))
        for j, node in enumerate(skin["joints"]):
            transforms[j, :3, :3] = Rotation.from_quat(state[node]["rotation"][0]).as_matrix()
            transforms[j, :3, 3] = state[node]["translation"][0]
            transforms[j, 3, 3] = 1
        size = state.get(skin["skeleton"], {}).get("scale", np.ones((1, 3)))[0]
        assert skin["joints"] == nodes[skin["skeleton"]]["children"]
        transforms = np.diag([*size, 1]) @ transforms @ inverse
        joints, weights = (self.array(mesh["attributes"][name]) for name in ("JOINTS_0", "WEIGHTS_0"))
        blended = (transforms[joints] * weights[..., None, None]).sum(1)
        return np.einsum("vij,vj->vi", blended, np.append(points, np.ones((len(points), 1)), 1))[:, :3]


@pytest.mark.parametrize(("shapes", "up"), [(1, "y"), (5, "z"), (5, "camera")])
def test_the_model_is_skel(demo_skel, shapes, up):
    """Of one person who moves, and of several."""
    fit = motion()
    fit["betas"] = np.random.default_rng(1).normal(0, 0.7, (shapes, 10)).astype(np.float32).repeat(5 // shapes, 0)
    parameters = {name: fit[name] for name in ("poses", "betas", "trans")}
    clip = Clip("t", demo_skel, "demo", **parameters, **one_by_one(5), captions=[""] * 5, up=up)
    posed = pose_clip(clip)
    assert max(posed.skin.off_mm, posed.bones.off_mm) <= TOLERANCE_MM
    model = Model(clip_glb(clip, posed))
    with torch.no_grad():
        wanted = demo_skel(*map(torch.from_numpy, parameters.values()), skeleton_mesh=True)
    for frame in range(5):
        for name, vertices in (("person_0_skin", wanted.vertices), ("person_0_bones", wanted.skeleton_vertices)):
            apart = model.vertices(name, frame) - vertices[frame].numpy() @ TO_Y_UP[up].T
            assert 1000 * np.linalg.norm(apart, axis=1).max() < TOLERANCE_MM + 0.5, (name, frame)


def test_several_people_are_where_they_are_when_they_are(demo_skel):
    fit = motion()
    fit["betas"] = np.random.default_rng(1).normal(0, 0.7, (2, 10)).astype(np.float32)[[0, 1, 0, 1, 0]]
    parameters = {name: fit[name] for name in ("poses", "betas", "trans")}
    moments, people = np.array([0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 0])
    clip = Clip("t", demo_skel, "demo", **parameters, moments=moments, people=people, captions=[""] * 5, up="camera",
                names=("a", "b"), titles=("0", "1", "2", "3"))  # fmt: skip
    model = Model(clip_glb(clip, pose_clip(clip)))
    with torch.no_grad():
        wanted = demo_skel(*map(torch.from_numpy, parameters.values())).vertices.numpy() @ TO_Y_UP["camera"].T
    for person in (0, 1):
        for moment in range(4):
            found = model.vertices(f"person_{person}_skin", moment)
            row = np.flatnonzero((people == person) & (moments == moment))
            if len(row):
                assert 1000 * np.linalg.norm(found - wanted[row[0]], axis=1).max() < TOLERANCE_MM + 0.5
            else:
                assert not found.any(), "of no size"


def test_a_fit_becomes_a_page_that_fetches_nothing(tmp_path, capsys):
    valid = np.array([True, False, True, True, True])
    np.savez(tmp_path / "fit.npz", **motion(valid=valid))
    assert run(tmp_path / "fit.npz", "--html", tmp_path / "new" / "page.html", "--rows", "1:") == 0
    assert "page.html: 3 frames" in capsys.readouterr().out
    page = (tmp_path / "new" / "page.html").read_text()
    assert "<title>a&lt;b.npz</title>" in page
    document = json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])
    assert document["captions"] == [f"row {row}, {error}.0 mm from SMPL" for row, error in ((12, 3), (13, 4), (14, 5))]
    assert document["rate"] == 25 and document["begins"] == 12 / 25
    assert len(document["panels"]) == 29 and document["views"] == []
    own = re.sub(r"<!--.*?-->|<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)=|url\(|@import", own)
    assert page.count("<script") == page.count("</script>") == 4
    assert "Permission is hereby granted" in page, "the licence of three.js goes with it"


@pytest.mark.parametrize(
    ("changes", "arguments", "complaint"),
    [
        ({"poses": None}, [], "fit.npz, field 'poses': the array is missing; expected what hmr-skel fit wrote"),
        ({"betas": np.zeros((5, 9))}, [], "fit.npz, field 'betas': an array of shape (5, 9)"),
        ({"valid": np.zeros(5, bool)}, [], "fit.npz, field '--rows': none of 5 rows is there and was fitted"),
        ({}, ["--rows", "7:9"], "field '--rows': none of 5 rows"),
        ({}, ["--rows", "3"], "field '--rows': '3' given; expected START:STOP"),
        ({}, ["--rows", "::0"], "field '--rows': '::0' given"),
        ({"smpl_poses": None}, [], "field '--up': the fit does not hold its source; expected y, z, camera"),
        ({}, ["--people", "0"], "field '--people': 0 given; expected a positive number"),
        ({}, ["--body-models", "{tmp}/none"], "{tmp}/none"),
    ],
)
def test_complaints(tmp_path, capsys, changes, arguments, complaint):
    np.savez(tmp_path / "fit.npz", **motion(**changes))
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert run(tmp_path / "fit.npz", "--html", tmp_path / "page.html", *arguments) == 2
    error = capsys.readouterr().err
    assert complaint.format(tmp=tmp_path) in error and error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_files_that_are_none(tmp_path, capsys):
    (tmp_path / "text.npz").write_text("no zip")
    for source, words in (
        ("text.npz", "text.npz: not a readable .npz"),
        ("gone.npz", "gone.npz"),
        ("gone", "gone: nothing"),
    ):
        assert run(tmp_path / source, "--html", tmp_path / "page.html") == 2
        assert words in capsys.readouterr().err
    assert run(tmp_path / "text.npz", "--html", tmp_path / "page.txt") == 2
    assert "expected a name that ends in .html" in capsys.readouterr().err


def test_people_of_shards_with_their_pictures(tmp_path):
    folder = written_shards.write_dataset(tmp_path / "set")
    clip = open_clip([str(folder)], slice(None), 4)
    assert len(clip) == 4 and clip.frame_rate is None and clip.up == "camera"
    spread = [sample for _, sample in read_people(find_shards([folder]), [0, 4, 7, 11])]
    assert [caption.split(",")[0] for caption in clip.captions] == [sample["key"] for sample in spread]
    sample = spread[1]
    view = clip.views[1]
    assert view.size == (64, 64) and cv2.imdecode(np.frombuffer(view.image, np.uint8), 1).shape == (64, 64, 3)
    person = np.array([0.1, -0.2, 4.0])
    full = sample["cam_int"] @ person
    stored = sample["crop_affine"] @ np.append(full[:2] / full[2], 1)
    np.testing.assert_allclose(view.camera @ person / person[2], stored, rtol=1e-5)


def test_a_browser_shows_the_runner(tmp_path):
    poses = motion()["poses"] * ~np.isin(np.arange(46), [0, 1, 2])  # on the spot, so that the view stays
    np.savez(tmp_path / "fit.npz", **motion(poses=poses, trans=np.zeros((5, 3))))
    page = tmp_path / "page.html"
    assert run(tmp_path / "fit.npz", "--html", page) == 0
    empty, whole, bare, later = (
        screenshot(page, state, tmp_path) for state in ("skin=0&bones=0", "skin=100", "skin=0", "frame=4&skin=100")
    )
    skin = changed(whole, empty)
    assert skin[:, :540].mean() > 0.03, "a body fills a good part of the stage"
    assert not skin[:, 560:].any(), "and nothing of the curves beside it"
    assert np.ptp(np.flatnonzero(skin.any(1))) > 150 and np.ptp(np.flatnonzero(skin.any(0))) > 60
    red, _, blue = whole[skin].mean(0)
    assert blue > red + 25, "skin is blue"
    curves = whole[60:400, 570:980]
    assert (np.abs(curves - [193, 67, 43]).max(2) < 40).sum() > 50, "right sides are drawn in red"
    bones = changed(bare, empty)
    assert 0.1 * skin.sum() < bones.sum() < skin.sum()
    assert (bones & ~skin).sum() < 0.15 * bones.sum(), "bones lie inside the skin"
    red, _, blue = bare[bones].mean(0)
    assert red > blue, "bone is not blue"
    assert changed(later[:, :540], whole[:, :540])[skin[:, :540]].mean() > 0.1, "the last frame is not the first"


def test_through_the_camera_a_person_lies_on_the_picture(tmp_path, demo_skel):
    folder = written_shards.write_dataset(tmp_path / "set")
    page = tmp_path / "page.html"
    assert run(folder, "--html", page, "--people", 3) == 0
    found = changed(*(screenshot(page, f"frame=1&view=1&bones=0&skin={skin}", tmp_path) for skin in (100, 0)))
    clip = open_clip([str(folder)], slice(None), 3)
    with torch.no_grad():
        vertices = demo_skel(*(torch.from_numpy(v[1:2]) for v in (clip.poses, clip.betas, clip.trans))).vertices[0]
    _, sample = read_people(find_shards([folder]), [6])[0]  # 0, 5.5 and 11 of twelve
    assert clip.captions[1].startswith(f"{sample['key']}, ")
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    scale = 8
    affine = np.asarray(sample["crop_affine"], float) * scale
    hit = np.isfinite(cast(vertices.numpy(), demo_skel.faces, sample["cam_int"], (64 * scale,) * 2, affine).depth)
    there = np.argwhere(hit)
    shown = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
    assert shown == pytest.approx(np.ptp(there[:, 1]) / np.ptp(there[:, 0]), rel=0.05)
    cut = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    low, high = there.min(0), there.max(0) + 1
    wanted = hit[low[0] : high[0], low[1] : high[1]].astype(np.uint8)
    wanted = cv2.resize(wanted, cut.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert (cut & wanted).sum() > 0.93 * (cut | wanted).sum()
    # The picture stands in the middle of the stage, which is what the curves leave of the window.
    across = np.ptp(rows) / np.ptp(there[:, 0]) * 64 * scale
    assert across > 300
    middle = columns.mean() - (there[:, 1].mean() / (64 * scale) - 0.5) * across
    assert middle == pytest.approx((WIDTH - 440) / 2, abs=0.03 * across)
