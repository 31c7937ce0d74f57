"""The torch module against TensorFlow.js running the published graph, and the detector around it on rendered people."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from train.network.movenet import decode_people, movenet
from train.predict.detect.choice import detector
from train.predict.detect.movenet_detector import MoveNetDetector
from train.predict.detect.people import intersection_over_union

GOLDEN = Path(__file__).with_name("movenet_golden.npz")
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_ANKLE = 5, 6, 15


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def picture(golden) -> np.ndarray:
    """Four rendered people, without the network's padding."""
    return golden["picture"]


@pytest.fixture(scope="module")
def found(picture):
    return detector("movenet")(picture)


def test_numbers_are_those_of_the_published_graph(golden):
    with torch.inference_mode():
        maps = movenet()(torch.from_numpy(golden["picture"]).permute(2, 0, 1)[None])
        boxes, scores, keypoints = (part[0].numpy() for part in decode_people(maps))
    np.testing.assert_allclose(maps["center"][0, 0].numpy(), golden["center"], atol=3e-4)
    np.testing.assert_allclose(maps["heatmap"][0, 0].numpy(), golden["heatmap_nose"], atol=3e-4)
    height, width = golden["picture"].shape[:2]
    people = golden["people"]
    wanted = people[:, :51].reshape(6, 17, 3)
    # The graph's unused places are ties of tiny numbers.
    real = people[:, 55] > 0.1
    assert real.sum() == 4
    np.testing.assert_allclose(scores[real], people[real, 55], atol=1e-4)
    np.testing.assert_allclose(keypoints[real, :, 2], wanted[real, :, 2], atol=1e-4)
    np.testing.assert_allclose(keypoints[real, :, :2], wanted[real][..., [1, 0]] * [width, height], atol=0.01)
    np.testing.assert_allclose(
        boxes[real], people[real][:, [52, 51, 54, 53]] * [width, height, width, height], atol=0.01
    )


def test_a_person_stays_where_she_is_in_a_larger_picture(picture, found):
    """Twice the size, and a margin: boxes and keypoints follow, whatever the network is shown."""
    large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    framed = cv2.copyMakeBorder(large, 40, 0, 60, 0, cv2.BORDER_CONSTANT)
    again = detector("movenet")(framed)
    overlap = intersection_over_union(found.boxes * 2 + [60, 40, 60, 40], again.boxes)
    sure = found.scores > 0.6
    assert sure.sum() >= 2
    assert (overlap.max(1)[sure] > 0.7).all()
    for n in np.flatnonzero(sure):
        same = again.keypoints[overlap[n].argmax()]
        seen = (found.keypoints[n, :, 2] > 0.4) & (same[:, 2] > 0.4)
        apart = np.linalg.norm(found.keypoints[n, seen, :2] * 2 + [60, 40] - same[seen, :2], axis=1)
        side = 2 * (found.boxes[n, 2:] - found.boxes[n, :2]).max()
        assert seen.sum() >= 8 and np.median(apart) < 0.03 * side


def test_people_are_found_best_first_and_each_once(picture, found):
    height, width = picture.shape[:2]
    assert len(found) >= 3
    assert (np.diff(found.scores) <= 0).all()
    overlap = intersection_over_union(found.boxes, found.boxes)
    assert (overlap[~np.eye(len(found), dtype=bool)] < 0.5).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
    assert found.keypoints.shape == (len(found), 17, 3)
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert ((middle > 0) & (middle < [width, height])).all()
    upright = found.keypoints[:, LEFT_SHOULDER, 1] < found.keypoints[:, LEFT_ANKLE, 1]
    assert upright.mean() > 0.7


def test_mirrored_people_have_their_sides_exchanged(picture, found):
    mirrored = detector("movenet")(np.ascontiguousarray(picture[:, ::-1]))
    width = picture.shape[1]
    boxes = mirrored.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    overlap = intersection_over_union(found.boxes, boxes)
    best = int(found.scores.argmax())
    other = int(overlap[best].argmax())
    assert overlap[best, other] > 0.7
    side = (found.boxes[best, 2:] - found.boxes[best, :2]).max()
    for here, there in ((LEFT_SHOULDER, RIGHT_SHOULDER), (RIGHT_SHOULDER, LEFT_SHOULDER)):
        apart = found.keypoints[best, here, :2] - [width, 0] + mirrored.keypoints[other, there, :2] * [1, -1]
        assert np.abs(apart).max() < 0.08 * side


def test_tiles_find_a_crowd(picture):
    """Sixteen copies of a picture side by side: more people than one look can find, each small."""
    crowd = np.tile(picture, (4, 4, 1))
    one = len(MoveNetDetector(tiles="never")(crowd))
    many = detector("movenet")(crowd)
    assert one <= 6
    assert len(many) >= 40
    overlap = intersection_over_union(many.boxes, many.boxes)
    assert (overlap[~np.eye(len(many), dtype=bool)] < 0.5).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (700, 20), (64, 64)])
def test_pictures_of_any_shape_show_nobody(shape):
    for shade in (0, 255):
        found = detector("movenet")(np.full((*shape, 3), shade, np.uint8))
        assert len(found) == 0 and found.boxes.shape == (0, 4) and found.keypoints.shape == (0, 17, 3)
