"""`hmr-skel build --dry-run`: what the job would make, and nothing made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.build_hmr_skel import main
from pipelines.command.build_options import BuildOptions
from pipelines.command.runner import Runner
from pipelines.convert.dry_run import SAMPLE_ON_CPU, first_rows, forecast
from pipelines.convert.job import job_of
from pipelines.plan.planning import RowRange, ShardSpec

ROWS = 10


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    for name in ("a", "b"):
        poses = rng.normal(0, 0.15, (ROWS, 72)).astype(np.float32)
        names = np.array([f"{i}.jpg" for i in range(ROWS)])
        boxes = {
            "center": np.full((ROWS, 2), 100.0),
            "scale": np.ones(ROWS),
            "cam_int": np.tile(np.eye(3), (ROWS, 1, 1)),
        }
        keypoints = np.zeros((ROWS, 44, 3))
        shape = rng.normal(0, 0.5, (ROWS, 10))
        np.savez(folder / f"{name}.npz", imgname=names, pose_cam=poses, shape=shape, gtkps=keypoints, **boxes)
    return folder


def test_it_tells_what_the_job_then_makes(labels, tmp_path, capsys):
    output = tmp_path / "out"
    line = ["--annotations", str(labels / "*.npz"), "--images", "none", "--output", str(output), "--device", "cpu"]
    before = sorted(tmp_path.rglob("*"))
    assert main([*line, "--samples-per-shard", "5", "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    found = {name: value.split()[0] for name, value in told(capsys).items()}
    assert main([*line, "--samples-per-shard", "5", "--quiet"]) == 0
    manifest = json.loads((output / "dataset.json").read_text())
    there = (str(manifest["rows"]), str(len(manifest["shards"])))
    assert (found["label rows"], found["shards"]) == there == ("20", "4")
    size = sum(path.stat().st_size for ending in ("tar", "parquet") for path in output.glob(f"0*.{ending}"))
    assert float(found["expected size"]) == pytest.approx(1e-9 * size, rel=0.05)
    assert float(found["expected time"]) > 0


def told(capsys) -> dict[str, str]:
    rows = (row.strip("│ ").split("│") for row in capsys.readouterr().out.splitlines() if row.startswith("│"))
    return {name.strip(): value.strip() for name, value in rows}


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fate(output: Path) -> str:
    """What the run says that it did, in the forecast's words."""
    run = json.loads((output / "run.json").read_text())
    return ", ".join(f"{run[f'shards_{what}']} {what}" for what in ("kept", "made", "renamed", "removed"))


def test_over_a_finished_data_set_it_tells_what_becomes_of_it(labels, tmp_path, capsys):
    """Nothing new, then a label file before the others, then an edited row: each time what the run then does."""
    shutil.copytree(labels, tmp_path / "labels")
    line = ["--annotations", str(tmp_path / "labels" / "*.npz"), "--images", "none", "--device", "cpu"]
    line += ["--samples-per-shard", "5", "--output", str(tmp_path / "out")]
    assert main([*line, "--quiet"]) == 0

    def forecast_and_run(expected: str, rows: int) -> dict[str, str]:
        before = files_of(tmp_path)
        capsys.readouterr()
        assert main([*line, "--dry-run"]) == 0
        found = told(capsys)
        assert files_of(tmp_path) == before
        assert (found["of these and of earlier ones"], found["rows to be made"]) == (expected, str(rows))
        assert main([*line, "--quiet"]) == 0
        assert fate(tmp_path / "out") == expected
        return found

    found = forecast_and_run("4 kept, 0 made, 0 renamed, 0 removed", 0)
    assert found["expected time"] == "0 hours" and "measured on" not in found
    with np.load(labels / "a.npz") as rows:
        np.savez(tmp_path / "labels" / "_.npz", **{name: rows[name][:3] for name in rows})
        edited = {name: rows[name].copy() for name in rows}
    found = forecast_and_run("4 kept, 1 made, 4 renamed, 0 removed", 3)
    assert found["label rows"] == "23" and float(found["expected time"].split()[0]) > 0
    edited["pose_cam"][7, 10] += 0.3
    np.savez(tmp_path / "labels" / "a.npz", **edited)
    assert forecast_and_run("4 kept, 1 made, 0 renamed, 1 removed", 5)["shards that go"] == "000002"


def test_what_the_run_would_refuse_is_told_and_refused(labels, tmp_path, capsys):
    line = ["--annotations", str(labels / "*.npz"), "--images", "none", "--device", "cpu"]
    line += ["--output", str(tmp_path / "out")]
    assert main([*line, "--samples-per-shard", "5", "--quiet"]) == 0
    before = files_of(tmp_path)
    other = [*line, "--samples-per-shard", "10"]
    lines = []
    for more in (["--dry-run"], []):
        capsys.readouterr()
        assert main([*other, *more]) == 2
        captured = capsys.readouterr()
        lines.append(captured.err.splitlines()[-1])
        assert ("0 kept, 2 made, 0 renamed, 4 removed" in captured.out) is bool(more)
    assert lines[0] == lines[1] and "4 of 4 finished shards would go: --samples-per-shard is 10, was 5" in lines[0]
    assert main([*other, "--dry-run", "--overwrite"]) == 0
    assert told(capsys)["shards that go"] == "000000, 000001, 000002, 000003"
    assert files_of(tmp_path) == before
    assert main([*other, "--overwrite", "--quiet"]) == 0
    assert fate(tmp_path / "out") == "0 kept, 2 made, 0 renamed, 4 removed"


def test_the_pace_is_that_of_all_workers(labels, tmp_path):
    options = BuildOptions(annotations=[str(labels / "a.npz")], images="none", device="cpu")
    two = Runner.of(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    found = forecast(job_of(options, two, tmp_path, ""), two, tmp_path)
    sample = found.sample
    assert (sample.workers, sample.rows, sample.written, found.without_image) == (2, ROWS, ROWS, {"000000": 0})
    assert sample.rows_per_s == pytest.approx(2 * ROWS / sample.seconds)
    part = forecast(job_of(replace(options, samples_per_shard=4), two, tmp_path, ""), two, tmp_path, "1:")
    assert (len(part.decision.planned), part.rows, part.rows_to_make) == (2, 6, 6)
    assert found.hours == pytest.approx(ROWS / sample.rows_per_s / 3600)


def test_what_is_wrong_with_the_input_is_told_as_by_the_job(labels, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    line = ["--annotations", str(labels / "a.npz"), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*line, "--images", str(tmp_path / "images")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("build_hmr_skel: error: ") and f"not one of {ROWS} rows has its image" in error
    assert main(["--dry-run", "--output", str(tmp_path / "out")]) == 2
    assert "field '--annotations': missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_first_rows_of_a_shard_are_a_shard():
    persons = list(range(7))
    rows = (RowRange("a.npz", 0, 9, 3), RowRange("b.npz", 5, 9))
    spec = ShardSpec("000000", rows, persons, "images", ["x"], [0] * 7, persons, persons, ["m"] * 7, "hash")
    for count in (1, 3, 5, 7, SAMPLE_ON_CPU):
        first = first_rows(spec, count)
        numbers = [(part.label_file, row) for part in first.rows for row in range(part.start, part.stop, part.step)]
        everybody = [(part.label_file, row) for part in rows for row in range(part.start, part.stop, part.step)]
        assert numbers == everybody[:count]
        assert len(first) == len(first.persons) == len(first.offset) == min(count, 7)
