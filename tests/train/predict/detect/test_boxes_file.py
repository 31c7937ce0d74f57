"""Boxes from files: the three forms say the same, and what is wrong is named by row."""

from __future__ import annotations

import json

import numpy as np
import pytest

from schemas import InputError
from train.predict.detect.boxes_file import read_boxes

BOXES = {"a/one.jpg": [[10, 20, 50, 90, 0.4], [0, 0, 30.5, 40, 0.9]], "two.png": [[5, 5, 6, 7]]}


def _write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def _csv() -> str:
    rows = ["image, left, top, right, bottom, score"]
    for picture, boxes in BOXES.items():
        rows += [",".join(map(str, [picture, *box[:4], box[4] if len(box) > 4 else ""])) for box in boxes]
    return "\n".join(rows) + "\n\n"


def _coco_results(names: dict[str, object]) -> list[dict]:
    return [
        {
            "image_id": names[picture],
            "category_id": 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            **({"score": box[4]} if len(box) > 4 else {}),
        }
        for picture, boxes in BOXES.items()
        for box in boxes
    ]


def _coco_data_set() -> dict:
    numbers = {"a/one.jpg": 7, "two.png": 8}
    return {
        "images": [{"id": n, "file_name": name} for name, n in numbers.items()],
        "annotations": [*_coco_results(numbers), {"image_id": 8, "category_id": 3, "bbox": [0, 0, 9, 9]}],
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", _csv()),
        ("boxes.json", BOXES),
        ("results.json", _coco_results({"a/one.jpg": "a/one.jpg", "two.png": "two.png"})),
        ("annotations.json", _coco_data_set()),
    ],
)
def test_every_form_says_the_same(tmp_path, name, content):
    boxes = read_boxes(_write(tmp_path, name, content))
    found = boxes.of("/photos/a/one.jpg")
    np.testing.assert_array_equal(found.boxes, [[0, 0, 30.5, 40], [10, 20, 50, 90]])
    np.testing.assert_array_equal(found.scores, [0.9, 0.4])
    np.testing.assert_array_equal(boxes.of("two.png").boxes, [[5, 5, 6, 7]])
    assert boxes.of("two.png").scores == [1.0]
    assert len(boxes.of("/photos/b/one.jpg")) == 0
    assert len(boxes.of("three.png")) == 0


def test_coco_numbers_name_pictures(tmp_path):
    keypoints = list(range(51))
    results = [{"image_id": 139, "bbox": [1, 2, 3, 4], "score": 0.5, "keypoints": keypoints}]
    boxes = read_boxes(_write(tmp_path, "results.json", results))
    for name in ("val2017/000000000139.jpg", "COCO_val2014_000000000139.jpg", "139.png"):
        found = boxes.of(name)
        np.testing.assert_array_equal(found.boxes, [[1, 2, 4, 6]])
        np.testing.assert_array_equal(found.keypoints, np.arange(51.0).reshape(1, 17, 3))
    assert len(boxes.of("1390.jpg")) == 0


@pytest.mark.parametrize(
    ("name", "content", "row", "field"),
    [
        ("b.csv", "image,left,top\n", 1, None),
        ("b.csv", "image,left,top,right,bottom\na,1,2,3,4\na,1,2,nan,4\n", 3, "box"),
        ("b.csv", "image,left,top,right,bottom\na,1,2,3\n", 2, None),
        ("b.csv", "image,left,top,right,bottom\na,9,2,3,4\n", 2, "box"),
        ("b.json", {"a": [[1, 2, 3, 4], [1, 2, 3]]}, 2, "box"),
        ("b.json", {"a": [[1, 2, 3, "x"]]}, 1, "box"),
        ("b.json", {"a": [[1, 2, 3, None]]}, 1, "box"),
        ("b.json", {"a": 3}, None, None),
        ("b.json", "{", None, None),
        ("b.json", [{"image_id": 1}], 1, None),
        ("b.json", [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 1, "bbox": [1, 2, -3, 4]}], 2, "box"),
        ("b.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1]}], 1, "keypoints"),
        ("b.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}], 1, "score"),
        ("b.json", {"images": None, "annotations": []}, None, "images"),
        ("b.json", {"images": [], "annotations": None}, None, "annotations"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, row, field):
    path = _write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_boxes(path)
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), row, field)


def test_files_that_are_none(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("b.json", "missing.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            read_boxes(tmp_path / name)
