"""The job from labels and images to shards, run as a user runs it, on the embedded body."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from fitting.anatomy import COORDINATE_NAMES
from pipelines.build_hmr_skel import main
from pipelines.convert.settings import FitSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.files.jpeg import decode_image
from schemas import REJECT_REASONS, table_to_columns

WIDTH, HEIGHT, FOCAL = 320, 240, 400.0
PEOPLE = 11
BROKEN = {
    2: "non_finite_pose",
    3: "non_finite_shape",
    4: "degenerate_box",
    5: "bad_camera",
    6: "missing_image",
    7: "corrupt_image",
    8: "unreadable_row",
    9: "degenerate_box",
}
"""Rows of the first data set that cannot be used: why."""


@dataclass
class Inputs:
    folder: Path
    trans: np.ndarray
    centers: np.ndarray

    @property
    def arguments(self):
        return ["--annotations", str(self.folder / "*.npz"), "--images", str(self.folder / "tars")]


def jpeg(seed, marks):
    """A grey image with a square of 12 px at each mark, the first red, the second blue."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image += np.random.default_rng(seed).integers(0, 20, image.shape, dtype=np.uint8)
    for number, (x, y) in enumerate(np.asarray(marks).round().astype(int)):
        image[max(y - 6, 0) : y + 6, max(x - 6, 0) : x + 6] = (255, 0, 0) if number else (0, 0, 255)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 97])[1].tobytes()


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two data sets in tars: aic with a row for each way to be rejected, under its naming rule; coco without trans."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "tars").mkdir()
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.15, (PEOPLE, 72)).astype(np.float32)
    poses[:, 0] += np.pi  # upright in camera frame: y points down
    betas = rng.normal(0, 0.5, (PEOPLE, 10)).astype(np.float32)
    trans = np.stack([rng.uniform(-0.6, 0.6, PEOPLE), rng.uniform(-0.3, 0.3, PEOPLE), rng.uniform(3, 5, PEOPLE)], 1)
    camera = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    points, sure = bodies_of_process(FitSettings(device="cpu")).keypoints("neutral", poses, betas)
    seen = (points + trans[:, None]) @ camera.T
    keypoints = np.concatenate([seen[..., :2] / seen[..., 2:], np.tile(sure[:, None], (PEOPLE, 1, 1))], axis=2)
    centers = (keypoints[..., :2].min(axis=1) + keypoints[..., :2].max(axis=1)) / 2
    labels = {
        "imgname": np.array([f"aic-train/{i // 2}.jpg" for i in range(PEOPLE)]),
        "center": centers.astype(np.float32),
        "scale": np.full(PEOPLE, 0.6, np.float32),
        "pose_cam": poses,
        "shape": betas,
        "cam_int": np.tile(camera, (PEOPLE, 1, 1)),
        "gtkps": keypoints.astype(np.float32),
        "trans_cam": trans.astype(np.float32),
    }
    with tarfile.open(folder / "tars" / "coco.tar", "w") as tar:
        for i in range(4):
            add(tar, f"COCO_{i}.jpg", jpeg(100 + i, [centers[i]]))
            add(tar, f"COCO_{i}.data.pyd", b"\x80\x04.")
    coco = {name: values[:4] for name, values in labels.items() if name != "trans_cam"}
    coco["imgname"] = np.array([f"images/train2014/COCO_{i}.jpg" for i in range(4)])
    np.savez_compressed(folder / "coco-release.npz", **coco)
    with tarfile.open(folder / "tars" / "aic.tar", "w") as tar:
        for i in range(PEOPLE // 2 + 1):
            data = jpeg(i, centers[2 * i : 2 * i + 2])
            if i == 3:
                continue  # of rows 6 and 7; row 7 gets another name
            add(tar, f"aic-train-vitpose/{i}.jpg", data)
        add(tar, "aic-train-vitpose/cut.jpg", jpeg(0, [])[:2000])
    labels["pose_cam"][2, 5] = np.nan
    labels["shape"][3, 0] = np.inf
    labels["scale"][4] = 0.001
    labels["cam_int"][5, 0, 0] = -1
    labels["imgname"] = np.array([*labels["imgname"][:7], "aic-train/cut.jpg", "", *labels["imgname"][9:]])
    labels["center"][9] = [2000, 100]
    np.savez(folder / "aic-release.npz", **labels)
    return Inputs(folder, trans, centers)


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("built")
    assert main([*inputs.arguments, "--output", str(output), "--samples-per-shard", "4", "--crop-size", "128"]) == 0
    return output


def columns_of(output):
    tables = [pq.read_table(path) for path in sorted(output.glob("0*.parquet"))]
    parts = [table_to_columns(table) for table in tables if table.num_rows]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def images_of(output):
    found = {}
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    found[member.name[:-4]] = tar.extractfile(member).read()
    return found


WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took: they differ from run to run."""


def content(output):
    """All that must repeat."""
    files = (path for path in sorted(Path(output).rglob("*")) if path.is_file() and path.name not in WHEN)
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def inodes(output):
    return {path.name: path.stat().st_ino for path in output.glob("*.tar")}


def test_every_row_is_written_or_rejected_with_its_reason(built):
    columns = columns_of(built)
    rejects = pq.read_table(built / "_rejects" / "rejects.parquet").to_pylist()
    assert {row["label_row"]: row["reason"] for row in rejects} == BROKEN
    assert {row["label_file"] for row in rejects} == {"aic-release.npz"}
    assert set(BROKEN.values()) < set(REJECT_REASONS)
    assert all(row["detail"] for row in rejects)
    written = list(zip(columns["dataset"], columns["label_row"], strict=True))
    assert written == [("aic", i) for i in range(PEOPLE) if i not in BROKEN] + [("coco", i) for i in range(4)]
    manifest = json.loads((built / "dataset.json").read_text())
    assert (manifest["rows"], manifest["samples"]) == (PEOPLE + 4, len(written))
    assert manifest["rejects"]["degenerate_box"] == 2
    assert sum(manifest["rejects"].values()) == len(BROKEN)
    assert [shard["rows"] for shard in manifest["shards"]] == [4, 4, 3, 4]
    assert len(set(columns["key"])) == len(written)
    assert columns["person"].tolist()[:2] == [0, 1]


def test_inspect_finds_nothing_wrong(built):
    from pipelines.command.hmr_skel import main as hmr_skel

    assert hmr_skel(["inspect", str(built), "--verify"]) == 0


def test_fits_are_good_or_flagged(built):
    columns = columns_of(built)
    assert np.isfinite(columns["poses"]).all()
    assert (columns["vertex_error_mm"] < 40).all()
    assert columns["converged"].mean() > 0.8
    manifest = json.loads((built / "dataset.json").read_text())
    stages = list(manifest["stage_errors"].values())
    assert stages == sorted(stages, reverse=True)


def test_crops_show_the_person_where_the_affine_says(built, inputs):
    columns, images = columns_of(built), images_of(built)
    assert list(images) == columns["key"].tolist()
    for i, key in enumerate(columns["key"]):
        crop = decode_image(images[key]).astype(int)
        assert crop.shape == (128, 128, 3)
        center = inputs.centers[columns["label_row"][i]]
        x, y = columns["crop_affine"][i] @ [*center, 1]
        assert (x, y) == pytest.approx((64, 64), abs=1e-3)
        zoom = 128 / (1.5 * 120)
        second = columns["dataset"][i] == "aic" and columns["label_row"][i] % 2
        mark = crop[..., 0 if second else 2] - crop[..., 2 if second else 0] > 80
        v, u = np.nonzero(mark)
        painted = np.round(center) - center  # whole pixels were painted
        assert np.array([u.mean(), v.mean()]) + 0.5 == pytest.approx(64 + zoom * painted, abs=0.7), key
        assert columns["image_size"][i].tolist() == [WIDTH, HEIGHT]


def test_absent_translations_are_solved_from_keypoints(built, inputs):
    columns = columns_of(built)
    coco = columns["dataset"] == "coco"
    assert (columns["trans_source"][coco] == "keypoints").all()
    assert (columns["trans_source"][~coco] == "label").all()
    assert columns["smpl_trans"][coco] == pytest.approx(inputs.trans[:4], abs=2e-3)
    points = columns["keypoints_3d"]
    seen = np.einsum("bij,bkj->bki", columns["cam_int"], points[..., :3])
    flat = seen[..., :2] / np.maximum(seen[..., 2:], 1e-3)
    sure = points[..., 3] > 0
    assert sure.any()
    assert np.abs(flat - columns["keypoints_2d"][..., :2])[sure].max() < 0.5


def test_the_same_run_gives_the_same_bytes_and_a_rerun_keeps_them(built, inputs, tmp_path):
    arguments = [*inputs.arguments, "--samples-per-shard", "4", "--crop-size", "128", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    first = content(tmp_path)
    assert first == content(built)
    before = inodes(tmp_path)
    damaged = tmp_path / "000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-700])
    (tmp_path / "000002.parquet").unlink()
    (tmp_path / "000009.tar").write_bytes(b"of an earlier, longer run")
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert content(tmp_path) == first
    after = inodes(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"000001.tar", "000002.tar"}


def test_worker_processes_give_the_same_bytes(built, inputs, tmp_path):
    """As `python -m` starts it, and with the console script's main."""
    arguments = [*inputs.arguments, "--samples-per-shard", "4", "--crop-size", "128", "--output", str(tmp_path)]
    workers = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.build_hmr_skel", *arguments, *workers],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if " pipelines." not in line]
    assert said == []  # what Beam and its workers say of themselves is not shown
    assert "people in" in done.stdout and "missing_image" in done.stdout
    assert content(tmp_path) == content(built)


def test_options_change_what_is_stored(built, inputs, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("crop: none\nrows: '0:2'\nfloat_width: 16\nquiet: true\n")
    output = tmp_path / "out"
    assert main(["--config", str(config), *inputs.arguments, "--output", str(output), "--subset", "coco"]) == 0
    columns, images = columns_of(output), images_of(output)
    assert columns["label_row"].tolist() == [0, 1]
    with tarfile.open(inputs.folder / "tars" / "coco.tar") as tar:
        originals = [tar.extractfile(f"COCO_{i}.jpg").read() for i in range(2)]
    assert list(images.values()) == originals
    assert columns["crop_size"].tolist() == [[WIDTH, HEIGHT]] * 2
    assert np.array_equal(columns["crop_affine"], np.tile(np.eye(3)[:2], (2, 1, 1)))
    assert (columns["poses"].dtype, columns["trans"].dtype) == (np.float16, np.float32)
    # the folder is taken over by another selection: nothing of the old one stays
    more = [*inputs.arguments, "--samples-per-shard", "1", "--subset", "coco", "--rows", "2:", "--quiet"]
    assert main([*more, "--output", str(output), "--overwrite"]) == 0
    assert columns_of(output)["label_row"].tolist() == [2, 3]
    options = (output / "options.yaml").read_text()
    again = tmp_path / "again"
    (tmp_path / "saved.yaml").write_text(options)
    assert main(["--config", str(tmp_path / "saved.yaml"), "--output", str(again), "--quiet"]) == 0
    assert content(again) == content(output)


def test_labels_without_images_cameras_or_names(tmp_path):
    poses = np.random.default_rng(0).normal(0, 0.1, (5, 156))
    poses[3, 0] = np.nan
    np.savez(tmp_path / "walk.npz", poses=poses, betas=np.zeros(16), trans=np.ones((5, 3)))
    output = tmp_path / "out"
    assert main(["--annotations", str(tmp_path / "walk.npz"), "--images", "none", "--output", str(output)]) == 0
    columns = columns_of(output)
    assert columns["label_row"].tolist() == [0, 1, 2, 4]
    assert (columns["trans_source"] == "label").all()
    assert np.array_equal(columns["smpl_trans"], np.ones((4, 3)))
    for name in ("cam_int", "box_size", "box_center", "keypoints_2d", "crop_size"):
        assert not columns[name].any(), name
    assert images_of(output) == {}
    assert columns["key"][0] == "walk+0000000+0"


def test_joint_limits_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "walk.npz", poses=rng.normal(0, 0.3, (12, 72)), betas=np.zeros((12, 10)))
    knees = [COORDINATE_NAMES.index(f"knee_angle_{side}") for side in "rl"]
    write_text(tmp_path / "limits.csv", "coordinate,low,high\nknee_angle_r,20,25\nknee_angle_l,,\n")
    job = [
        "--annotations",
        str(tmp_path / "walk.npz"),
        "--images",
        "none",
        "--output",
        str(tmp_path / "out"),
        "--quiet",
    ]
    job += ["--samples-per-shard", "6"]
    assert main(job) == 0
    plain = columns_of(tmp_path / "out")
    plain_degrees = np.degrees(plain["poses"][:, knees])
    assert -15 - 1e-3 <= plain_degrees.min() < 19
    facts = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert facts["joint_limits"]["knee_angle_r"] == [-15, 170] and facts["joint_limits"]["pelvis_tilt"] == [None, None]
    assert sum(facts["verdicts"].values()) == 12 and facts["verdicts"]["at_limits"] > 0
    # Another table makes other shards.
    assert main([*job, "--limits", str(tmp_path / "limits.csv"), "--overwrite"]) == 0
    right, left = np.degrees(columns_of(tmp_path / "out")["poses"][:, knees]).T
    assert right.min() >= 20 - 1e-3 and right.max() <= 25 + 1e-3 and left.min() < -15.1
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["joint_limits"]["knee_angle_r"] == [20, 25]


def complaint(arguments, capfd):
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, [line for line in capfd.readouterr().err.splitlines() if line]


def test_wrong_input_is_one_line_and_exit_code_2(inputs, tmp_path, capfd):
    out = ["--output", tmp_path / "out", "--quiet"]
    short = tmp_path / "short.npz"
    np.savez(short, imgname=np.array(["a"]), pose_cam=np.zeros((1, 72)))
    cases = {
        "no such label file": ["--annotations", tmp_path / "no*.npz", "--images", "none"],
        "--images": ["--annotations", short],
        "'shape'": ["--annotations", short, "--images", "none"],
        "no such file or folder": ["--annotations", inputs.folder / "aic-release.npz", "--images", tmp_path / "no"],
        "--crop-size": [*inputs.arguments, "--crop-size", "0"],
        "START:STOP": [*inputs.arguments, "--rows", "7"],
        "no rows": [*inputs.arguments, "--rows", "100:"],
        "skel_male.pkl": [*inputs.arguments, "--body-models", inputs.folder],
        "knee_angle_r": [
            *inputs.arguments,
            "--limits",
            write_text(tmp_path / "l.csv", "coordinate,low,high\nknee_angle_r,9,5"),
        ],
        "no such option": ["--config", write_text(tmp_path / "c.yaml", "crop_sise: 3")],
    }
    for text, arguments in cases.items():
        code, lines = complaint([*arguments, *out], capfd)
        assert (code, len(lines)) == (2, 1), (text, lines)
        assert text in lines[0] and lines[0].startswith("build_hmr_skel: error: ")
    assert main(["--annotation", "x"]) == 2
    assert "unrecognized arguments: --annotation x" in capfd.readouterr().err


def write_text(path, text):
    path.write_text(text)
    return path


def test_a_label_file_that_breaks_in_the_middle_ends_the_run_with_one_line(inputs, tmp_path, capfd):
    """Found by a worker, not by the plan: headers are whole, the poses' bytes are not."""
    import zipfile

    path = tmp_path / "aic-release.npz"
    content = dict(np.load(inputs.folder / "aic-release.npz"))
    content["pose_cam"] = np.random.default_rng(0).normal(size=(PEOPLE, 72))
    np.savez_compressed(path, **content)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("pose_cam.npy")
    damaged = bytearray(path.read_bytes())
    middle = info.header_offset + info.compress_size // 2
    damaged[middle : middle + 200] = np.random.default_rng(1).bytes(200)
    path.write_bytes(damaged)
    out = tmp_path / "out"
    code, lines = complaint(["--annotations", path, "--images", inputs.folder / "tars", "--output", out], capfd)
    lines = [line for line in lines if "people" not in line]
    assert (code, len(lines)) == (2, 1), lines
    assert str(path) in lines[0] and "pose_cam" in lines[0]
    assert not (out / "dataset.json").exists()
    assert not (out / ".progress").exists()


def test_a_run_that_writes_nobody_says_so_and_fails(inputs, tmp_path, capfd):
    """Scripts would go on to train on nothing."""
    with np.load(inputs.folder / "coco-release.npz", allow_pickle=False) as labels:
        columns = dict(labels)
    columns["pose_cam"] = np.full_like(columns["pose_cam"], np.nan)
    np.savez(tmp_path / "nan-release.npz", **columns)
    out = tmp_path / "out"
    command = ["--annotations", tmp_path / "nan-release.npz", "--images", "none", "--output", out, "--quiet"]
    assert main([str(word) for word in command]) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    rows = len(columns["pose_cam"])
    assert (
        said
        == f"build_hmr_skel: error: {out}: nobody was written, all {rows} rows are rejects (non_finite_pose {rows})"
    )
