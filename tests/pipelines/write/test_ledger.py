"""Every label row is in one shard or among the rejects; what is not is listed, row by row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.build_hmr_skel import main
from pipelines.command.hmr_skel import main as hmr_skel
from pipelines.write.dataset import write_dataset
from pipelines.write.ledger import Ledger, row_list
from schemas import InputError


def table(rows):
    return pa.table({"label_file": [name for name, _ in rows], "label_row": pa.array([r for _, r in rows], pa.int64())})


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(0, 12),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-1, 14)), max_size=25),
)
def test_against_plain_counting(start, stop, step, rows):
    planned = {"a": range(start, stop, step), "b": range(4)}
    ledger = Ledger(planned)
    ledger.add(table(rows[:7]))
    ledger.add(table(rows[7:]))
    wanted = [(name, row) for name, numbers in planned.items() for row in numbers]
    assert (ledger.problems() == []) == (sorted(rows) == sorted(wanted))
    for name in planned:
        missing = [row for n, row in wanted if n == name and (n, row) not in rows]
        told = [
            problem for problem in ledger.problems() if problem.startswith(f"{name}: ") and "in no shard" in problem
        ]
        assert told == ([f"{name}: {row_list(missing)} in no shard and not among the rejects"] if missing else [])


def test_rows_in_words():
    assert row_list([3]) == "rows 3 (1 rows)"
    assert row_list([1, 2, 3, 7, 9, 10]) == "rows 1-3, 7, 9-10 (6 rows)"
    assert row_list(range(0, 40, 2)) == "rows 0, 2, 4, 6, 8, 10, 12, 14, ... (20 rows)"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Every second row from 1 on, in shards of 3, and its label file."""
    folder = tmp_path_factory.mktemp("ledger")
    poses = np.random.default_rng(0).normal(0, 0.1, (14, 72)).astype(np.float32)
    poses[5, 0] = np.inf
    np.savez(folder / "aic.npz", pose_cam=poses, shape=np.zeros((14, 10), np.float32))
    options = ["--images", "none", "--samples-per-shard", "3", "--rows", "1:", "--every", "2", "--quiet"]
    assert main(["--annotations", str(folder / "aic.npz"), *options, "--output", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def copied(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def verdict(folder, capsys):
    code = hmr_skel(["inspect", str(folder / "out"), "--verify", "--against", str(folder / "aic.npz")])
    return code, " ".join(capsys.readouterr().out.split())


def test_a_whole_data_set_adds_up(built, capsys):
    note = f"{built / 'aic.npz'}: 7 of 14 rows were not asked for (--rows 1: --every 2)"
    assert verdict(built, capsys) == (0, f"{note} verified: 3 shards, 6 samples, nothing wrong")


def test_rows_that_are_gone_or_twice_are_listed(copied, capsys):
    out = copied / "out"
    for ending in ("tar", "parquet", "json"):
        (out / f"000001.{ending}").unlink()  # rows 7, 9, 11
        shutil.copy(out / f"000000.{ending}", out / f"000002.{ending}")  # rows 1, 3; was 13
    code, text = verdict(copied, capsys)
    assert code == 1
    assert "aic.npz: rows 7, 9, 11, 13 (4 rows) in no shard and not among the rejects" in text
    assert "aic.npz: rows 1, 3 (2 rows) there more than once" in text


def test_a_reject_that_is_gone_is_missed(copied, capsys):
    path = copied / "out" / "_rejects" / "rejects.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    code, text = verdict(copied, capsys)
    assert code == 1 and "aic.npz: rows 5 (1 rows) in no shard" in text


def test_other_labels_are_noticed(copied, capsys):
    arrays = dict(np.load(copied / "aic.npz"))
    np.savez(copied / "aic.npz", **{name: np.concatenate([a, a[:2]]) for name, a in arrays.items()})
    code, text = verdict(copied, capsys)
    assert code == 1
    assert "has other content than when the data set was made" in text
    assert "aic.npz: rows 15 (1 rows) in no shard" in text


def test_a_run_whose_rows_do_not_add_up_writes_no_manifest(copied):
    out = copied / "out"
    (out / "dataset.json").unlink()
    names = ["000000", "000001", "000002"]
    with pytest.raises(InputError, match="rows 0, 2, 4"):
        write_dataset(out, names, {}, {}, {}, {}, {"aic.npz": range(14)})
    with pytest.raises(InputError, match="more than once"):
        write_dataset(out, [*names, "000001"], {}, {}, {}, {}, {"aic.npz": range(1, 14, 2)})
    assert not (out / "dataset.json").exists() and not (out / "_rejects" / "rejects.parquet").exists()
    manifest = write_dataset(out, names, {}, {}, {}, {}, {"aic.npz": range(1, 14, 2)})
    assert manifest["dataset_errors"]["aic.npz"]["samples"] == manifest["samples"] == 6
