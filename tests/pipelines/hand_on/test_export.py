"""`hmr-skel export`: shards back to label files, read with numpy and with the pipeline's own reader."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import written_shards

from pipelines.command.hmr_skel import guarded
from pipelines.files.shards import find_shards
from pipelines.hand_on import label_files as export
from pipelines.read.labels import open_labels
from schemas import HMR_SKEL, InputError, columns_to_table

COLUMNS = {
    "pose_cam": "smpl_poses",
    "shape": "smpl_betas",
    "trans_cam": "smpl_trans",
    "cam_int": "cam_int",
    "gtkps": "keypoints_2d",
    "keypoints3d": "keypoints_3d",
    "center": "box_center",
    "skel_poses": "poses",
    "skel_betas": "betas",
    "skel_trans": "trans",
    "label_row": "label_row",
}
SHAPES = {
    "imgname": (),
    "center": (2,),
    "scale": (2,),
    "pose_cam": (72,),
    "shape": (10,),
    "trans_cam": (3,),
    "cam_int": (3, 3),
    "gtkps": (44, 3),
    "keypoints3d": (44, 4),
    "skel_poses": (46,),
    "skel_betas": (10,),
    "skel_trans": (3,),
}


def mixed_shards(folder) -> dict[str, np.ndarray]:
    """Two label files whose rows are scattered over three shards in no order. Returns the columns of aic in order."""
    aic, coco = written_shards.label_columns(23, 1), written_shards.label_columns(9, 2, dataset="coco", first_row=100)
    both = {name: np.concatenate([aic[name], coco[name]]) for name in aic}
    order = np.random.default_rng(0).permutation(32)
    for index, rows in enumerate(np.split(order, [13, 14])):
        columns = {name: values[rows] for name, values in both.items()}
        written_shards.write_shard(folder, f"{index:06d}", columns)
    return aic


def test_label_files_come_back_in_their_order(tmp_path, capsys):
    aic = mixed_shards(tmp_path / "shards")
    assert export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")]) == 0
    assert "aic-release.npz" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["aic-release.npz", "coco-release.npz"]
    with np.load(tmp_path / "out" / "aic-release.npz", allow_pickle=False) as found:
        for name, source in COLUMNS.items():
            np.testing.assert_array_equal(found[name], aic[source], err_msg=name)
        assert found["imgname"].tolist() == aic["imgname"].tolist()
        np.testing.assert_allclose(found["scale"] * 200, aic["box_extent"], rtol=1e-6)
        for name, shape in SHAPES.items():
            assert found[name].shape == (23, *shape), name
        assert {found[name].dtype for name in SHAPES if name != "imgname"} == {np.dtype(np.float32)}
        assert found["imgname"].dtype.kind == "U"


def test_body_models_are_told_where_the_manifest_tells_them(tmp_path):
    written_shards.write_dataset(tmp_path / "shards", (3, 2))
    assert export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "aic-release.npz", allow_pickle=False) as found:
        assert "embedded demo body" in str(found["skel_body_models"])


def test_the_pipeline_reads_what_was_exported(tmp_path):
    """A reader by row range, which finds stored members in the file's bytes."""
    aic = mixed_shards(tmp_path / "shards")
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")])
    labels = open_labels(tmp_path / "out" / "aic-release.npz")
    assert labels.rows == 23
    found = labels.read(5, 9)
    np.testing.assert_array_equal(found["pose_cam"], aic["smpl_poses"][5:9])
    np.testing.assert_array_equal(found["keypoints3d"], aic["keypoints_3d"][5:9])
    np.testing.assert_allclose(found["scale"] * 200, aic["box_extent"][5:9], rtol=1e-6)
    assert found["imgname"].tolist() == aic["imgname"][5:9].tolist()
    with zipfile.ZipFile(tmp_path / "out" / "aic-release.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_shards_without_both_sides_of_the_box_give_the_longer_one(tmp_path):
    """As they were before version 1.3."""
    aic = mixed_shards(tmp_path / "shards")
    for file in (tmp_path / "shards").glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["box_extent"]), file)
        file.with_suffix(".json").unlink()
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")])
    with np.load(tmp_path / "out" / "aic-release.npz", allow_pickle=False) as found:
        np.testing.assert_allclose(found["scale"] * 200, np.repeat(aic["box_size"][:, None], 2, 1), rtol=1e-6)


def test_damaged_numbers_are_not_exported(tmp_path):
    """A column whose bytes have changed reads like any other; the statistics have its checksum."""
    mixed_shards(tmp_path / "shards")
    [file, *_] = sorted((tmp_path / "shards").glob("*.parquet"))
    table = pq.read_table(file)
    place = table.schema.get_field_index("box_size")
    pq.write_table(table.set_column(place, table.schema.field(place), [table["box_size"].to_numpy() + 1]), file)
    with pytest.raises(InputError, match=rf"{file.name}: another checksum"):
        export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")])


def test_pieces_do_not_show_in_the_result(tmp_path, monkeypatch):
    mixed_shards(tmp_path / "shards")
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "whole")])
    monkeypatch.setattr(export, "ROWS_AT_A_TIME", 5)
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "pieces")])
    for name in ("aic-release.npz", "coco-release.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()


def test_half_precision_comes_back_as_single(tmp_path):
    columns = written_shards.label_columns(4, bits=16)
    written_shards.write_shard(tmp_path / "shards", "000000", columns, bits=16)
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out")])
    with np.load(tmp_path / "out" / "aic-release.npz") as found:
        assert found["skel_poses"].dtype == np.float32
        np.testing.assert_array_equal(found["skel_poses"], columns["poses"].astype(np.float32))


def test_converged_only(tmp_path):
    columns = written_shards.label_columns(30, seed=4)
    assert not columns["converged"].all()
    written_shards.write_shard(tmp_path / "shards", "000000", columns)
    export.main([str(tmp_path / "shards"), "-o", str(tmp_path / "out"), "--converged-only"])
    with np.load(tmp_path / "out" / "aic-release.npz") as found:
        assert found["label_row"].tolist() == columns["label_row"][columns["converged"]].tolist()


def test_memory_is_bounded_by_a_shard(tmp_path):
    """Twenty shards of 200 people: a column of all is far larger than what is held."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for index in range(20):
        columns = written_shards.label_columns(200, first_row=200 * index)
        pq.write_table(columns_to_table(HMR_SKEL, columns), folder / f"{index:06d}.parquet")
    shards = find_shards([folder])
    rows = export.rows_by_label_file(shards)["aic-release.npz"]
    export.export_rows(shards, rows, tmp_path / "warm.npz")
    tracemalloc.start()
    largest = 0
    for piece in _small_pieces(shards, rows):
        largest = max(largest, piece.nbytes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = 4000 * 44 * 4 * 4
    assert largest == 100 * 44 * 4 * 4
    assert peak < whole / 4


def _small_pieces(shards, rows):
    export.ROWS_AT_A_TIME, before = 100, export.ROWS_AT_A_TIME
    try:
        yield from export._pieces(shards, rows, "keypoints_3d")
    finally:
        export.ROWS_AT_A_TIME = before


def run(*arguments) -> int:
    return guarded(lambda: export.main([str(argument) for argument in arguments]), "hmr-skel")


def test_files_that_are_there_are_kept_unless_asked(tmp_path, capsys):
    mixed_shards(tmp_path / "shards")
    out = tmp_path / "out"
    out.mkdir()
    (out / "coco-release.npz").write_bytes(b"mine")
    assert run(tmp_path / "shards", "-o", out) == 2
    assert f"{out}/coco-release.npz: is already there; expected another folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["coco-release.npz"]
    assert run(tmp_path / "shards", "-o", out, "--overwrite") == 0
    assert np.load(out / "coco-release.npz")["skel_poses"].shape == (9, 46)


def test_a_row_that_is_there_twice_is_named(tmp_path, capsys):
    columns = written_shards.label_columns(4)
    for name in ("000000", "000001"):
        written_shards.write_shard(tmp_path / "shards", name, columns)
    assert run(tmp_path / "shards", "-o", tmp_path / "out") == 2
    complaint = "000001.parquet, field 'label_row': row 0 of aic-release.npz is there twice"
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../aic-release.npz", "", "/etc/aic.npz"])
def test_label_files_cannot_lead_out_of_the_folder(tmp_path, capsys, name):
    columns = written_shards.label_columns(2)
    columns["label_file"][:] = name
    written_shards.write_shard(tmp_path / "shards", "000000", columns)
    assert run(tmp_path / "shards", "-o", tmp_path / "out") == 2
    assert "is no file name" in capsys.readouterr().err


def test_no_people_and_no_folder(tmp_path, capsys):
    written_shards.write_shard(tmp_path / "shards", "000000", written_shards.label_columns(0))
    assert run(tmp_path / "shards", "-o", tmp_path / "out") == 2
    assert "the shards hold no people" in capsys.readouterr().err
    (tmp_path / "file").touch()
    written_shards.write_shard(tmp_path / "shards", "000000", written_shards.label_columns(1))
    assert run(tmp_path / "shards", "-o", tmp_path / "file" / "out") == 2
    assert f"{tmp_path}/file/out, field '--output': cannot be written" in capsys.readouterr().err
