"""Overlays against projective geometry, and contact sheets of shards."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import written_shards

from pipelines.command.hmr_skel import guarded
from pipelines.draw import sheet as sheets
from pipelines.draw.overlay import draw_overlay, neutral_background
from pipelines.draw.rays import pixels_of
from pipelines.draw.sheet import Tile, body_of, contact_sheet, tiles_of
from pipelines.files.body_models import BodyModels
from pipelines.files.shards import find_shards, read_people
from pipelines.look import inspection

CAMERA = np.array([[400.0, 0, 160], [0, 400, 120], [0, 0, 1]])
WHOLE = np.array([[1.0, 0, 0], [0, 1, 0]])
FACES = np.array([[0, 2, 1], [0, 3, 2]])


def square(x: float, y: float, z: float, half: float) -> np.ndarray:
    """A square that faces the camera."""
    return np.array(
        [[x - half, y - half, z], [x + half, y - half, z], [x + half, y + half, z], [x - half, y + half, z]]
    )


AWAY = square(0, 0, -5.0, 0.1)
"""Behind the camera: nothing to see."""


def picture(width: int = 320, height: int = 240) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=-1)


def draw(image, skin, bone=AWAY, affine=WHOLE):
    return draw_overlay(image, skin, FACES, CAMERA, affine, bone, FACES)


def test_skin_covers_exactly_its_projection():
    image = neutral_background(320, 240)
    after = draw(image, square(0.1, -0.05, 2.0, 0.2))
    expected = np.zeros((240, 320), bool)
    expected[120 - 10 - 40 : 120 - 10 + 40, 160 + 20 - 40 : 160 + 20 + 40] = True  # 400 px / 2 m = 200 px per metre
    np.testing.assert_array_equal(changed(image, after), expected)
    assert after.dtype == np.uint8


def test_the_image_shows_through_the_skin_and_not_through_bones():
    white, black = np.full((240, 320, 3), 255, np.uint8), np.zeros((240, 320, 3), np.uint8)
    skin, bone = square(0, 0, 2.0, 0.3), square(0, 0, 2.2, 0.1)
    difference = draw(white, skin, bone).astype(int) - draw(black, skin, bone)
    assert difference[120, 160].max() <= 1, "bone"
    assert 40 < difference[120, 160 + 50].min() < 215, "skin alone"
    assert difference[5, 5].min() == 255, "neither"


def test_bones_inside_look_different_from_bones_outside():
    image = picture()
    inside, outside = (draw(image, square(0, 0, 2.0, 0.3), square(0, 0, z, 0.1))[120, 160] for z in (2.2, 1.8))
    alone = draw(image, AWAY, square(0, 0, 1.8, 0.1))[120, 160]
    np.testing.assert_array_equal(outside, alone)
    assert (inside != outside).any()


def test_people_behind_the_camera_or_outside_the_image_leave_it_alone():
    image = picture()
    for nowhere in (AWAY, square(30.0, 0, 2.0, 0.2)):
        np.testing.assert_array_equal(draw(image, nowhere), image)


def test_a_person_who_reaches_behind_the_camera_is_drawn_where_in_front():
    image = neutral_background(320, 240)
    floor = np.array([[-1.0, 0.3, -2.0], [1.0, 0.3, -2.0], [1.0, 0.3, 8.0], [-1.0, 0.3, 8.0]])
    mask = changed(image, draw(image, floor))
    horizon = 120 + 400 * 0.3 / 8.0
    rows = np.flatnonzero(mask.any(axis=1))
    assert rows.min() == pytest.approx(horizon, abs=1.0)
    assert rows.max() == 239


def test_a_crop_of_the_overlay_is_the_overlay_of_the_crop():
    image, person = picture(), square(-0.35, 0.2, 2.0, 0.23)  # partly outside the crop
    whole = draw(image, person, square(-0.35, 0.2, 2.3, 0.05))
    crop = WHOLE.copy()
    crop[:, 2] = [-60, -100]
    part = draw(image[100:220, 60:200], person, square(-0.35, 0.2, 2.3, 0.05), affine=crop)
    np.testing.assert_array_equal(part, whole[100:220, 60:200])


def test_crops_may_be_scaled():
    image = neutral_background(96, 96)
    crop = np.array([[0.5, 0, -32.0], [0, 0.5, -12.0]])
    rows, columns = np.nonzero(changed(image, draw(image, square(0, 0, 2.0, 0.2), affine=crop)))
    center = crop @ [160, 120, 1]
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(center, abs=0.1)
    assert len(rows) == 40 * 40


def tile(image, affine=WHOLE, caption="k", **changes) -> Tile:
    facts = {"box_center": np.array([160.0, 120.0]), "box_size": 100.0, "vertices": square(0, 0, 2.0, 0.25)}
    return Tile(
        caption=caption, image=image, cam_int=CAMERA, crop_affine=affine, skeleton_vertices=AWAY, **(facts | changes)
    )


def test_sheet_has_crop_and_overlay_side_by_side_with_a_caption():
    crop = np.array([[0.5, 0, -30.0], [0, 0.5, -10.0]])
    image = cv2.resize(picture(), (100, 100), interpolation=cv2.INTER_AREA)
    sheet = contact_sheet([tile(image, crop)] * 5, FACES, FACES, tile_size=100)
    gap, caption = sheets._GAP, sheets._CAPTION_HEIGHT
    left = sheet[gap : gap + 100, gap : gap + 100]
    np.testing.assert_array_equal(left, image)
    right = sheet[gap : gap + 100, gap + 102 : gap + 202]
    np.testing.assert_array_equal(right, draw(image, square(0, 0, 2.0, 0.25), affine=crop))
    assert (sheet[gap + 102 : gap + 100 + caption, gap : gap + 100] < 128).any()
    assert sheet.shape == (3 * (100 + caption + gap) + gap, 2 * (200 + 2 * gap) + gap, 3)


def test_of_a_whole_frame_the_surroundings_of_the_person_are_shown():
    image = np.zeros((2400, 3200, 3), np.uint8)
    image[700:800, 2400:2500] = 255  # the person's box, 100 px
    shown = tile(image, box_center=np.array([2450.0, 750.0]))
    affine = sheets._view(shown, 130)
    mask = sheets._show(shown, affine, 130)[:, :, 0] > 127
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 114, 15, 114)


def test_long_captions_keep_both_ends():
    sheet = np.full((30, 200, 3), 255, np.uint8)
    sheets._write(sheet, "a" * 200 + "-end 5.0 mm", 5, 20, 190, False)
    assert (sheet[:, 195:] == 255).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written_shards.write_dataset(tmp_path_factory.mktemp("sheet") / "set")


def test_tiles_show_the_body_where_its_box_is(folder, demo_skel):
    """The written people stand 4 m off, and their boxes surround the principal point."""
    tiles = tiles_of(read_people(find_shards([folder]), [0, 9]), demo_skel)
    for found in tiles:
        assert found.image.shape == (64, 64, 3)
        drawn = draw_overlay(
            found.image,
            found.vertices,
            demo_skel.faces,
            found.cam_int,
            found.crop_affine,
            found.skeleton_vertices,
            demo_skel.skeleton_faces,
        )
        rows, columns = np.nonzero(changed(found.image, drawn))
        points = pixels_of(found.vertices, found.cam_int) @ found.crop_affine[:, :2].T + found.crop_affine[:, 2]
        low, high = np.clip(points.min(0), 0, 64), np.clip(points.max(0), 0, 64)
        assert [columns.min(), rows.min()] == pytest.approx(low, abs=2)
        assert [columns.max(), rows.max()] == pytest.approx(high, abs=2)


@pytest.mark.parametrize(
    ("unknown", "remark"),
    [
        ({"cam_int": np.zeros((3, 3), np.float32)}, "camera unknown"),
        ({"box_size": np.float32(0)}, "box unknown"),
        ({"trans_source": "none", "trans": np.zeros(3, np.float32)}, "position unknown"),
    ],
)
def test_people_whose_place_is_unknown_are_shown_in_the_middle(folder, demo_skel, unknown, remark):
    (shard, sample), *_ = read_people(find_shards([folder]), [0])
    sample |= {"crop_size": np.zeros(2, np.int32), "crop_affine": WHOLE.astype(np.float32), **unknown}
    (found,) = tiles_of([(shard, sample)], demo_skel)
    assert remark in found.caption
    assert found.image is None
    sheet = contact_sheet([found], demo_skel.faces, demo_skel.skeleton_faces, tile_size=128)
    gap = sheets._GAP
    left, right = sheet[gap : gap + 128, gap : gap + 128], sheet[gap : gap + 128, gap + 130 : gap + 258]
    rows, columns = np.nonzero(changed(left, right))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(64, abs=16)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(64, abs=16)
    assert max(np.ptp(rows), np.ptp(columns)) > 64, "large enough to see"


def test_contact_sheet_command(folder, tmp_path, capsys):
    target = tmp_path / "sheet.png"
    arguments = [str(folder), "--contact-sheet", str(target), "--people", "5", "--tile-size", "64", "--pick", "worst"]
    assert inspection.main(arguments) == 0
    assert "contact sheet of 5 people" in capsys.readouterr().out
    first = target.read_bytes()
    assert cv2.imread(str(target)).shape[2] == 3
    assert inspection.main(arguments) == 0
    assert target.read_bytes() == first


def test_bodies_of_a_folder_in_the_official_layout(folder, tmp_path, model_directory):
    target = tmp_path / "sheet.png"
    arguments = ["--contact-sheet", str(target), "--people", "2", "--tile-size", "64"]
    assert inspection.main([str(folder), *arguments]) == 0
    embedded = target.read_bytes()
    assert inspection.main([str(folder), *arguments, "--body-models", str(model_directory)]) == 0
    assert target.read_bytes() != embedded


def test_other_body_models_than_the_shards_are_a_warning(folder, tmp_path, caplog):
    copy = tmp_path / "set"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "dataset.json").read_text())
    for stated, warned in ((BodyModels("demo").sha256(), False), ("0" * 64, True)):
        (copy / "dataset.json").write_text(json.dumps(manifest | {"inputs": {"body_models": stated}}))
        body_of(find_shards([copy]), None)
        assert ("made with other body models than demo" in caplog.text) == warned


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--contact-sheet", "{tmp}/sheet.xyz"], "cannot be written; expected a name that ends in .png or .jpg"),
        (["--contact-sheet", "/proc/none/sheet.png"], "/proc/none/sheet.png: cannot be written"),
        (["--contact-sheet", "{tmp}/sheet.png", "--people", "0"], "field '--people': not a positive number"),
        (["--contact-sheet", "{tmp}/sheet.png", "--body-models", "{tmp}/none"], "{tmp}/none"),
    ],
)
def test_contact_sheet_complaints(folder, tmp_path, capfd, arguments, complaint):
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert guarded(lambda: inspection.main([str(folder), "--tile-size", "64", *arguments]), "hmr-skel") == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hmr-skel: error: ")]
    assert len(lines) == 1
    assert complaint.format(tmp=tmp_path) in lines[0]
