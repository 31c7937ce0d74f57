"""`hmr-skel predict` on photographs: what is found, skipped, refused, written beside; and what a second call does."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import trimesh
import yaml
from conftest import write_picture
from PIL import Image

from fitting import SKEL
from fitting.fit.keypoint_layouts import to_44
from pipelines.files.predictions import read_predictions
from schemas import InputError
from train.predict import command, stream
from train.predict.command import WITHOUT_EFFECT, PredictOptions, main

pytestmark = pytest.mark.usefixtures("one_thread")
BOX = [10.0, 20.0, 90.0, 110.0]


@pytest.fixture(scope="module")
def four(crowd, tmp_path_factory):
    """A folder, and its output with all that there is: four people in a picture that is turned, and a damaged one."""
    folder = tmp_path_factory.mktemp("four")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 50
    (folder / "in").mkdir()
    stored = np.ascontiguousarray(np.rot90(crowd))  # orientation 6 turns it back, a quarter clockwise
    Image.fromarray(stored).save(folder / "in" / "four.jpg", exif=exif.tobytes(), quality=97)
    (folder / "in" / "bad.jpg").write_bytes((folder / "in" / "four.jpg").read_bytes()[:9000])
    more = ["--overlay", "--meshes", "glb", "--export", "--device", "cpu"]
    assert main([str(folder / "in"), "-o", str(folder / "out"), *more]) == 0
    return folder


@pytest.fixture
def three(photograph, tmp_path):
    """Arguments for three pictures with a box each, one of them damaged, by an untrained network."""
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "in" / f"{name}.png", photograph)
    data = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "boxes.json").write_text(json.dumps({name: [BOX] for name in ("a", "b", "c")}))
    return [str(tmp_path / "in"), "--boxes", str(tmp_path / "boxes.json"), "-o", str(tmp_path / "out")]


def test_everybody_is_found_and_fitted_to_what_is_seen(four, crowd):
    people = read_predictions(four / "out")
    found = people.columns
    assert len(people) == 3 and found["person"].tolist() == [0, 1, 2]  # of the fourth MoveNet is not sure
    assert set(found["source"]) == {str(four / "in" / "four.jpg")}
    assert "frame" not in found and "checkpoint" not in found
    height, width = crowd.shape[:2]
    assert found["picture_size"].tolist() == [[width, height]] * 3 and (found["orientation"] == 6).all()
    assert set(found["focal_source"]) == {"exif"} and set(found["method"]) == {"fit_keypoints"}
    np.testing.assert_allclose(found["focal"], 50 / 43.2666 * np.hypot(width, height), rtol=1e-4)
    assert (np.diff(found["score"]) <= 0).all()
    # Where the bodies' keypoints are seen, against those that were found.
    points = found["keypoints_3d"]
    pixels = np.stack([p @ people.cam_int(n).T for n, p in enumerate(points)])
    pixels = pixels[..., :2] / pixels[..., 2:]
    given = to_44(found["detected_keypoints"])
    apart = np.linalg.norm(pixels - given[..., :2], axis=2)
    error = (apart * given[..., 2]).sum(1) / given[..., 2].sum(1)
    np.testing.assert_allclose(found["reprojection_error_px"], error, rtol=1e-3)
    assert (error < 0.05 * (found["box"][:, 2:] - found["box"][:, :2]).max(1)).all()
    assert (points[..., 2] > 0).all()
    import torch

    body = SKEL.demo()(*(torch.from_numpy(found[name]) for name in ("poses", "betas", "trans")))
    np.testing.assert_allclose(found["joints"], body.joints, atol=1e-4)


def test_skipped_pictures_are_listed(four):
    document = json.loads((four / "out" / "skipped.json").read_text())
    [entry] = document["skipped"]
    assert entry["source"] == str(four / "in" / "bad.jpg") and "cannot be decoded" in entry["problem"]
    assert entry["frame"] is None


def test_overlays_meshes_and_exports_show_the_same_people(four, crowd):
    found = read_predictions(four / "out").columns
    drawn = cv2.imread(str(four / "out" / "overlays" / "four.jpg"))[:, :, ::-1].astype(int)
    assert drawn.shape == crowd.shape
    changed = np.abs(drawn - crowd).max(2) > 60
    inside = np.zeros_like(changed)
    for left, top, right, bottom in found["box"].astype(int):
        inside[max(top - 15, 0) : bottom + 15, max(left - 15, 0) : right + 15] = True
    assert changed[inside].mean() > 0.05 and changed[~inside].mean() < 0.01
    scene = trimesh.load(four / "out" / "meshes" / "four.glb")
    skins = [mesh for name, mesh in scene.geometry.items() if name.endswith("skin")]
    assert len(scene.geometry) == 6 and len(skins) == 3
    middles = sorted(mesh.vertices.mean(0)[2] for mesh in skins)  # y up: what was before the camera is behind zero
    np.testing.assert_allclose(middles, sorted(-found["keypoints_3d"].mean(1)[:, 2]), atol=0.15)
    with np.load(four / "out" / "export" / "four.npz") as exported:
        for name in ("poses", "betas", "trans", "joints"):
            np.testing.assert_array_equal(exported[name], found[name])
        assert exported["cam"].shape == (3, 3) and exported["focal"] == found["focal"][0]


def test_the_summary_fits_80_columns_and_a_second_call_does_nothing_anew(four, monkeypatch, capsys):
    before = (four / "out" / "predictions.parquet").stat().st_mtime_ns
    monkeypatch.setattr(command, "_predict", None)
    assert main([str(four / "in"), "-o", str(four / "out"), "--device", "cpu", "--meshes", "ply"]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if not line.startswith("skipped")) <= 80
    assert "four.jpg" not in said and "bad.jpg: the JPEG cannot be decoded" in said
    assert (four / "out" / "predictions.parquet").stat().st_mtime_ns == before
    assert (four / "out" / "meshes" / "four.ply").exists() and (four / "out" / "meshes" / "four_bones.ply").exists()


def test_other_options_and_other_pictures_are_not_mixed(three, checkpoint, capsys):
    given = [*three, "--checkpoint", checkpoint]
    assert main(given) == 0
    with pytest.raises(InputError, match=r"made with other options \(--focal 0\.0\); expected .*--overwrite"):
        main([*given, "--focal", "200"])
    write_picture(command.Path(three[0]) / "d.png", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(InputError, match="other files"):
        main(given)
    assert main([*given, "--focal", "200", "--overwrite"]) == 0
    command.Path(three[2]).write_text("{}")
    with pytest.raises(InputError, match="other files"):
        main([*given, "--focal", "200"])
    found = read_predictions(three[-1]).columns
    assert found["focal"].tolist() == [200, 200] and set(found["focal_source"]) == {"option"}
    assert set(found["detector"]) == {"boxes"} and set(found["checkpoint"]) == {checkpoint}
    assert "reprojection_error_px" not in found and not found["detected_keypoints"].any()
    options = yaml.safe_load((command.Path(three[-1]) / "options.yaml").read_text())
    assert options["focal"] == 200 and options["inputs"] == [three[0]]


def test_every_option_counts_or_is_known_not_to():
    names = {f.name for f in dataclasses.fields(PredictOptions)}
    assert set(WITHOUT_EFFECT) <= names
    assert names - set(WITHOUT_EFFECT) == {
        *("checkpoint", "detector", "boxes", "least_score", "focal", "camera", "smooth", "every", "box_margin"),
        *("patches", "which", "batch", "body_models", "gender"),
    }


def test_boxes_of_others_are_looked_at_for_keypoints(crowd, four, tmp_path):
    """Without a network the fit needs keypoints; MoveNet finds them in somebody else's boxes."""
    box = read_predictions(four / "out").columns["box"][0]
    write_picture(tmp_path / "crowd.png", crowd)
    (tmp_path / "boxes.json").write_text(json.dumps({"crowd.png": [box.tolist(), [0, 0, 5, 5]]}))
    given = [str(tmp_path / "crowd.png"), "--boxes", str(tmp_path / "boxes.json"), "-o", str(tmp_path / "out")]
    assert main([*given, "--focal", "300"]) == 0
    found = read_predictions(tmp_path / "out").columns
    assert len(found["box"]) == 1 and found["reprojection_error_px"][0] < 0.05 * np.ptp(box.reshape(2, 2), 0).max()


def test_options_of_a_run_that_made_nothing_do_not_count(photograph, checkpoint, tmp_path):
    path, out = str(write_picture(tmp_path / "photo.png", photograph)), str(tmp_path / "out")
    with pytest.raises(InputError, match="no detector"):
        main([path, "-o", out, "--detector", "yolo"])
    (tmp_path / "boxes.json").write_text(json.dumps({"photo": [BOX]}))
    assert main([path, "-o", out, "--checkpoint", checkpoint, "--boxes", str(tmp_path / "boxes.json")]) == 0


@pytest.mark.parametrize("kind", ["damaged", "empty"])
def test_where_nobody_is_found_the_exit_status_says_so(kind, tmp_path, capsys):
    if kind == "damaged":
        (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no more")
    else:
        write_picture(tmp_path / "bad.jpg", np.full((64, 64, 3), 90, np.uint8))
    assert main([str(tmp_path / "bad.jpg"), "-o", str(tmp_path / "out"), "--overlay", "--export"]) == 1
    assert "nobody was found" in capsys.readouterr().out
    assert len(read_predictions(tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (["--focal", "nan"], "--focal"),
        (["--focal", "-3"], "--focal"),
        (["--every", "0"], "--every"),
        (["--least-score", "2"], "--least-score"),
        (["--detector", "yolo"], "no detector"),
        (["--checkpoint", "absent.pt"], "absent.pt"),
        (["--boxes", "absent.json"], "absent.json"),
    ],
)
def test_options_that_cannot_be_are_told_before_anything_is_written(photograph, tmp_path, wrong, problem):
    write_picture(tmp_path / "photo.png", photograph)
    with pytest.raises(InputError, match=problem):
        main([str(tmp_path / "photo.png"), "-o", str(tmp_path / "out"), "--device", "cpu", *wrong])
    assert not (tmp_path / "out" / "predictions.parquet").exists()


@pytest.mark.parametrize("box", [[-500, -500, -400, -400], [200, 0, 300, 50]])
def test_boxes_that_show_nothing_are_told(checkpoint, photograph, tmp_path, box):
    path = write_picture(tmp_path / "photo.png", photograph)
    (tmp_path / "boxes.json").write_text(json.dumps({"photo": [box]}))
    with pytest.raises(InputError, match="shows nothing of the picture") as caught:
        main([str(path), "--checkpoint", checkpoint, "--boxes", str(tmp_path / "boxes.json"), "-o", str(tmp_path)])
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(tmp_path / "boxes.json"), 1, "box")
    assert str(path) in str(caught.value)


def test_where_nothing_can_be_written_is_told(checkpoint, photograph, tmp_path):
    """A file stands where a folder should be; as with a full disk, it is the system that refuses."""
    write_picture(tmp_path / "photo.png", photograph)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written") as caught:
        main([str(tmp_path / "photo.png"), "-o", str(tmp_path / "file" / "out")])
    assert caught.value.field == "--output"


def test_pictures_are_counted_before_they_are_read(three, tmp_path):
    from train.predict.inputs import find_sources

    sources = find_sources(three[:1], tmp_path / "out")
    assert stream.count_pictures(sources, 1) == 3
    units = stream.units_of([*sources] * 50)
    assert [len(unit.sources) for unit in units] == [64, 64, 22] and [u.number for u in units] == [0, 1, 2]
