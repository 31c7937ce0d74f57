"""Motion as a whole: exact gradients, one shape, smoothness of the target, no seams."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_linearisation import problem, region, skel, true_cost, weighted_residuals  # noqa: F401

from fitting import SKELFitter
from fitting.fit import sequence as seq
from fitting.fit.sequence import SequenceOptions
from fitting.fit.solver import SolverOptions
from fitting.fit.stages import Plan

FRAMES = 3


@pytest.fixture(scope="module")
def plan(region) -> Plan:  # noqa: F811
    free = torch.full((46, 2), torch.inf, dtype=torch.float64) * torch.tensor([-1.0, 1.0])
    return Plan({"full": region}, free, True, SolverOptions(), SolverOptions(), 1.0)


@pytest.fixture(scope="module")
def motion(problem):  # noqa: F811
    """One betas for all frames, poses near each other."""
    generator = torch.Generator().manual_seed(5)
    betas = torch.randn(10, generator=generator, dtype=torch.float64)
    poses = 0.4 * torch.randn(FRAMES, 46, generator=generator, dtype=torch.float64)
    one_shape = dataclasses.replace(problem, betas_centre=problem.betas_centre[:1].expand(FRAMES, -1))
    return one_shape, poses, betas


@pytest.mark.parametrize("frames_at_a_time", [1, 2, 64])
def test_cost_and_gradient_of_the_sequence(motion, region, plan, frames_at_a_time):  # noqa: F811
    """Against autograd, whatever the chunks."""
    problem, poses, betas = motion  # noqa: F811
    options = SequenceOptions(smoothness=7.0, frames_at_a_time=frames_at_a_time)
    found = seq._assemble(problem, plan, poses.numpy(), betas.numpy(), options)
    x, b = poses.clone().requires_grad_(), betas.clone().requires_grad_()
    cost = true_cost(problem, region, x, b.expand(FRAMES, -1)).sum()
    r = weighted_residuals(problem, region, x, b.expand(FRAMES, -1))
    cost = cost + 7.0 * (r[1:] - r[:-1]).square().sum()
    by_poses, by_betas = torch.autograd.grad(cost, (x, b))
    assert found.cost == pytest.approx(float(cost), rel=1e-10)
    by_poses = by_poses[:, 3:].numpy()
    np.testing.assert_allclose(2 * found.gradient, by_poses, atol=1e-8 * np.abs(by_poses).max())
    np.testing.assert_allclose(2 * found.betas_gradient, by_betas.numpy(), atol=1e-8 * float(by_betas.abs().max()))


def test_banded_solution_is_that_of_the_dense_system(motion, plan):
    problem, poses, betas = motion  # noqa: F811
    system = seq._assemble(problem, plan, poses.numpy(), betas.numpy(), SequenceOptions())
    held = np.zeros((FRAMES, 43), bool)
    held[1, 5] = held[2, 40] = True
    step, betas_step = seq._solve(system, held, 1e-3, fit_betas=True)
    size = FRAMES * 43
    dense = np.zeros((size + 10, size + 10))
    for t in range(FRAMES):
        rows = slice(43 * t, 43 * t + 43)
        scale = np.diag(system.diagonal[t]) + 1e-6 * np.diag(system.diagonal[t]).max()
        dense[rows, rows] = system.diagonal[t] + 1e-3 * np.diag(scale)
        dense[size:, rows], dense[rows, size:] = system.border[t], system.border[t].T
        if t + 1 < FRAMES:
            after = slice(43 * t + 43, 43 * t + 86)
            dense[rows, after], dense[after, rows] = system.neighbour[t], system.neighbour[t].T
    dense[size:, size:] = system.betas_block + 1e-3 * np.diag(np.diag(system.betas_block))
    gradient = np.concatenate([system.gradient.ravel(), system.betas_gradient])
    free = np.concatenate([~held.ravel(), np.ones(10, bool)])
    expected = np.zeros(size + 10)
    expected[free] = np.linalg.solve(dense[free][:, free], -gradient[free])
    scale = np.abs(expected).max()
    # Scaling inside differs only where coordinates are held: there the largest free diagonal counts.
    np.testing.assert_allclose(step.ravel(), expected[:size], atol=1e-5 * scale)
    np.testing.assert_allclose(betas_step, expected[size:], atol=1e-5 * scale)
    assert (step[held] == 0).all()


@pytest.fixture(scope="module")
def running(shared):
    with np.load(shared / "real" / "running_smpl.npz") as data:
        return {name: data[name] for name in ("poses", "betas", "trans")}


@pytest.fixture(scope="module")
def fits(demo_smpl, demo_skel, running):
    fitter = SKELFitter(demo_smpl, demo_skel)
    arguments = running["poses"], running["betas"], running["trans"]
    return fitter, arguments, fitter.fit(*arguments), fitter.fit_sequence(*arguments)


def acceleration(points: torch.Tensor) -> float:
    """Mean norm of second differences over frames, (T, N, 3)."""
    return float((points[2:] - 2 * points[1:-1] + points[:-2]).norm(dim=-1).mean())


def test_running_is_as_smooth_as_its_target_and_as_near(fits, demo_smpl, demo_skel):
    _, (poses, betas, trans), alone, together = fits
    assert together.converged.all()
    assert together.vertex_error_mm.mean() <= 1.02 * alone.vertex_error_mm.mean()
    with torch.no_grad():
        mesh = demo_smpl(
            betas=torch.tensor(betas),
            body_pose=torch.tensor(poses[:, 3:]),
            global_orient=torch.tensor(poses[:, :3]),
            transl=torch.tensor(trans),
        ).vertices
        skin = {name: demo_skel(f.poses, f.betas, f.trans).vertices for name, f in (("t", together), ("a", alone))}
    # Joints regressed from both skins alike, as evaluations do.
    jitter = {name: acceleration(demo_smpl.J_regressor @ vertices) for name, vertices in skin.items()}
    assert jitter["t"] <= acceleration(demo_smpl.J_regressor @ mesh)
    assert jitter["t"] < jitter["a"]


def test_sequence_has_one_shape_and_keeps_limits(fits):
    _, _, _, together = fits
    assert (together.betas == together.betas[0]).all()
    assert (together.limits_exceeded == 0).all()


def test_chunks_leave_no_seam(fits):
    fitter, arguments, _, _ = fits
    some = [values[40:64] for values in arguments]
    whole = fitter.fit_sequence(*some)
    chunked = fitter.fit_sequence(*some, options=SequenceOptions(frames_at_a_time=7))
    torch.testing.assert_close(chunked.poses, whole.poses, atol=1e-3, rtol=0)


def test_frames_that_are_not_finite_are_left_out(fits):
    fitter, (poses, betas, trans), _, _ = fits
    broken = poses[:6].copy()
    broken[3, 10] = np.nan
    fit = fitter.fit_sequence(broken, betas[:6], trans[:6])
    assert fit.valid.tolist() == [True, True, True, False, True, True]
    assert fit.poses[3].isnan().all() and fit.poses[[0, 1, 2, 4, 5]].isfinite().all()
