"""Files of predictions: what is written comes back, and what no reader could use is named."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from fitting.body.limits import HUMAN_LIMITS
from pipelines.files.predictions import FILE_NAME, prediction_schema, read_predictions
from schemas import PREDICTION, Columns, InputError, columns_to_table, field_dtype, field_shape


def people(count: int = 3) -> Columns:
    """A picture's person and the others of a film."""
    rng = np.random.default_rng(0)
    columns = {}
    for field in PREDICTION:
        shape, dtype = (count, *field_shape(field)), field_dtype(field)
        if dtype.kind == "O":
            columns[field.name] = np.array(["word"] * count, object)
        elif dtype.kind == "f":
            columns[field.name] = rng.random(shape).astype(dtype) + 1
        else:
            columns[field.name] = np.ones(shape, dtype)
    columns["box"] = np.tile(np.float32([10, 20, 30, 60]), (count, 1))
    columns["angles"] = np.degrees(columns["poses"])
    for name in ("frame", "time_s", "track"):
        columns[name] = np.ma.masked_array(columns[name], np.arange(count) == 0)
    return columns


def write(folder, columns: Columns, schema: pa.Schema | None = None):
    pq.write_table(columns_to_table(schema or prediction_schema(), columns), folder / FILE_NAME)
    return folder


def test_what_is_written_is_read(tmp_path):
    columns = people()
    columns["keypoints_3d"][1] = 7
    found = read_predictions(write(tmp_path, columns))
    assert len(found) == 3 and found.path == tmp_path / FILE_NAME
    assert len(read_predictions(found.path)) == 3
    for name, values in columns.items():
        np.testing.assert_array_equal(found.columns[name], values, err_msg=name)
    assert found.columns["frame"].tolist() == [None, 1, 1]
    assert [c["name"] for c in found.coordinates] == list(COORDINATE_NAMES)
    assert found.coordinates[0]["low"] is None
    limits = [[c["low"], c["high"]] for c in found.coordinates[3:]]
    np.testing.assert_allclose(limits, np.degrees(HUMAN_LIMITS[3:]), atol=1e-6)
    assert json.loads(pq.read_schema(found.path).metadata[b"joint_names"]) == list(SKEL_JOINTS)
    focal, principal = columns["focal"][1], columns["principal"][1]
    seen = found.cam_int(1) @ [0.5, -0.25, 2]
    np.testing.assert_allclose(seen[:2] / seen[2], focal * np.array([0.25, -0.125]) + principal, rtol=1e-6)
    last = found.take(found.columns["frame"] == 1)
    assert len(last) == 2 and last.columns["keypoints_3d"][0, 0, 0] == 7


def test_nobody_can_be_written_and_read(tmp_path):
    assert len(read_predictions(write(tmp_path, {name: values[:0] for name, values in people().items()}))) == 0


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("focal", 0, "0.0; expected above 0"),
        ("focal", np.nan, "not a finite number"),
        ("box", [30, 20, 10, 60], "left < right"),
        ("orientation", 9, "9; expected 1 to 8"),
        ("picture_size", [0, 100], "above 0"),
        ("angles", 1, "other angles than poses"),
        ("trans", np.inf, "not a finite number"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, field, value, said):
    columns = people()
    columns[field][2] = value
    with pytest.raises(InputError, match=said) as caught:
        read_predictions(write(tmp_path, columns))
    assert (caught.value.row, caught.value.field) == (2, field)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no predictions\.parquet in it"):
        read_predictions(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "absent.parquet")
    with pytest.raises(InputError, match="not in the metadata"):
        read_predictions(write(tmp_path, people(), PREDICTION))
    names = [{"name": name} for name in reversed(COORDINATE_NAMES)]
    other = prediction_schema().with_metadata(prediction_schema().metadata | {b"coordinates": json.dumps(names)})
    with pytest.raises(InputError, match="another order"):
        read_predictions(write(tmp_path, people(), other))
    newer = prediction_schema().with_metadata(prediction_schema().metadata | {b"version": b"2.0"})
    with pytest.raises(InputError, match=r"version 2\.0"):
        read_predictions(write(tmp_path, people(), newer))
    (tmp_path / FILE_NAME).write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path)
