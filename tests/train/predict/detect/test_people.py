"""Geometry of boxes and keypoints."""

from __future__ import annotations

import numpy as np

from train.predict.detect.people import (
    DetectedPeople,
    box_of_keypoints,
    intersection_over_union,
    squares,
    without_doubles,
)

STANDING = np.array(
    [
        *((50, 10), (48, 8), (52, 8), (46, 9), (54, 9), (40, 25), (60, 25), (35, 45), (65, 45), (33, 62), (67, 62)),
        *((44, 60), (56, 60), (43, 85), (57, 85), (42, 110), (58, 110)),
    ],
    float,
)


def _person(shift: float, scale: float = 1.0, score: float = 0.9) -> DetectedPeople:
    points = STANDING * scale + [shift, 0]
    keypoints = np.concatenate([points, np.full((17, 1), 0.9)], 1)[None]
    return DetectedPeople(box_of_keypoints(keypoints, 1.0), np.array([score]), keypoints)


def _together(*people: DetectedPeople) -> DetectedPeople:
    return DetectedPeople(
        *(np.concatenate([getattr(p, name) for p in people]) for name in ("boxes", "scores", "keypoints"))
    )


def test_boxes_hold_the_seen_keypoints():
    person = _person(0)
    np.testing.assert_allclose(person.boxes, [[33, 8, 67, 110]])
    hidden = person.keypoints.copy()
    hidden[0, -4:, 2] = 0.1
    np.testing.assert_allclose(box_of_keypoints(hidden, 1.0), [[33, 8, 67, 62]])
    np.testing.assert_allclose(box_of_keypoints(person.keypoints, 2.0), [[16, -43, 84, 161]])
    hidden[..., 2] = 0
    assert np.isnan(box_of_keypoints(hidden)).all()


def test_squares_are_as_long_as_the_longer_side():
    centers, sides = squares(np.array([[0, 0, 10, 40.0], [5, 5, 25, 15]]), 1.5)
    np.testing.assert_allclose(centers, [[5, 20], [15, 10]])
    np.testing.assert_allclose(sides, [60, 30])
    assert squares(np.zeros((0, 4)))[1].shape == (0,)


def test_overlap():
    one = np.array([[0, 0, 10, 10.0]])
    others = np.array([[0, 0, 10, 10.0], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(intersection_over_union(one, others), [[1, 1 / 3, 0]])


def test_doubles_go_and_neighbours_stay():
    """Somebody found twice counts once, with the better score; somebody close beside or a child before her stays."""
    child = _person(25, scale=0.5, score=0.5)
    found = without_doubles(_together(_person(1, score=0.6), _person(0), _person(22, score=0.7), child))
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5])


def test_half_a_person_is_a_double_of_the_whole():
    """A tile's edge cuts through the hips; its box overlaps that of the whole person by less than half."""
    half = _person(1, score=0.95)
    half.keypoints[0, 11:, 2] = 0.05
    half = DetectedPeople(box_of_keypoints(half.keypoints, 1.0), half.scores, half.keypoints)
    found = without_doubles(_together(_person(0), half), worth=np.array([0.9, 0.5]))
    np.testing.assert_allclose(found.scores, [0.9])
    assert len(without_doubles(_together(_person(0), half).take(np.array([1])))) == 1
