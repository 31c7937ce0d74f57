"""The chain of `make demo-photo`, at a quarter of its pixels: a rendered photograph, and what is made of it."""

from __future__ import annotations

import csv
import json
import re

import av
import cv2
import numpy as np
import pytest
import trimesh
from opensim_playing import played
from scipy.optimize import linear_sum_assignment

from fitting.anatomy import SKEL_JOINTS
from pipelines.demo.photo import jpeg_of, street_photo
from pipelines.files.predictions import read_predictions
from pipelines.look.viewer.command import main as view
from schemas import KEYPOINT_NAMES
from train.predict.command import main as predict

MIDDLE_OF_HIPS = KEYPOINT_NAMES.index("mid_hip")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photo():
    return street_photo(draft=True)


@pytest.fixture(scope="module")
def made(photo, tmp_path_factory):
    """The photograph, and all that is made of it."""
    folder = tmp_path_factory.mktemp("photo")
    (folder / "photo.jpg").write_bytes(jpeg_of(photo))
    more = ["--overlay", "--meshes", "glb", "--opensim", "--device", "cpu"]
    assert predict([str(folder / "photo.jpg"), "-o", str(folder / "skel"), *more]) == 0
    assert view([str(folder / "skel"), "--html", str(folder / "page.html")]) == 0
    return folder


def pair(found: np.ndarray, photo) -> np.ndarray:
    """Which of the photograph's people each found one is, by boxes (n, 4)."""
    apart = np.abs(found[:, None] - photo.boxes[None]).mean(-1)
    return linear_sum_assignment(apart)[1]


def test_everybody_is_found_near_the_truth(made, photo):
    people = read_predictions(made / "skel").columns
    assert len(people["score"]) == 3 and set(people["focal_source"]) == {"exif"}
    truth = photo.keypoints_3d[pair(people["box"], photo), :, :3]
    wrong = people["keypoints_3d"] - truth
    wrong -= wrong[:, [MIDDLE_OF_HIPS]]
    assert 1000 * np.linalg.norm(wrong[:, :25], axis=-1).mean() < 150
    assert people["reprojection_error_px"].max() < 3


def test_bodies_are_drawn_where_they_are(made, photo):
    drawn = cv2.imread(str(made / "skel" / "overlays" / "photo.jpg"))[:, :, ::-1].astype(int)
    changed = np.abs(drawn - photo.image).max(-1) > 25
    inside = photo.masks >= 0
    assert changed[inside].mean() > 0.6 and changed[~inside].mean() < 0.06


def test_meshes_and_page(made):
    scene = trimesh.load(made / "skel" / "meshes" / "photo.glb", process=False)
    assert set(scene.geometry) == {f"person_{n}_{part}" for n in range(3) for part in ("skin", "bones")}
    page = (made / "page.html").read_text()
    document = json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])
    assert len(document["captions"]) == 3 and document["views"][0]["size"] == [320, 240]


def test_opensim_has_everybody_upright_and_apart(made):
    """All of a photograph stand in one ground, as they stand before the camera."""
    folder = made / "skel" / "opensim" / "photo"
    people = read_predictions(made / "skel").columns
    for n in range(3):
        found = played(folder / f"person_{n}.osim", folder / f"person_{n}.mot")[0]
        x, y, z = people["joints"][n].T
        np.testing.assert_allclose(found, np.stack([-z, -y, -x], 1), atol=2e-3)  # x forward: towards the camera
        assert found[SKEL_JOINTS.index("head"), 1] > found[SKEL_JOINTS.index("calcn_r"), 1] + 0.8
        assert not (folder / f"person_{n}.png").exists()


def test_the_track_of_a_film(photo, tmp_path):
    """Of who stands in the middle: a still life of four frames at 10 a second, every second of which is looked at."""
    pixels = np.ascontiguousarray(photo.image[:, 100:184])
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    more = ["--every", "2", "--opensim", "--device", "cpu"]
    assert predict([str(tmp_path / "film.mp4"), "-o", str(tmp_path / "out"), *more]) == 0
    folder = tmp_path / "out" / "opensim" / "film"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"track_0.{ending}" for ending in ("osim", "mot", "trc", "csv", "png")
    }
    with (folder / "track_0.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time (s)"]) for row in rows] == pytest.approx([0, 0.2])
