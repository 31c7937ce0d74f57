"""A run that is killed goes on and writes the same bytes; films, their tracks and their smoothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import write_picture

from pipelines.files.films import FilmWriter, film_frames
from pipelines.files.predictions import read_predictions
from train.predict import smooth, stream
from train.predict.command import main

pytestmark = pytest.mark.usefixtures("one_thread")

KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from train.predict import parts, stream
from train.predict.command import main
stream.PICTURES_PER_PART = stream.FRAMES_PER_PART = 4
write, left = parts.Parts.write, [int(sys.argv[1])]
def and_die(*given):
    write(*given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
parts.Parts.write = and_die
main(sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(stream, "PICTURES_PER_PART", 4)
    monkeypatch.setattr(stream, "FRAMES_PER_PART", 4)


def killed(after: int, *given: str) -> None:
    """The command, killed when it has written some parts."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(after), *given], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def walk(crowd, tmp_path_factory):
    """Ten frames of two people of the crowd, 2 px further to the right from frame to frame."""
    path = tmp_path_factory.mktemp("film") / "walk.mp4"
    two = np.concatenate([crowd[40:150, 66:140], crowd[40:150, 208:254]], 1)
    with FilmWriter(path, 20) as film:
        for n in range(10):
            film.write(np.pad(two, ((0, 0), (4 + 2 * n, 24 - 2 * n), (0, 0)), "edge"))
    return path


def test_pictures_go_on_after_a_kill(checkpoint, photograph, tmp_path):
    """Twenty pictures, a tenth of them damaged."""
    boxes = {}
    for n in range(20):
        path = write_picture(tmp_path / "in" / f"{n:02d}.png", np.roll(photograph, 7 * n, 1))
        boxes[path.name] = [[10 + n, 20, 90 + n, 110], [100, 5, 160, 80]][: 1 + n % 2]
        if n % 10 == 5:
            path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    given = [str(tmp_path / "in"), "--checkpoint", checkpoint, "--boxes", str(tmp_path / "boxes.json"), "-o"]
    killed(3, *given, str(tmp_path / "killed"))
    left = sorted(path.name for path in (tmp_path / "killed" / ".parts").iterdir())
    assert len(left) == 3 and not (tmp_path / "killed" / "predictions.parquet").exists()
    assert main([*given, str(tmp_path / "killed")]) == 0
    assert main([*given, str(tmp_path / "whole")]) == 0
    for name in ("predictions.parquet", "skipped.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / ".parts").exists()
    found = read_predictions(tmp_path / "killed").columns
    assert len(found["box"]) == 10 + 2 * 8 and found["source"].tolist() == sorted(found["source"])
    skipped = json.loads((tmp_path / "killed" / "skipped.json").read_text())["skipped"]
    assert [entry["source"][-6:] for entry in skipped] == ["05.png", "15.png"]


def test_films_go_on_after_a_kill_and_people_keep_their_tracks(walk, tmp_path):
    given = [str(walk), "-o"]
    killed(2, *given, str(tmp_path / "killed"))
    assert main([*given, str(tmp_path / "killed"), "--overlay", "--export"]) == 0
    assert main([*given, str(tmp_path / "whole")]) == 0
    files = [tmp_path / name / "predictions.parquet" for name in ("killed", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    found = read_predictions(files[0]).columns
    assert sorted(set(found["frame"].tolist())) == list(range(10))
    np.testing.assert_allclose(found["time_s"], found["frame"] / 20, atol=1e-6)
    for track in (0, 1):  # both go to the right
        rows = found["track"] == track
        middles = found["box"][rows][:, [0, 2]].mean(1)
        slope = np.polyfit(np.asarray(found["frame"][rows]), middles, 1)[0]
        assert rows.sum() == 10 and 1.5 < slope < 2.5
    drawn = list(film_frames(tmp_path / "killed" / "overlays" / "walk.mp4"))
    plain = list(film_frames(walk))
    assert len(drawn) == len(plain)
    assert all(np.abs(a.pixels.astype(int) - b.pixels).mean() > 1 for a, b in zip(drawn, plain, strict=True))
    with np.load(tmp_path / "killed" / "export" / "walk.npz") as exported:
        np.testing.assert_array_equal(exported["frame"], found["frame"])
        np.testing.assert_array_equal(exported["poses"], found["poses"])


@pytest.mark.parametrize("tracks", [True, False])
def test_boxes_of_films_are_taken_frame_by_frame(walk, checkpoint, tmp_path, tracks):
    """Tracks that come with them stay, also over a kill; a frame that the film does not have is listed."""
    rows = ["image,frame,left,top,right,bottom" + ",track" * tracks]
    for n in (0, 1, 2, 3, 5, 6, 8, 9, 11, 12):
        people = [(4 + 2 * n, 70 + 2 * n, 300), (80 + 2 * n, 118 + 2 * n, 5)]
        people = people if n % 2 else people[::-1]  # in whatever order they stand
        rows += [f"walk.mp4,{n},{left},0,{right},110" + f",{track}" * tracks for left, right, track in people]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    given = [str(walk), "--checkpoint", checkpoint, "--boxes", str(tmp_path / "boxes.csv"), "-o"]
    killed(2, *given, str(tmp_path / "killed"))
    assert main([*given, str(tmp_path / "killed")]) == 0
    assert main([*given, str(tmp_path / "whole")]) == 0
    for name in ("predictions.parquet", "skipped.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = read_predictions(tmp_path / "whole").columns
    assert found["frame"].tolist() == np.repeat([0, 1, 2, 3, 5, 6, 8, 9], 2).tolist()
    for track, left in ((300, 4), (5, 80)) if tracks else ((1, 4), (0, 80)):
        rows = np.asarray(found["track"] == track)
        np.testing.assert_array_equal(found["box"][rows, 0], left + 2 * np.asarray(found["frame"])[rows])
    [entry] = json.loads((tmp_path / "whole" / "skipped.json").read_text())["skipped"]
    first = 1 + 2 * 8 + 1  # the header, two rows for each of eight frames, and the next
    assert entry["frame"] == 11 and entry["source"] == str(walk)
    assert f"boxes.csv, row {first}: no such frame" in entry["problem"] and "for 2 that" in entry["problem"]


def test_smoothed_people_have_one_shape_and_move_steadily(walk, tmp_path, monkeypatch):
    given = [str(walk), "--every", "2", "-o"]
    assert main([*given, str(tmp_path / "alone")]) == 0
    assert main([*given, str(tmp_path / "smooth"), "--smooth"]) == 0
    alone, steady = (read_predictions(tmp_path / name).columns for name in ("alone", "smooth"))
    np.testing.assert_array_equal(alone["box"], steady["box"])
    assert sorted(set(steady["frame"].tolist())) == [0, 2, 4, 6, 8]
    rows = np.asarray(steady["track"] == 0)
    assert rows.sum() == 5 and steady["smoothed"][rows].all() and not alone["smoothed"].any()
    assert np.ptp(steady["betas"][rows], 0).max() == 0 and np.ptp(alone["betas"][rows], 0).max() > 0

    monkeypatch.setattr(smooth, "_PARTS", 1)
    assert main([*given, str(tmp_path / "stretches"), "--smooth"]) == 0
    pieces = read_predictions(tmp_path / "stretches").columns
    assert pieces["smoothed"][rows].all() and np.ptp(pieces["betas"][rows], 0).max() == 0

    def jerk(columns):
        points = columns["keypoints_3d"][rows]
        return np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2).mean()

    assert jerk(steady) < 0.5 * jerk(alone) and jerk(pieces) < 0.5 * jerk(alone)
    side = np.ptp(steady["box"][rows].reshape(-1, 2, 2), 1).max()
    assert steady["reprojection_error_px"][rows].max() < 0.05 * side


def test_a_film_counts_up_to_where_it_is_damaged(walk, tmp_path):
    data = walk.read_bytes()
    (tmp_path / "text.mp4").write_text("no film")
    at = data.index(b"mdat")
    if data.index(b"moov") > at:  # frames, then what describes them: the last frames are wiped out
        end = data.index(b"moov") - 4
        data = data[: at + (end - at) // 2] + bytes(end - at - (end - at) // 2) + data[end:]
    (tmp_path / "damaged.mp4").write_bytes(data)
    status = main([str(tmp_path / "damaged.mp4"), str(tmp_path / "text.mp4"), "-o", str(tmp_path / "out")])
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert [entry["source"] for entry in skipped] == [str(tmp_path / "damaged.mp4"), str(tmp_path / "text.mp4")]
    assert skipped[1]["frame"] is None and skipped[1]["problem"]
    lost = skipped[0]["frame"]
    found = read_predictions(tmp_path / "out").columns
    assert status == (0 if lost else 1)
    assert lost is None or (0 < lost < 10 and set(found["frame"].tolist()) == set(range(lost)))
