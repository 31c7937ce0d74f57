"""Parts of a data set, made by several runs, joined: to the byte what one run makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.build_hmr_skel import main
from pipelines.command.hmr_skel import guarded
from pipelines.look import inspection
from pipelines.merge_parts import main as merge_parts
from pipelines.write.shards import write_statistics

WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took."""


def merge(*words):
    return guarded(lambda: merge_parts([str(word) for word in words]), "hmr-skel")


def inspect(*words):
    return guarded(lambda: inspection.main([str(word) for word in words]), "hmr-skel")


def job(folder, output, *more):
    words = [
        "--annotations",
        f"{folder}/labels/*.npz",
        "--images",
        "none",
        "--samples-per-shard",
        "3",
        "--threads",
        "1",
    ]
    return [*words, "--quiet", "--output", str(output), *more]


def content(output):
    """All that must repeat, in the folder itself and that of the rejects."""
    files = [*output.iterdir(), *(output / "_rejects").iterdir()]
    return {path.name: path.read_bytes() for path in files if path.is_file() and path.name not in WHEN}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two label files, in shards of 3, 3, 1 and 3, 2 rows; of each one row is a reject. Made at once, and in parts."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for name, rows in (("aic", 7), ("coco", 5)):
        poses = rng.normal(0, 0.1, (rows, 72)).astype(np.float32)
        poses[1, 0] = np.nan
        labels = {"imgname": np.array([f"{i}.jpg" for i in range(rows)]), "shape": np.zeros((rows, 10), np.float32)}
        np.savez(folder / "labels" / f"{name}-release.npz", pose_cam=poses, **labels)
    assert main(job(folder, folder / "whole")) == 0
    for part in ("0:2", "2:4", "4:"):
        assert main(job(folder, folder / "out", "--shard-range", part)) == 0
    for name in ("aic", "coco"):
        assert main(job(folder, folder / name, "--subset", name)) == 0
    return folder


@pytest.fixture
def parts(made):
    return sorted((made / "out").glob("part-*"))


def refusal(capfd, *words):
    capfd.readouterr()
    assert merge(*words) == 2
    [line] = capfd.readouterr().err.splitlines()
    return line


def test_parts_are_what_the_whole_is(made, parts):
    assert [part.name for part in parts] == ["part-000000-000002", "part-000002-000004", "part-000004-end"]
    whole = content(made / "whole")
    for part in parts:
        shards = {path.name: path.read_bytes() for path in part.glob("0*")}
        assert shards and shards.items() <= whole.items()
        assert inspect(part, "--verify") == 0


def test_merged_parts_are_one_run_to_the_byte(made, parts, tmp_path, capsys):
    assert merge(*reversed(parts), "-o", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(made / "whole")
    assert "5 shards of 3 parts, 10 people" in capsys.readouterr().out
    assert inspect(tmp_path / "out", "--verify", "--against", made / "labels") == 0
    before = content(tmp_path / "out")
    assert merge(*parts, "-o", tmp_path / "out", "--quiet") == 0  # again
    assert content(tmp_path / "out") == before
    assert main([*job(made, tmp_path / "out")]) == 0  # the job goes on from there
    assert json.loads((tmp_path / "out" / "run.json").read_text())["shards_kept"] == 5
    for part in parts:
        assert inspect(part, "--verify") == 0, "parts stay as they are"


def test_parts_are_merged_into_the_folder_that_they_lie_in(made, tmp_path):
    shutil.copytree(made / "out", tmp_path / "out")
    assert merge(*(tmp_path / "out").glob("part-*"), "-o", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(made / "whole")


def test_files_are_copied_where_they_cannot_be_linked(made, parts, tmp_path, monkeypatch):
    def no_links(*names):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_links)
    assert merge(*parts, "-o", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(made / "whole")


def test_data_sets_of_other_label_files_are_numbered_through(made, tmp_path):
    assert merge(made / "coco", made / "aic", "-o", tmp_path / "out") == 0
    merged, whole = content(tmp_path / "out"), content(made / "whole")
    told = [json.loads(files.pop("dataset.json")) for files in (merged, whole)]
    for document in told:
        document.pop("options")
    assert told[0] == told[1]
    merged.pop("options.yaml"), whole.pop("options.yaml")
    assert merged == whole
    assert inspect(tmp_path / "out", "--verify", "--against", made / "labels") == 0


def test_what_cannot_be_one_data_set_is_refused(made, parts, tmp_path, capfd):
    out = ("-o", tmp_path / "out")
    assert (
        "1 of 5 shards are in no part, the first of them 000004; expected also the part of --shard-range 4:5"
        in refusal(capfd, *parts[:2], *out)
    )
    assert "shard 000000 is in" in refusal(capfd, *parts, made / "out" / ".." / "out" / parts[0].name, *out)
    assert "rows of aic-release.npz are in" in refusal(capfd, made / "aic", made / "whole", *out)
    assert "a whole data set, and" in refusal(capfd, made / "whole", parts[0], *out)
    assert "no dataset.json is here; expected a part whose run has ended" in refusal(capfd, made / "labels", *out)
    (tmp_path / "other").mkdir()
    assert main(job(made, tmp_path / "other", "--shard-range", "2:5", "--float-width", "64")) == 0
    [other] = (tmp_path / "other").iterdir()
    assert "made otherwise than" in (line := refusal(capfd, parts[0], other, *out))
    assert "--float-width is 64, not 32" in line
    shutil.copytree(made / "labels", tmp_path / "labels")
    labels = dict(np.load(tmp_path / "labels" / "coco-release.npz"))
    np.savez(tmp_path / "labels" / "coco-release.npz", **labels | {"shape": labels["shape"] + 1})
    assert main(job(tmp_path, tmp_path / "edited", "--shard-range", "2:5")) == 0
    [edited] = (tmp_path / "edited").iterdir()
    assert "coco-release.npz differs" in refusal(capfd, parts[0], edited, *out)
    assert not list((tmp_path / "out").glob("0*")) and not (tmp_path / "out" / "dataset.json").exists()


def test_damaged_parts_are_refused(made, parts, tmp_path, capfd):
    copies = [Path(shutil.copytree(part, tmp_path / part.name)) for part in parts]
    tar = copies[1] / "000002.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert "000002.tar: another checksum than 000002.json states" in refusal(capfd, *copies, "-o", tmp_path / "out")
    tar.unlink()
    assert "000002.tar: cannot be read" in refusal(capfd, *copies, "-o", tmp_path / "out")
    (copies[1] / "000002.json").unlink()
    assert "000002.json: missing, damaged" in refusal(capfd, *copies, "-o", tmp_path / "out")


def test_shards_of_something_else_are_not_overwritten(made, parts, tmp_path, capfd):
    shutil.copytree(made / "aic", tmp_path / "out")
    (tmp_path / "out" / "000009.tar").write_bytes(b"not ours")
    other = json.loads((tmp_path / "out" / "000001.json").read_text())
    assert main(job(made, tmp_path / "out", "--subset", "aic", "--float-width", "16", "--overwrite")) == 0
    assert other != json.loads((tmp_path / "out" / "000001.json").read_text())
    line = refusal(capfd, *parts, "-o", tmp_path / "out")
    assert "3 finished shards would go that are not of these parts, such as 000000" in line
    assert merge(*parts, "-o", tmp_path / "out", "--overwrite") == 0
    assert content(tmp_path / "out") == content(made / "whole")


def test_verification_over_parts_tells_what_no_part_has(made, parts, tmp_path, capsys):
    assert inspect(*parts, "--verify", "--against", made / "labels") == 0
    capsys.readouterr()
    assert inspect(*parts[:2], "--verify", "--against", made / "labels") == 1
    assert "coco-release.npz: rows 3-4 (2 rows) in no shard" in " ".join(capsys.readouterr().out.split())
    assert inspect(made / "aic", "--verify", "--against", made / "labels") == 1
    assert "no row of the label file was converted: --subset names aic" in " ".join(capsys.readouterr().out.split())
    assert inspect(made / "aic", made / "coco", "--verify", "--against", made / "labels") == 0
    assert main(job(made, tmp_path / "some", "--rows", "1:", "--every", "2")) == 0
    capsys.readouterr()
    assert inspect(tmp_path / "some", "--verify", "--against", made / "labels") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "aic-release.npz: 4 of 7 rows were not asked for (--rows 1: --every 2)" in said


def test_a_folder_of_parts_names_them(made, capfd):
    capfd.readouterr()
    assert inspect(made / "out") == 2
    assert f"expected its parts, {made / 'out'}/part-*, or what `hmr-skel merge` makes" in capfd.readouterr().err
    assert inspect(made / "out" / "part-*") == 0


def test_a_range_without_shards_is_refused(made, tmp_path, capfd):
    capfd.readouterr()
    for text, told in (("5:", "some of 0:5"), ("3:2", "from 0 on"), ("-2:", "from 0 on"), ("x", "--shard-range")):
        assert main(job(made, tmp_path, f"--shard-range={text}")) == 2
        assert told in capfd.readouterr().err.splitlines()[-1]


def test_rejects_of_all_parts_are_in_the_list(made, parts, tmp_path):
    assert merge(*parts, "-o", tmp_path / "out") == 0
    rejects = pq.read_table(tmp_path / "out" / "_rejects" / "rejects.parquet").to_pylist()
    assert [(row["label_file"], row["label_row"]) for row in rejects] == [
        ("aic-release.npz", 1),
        ("coco-release.npz", 1),
    ]


@pytest.mark.parametrize(
    "rows",
    [[], 3, [{}], [{"label_file": "a", "start": 0, "stop": 10**15, "step": 1}], [{"start": "x", "stop": 1, "step": 1}]],
)
def test_statistics_that_were_made_up_are_refused(made, parts, tmp_path, capfd, rows):
    """With a checksum that holds."""
    copies = [Path(shutil.copytree(part, tmp_path / part.name)) for part in parts]
    stats = json.loads((copies[0] / "000001.json").read_text())
    write_statistics(copies[0], "000001", stats | {"label_rows": rows})
    assert "label_rows" in refusal(capfd, *copies, "-o", tmp_path / "out")
