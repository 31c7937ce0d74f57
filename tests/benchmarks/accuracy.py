"""All hard poses against the slow reference fit: python -m tests.benchmarks.accuracy (about ten seconds a person)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fitting import SKEL, SKELFitter, load_smpl

sys.path.insert(0, str(Path(__file__).parents[1]))
from hard_poses import HUMAN, INHUMAN, people
from reference_fit import reference_fit


def main() -> None:
    poses, betas = people({**HUMAN, **INHUMAN})
    fit = SKELFitter(load_smpl.demo(), SKEL.demo()).fit(poses, betas)
    exact = SKELFitter(load_smpl("demo", dtype=torch.float64), SKEL.demo(torch.float64))
    table = Table("pose", title="vertex distance, mm: this fit / reference")
    for name in ("mean", "p95", "max"):
        table.add_column(name, justify="right")
    for row, name in enumerate(tqdm([*HUMAN, *INHUMAN])):
        slow = reference_fit(exact, poses[row].double(), betas[row].double()).vertex_error_mm
        ours = fit.vertex_error_mm[row], fit.vertex_error_p95_mm[row], fit.max_vertex_error_mm[row]
        theirs = slow.mean(), np.quantile(slow, 0.95), slow.max()
        table.add_row(name, *(f"{float(a):.2f} / {b:.2f}" for a, b in zip(ours, theirs, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
