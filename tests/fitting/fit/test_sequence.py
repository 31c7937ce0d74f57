"""Motion as a whole: exact gradients, one shape that no frame owns, a smooth surface, no seams, little memory."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from test_linearisation import problem, region, skel, true_cost, weighted_residuals  # noqa: F401

from fitting import SKELFitter
from fitting.fit.banded import Frames, assemble, damped_step
from fitting.fit.one_shape import shared_shape
from fitting.fit.sequence import SequenceOptions
from fitting.fit.solver import DIAGONAL_FLOOR

FRAMES = 3


@pytest.fixture(scope="module")
def motion(problem, region):  # noqa: F811
    """Poses near each other, the first two frames coupled, the last one not."""
    generator = torch.Generator().manual_seed(5)
    betas = torch.randn(10, generator=generator, dtype=torch.float64)
    poses = 0.4 * torch.randn(FRAMES, 46, generator=generator, dtype=torch.float64)
    return Frames(problem, region, betas, torch.tensor([True, False]), smoothness=7.0), poses


def test_cost_and_gradient_of_the_frames_together(motion):
    """Against autograd."""
    frames, poses = motion
    found = assemble(frames, poses)
    x, betas = poses.clone().requires_grad_(), frames.betas.expand(FRAMES, -1)
    r = weighted_residuals(frames.problem, frames.region, x, betas)
    away = betas - frames.problem.betas_centre
    prior = torch.einsum("bi,ij,bj->", away, frames.problem.betas_prior, away)
    cost = true_cost(frames.problem, frames.region, x, betas).sum() - prior
    cost = cost + 7.0 * (r[1] - r[0]).square().sum()
    (by_poses,) = torch.autograd.grad(cost, x)
    assert found.cost == pytest.approx(float(cost.detach()), rel=1e-10)
    by_poses = by_poses[:, 3:].numpy()
    np.testing.assert_allclose(2 * found.gradient, by_poses, atol=1e-8 * np.abs(by_poses).max())
    np.testing.assert_allclose(found.distances, (r.detach() / frames.region.weights.sqrt()).norm(dim=1), rtol=1e-9)


def test_banded_solution_is_that_of_the_dense_system(motion):
    frames, poses = motion
    system = assemble(dataclasses.replace(frames, coupled=torch.tensor([True, True])), poses)
    held = np.zeros((FRAMES, 43), bool)
    held[1, 5] = held[2, 40] = True
    step = damped_step(system, held, 1e-3)
    size = FRAMES * 43
    dense = np.zeros((size, size))
    for t in range(FRAMES):
        rows = slice(43 * t, 43 * t + 43)
        scale = np.diag(system.diagonal[t]) + DIAGONAL_FLOOR * np.diag(system.diagonal[t]).max()
        dense[rows, rows] = system.diagonal[t] + 1e-3 * np.diag(scale)
        if t + 1 < FRAMES:
            after = slice(43 * t + 43, 43 * t + 86)
            dense[rows, after], dense[after, rows] = system.neighbour[t], system.neighbour[t].T
    free = ~held.ravel()
    expected = np.zeros(size)
    expected[free] = np.linalg.solve(dense[free][:, free], -system.gradient.ravel()[free])
    # Scaling inside differs only where coordinates are held: there the largest free diagonal counts.
    np.testing.assert_allclose(step.ravel(), expected, atol=1e-5 * np.abs(expected).max())
    assert (step[held] == 0).all()
    promised = -(2 * system.gradient.ravel() @ step.ravel())
    undamped = dense - 1e-3 * np.diag(np.diag(dense)) / (1 + 1e-3)
    assert system.promise(step) == pytest.approx(promised - step.ravel() @ undamped @ step.ravel(), rel=1e-4)


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


def test_windows_leave_no_seam(fits):
    """Cut into windows of 20 frames or solved as a whole, a motion comes out the same."""
    fitter, arguments, _, _ = fits
    some = [values[40:120] for values in arguments]
    whole, cut = (fitter.fit_sequence(*some, options=SequenceOptions(window=window)) for window in (1000, 20))
    apart = (cut.vertex_error_mm - whole.vertex_error_mm).abs().max()
    assert apart < 0.003
    torch.testing.assert_close(cut.poses, whole.poses, atol=5e-3, rtol=0)

    # Without the shared frames there would be seams to see.
    class NoOverlap(SequenceOptions):
        overlap = 0

    seams = fitter.fit_sequence(*some, options=NoOverlap(window=20))
    assert (seams.vertex_error_mm - whole.vertex_error_mm).abs().max() > 5 * apart


@pytest.mark.parametrize("what", ["unreachable", "another person", "somebody else for a while"])
def test_no_frame_owns_the_shape(fits, what):
    """With a fifth of the frames spoilt, the others come out as if these had not been there, and these are named."""
    fitter, arguments, _, _ = fits
    poses, betas, trans = (values[:60].copy() for values in arguments)
    rng = np.random.default_rng(2)
    spoilt = np.sort(rng.choice(60, 12, replace=False))
    if what == "unreachable":
        poses[spoilt, 3:] = rng.normal(0, 1, (12, 69))
    elif what == "another person":
        betas[spoilt, 1:4] += np.float32([2.5, -1.5, 1])
    else:
        spoilt = np.arange(20, 32)
        betas[spoilt] = rng.normal(0, 1.5, 10)
        trans[spoilt] += 1
    sound = np.setdiff1d(np.arange(60), spoilt)
    without = fitter.fit_sequence(poses[sound], betas[sound], trans[sound])
    together = fitter.fit_sequence(poses, betas, trans)
    assert together.vertex_error_mm[sound].mean() <= 1.1 * without.vertex_error_mm.mean()
    doubted = together.numpy()["verdict"] == "doubtful_source"
    assert np.flatnonzero(doubted).tolist() == spoilt.tolist()
    torch.testing.assert_close(together.betas[0], without.betas[0], atol=0.05, rtol=0)


def test_doubts_name_the_foreign_and_nobody_else(demo_skel):
    """Of shapes that scatter as a tracker's do, those of another person are doubted; without them, nobody is."""
    generator = torch.Generator().manual_seed(4)
    own = torch.randn(10, generator=generator)
    source = own + 0.08 * torch.randn(100, 10, generator=generator)
    fitted = source + 0.1 * torch.randn(100, 10, generator=generator)
    error = 3 + torch.rand(100, generator=generator)
    evidence = (demo_skel.shapedirs.flatten(0, 1).T @ demo_skel.shapedirs.flatten(0, 1)).expand(100, -1, -1)
    sound = shared_shape(demo_skel, source, fitted, evidence, error)
    assert sound.trusted.all()
    torch.testing.assert_close(sound.betas, fitted.mean(0), atol=0.03, rtol=0)
    other = torch.randn(10, generator=generator)
    source[30:45] += other - own
    fitted[30:45] += other - own
    error[70:75] = 60
    found = shared_shape(demo_skel, source, fitted, evidence, error)
    assert (~found.trusted).nonzero().flatten().tolist() == [*range(30, 45), *range(70, 75)]
    torch.testing.assert_close(found.betas, sound.betas, atol=0.05, rtol=0)


def test_memory_does_not_grow_with_meshes(fits, monkeypatch):
    """Of a motion, no more than a window's meshes are in memory together, and the solver's arrays are a window's."""
    fitter, arguments, _, _ = fits
    biggest, problem_of = [], SKELFitter._problem_of

    def measured(self, rotations, *more, **named):
        biggest.append(len(rotations))
        return problem_of(self, rotations, *more, **named)

    monkeypatch.setattr(SKELFitter, "_problem_of", measured)
    options = SequenceOptions(window=32)
    many = [np.resize(values, (160, values.shape[1])) for values in arguments]
    tracemalloc.start()
    fit = fitter.fit_sequence(*many, options=options, batch_size=32, threads=1)
    _, numpy_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fit) == 160
    assert max(biggest) <= options.window + 2 * options.overlap
    assert numpy_peak < 40e6


def test_frames_that_are_not_finite_are_left_out(fits):
    fitter, (poses, betas, trans), _, _ = fits
    broken = poses[:6].copy()
    broken[3, 10] = np.nan
    fit = fitter.fit_sequence(broken, betas[:6], trans[:6])
    assert fit.valid.tolist() == [True, True, True, False, True, True]
    assert fit.poses[3].isnan().all() and fit.poses[[0, 1, 2, 4, 5]].isfinite().all()
