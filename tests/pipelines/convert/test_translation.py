"""The translation solved from keypoints: exact on exact projections, honest where it cannot be known."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.convert.translation import solve_translation

CAMERA = np.array([[1100.0, 0, 310], [0, 1080, 250], [0, 0, 1]])


def projected(points, trans, camera=CAMERA):
    p = (points + trans[:, None]) @ camera.T
    return np.concatenate([p[..., :2] / p[..., 2:], np.ones((*p.shape[:2], 1))], axis=2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 44))
def test_exact_projections_give_the_exact_place(seed, visible):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.4, size=(3, 44, 3))
    trans = np.stack([rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3), rng.uniform(3, 12, 3)], axis=1)
    keypoints = projected(points, trans)
    keypoints[:, visible:] = rng.normal(size=(3, 44 - visible, 3)) * [1e4, 1e4, 0]
    keypoints[:, visible : visible + 1] = np.nan
    found, possible = solve_translation(points, np.ones(44), keypoints, np.tile(CAMERA, (3, 1, 1)))
    assert possible.all()
    assert np.abs(found - trans).max() < 1e-6


def test_confidence_weighs_and_missing_body_keypoints_do_not_count():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.4, size=(1, 44, 3))
    trans = np.array([[0.3, -0.2, 5.0]])
    keypoints = projected(points, trans)
    keypoints[:, :5, :2] += 300
    cameras = CAMERA[None]
    sure = np.ones(44)
    wrong = np.abs(solve_translation(points, sure, keypoints, cameras)[0] - trans).max()
    keypoints[:, :5, 2] = 1e-3
    weighed = np.abs(solve_translation(points, sure, keypoints, cameras)[0] - trans).max()
    sure[:5] = 0
    left_out = np.abs(solve_translation(points, sure, keypoints, cameras)[0] - trans).max()
    assert wrong > 50 * weighed > 0
    assert left_out < 1e-9


def test_unknowable_places_are_said_to_be_so():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.4, size=(5, 44, 3))
    trans = np.tile([0.0, 0.0, 5.0], (5, 1))
    keypoints = projected(points, trans)
    keypoints[0, 3:, 2] = 0  # three keypoints
    keypoints[1] = np.nan  # none
    keypoints[2, :, :2] = keypoints[2, 0, :2]  # all on one ray: depth unknown
    keypoints[3] = projected(-points[3:4], trans[3:4])[0]  # mirrored through a point: behind the camera or absurd
    found, possible = solve_translation(points, np.ones(44), keypoints, np.tile(CAMERA, (5, 1, 1)))
    assert possible.tolist()[:3] == [False, False, False]
    assert possible[4]
    assert not found[~possible].any()
    assert not possible[3]
