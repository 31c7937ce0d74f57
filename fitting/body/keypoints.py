"""The 44 keypoints of the label files, from an SMPL or a SKEL mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fitting.body.constants import constant
from schemas.camerahmr import EXTRA_NAMES, KEYPOINT_NAMES

if TYPE_CHECKING:
    import smplx

REGRESSED = 24
"""Joints 0..23 are regressed from the mesh, 24..44 are vertices."""

OPENPOSE_JOINTS = (24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34)
"""Index of each OpenPose keypoint among SMPL's 24 joints and 21 vertex joints."""


def keypoints_44(
    vertices: Tensor, joints: Tensor | None, vertex_joint_ids: Tensor, j19: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keypoints (B, 44, 3) in the unit and frame of `vertices` (B, V, 3), and their confidence (44,): 1, or 0 for none.

    `joints` are SMPL's 24 (B, 24, 3), `vertex_joint_ids` (21,) the vertices of smplx's VertexJointSelector, `j19`
    (19, V) the regressor of the last 19. Keypoints that cannot be had because an argument is None lie at zero with
    confidence 0. Differentiable.
    """
    batch = len(vertices)
    extra = vertices[:, torch.as_tensor(vertex_joint_ids, device=vertices.device, dtype=torch.long)]
    known = joints if joints is not None else vertices.new_zeros(batch, REGRESSED, 3)
    openpose = torch.cat([known[:, :REGRESSED], extra], 1)[:, constant(OPENPOSE_JOINTS, vertices.device)]
    others = regress(j19, vertices) if j19 is not None else vertices.new_zeros(batch, len(EXTRA_NAMES), 3)
    confidence = vertices.new_ones(len(KEYPOINT_NAMES))
    if joints is None:
        confidence[: len(OPENPOSE_JOINTS)] = torch.tensor([float(j >= REGRESSED) for j in OPENPOSE_JOINTS])
    if j19 is None:
        confidence[len(OPENPOSE_JOINTS) :] = 0
    return torch.cat([openpose, others], 1), confidence


def smpl_keypoints(smpl: smplx.SMPL, output, j19: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`keypoints_44` of a mesh that `smpl` made: `output` is what calling it gave, with vertices and joints."""
    ids = smpl.vertex_joint_selector.extra_joints_idxs
    return keypoints_44(output.vertices, output.joints[:, :REGRESSED], ids, j19)


class SMPLKeypoints:
    """`smpl_keypoints` of many people without their meshes: only vertices that keypoints are made of are posed."""

    def __init__(self, smpl: smplx.SMPL, j19: Tensor | None = None) -> None:
        ids = torch.as_tensor(smpl.vertex_joint_selector.extra_joints_idxs, dtype=torch.long).to(smpl.v_template.device)
        used = ids if j19 is None else torch.cat([ids, j19.to(ids.device).abs().sum(0).nonzero()[:, 0]])
        chosen, place = used.unique(return_inverse=True)
        shapes = smpl.shapedirs[..., :10]
        self.ids, self.j19 = place[: len(ids)], None if j19 is None else j19.to(ids.device)[:, chosen]
        self.rest, self.shapes, self.weights = smpl.v_template[chosen], shapes[chosen], smpl.lbs_weights[chosen]
        self.correctives = smpl.posedirs.unflatten(1, (-1, 3))[:, chosen].flatten(1)
        self.joints = smpl.J_regressor @ smpl.v_template
        self.joint_shapes = torch.einsum("jv,vck->jck", smpl.J_regressor, shapes)
        self.parents = smpl.parents

    def __call__(self, poses: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, 44, 3) m at translation zero for axis-angle (B, 72) and betas (B, 10); confidence (44,)."""
        from smplx.lbs import batch_rigid_transform, batch_rodrigues

        turns = batch_rodrigues(poses.reshape(-1, 3)).unflatten(0, (-1, 24))
        posed = self.rest + torch.einsum("bk,vck->bvc", betas, self.shapes)
        bends = (turns[:, 1:] - torch.eye(3).to(turns)).flatten(1)
        posed = posed + (bends @ self.correctives).unflatten(1, (-1, 3))
        centres = self.joints + torch.einsum("bk,jck->bjc", betas, self.joint_shapes)
        joints, transforms = batch_rigid_transform(turns, centres, self.parents, dtype=turns.dtype)
        blended = (self.weights @ transforms[:, :, :3].flatten(2)).unflatten(2, (3, 4))
        vertices = (blended[..., :3] @ posed[..., None])[..., 0] + blended[..., 3]
        return keypoints_44(vertices, joints, self.ids, self.j19)


def skel_keypoints(
    vertices: Tensor, vertex_joint_ids: Tensor, regressor: Tensor | None = None, j19: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`keypoints_44` of a SKEL skin (B, V, 3).

    SMPL's 24 joints are regressed from the skin by `regressor` (24, V), the array `J_regressor_SKEL_mix_MALE`;
    `vertex_joint_ids` are those of the SMPL on the same topology.
    """
    joints = None if regressor is None else regress(regressor, vertices)
    return keypoints_44(vertices, joints, vertex_joint_ids, j19)


def regress(regressor: Tensor, vertices: Tensor) -> Tensor:
    """Points (B, n, 3) as weighted sums of vertices (B, V, 3), with weights (n, V)."""
    weights = torch.as_tensor(regressor, dtype=vertices.dtype, device=vertices.device)
    return torch.einsum("nv,bvc->bnc", weights, vertices)
