"""`hmr-skel build --dry-run`: what the job would make, and nothing made."""

from __future__ import annotations

import json
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
    told = dict(row.strip("│ ").split("│") for row in capsys.readouterr().out.splitlines() if row.startswith("│"))
    told = {name.strip(): value.split()[0] for name, value in told.items()}
    assert main([*line, "--samples-per-shard", "5", "--quiet"]) == 0
    manifest = json.loads((output / "dataset.json").read_text())
    assert (told["label rows"], told["shards"]) == (str(manifest["rows"]), str(len(manifest["shards"]))) == ("20", "4")
    size = sum(path.stat().st_size for ending in ("tar", "parquet") for path in output.glob(f"0*.{ending}"))
    assert float(told["expected size"]) == pytest.approx(1e-9 * size, rel=0.05)
    assert float(told["expected time"]) > 0


def test_the_pace_is_that_of_all_workers(labels, tmp_path):
    options = BuildOptions(annotations=[str(labels / "a.npz")], images="none", device="cpu")
    two = Runner.of(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    found = forecast(job_of(options, two, tmp_path, ""), two)
    assert (found.workers, found.sample, found.sample_written, found.without_image) == (2, ROWS, ROWS, 0)
    assert found.rows_per_s == pytest.approx(2 * ROWS / found.sample_seconds)
    part = forecast(job_of(replace(options, samples_per_shard=4), two, tmp_path, ""), two, "1:")
    assert (part.shards, part.rows) == (2, 6)
    assert found.hours == pytest.approx(ROWS / found.rows_per_s / 3600)


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
