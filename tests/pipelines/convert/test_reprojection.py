"""Label rows compared with themselves: sound ones stay as they are, others are mended, flagged or rejected by name."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipelines.convert.bodies import LoadedBodies
from pipelines.convert.conversion import convert_shard
from pipelines.convert.reprojection import AGREEING, CONTRADICTORY, place_people, reprojection_error
from pipelines.convert.rows import read_rows
from pipelines.convert.settings import ConversionSettings, FitSettings
from pipelines.plan.planning import find_label_files, plan_shards
from pipelines.read.images import open_images
from schemas import LABEL_CHECKS, MIRRORED_KEYPOINTS, InputError, table_to_columns

ROWS, WIDTH, HEIGHT = 4, 600, 800


@pytest.fixture(scope="module")
def bodies():
    return LoadedBodies(FitSettings(betas="keep"), "cpu")


@pytest.fixture(scope="module")
def sound(bodies):
    """People 4 to 6 m from a camera, with keypoints where their joints are seen, two px off."""
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.2, (ROWS, 72)).astype(np.float32)
    poses[:, :3] = [np.pi, 0, 0]
    shape = rng.normal(0, 0.5, (ROWS, 10)).astype(np.float32)
    trans = np.array([[-0.6, 0.2, 4], [0.7, 0.1, 5], [0.1, 0.3, 6], [-0.2, -0.2, 4.5]], np.float32)
    camera = np.tile(np.array([[900, 0, WIDTH / 2], [0, 900, HEIGHT / 2], [0, 0, 1]], np.float32), (ROWS, 1, 1))
    points, _ = bodies.keypoints("neutral", poses, shape)
    seen = (points + trans[:, None]) @ camera.transpose(0, 2, 1)
    pixels = seen[..., :2] / seen[..., 2:] + rng.normal(0, 2, (ROWS, 44, 2))
    low, high = pixels.min(1), pixels.max(1)
    return {
        "imgname": np.array([f"{i}.png" for i in range(ROWS)]),
        "center": (low + high) / 2,
        "scale": (high - low).max(1) / 200,
        "pose_cam": poses,
        "shape": shape,
        "trans_cam": trans,
        "cam_int": camera,
        "gtkps": np.concatenate([pixels, np.ones((ROWS, 44, 1))], axis=2),
    }


def placed(tmp_path, bodies, labels):
    """(rows rejected: reason, row -> word, row -> error) without images and without a fit."""
    np.savez(tmp_path / "a-release.npz", **labels)
    [spec] = plan_shards(find_label_files([str(tmp_path / "a-release.npz")], with_images=False), None, 100)
    rows = read_rows(spec)
    chosen = rows.sound
    points, confidence = bodies.keypoints("neutral", rows.columns["pose_cam"][chosen], rows.columns["shape"][chosen])
    found = place_people(rows.columns, chosen, points, confidence)
    return rows, chosen, found


def changed(sound, **arrays):
    return {name: values for name, values in (sound | arrays).items() if values is not None}


def test_a_sound_row_is_consistent_and_keeps_its_translation(tmp_path, bodies, sound):
    _, chosen, found = placed(tmp_path, bodies, sound)
    assert len(chosen) == ROWS and set(found.check) == {"consistent"} and set(found.source) == {"label"}
    assert (found.error < 0.02).all()
    assert np.array_equal(found.trans, sound["trans_cam"])


def test_without_keypoints_or_camera_nothing_is_said(tmp_path, bodies, sound):
    unsure = sound["gtkps"] * [1, 1, 0]
    for labels in (changed(sound, gtkps=unsure), changed(sound, gtkps=None), changed(sound, cam_int=None)):
        _, _, found = placed(tmp_path, bodies, labels)
        assert set(found.check) == {"unchecked"} and (found.error == -1).all()
        assert np.array_equal(found.trans, sound["trans_cam"])


CAM_EXT = np.tile(np.eye(4), (ROWS, 1, 1))
CAM_EXT[:, :3, 3] = [0.4, 0.3, 3]


@pytest.mark.parametrize(
    ("word", "source", "change"),
    [
        ("translation_in_mm", "label", lambda s: {"trans_cam": s["trans_cam"] * 1000}),
        ("translation_in_cm", "label", lambda s: {"trans_cam": s["trans_cam"] * 100}),
        ("translation_from_keypoints", "keypoints", lambda s: {"trans_cam": s["trans_cam"] * 0}),
        ("translation_from_keypoints", "keypoints", lambda s: {"trans_cam": -s["trans_cam"]}),
        ("cam_ext_added", "label", lambda s: {"trans_cam": s["trans_cam"] - CAM_EXT[:, :3, 3], "cam_ext": CAM_EXT}),
        ("consistent", "label", lambda s: {"cam_ext": CAM_EXT}),
        ("consistent", "label", lambda s: {"cam_ext": CAM_EXT * 0}),
        ("consistent", "keypoints", lambda s: {"trans_cam": None}),
        ("consistent", "keypoints", lambda s: {"trans_cam": s["trans_cam"] * np.nan}),
    ],
)
def test_what_the_keypoints_explain_is_mended_and_named(tmp_path, bodies, sound, word, source, change):
    _, _, found = placed(tmp_path, bodies, changed(sound, **change(sound)))
    assert set(found.check) == {word} and set(found.source) == {source}
    assert (found.error < AGREEING).all()
    np.testing.assert_allclose(found.trans, sound["trans_cam"], atol=0.1)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"scale": s["scale"] * 200},
        lambda s: {"scale": s["scale"] / 50},
        lambda s: {"center": s["center"] + 3000},
    ],
)
def test_boxes_that_are_not_those_of_the_keypoints_are_rejected(tmp_path, bodies, sound, change):
    rows, chosen, _ = placed(tmp_path, bodies, changed(sound, **change(sound)))
    assert not len(chosen) and {reason for reason, _ in rows.problems.values()} == {"degenerate_box"}


def test_one_row_in_pixels_leaves_the_other_rows(tmp_path, bodies, sound):
    scale = sound["scale"] * [200, 1, 1, 1]
    assert placed(tmp_path, bodies, changed(sound, scale=scale))[1].tolist() == [1, 2, 3]


MUTATIONS = {
    "trans in mm": lambda s, k: {"trans_cam": s["trans_cam"] * 1000},
    "trans in cm": lambda s, k: {"trans_cam": s["trans_cam"] * 100},
    "trans in feet": lambda s, k: {"trans_cam": s["trans_cam"] * 3.28},
    "trans of another": lambda s, k: {"trans_cam": np.roll(s["trans_cam"], k, 0)},
    "trans axes": lambda s, k: {"trans_cam": np.roll(s["trans_cam"], k, 1)},
    "trans mirrored": lambda s, k: {"trans_cam": s["trans_cam"] * [-1, 1, 1]},
    "pose in degrees": lambda s, k: {"pose_cam": np.degrees(s["pose_cam"])},
    "pose in the world": lambda s, k: {"pose_cam": s["pose_cam"] * ([0.1] * 3 + [1] * 69)},
    "keypoints of another": lambda s, k: {"gtkps": np.roll(s["gtkps"], k, 0)},
    "keypoints swapped": lambda s, k: {"gtkps": s["gtkps"][..., [1, 0, 2]]},
    "keypoints normalised": lambda s, k: {"gtkps": s["gtkps"] / [WIDTH, HEIGHT, 1]},
    "keypoints of half the image": lambda s, k: {"gtkps": s["gtkps"] * [0.5, 0.5, 1]},
    "keypoints' order": lambda s, k: {"gtkps": np.roll(s["gtkps"], 5 * k, 1)},
    "focal length in mm": lambda s, k: {"cam_int": s["cam_int"] * [[[0.04, 1, 1], [1, 0.04, 1], [1, 1, 1]]]},
    "focal length of another image": lambda s, k: {"cam_int": s["cam_int"] * [[[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]]]},
    "principal point swapped": lambda s, k: {
        "cam_int": s["cam_int"] + k * np.array([[0, 0, 200], [0, 0, -200], [0] * 3])
    },
    "box in px": lambda s, k: {"scale": s["scale"] * 200},
    "betas of another unit": lambda s, k: {"shape": s["shape"] * 1000},
    "nothing": lambda s, k: {},
    # frames
    "pose with y up": lambda s, k: {"pose_cam": turned_over(s)},
    "cam_ext of another": lambda s, k: {"cam_ext": CAM_EXT[:, :3] * k},
    "camera transposed": lambda s, k: {"cam_int": np.swapaxes(s["cam_int"], 1, 2)},
    # columns
    "keypoints' left and right": lambda s, k: {"gtkps": s["gtkps"][:, MIRRORED_KEYPOINTS]},
    "keypoints with confidence first": lambda s, k: {"gtkps": s["gtkps"][..., [2, 0, 1]]},
    "keypoints with confidence in percent": lambda s, k: {"gtkps": s["gtkps"] * [1, 1, 100]},
    "box's centre swapped": lambda s, k: {"center": s["center"][:, ::-1]},
    "box of another": lambda s, k: {"center": np.roll(s["center"], k, 0), "scale": np.roll(s["scale"], k, 0)},
    "rows shifted": lambda s, k: {"pose_cam": np.roll(s["pose_cam"], k, 0)},
    "focal lengths swapped": lambda s, k: {"cam_int": s["cam_int"] * [[[0.7, 1, 1], [1, 1.3, 1], [1, 1, 1]]]},
    # spellings, after which other mutations do not find their column
    "trans as transl": lambda s, k: {"transl": s.get("trans_cam"), "trans_cam": None},
    "trans missing": lambda s, k: {"trans_cam": None, "transl": None},
    "trans (N, 1, 3)": lambda s, k: {"trans_cam": None if s.get("trans_cam") is None else s["trans_cam"][:, None]},
    "pose as matrices": lambda s, k: {"pose_cam": matrices(s)},
    "pose as matrices of the other hand": lambda s, k: {"pose_cam": np.swapaxes(matrices(s), 2, 3)},
    "pose in two parts": lambda s, k: {"poses": None, "pose_cam": None, **split(s)},
    "pose of SMPL-H": lambda s, k: {"pose_cam": np.concatenate([flat(s)[:, :66], np.zeros((ROWS, 90))], 1)},
    "betas of 16": lambda s, k: {"shape": np.concatenate([s["shape"], np.zeros((ROWS, 6))], 1)},
    "scale of width and height": lambda s, k: {"scale": np.stack([wide(s) / (1 + k), wide(s)], 1)},
}


def flat(labels):
    """The pose as axis-angle (ROWS, 72), whatever a mutation has made of it; zeros if it is in two parts."""
    pose = labels.get("pose_cam")
    if pose is None:
        return np.zeros((ROWS, 72))
    if pose.shape[-2:] == (3, 3):
        return Rotation.from_matrix(pose.reshape(-1, 3, 3)).as_rotvec().reshape(ROWS, 72)
    return pose[:, :72]


def matrices(labels):
    return Rotation.from_rotvec(flat(labels).reshape(-1, 3)).as_matrix().reshape(ROWS, 24, 3, 3)


def split(labels):
    return {"root_orient": flat(labels)[:, :3], "pose_body": flat(labels)[:, 3:66]}


def turned_over(labels):
    """In a frame whose y axis points up and whose z axis points back."""
    pose = flat(labels).copy()
    pose[:, :3] = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    return pose


def wide(labels):
    return labels["scale"] if labels["scale"].ndim == 1 else labels["scale"].max(1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=3), st.integers(1, 3))
def test_nothing_that_is_off_is_accepted_in_silence(tmp_path_factory, bodies, sound, names, k):
    """The oracle projects by hand: of what is called consistent, no median is off by more than a tenth of the box."""
    labels = dict(sound)
    for name in sorted(names, key=list(MUTATIONS).index):
        labels |= MUTATIONS[name](labels, k)
    labels = changed(labels)
    try:
        rows, chosen, found = placed(tmp_path_factory.mktemp("mutated"), bodies, labels)
    except InputError as error:  # of the whole file, by the name of a field
        assert error.field in labels
        return
    assert set(found.check) <= set(LABEL_CHECKS)
    points, _ = bodies.keypoints("neutral", *(rows.columns[name][chosen] for name in ("pose_cam", "shape")))
    for i, row in enumerate(chosen):
        camera, keypoints = (rows.columns[name][row].astype(float) for name in ("cam_int", "gtkps"))
        seen = (points[i].astype(float) + found.trans[i]) @ camera.T
        with np.errstate(all="ignore"):
            off = np.linalg.norm(seen[:, :2] / seen[:, 2:] - keypoints[:, :2], axis=1)
        off[seen[:, 2] <= 0] = np.inf
        off, side = off[keypoints[:, 2] > 0.3], 200 * wide(labels)[row]
        assert (
            found.check[i] in ("off_keypoints", "contradicts_keypoints", "unchecked")
            or np.median(off) <= 1.001 * AGREEING * side
        )
        assert found.check[i] != "unchecked" or len(off) < 4
    if set(names) == {"nothing"}:
        assert set(found.check) == {"consistent"}


def test_the_error_is_a_median_of_the_confident_and_does_not_see_outliers():
    points = np.zeros((1, 9, 3))
    keypoints = np.zeros((1, 9, 3))
    keypoints[..., 2], keypoints[:, :, 0] = 1, 10
    keypoints[:, :4, 0] = 1e5
    camera, side, trans = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]), np.array([100]), np.array([[0, 0, 2]])
    assert reprojection_error(points, np.ones(9), trans, keypoints, camera, side)[0] == 0.1
    keypoints[:, 3:, 2] = 0
    assert np.isnan(reprojection_error(points, np.ones(9), trans, keypoints, camera, side)[0])


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((WIDTH, HEIGHT), None),
        ((WIDTH // 2, HEIGHT // 2), "other_image_size"),
        ((2 * WIDTH, 2 * HEIGHT), "other_image_size"),
        ((HEIGHT, WIDTH), "other_image_size"),
        ((WIDTH + 12, HEIGHT), None),
        ((200, HEIGHT), "other_image_size"),
    ],
)
def test_an_image_of_another_size_than_the_camera_says(tmp_path, bodies, sound, size, reason):
    (tmp_path / "images").mkdir()
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for name in sound["imgname"]:
        cv2.imwrite(str(tmp_path / "images" / name), image)
    np.savez(tmp_path / "a-release.npz", **sound)
    files = find_label_files([str(tmp_path / "a-release.npz")], with_images=True)
    [spec] = plan_shards(files, open_images(str(tmp_path / "images")), 100)
    (tmp_path / "out").mkdir()
    stats = convert_shard(spec, ConversionSettings(str(tmp_path / "out")), bodies)
    columns = table_to_columns(pq.read_table(tmp_path / "out" / "000000.parquet"))
    if reason is None:
        assert stats["label_checks"] == {"consistent": ROWS} and stats["smpl_genders"] == {"neutral": ROWS}
        assert (columns["reprojection_error"] < 0.02).all()
    else:
        assert stats["samples"] < ROWS and stats["rejects"].keys() <= {reason, "degenerate_box"}
        assert reason in stats["rejects"]


def test_contradictions_are_told_in_the_shard(tmp_path, bodies, sound):
    trans = sound["trans_cam"] + np.array([[0, 0, 0], [3, 0, 0], [0.35, 0, 0], [0, 0, -5]], np.float32)
    np.savez(tmp_path / "a-release.npz", **changed(sound, trans_cam=trans))
    [spec] = plan_shards(find_label_files([str(tmp_path / "a-release.npz")], with_images=False), None, 100)
    (tmp_path / "out").mkdir()
    stats = convert_shard(spec, ConversionSettings(str(tmp_path / "out")), bodies)
    words = ["consistent", "contradicts_keypoints", "off_keypoints", "translation_from_keypoints"]
    assert stats["label_checks"] == dict.fromkeys(words, 1)
    columns = table_to_columns(pq.read_table(tmp_path / "out" / "000000.parquet"))
    assert columns["label_check"].tolist() == words
    assert AGREEING < columns["reprojection_error"][2] < CONTRADICTORY < columns["reprojection_error"][1]


def test_a_body_behind_the_camera_that_no_translation_brings_to_its_keypoints(tmp_path, bodies, sound):
    labels = changed(sound, trans_cam=-sound["trans_cam"], gtkps=sound["gtkps"][:, ::-1])
    np.savez(tmp_path / "a-release.npz", **labels)
    [spec] = plan_shards(find_label_files([str(tmp_path / "a-release.npz")], with_images=False), None, 100)
    (tmp_path / "out").mkdir()
    stats = convert_shard(spec, ConversionSettings(str(tmp_path / "out")), bodies)
    assert stats["rejects"] == {"behind_camera": ROWS}
