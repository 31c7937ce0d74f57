"""`hmr-skel inspect`: numbers against numpy, samples in full, and a verdict that sees every kind of damage."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import written_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.command.hmr_skel import guarded
from pipelines.files.shards import find_shards, read_columns, read_people
from pipelines.look import inspection, summary
from pipelines.look.verification import verify
from schemas import HMR_SKEL, InputError, columns_to_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of 7 and 5 people with three rejects. Do not change it."""
    return written_shards.write_dataset(tmp_path_factory.mktemp("shards") / "set")


@pytest.fixture
def fresh(tmp_path):
    """The same, to be damaged."""
    return written_shards.write_dataset(tmp_path / "set")


def inspect_json(capsys, *arguments) -> dict:
    status = inspection.main([*map(str, arguments), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert status == 0 or document["passed"] is False
    return document


def test_numbers_are_those_of_the_labels(folder, capsys):
    found = inspect_json(capsys, folder, "--worst", 3)
    both = [written_shards.label_columns(7, 0), written_shards.label_columns(5, 1, first_row=10)]
    errors = np.concatenate([columns["vertex_error_mm"] for columns in both])
    assert (found["shards"], found["samples"]) == (2, 12)
    assert found["converged"] == sum(columns["converged"].sum() for columns in both)
    assert found["datasets"] == {"aic": 12}
    assert found["rejects"] == {"missing_image": 2, "non_finite_pose": 1}
    for name, number in {"mean": errors.mean(), "p50": np.median(errors), "max": errors.max()}.items():
        assert found["errors"]["vertex_error_mm"][name] == pytest.approx(number, rel=1e-6)
    stages = np.concatenate([columns["stage_vertex_error_mm"] for columns in both])
    assert [found["stages"][name]["mean"] for name in ("start", "lower", "upper", "full")] == pytest.approx(
        stages.mean(axis=0), rel=1e-6
    )
    exceeded = np.concatenate([columns["limits_exceeded"] for columns in both])
    assert found["limits"]["people_exceeding"] == (exceeded > 0).sum()
    assert found["limits"]["angles_exceeding"] == exceeded.sum()
    keys = np.concatenate([columns["key"] for columns in both])
    assert [sample["key"] for sample in found["worst"]] == keys[np.argsort(-errors)[:3]].tolist()


def test_a_part_of_a_folder_is_counted_alone(folder, capsys):
    assert inspect_json(capsys, folder / "000001.tar")["samples"] == 5
    assert inspect_json(capsys, folder / "000001.tar")["rejects"] == {}
    assert inspect_json(capsys, folder / "000000.tar")["rejects"] == {"missing_image": 2, "non_finite_pose": 1}
    assert inspect_json(capsys, f"{folder}/*.tar")["samples"] == 12
    assert inspect_json(capsys, folder, folder / "000001.json", f"{folder}/*.parquet")["samples"] == 12


def test_shards_of_other_float_widths_are_read_together(tmp_path, capsys):
    for index, bits in enumerate((16, 32, 64)):
        columns = written_shards.label_columns(4, index, first_row=4 * index, bits=bits)
        written_shards.write_shard(tmp_path, f"{index:06d}", columns, bits=bits)
    assert inspect_json(capsys, tmp_path)["samples"] == 12
    assert not verify(find_shards([tmp_path / "000000.tar", tmp_path / "000002.tar"])).failures


def test_no_people_is_no_crash(tmp_path, capsys):
    written_shards.write_shard(tmp_path, "000000", written_shards.label_columns(0))
    found = inspect_json(capsys, tmp_path)
    assert (found["samples"], found["errors"]["vertex_error_mm"], found["worst"]) == (0, None, [])
    assert inspection.main([str(tmp_path)]) == 0


def test_tables_name_what_a_person_asks_for(folder, capsys):
    assert inspection.main([str(folder), "--worst", "2"]) == 0
    text = capsys.readouterr().out
    worst = inspect_json(capsys, folder)["worst"]
    for wanted in ("rejected: missing_image", "vertex_error_mm after upper", "joint_error_mm", "46", worst[1]["key"]):
        assert wanted in text
    assert worst[2]["key"] not in text


def test_sample_is_shown_in_full(folder, capsys):
    columns = written_shards.label_columns(7, 0)
    found = inspect_json(capsys, folder, "--sample", columns["key"][4])
    assert found["shard"] == "000000"
    assert found["members_bytes"].keys() == {"jpg", "json", "npz"}
    assert set(HMR_SKEL.names) <= found.keys()
    np.testing.assert_allclose(found["poses"], columns["poses"][4], rtol=1e-6)
    assert inspection.main([str(folder), "--sample", columns["key"][4]]) == 0
    text = capsys.readouterr().out
    assert "keypoints_3d" in text
    assert f"{columns['poses'][4][3]:.4f}" in text


def test_unknown_sample_suggests_a_similar_one(folder, capsys):
    complaint = r"no sample 'aic-000001-7' in 2 shards; expected a key such as aic-000001-[01]$"
    with pytest.raises(InputError, match=complaint):
        inspection.main([str(folder), "--sample", "aic-000001-7"])


def test_rows_come_in_the_order_asked(folder):
    shards = find_shards([folder])
    keys = read_columns(shards, ["key"])["key"].to_pylist()
    asked = [11, 0, 7, 6, 7]
    assert [sample["key"] for _, sample in read_people(shards, asked)] == [keys[row] for row in asked]


@settings(max_examples=60, deadline=None)
@given(
    errors=st.lists(st.floats(0, 1e3) | st.just(float("nan")), max_size=40),
    count=st.integers(1, 50),
    pick=st.sampled_from(["mixed", "worst", "best", "random"]),
)
def test_picked_rows_are_distinct_and_as_many_as_asked(errors, count, pick):
    errors = np.array(errors, np.float32)
    rows = inspection.pick_rows(errors, count, pick, seed=1)
    assert len(rows) == len(set(rows)) == min(count, len(errors))
    ranked = np.where(np.isfinite(errors), errors, np.inf)
    if pick in ("worst", "best") and len(rows) < len(errors):
        others = np.delete(ranked, rows)
        assert ranked[rows].min() >= others.max() if pick == "worst" else ranked[rows].max() <= others.min()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda d: d / "000000.tar", "000000.parquet: the file is missing; expected the labels of 000000.tar"),
        (lambda d: d / "empty", "no shard is here"),
        (lambda d: f"{d}/9*.tar", "nothing has this name"),
        (lambda d: d / "note.txt", "no shard is here"),
    ],
)
def test_paths_without_shards_are_named(fresh, capsys, make, complaint):
    (fresh / "000000.parquet").unlink()
    (fresh / "empty").mkdir()
    (fresh / "note.txt").touch()
    assert guarded(lambda: inspection.main([str(make(fresh))]), "hmr-skel") == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["no parquet", "no column"])
def test_labels_that_cannot_be_read_are_named(fresh, capsys, damage):
    file = fresh / "000001.parquet"
    if damage == "no parquet":
        file.write_bytes(b"PAR1 but not really")
    else:
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["joint_error_mm"]), file)
    assert guarded(lambda: inspection.main([str(fresh)]), "hmr-skel") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hmr-skel: error: {file}")
    assert ("joint_error_mm" in error) == (damage == "no column")
    assert error.count("\n") == 1


def test_whole_shards_pass(folder, capsys):
    assert inspection.main([str(folder), "--verify"]) == 0
    assert "2 shards, 12 samples, nothing wrong" in capsys.readouterr().out
    found = inspect_json(capsys, folder, "--verify")
    assert found == {"passed": True, "shards": 2, "samples": 12, "failures": [], "notes": []}


def test_json_may_have_more_digits_than_half_precision(tmp_path):
    columns = written_shards.label_columns(3, bits=32)
    written_shards.write_manifest(tmp_path, [written_shards.write_shard(tmp_path, "000000", columns, bits=16)])
    stated = json.loads(dict_of_tar(tmp_path / "000000.tar")[f"{columns['key'][0]}.json"])["vertex_error_mm"]
    assert stated != float(np.float16(stated)), "the test would show nothing"
    assert verify(find_shards([tmp_path])).passed
    columns["vertex_error_mm"][0] = 1.01 * stated
    written_shards.write_shard(tmp_path / "other", "000000", columns, bits=16)
    (tmp_path / "other" / "000000.tar").write_bytes((tmp_path / "000000.tar").read_bytes())
    assert ".json differs from the labels in vertex_error_mm" in failures(tmp_path / "other")


def dict_of_tar(tar) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_labels_without_images_pass(tmp_path):
    columns = written_shards.without_images(written_shards.label_columns(3))
    written_shards.write_manifest(tmp_path, [written_shards.write_shard(tmp_path, "000000", columns)])
    assert verify(find_shards([tmp_path])).passed


def failures(folder) -> str:
    return "\n".join(f"{where}: {problem}" for where, problem in verify(find_shards([folder])).failures)


def change_tar(folder, change, restate: bool = True) -> None:
    """Rewrites 000000.tar with `change(name, content)` -> content, or None to leave the member out."""
    tar = folder / "000000.tar"
    with tarfile.open(tar) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(tar, "w") as archive:
        for name, content in members:
            if (content := change(name, content)) is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    if restate:
        restate_shard(folder)


def restate_shard(folder) -> None:
    """Makes the statistics of shard 000000 and the manifest true again as to checksums, and nothing else."""
    columns = written_shards.label_columns(7, 0)
    stats = written_shards.write_stats(folder, "000000", columns, {"missing_image": 2, "non_finite_pose": 1})
    written_shards.write_manifest(folder, [stats, json.loads((folder / "000001.json").read_text())])


def edit_json(file, **changes) -> None:
    document = json.loads(file.read_text())
    document.update(changes)
    file.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))


def with_pose(content: bytes, change) -> bytes:
    arrays = dict(np.load(io.BytesIO(content)))
    arrays["poses"] = change(arrays["poses"])
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


KEY = "aic-000001-1"
TAR_DAMAGES = {
    "truncated jpeg": (
        lambda n, c: c[: len(c) // 2] if n == f"{KEY}.jpg" else c,
        f"{KEY}.jpg cannot be decoded",
    ),
    "jpeg of another size": (
        lambda n, c: (
            written_shards.cv2.imencode(".jpg", np.zeros((9, 8, 3), np.uint8))[1].tobytes() if n == f"{KEY}.jpg" else c
        ),
        f"{KEY}.jpg is 8 x 9, its crop_size is 64 x 64",
    ),
    "lost image": (lambda n, c: None if n == f"{KEY}.jpg" else c, f"{KEY} has 0 images, its crop_size is 64 x 64"),
    "lost labels": (lambda n, c: None if n == f"{KEY}.npz" else c, f"{KEY}.npz is missing"),
    "lost identity": (lambda n, c: None if n == f"{KEY}.json" else c, f"{KEY}.json is missing"),
    "broken labels": (lambda n, c: c[:-40] if n == f"{KEY}.npz" else c, f"{KEY}.npz cannot be decoded"),
    "broken identity": (lambda n, c: c[:-4] if n == f"{KEY}.json" else c, f"{KEY}.json cannot be decoded"),
    "other pose": (
        lambda n, c: with_pose(c, lambda q: np.nextafter(q, 1)) if n == f"{KEY}.npz" else c,
        f"{KEY}.npz differs from the labels in poses",
    ),
    "other float width": (
        lambda n, c: with_pose(c, lambda q: q.astype(np.float64)) if n == f"{KEY}.npz" else c,
        f"{KEY}.npz differs from the labels in poses",
    ),
    "other number": (
        lambda n, c: c.replace(b'"label_row": 3,', b'"label_row": 4,') if n == f"{KEY}.json" else c,
        f"{KEY}.json differs from the labels in label_row",
    ),
    "lost sample": (
        lambda n, c: None if n.startswith(KEY) else c,
        f"000000.tar has 6 samples, 000000.parquet has 7 rows; not in the tar: {KEY}",
    ),
}


@pytest.mark.parametrize("damage", TAR_DAMAGES)
def test_damage_in_a_tar_is_found_even_if_its_checksum_is_true(fresh, damage):
    change, complaint = TAR_DAMAGES[damage]
    change_tar(fresh, change)
    found = failures(fresh)
    assert complaint in found
    assert found.count("\n") == 0, "one damage, one complaint"


def test_a_changed_byte_is_found_by_checksum(fresh):
    change_tar(fresh, lambda name, content: content + b"\0" if name.endswith("3-0.jpg") else content, restate=False)
    assert "000000.tar has another checksum than 000000.json states" in failures(fresh)


def test_a_truncated_tar_is_found(fresh):
    content = (fresh / "000000.tar").read_bytes()
    (fresh / "000000.tar").write_bytes(content[: len(content) // 2])
    found = failures(fresh)
    assert "000000.tar has another checksum" in found
    assert f"{fresh}/000000.tar: cannot be read: the file ends within a member" in found


def test_changed_labels_are_found(fresh):
    file = fresh / "000000.parquet"
    columns = written_shards.label_columns(7, 0)
    columns["betas"][2, 5] += 1e-3
    pq.write_table(columns_to_table(HMR_SKEL, columns), file)
    found = failures(fresh)
    assert "000000.parquet has another checksum" in found
    assert f"{columns['key'][2]}.npz differs from the labels in betas" in found


def test_labels_of_another_kind_are_found(fresh):
    table = pq.read_table(fresh / "000000.parquet")
    older = table.schema.metadata | {b"version": b"7.0"}
    pq.write_table(table.replace_schema_metadata(older), fresh / "000000.parquet")
    assert "hmr_skel version 7.0; expected version 1." in failures(fresh)
    columns = written_shards.label_columns(7, 0)
    columns["trans"][3, 1] = np.nan
    pq.write_table(columns_to_table(HMR_SKEL, columns), fresh / "000000.parquet")
    assert "row 3, field 'trans': not a finite number" in failures(fresh)


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("000000.json", {"samples": 8}, "000000.json states 8 samples, 000000.parquet has 7"),
        ("000000.json", {"converged": 0}, "states 0 converged, 000000.parquet has"),
        ("000000.json", {"rows": 9}, "9 planned rows are not 7 samples and 3 rejects"),
        ("000000.json", {"shard": "000003"}, "000000.json is of shard 000003"),
        ("000000.json", {"tar_bytes": 1}, "bytes, 000000.json states 1"),
        ("000000.json", {"errors": {"joint_error_mm": {"mean": 1.0}}}, "states a mean joint_error_mm of 1.0"),
        ("000000.json", {"spec_hash": ...}, "the field 'spec_hash' is missing"),
        ("000000.json", {"rejects": []}, "the field 'rejects' holds list, expected dict"),
        ("dataset.json", {"samples": 99}, "states 99 samples, its shards have 12"),
        ("dataset.json", {"rejects": {}}, "states rejects {}, its shards have"),
        ("dataset.json", {"shards": []}, "that it does not list: 000000, 000001"),
        ("dataset.json", {"options": ...}, "the field 'options' is missing"),
    ],
)
def test_untrue_statistics_are_found(fresh, file, changes, complaint):
    edit_json(fresh / file, **changes)
    assert complaint in failures(fresh)


def test_samples_twice_or_in_another_order_are_found(fresh):
    change_tar(fresh, lambda name, content: content)
    tar = fresh / "000000.tar"
    with tarfile.open(tar) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    for arranged, complaint in (
        (members[3:] + members[:3], "or in another order"),
        ([*members[:1], *members], "aic-000000-0.jpg is there twice"),
    ):
        with tarfile.open(tar, "w") as archive:
            for name, content in arranged:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        restate_shard(fresh)
        assert complaint in failures(fresh)


def test_a_key_twice_is_found(tmp_path):
    columns = written_shards.label_columns(3)
    columns["key"][2] = columns["key"][0]
    written_shards.write_manifest(tmp_path, [written_shards.write_shard(tmp_path, "000000", columns)])
    assert "000000.parquet has a key twice" in failures(tmp_path)


def test_a_manifest_that_differs_from_a_shard_is_found(fresh):
    shards = json.loads((fresh / "dataset.json").read_text())["shards"]
    shards[1]["spec_hash"] = "1" * 64
    edit_json(fresh / "dataset.json", shards=shards)
    assert "states other spec_hash for shard 000001 than 000001.json" in failures(fresh)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("000000.tar", "000000.tar is missing"),
        ("000000.json", "000000.json is missing"),
        ("dataset.json", "dataset.json: is missing: the run that wrote this folder has not finished"),
        ("_rejects/rejects.parquet", "rejects.parquet cannot be used"),
    ],
)
def test_missing_files_are_found(fresh, file, complaint):
    (fresh / file).unlink()
    assert complaint in failures(fresh)


def test_a_lone_shard_needs_no_manifest(fresh):
    (fresh / "dataset.json").unlink()
    assert verify(find_shards([fresh / "000001.tar"])).passed


def test_failed_verification_exits_with_1_and_lists_what_failed(fresh, capsys):
    change_tar(fresh, lambda name, content: None if name.endswith(".npz") else content)
    assert inspection.main([str(fresh), "--verify"]) == 1
    text = capsys.readouterr().out
    assert "7 failures in 2 shards, 12 samples" in text
    assert "aic-000003-0.npz is missing" in text
    assert inspect_json(capsys, fresh, "--verify")["passed"] is False


def test_numbers_come_from_the_columns_that_are_shown(tmp_path, monkeypatch):
    """A hundred thousand people; how long the million takes tells tests/benchmarks/inspect_numbers.py."""
    table = columns_to_table(HMR_SKEL, written_shards.label_columns(5_000))
    pq.write_table(table, tmp_path / "000000.parquet")
    for index in range(1, 20):
        shutil.copy(tmp_path / "000000.parquet", tmp_path / f"{index:06d}.parquet")
    asked: list[str] = []
    read = summary.read_parts
    monkeypatch.setattr(summary, "read_parts", lambda shards, names: asked.extend(names) or read(shards, names))
    assert summary.summarise(find_shards([tmp_path]))["samples"] == 100_000
    large = {field.name for field in HMR_SKEL if str(field.type).startswith("fixed_size_list")}
    assert set(asked) & large <= {"stage_vertex_error_mm"}
    assert "vertex_error_mm" in asked
