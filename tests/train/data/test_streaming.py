"""Streaming of shards: who comes when, after interruptions too, and what is said about damaged shards."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import written_shards
from written_shards import label_columns, write_manifest, write_shard

from schemas import HMR_SKEL, InputError
from train.data.augmentation_config import AugmentationConfig
from train.data.batch import as_batch
from train.data.config import DataConfig
from train.data.loader import PeopleStream, stream
from train.data.order import Cut, Order, parse_weights
from train.data.people import People
from train.data.shards import LABELS, SOURCE, OpenShard, training_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four shards with 7, 5, 6 and 4 people of two data sets; three people did not converge."""
    folder, first, stats = tmp_path_factory.mktemp("shards"), 0, []
    for number, (count, dataset) in enumerate([(7, "aic"), (5, "aic"), (6, "coco"), (4, "coco")]):
        columns = label_columns(count, seed=number, dataset=dataset, first_row=first)
        columns["converged"][:] = True
        columns["converged"][:1] = number == 0
        columns["vertex_error_mm"][:] = 5
        stats.append(write_shard(folder, f"{number:06d}", columns))
        first += 10
    write_manifest(folder, stats)
    return folder


def make(folder, batch=4, **settings) -> PeopleStream:
    data = {key: settings.pop(key) for key in list(settings) if key in DataConfig.__dataclass_fields__}
    return PeopleStream(DataConfig(shards=[str(folder)], **data), batch, **settings)


def keys(people: PeopleStream, **where) -> list[str]:
    return [key for _, values in stream(people, **where) for key in as_batch(values).keys]


# ---------------------------------------------------------------------------------------------------------- order


def everybody(counts=(50, 30, 20, 40, 60), dataset=(0, 0, 1, 1, 1)) -> People:
    shard = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([np.arange(n) for n in counts])
    return People(shard, place, np.repeat(dataset, counts), ("a", "b"))


@pytest.mark.parametrize("ranks, parts", [(1, 1), (3, 1), (2, 2), (4, 3)])
def test_everybody_comes_once_per_epoch_with_equal_steps_on_all_ranks(ranks, parts):
    people = everybody()
    cut = Cut(len(people), 4, ranks, parts)
    order = Order(people).epoch(3)
    for rank in range(ranks):
        assert all(
            cut.piece(s, p, rank)[1] - cut.piece(s, p, rank)[0] <= 4 for s in range(cut.steps) for p in range(parts)
        )
    seen = [
        order[at]
        for step in range(cut.steps)
        for part in range(parts)
        for rank in range(ranks)
        for at in range(*cut.piece(step, part, rank))
    ]
    assert sorted(seen) == list(range(len(people)))
    assert len(seen) == len(order)


def test_ranks_and_parts_share_the_same_steps():
    """Step by step, the same people as one process with the same global batch has."""
    one, many = Cut(103, 12), Cut(103, 2, ranks=3, parts=2)
    assert one.steps == many.steps
    for step in range(one.steps):
        pieces = sorted(many.piece(step, part, rank) for part in range(2) for rank in range(3))
        assert [at for piece in pieces for at in range(*piece)] == list(range(*one.piece(step)))


def test_epochs_differ_and_repeat_with_the_seed():
    people = everybody()
    first, second = (Order(people, seed=5).epoch(e) for e in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, Order(people, seed=5).epoch(0))
    assert not np.array_equal(first, Order(people, seed=6).epoch(0))
    assert np.array_equal(Order(people, shuffle=False).epoch(7)[:10], np.arange(10))


def test_few_shards_are_in_use_at_a_time():
    counts = (50,) * 40
    order = Order(everybody(counts, (0,) * 40), window=4).epoch(0)
    shard = everybody(counts, (0,) * 40).shard[order]
    assert all(len(np.unique(shard[at : at + 200])) <= 8 for at in range(0, 2000, 25))
    assert len(np.unique(shard[:200])) == 4
    assert (np.abs(np.diff(order)) == 1).mean() < 0.05


def test_weights_set_the_shares_and_all_people_of_a_data_set_are_seen_equally_often():
    people = everybody()
    order = Order(people, weights={"a": 3, "b": 1})
    epochs = [order.epoch(e) for e in range(8)]
    for drawn in epochs:
        assert len(drawn) == 200
        assert np.bincount(people.dataset[drawn]).tolist() == [150, 50]
    times = np.bincount(np.concatenate(epochs), minlength=200)
    assert set(times[:80]) == {15}  # 8 x 150 / 80
    assert set(times[80:]) <= {3, 4}  # 8 x 50 / 120 = 3.3
    # Data sets alternate throughout.
    assert abs((people.dataset[epochs[0][:100]] == 0).mean() - 0.75) < 0.15


def test_weights_are_checked():
    assert parse_weights(["aic=2", "coco=0.5"]) == {"aic": 2.0, "coco": 0.5}
    for text in ("aic", "aic=x", "=1"):
        with pytest.raises(InputError, match="DATASET=NUMBER"):
            parse_weights([text])
    with pytest.raises(InputError, match=r"no data set 'c'.*a, b"):
        Order(everybody(), weights={"c": 1.0})


# --------------------------------------------------------------------------------------------------------- batches


def test_an_epoch_from_shards(folder):
    people = make(folder)
    drawn = keys(people)
    assert len(drawn) == len(set(drawn)) == 19  # 22, of whom 3 did not converge
    assert drawn != keys(people, epoch=1, epochs=2)
    assert sorted(drawn) == sorted(keys(people, epoch=1, epochs=2))


def test_batches_hold_the_labels(folder):
    people = make(folder, shuffle=False, unconverged=True)
    (_, values), *_ = stream(people)
    batch = as_batch(values)
    columns = label_columns(7, seed=0)
    assert batch.keys == list(columns["key"][:4])
    assert batch.image.shape == (4, 256, 256, 3) and batch.image.dtype == torch.uint8
    np.testing.assert_array_equal(batch.targets.poses, columns["poses"][:4])
    np.testing.assert_array_equal(batch.targets.keypoints_3d, columns["keypoints_3d"][:4])
    np.testing.assert_allclose(batch.targets.framing.box, columns["box_size"][:4])
    expected = (columns["keypoints_2d"][:4, :, :2] - columns["box_center"][:4, None]) / columns["box_size"][
        :4, None, None
    ]
    np.testing.assert_allclose(batch.targets.keypoints_2d[..., :2], expected, atol=1e-5)
    assert (batch.share, batch.people) == (1.0, 4)


def test_a_rank_without_people_in_the_last_step_has_a_stand_in_that_does_not_count(folder):
    shares = []
    for rank in range(2):
        people = make(folder, batch=3, ranks=2, rank=rank)  # 19 = 3 x 6 + 1
        assert people.cut.steps == 4
        batches = [as_batch(values) for _, values in stream(people)]
        assert len(batches) == 4 and all(len(batch.keys) for batch in batches)
        shares.append([batch.share for batch in batches])
    assert shares == [[0.5, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 1.0]]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_resuming_in_mid_epoch_gives_what_would_have_come_whatever_the_workers(folder, workers):
    augmentation = AugmentationConfig(photometric=0.5, extreme_crop=0.5)
    whole = list(stream(make(folder, augmentation=augmentation), epochs=2))
    rest = list(stream(make(folder, augmentation=augmentation), epoch=0, step=3, epochs=2, workers=workers))
    assert [place for place, _ in rest] == [place for place, _ in whole[3:]]
    for (_, was), (_, now) in zip(whole[3:], rest, strict=True):
        assert was["keys"] == now["keys"]
        assert torch.equal(was["image"], now["image"])
        np.testing.assert_array_equal(was["keypoints_2d"], now["keypoints_2d"])


def test_streams_can_be_sent_to_processes_that_start_anew(folder):
    people = make(folder)
    first = people.read(0, 0)
    again = pickle.loads(pickle.dumps(people)).read(0, 0)
    assert again["key"] == first["key"] and np.array_equal(again["image"], first["image"])


@pytest.mark.parametrize("end, stuck", [("", False), ("batches.close()", False), ("del batches", False), ("", True)])
def test_a_process_ends_though_batches_are_left(folder, end, stuck):
    """Its workers outlive the SIGTERM with which Python ends them, and may be in the midst of a long download."""
    script = f"""
import time
from train.data.config import DataConfig
from train.data.loader import PeopleStream, stream
class Slow(PeopleStream):
    def read(self, epoch, position):
        time.sleep(1000 if {stuck} and position > 7 else 0)
        return super().read(epoch, position)
batches = stream(Slow(DataConfig(shards=[{str(folder)!r}]), 4), epochs=100, workers=1)
next(batches)
{end}
"""
    run = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(run, cwd=Path(__file__).parents[3], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_filters(folder):
    assert len(make(folder, unconverged=True).people) == 22
    with pytest.raises(InputError, match="19 error"):
        make(folder, max_vertex_error_mm=4.0)
    assert len(make(folder, limit=6).people) == 6
    with pytest.raises(InputError, match="19 verdict"):
        make(folder, verdicts=["far"])
    with pytest.raises(InputError, match=r"'--label-checks': consistant given; expected some of unchecked, consistent"):
        make(folder, label_checks=["consistant"])
    parts = {part: set(keys(make(folder, part=part, held_out=0.4))) for part in ("training", "held-out")}
    assert not parts["training"] & parts["held-out"]
    assert parts["training"] | parts["held-out"] == set(keys(make(folder)))
    images = {part: {key.rsplit("-", 1)[0] for key in found} for part, found in parts.items()}
    assert not images["training"] & images["held-out"]


def test_labels_that_contradict_themselves_are_left_out_and_counted(tmp_path, caplog):
    columns = label_columns(6)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 1
    columns["reprojection_error"][:] = [-1, 0.05, 0.2, 0.4, 0.6, np.inf]
    columns["label_check"][:] = ["unchecked", "consistent", "cam_ext_added", *["off_keypoints"] * 3]
    write_shard(tmp_path / "now", "000000", columns)
    with caplog.at_level(logging.INFO):
        assert sorted(keys(make(tmp_path / "now"))) == sorted(columns["key"][:4])
    assert "4 of 6 people" in caplog.text and "2 reprojection" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        found = make(tmp_path / "now", label_checks=["consistent", "unchecked"], max_reprojection_error=1e9)
    assert sorted(keys(found)) == sorted(columns["key"][:2]) and "4 label check" in caplog.text
    assert len(make(tmp_path / "now", max_reprojection_error=np.inf).people) == 6
    write_shard(tmp_path / "now", "000000", columns)
    older = pq.read_table(tmp_path / "now" / "000000.parquet").drop(["label_check", "reprojection_error"])
    pq.write_table(older, tmp_path / "now" / "000000.parquet")
    (tmp_path / "now" / "000000.json").unlink()
    assert len(make(tmp_path / "now", label_checks=["consistent"]).people) == 6


def test_half_width_labels_and_long_names_are_read(tmp_path):
    columns = label_columns(3, bits=16)
    columns["key"] = np.array([f"{'k' * 150}-{n}" for n in range(3)], object)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 1
    write_shard(tmp_path, "000000", columns, bits=16)
    people = make(tmp_path)
    assert sorted(keys(people)) == sorted(columns["key"])
    assert people.read(0, 0)["poses"].dtype == np.float32


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_labels_are_those_of_the_samples_in_the_tar_to_the_bit(tmp_path, bits):
    columns = label_columns(6, seed=4, bits=bits)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 1
    write_shard(tmp_path, "000000", columns, bits=bits)
    [shard] = training_shards([str(tmp_path)])
    read = OpenShard(shard, (*LABELS, *SOURCE))
    with tarfile.open(shard.tar) as tar:
        for place, key in enumerate(columns["key"]):
            image, document, packed = (tar.extractfile(f"{key}.{e}").read() for e in ("jpg", "json", "npz"))
            arrays, person = np.load(io.BytesIO(packed)), read.person(place)
            assert (person.key, person.image) == (key, image)
            for name in (*LABELS, *SOURCE):
                assert person.arrays[name].tobytes() == arrays[name].astype(np.float32).tobytes()
            for name, value in person.document.items():
                assert np.array_equal(value, json.loads(document)[name])


def of_version(version: str) -> pa.Schema:
    """The schema as it was before optional fields were added, under another version."""
    fields = [field for field in HMR_SKEL if not field.nullable]
    return pa.schema(fields, metadata=HMR_SKEL.metadata | {b"version": version.encode()})


def test_shards_from_before_the_optional_fields_give_the_same_people(tmp_path, monkeypatch):
    columns = label_columns(3)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 1
    write_shard(tmp_path / "new", "000000", columns)
    monkeypatch.setattr(written_shards, "HMR_SKEL", of_version("1.0"))
    write_shard(tmp_path / "old", "000000", columns)
    mirroring = {"augmentation": AugmentationConfig(mirror=1.0)}
    (_, old), (_, new) = (next(stream(make(tmp_path / name, **mirroring))) for name in ("old", "new"))
    assert old["keys"] == new["keys"] and np.array_equal(old["poses"], new["poses"])


def test_a_table_of_a_version_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    columns = label_columns(3)
    monkeypatch.setattr(written_shards, "HMR_SKEL", of_version("0.9"))
    write_shard(tmp_path, "000000", columns)
    with pytest.raises(InputError, match=r"000000\.parquet.*version 0\.9; expected version 1\."):
        make(tmp_path)


# ----------------------------------------------------------------------------------------------------------- damage


def change_member(tar: Path, name: str, change) -> None:
    """Rewrites a tar with one member changed, or left out if `change` gives None."""
    with tarfile.open(tar) as old:
        members = [(info, old.extractfile(info).read()) for info in old]
    with tarfile.open(tar, "w") as new:
        for info, content in members:
            if info.name == name:
                content = change(content)
                if content is None:
                    continue
                info.size = len(content)
            new.addfile(info, io.BytesIO(content))


def change_labels(folder: Path, change, told: bool = True) -> None:
    """Rewrites the Parquet file of a folder's shard; its checksum is then `told` in the JSON file, or not."""
    [path] = folder.glob("*.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    if told:
        stats = json.loads(path.with_suffix(".json").read_text())
        stats["parquet_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(stats))


def column_with(name: str, row: int, value):
    """Changes one row of a column; None makes it missing."""

    def change(table: pa.Table) -> pa.Table:
        values, index = table[name].to_pylist(), table.column_names.index(name)
        values[row] = value
        return table.set_column(index, table.schema.field(name).with_nullable(True), pa.array(values, table[name].type))

    return change


LABEL_DAMAGE = {
    "column missing": (lambda table: table.drop_columns("poses"), "field 'poses'.*missing; expected float"),
    "misshapen": (
        lambda table: table.set_column(
            table.column_names.index("betas"),
            pa.field("betas", pa.list_(pa.float32(), 9), metadata=table.schema.field("betas").metadata),
            pa.array([[0.0] * 9] * len(table), pa.list_(pa.float32(), 9)),
        ),
        "field 'betas'.*9 values",
    ),
    "not finite": (column_with("keypoints_3d", 3, [np.nan] * 176), "sample aic-000001-1.*finite"),
    "box not finite": (column_with("box_center", 3, [np.inf, 0.0]), "sample aic-000001-1.*finite"),
    "nothing there": (column_with("cam_int", 3, None), "missing|lists to be of size"),
    "one row less": (lambda table: table.slice(1), "7 people where the Parquet file has 6"),
    "another's": (column_with("key", 3, "somebody"), "somebody is in one|aic-000001-1 is in one"),
}


@pytest.mark.parametrize("damage", LABEL_DAMAGE)
def test_damaged_labels_are_told(folder, tmp_path, damage):
    for file in folder.glob("000000.*"):
        shutil.copy(file, tmp_path)
    change, message = LABEL_DAMAGE[damage]
    change_labels(tmp_path, change)
    with pytest.raises(InputError, match=message):
        keys(make(tmp_path))


def test_labels_that_do_not_have_their_checksum_are_not_trained_on(folder, tmp_path):
    for file in folder.glob("000000.*"):
        shutil.copy(file, tmp_path)
    whole = keys(make(tmp_path))
    change_labels(tmp_path, column_with("betas", 3, [1.0] * 10), told=False)
    with pytest.raises(InputError, match=r"000000\.parquet: another checksum than 000000\.json states"):
        keys(make(tmp_path))
    (tmp_path / "000000.json").unlink()  # shards that others wrote have none
    assert keys(make(tmp_path)) == whole


DAMAGE = {
    "jpeg cut": (lambda content: content[:50], "jpg cannot be decoded"),
    "no jpeg": (lambda _: None, r"no \.jpg"),
}


@pytest.mark.parametrize("damage, workers", [*((damage, 0) for damage in DAMAGE), ("no jpeg", 1)])
def test_damaged_images_are_told_with_shard_and_key(folder, tmp_path, damage, workers):
    for file in folder.glob("000000.*"):
        shutil.copy(file, tmp_path)
    key = label_columns(7)["key"][3]
    change, message = DAMAGE[damage]
    change_member(tmp_path / "000000.tar", f"{key}.jpg", change)
    with pytest.raises(InputError, match=message) as caught:
        keys(make(tmp_path), workers=workers)
    assert str(caught.value.file) == str(tmp_path / "000000.tar")
    assert key in str(caught.value)


def long_name_without_end() -> bytes:
    """A tar whose extended header has a record of length 0."""
    info = tarfile.TarInfo("a.jpg")
    content = info.create_pax_header({**info.get_info(), "path": "k" * 200}, "utf-8")
    return content.replace(b"210 path=", b"000 path=")


def test_damaged_tars(folder, tmp_path):
    for file in folder.glob("000000.*"):
        shutil.copy(file, tmp_path)
    [shard], whole = training_shards([str(tmp_path)]), (tmp_path / "000000.tar").read_bytes()
    assert len(OpenShard(shard)) == 7
    negative = tarfile.TarInfo("a.jpg").tobuf().replace(b"00000000000\0", b"-0000001000\0", 1)
    for content in (
        whole[:5000],
        whole[: len(whole) // 2],
        whole[:512] + b"x" * 512 + whole[1024:2048],
        b"",
        negative,
        long_name_without_end(),
    ):
        shard.tar.write_bytes(content)
        with pytest.raises(InputError, match=r"000000\.tar: cannot be read"):
            OpenShard(shard)


def test_places_without_shards(tmp_path, folder):
    for place in (tmp_path, tmp_path / "absent", tmp_path / "*.tar"):
        with pytest.raises(InputError, match=r"no shard is here|nothing has this name"):
            training_shards([str(place)])
    shutil.copy(folder / "000000.tar", tmp_path)
    with pytest.raises(InputError, match=r"000000\.parquet: the file is missing"):
        training_shards([str(tmp_path)])
    (tmp_path / "000000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"000000\.parquet.*cannot be read"):
        make(tmp_path)
