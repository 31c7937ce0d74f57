"""Where two stretches of a smoothed film meet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fitting import KeypointBody
from pipelines.files.films import FilmWriter
from pipelines.files.predictions import read_predictions
from schemas import COCO_KEYPOINT_NAMES
from schemas.camerahmr import KEYPOINT_NAMES
from train.predict import smooth, stream
from train.predict.command import main


def stretch(frames: range, poses: float, trans: float, track: int = 0) -> dict[str, np.ndarray]:
    count = len(frames)
    return {
        "frame": np.array(frames),
        "track": np.full(count, track),
        "smoothed": np.ones(count, bool),
        "poses": np.full((count, 46), poses),
        "trans": np.full((count, 3), trans),
    }


def test_the_later_stretch_begins_where_the_one_before_ends():
    before, later = stretch(range(0, 100, 2), 0.2, 3.0), stretch(range(90, 200, 2), 0.1, 2.5)
    later["poses"][:, 0] += 2 * np.pi  # the pelvis has gone round
    smooth._fade(later, before, 2)
    apart = later["poses"][:, 0] - 2 * np.pi - 0.1
    at = {frame: n for n, frame in enumerate(later["frame"].tolist())}
    assert 0.08 < apart[at[100]] < 0.1 and abs(apart[at[98]]) < 1e-9  # the overlap itself is not written
    own = slice(at[100], at[100 + 2 * smooth._MORE])
    assert (np.diff(apart[own]) < 0).all() and np.abs(apart[own.stop :]).max() < 1e-9
    np.testing.assert_allclose(later["poses"][:, 5] - 0.1, apart, atol=1e-9)
    np.testing.assert_allclose(later["trans"][:, 2] - 2.5, 5 * apart, atol=1e-9)


def test_others_and_tracks_that_were_not_smoothed_stay():
    for before in (stretch(range(100), 0.2, 3.0, track=1), stretch(range(50), 0.2, 3.0)):
        later = stretch(range(90, 200), 0.1, 2.5)
        smooth._fade(later, before, 1)
        assert (later["poses"] == 0.1).all() and (later["trans"] == 2.5).all()
    before, later = stretch(range(100), 0.2, 3.0), stretch(range(90, 200), 0.1, 2.5)
    before["smoothed"][:] = False
    smooth._fade(later, before, 1)
    assert (later["poses"] == 0.1).all()


def steps_on_the_spot(frames: int) -> np.ndarray:
    """(T, 17, 3) COCO's keypoints, m, of somebody who steps from foot to foot and moves to the right; 30 frames / s."""
    times = np.arange(frames) / 30
    poses = np.zeros((frames, 46))
    poses[:, 0] = np.pi
    poses[:, 3] = 0.35 * np.sin(5.6 * times)
    poses[:, 10] = -poses[:, 3]
    poses[:, 6] = poses[:, 13] = 0.4 + 0.2 * np.cos(5.6 * times)
    betas = np.tile(np.linspace(-1, 1, 10), (frames, 1))
    body = KeypointBody.load()
    points = body.keypoints(*(torch.as_tensor(v, dtype=torch.float32) for v in (poses, betas))).numpy()
    points = points + np.stack([0.4 * times, 0 * times, 3.5 + 0 * times], 1)[:, None]
    return points[:, [KEYPOINT_NAMES.index(name) for name in COCO_KEYPOINT_NAMES]]


@pytest.mark.usefixtures("one_thread")
def test_nobody_jumps_where_stretches_meet(tmp_path, monkeypatch):
    """Three stretches of eight frames: one shape, and motion as steady from one to the next as within."""
    monkeypatch.setattr(smooth, "_PARTS", 1)
    monkeypatch.setattr(smooth, "_MORE", 8)
    monkeypatch.setattr(stream, "FRAMES_PER_PART", 8)
    frames, size, focal = 24, (320, 240), 300.0
    with FilmWriter(tmp_path / "film.mp4", 30) as film:
        for _ in range(frames):
            film.write(np.zeros((size[1], size[0], 3), np.uint8))
    points = steps_on_the_spot(frames)
    pixels = points[..., :2] / points[..., 2:] * focal + np.array(size) / 2
    pixels += np.random.default_rng(0).normal(size=pixels.shape)
    found = [
        {
            "image_id": "film.mp4",
            "frame_id": n,
            "bbox": [*seen.min(0), *np.ptp(seen, axis=0)],
            "keypoints": np.concatenate([seen, np.ones((17, 1))], 1).ravel().tolist(),
        }
        for n, seen in enumerate(pixels)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(found))
    given = [str(tmp_path / "film.mp4"), "--boxes", str(tmp_path / "boxes.json"), "--focal", str(focal), "--smooth"]
    assert main([*given, "-o", str(tmp_path / "out")]) == 0
    people = read_predictions(tmp_path / "out").columns
    assert people["frame"].tolist() == list(range(frames)) and people["smoothed"].all()
    assert np.ptp(people["betas"], axis=0).max() == 0
    uneven = 1000 * np.linalg.norm(np.diff(people["keypoints_3d"].astype(float), 2, axis=0), axis=2).mean(1)
    meets = np.isin(np.arange(frames - 2), [6, 7, 14, 15])  # differences over frames of two stretches
    # Of pixels that are off by one, fitted each alone, they are some 200 mm.
    assert uneven[meets].mean() < 1.5 * uneven[~meets].mean() < 20
