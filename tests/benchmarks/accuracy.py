"""How near the fit comes to slow, strict fits of the same objective.

    python -m tests.benchmarks.accuracy [--people 10000] [--no-hard] [--oracle 90] [--motion MOTION.npz]

Five tables. Hard poses against the oracle of `tests/reference_fit.py`, which shares nothing with the fitter (about ten
seconds a person). Everyday people by the thousand against the best of several strict runs of the fitter itself:
tolerances a hundred times as tight, from SMPL's rotations, from the rest pose, from random poses and from the fit. The
range of motion of `tests/range_of_motion.py` against a fit without limits and, for the first `--oracle` poses, against
the oracle. Known SKEL poses, found again from their meshes. And, for a motion, how constant shape and bones are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fitting import SKEL, FitOptions, SKELFitter, load_smpl
from fitting.anatomy import (
    COORDINATE_NAMES,
    FEMUR_L,
    FEMUR_R,
    HUMERUS_L,
    HUMERUS_R,
    TALUS_R,
    TIBIA_R,
    ULNA_R,
)
from fitting.body.kinematics import COORDINATE_OF_SLOT
from fitting.body.limits import HUMAN_LIMITS
from fitting.fit.options import BETAS_PRIORS
from fitting.fit.stages import run_once, run_stages
from pipelines.demo.poses import axis_angles, rotation_matrices, skel_rotations, smpl_pose
from schemas import VERDICTS
from tests.benchmarks.fit import people as everyday_people

sys.path.insert(0, str(Path(__file__).parents[1]))
import range_of_motion as motions
from hard_poses import HUMAN, INHUMAN, people
from reference_fit import reference_fit


@dataclass
class Options:
    people: int = 1000
    """Everyday people for the second table; 0 leaves it out."""
    hard: bool = True
    """Make the first table."""
    range_of_motion: bool = True
    """Make the third table."""
    oracle: int = 0
    """Poses of the third table that are also fitted by the oracle."""
    recovered: int = 256
    """SKEL poses for the fourth table; 0 leaves it out."""
    motion: str = ""
    """Motion of one person (.npz with poses, betas, trans) for the fifth table."""
    batch_size: int = 128
    """People at a time."""


STRICT = FitOptions(step_tolerance=1e-5, cost_tolerance=1e-6, region_iterations=60, full_iterations=300)
MEASURES = ("vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm", "joint_error_mm")
LIMITS_COMPARED = ("human", "none", "bsm")
LIMBS = {"femur": (FEMUR_R, TIBIA_R), "tibia": (TIBIA_R, TALUS_R), "humerus": (HUMERUS_R, ULNA_R)}
RANGE_DRAWN = 0.5
"""Known poses are drawn from so much of the human range: all of it at once is no body without folds."""
LABEL_ERROR = np.radians(5)
"""By how much SMPL's rotations miss the mesh's, in each joint."""
WORSE = 1.05
"""A person is worse who ends by more than this factor farther from the target than the reference."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    console = Console()
    if options.hard:
        console.print(hard_table())
    if options.range_of_motion:
        console.print(range_of_motion_table(options.oracle))
    if options.recovered:
        console.print(recovery_table(options.recovered))
    if options.motion:
        console.print(constancy_table(options.motion))
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


def range_of_motion_table(oracle: int) -> Table:
    smpl, skel = load_smpl.demo(), SKEL.demo()
    names, poses = [*motions.HUMAN, *motions.INHUMAN], motions.smpl_poses(motions.HUMAN | motions.INHUMAN)
    betas = torch.zeros(len(poses), 10)
    human, free, bsm = (SKELFitter(smpl, skel, FitOptions(limits=name)).fit(poses, betas) for name in LIMITS_COMPARED)
    exact = SKELFitter(load_smpl("demo", dtype=torch.float64), SKEL.demo(torch.float64))
    table = Table("pose", title="mean vertex distance, mm")
    for name in (*LIMITS_COMPARED, "oracle", "verdict", "angles on a limit"):
        table.add_column(name, justify="right")
    for row, name in enumerate(tqdm(names, disable=not oracle)):
        slow = ""
        if row < oracle:
            slow = f"{reference_fit(exact, poses[row].double(), betas[row].double()).vertex_error_mm.mean():.2f}"
        distances = (f"{float(fit.vertex_error_mm[row]):.2f}" for fit in (human, free, bsm))
        pressed = ", ".join(COORDINATE_NAMES[c] for c in human.limits_pressed[row].nonzero().flatten())
        table.add_row(name, *distances, slow, VERDICTS[human.verdict[row]], pressed)
    return table


def recovery_table(count: int) -> Table:
    """Meshes of SKEL at random angles, found again from SMPL rotations that are off by LABEL_ERROR in each joint."""
    smpl, skel = load_smpl.demo(), SKEL.demo()
    generator = np.random.default_rng(0)
    q = generator.uniform(*(RANGE_DRAWN * np.nan_to_num(HUMAN_LIMITS, posinf=1, neginf=-1)).T, (count, 46))
    noise = rotation_matrices(torch.from_numpy(generator.normal(0, LABEL_ERROR / 3**0.5, (count, 24, 3))))
    noise[:, 0] = torch.eye(3)
    exact = smpl_pose(skel_rotations(q, SKEL.demo(torch.float64)))
    poses = axis_angles(rotation_matrices(exact.unflatten(1, (24, 3))) @ noise).flatten(1).float()
    fitter, zero = SKELFitter(smpl, skel), torch.zeros(count, 10)
    with torch.no_grad():
        problem, start, _ = fitter._problem(poses, zero, zero[:, :3])
        known = torch.as_tensor(q).float()
        known[:, :3] = start[:, :3]
        mesh = skel(known, problem.betas_centre).vertices
        target = torch.cat([mesh, skel.J_regressor @ mesh], 1).transpose(1, 2).contiguous()
        found = run_stages(replace(problem, target=target), start, fitter.plan)
    errors, before = (_degrees_apart(poses, known) for poses in (found.poses, start))
    table = Table("coordinate", title=f"{count} meshes of SKEL: error of the angle, degrees")
    for name in ("median at the start", "median", "90 %", "above 5 degrees"):
        table.add_column(name, justify="right")
    for c, name in list(enumerate(COORDINATE_NAMES))[3:]:
        numbers = before[:, c].median(), errors[:, c].median(), errors[:, c].quantile(0.9)
        table.add_row(name, *(f"{float(n):.2f}" for n in numbers), f"{float((errors[:, c] > 5).float().mean()):.1%}")
    return table


def _degrees_apart(found: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(B, 46) absolute differences, whole turns and the other writing of three perpendicular turns left out."""
    away = torch.rad2deg(found - known)
    same = (away + 180) % 360 - 180
    for joint in (FEMUR_R, FEMUR_L, HUMERUS_R, HUMERUS_L):
        triple = torch.as_tensor(COORDINATE_OF_SLOT[joint])
        other = torch.rad2deg(found[:, triple] * torch.tensor([1, -1, 1]) + torch.pi - known[:, triple])
        other = (other + 180) % 360 - 180
        better = other.abs().sum(1) < same[:, triple].abs().sum(1)
        same[:, triple] = torch.where(better[:, None], other, same[:, triple])
    return same.abs()


def constancy_table(path: str) -> Table:
    """Frames of one person, each fitted alone: what should be one shape, by how much it varies."""
    smpl, skel = load_smpl.demo(), SKEL.demo()
    with np.load(path) as file:
        source = [torch.as_tensor(file[name], dtype=torch.float32) for name in ("poses", "betas", "trans")]
    table = Table("betas", title=f"standard deviation over {len(source[0])} frames, mm but for betas")
    for name in ("mean distance", "betas", *LIMBS, "largest betas change"):
        table.add_column(name, justify="right")
    for choice in BETAS_PRIORS:
        fit = SKELFitter(smpl, skel, FitOptions(betas=choice)).fit(*source)
        joints = 1000 * skel.rest_joints(fit.betas)
        lengths = [(joints[:, end] - joints[:, begin]).norm(dim=1).std() for begin, end in LIMBS.values()]
        numbers = [fit.vertex_error_mm.mean(), fit.betas.std(0).mean(), *lengths, fit.betas_change.max()]
        table.add_row(choice, *(f"{float(n):.4f}" for n in numbers))
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
