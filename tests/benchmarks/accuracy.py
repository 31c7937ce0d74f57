"""How near the fit comes to slow, strict fits of the same objective.

    python -m tests.benchmarks.accuracy [--people 10000] [--hard False]

Two tables. Hard poses against the oracle of `tests/reference_fit.py`, which shares nothing with the fitter (about ten
seconds a person). And everyday people by the thousand against the best of several strict runs of the fitter itself:
tolerances a hundred times as tight, from SMPL's rotations, from the rest pose, from random poses and from the fit.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fitting import SKEL, FitOptions, SKELFitter, load_smpl
from fitting.fit.stages import run_once
from tests.benchmarks.fit import people as everyday_people

sys.path.insert(0, str(Path(__file__).parents[1]))
from hard_poses import HUMAN, INHUMAN, people
from reference_fit import reference_fit


@dataclass
class Options:
    people: int = 1000
    """Everyday people for the second table; 0 leaves it out."""
    hard: bool = True
    """Make the first table."""
    batch_size: int = 128
    """People at a time."""


STRICT = FitOptions(step_tolerance=1e-5, cost_tolerance=1e-6, region_iterations=60, full_iterations=300)
MEASURES = ("vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm", "joint_error_mm")
WORSE = 1.05
"""A person is worse who ends by more than this factor farther from the target than the reference."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    console = Console()
    if options.hard:
        console.print(hard_table())
    if options.people:
        console.print(everyday_table(options.people, options.batch_size))


def hard_table() -> Table:
    poses, betas = people({**HUMAN, **INHUMAN})
    fit = SKELFitter(load_smpl.demo(), SKEL.demo()).fit(poses, betas)
    exact = SKELFitter(load_smpl("demo", dtype=torch.float64), SKEL.demo(torch.float64))
    table = Table("pose", title="mm: this fit / independent reference")
    for name in ("mean", "p95", "max", "joints"):
        table.add_column(name, justify="right")
    for row, name in enumerate(tqdm([*HUMAN, *INHUMAN])):
        slow = reference_fit(exact, poses[row].double(), betas[row].double())
        distances = slow.vertex_error_mm
        theirs = distances.mean(), np.quantile(distances, 0.95), distances.max(), slow.joint_error_mm.mean()
        ours = [getattr(fit, measure)[row] for measure in MEASURES]
        table.add_row(name, *(f"{float(a):.2f} / {b:.2f}" for a, b in zip(ours, theirs, strict=True)))
    return table


def everyday_table(count: int, batch_size: int) -> Table:
    smpl, skel = load_smpl.demo(), SKEL.demo()
    strict = SKELFitter(smpl, skel, STRICT)
    poses, betas = (torch.as_tensor(a, dtype=torch.float32) for a in everyday_people(count))
    fit = SKELFitter(smpl, skel).fit(poses, betas, batch_size=batch_size)
    generator = torch.Generator().manual_seed(0)
    parts = []
    for rows in tqdm(torch.arange(count).split(batch_size), desc="strict fits", unit="batch"):
        with torch.no_grad():
            parts.append(best_of_several(strict, poses[rows], betas[rows], fit.poses[rows], generator))
    vertices, joints = torch.cat(parts).split([skel.num_vertices, 24], 1)
    reference = (vertices.mean(1), vertices.quantile(0.95, dim=1), vertices.amax(1), joints.mean(1))
    table = Table("", title=f"{count} everyday people, mm: this fit against the best of strict ones")
    for name in ("this fit", "reference", "worst ratio", "people more than 5 % worse"):
        table.add_column(name, justify="right")
    for measure, theirs in zip(MEASURES, reference, strict=True):
        ours = getattr(fit, measure)
        ratio = ours / theirs
        numbers = f"{ours.mean():.4f}", f"{theirs.mean():.4f}", f"{ratio.max():.4f}", str(int((ratio > WORSE).sum()))
        table.add_row(measure, *numbers)
    return table


def best_of_several(
    strict: SKELFitter, poses: torch.Tensor, betas: torch.Tensor, found: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """(B, V + 24) distances in mm of the strict run with the lowest objective."""
    problem, start, _ = strict._problem(poses, betas, torch.zeros_like(poses[:, :3]))
    rest = torch.cat([start[:, :3], torch.zeros_like(start[:, 3:])], 1)
    shaken = start + 0.3 * torch.randn(start.shape, generator=generator)
    shaken[:, :3] = start[:, :3]
    low, high = strict.plan.bounds.unbind(1)
    starts = (start, rest, shaken, found)
    runs = [run_once(problem, torch.maximum(torch.minimum(q, high), low), strict.plan) for q in starts]
    best = torch.stack([run.cost for run in runs]).argmin(0)
    return 1000 * torch.stack([run.distances for run in runs])[best, torch.arange(len(poses))]


if __name__ == "__main__":
    main()
