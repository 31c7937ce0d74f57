"""The job on a file system that is none of this machine's: same bytes, same resume, same words for what is wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
import tarfile
from pathlib import Path

import cv2
import memory_files
import numpy as np
import official_files
import pytest
import s3_bucket
from memory_files import file_of

from pipelines.build_hmr_skel import main
from pipelines.command.hmr_skel import main as hmr_skel
from pipelines.files.lock import OutputTaken, check_still_ours, output_lock
from pipelines.files.storage import file_sha256, find, place, published
from pipelines.files.urls import UrlPath

PEOPLE = 9


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Where the file system's files lie."""
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("MEMTEST_FILES", str(tmp_path / "remote"))
    memory_files.read.clear()
    return tmp_path / "remote"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Labels, the images that they name in a tar and in a folder; one image is missing, one pose cannot be used."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    images = {}
    for i in range(PEOPLE // 2):
        pixels = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        images[f"aic-train/{i}.jpg"] = cv2.imencode(".jpg", pixels)[1].tobytes()
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "0.tar", "w") as tar:
        for name, data in {"big.bin": bytes(3_000_000), **images}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name, data in images.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(data)
    poses = rng.normal(0, 0.1, (PEOPLE, 72)).astype(np.float32)
    poses[3, 0] = np.nan
    labels = {
        "imgname": np.array([f"aic-train/{i // 2}.jpg" for i in range(PEOPLE)]),
        "center": np.full((PEOPLE, 2), 60.0),
        "scale": np.full(PEOPLE, 0.4),
        "pose_cam": poses,
        "shape": rng.normal(0, 0.5, (PEOPLE, 10)).astype(np.float32),
        "cam_int": np.tile(np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]), (PEOPLE, 1, 1)),
        "gtkps": rng.uniform(0, 120, (PEOPLE, 44, 3)),
        "trans_cam": np.tile([0.0, 0, 4], (PEOPLE, 1)),
    }
    np.savez(folder / "aic-release.npz", **labels)
    return folder


def upload(folder, url):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            file_of(f"{url}/{path.relative_to(folder)}").write_bytes(path.read_bytes())


def arguments_of(where, output, *more, images="tars"):
    always = ["--samples-per-shard", "4", "--crop-size", "64", "--threads", "1", "--quiet"]
    return ["--annotations", f"{where}/*.npz", "--images", f"{where}/{images}", "--output", str(output), *always, *more]


def local_content(output):
    files = (path for path in sorted(output.rglob("*")) if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def repeatable(content):
    """All that must repeat; run.json and report tell of one run, options and specs where inputs lie, and since when."""
    found = {name: data for name, data in content.items() if name not in ("run.json", "options.yaml", "report.html")}
    documents = {name: json.loads(found.pop(name)) for name in sorted(found) if name.endswith(".json")}
    manifest = documents["dataset.json"]
    manifest["options"] = {k: v for k, v in manifest["options"].items() if k not in ("annotations", "images")}
    for document in (*documents.values(), *manifest["shards"]):
        document.pop("images_modified", None)
        document.pop("document_sha256", None)
    return found | documents


@pytest.fixture(scope="module")
def local(inputs, tmp_path_factory):
    """What the same job writes on this machine."""
    output = tmp_path_factory.mktemp("local")
    assert main(arguments_of(inputs, output)) == 0
    content = local_content(output)
    assert json.loads(content["dataset.json"])["samples"] == PEOPLE - 2
    return content


def test_everything_behind_a_url(inputs, local, remote, capfd, tmp_path):
    """Labels, tars and output; then what is lost is made again; then every row is accounted for."""
    upload(inputs, "memtest://in")
    assert main(arguments_of("memtest://in", "memtest://out/set")) == 0
    assert repeatable(memory_files.content("memtest://out/set")) == repeatable(local)
    images = sum(path.stat().st_size for path in (inputs / "images").rglob("*.jpg"))
    file_of("memtest://out/set/000001.parquet").write_bytes(b"damaged")
    file_of("memtest://out/set/000009.tar").write_bytes(b"of an earlier, longer run")
    file_of("memtest://out/set/.000001.tar.tmp-1").write_bytes(b"of a run that was killed")
    before = file_of("memtest://out/set/000000.tar").stat().st_ino
    assert main(arguments_of("memtest://in", "memtest://out/set")) == 0
    assert repeatable(memory_files.content("memtest://out/set")) == repeatable(local)
    assert file_of("memtest://out/set/000000.tar").stat().st_ino == before
    assert images > 0
    labels = "memtest://in/aic-release.npz"
    assert hmr_skel(["inspect", "memtest://out/set", "--verify", "--against", labels]) == 0
    capfd.readouterr()
    assert hmr_skel(["inspect", "memtest://out/set", "--report", str(tmp_path / "report.html")]) == 0
    capfd.readouterr()
    assert hmr_skel(["inspect", "memtest://out/set", "--json"]) == 0
    there = json.loads(capfd.readouterr().out)
    for name, content in local.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert hmr_skel(["inspect", str(tmp_path), "--json"]) == 0
    assert there == json.loads(capfd.readouterr().out) and sum(there["rejects"].values()) == 2
    file_of("memtest://out/set/000002.tar").write_bytes(b"damaged")
    assert hmr_skel(["inspect", "memtest://out/set", "--verify"]) == 1
    assert "memtest://out/set/000002" in capfd.readouterr().out


def test_a_bucket_of_s3(inputs, local, capfd):
    """The whole job there, and what is lost made again."""
    with s3_bucket.s3_bucket() as bucket:
        s3_bucket.upload(inputs, f"{bucket}/in")
        for damage in (False, True):
            if damage:
                UrlPath(f"{bucket}/out/000001.parquet").write_text("damaged")
            assert main(arguments_of(f"{bucket}/in", f"{bucket}/out")) == 0
            assert repeatable(s3_bucket.content(f"{bucket}/out")) == repeatable(local)
        assert hmr_skel(["inspect", f"{bucket}/out", "--verify", "--against", f"{bucket}/in/aic-release.npz"]) == 0
        assert main(arguments_of(f"{bucket}/none", f"{bucket}/other")) == 2
        assert f"{bucket}/none" in capfd.readouterr().err


def test_parts_behind_urls_are_merged_and_numbers_change_there(inputs, remote, tmp_path):
    """A part each in a folder of the output; then a label file comes before the others, and shards are renamed."""
    upload(inputs, "memtest://in")
    assert main(arguments_of(inputs, tmp_path / "whole")) == 0
    for part in (":2", "2:"):
        assert main(arguments_of("memtest://in", "memtest://out/set", "--shard-range", part)) == 0
    parts = ["memtest://out/set/part-000000-000002", "memtest://out/set/part-000002-end"]
    assert hmr_skel(["merge", *parts, "-o", "memtest://out/merged"]) == 0
    whole = repeatable(local_content(tmp_path / "whole"))
    assert repeatable(memory_files.content("memtest://out/merged")) == whole
    assert hmr_skel(["inspect", *parts, "--verify", "--against", "memtest://in/aic-release.npz"]) == 0
    more = shutil.copytree(inputs, tmp_path / "more")
    shutil.copyfile(more / "aic-release.npz", more / "aaa-release.npz")
    upload(more, "memtest://in")
    assert main(arguments_of("memtest://in", "memtest://out/merged")) == 0
    run = json.loads(file_of("memtest://out/merged/run.json").read_text())
    assert [run[f"shards_{what}"] for what in ("kept", "made", "renamed", "removed")] == [3, 3, 3, 0]
    assert main(arguments_of(tmp_path / "more", tmp_path / "fresh")) == 0
    assert repeatable(memory_files.content("memtest://out/merged")) == repeatable(local_content(tmp_path / "fresh"))


def test_images_in_a_folder_behind_a_url(inputs, remote, tmp_path):
    upload(inputs, "memtest://in")
    assert main(arguments_of("memtest://in", tmp_path / "mixed", images="images")) == 0
    assert main(arguments_of(inputs, tmp_path / "local", images="images")) == 0
    assert repeatable(local_content(tmp_path / "mixed")) == repeatable(local_content(tmp_path / "local"))


def test_worker_processes_see_the_same_files(inputs, local, remote, monkeypatch):
    """They find the file system's class by its name."""
    upload(inputs, "memtest://in")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    workers += ["--beam_plugins", "memory_files"]
    assert main(arguments_of("memtest://in", "memtest://out", *workers)) == 0
    assert repeatable(memory_files.content("memtest://out")) == repeatable(local)


def test_body_models_behind_a_url(inputs, remote, tmp_path, random_models, capfd):
    models = official_files.write_model_directory(tmp_path / "official", *random_models)
    upload(models, "memtest://models")
    base = ["--annotations", str(inputs / "*.npz"), "--images", "none", "--rows", "0:2", "--quiet"]
    for number, where in enumerate([models, "memtest://models/"]):
        assert main([*base, "--body-models", str(where), "--output", str(tmp_path / str(number))]) == 0
    hashes = [json.loads((tmp_path / str(n) / "dataset.json").read_text())["inputs"] for n in range(2)]
    assert hashes[0] == hashes[1]
    capfd.readouterr()
    assert main([*base, "--body-models", "memtest://nothing", "--output", str(tmp_path / "3")]) == 2
    assert "memtest://nothing" in capfd.readouterr().err


def test_a_range_is_read_and_not_the_file(remote):
    data = np.random.default_rng(0).bytes(20_000_000)
    file_of("memtest://x/big.tar").write_bytes(data)
    path = UrlPath("memtest://x/big.tar")
    assert path.read_range(10_000_000, 5000) == data[10_000_000:10_005_000]
    assert path.read_range(19_999_000, 5000) == data[-1000:]
    assert memory_files.read["memtest://x/big.tar"] == 6000
    assert memory_files.requests["memtest://x/big.tar"] == 2


def test_rows_of_a_label_file_are_read_by_range(remote, tmp_path):
    from pipelines.read.labels import open_labels

    np.savez(tmp_path / "x.npz", pose_cam=np.random.default_rng(0).normal(size=(20_000, 72)), shape=np.zeros(10))
    upload(tmp_path, "memtest://in")
    labels = open_labels("memtest://in/x.npz")
    assert labels.rows == 20_000 and labels.dataset == "x"
    memory_files.read.clear()
    assert np.array_equal(
        labels.read(10_000, 10_004)["pose_cam"], open_labels(tmp_path / "x.npz").read(10_000, 10_004)["pose_cam"]
    )
    assert memory_files.read["memtest://in/x.npz"] == (4 * 72 + 10) * 8  # betas are one row for the file


def test_nothing_appears_under_its_name_before_it_is_whole(remote):
    path = UrlPath("memtest://x/a.json")
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), published(path) as file:
        file.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with published(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert memory_files.content("memtest://x") == {"a.json": b"new"}


def test_the_last_run_has_the_folder(remote, caplog):
    folder = UrlPath("memtest://x/out")
    with output_lock(folder) as old:
        check_still_ours(folder, old)
        with caplog.at_level(logging.WARNING), output_lock(folder) as new:
            assert "taken over from process" in caplog.text
            check_still_ours(folder, new)
            with pytest.raises(OutputTaken, match="memtest://x/out"):
                check_still_ours(folder, old)
        # the old run's end must not take the new one's lock away, nor the other way round
    assert memory_files.content("memtest://x") == {}


def test_urls_have_the_words_of_paths(remote):
    for url in ("memtest://b/a/000001.tar", "memtest://b/a/one.two.npz"):
        path, twin = UrlPath(url), place("/" + url.partition("://")[2])
        assert (path.name, path.suffix, path.parent.name) == (twin.name, twin.suffix, twin.parent.name)
        assert path.with_suffix("").name == twin.with_suffix("").name
        assert str(path.with_name("x") / "y") == "memtest://b/a/x/y"
        path.write_text("ü")
        assert path.read_text() == "ü" and path.stat().st_size == 2 and path.is_file() and not path.is_dir()
    assert find("memtest://b/a/*.tar") == ["memtest://b/a/000001.tar"]
    assert find("memtest://b/a/one.two.npz") and not find("memtest://b/none")
    assert UrlPath("memtest://b/").is_dir() and not UrlPath("memtest://c").is_dir()
    assert file_sha256("memtest://b/a/000001.tar") == file_sha256(file_of("memtest://b/a/000001.tar"))
    UrlPath("memtest://b/a/000001.tar").unlink()
    UrlPath("memtest://b/a/000001.tar").unlink(missing_ok=True)
    with pytest.raises(OSError, match="no such file"):
        UrlPath("memtest://b/a/000001.tar").unlink()


def complaint(capfd, *arguments):
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    [line] = [line for line in capfd.readouterr().err.splitlines() if line]
    return code, line


def test_what_is_wrong_names_the_url(inputs, remote, tmp_path, capfd, monkeypatch):
    upload(inputs, "memtest://in")
    out = ["--output", tmp_path / "out", "--quiet"]
    labels = ["--annotations", inputs / "*.npz"]
    for where, *arguments in (
        ("memtest://in/none*.npz", "--annotations", "memtest://in/none*.npz", "--images", "none"),
        ("memtest://nowhere", *labels, "--images", "memtest://nowhere"),
        ("strange://x", *labels, "--images", "strange://x"),
        ("strange://x", *labels, "--images", "none", "--output", "strange://x"),
    ):
        code, line = complaint(capfd, *out, *arguments)
        assert code == 2 and where in line, line
    for scheme, module, package in (("s3", "s3fs", "s3fs"), ("gs", "gcsfs", "gcsfs"), ("abfs", "adlfs", "adlfs")):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
        code, line = complaint(capfd, *out, "--annotations", f"{scheme}://bucket/*.npz", "--images", "none")
        assert code == 2 and f"{scheme}://bucket" in line and package in line, line


def test_a_file_system_that_refuses_to_write_is_one_line(inputs, remote, capfd, monkeypatch):
    def refuse(self, *arguments, **rest):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(memory_files.MemoryFiles, "put_file", refuse)
    code, line = complaint(capfd, *arguments_of(inputs, "memtest://out"))
    assert code == 2 and "memtest://out" in line and "Permission denied" in line
