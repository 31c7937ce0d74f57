"""The benchmark of GPU machines at a reduced size: its parts run, and what it counts is what is computed."""

from __future__ import annotations

import json

import pytest
import torch

from tests.benchmarks.gpu.__main__ import main
from tests.benchmarks.gpu.body import Bodies, fit_rows
from tests.benchmarks.gpu.counted import Count, Rates, counted

pytestmark = pytest.mark.usefixtures("one_thread")

RATES = Rates(float32=1e9, bf16=1e9, copy=1e9, calls=1e6)


@pytest.fixture(autouse=True)
def _settings_of_torch():
    allowed, threads = torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads()
    yield
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.set_num_threads(threads)


def test_every_part_runs_at_a_reduced_size(tmp_path, capsys):
    main(["--out", str(tmp_path), "--reduced", "--device", "cpu"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    parts = {name: rows for name, rows in found.items() if isinstance(rows, list)}
    assert set(parts) == {"fit", "SKEL forward", "stages", "predict", "detect", "loader", "training step"}
    for name, rows in parts.items():
        assert rows, name
        assert not [row["problem"] for row in rows if "problem" in row], name
    for name in ("fit", "SKEL forward", "predict", "training step"):
        for row in parts[name]:
            assert row["people_per_s"] == pytest.approx(1e3 * row["batch"] / row["ms"])
            assert row["floor_ms"] > 0
    assert found["environment"]["torch"] == torch.__version__
    assert "not there" in found["cuda_graphs"]
    told = (tmp_path / "gpu.txt").read_text()
    assert all(name in told and name in capsys.readouterr().out + told for name in parts)


def test_operations_of_a_forward_pass_are_those_counted_by_hand(demo_skel):
    people, vertices = 3, demo_skel.num_vertices
    poses, betas = torch.zeros(people, 46), torch.zeros(people, 10)
    with torch.no_grad():
        found = counted(lambda: demo_skel(poses, betas))
    shapes, correctives, blending = 2 * 10 * 3 * vertices, 2 * 207 * 3 * vertices, 2 * 24 * 12 * vertices
    assert found.flops / people == pytest.approx(shapes + correctives + blending, rel=0.01)
    assert found.bytes >= demo_skel.posedirs.nbytes + people * 3 * 4 * vertices
    assert found.waits == 0


def test_a_fit_is_counted_with_its_waits():
    bodies = Bodies(torch.device("cpu"), 8)
    (row,) = fit_rows(bodies, [8], RATES)
    assert row["host_waits"] > 0 and row["calls"] > 1000
    assert 20 < row["mflop_per_person"] < 400  # fitting/README.md: 177 million


def test_the_floor_is_the_longest_of_three():
    floors = RATES.floor(Count(flops=3e6, bytes=2e6, calls=1000, waits=0))
    assert floors == pytest.approx(
        {"floor_flops_ms": 3, "floor_bytes_ms": 2, "floor_calls_ms": 1, "floor_ms": 3},
    )
    assert RATES.floor(Count(3e6, 0, 0, 0), flops_per_s=3e9)["floor_ms"] == pytest.approx(1)
