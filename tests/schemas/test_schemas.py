"""Records: what goes into a table comes out of it, and what does not fit is named by file, row and field."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from schemas import CAMERAHMR, DATASET, HMR_SKEL, PREDICTION, REJECTS, SHARD_STATS, SKIPPED, InputError

ALL = {
    "camerahmr": CAMERAHMR,
    "hmr_skel": HMR_SKEL,
    "rejects": REJECTS,
    "shard_stats": SHARD_STATS,
    "dataset": DATASET,
    "prediction": PREDICTION,
    "skipped": SKIPPED,
}


def random_columns(schema: pa.Schema, rows: int, seed: int = 0) -> schemas.Columns:
    rng = np.random.default_rng(seed)
    columns = {}
    for field in schema:
        shape, dtype = (rows, *schemas.field_shape(field)), schemas.field_dtype(field)
        if dtype.kind == "O":
            columns[field.name] = np.array([f"text {seed} {i} é" for i in range(rows)], dtype=object)
        elif dtype.kind == "f":
            columns[field.name] = rng.normal(size=shape).astype(dtype)
        elif dtype.kind == "b":
            columns[field.name] = rng.random(shape) < 0.5
        else:
            columns[field.name] = rng.integers(-5, 1000, shape).astype(dtype)
    return columns


def assert_same(got: schemas.Columns, wanted: schemas.Columns):
    assert list(got) == list(wanted)
    for name, values in wanted.items():
        assert got[name].dtype == values.dtype, name
        assert got[name].shape == values.shape, name
        np.testing.assert_array_equal(got[name], values, err_msg=name)


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(0, 5), seed=st.integers(0, 1000))
def test_columns_survive_a_table(name, rows, seed):
    columns = random_columns(ALL[name], rows, seed)
    table = schemas.columns_to_table(ALL[name], columns)
    assert table.schema.equals(ALL[name], check_metadata=True)
    assert_same(schemas.table_to_columns(table), columns)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_columns_survive_a_parquet_file_in_each_float_width(tmp_path, bits):
    schema = schemas.with_float_width(HMR_SKEL, bits)
    columns = random_columns(HMR_SKEL, 7)
    pq.write_table(schemas.columns_to_table(schema, columns), tmp_path / "x.parquet")
    stored = pq.read_table(tmp_path / "x.parquet")
    schemas.check_schema(stored.schema, HMR_SKEL, "x.parquet")
    read = schemas.table_to_columns(stored)
    for name, values in columns.items():
        if values.dtype.kind == "f":
            narrow = bits == 16 and name not in {
                *("box_center", "box_size", "box_extent", "cam_int", "crop_affine", "keypoints_2d", "keypoints_3d"),
                *("trans", "smpl_trans", "mirrored_trans"),
            }
            width = 16 if narrow else max(bits, 32)
            assert read[name].dtype == np.dtype(f"float{width}"), name
            np.testing.assert_array_equal(read[name], values.astype(read[name].dtype), err_msg=name)
        else:
            np.testing.assert_array_equal(read[name], values, err_msg=name)


def test_other_float_widths_are_errors():
    with pytest.raises(ValueError, match="8"):
        schemas.with_float_width(HMR_SKEL, 8)


def test_rows_of_a_slice_and_of_several_chunks():
    columns = random_columns(HMR_SKEL, 6)
    table = schemas.columns_to_table(HMR_SKEL, columns)
    assert_same(schemas.table_to_columns(table.slice(2, 3)), {k: v[2:5] for k, v in columns.items()})
    assert_same(
        schemas.table_to_columns(pa.concat_tables([table.slice(3), table.slice(0, 3)])),
        {k: np.concatenate([v[3:], v[:3]]) for k, v in columns.items()},
    )
    chosen = schemas.table_to_columns(table, ["betas", "key"])
    assert_same(chosen, {k: columns[k] for k in ("betas", "key")})


def test_absent_optional_fields_are_nulls_and_absent_again():
    columns = random_columns(CAMERAHMR, 3)
    for name in ("trans_cam", "keypoints3d", "gender"):
        del columns[name]
    table = schemas.columns_to_table(CAMERAHMR, columns)
    assert table.column("trans_cam").null_count == 3
    assert_same(schemas.table_to_columns(table), columns)
    del columns["pose_cam"]
    with pytest.raises(KeyError, match="pose_cam"):
        schemas.columns_to_table(CAMERAHMR, columns)


def test_numbers_that_some_rows_lack_are_masked():
    columns = random_columns(PREDICTION, 3)
    for name in ("frame", "time_s", "track", "converged"):
        columns[name] = np.ma.masked_array(columns[name], [True, False, False])
    columns["verdict"] = np.array(["good", None, "good"], object)
    table = schemas.columns_to_table(PREDICTION, columns)
    assert [table[name].null_count for name in ("frame", "time_s", "track", "converged", "verdict")] == [1] * 5
    read = schemas.table_to_columns(table)
    for name in ("frame", "time_s", "track", "converged"):
        assert read[name].dtype == columns[name].dtype
        assert read[name].tolist() == [None, *columns[name].tolist()[1:]]
    assert read["verdict"].tolist() == ["good", None, "good"]
    assert not np.ma.isMaskedArray(schemas.table_to_columns(table.slice(1))["frame"])


def test_sample_parts_hold_every_field_once_in_its_form():
    columns = random_columns(HMR_SKEL, 4)
    document, arrays = schemas.sample_parts(HMR_SKEL, columns, 2)
    document = json.loads(json.dumps(document))
    assert document.pop("record") == "hmr_skel"
    assert document.pop("version") == schemas.record_version(HMR_SKEL)
    assert set(document) | set(arrays) == set(HMR_SKEL.names)
    assert not set(document) & set(arrays)
    assert {"poses", "betas", "trans", "smpl_poses", "smpl_betas", "smpl_trans", "cam_int"} <= set(arrays)
    for name, value in arrays.items():
        assert value.dtype == np.float32, name
        np.testing.assert_array_equal(value, columns[name][2], err_msg=name)
    for name, value in document.items():
        np.testing.assert_array_equal(value, columns[name][2], err_msg=name)
    half = schemas.sample_parts(schemas.with_float_width(HMR_SKEL, 16), columns, 0)[1]
    assert half["poses"].dtype == np.float16
    assert half["trans"].dtype == np.float32


def test_the_numbers_of_the_design_have_their_shapes():
    shapes = {name: schemas.field_shape(HMR_SKEL.field(name)) for name in HMR_SKEL.names}
    assert shapes["poses"] == (46,)
    assert shapes["betas"] == (10,)
    assert shapes["trans"] == (3,)
    assert shapes["smpl_poses"] == (72,)
    assert shapes["cam_int"] == (3, 3)
    assert shapes["crop_affine"] == (2, 3)
    assert shapes["keypoints_2d"] == (44, 3)
    assert shapes["keypoints_3d"] == (44, 4)
    assert shapes["key"] == ()


@pytest.mark.parametrize("name", list(ALL))
def test_every_field_says_what_it_is(name):
    for field in ALL[name]:
        assert field.metadata[b"doc"], field.name
        if schemas.field_dtype(field).kind == "f":
            assert field.metadata[b"unit"] or field.name in ("gtkps",), field.name
    assert schemas.record_name(ALL[name]) == name
    assert schemas.record_version(ALL[name])


def change(columns, name, value):
    return {**columns, name: value}


def complaints():
    good = random_columns(CAMERAHMR, 4)
    nan = good["pose_cam"].copy()
    nan[2, 5] = np.nan
    infinite = good["cam_int"].copy()
    infinite[3, 0, 0] = np.inf
    missing = {k: v for k, v in good.items() if k != "shape"}
    return {
        "missing": (missing, "shape", None, r"missing; expected float.* \(10,\)"),
        "rows": (change(good, "center", good["center"][:3]), "center", None, "3 rows where others have 4"),
        "shape": (change(good, "pose_cam", good["pose_cam"][:, :71]), "pose_cam", None, r"\(71,\).*\(72,\), rad"),
        "type": (change(good, "shape", good["shape"].astype(str)), "shape", None, "values of type <U"),
        "text": (change(good, "imgname", np.arange(4)), "imgname", None, "values of type int64"),
        "nan": (change(good, "pose_cam", nan), "pose_cam", 2, "not a finite number"),
        "infinite": (change(good, "cam_int", infinite), "cam_int", 3, "not a finite number"),
    }


@pytest.mark.parametrize("case", list(complaints()))
def test_complaints_name_file_row_and_field(case):
    columns, field, row, said = complaints()[case]
    with pytest.raises(InputError, match=said) as caught:
        schemas.check_columns(CAMERAHMR, columns, "aic-release.npz")
    assert (caught.value.file, caught.value.field, caught.value.row) == ("aic-release.npz", field, row)
    text = str(caught.value)
    assert text.startswith("aic-release.npz")
    assert repr(field) in text
    assert row is None or f"row {row}" in text
    assert "\n" not in text


def test_good_columns_are_accepted():
    columns = random_columns(CAMERAHMR, 4)
    schemas.check_columns(CAMERAHMR, columns, "x.npz")
    schemas.check_columns(CAMERAHMR, {**columns, "unknown": np.zeros(9)}, "x.npz")
    wide = change(columns, "pose_cam", columns["pose_cam"].astype(np.float64))
    schemas.check_columns(CAMERAHMR, change(wide, "shape", np.zeros((4, 10), int)), "x.npz")
    nan = np.full_like(columns["shape"], np.nan)
    schemas.check_columns(CAMERAHMR, change(columns, "shape", nan), "x.npz", finite=False)
    schemas.check_columns(CAMERAHMR, {k: v[:0] for k, v in columns.items()}, "x.npz")


def test_foreign_tables_are_refused():
    with pytest.raises(InputError, match=r"'rejects'.*'hmr_skel'"):
        schemas.check_schema(REJECTS, HMR_SKEL, "x.parquet")
    with pytest.raises(InputError, match=r"'\?'"):
        schemas.check_schema(HMR_SKEL.with_metadata(None), HMR_SKEL, "x.parquet")
    newer = HMR_SKEL.with_metadata({"record": "hmr_skel", "version": "2.0"})
    with pytest.raises(InputError, match=r"version 2\.0; expected version 1\."):
        schemas.check_schema(newer, HMR_SKEL, "x.parquet")
    schemas.check_schema(HMR_SKEL.with_metadata({"record": "hmr_skel", "version": "1.9"}), HMR_SKEL, "x.parquet")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (None, "missing"),
        (pa.list_(pa.float32(), 45), "45 values"),
        (pa.float32(), "type float"),
        (pa.list_(pa.int32(), 46), "type fixed_size_list<.*int32"),
    ],
)
def test_tables_with_another_column_are_refused(kind, said):
    at = HMR_SKEL.get_field_index("poses")
    other = HMR_SKEL.remove(at) if kind is None else HMR_SKEL.set(at, HMR_SKEL.field(at).with_type(kind))
    with pytest.raises(InputError, match=said) as caught:
        schemas.check_schema(other, HMR_SKEL, "x.parquet")
    assert (caught.value.file, caught.value.field) == ("x.parquet", "poses")


def test_an_input_error_survives_pickling():
    error = InputError("is odd", file="a.npz", row=3, field="pose", expected="an even one")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.npz, row 3, field 'pose': is odd; expected an even one"
    assert (again.row, again.field, again.expected) == (3, "pose", "an even one")
    assert str(InputError("nothing to do")) == "nothing to do"
