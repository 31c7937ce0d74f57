"""Who is who from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from train.predict.detect.people import DetectedPeople, box_of_keypoints, intersection_over_union
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


STANDING = np.array(
    [
        *((0, 0), (3, -3), (-3, -3), (6, 0), (-6, 0), (14, 20), (-14, 20), (18, 44), (-18, 44), (20, 66), (-20, 66)),
        *((9, 70), (-9, 70), (9, 105), (-9, 105), (9, 140), (-9, 140)),
    ]
)
"""COCO's keypoints of somebody who is 140 px high, about the nose."""


def walking(x: float, seed: int, time_s: float, height: float = 140.0) -> DetectedPeople:
    """Somebody whose arms and legs swing, found to a pixel or so."""
    points = np.ones((1, 17, 3))
    swing = (
        14
        * np.sin(2 * np.pi * (0.9 * time_s + 0.3 * seed))
        * np.array([0] * 7 + [0.4, -0.4, 1, -1, 0, 0, -0.5, 0.5, -1, 1])
    )
    points[0, :, :2] = STANDING + np.stack([swing, np.zeros(17)], 1)
    points[0, :, :2] *= height / 140
    points[0, :, :2] += np.array([x, 50]) + np.random.default_rng([seed, round(1000 * time_s)]).normal(0, 1, (17, 2))
    return DetectedPeople(box_of_keypoints(points), np.ones(1), points)


def crossing(speeds: tuple[float, float], rate: float, back: bool = False) -> list[tuple[float, int, int]]:
    """(time, person, number) of detections of two who pass each other, the second behind the first, or turn back.

    Of whoever is more than half hidden there is none.
    """
    tracker, found = Tracker(), []
    for time_s in np.arange(0, 3, 1 / rate):
        gone = time_s - 1.5  # since they met
        gone = 0.1 - np.hypot(gone, 0.1) if back else gone
        near = walking(200 + speeds[0] * gone, 1, time_s)
        far = walking(200 + speeds[1] * gone, 2, time_s, 115)
        hidden = intersection_over_union(near.boxes, far.boxes)[0, 0] > 0.5
        shown = [near] if hidden else [far, near] if round(time_s * rate) % 2 else [near, far]
        who = [0] if hidden else [1, 0] if round(time_s * rate) % 2 else [0, 1]
        numbers = tracker(time_s, together(*shown)).tolist()
        found += [(time_s, person, number) for person, number in zip(who, numbers, strict=True)]
    return found


@pytest.mark.parametrize("rate", [30, 10, 6])
@pytest.mark.parametrize("speeds", [(100, -90), (-90, 120), (140, 40), (-50, -150), (0, 110), (-120, 0)])
def test_people_who_cross_keep_their_numbers(speeds, rate):
    found = crossing(speeds, rate)
    assert any(person == 1 for _, person, _ in found[-4:])  # whoever was hidden comes out again
    numbers = {person: {n for _, p, n in found if p == person} for person in (0, 1)}
    assert sorted(map(sorted, numbers.values())) == [[0], [1]]


@pytest.mark.parametrize("rate", [30, 10, 6])
@pytest.mark.parametrize("speeds", [(70, -60), (-60, 80), (50, -60)])
def test_people_who_turn_back_keep_their_numbers(speeds, rate):
    found = crossing(speeds, rate, back=True)
    numbers = {person: {n for _, p, n in found if p == person} for person in (0, 1)}
    assert sorted(map(sorted, numbers.values())) == [[0], [1]]


def test_somebody_comes_out_behind_what_hid_them():
    """A walker is hidden for 0.8 s, and comes out near somebody who stood there the whole time."""
    tracker, walker = Tracker(), []
    for time_s in np.arange(0, 3, 1 / 30):
        place = 50 + 110 * time_s
        people = [walking(200, 3, time_s)] + [walking(place, 1, time_s)] * (not 120 < place < 208)
        numbers = tracker(time_s, together(*people)).tolist()
        assert numbers[0] == 0
        walker += numbers[1:]
    assert set(walker) == {1}


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
