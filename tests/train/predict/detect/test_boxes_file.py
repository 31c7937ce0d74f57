"""Boxes from files: the three forms say the same, and what is wrong is named by row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from schemas import InputError
from train.predict.detect.boxes_file import read_boxes
from train.predict.inputs import InputFile
from train.predict.seen import Finder, SeenPicture

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
        ("b.json", '{"a": [[1, 2, 3, 4]], "a": []}', None, None),
        ("b.json", {"a": [[1, 2, 3, 4, 1, 0]]}, 1, "box"),
        ("b.json", {"a.mp4": {"0": [[1, 2, 3, 4]], "1.5": [[1, 2, 3, 4]]}}, 2, "frame"),
        ("b.json", {"a.mp4": {"-1": [[1, 2, 3, 4]]}}, 1, "frame"),
        ("b.json", {"a.mp4": {"0": 3}}, None, None),
        ("b.json", {"a.mp4": {"0": [[1, 2, 3, 4, 1, 0.5]]}}, 1, "track"),
        ("b.json", {"a.mp4": {"0": [[1, 2, 3, 4, 1, 2]], "1": [[1, 2, 3, 4, 1, 2], [5, 2, 8, 4, 1, 2]]}}, 3, "track"),
        ("b.json", {"a.mp4": {"0": [[1, 2, 3, 4, 1, 2]], "1": [[1, 2, 3, 4, 1]]}}, 2, "track"),
        ("b.csv", "image,left,top,right,bottom,frame\na,1,2,3,4,0\na,1,2,3,4,first\n", 3, "frame"),
        ("b.csv", "image,left,top,right,bottom,track\na,1,2,3,4,0\n", 2, "frame"),
        ("b.json", [{"image_id": "a", "bbox": [1, 2, 3, 4], "frame_id": True}], 1, "frame"),
        ("b.json", [{"image_id": "a", "bbox": [1, 2, 3, 4], "frame_id": 0, "track_id": 1 << 31}], 1, "track"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, row, field):
    path = _write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_boxes(path)
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), row, field)


FRAMES = {"0": [[10, 20, 50, 90, 0.4, 7], [0, 0, 30, 40, 0.9, 2]], "12": [[5, 5, 6, 7, 0.5, 7]]}
ROWS = [("a/walk.mp4", frame, box) for frame, boxes in FRAMES.items() for box in boxes]


def _film_results(image: str | None = None) -> list[dict]:
    return [
        {
            "image_id": image or f"{film} {frame}",
            "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
            "score": box[4],
            "track_id": box[5],
            **({"frame_id": int(frame)} if image else {}),
        }
        for film, frame, box in ROWS
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "boxes.csv",
            "\n".join(
                ["image,frame,left,top,right,bottom,score,track", *(f"{f},{n},{str(b)[1:-1]}" for f, n, b in ROWS)]
            ),
        ),
        ("boxes.json", {"a/walk.mp4": FRAMES}),
        ("results.json", _film_results("a/walk.mp4")),
        (
            "annotations.json",
            {
                "images": [{"id": f"a/walk.mp4 {n}", "file_name": "a/walk.mp4", "frame_id": int(n)} for n in FRAMES],
                "annotations": _film_results(),
            },
        ),
    ],
)
def test_every_form_names_frames_and_tracks_of_films(tmp_path, name, content):
    boxes = read_boxes(_write(tmp_path, name, content))
    found = boxes.of("/films/a/walk.mp4", 0)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 30, 40], [10, 20, 50, 90]])
    assert found.scores.tolist() == [0.9, 0.4] and found.tracks.tolist() == [2, 7]
    assert boxes.of("a/walk.mp4", 12).tracks.tolist() == [7]
    assert not len(boxes.of("a/walk.mp4", 1)) and not len(boxes.of("a/walk.mp4")) and not len(boxes.of("run.mp4", 0))
    assert boxes.beyond("a/walk.mp4", 13) is None
    assert boxes.beyond("a/walk.mp4", 12) == (12, 3 + name.endswith("csv"), 1)  # a header counts as a row
    assert boxes.beyond("a/walk.mp4", 12, 5) is None


def test_places_and_tracks_of_pictures_in_coco_sequences_are_left(tmp_path):
    images = [{"id": 1, "file_name": "a/one.jpg", "frame_id": 10001}]
    annotations = [{"image_id": 1, "bbox": [1, 2, 3, 4], "track_id": 0}]
    boxes = read_boxes(_write(tmp_path, "boxes.json", {"images": images, "annotations": annotations}))
    assert len(boxes.of("a/one.jpg")) == 1 and boxes.of("a/one.jpg").tracks is None


def _sources(*names):
    return [InputFile(Path(name), Path(name).stem) for name in names]


@pytest.mark.parametrize(
    ("sources", "row", "field", "said"),
    [
        (["b.jpg", "c.mp4"], 1, "image", "a.jpg is none of"),
        (["x/a.jpg", "y/a.jpg"], 1, "image", "a.jpg may be x/a.jpg or y/a.jpg"),
        (["a.jpg", "x/walk.mp4", "y/walk.mp4"], 2, "image", "walk may be"),
        (["a.jpg", "walk.jpg"], 2, "frame", "a frame given of the picture walk.jpg"),
        (["a.jpg", "run.mp4"], 3, "frame", "no frame given of the film run.mp4"),
    ],
)
def test_names_are_held_to_what_is_looked_at(tmp_path, sources, row, field, said):
    content = {"a.jpg": [[1, 2, 3, 4]], "walk": {"3": [[1, 2, 3, 4]]}, "run.mp4": [[1, 2, 3, 4]]}
    path = _write(tmp_path, "boxes.json", content)
    with pytest.raises(InputError, match=said) as caught:
        read_boxes(path).check(_sources(*sources))
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), row, field)


def test_what_is_not_looked_at_is_said(tmp_path, caplog):
    content = {"a.jpg": [[1, 2, 3, 4]], "walk": {"3": [[1, 2, 3, 4]], "4": [[1, 2, 3, 4]]}, "b.jpg": [[1, 2, 3, 4]]}
    boxes = read_boxes(_write(tmp_path, "boxes.json", content))
    boxes.check(_sources("a.jpg", "walk.jpg.mp4", "walk.mp4", "b.jpg", "c.jpg"))
    assert not caplog.text
    boxes.check(_sources("a.jpg", "walk.jpg", "walk.mp4"), every=3)
    assert "1 of 3 pictures and films of it are not looked at, the first b.jpg (row 4)" in caplog.text
    assert "boxes of 1 frames are not used, which --every 3 leaves out" in caplog.text


@pytest.mark.parametrize(("least", "kept"), [(None, [0.9, 0.4]), (0.5, [0.9]), (0.95, [])])
def test_scores_of_the_file_are_held_to_the_option(tmp_path, least, kept):
    boxes = read_boxes(_write(tmp_path, "boxes.json", BOXES))
    view = SeenPicture("a/one.jpg", np.zeros((100, 100, 3), np.uint8), 1, 100.0, "option")
    people = Finder.of("movenet", boxes, least, keypoints=False, device="cpu")(view)
    assert people.scores.tolist() == kept and people.keypoints.shape == (len(kept), 17, 3)


def test_files_that_are_none(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("b.json", "missing.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            read_boxes(tmp_path / name)
