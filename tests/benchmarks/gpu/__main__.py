"""One call on a GPU machine: `python -m tests.benchmarks.gpu --out DIR`.

Fit, SKEL's forward pass, loader, training step, prediction and its detector, each beside what it must cost (`counted`).
Under eight minutes, without network. DIR/gpu.json is written after every part, DIR/gpu.txt has the tables. `--reduced`
is for a CPU: the same parts at a size that shows only that they run.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipelines.command.devices import cores, one_device
from tests.benchmarks.gpu.body import CUDA_GRAPHS, Bodies, fit_rows, forward_rows, stage_rows
from tests.benchmarks.gpu.counted import rates_of
from tests.benchmarks.gpu.network import detect_rows, loader_rows, peak_of, predict_rows, step_rows

Row = dict[str, Any]

_FULL = {
    "fit": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
    "stages": [64, 1024, 8192],
    "backbone": "h",
    "steps": [64, 128, 256],
    "predict": [1, 32, 128],
    "detect": [1, 4, 16],
    "loader": {"people": 64, "seconds": 5.0, "workers": [2, 4, 8], "steps": 50, "step": 0.1},
}
_REDUCED = {
    "fit": [8],
    "stages": [8],
    "backbone": "tiny",
    "steps": [2],
    "predict": [2],
    "detect": [1],
    "loader": {"people": 4, "seconds": 0.2, "workers": [1], "steps": 2, "step": 0.01},
}


def environment(device: torch.device) -> Row:
    """Where this is measured."""
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_cores": cores(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {"name": facts.name, "memory_mib": facts.total_memory >> 20, "cuda": torch.version.cuda}
        found |= {"peak_bf16_flops": peak_of(device)}
    return found


class Report:
    """What was measured so far, in a file that is rewritten after every row."""

    def __init__(self, folder: Path, head: Row) -> None:
        self.folder, self.found = folder, head
        self.began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str, rows: Iterable[Row]) -> None:
        """The rows of a part as they come; one that fails is told and ends the part, not the others."""
        self.found[name] = mine = []
        try:
            for row in rows:
                mine.append(row)
                self.write()
        except Exception as error:
            mine.append({"problem": f"{type(error).__name__}: {error}"})
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        self.write()

    def write(self) -> None:
        (self.folder / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")

    def tables(self) -> list[Table]:
        parts = {name: rows for name, rows in self.found.items() if isinstance(rows, list)}
        return [_turned(name, rows) if name == "stages" else _table(name, rows) for name, rows in parts.items()]


def _table(name: str, rows: list[Row]) -> Table:
    table, names = Table(title=name, title_justify="left"), list(dict.fromkeys(key for row in rows for key in row))
    for key in names:
        table.add_column(key.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_text(row.get(key)) for key in names))
    return table


def _turned(name: str, rows: list[Row]) -> Table:
    """A row of the table for each name, a column for each row."""
    table = Table("", *(f"batch {row['batch']}" for row in rows if "batch" in row), title=name, title_justify="left")
    for key in dict.fromkeys(key for row in rows for key in row if key != "batch"):
        table.add_row(key, *(_text(row.get(key)) for row in rows if "batch" in row))
    return table


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.txt")
    parser.add_argument("--reduced", action="store_true", help="a size for a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=7.5, help="compiled steps are left out beyond them")
    options = parser.parse_args(argv)
    device, size = torch.device(one_device(options.device)), _REDUCED if options.reduced else _FULL
    rates = rates_of(device, options.reduced)
    report = Report(options.out, {"environment": environment(device), "rates": asdict(rates)})
    report.found["cuda_graphs"] = CUDA_GRAPHS

    def left() -> float:
        return 60 * options.minutes - (time.monotonic() - report.began)

    bodies = Bodies(device, max(size["fit"]))
    report.take("fit", fit_rows(bodies, size["fit"], rates))
    report.take("SKEL forward", forward_rows(bodies, size["fit"], rates))
    report.take("stages", stage_rows(bodies, size["stages"], repeats=1 if options.reduced else 3))
    del bodies
    report.take("predict", predict_rows(size["backbone"], size["predict"], device, rates))
    report.take("detect", detect_rows(size["detect"], device, rates))
    report.take("loader", loader_rows(**size["loader"]))
    steps = {"steps": 1, "compiled": False} if options.reduced else {}
    report.take("training step", step_rows(size["backbone"], size["steps"], device, rates, left, **steps))
    with (options.out / "gpu.txt").open("w") as file:
        for console in (Console(file=file, width=200), Console(width=200)):
            console.print({name: value for name, value in report.found.items() if not isinstance(value, list)})
            for table in report.tables():
                console.print(table)


if __name__ == "__main__":
    main()
