"""`make bench`: what a fit costs, in people per second and in plain forward passes, and against a plain L-BFGS fitter.

    python -m tests.benchmarks.fit [--device cuda] [--people 512] [--batch-sizes 16 64 256]

On a CPU, times are CPU seconds of a single thread, so that a busy machine disturbs them little; the rate of all cores
is measured by the clock.
"""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from fitting import SKEL, SKELFitter, load_smpl
from fitting.fit.objective import FullObjective, RegionObjective
from fitting.fit.points import residual
from fitting.fit.result import fit_result
from fitting.fit.stages import fit_region, fit_whole, run_once
from pipelines.demo.poses import draw_poses, skel_rotations, smpl_pose
from tests.benchmarks.lbfgs_baseline import lbfgs_fit


@dataclass
class Options:
    device: str = "cpu"
    """Where to fit."""
    people: int = 256
    """People per measurement."""
    batch_sizes: list[int] = field(default_factory=lambda: [16, 64, 256])
    """Batch sizes to measure."""
    baseline_people: int = 16
    """People for the comparison with L-BFGS; 0 leaves it out."""


def best(work: Callable[[], object], clock: Callable[[], float], repeats: int = 3) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def clock_of(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    console = Console(width=140)
    cores = torch.get_num_threads()
    where = f"{platform.processor() or platform.machine()}, {cores} cores" if options.device == "cpu" else ""
    console.print(f"torch {torch.__version__}, {where or torch.cuda.get_device_name()}")
    torch.set_num_threads(1)
    skel = SKEL.demo().to(options.device)
    fitter = SKELFitter(load_smpl.demo().to(options.device), skel)
    poses, betas = (torch.as_tensor(v, dtype=torch.float32, device=options.device) for v in people(options.people))
    rates(console, fitter, poses, betas, options, cores)
    parts(console, fitter, poses, betas, options)
    if options.baseline_people:
        baseline(console, fitter, poses[: options.baseline_people], betas[: options.baseline_people], options.device)


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    """SMPL poses (B, 72) and betas (B, 10) of the demo's people, which move as people do."""
    rng = np.random.default_rng(0)
    skel = SKEL.demo(torch.float64)
    drawn = draw_poses(count, skel, rng)
    with torch.no_grad():
        poses = smpl_pose(skel_rotations(drawn.q, skel)).flatten(1).numpy()
    return poses, rng.normal(0, 0.5, (count, 10))


def rates(console, fitter, poses, betas, options: Options, cores: int) -> None:
    clock = clock_of(options.device)
    table = Table(title=f"whole fit of {len(poses)} people, {fitter.skel.num_vertices} vertices, float32")
    for name in (
        "batch",
        "ms/person, one core",
        "forward passes",
        f"people/s, {cores} cores",
        "mean mm",
        "p95",
        "max",
        "peak MiB",
    ):
        table.add_column(name, justify="right")
    for size in options.batch_sizes:
        with torch.no_grad():
            chunks = list(zip(poses.split(size), betas.split(size), strict=True))
            q = [torch.zeros(len(b), 46, device=b.device) + 0.1 for _, b in chunks]
            forward = best(
                lambda q=q, chunks=chunks: [fitter.skel(a, b) for a, (_, b) in zip(q, chunks, strict=True)], clock
            )
        whole = best(lambda size=size: fitter.fit(poses, betas, batch_size=size, threads=1), clock, 1)
        fit = fitter.fit(poses, betas, batch_size=size, threads=cores)
        wall = best(lambda size=size: fitter.fit(poses, betas, batch_size=size, threads=cores), time.perf_counter, 1)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if options.device != "cpu":
            memory = torch.cuda.max_memory_allocated() / 2**20
        errors = [fit.vertex_error_mm.mean(), fit.vertex_error_p95_mm.mean(), fit.max_vertex_error_mm.mean()]
        table.add_row(
            str(size),
            f"{1000 * whole / len(poses):.2f}",
            f"{whole / forward:.1f}",
            f"{len(poses) / wall:.0f}",
            *(f"{float(e):.2f}" for e in errors),
            f"{memory:.0f}",
        )
    console.print(table)


def parts(console, fitter, poses, betas, options: Options) -> None:
    """What each stage and each kernel costs, at each batch size."""
    columns = {size: part_seconds(fitter, poses[:size], betas[:size], options.device) for size in options.batch_sizes}
    table = Table("ms per person (forward passes) at a batch of", title="stages and kernels")
    for size in options.batch_sizes:
        table.add_column(str(size), justify="right")
    for name in next(iter(columns.values())):
        numbers = [(1000 * part[name], part[name] / part["SKEL forward pass"]) for part in columns.values()]
        table.add_row(name, *(f"{ms:.3f} ({passes:.2f})" for ms, passes in numbers))
    console.print(table)


def part_seconds(fitter, poses, betas, device: str, repeats: int = 3) -> dict[str, float]:
    """Seconds per person of a batch."""
    skel, points, plan = fitter.skel, fitter.points, fitter.plan
    no_trans = torch.zeros_like(poses[:, :3])
    with torch.no_grad():
        problem, start, _ = fitter._problem(poses, betas, no_trans)
        rest = skel.rest_frames(skel.rest_joints(betas))
        everyone = torch.arange(len(poses), device=poses.device)
        rest_of_centre = skel.rest_frames(skel.rest_joints(problem.betas_centre))
        lowered, _, _ = fit_region(problem, "lower", rest_of_centre, start, plan)
        raised, _, _ = fit_region(problem, "upper", rest_of_centre, lowered, plan)
        outcome = run_once(problem, start, plan)
        regions = {n: RegionObjective(problem, plan.regions[n], rest, betas, start) for n in ("lower", "upper")}
        full = FullObjective(problem, plan.regions["full"], start, betas, True)
        features = torch.zeros(len(poses), 207, device=poses.device)
        at_rest = points.at_rest(betas, features)
        transforms, weights = regions["lower"].transforms, plan.regions["full"].weights
        compare = partial(residual, points, weights, transforms, at_rest, problem.target)
        work = {
            "SKEL forward pass": lambda: skel(start, betas),
            "stage: target, root and start": lambda: fitter._problem(poses, betas, no_trans),
            "stage: lower body": lambda: fit_region(problem, "lower", rest_of_centre, start, plan),
            "stage: upper body": lambda: fit_region(problem, "upper", rest_of_centre, lowered, plan),
            "stage: full body": lambda: fit_whole(problem, raised, plan),
            "stage: quality record": lambda: fit_result(outcome, problem, no_trans, everyone >= 0),
            "smplx forward pass": lambda: fitter.smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3]),
            "points at rest": lambda: points.at_rest(betas, features),
            "residual": compare,
            "residual and gradient": lambda: compare(wrench=True, by_directions=True),
            "begin a region": lambda: RegionObjective(problem, plan.regions["lower"], rest, betas, start),
            "iteration, lower body": lambda: regions["lower"](regions["lower"].start(), everyone),
            "iteration, upper body": lambda: regions["upper"](regions["upper"].start(), everyone),
            "iteration, full body with betas": lambda: full(full.start(), everyone),
        }
        return {name: best(run, clock_of(device), repeats) / len(poses) for name, run in work.items()}


def baseline(console, fitter, poses, betas, device: str) -> None:
    clock = clock_of(device)
    with torch.no_grad():
        target = fitter.smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3]).vertices
        root = fitter.fit(poses, betas).poses[:, :3]
    began = clock()
    found = lbfgs_fit(fitter.skel, target, root, betas, torch.zeros_like(poses[:, :3]))
    slow = clock() - began
    fast = best(lambda: fitter.fit(poses, betas, threads=1), clock, 1)
    fit = fitter.fit(poses, betas)
    with torch.no_grad():
        plain = 1000 * (fitter.skel(found, betas).vertices - target).norm(dim=-1)
        ours = 1000 * (fitter.skel(fit.poses, fit.betas, fit.trans).vertices - target).norm(dim=-1)
    table = Table("fitter", title=f"{len(poses)} people")
    for name in ("people/s, one core", "mean mm", "p95", "max", "worst person's mean"):
        table.add_column(name, justify="right")
    for name, seconds, distance in (("L-BFGS over the batch", slow, plain), ("this project", fast, ours)):
        numbers = [
            distance.mean(),
            distance.quantile(0.95, dim=1).mean(),
            distance.amax(1).mean(),
            distance.mean(1).max(),
        ]
        table.add_row(name, f"{len(poses) / seconds:.2f}", *(f"{float(n):.2f}" for n in numbers))
    console.print(table)


if __name__ == "__main__":
    main()
