"""SMPL's posed mesh, which SKEL is fitted to.

The numbers are those of smplx.SMPL, which makes a 4x4 matrix for every vertex; here vertices are blended and placed as
SKEL's points are (`fitting.fit.points`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.anatomy import SMPL_PARENTS
from fitting.body.constants import constant
from fitting.body.kinematics import levels_of
from fitting.fit.points import Points, blend, people_at_a_time, place

_LEVELS = levels_of(list(SMPL_PARENTS))


@dataclass(frozen=True)
class SMPLTarget:
    """An SMPL body made ready for many people: `SMPLTarget.of(smpl)`."""

    points: Points
    joints: Tensor
    """(24, 3) m, joint centres at rest of zero betas"""
    joints_by_betas: Tensor
    """(24, 3, 10)"""

    @classmethod
    def of(cls, smpl: torch.nn.Module) -> SMPLTarget:
        """From a smplx.SMPL of any gender."""
        shapedirs = smpl.shapedirs[..., :10]
        return cls(
            points=Points.of_arrays(smpl.v_template, shapedirs, smpl.posedirs, smpl.lbs_weights),
            joints=smpl.J_regressor @ smpl.v_template,
            joints_by_betas=torch.einsum("jv,vck->jck", smpl.J_regressor, shapedirs),
        )

    def root(self, betas: Tensor) -> Tensor:
        """(B, 3) rest position of the root joint for betas (B, 10)."""
        return self.joints[0] + betas @ self.joints_by_betas[0].T

    def transforms(self, betas: Tensor, global_rotations: Tensor) -> tuple[Tensor, Tensor]:
        """What skinning applies to points at rest (B, 24, 3, 4), and the posed joints (B, 24, 3); no translation."""
        rest = self.joints + (betas @ self.joints_by_betas.flatten(0, 1).T).unflatten(1, (-1, 3))
        parents = constant(SMPL_PARENTS[1:], rest.device)
        bones = rest[:, 1:] - rest[:, parents]
        turned = (global_rotations[:, parents] @ bones[..., None]).squeeze(-1)
        places = [rest[:, 0]] * len(SMPL_PARENTS)
        for joint, parent in enumerate(SMPL_PARENTS[1:], 1):
            places[joint] = places[parent] + turned[:, joint - 1]
        joints = torch.stack(places, 1)
        shift = joints - (global_rotations @ rest[..., None]).squeeze(-1)
        return torch.cat([global_rotations, shift[..., None]], -1), joints

    def shift_by_betas(self, global_rotations: Tensor) -> Tensor:
        """(B, 10, 24, 3) derivative by betas of the last column of `transforms`."""
        slopes = self.joints_by_betas
        parents = constant(SMPL_PARENTS[1:], slopes.device)
        turned = global_rotations[:, parents] @ (slopes[1:] - slopes[parents])
        places = [slopes[0].expand(len(turned), -1, -1)] * len(SMPL_PARENTS)
        for joint, parent in enumerate(SMPL_PARENTS[1:], 1):
            places[joint] = places[parent] + turned[:, joint - 1]
        return (torch.stack(places, 1) - global_rotations @ slopes).permute(0, 3, 1, 2)

    def mesh(self, betas: Tensor, rotations: Tensor, global_rotations: Tensor) -> Tensor:
        """(B, 3, V) posed vertices without translation, from local and global joint rotations (B, 24, 3, 3)."""
        transforms, _ = self.transforms(betas, global_rotations)
        eye = torch.eye(3, dtype=betas.dtype, device=betas.device)
        at_rest = self.points.at_rest(betas, (rotations[:, 1:] - eye).flatten(1))
        mesh = torch.empty_like(at_rest)
        for some in people_at_a_time(len(betas), at_rest):
            mesh[some] = place(blend(self.points, transforms[some]), at_rest[some])
        return mesh


def global_rotations(rotations: Tensor) -> Tensor:
    """(B, 24, 3, 3) joint rotations against the world, from SMPL's against the parents."""
    out = rotations.clone()
    for level in _LEVELS:
        here, above = (constant(joints, out.device) for joints in (level, [SMPL_PARENTS[j] for j in level]))
        out[:, here] = out[:, above] @ rotations[:, here]
    return out
