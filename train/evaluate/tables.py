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
CELL = 6
"""Characters of a number."""
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


def main_tables(benchmarks: dict[str, Benchmark], results: Sequence[Result]) -> str:
    """Methods below the paper's rows, up to three benchmarks side by side."""
    finals = [r for r in results if r.stage == "final"]
    names = list(benchmarks)
    parts = [names[n : n + SIDE_BY_SIDE] for n in range(0, len(names), SIDE_BY_SIDE)]
    return "\n\n".join(_table({name: benchmarks[name] for name in part}, finals) for part in parts)


def _table(benchmarks: dict[str, Benchmark], results: Sequence[Result]) -> str:
    width = CELL * len(_COLUMNS)
    known = list(benchmarks.values())
    lines = ["".join([" " * NAME_WIDTH, *(f" {b.title[: width - 1]:>{width - 1}} " for b in known)]).rstrip()]
    lines.append(_line("mm", [[column for column, _ in _columns(b)] for b in known]))
    for method in dict.fromkeys(m for b in known for m in b.published):
        told = [[_number(v) for v in b.published.get(method, ())] for b in known]
        lines.append(_line(method, [v + [""] * (len(_columns(b)) - len(v)) for v, b in zip(told, known, strict=True)]))
    for method, variant in _rows(results):
        cells = []
        for name, b in benchmarks.items():
            same = (r for r in results if (r.benchmark, r.method, r.variant) == (name, method, variant))
            found = next(same, None)
            cells.append([] if found is None else [_cell(found, key) for _, key in _columns(b)])
        if any(cells):
            lines.append(_line(method if variant == "published" else f"  {variant}", cells))
    return "\n".join(lines)


def _rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Each method with its variants, which benchmarks need not have in common."""
    found: dict[str, dict[str, None]] = {}
    for r in results:
        found.setdefault(r.method, {})[r.variant] = None
    return [(method, variant) for method, variants in found.items() for variant in sorted(variants, reverse=True)]


def _line(name: str, blocks: Sequence[Sequence[str]]) -> str:
    name = name if len(name) < NAME_WIDTH else name[: NAME_WIDTH - 2] + "\u2026"
    cells = [f"{''.join(f'{cell:>{CELL}}' for cell in block):>{CELL * len(_COLUMNS)}} " for block in blocks]
    return "".join([f"{name:<{NAME_WIDTH}}", *cells]).rstrip()


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
    table = _plain(f"{benchmark}: layer by layer")
    table.add_column("", max_width=NAME_WIDTH, overflow="fold")
    columns = [("stage", ""), *_COLUMNS, *_SHARES]
    for title, key in columns:
        table.add_column(title, justify="right" if key else "left")
    mine = [r for r in results if r.benchmark == benchmark and r.variant == "published"]
    staged = {r.method for r in mine if r.stage != "final"}
    for r in mine:
        # A shift is seen in pictures alone: where nothing is labelled there its rows would repeat those of the layers.
        if r.method in staged and ("shift" not in r.stage or "pck_0.05" in r.numbers):
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
    if value <= 1:
        return f"{value:.2f}"
    # What is larger than anybody keeps a gap to the cell before.
    return f"{value:.1f}" if value < 999.95 else f"{value:.0f}" if value < 99999 else f"{value:.0e}"


def _plain(title: str) -> Table:
    from rich.table import Table

    return Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
