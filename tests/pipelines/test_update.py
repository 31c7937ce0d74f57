"""A run over a finished data set: what was edited is made again and no more; what nobody asked to lose stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.build_hmr_skel import main

WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took."""


def write_labels(folder, name, rows, seed=0, **changed):
    rng = np.random.default_rng([seed, *name.encode()])
    labels = {
        "imgname": np.array([f"{i // 2}.png" for i in range(rows)]),
        "pose_cam": rng.normal(0, 0.1, (rows, 72)).astype(np.float32),
        "shape": rng.normal(0, 0.5, (rows, 10)).astype(np.float32),
    }
    np.savez(folder / f"{name}-release.npz", **labels | changed)
    return labels | changed


def job(labels, output, *more):
    words = ["--annotations", f"{labels}/*.npz", "--images", "none", "--samples-per-shard", "3", "--threads", "1"]
    return [*words, "--quiet", "--output", str(output), *map(str, more)]


def content(output):
    """All that must repeat."""
    return {path.name: path.read_bytes() for path in files_of(output) if path.name not in WHEN}


def files_of(output):
    return [path for path in sorted(output.rglob("*")) if path.is_file()]


def tars(output):
    return {path.stat().st_ino for path in output.glob("0*.tar")}


def counts(output):
    run = json.loads((output / "run.json").read_text())
    return tuple(run[f"shards_{what}"] for what in ("kept", "made", "renamed", "removed"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """aic in shards of 3, 3 and 1 rows, coco in 3 and 2."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "labels").mkdir()
    write_labels(folder / "labels", "aic", 7)
    write_labels(folder / "labels", "coco", 5)
    with contextlib.chdir(folder):
        assert main(job("labels", "out")) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments, capfd):
    capfd.readouterr()
    assert main(arguments) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if "WARNING" not in line]
    return line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rows", "0:5"], "2 of 5 finished shards would go: --rows is '0:5', was ''"),
        (["--float-width", "16"], "5 of 5 finished shards would go: --float-width is 16, was 32"),
        (["--samples-per-shard", "2"], "4 of 5 finished shards would go: --samples-per-shard is 2, was 3"),
        (["--subset", "coco"], "3 of 5 finished shards would go: --subset is ['coco'], was []"),
    ],
)
def test_other_options_do_not_take_finished_shards_away(copied, capfd, options, told):
    before = {path: path.read_bytes() for path in files_of(copied / "out")}
    line = refused(job("labels", "out", *options), capfd)
    assert told in line and "--overwrite" in line and str(copied / "out") in line
    assert before == {path: path.read_bytes() for path in files_of(copied / "out")}


def test_unless_they_are_to_go(copied, caplog):
    arguments = job("labels", "out", "--rows", "0:5")
    assert main([*arguments, "--overwrite"]) == 0
    assert "2 finished shards are replaced or go, 3 are kept, 1 are made" in caplog.text
    assert counts(copied / "out") == (3, 1, 2, 2)
    assert main(arguments) == 0  # the same options as before
    assert main(job("labels", "whole", "--rows", "0:5")) == 0
    assert content(copied / "out") == content(copied / "whole")


def test_label_files_that_are_no_longer_there_take_nothing_with_them(copied, capfd):
    """A folder that is not mounted, for instance."""
    (copied / "labels" / "coco-release.npz").unlink()
    line = refused(job("labels", "out"), capfd)
    assert "2 of 5 finished shards would go: their label file coco-release.npz is not given" in line
    assert main(job("labels", "out", "--overwrite")) == 0
    assert counts(copied / "out") == (3, 0, 0, 2)


def test_shards_of_another_version_are_not_replaced_unasked(copied, capfd):
    for path in (copied / "out").glob("0*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "1.2"}))
    line = refused(job("labels", "out"), capfd)
    assert "5 of 5 finished shards would go: another version of this program made them" in line


def test_an_edited_row_makes_its_shard_again(copied):
    rows = write_labels(copied / "labels", "aic", 7)
    rows["pose_cam"][4, 10] += 0.3
    np.savez(copied / "labels" / "aic-release.npz", **rows)
    before = tars(copied / "out")
    assert main(job("labels", "out")) == 0
    assert counts(copied / "out") == (4, 1, 0, 1)
    assert len(before & tars(copied / "out")) == 4
    assert main(job("labels", "fresh")) == 0
    assert content(copied / "out") == content(copied / "fresh")


def test_a_new_label_file_leaves_the_others_alone(copied):
    """They get other numbers, and are the files that they were; a run that dies at that goes on from there."""
    write_labels(copied / "labels", "ball", 4)
    before = tars(copied / "out")
    replace, calls = os.replace, []

    def dies(*names):
        calls.append(names)
        if len(calls) == 4:
            raise KeyboardInterrupt
        replace(*names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dies)
        assert main(job("labels", "out")) == 130
    assert not (copied / "out" / "dataset.json").exists()
    assert main(job("labels", "out")) == 0
    assert len(before & tars(copied / "out")) >= 4, "one may be lost to the kill"
    assert main(job("labels", "fresh")) == 0
    assert content(copied / "out") == content(copied / "fresh")


def test_shards_that_change_places(copied):
    """As after numbers were exchanged by hand: nothing is lost that is not made again."""
    out = copied / "out"
    for ending in ("tar", "parquet", "json"):
        for old, new in (("000000", "x"), ("000001", "000000"), ("x", "000001")):
            (out / f"{old}.{ending}").rename(out / f"{new}.{ending}")
    assert main(job("labels", out)) == 0
    assert main(job("labels", "fresh")) == 0
    assert content(out) == content(copied / "fresh")


@pytest.fixture
def pictures(tmp_path):
    """A job whose rows have images, in a folder."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    camera = [[500, 0, 32], [0, 500, 32], [0, 0, 1]]
    more = {"center": np.full((6, 2), 32.0), "scale": np.full(6, 0.2), "cam_int": np.array([camera] * 6)}
    write_labels(tmp_path / "labels", "aic", 6, gtkps=np.zeros((6, 44, 3)), **more)
    for i in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((64, 64, 3), 10 * i, np.uint8))
    arguments = job(tmp_path / "labels", tmp_path / "out", "--images", tmp_path / "images", "--crop-size", "64")
    assert main(arguments) == 0
    return tmp_path, arguments


def test_images_are_known_by_what_they_are_and_not_by_when_they_were_copied(pictures):
    folder, arguments = pictures
    before = tars(folder / "out")
    for path in (folder / "images").iterdir():
        os.utime(path, ns=(1, 1))
    assert main(arguments) == 0
    assert counts(folder / "out") == (2, 0, 0, 0) and tars(folder / "out") == before
    assert main([*arguments, "--output", str(folder / "fresh")]) == 0
    assert content(folder / "fresh") == content(folder / "out")


def test_an_image_changed_in_place_is_made_again(pictures):
    """Of the same size to the byte: the second shard has it."""
    folder, arguments = pictures
    path = folder / "images" / "2.png"
    size = path.stat().st_size
    other = Path(folder / "other.png")
    cv2.imwrite(str(other), np.full((64, 64, 3), 21, np.uint8))
    assert other.stat().st_size == size
    shutil.copyfile(other, path)
    os.utime(path, ns=(1, 1))
    assert main(arguments) == 0
    assert counts(folder / "out") == (1, 1, 0, 0)
    assert main([*arguments, "--output", str(folder / "fresh")]) == 0
    assert content(folder / "fresh") == content(folder / "out")
