"""The demo data as its users read it: stock webdataset, numpy without pickle, OpenCV."""

import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import webdataset

from fitting.body.limits import BSM_LIMITS
from pipelines.demo.data import FLAWS, demo_inputs, main
from pipelines.demo.key_poses import KEY_POSES
from pipelines.demo.poses import draw_poses, skel_rotations, smpl_pose
from pipelines.demo.scenery import random_place
from pipelines.demo.scenes import demo_studio, draw_cast, take_photo
from schemas import KEYPOINTS, REJECT_REASONS, InputError

OPTIONS = {"images": 4, "seed": 3, "people": 4, "draft": False}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    return directory, demo_inputs(directory, **OPTIONS, workers=1, progress=False)


@pytest.fixture(scope="module")
def labels(demo):
    found = {}
    for name in ("coco", "aic"):
        with np.load(demo[0] / "labels" / f"{name}-release.npz", allow_pickle=False) as file:
            found[name] = {key: file[key] for key in file.files}
    return found


@pytest.fixture(scope="module")
def samples(demo):
    """All samples of the tars by key, decoded by stock webdataset; pictures stay as bytes without an image handler."""
    tars = sorted(str(p) for p in Path(demo[1].images).rglob("*.tar"))
    pipeline = webdataset.WebDataset(tars, shardshuffle=False).decode()
    return {sample["__key__"]: sample for sample in pipeline}


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(11)
    return take_photo(demo_studio(), draw_cast(6, rng), rng)


def tree_hashes(directory):
    files = sorted(p for p in Path(directory).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def tar_key(data_set, imgname):
    """The path quirks of 4DHumans' images, written anew."""
    stem = re.sub(r"\.jpg$", "", imgname)
    return stem.split("/")[-1] if data_set == "coco" else "aic-train-vitpose/" + stem.removeprefix("aic-train/")


def test_label_layout(labels):
    for name, columns in labels.items():
        count = len(columns["imgname"])
        shapes = {
            "center": (2,),
            "scale": () if name == "coco" else (2,),
            "pose_cam": (72,),
            "shape": (10,),
            "cam_int": (3, 3),
            "gtkps": (KEYPOINTS, 3),
            "trans_cam": (3,),
            "keypoints3d": (KEYPOINTS, 4),
        }
        assert set(columns) == {"imgname", *shapes}
        for field, shape in shapes.items():
            assert columns[field].shape == (count, *shape) and columns[field].dtype == np.float32, field
        assert np.abs(columns["shape"]).max() <= 2


def test_one_label_file_is_stored_and_the_other_compressed(demo):
    import zipfile

    for name, kind in (("coco", zipfile.ZIP_STORED), ("aic", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(demo[0] / "labels" / f"{name}-release.npz") as file:
            assert {member.compress_type for member in file.infolist()} == {kind}


def test_tars_hold_the_labelled_images_but_for_the_flaws(labels, samples):
    missing, corrupt = [], []
    for name, columns in labels.items():
        for imgname in dict.fromkeys(columns["imgname"].tolist()):
            rows = columns["imgname"] == imgname
            sample = samples.get(tar_key(name, imgname))
            if sample is None:
                missing.append(int(rows.sum()))
                continue
            image = cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                corrupt.append(int(rows.sum()))
            else:
                assert sorted(image.shape[:2])[0] >= 480
            people = sample["data.pyd"]
            assert len(people) == rows.sum()
            assert np.array_equal(np.stack([p["keypoints_2d"] for p in people]), columns["gtkps"][rows])
            assert all(p["body_pose"].shape == (69,) for p in people)
    assert len(missing) == len(corrupt) == 1
    assert 1 <= missing[0] <= FLAWS["missing_image"] and 1 <= corrupt[0] <= FLAWS["corrupt_image"]
    assert any("detection.npz" in s for s in samples.values())
    assert any("detection.npz" not in s for s in samples.values())
    assert not all(tar_key(n, i) == re.sub(r"\.jpg$", "", i) for n, c in labels.items() for i in c["imgname"])


def test_flawed_rows_are_as_documented(labels):
    assert set(FLAWS) <= set(REJECT_REASONS)
    poses = np.concatenate([c["pose_cam"] for c in labels.values()])
    scales = np.concatenate([c["scale"].reshape(len(c["scale"]), -1).min(axis=1) for c in labels.values()])
    assert (~np.isfinite(poses).all(axis=1)).sum() == FLAWS["non_finite_pose"]
    assert (scales <= 0).sum() == FLAWS["degenerate_box"]
    for columns in labels.values():
        assert all(np.isfinite(v).all() for k, v in columns.items() if k not in ("imgname", "pose_cam"))


def test_labels_belong_to_the_embedded_smpl_and_its_camera(labels, demo_smpl):
    for columns in labels.values():
        sound = np.isfinite(columns["pose_cam"]).all(axis=1)
        pose, betas, trans = (torch.tensor(columns[k][sound]) for k in ("pose_cam", "shape", "trans_cam"))
        out = demo_smpl(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas, transl=trans)
        # OpenPose's right wrist, left knee, mid hip and nose, by smplx's numbers
        joints = out.joints[:, [21, 4, 0, 24]].numpy()
        assert np.abs(joints - columns["keypoints3d"][sound][:, [4, 13, 8, 0], :3]).max() < 1e-4
        image = columns["keypoints3d"][sound][..., :3] @ columns["cam_int"][sound].transpose(0, 2, 1)
        assert np.abs(image[..., :2] / image[..., 2:] - columns["gtkps"][sound][..., :2]).max() < 0.05
        assert (out.vertices[..., 2] > 0.5).all()


def test_boxes_hold_the_visible_person(labels, samples):
    for name, columns in labels.items():
        for row, imgname in enumerate(columns["imgname"].tolist()):
            sample = samples.get(tar_key(name, imgname))
            size = columns["scale"][row] * 200
            if sample is None or np.min(size) <= 0:
                continue
            keypoints = columns["gtkps"][row]
            seen = keypoints[keypoints[:, 2] > 0, :2]
            beyond = np.abs(seen - columns["center"][row]) - size / 2
            assert np.max(beyond, initial=-1) < 6  # a joint lies under the skin, an ankle or wrist may be hidden


def test_keypoints_fall_on_the_person_in_the_picture(photo):
    height, width = photo.masks.shape
    assert photo.image.shape == (height, width, 3) and len(photo.people) >= 4
    on_person = []
    for n, keypoints in enumerate(photo.keypoints_2d):
        mask = cv2.dilate((photo.masks == n).astype(np.uint8), np.ones((5, 5)))
        seen = keypoints[keypoints[:, 2] > 0, :2].astype(int)
        on_person.append(mask[seen[:, 1], seen[:, 0]])
        assert len(seen) >= 5
        hidden = keypoints[keypoints[:, 2] == 0, :2]
        outside = (hidden < 0).any(axis=1) | (hidden >= [width, height]).any(axis=1)
        for x, y in hidden[~outside].astype(int):
            assert (photo.masks[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] != -1).any()
    assert np.concatenate(on_person).mean() > 0.98


def test_nearer_people_hide_farther_ones(photo):
    """Where the outlines of two people overlap, the picture shows the nearer one."""
    studio = demo_studio()
    vertices = studio.bodies(photo.poses, photo.betas, photo.trans)[0]
    assert (np.diff(photo.trans[:, 2]) > -0.6).all()
    from pipelines.draw.rays import cast

    size = photo.masks.shape[::-1]
    depth = np.stack([cast(v, studio.faces, photo.cam_int, size).depth for v in vertices])
    order = np.sort(depth, axis=0)
    clear = np.isfinite(order[1]) & (photo.masks >= 0)
    clear[clear] = order[1][clear] - order[0][clear] > 0.1
    assert clear.any()
    assert (depth.argmin(axis=0) == photo.masks)[clear].mean() > 0.99


def test_a_draft_shows_the_same_people_at_half_the_size(photo):
    rng = np.random.default_rng(11)
    draft = take_photo(demo_studio(), draw_cast(6, rng), rng, draft=True)
    assert np.array(draft.image.shape[:2]) * 2 == pytest.approx(photo.image.shape[:2])
    shared = [n for n, person in enumerate(photo.people) if person in draft.people]
    assert shared and draft.people.tolist() == photo.people[shared].tolist()
    assert np.array_equal(draft.poses, photo.poses[shared])
    np.testing.assert_allclose(2 * draft.keypoints_2d[..., :2], photo.keypoints_2d[shared, :, :2], atol=1e-6)
    np.testing.assert_allclose(2 * draft.boxes, photo.boxes[shared], atol=3)
    small = cv2.resize(photo.image, draft.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - draft.image).mean() < 12


def test_a_camera_that_sees_no_sky():
    down = np.random.default_rng(0).normal(size=(50, 3)) * 0.2 + [0.0, -1.0, 0.0]
    for kind in ("meadow", "street"):
        place, _ = random_place(kind, np.eye(3), 2.0, 5.0, np.random.default_rng(1))
        seen = place(down)
        assert np.isfinite(seen.distance).all() and np.isfinite(seen.colour).all()


def test_people_stand_on_one_ground(photo):
    """The lowest point of everybody lies on one plane."""
    vertices = demo_studio().bodies(photo.poses, photo.betas, photo.trans)[0]
    lowest = np.stack([v[np.argmax(v[:, 1])] for v in vertices])
    plane = np.linalg.lstsq(np.c_[lowest[:, [0, 2]], np.ones(len(lowest))], lowest[:, 1], rcond=None)[0]
    normal = np.array([plane[0], -1.0, plane[1]]) / np.hypot(1.0, np.hypot(*plane[:2]))
    heights = vertices @ normal + plane[2] / np.hypot(1.0, np.hypot(*plane[:2]))
    assert np.abs(heights.min(axis=1)).max() < 0.06


def test_poses_respect_the_limits_and_vary(demo_skel):
    drawn = draw_poses(80, demo_skel, np.random.default_rng(0))
    low, high = BSM_LIMITS.T
    assert (drawn.q >= low).all() and (drawn.q <= high).all()
    assert len(set(drawn.kind)) >= 0.7 * len(KEY_POSES)
    assert drawn.q[:, 3:].std(axis=0).mean() > 0.1
    assert drawn.chair.any() and not drawn.chair.all()


def test_smpl_pose_moves_smpl_as_skel_moves(demo_skel, demo_smpl):
    drawn = draw_poses(40, demo_skel, np.random.default_rng(1))
    pose = smpl_pose(skel_rotations(drawn.q, demo_skel))
    betas = torch.zeros(len(pose), 10)
    smpl = demo_smpl(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas).vertices
    skel = demo_skel(torch.tensor(drawn.q, dtype=torch.float32), betas).vertices
    distance = (smpl - smpl.mean(1, keepdim=True) - skel + skel.mean(1, keepdim=True)).norm(dim=-1).mean(1)
    assert distance.median() < 0.04 and distance.max() < 0.1


def test_same_bytes_again_and_nothing_to_do_when_complete(demo, tmp_path):
    directory, paths = demo
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    assert demo_inputs(directory, **OPTIONS) == paths
    assert {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == before
    again = demo_inputs(tmp_path / "again", **OPTIONS, workers=1, progress=False)
    assert tree_hashes(tmp_path / "again") == tree_hashes(directory)
    assert again.images == str(tmp_path / "again" / "images")
    manifest = json.loads((directory / "demo.json").read_text())
    assert manifest["complete"] and manifest["spec"]["options"] == OPTIONS
    assert not list(directory.glob(".partial*"))


def test_an_incomplete_demo_is_written_again_and_foreign_files_are_not_touched(demo, tmp_path, monkeypatch):
    from pipelines.demo import data as demo_data

    written = []

    def write_little(root, options, workers, progress):
        written.append(options)
        (root / "labels").mkdir()
        (root / "labels" / "a.npz").write_bytes(b"%d" % options.seed)
        (root / "images").mkdir()
        (root / "body_models").mkdir()

    monkeypatch.setattr(demo_data, "_write_all", write_little)
    demo_inputs(tmp_path, seed=1)
    demo_inputs(tmp_path, seed=1)
    assert len(written) == 1
    (tmp_path / "labels" / "a.npz").unlink()
    demo_inputs(tmp_path, seed=1)
    demo_inputs(tmp_path, seed=2)
    assert len(written) == 3 and (tmp_path / "labels" / "a.npz").read_bytes() == b"2"

    theirs = tmp_path / "theirs"
    (theirs / "images").mkdir(parents=True)
    (theirs / "images" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not demo data"):
        demo_inputs(theirs)
    assert (theirs / "images" / "holiday.jpg").read_bytes() == b"mine"


def test_command_line_errors(capsys, tmp_path):
    assert main([str(tmp_path / "x"), "--images", "1"]) == 2
    assert "at least 4" in capsys.readouterr().err
    assert main([]) == 2
    assert not (tmp_path / "x").exists()
