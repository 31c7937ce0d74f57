"""SMPL parameters of a mesh that has none: where the fit of a mesh finds its root, its start and the shape it is near.

Skinning is linear in the joints' transforms: with the body at rest given, the 24 transforms that bring it nearest to a
mesh are one linear solution, and the rotations nearest to these are what parts of the mesh, rigidly aligned, would
have. From there Gauss and Newton's method, damped, moves rotations, translation and shape together, with the second
moments that the fit itself uses (`fitting.fit.points`). Pose correctives are in the residuals and left out of the
derivatives; meshes that SMPL made are met exactly all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from pytorch3d.transforms import axis_angle_to_matrix
from torch import Tensor

from fitting.anatomy import JOINTS, SMPL_PARENTS
from fitting.body.constants import constant
from fitting.body.kinematics import homogeneous
from fitting.body.rotations import skew
from fitting.body.skel import NUM_BETAS
from fitting.fit import linearisation as lin
from fitting.fit.points import Moments, residual, wrench_of
from fitting.fit.solver import Quadratic, SolverOptions, levenberg_marquardt
from fitting.fit.target import SMPLTarget, global_rotations

_TRUNK = (0, 3, 6, 9)
"""SMPL's pelvis and spine, by which a mesh is first placed."""

_RIDGE = 1e-3
"""Pull of each joint's transform to that of the trunk, relative to its own second moment: for parts that hardly have
vertices of their own."""

_BETAS_PRIOR = 1e-8
"""m^2 per squared standard deviation, so that no mesh leaves the shape undefined."""

_TURNS = slice(0, 3 * JOINTS)
_TRANS = slice(_TURNS.stop, _TURNS.stop + 3)
_BETAS = slice(_TRANS.stop, _TRANS.stop + NUM_BETAS)

SOLVER = SolverOptions(max_iterations=20, step_tolerance=1e-4, cost_tolerance=1e-4)


@dataclass(frozen=True)
class Registration:
    """SMPL parameters of B meshes."""

    rotations: Tensor
    """(B, 24, 3, 3) of each joint against its parent"""
    betas: Tensor
    """(B, 10)"""
    trans: Tensor
    """(B, 3) m"""
    origin: Tensor
    """(B, 3) m, of the frame that these are in"""

    @classmethod
    def concatenate(cls, parts: list[Registration]) -> Registration:
        """The meshes of several, in order."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


class Registrar:
    """Finds the SMPL parameters of meshes on its topology."""

    def __init__(self, target: SMPLTarget) -> None:
        self.target = target
        weights = target.points.skinning.new_full((len(target.points),), 1 / len(target.points))
        self.weights, self.moments = weights, Moments(target.points, weights)
        self.subtree = lin.subtree_matrix(list(SMPL_PARENTS)).to(weights)
        self.joint_of_turn = torch.arange(JOINTS, device=weights.device).repeat_interleave(3)

    def __call__(self, vertices: Tensor, betas: Tensor | None = None) -> Registration:
        """Parameters of meshes (B, 3, V), metres; `betas` (B, 10) are kept where they are given."""
        shape = vertices.new_zeros(len(vertices), NUM_BETAS) if betas is None else betas
        rotations, trans = self._aligned(vertices, shape)
        objective = _RegistrationObjective(self, vertices, rotations, shape, betas is None)
        start = torch.cat([vertices.new_zeros(len(vertices), _TURNS.stop), trans, shape], 1)[:, : objective.unknowns]
        free = torch.full_like(start, torch.inf)
        solution = levenberg_marquardt(objective, start, -free, free, SOLVER)
        everyone = torch.arange(len(vertices), device=vertices.device)
        local, found, trans = objective.unpack(solution.x, everyone)
        return Registration(local, found, trans, torch.zeros_like(trans))

    def trunk_scale(self, vertices: Tensor) -> Tensor:
        """(B,) size of the trunks of meshes (B, 3, V) against the template's."""
        template = self.target.points.directions[0].unflatten(0, (3, -1))
        weights = self.target.points.skinning[list(_TRUNK)].sum(0)
        weights = weights / weights.sum()

        def spread(points: Tensor) -> Tensor:
            centred = points - (points @ weights)[..., None]
            return (centred.square().sum(-2) @ weights).sqrt()

        return spread(vertices) / spread(template)

    def _aligned(self, vertices: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Local rotations (B, 24, 3, 3) and translation (B, 3) of meshes, part by part."""
        points = self.target.points
        at_rest = points.at_rest(betas, betas.new_zeros(len(betas), points.directions.shape[0] - 1 - NUM_BETAS))
        trunk = points.skinning[list(_TRUNK)].sum(0)
        trunk = trunk / trunk.sum()
        centre_rest, centre = at_rest @ trunk, vertices @ trunk
        spread = ((vertices - centre[..., None]) * trunk) @ (at_rest - centre_rest[..., None]).transpose(1, 2)
        turned = _nearest_rotation(spread)
        rigid = torch.cat([turned, (centre - (turned @ centre_rest[..., None]).squeeze(-1))[..., None]], -1)

        moment = self.moments(betas)
        own = torch.diagonal(moment.unflatten(1, (JOINTS, 4)).unflatten(3, (JOINTS, 4)), dim1=1, dim2=3)
        pull = _RIDGE * own.permute(0, 3, 1, 2)
        against = wrench_of(points, vertices * self.weights, at_rest) + rigid[:, None] @ pull
        matrix = moment + _block_diagonal(pull)
        solved = torch.linalg.solve(matrix.double(), against.transpose(2, 3).flatten(1, 2).double())
        affine = solved.to(against).unflatten(1, (JOINTS, 4)).transpose(2, 3)
        # About the part's own centre, weighted as its points lie.
        mass = own[:, 3, 3]
        mean = own[:, :3, 3] / mass[:, None]
        about = own[:, :3, :3] - mean[:, :, None] * mean[:, None] * mass[:, None, None]
        world = _nearest_rotation(affine[..., :3] @ about.permute(0, 3, 1, 2))
        above = world[:, constant([max(p, 0) for p in SMPL_PARENTS], world.device)].clone()
        above[:, 0] = torch.eye(3, dtype=world.dtype, device=world.device)
        local = above.transpose(2, 3) @ world
        mesh = self.target.mesh(betas, local, world)
        return local, ((vertices - mesh) @ trunk)


class _RegistrationObjective:
    """Distance of SMPL from meshes, by turns of the joints from where they start, translation and betas."""

    def __init__(self, registrar: Registrar, vertices: Tensor, rotations: Tensor, betas: Tensor, fit_betas: bool):
        self.registrar, self.vertices, self.rotations, self.betas = registrar, vertices, rotations, betas
        self.fit_betas = fit_betas
        self.unknowns = _BETAS.stop if fit_betas else _TRANS.stop

    def unpack(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Local rotations, betas and translation of unknowns (B', n)."""
        turns = axis_angle_to_matrix(x[:, _TURNS].unflatten(1, (JOINTS, 3)))
        return self.rotations[index] @ turns, x[:, _BETAS] if self.fit_betas else self.betas[index], x[:, _TRANS]

    def __call__(self, x: Tensor, index: Tensor) -> Quadratic:
        registrar, target = self.registrar, self.registrar.target
        local, betas, trans = self.unpack(x, index)
        world = global_rotations(local)
        transforms, joints = target.transforms(betas, world)
        transforms[..., 3] += trans[:, None]
        joints = joints + trans[:, None]
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        at_rest = target.points.at_rest(betas, (local[:, 1:] - eye).flatten(1))
        exact = residual(
            target.points,
            registrar.weights,
            transforms,
            at_rest,
            self.vertices[index],
            wrench=True,
            by_directions=self.fit_betas,
        )
        # Columns of the world axes about which the three unknowns of a joint turn it.
        axes = (world @ _right_jacobian(x[:, _TURNS].unflatten(1, (JOINTS, 3)))).transpose(2, 3)
        rates = torch.linalg.cross(joints[:, :, None].expand_as(axes), axes)
        twists = torch.cat([skew(axes), rates[..., None]], -1).flatten(1, 2)
        placed = homogeneous(transforms)
        behind = registrar.subtree[registrar.joint_of_turn]
        by_turns = (twists[:, :, None] @ placed[:, None]) * behind[:, :, None, None]
        by_trans = torch.zeros_like(by_turns[:, :3])
        by_trans[..., 3] = eye[:, None]
        by_pose = torch.cat([by_turns, by_trans], 1).transpose(2, 3).flatten(3)
        wrench = exact.wrench.transpose(1, 2).flatten(2)
        gradient = (by_pose * wrench[:, None]).sum((2, 3))
        moment = registrar.moments(betas)
        if not self.fit_betas:
            return Quadratic(exact.cost, gradient, lin.gauss_newton(by_pose, moment))
        # Betas move joint centres at rest, and with them what is behind the joints.
        moved = torch.zeros_like(by_turns[:, :NUM_BETAS])
        moved[..., 3] = target.shift_by_betas(world)
        by_betas = moved.transpose(2, 3).flatten(3)
        through_joints = (by_betas * wrench[:, None]).sum((2, 3))
        slope = exact.by_directions[:, :NUM_BETAS] + through_joints + _BETAS_PRIOR * betas
        jtj = lin.pose_and_shape(by_pose, by_betas, moment, *registrar.moments.of_shapes(betas, transforms))
        jtj.diagonal(dim1=1, dim2=2)[:, _BETAS] += _BETAS_PRIOR
        cost = exact.cost + _BETAS_PRIOR * betas.square().sum(1)
        return Quadratic(cost, torch.cat([gradient, slope], 1), jtj)


def _nearest_rotation(matrices: Tensor) -> Tensor:
    """(..., 3, 3) rotation R with the largest trace of R^T M (Kabsch 1976)."""
    u, _, v = torch.linalg.svd(matrices.double())
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ v)
    return ((u * sign[..., None, :]) @ v).to(matrices.dtype)


def _block_diagonal(blocks: Tensor) -> Tensor:
    """(B, 24 n, 24 n) from (B, 24, n, n)."""
    people, count, size, _ = blocks.shape
    matrix = blocks.new_zeros(people, count, size, count, size)
    which = torch.arange(count, device=blocks.device)
    matrix[:, which, :, which] = blocks.transpose(0, 1)
    return matrix.flatten(3).flatten(1, 2)


_SMALL = 1e-2
"""rad: below this angle the first terms of a series are exact to float32."""


def _right_jacobian(turns: Tensor) -> Tensor:
    """(..., 3, 3) J with exp(turn + d) = exp(turn) exp(J d) for axis-angle turns (..., 3) and small d."""
    angle = turns.norm(dim=-1)
    safe = angle.clamp_min(_SMALL)
    small = angle < _SMALL
    first = torch.where(small, 0.5 - angle.square() / 24, (1 - safe.cos()) / safe.square())
    second = torch.where(small, 1 / 6 - angle.square() / 120, (safe - safe.sin()) / safe**3)
    cross = skew(turns)
    eye = torch.eye(3, dtype=turns.dtype, device=turns.device)
    return eye - first[..., None, None] * cross + second[..., None, None] * (cross @ cross)
