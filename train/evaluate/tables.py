"""Measured figures beside the paper's, in its layout, within 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from train.benchmarks.known import Benchmark

WIDTH = 80
SIDE_BY_SIDE = 3
"""Benchmarks in one table."""
NAME_WIDTH = 22
_COLUMNS = (("MPJPE", "mpjpe_mm"), ("PA", "pa_mpjpe_mm"), ("PVE", "pve_mm"))
_SHARES = (("@0.05", "pck_0.05"), ("@0.1", "pck_0.1"))


@dataclass(frozen=True)
class Result:
    """The summary of a row of the table on one benchmark."""

    benchmark: str
    method: str
    variant: str
    """published or clean"""
    stage: str
    numbers: dict[str, Any]
    seconds: float


def main_tables(benchmarks: dict[str, Benchmark], results: Sequence[Result]) -> list[Table]:
    """Methods below the paper's rows, benchmarks side by side."""
    finals = [r for r in results if r.stage == "final"]
    names = list(benchmarks)
    parts = [names[n : n + SIDE_BY_SIDE] for n in range(0, len(names), SIDE_BY_SIDE)]
    return [_table({name: benchmarks[name] for name in part}, finals) for part in parts]


def _table(benchmarks: dict[str, Benchmark], results: Sequence[Result]) -> Table:
    table = _plain("")
    table.add_column("\nmm", max_width=NAME_WIDTH, overflow="fold", no_wrap=False)
    for benchmark in benchmarks.values():
        for n, (column, _) in enumerate(_columns(benchmark)):
            table.add_column(f"{benchmark.title if not n else ''}\n{column}", justify="right", no_wrap=n > 0)
    for method in dict.fromkeys(m for b in benchmarks.values() for m in b.published):
        cells = []
        for b in benchmarks.values():
            values = b.published.get(method, ())
            cells += [_number(v) for v in values] + [""] * (len(_columns(b)) - len(values))
        table.add_row(method, *cells, style="dim")
    for method, variant in dict.fromkeys((r.method, r.variant) for r in results):
        cells, known = [], False
        for name, b in benchmarks.items():
            found = next((r for r in results if (r.benchmark, r.method, r.variant) == (name, method, variant)), None)
            known |= found is not None
            cells += [_cell(found, key) for _, key in _columns(b)]
        if known:
            table.add_row(method if variant == "published" else f"  {variant}", *cells)
    return table


def method_table(results: Sequence[Result]) -> Table:
    """How long each method takes, and whether its people could be anybody's."""
    table = _plain("Seconds per person; joint angles beyond their limits")
    table.add_column("", max_width=NAME_WIDTH, overflow="fold")
    for title in ("benchmark", "s", "all\n>0°", "knees\n>0°", "knees\n>10°", "elbows\n>0°", "elbows\n>10°"):
        table.add_column(title, justify="left" if title == "benchmark" else "right")
    for r in results:
        if r.stage != "final" or r.variant != "published":
            continue
        reality = r.numbers["reality"]
        keys = ("all_beyond_0", "knees_beyond_0", "knees_beyond_10", "elbows_beyond_0", "elbows_beyond_10")
        shares = [f"{100 * reality[f'{key}_deg']:.1f} %" for key in keys]
        table.add_row(r.method, r.benchmark, f"{r.seconds:.3f}", *shares)
    return table


def stage_table(benchmark: str, results: Sequence[Result]) -> Table:
    """What each stage of a network gains on a benchmark, and what the camera of each layer is worth."""
    table = _plain(f"{benchmark}: layer by layer, mm, and accuracy of keypoints")
    table.add_column("", max_width=NAME_WIDTH, overflow="fold")
    columns = [("stage", ""), *_COLUMNS, *_SHARES]
    for title, key in columns:
        table.add_column(title, justify="right" if key else "left")
    for r in results:
        if r.benchmark == benchmark and r.variant == "published":
            table.add_row(r.method, r.stage, *(_cell(r, key) for _, key in columns[1:]))
    return table


def _columns(benchmark: Benchmark) -> tuple[tuple[str, str], ...]:
    return _SHARES if benchmark.protocol == "keypoints" else _COLUMNS[:2] if benchmark.protocol == "h36m" else _COLUMNS


def _cell(result: Result | None, key: str) -> str:
    value = None if result is None else result.numbers.get(key)
    return _number(value["mean"] if isinstance(value, dict) else value)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) <= 1 else f"{value:.1f}"


def _plain(title: str) -> Table:
    from rich.table import Table

    return Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
