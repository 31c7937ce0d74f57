"""The page about a data set: its numbers against the columns, its charts against the counts, nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import written_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.command.hmr_skel import main as hmr_skel
from pipelines.files.body_models import DEMO_IS
from pipelines.files.shards import find_shards
from pipelines.look.angle_counts import AngleCounts
from pipelines.look.charts import Histogram, bars_svg, histogram_svg, round_edges, tally
from pipelines.look.people_pictures import picked_people
from pipelines.look.report import Distances, write_report
from schemas import InputError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path):
    """Two data sets, one with a name that must not become markup, and rejects."""
    first = written_shards.label_columns(40, seed=1)
    second = written_shards.label_columns(30, seed=2, dataset="<b>&co")
    stats = [
        written_shards.write_shard(tmp_path / "set", "000000", first, {"missing_image": 3}),
        written_shards.write_shard(tmp_path / "set", "000001", second),
    ]
    written_shards.write_manifest(tmp_path / "set", stats)
    return tmp_path / "set", first, second


def rows_of(page, first_cell):
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    return [row[1:] for row in cells if row and row[0] == first_cell]


def test_the_page_tells_what_the_columns_hold(folder, tmp_path):
    where, first, second = folder
    assert hmr_skel(["inspect", str(where), "--report", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert rows_of(page, "aic-release.npz") == [["43", "40", "3", f"{first['converged'].mean():.2%}"]]
    assert rows_of(page, "&lt;b&gt;&amp;co-release.npz")[0][:3] == ["30", "30", "0"]
    assert "<b>" not in page
    for name, words in (("vertex_error_mm", "vertex error"), ("joint_error_mm", "joint error")):
        for columns, found in zip((second, first), rows_of(page, words), strict=True):  # by name: < comes before a
            values = columns[name]
            expected = [values.mean(), *np.quantile(values, [0.5, 0.95, 0.99], method="inverted_cdf"), values.max()]
            assert [float(text) for text in found] == pytest.approx(expected, abs=0.05)
    exceeding = sum(int((c["limits_exceeded"] > 0).sum()) for c in (first, second))
    assert f"{exceeding} of 70 people have an angle outside" in page
    charts = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page)]
    assert len(charts) == 3 + 2 * 8 + 46
    assert "missing_image" in "".join(charts[0].itertext()) and "3" in "".join(charts[0].itertext())


def test_nothing_is_fetched_and_the_same_data_gives_the_same_page(folder, tmp_path):
    where, _, _ = folder
    for name in ("a.html", "b.html"):
        write_report(find_shards([where]), tmp_path / name)
    page = (tmp_path / "a.html").read_bytes()
    assert page == (tmp_path / "b.html").read_bytes()
    for word in (b"<script", b"href", b"url(", b"@import"):
        assert word not in page, word
    assert page.count(b"src=") == page.count(b'src="data:image/jpeg;base64,') == 3


def test_people_and_what_they_were_made_with(folder, tmp_path):
    where, first, second = folder
    (where / "run.json").write_text(json.dumps({"started": "2026-01-02T03:04:05Z", "system": "<Linux>"}))
    write_report(find_shards([where]), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert f"Made 2026-01-02T03:04:05Z, by hmr-skel 0.1.0, body models: demo: {DEMO_IS}" in page
    assert ["&lt;Linux&gt;"] in rows_of(page, "machine") and ["demo"] in rows_of(page, "body_models")
    sheets = [
        cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), 1)
        for text in re.findall(r"base64,([^\"]+)", page)
    ]
    assert len(sheets) == 3
    for sheet in sheets:
        assert sheet.shape[1] > 3 * 2 * 180 and sheet.std() > 20, "three people, each as a picture and drawn over it"
    errors = np.concatenate([first["vertex_error_mm"], second["vertex_error_mm"]])
    picked = picked_people(errors)
    ranks = errors.argsort().argsort()
    assert {name: sorted(ranks[rows]) for name, rows in picked.items()} == {
        "worst": [67, 68, 69],
        "median": [34, 35, 36],
        "best": [0, 1, 2],
    }


@pytest.mark.parametrize("count", range(1, 12))
def test_nobody_is_picked_twice(count):
    rows = np.concatenate(list(picked_people(np.random.default_rng(0).random(count)).values()))
    assert len(set(rows)) == len(rows) > 0


def test_a_page_without_the_body_models_says_so(folder, tmp_path):
    write_report(find_shards([folder[0]]), tmp_path / "r.html", body_models=str(tmp_path / "none"))
    page = (tmp_path / "r.html").read_text()
    assert f"They could not be drawn: {tmp_path / 'none'}" in page and "<img" not in page
    assert len(re.findall(r"<svg", page)) == 3 + 2 * 8 + 46


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-1600, 1600), min_size=1, max_size=200),
    st.sampled_from([(-0.5, 0.5), (-np.inf, np.inf), (0.0, 2.0)]),
)
def test_an_angle_axis_holds_everybody_and_little_else(values, limits):
    values = np.radians([*((np.array(values) + 0.5) / 4), np.nan])  # in the middles of the finest bins
    counts = AngleCounts(["a"])
    counts.add(values[:1, None])
    counts.add(values[1:, None])
    chart = counts.charts(np.array([limits]))[0]
    assert chart.counts.sum() == len(values) - 1
    assert len(chart.counts) == len(chart.edges) - 1 <= 41
    degrees = np.degrees(values[:-1].astype(float))
    lowest = chart.edges[0]
    around = (degrees - lowest) % 360 + lowest
    assert (around <= chart.edges[-1] + 1e-9).all()
    own = np.histogram(around, chart.edges)[0]
    if chart.edges[-1] - lowest <= 360:
        np.testing.assert_array_equal(own, chart.counts)


def test_angle_axes_go_over_the_seam_and_to_limits_that_are_near():
    """Cameras look down at SKEL's pelvis: half the people have it at 180 degrees, half at -180."""
    counts = AngleCounts(["tilt", "knee"])
    tilt = np.radians([178, 179, -179, -178])
    counts.add(np.stack([tilt, np.radians([5, 60, 90, 110])], 1))
    over, knee = counts.charts(np.radians([[-np.inf, np.inf], [0, 135]]))
    assert 177 <= over.edges[0] <= 178 and 182 <= over.edges[-1] <= 183
    assert over.note == "" and knee.note == "limits 0 to 135"
    assert knee.edges[0] <= 0 and 135 <= knee.edges[-1] <= 140
    far = AngleCounts(["knee"])
    far.add(np.radians([[80], [81], [83]]))
    assert far.charts(np.radians([[0, 135]]))[0].edges[[0, -1]].tolist() == pytest.approx([80, 83], abs=1)


def test_an_empty_data_set_has_a_page(tmp_path):
    stats = written_shards.write_shard(tmp_path, "000000", written_shards.label_columns(0), {"bad_camera": 2})
    written_shards.write_manifest(tmp_path, [stats])
    write_report(find_shards([tmp_path]), tmp_path / "r.html")
    assert rows_of((tmp_path / "r.html").read_text(), "aic-release.npz") == [["2", "0", "2", "-"]]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/r\.html"):
        write_report(find_shards([tmp_path]), tmp_path / "file" / "r.html")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 400, width=32), min_size=1, max_size=60), st.integers(1, 59))
def test_distances_in_parts_are_those_of_the_whole(values, cut):
    values = np.array(values, np.float32)
    found = Distances()
    found.add(values[:cut])
    found.add(np.append(values[cut:], np.nan))
    assert found.mean == pytest.approx(values.mean(dtype=float), abs=1e-4)
    for part in (0.5, 0.95, 1.0):
        assert found.quantile(part) == pytest.approx(np.quantile(values, part, method="inverted_cdf"), abs=0.07)
    assert found.chart("x", 100.0).counts.sum() == len(values)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 1e5))
def test_axes_end_at_a_round_number_not_far_beyond(top):
    edges = round_edges(top)
    assert edges[0] == 0 and top * (1 - 1e-9) <= edges[-1] <= 1.51 * top
    assert float(f"{edges[-1]:.2g}") == pytest.approx(edges[-1])


def test_bars_have_the_heights_of_their_counts():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    counts = tally(np.array([0.5, 1.5, 1.6, 7.0, -3.0, np.nan, 2.5, 2.6]), edges)
    assert counts.tolist() == [2, 2, 3]
    chart = ElementTree.fromstring(histogram_svg(Histogram("a < b", edges, counts, marks=[(1.0, "red"), (9.0, "red")])))
    bars = [float(bar.get("height")) for bar in chart.iter(f"{SVG}rect")]
    assert np.array(bars) / bars[-1] == pytest.approx(counts / 3, abs=0.01)
    assert [line.get("stroke") for line in chart.iter(f"{SVG}line")].count("red") == 1
    assert "highest bar: 3" in [text.text for text in chart.iter(f"{SVG}text")]
    long, short = ElementTree.fromstring(bars_svg({"x": 10, "y": 5})).iter(f"{SVG}rect")
    assert float(long.get("width")) == pytest.approx(2 * float(short.get("width")))
