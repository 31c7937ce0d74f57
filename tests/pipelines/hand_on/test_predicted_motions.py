"""Predicted people for OpenSim, played by OpenSim itself."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
import torch
from opensim_playing import played
from written_predictions import upright

from fitting import SKEL
from fitting.anatomy import SKEL_JOINTS
from pipelines.convert.ground import ground_axes
from pipelines.hand_on.predicted_motions import double_skel, write_person


@pytest.fixture(scope="module")
def skel():
    return double_skel(SKEL.demo())


def track(count: int) -> dict[str, np.ndarray]:
    """One shape, and poses near each other, before a camera."""
    people = upright(count, seed=3)
    people["betas"][:] = people["betas"][0]
    people["poses"] = people["poses"][0] + 0.05 * (people["poses"] - people["poses"][0])
    return people


def test_a_track_with_a_gap_plays_upright(skel, tmp_path):
    people, frames = track(4), np.array([10, 11, 14, 15])
    people["poses"][1, 10] += 1.2  # between 10 and 11; what lies between 11 and 14 nobody knows
    base = tmp_path / "film.v2" / "track_1"
    assert write_person(base, skel, *people.values(), frames, 25.0) == 1
    names = {f"track_1.{ending}" for ending in ("osim", "mot", "trc", "csv", "png")} | {"Geometry"}
    assert {path.name for path in base.parent.iterdir()} == names
    with base.with_suffix(".csv").open() as file:
        rows = list(csv.reader(file))
    assert [float(row[0]) for row in rows[1:]] == pytest.approx(frames / 25)
    assert rows[0][0] == "time (s)"
    picture = cv2.imread(str(base.with_suffix(".png")))
    assert picture.shape[0] > 500 and picture.std() > 5
    found = played(base.with_suffix(".osim"), base.with_suffix(".mot"))
    with torch.no_grad():
        wanted = (
            skel(*(torch.from_numpy(values) for values in people.values())).joints.numpy() @ ground_axes("camera").T
        )
    assert 1000 * np.linalg.norm(found - wanted, axis=-1).max() < 2
    head, feet = (found[:, SKEL_JOINTS.index(name), 1] for name in ("head", "calcn_r"))
    assert (head - feet > 1.0).all()


def test_one_pose_of_a_picture(skel, tmp_path):
    opensim = pytest.importorskip("opensim", reason="OpenSim's Python package is not installed")
    people = track(1)
    base = tmp_path / "photo.person_0"
    write_person(base, skel, *people.values())
    assert not (tmp_path / "photo.person_0.png").exists(), "no curves of one pose"
    found = played(tmp_path / "photo.person_0.osim", tmp_path / "photo.person_0.mot")
    assert found.shape == (1, 24, 3)
    markers = opensim.TimeSeriesTableVec3(str(tmp_path / "photo.person_0.trc"))
    centres = np.array([markers.getRowAtIndex(0).getElt(0, i).to_numpy() for i in range(24)])
    assert 1000 * np.linalg.norm(found[0] - centres, axis=-1).max() < 2


def test_frames_that_do_not_grow_are_refused(skel, tmp_path):
    with pytest.raises(ValueError, match="must grow"):
        write_person(tmp_path / "q", skel, *track(3).values(), np.array([0, 2, 1]), 25.0)
