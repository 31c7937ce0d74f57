"""Gradients and Gauss-Newton systems of the fit against autograd in float64."""

import dataclasses

import pytest
import torch

from fitting import SKEL
from fitting.body.limits import HUMAN_LIMITS
from fitting.fit import linearisation as lin
from fitting.fit.objective import FullObjective, Problem, Region, RegionObjective
from fitting.fit.points import Moments, Points

PEOPLE = 3

_ROOT = torch.randn(10, 10, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
BETAS_PRIOR = 0.003 * _ROOT @ _ROOT.T


@pytest.fixture(scope="module")
def skel(random_models) -> SKEL:
    return SKEL(random_models[1], torch.float64)


@pytest.fixture(scope="module")
def problem(skel) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    points = Points.of(skel)
    centre = random(PEOPLE, 10)
    template = points.directions[0].unflatten(0, (3, -1))
    target = template + random(PEOPLE, 3, len(points), scale=0.05)
    return Problem(
        skel=skel,
        points=points,
        subtree=lin.subtree_matrix(skel.parents),
        target=target,
        pose_centre=random(PEOPLE, 46, scale=0.3),
        pose_prior=torch.full((46,), 0.01, dtype=torch.float64),
        limits=torch.as_tensor(HUMAN_LIMITS),
        betas_centre=centre,
        betas_prior=BETAS_PRIOR,
        betas_reach=3.0,
        doubtful=torch.zeros(PEOPLE, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def region(problem) -> Region:
    generator = torch.Generator().manual_seed(1)
    count = len(problem.points)
    weights = torch.rand(count, generator=generator, dtype=torch.float64) / count
    return Region(weights, slice(3, 46), Moments(problem.points, weights))


@pytest.fixture
def poses() -> torch.Tensor:
    return 0.5 * torch.randn(PEOPLE, 46, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def betas() -> torch.Tensor:
    return torch.randn(PEOPLE, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def without_correctives(points: Points) -> Points:
    directions = points.directions.clone()
    directions[11:] = 0
    return dataclasses.replace(points, directions=directions)


def weighted_residuals(problem, region, poses, betas, at_rest=None):
    """All residuals of one person, in the plainest way: forward pass, difference, root of the weight."""
    skel, points = problem.skel, problem.points
    rest = skel.rest_frames(skel.rest_joints(betas))
    posed = skel.pose(rest, poses)
    if at_rest is None:
        at_rest = points.at_rest(betas, skel.corrective_features(posed.local_rotations))
    transforms = lin.transforms_of(rest, posed)
    blended = torch.einsum("jn,bjrc->brcn", points.skinning, transforms)
    skinned = torch.einsum("brcn,bcn->brn", blended[:, :, :3], at_rest) + blended[:, :, 3]
    return (skinned - problem.target[: len(poses)]) * region.weights.sqrt()


def true_cost(problem, region, poses, betas):
    count = len(poses)
    away = betas - problem.betas_centre[:count]
    return (
        weighted_residuals(problem, region, poses, betas).square().sum((1, 2))
        + 0.01 * (poses - problem.pose_centre[:count]).square().sum(1)
        + torch.einsum("bi,ij,bj->b", away, BETAS_PRIOR, away)
    )


def test_full_objective_has_the_exact_cost_and_gradient(problem, region, poses, betas):
    objective = FullObjective(problem, region, poses, betas, fit_betas=True)
    x = objective.start().requires_grad_()
    cost = true_cost(problem, region, *objective.unpack(x, torch.arange(PEOPLE)))
    (gradient,) = torch.autograd.grad(cost.sum(), x)
    found = objective(x.detach(), torch.arange(PEOPLE))
    torch.testing.assert_close(found.cost, cost.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(2 * found.gradient, gradient, rtol=1e-8, atol=1e-8 * float(gradient.abs().max()))


def test_pose_hessian_is_jtj_with_correctives_held(problem, region, poses, betas):
    """Without the linear pose correctives in the moments, J^T J from moments equals the one from vertices."""
    skel = problem.skel
    at_rest = problem.points.at_rest(betas, torch.zeros(PEOPLE, 207, dtype=torch.float64))
    rest = skel.rest_frames(skel.rest_joints(betas))
    posed = skel.pose(rest, poses)
    twists = lin.pose_twists(skel, rest, posed)
    motion = lin.pose_motion(twists, problem.subtree, lin.transforms_of(rest, posed))
    found = lin.gauss_newton(motion, region.moments(betas))
    for person in range(PEOPLE):
        one = slice(person, person + 1)
        shifted = dataclasses.replace(problem, target=problem.target[one])
        jacobian = torch.func.jacfwd(
            lambda q, one=one, shifted=shifted: weighted_residuals(shifted, region, q[None], betas[one], at_rest[one])
        )(poses[person]).reshape(-1, 46)
        expected = jacobian.T @ jacobian
        torch.testing.assert_close(found[person], expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_region_objective_is_exact_with_correctives_held(problem, skel, region, poses, betas):
    still = without_correctives(problem.points)
    held = dataclasses.replace(problem, points=still)
    lower = Region(region.weights, slice(3, 17), region.moments)
    rest = skel.rest_frames(skel.rest_joints(betas))
    objective = RegionObjective(held, lower, rest, betas, poses)
    x = (objective.start() + 0.2).requires_grad_()
    moved = torch.cat([poses[:, :3], x, poses[:, 17:]], 1)
    away = betas - held.betas_centre
    cost = true_cost(held, region, moved, betas) - torch.einsum("bi,ij,bj->b", away, BETAS_PRIOR, away)
    (gradient,) = torch.autograd.grad(cost.sum(), x)
    found = objective(x.detach(), torch.arange(PEOPLE))
    torch.testing.assert_close(found.cost, cost.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(2 * found.gradient, gradient, rtol=1e-8, atol=1e-8 * float(gradient.abs().max()))


def test_shape_motion_matches_autograd(problem, skel, poses, betas):
    """Derivative by betas of the skinning transforms: joint centres, bone frames, sliding spine and scapulae."""

    def transforms(b):
        rest = skel.rest_frames(skel.rest_joints(b))
        return lin.transforms_of(rest, skel.pose(rest, poses))

    rest = skel.rest_frames(skel.rest_joints(betas))
    posed = skel.pose(rest, poses)
    motion = lin.shape_motion(skel, rest, posed)
    found = motion.of_transforms(lin.transforms_of(rest, posed), problem.subtree)
    for mode in range(10):
        tangent = torch.zeros_like(betas)
        tangent[:, mode] = 1
        _, expected = torch.func.jvp(transforms, (betas,), (tangent,))
        side_by_side = expected.transpose(1, 2).flatten(2)
        torch.testing.assert_close(found[:, mode], side_by_side, rtol=1e-9, atol=1e-10)


def test_full_hessian_is_jtj_but_for_correctives(problem, region, poses, betas):
    objective = FullObjective(problem, region, poses, betas, fit_betas=True)
    still = without_correctives(problem.points)
    held = dataclasses.replace(problem, points=still)
    found = objective(objective.start(), torch.arange(PEOPLE)).hessian

    def residuals(x, person):
        one = slice(person, person + 1)
        shifted = dataclasses.replace(held, target=problem.target[one])
        q = torch.cat([poses[one, :3], x[None, :43]], 1)
        return weighted_residuals(shifted, region, q, x[None, 43:])

    for person in range(PEOPLE):
        x = objective.start()[person]
        jacobian = torch.func.jacfwd(lambda x, person=person: residuals(x, person))(x).reshape(-1, 53)
        expected = (jacobian.T @ jacobian)[43:]
        prior = torch.nn.functional.pad(BETAS_PRIOR, (43, 0))
        data_term = found[person][43:] - prior
        torch.testing.assert_close(data_term, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
