"""Who is who from frame to frame."""

from __future__ import annotations

import numpy as np

from train.predict.detect.people import DetectedPeople
from train.predict.tracks import Tracker, track_numbers


def person(x: float, side: float = 100.0, seed: int = 0) -> DetectedPeople:
    """Somebody whose keypoints lie somewhere in a box that begins at x."""
    rng = np.random.default_rng(seed)
    points = np.ones((17, 3))
    points[:, :2] = rng.uniform((x, 0), (x + side, side), (17, 2))
    return DetectedPeople(np.array([[x, 0, x + side, side]]), np.ones(1), points[None])


def together(*people: DetectedPeople) -> DetectedPeople:
    return DetectedPeople(
        *(np.concatenate([getattr(p, name) for p in people]) for name in ("boxes", "scores", "keypoints"))
    )


def test_people_keep_their_numbers_in_whatever_order_they_are_found():
    tracker, rng, seen = Tracker(), np.random.default_rng(0), []
    for frame in range(40):
        places = [3.0 * frame, 300 - 3.0 * frame, 600.0]
        order = rng.permutation(3)
        numbers = tracker(frame / 30, together(*(person(places[n], seed=n) for n in order)))
        seen.append(numbers[np.argsort(order)])
    # The first two come within 66 px of each other and part again.
    assert (np.array(seen) == seen[0]).all() and sorted(seen[0]) == [0, 1, 2]


def test_gaps_of_less_than_a_second_are_bridged_and_newcomers_get_new_numbers():
    tracker, nobody = Tracker(), together(person(0)).take(np.zeros(0, int))
    assert tracker(0.0, person(0)).tolist() == [0]
    assert tracker(0.1, nobody).tolist() == []
    assert tracker(0.9, together(person(500), person(5))).tolist() == [1, 0]
    assert tracker(2.0, person(5)).tolist() == [2]
    assert tracker(2.1, person(400)).tolist() == [3]


def test_boxes_alone_will_do():
    def box(x: float) -> DetectedPeople:
        found = person(x)
        return DetectedPeople(found.boxes, found.scores, found.keypoints * [1, 1, 0])

    tracker = Tracker()
    for frame in range(5):
        assert tracker(frame / 10, together(box(10.0 * frame), box(400 - 10.0 * frame))).tolist() == [0, 1]


def test_parts_go_on_where_the_last_one_ended():
    frames = np.repeat(np.arange(6), 2)
    people = [person(x, seed=n) for f in range(6) for n, x in enumerate((4.0 * f, 300.0))]
    everybody = together(*people)
    columns = {
        "frame": frames,
        "time_s": frames / 30,
        "score": everybody.scores,
        "box": everybody.boxes,
        "detected_keypoints": everybody.keypoints,
    }
    whole = track_numbers(Tracker(), columns)
    tracker = Tracker()
    parts = [track_numbers(tracker, {n: v[rows] for n, v in columns.items()}) for rows in (slice(0, 6), slice(6, 12))]
    assert whole.tolist() == [0, 1] * 6 and np.concatenate(parts).tolist() == whole.tolist()
