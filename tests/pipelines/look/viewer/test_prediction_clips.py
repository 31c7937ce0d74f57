"""Pages of predictions: who is shown when, over which picture, and what a browser makes of it."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from page_pictures import changed, screenshot
from PIL import Image
from written_predictions import prediction_columns, upright, write_predictions

from pipelines.command.hmr_skel import guarded
from pipelines.draw.rays import pixels_of
from pipelines.look.viewer import picture_views
from pipelines.look.viewer.command import main
from pipelines.look.viewer.sources import open_clip

SIZE = (320, 240)


def run(*arguments) -> int:
    return guarded(lambda: main([str(argument) for argument in arguments]), "hmr-skel")


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Grey, red at the top left."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    pixels[: size[1] // 4, : size[0] // 4] = [0, 0, 255]
    cv2.imwrite(str(path), pixels)
    return path


def film(frames: list[int], tracks: list[int], **changes):
    """People of a film at 25 frames a second."""
    numbers = np.array(frames)
    parameters = upright(len(frames))
    changes = {"source": "film.mp4", "frame": numbers, "time_s": numbers / 25, "track": tracks} | changes
    return prediction_columns(parameters, **changes)


def test_everybody_in_a_picture_at_once(tmp_path):
    sources = ["b.png", "b.png", "a.png"]
    columns = prediction_columns(upright(3), source=sources, person=[1, 0, 0])
    folder = write_predictions(tmp_path / "out", columns)
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    clip = open_clip([str(folder)], slice(None), 24, images=tmp_path)
    assert clip.titles == ["b.png", "a.png"] and clip.count == 2 and clip.frame_rate is None
    assert clip.moments.tolist() == [0, 0, 1] and clip.people.tolist() == [0, 1, 0]
    assert clip.names == ["person 0", "person 1"] and clip.up == "camera"
    assert clip.captions[1] == "b.png, person 1, score 0.90, 1.2 px off"
    np.testing.assert_array_equal(clip.poses[1], columns["poses"][0])
    assert all(view.size == SIZE for view in clip.views)
    assert len(open_clip([str(folder)], slice(None), 24, source="a.png", images=tmp_path)) == 1
    assert open_clip([str(folder / "predictions.parquet")], slice(None), 1, images=tmp_path).titles == ["b.png"]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_turned_picture_is_seen_as_it_is(tmp_path, orientation):
    """EXIF's 6: what is stored is turned by a quarter; 3000 px are brought to a screen's size, and the camera too."""
    pixels = np.full((1500, 3000, 3), 128, np.uint8)
    pixels[:300, :300] = 255
    stored = pixels if orientation == 1 else np.rot90(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "p.png", exif=exif)
    columns = prediction_columns(
        upright(1), size=(3000, 1500), source="p.png", orientation=orientation, focal=2500, principal=[1400, 700]
    )
    view = open_clip([str(write_predictions(tmp_path, columns))], slice(None), 1, images=tmp_path).views[0]
    shown = cv2.imdecode(np.frombuffer(view.image, np.uint8), 1)
    assert view.size == (1280, 640) == shown.shape[1::-1]
    assert shown[20, 20].min() > 240 and shown[20, 1260].max() < 140
    point = np.array([0.5, -0.25, 2])
    full = np.array([2500 * 0.25 + 1400, 2500 * -0.125 + 700])
    np.testing.assert_allclose(view.camera @ point / point[2], full * 1280 / 3000, rtol=1e-6)


def test_tracks_of_a_film(tmp_path):
    columns = film([2, 3, 3, 5, 6, 6, 7], [4, 4, 1, 4, 4, 1, 1])
    folder = str(write_predictions(tmp_path, columns))
    clip = open_clip([folder], slice(None), 24)
    assert clip.frame_rate == 25 and clip.count == 6 and not clip.views
    assert clip.names == ["track 1", "track 4"]
    assert clip.titles == [f"frame {frame}" for frame in range(2, 8)]
    for person, moments in ((0, [1, 4, 5]), (1, [0, 1, 3, 4])):
        assert clip.moments[clip.rows_of(person)].tolist() == moments
    np.testing.assert_array_equal(clip.poses[clip.rows_of(0)], columns["poses"][[2, 5, 6]])
    longest = open_clip([folder], slice(None), 1)
    assert longest.names == ["track 4"] and longest.titles[0] == "frame 2" and longest.titles[-1] == "frame 6"
    thinned = open_clip([folder], slice(3, None, 2), 24)
    assert thinned.frame_rate == 12.5 and thinned.titles == ["frame 3", "frame 5", "frame 7"]
    assert thinned.moments.tolist() == [0, 0, 1, 2]


def test_pictures_and_films_in_one_file(tmp_path, capsys, caplog):
    columns = film([0, 3, 4], [0, 0, 0], source=["p.png", "film.mp4", "film.mp4"])
    for name in ("frame", "time_s", "track"):
        columns[name] = np.ma.masked_array(columns[name], [True, False, False])
    folder = str(write_predictions(tmp_path, columns))
    pictures = open_clip([folder], slice(None), 24)
    assert pictures.titles == ["p.png"] and pictures.frame_rate is None
    assert "pictures are shown; --source shows a film: film.mp4" in caplog.text
    shown = open_clip([folder], slice(None), 24, source="film.mp4")
    assert shown.titles == ["frame 3", "frame 4"] and shown.begins == pytest.approx(3 / 25)
    assert run(folder, "--html", tmp_path / "page.html", "--rows", "0:2") == 2
    assert "field '--rows': pictures have no frames" in capsys.readouterr().err


def write_film(path: Path, count: int, size: tuple[int, int] = SIZE) -> None:
    """Frame n has n bright stripes of 20 px from the left."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), 40, np.uint8)
            pixels[:, : 20 * number] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_frames_of_the_film_behind_its_people(tmp_path, caplog, monkeypatch):
    folder = str(write_predictions(tmp_path / "out", film([1, 2, 3, 4, 5], [1] * 5)))
    write_film(tmp_path / "film.mp4", 7)
    clip = open_clip([folder], slice(None, None, 2), 24, images=tmp_path)
    assert clip.titles == ["frame 2", "frame 4"] and len(clip.views) == 2
    for view, number in zip(clip.views, (2, 4), strict=True):
        shown = cv2.imdecode(np.frombuffer(view.image, np.uint8), 1)
        assert shown[120, 20 * number - 10].min() > 180 and shown[120, 20 * number + 10].max() < 80
        assert view.size == SIZE
    for problem, change in (
        ("it has no frame 4", lambda: write_film(tmp_path / "film.mp4", 4)),
        ("it has 64 x 48 px", lambda: write_film(tmp_path / "film.mp4", 7, (64, 48))),
        ("(--images says where it is)", lambda: (tmp_path / "film.mp4").unlink()),
    ):
        change()
        assert open_clip([folder], slice(None, None, 2), 24, images=tmp_path).views == []
        assert problem in caplog.text
    monkeypatch.setattr(picture_views, "MOST_FRAMES", 4)
    open_clip([folder], slice(None), 24, images=tmp_path)
    assert "5 frames, more than 4 (--rows chooses some)" in caplog.text


def test_a_film_that_was_looked_at_in_steps(tmp_path):
    folder = str(write_predictions(tmp_path, film([4, 10, 13], [1, 1, 1])))
    clip = open_clip([folder], slice(None), 24)
    assert clip.titles == ["frame 4", "frame 7", "frame 10", "frame 13"] and clip.moments.tolist() == [0, 2, 3]
    assert clip.frame_rate == pytest.approx(25 / 3)
    assert open_clip([folder], slice(10, None), 24).titles == ["frame 10", "frame 13"]


@pytest.mark.parametrize(
    ("changes", "arguments", "complaint"),
    [
        ({}, ["--source", "other.mp4"], "field '--source': nobody was found in 'other.mp4'; expected film.mp4"),
        ({}, ["--rows", "8:"], "field '--rows': nobody was found in these of 3 frames"),
        ({"source": ["a.mp4", "b.mp4", "b.mp4"]}, [], "of 2 films, of which a page shows one; expected a.mp4, b.mp4"),
        ({"source": ["a/x.mp4", "b/x.mp4", "b/x.mp4"]}, ["--source", "x.mp4"], "'x.mp4' are a/x.mp4, b/x.mp4"),
        ({"track": 1, "frame": 2}, [], "person 1, score 0.90, 1.2 px off is there twice in film.mp4"),
        ({"time_s": 0}, [], "field 'time_s': times do not grow with the frames"),
        ({"gender": ["male", "female", "male"]}, [], "several body models: demo female, demo male"),
        ({"body_model": "gone"}, [], "gone"),
    ],
)
def test_complaints(tmp_path, capsys, changes, arguments, complaint):
    folder = write_predictions(tmp_path, film([0, 1, 2], [1, 1, 1], **changes))
    assert run(folder, "--html", tmp_path / "page.html", *arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_nobody_and_lost_pictures(tmp_path, capsys, caplog):
    nobody = write_predictions(tmp_path / "a", prediction_columns(upright(0)))
    assert run(nobody, "--html", tmp_path / "page.html") == 2
    assert "nobody was found" in capsys.readouterr().err
    folder = write_predictions(tmp_path / "b", prediction_columns(upright(2), source=["gone.png", "p.png"]))
    picture(tmp_path / "p.png", (100, 50))
    assert open_clip([str(folder)], slice(None), 9, images=tmp_path).views == [None, None]
    assert "gone.png: people are shown without it: No such file" in caplog.text
    assert "p.png: people are shown without it: it has 100 x 50 px, but people were found in 320 x 240" in caplog.text
    assert run(folder, "--html", tmp_path / "page.html", "--images", tmp_path) == 0


def test_a_browser_shows_everybody_over_the_picture(tmp_path, demo_skel):
    """Everybody's pelvis is where the picture's camera sees it; the chosen one stands alone if others are left out."""
    parameters = upright(2)
    parameters["trans"] = np.array([[-0.7, 0.2, 3.8], [0.7, 0.2, 4.2]])
    folder = write_predictions(tmp_path / "out", prediction_columns(parameters, source="p.png"))
    picture(tmp_path / "p.png")
    page = tmp_path / "page.html"
    assert run(folder, "--html", page, "--images", tmp_path) == 0
    states = ("skin=0&bones=0", "skin=100", "skin=100&others=0&person=1")
    empty, both, second = (screenshot(page, f"view=1&{state}", tmp_path) for state in states)
    red = (empty[..., 0] > 200) & (empty[..., 1:] < 60).all(-1)
    red[:, 560:] = False  # curves
    rows, columns = np.flatnonzero(red.sum(1) > 40), np.flatnonzero(red.sum(0) > 40)
    scale = len(columns) / (SIZE[0] / 4)
    assert len(rows) / (SIZE[1] / 4) == pytest.approx(scale, rel=0.1)
    two, one = changed(both, empty)[:, :560], changed(second, empty)[:, :560]
    two[:80] = one[:80] = False  # the caption
    assert not (one & ~two).any() and 0.3 < one.sum() / two.sum() < 0.7
    camera = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    middles = parameters["trans"] + demo_skel.rest_joints(demo_skel.v_template.new_zeros(1, 10))[:, 0].numpy()
    pixels = (pixels_of(middles, camera) * scale + [columns[0], rows[0]]).round().astype(int)
    around = [np.s_[row - 3 : row + 3, column - 3 : column + 3] for column, row in pixels]
    assert two[around[0]].all() and two[around[1]].all()
    assert not one[around[0]].any() and one[around[1]].all()


def test_a_browser_shows_the_tracks_of_a_film_when_they_are_there(tmp_path):
    parameters = upright(4)
    parameters["trans"] = np.array([[-0.7, 0.2, 4.0], [-0.7, 0.2, 4.0], [0.7, 0.2, 4.0], [0.7, 0.2, 4.0]])
    for name in ("poses", "betas"):
        parameters[name][1] = parameters[name][0]
    columns = film([0, 1, 1, 2], [0, 0, 1, 1], **parameters, angles=np.degrees(parameters["poses"]))
    page = tmp_path / "page.html"
    assert run(write_predictions(tmp_path, columns), "--html", page) == 0
    states = ("frame=1&skin=0&bones=0", "frame=1&skin=100", "frame=0&skin=100")
    empty, later, first = (screenshot(page, state, tmp_path)[:, :540] for state in states)
    both, alone = changed(later, empty), changed(first, empty)
    alone[:80] = both[:80] = False  # the caption
    assert alone.sum() > 3000 and (alone & ~both).sum() < 0.02 * alone.sum()
    assert (both & ~alone).sum() > 3000
