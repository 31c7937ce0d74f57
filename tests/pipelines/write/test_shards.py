"""Shard files: same bytes, whole or absent, readable by stock webdataset, statistics that add up."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.files.npz import npz_bytes
from pipelines.plan.planning import RowRange, ShardSpec
from pipelines.write.dataset import remove_leftovers, remove_stale_shards, withdraw_dataset, write_dataset
from pipelines.write.shards import finished_shard, write_shard
from schemas import HMR_SKEL, QUANTILE_FIELDS, REJECTS, check_schema, field_dtype, field_shape, table_to_columns

JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb\x00C\x00" + b"\x01" * 64
)  # never decoded here


def spec_of(name="000000", rows=5, hash="h"):
    return ShardSpec(name, (RowRange("a.npz", 0, rows),), [0] * rows, None, [], [], [], [], [], hash)


def columns_of(count, seed=0):
    rng = np.random.default_rng(seed)
    columns = {}
    for field in HMR_SKEL:
        shape, dtype = (count, *field_shape(field)), field_dtype(field)
        if dtype.kind == "f":
            columns[field.name] = rng.normal(size=shape).astype(np.float32)
        elif dtype.kind == "O":
            columns[field.name] = np.array([f"{field.name}-ä-{i}" for i in range(count)], object)
        else:
            columns[field.name] = rng.integers(0, 2, size=shape).astype(dtype)
    columns["key"] = np.array([f"a+long{'x' * 120}+{i}+0" for i in range(count)], object)
    for name in QUANTILE_FIELDS:
        columns[name] = np.abs(columns[name])
    return columns


REJECTED = [
    {"label_file": "a.npz", "label_row": 3, "imgname": "x.jpg", "reason": "missing_image", "detail": "not there"},
    {"label_file": "a.npz", "label_row": 4, "imgname": None, "reason": "unreadable_row", "detail": "no name"},
]


def write(directory, spec=None, count=3, width=32, rejected=REJECTED, **changed):
    columns = columns_of(count) | changed
    directory.mkdir(exist_ok=True)
    return write_shard(directory, spec or spec_of(), columns, [JPEG] * count, rejected, width, {"hmr-skel": "1"})


def content(directory):
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_the_same_samples_give_the_same_bytes(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert sorted(content(tmp_path / "one")) == ["000000.json", "000000.parquet", "000000.tar"]
    with tarfile.open(tmp_path / "one" / "000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("width", [16, 32, 64])
def test_tar_and_parquet_hold_the_same_labels(tmp_path, width):
    write(tmp_path, width=width)
    columns = columns_of(3)
    table = pq.read_table(tmp_path / "000000.parquet")
    check_schema(table.schema, HMR_SKEL, "000000.parquet")
    stored = table_to_columns(table)
    with tarfile.open(tmp_path / "000000.tar") as tar:
        names = tar.getnames()
        assert names == [f"{key}.{end}" for key in columns["key"] for end in ("jpg", "json", "npz")]
        for row, key in enumerate(columns["key"]):
            document = json.loads(tar.extractfile(f"{key}.json").read())
            arrays = np.load(io.BytesIO(tar.extractfile(f"{key}.npz").read()), allow_pickle=False)
            for field in HMR_SKEL:
                found = arrays[field.name] if field.name in arrays else document[field.name]
                assert np.array_equal(stored[field.name][row], np.asarray(found, stored[field.name].dtype)), field.name
            wide = max(width, 32) // 8
            assert (arrays["poses"].dtype.itemsize, arrays["trans"].dtype.itemsize) == (width // 8, wide)


def test_npz_is_what_numpy_reads():
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.float32(3), "c": np.zeros((0, 2), np.int32)}
    found = np.load(io.BytesIO(npz_bytes(arrays)), allow_pickle=False)
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert np.array_equal(found[name], values) and found[name].dtype == np.asarray(values).dtype


def test_stock_webdataset_reads_shards_without_this_project(tmp_path):
    import cv2

    image = cv2.imencode(".jpg", np.full((32, 48, 3), 200, np.uint8))[1].tobytes()
    columns = columns_of(4)
    write_shard(tmp_path, spec_of(rows=4), columns, [image] * 4, [], 32, {})
    script = textwrap.dedent(
        """
        import sys, json
        import webdataset
        samples = list(webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode("rgb8"))
        ours = [name for name in sys.modules if name.split(".")[0] in ("schemas", "pipelines", "fitting", "train")]
        print(json.dumps({
            "ours": ours,
            "keys": [s["__key__"] for s in samples],
            "rows": [s["json"]["label_row"] for s in samples],
            "image": samples[0]["jpg"].shape,
            "poses": [s["npz"]["poses"].tolist() for s in samples],
        }))
        """
    )
    # -I: neither this folder nor PYTHONPATH is on the path
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "000000.tar")], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ours"] == []
    assert found["keys"] == columns["key"].tolist()
    assert found["rows"] == columns["label_row"].tolist()
    assert found["image"] == [32, 48, 3]
    assert np.array_equal(np.float32(found["poses"]), columns["poses"])


def test_statistics_tell_what_was_written(tmp_path):
    stats = write(tmp_path)
    columns = columns_of(3)
    assert stats == json.loads((tmp_path / "000000.json").read_text())
    assert (stats["rows"], stats["samples"], stats["converged"]) == (5, 3, int(columns["converged"].sum()))
    assert stats["rejects"] == {"missing_image": 1, "unreadable_row": 1}
    errors = columns["vertex_error_mm"].astype(np.float64)
    assert stats["errors"]["vertex_error_mm"]["mean"] == pytest.approx(errors.mean(), rel=1e-5)
    assert stats["errors"]["vertex_error_mm"]["p50"] == pytest.approx(np.median(errors), rel=1e-5)
    assert stats["errors"]["vertex_error_mm"]["max"] == pytest.approx(errors.max(), rel=1e-5)
    assert list(stats["stage_errors"]) == ["start", "lower", "upper", "full"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises((KeyError, ValueError)):
        write(tmp_path, poses=np.zeros((3, 45)))
    assert content(tmp_path) == {}


def test_an_interrupted_rewrite_never_passes_for_finished(tmp_path, monkeypatch):
    """Whichever of the renames is the last that happens, what is there is the old shard or no finished one."""
    import os

    old, new = spec_of(hash="old"), spec_of(hash="new")
    real = os.replace
    for allowed in range(3):
        write(tmp_path, spec=old)
        done = []

        def replace_some(source, target, done=done, allowed=allowed):
            if len(done) == allowed:
                raise KeyboardInterrupt
            done.append(target)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, spec=new, betas=np.ones((3, 10), np.float32))
        monkeypatch.undo()
        assert finished_shard(tmp_path, new) is None
        assert (finished_shard(tmp_path, old) is not None) == (allowed == 0)
        assert sorted(content(tmp_path)) == ["000000.json", "000000.parquet", "000000.tar"]


@pytest.mark.parametrize("ending", ["tar", "parquet", "json"])
def test_finished_means_same_spec_and_whole_files(tmp_path, ending, caplog):
    stats = write(tmp_path)
    assert finished_shard(tmp_path, spec_of()) == stats
    assert finished_shard(tmp_path, replace(spec_of(), hash="other")) is None
    path = tmp_path / f"000000.{ending}"
    good = path.read_bytes()
    path.write_bytes(good[:-3])
    assert finished_shard(tmp_path, spec_of()) is None
    path.unlink()
    assert finished_shard(tmp_path, spec_of()) is None
    path.write_bytes(good)
    assert finished_shard(tmp_path, spec_of()) == stats


def test_a_shard_without_samples_is_a_shard(tmp_path):
    stats = write(tmp_path, count=0, spec=spec_of(rows=2))
    assert (stats["samples"], stats["errors"]["vertex_error_mm"]["mean"]) == (0, None)
    with tarfile.open(tmp_path / "000000.tar") as tar:
        assert tar.getnames() == []
    assert pq.read_table(tmp_path / "000000.parquet").num_rows == 0
    assert write_dataset(tmp_path, ["000000"], {}, {}, {}, {})["samples"] == 0


def test_the_manifest_adds_up_and_rejects_are_one_table(tmp_path):
    write(tmp_path, spec=spec_of("000000"))
    write(tmp_path, spec=spec_of("000001", rows=4), count=4, rejected=[])
    manifest = write_dataset(tmp_path, ["000001", "000000"], {"crop_size": 384}, {"x": "1"}, {"a.npz": "00"}, {})
    assert manifest == json.loads((tmp_path / "dataset.json").read_text())
    assert (manifest["rows"], manifest["samples"]) == (9, 7)
    assert [shard["shard"] for shard in manifest["shards"]] == ["000000", "000001"]
    errors = np.concatenate([columns_of(3)["joint_error_mm"], columns_of(4)["joint_error_mm"]]).astype(np.float64)
    assert manifest["errors"]["joint_error_mm"]["p95"] == pytest.approx(np.quantile(errors, 0.95), rel=1e-5)
    stages = np.concatenate([columns_of(n)["stage_vertex_error_mm"] for n in (3, 4)]).astype(np.float64)
    assert list(manifest["stage_errors"].values()) == pytest.approx(stages.mean(axis=0), rel=1e-4)
    table = pq.read_table(tmp_path / "_rejects" / "rejects.parquet")
    check_schema(table.schema, REJECTS, "rejects.parquet")
    assert table.to_pylist() == REJECTED


def test_a_new_run_withdraws_the_manifest_and_removes_what_no_plan_has(tmp_path):
    for name in ("000000", "000001", "000002"):
        write(tmp_path, spec=spec_of(name))
    write_dataset(tmp_path, ["000000", "000001", "000002"], {}, {}, {}, {})
    (tmp_path / ".000001.tar.tmp-77").write_bytes(b"half")
    (tmp_path / "notes.json").write_text("{}")
    remove_leftovers(tmp_path)
    withdraw_dataset(tmp_path)
    assert remove_stale_shards(tmp_path, ["000000", "000001"]) == 1
    kept = {f"{name}.{ending}" for name in ("000000", "000001") for ending in ("tar", "parquet", "json")}
    assert set(content(tmp_path)) == kept | {"notes.json"}
