"""The SKEL layer of the trainer: keypoints of estimated parameters, from only those vertices that they need."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fitting.body.keypoints import keypoints_44
from fitting.body.skel import SKEL
from pipelines.files.body_models import BodyModels

PELVIS_KEYPOINT = 39
"""Keypoint to which 3D keypoints are relative (MPII's pelvis)."""
HIP_KEYPOINTS = (9, 12)
"""OpenPose's right and left hip, which SMPL's own joints give."""


def reduced_skel(skel: SKEL, vertices: Tensor) -> SKEL:
    """`skel` with only the given vertices (n,) as its skin. Joints and poses are unchanged; meshes have no faces."""
    small = copy.copy(skel)
    small._buffers = dict(skel._buffers)
    small.v_template, small.weights = skel.v_template[vertices], skel.weights[vertices]
    small.shapedirs = skel.shapedirs[vertices]
    small.posedirs = skel.posedirs.unflatten(1, (-1, 3))[:, vertices].flatten(1)
    small.faces = skel.faces[:0]
    return small


class KeypointLayer(nn.Module):
    """The 44 keypoints (fitting.body.keypoints) of SKEL parameters. Has no weights and no entries in a state_dict.

    `joint_regressor` (24, V) is `J_regressor_SKEL_mix_MALE`, `j19` (19, V) is `SMPL_to_J19`, `vertex_joint_ids` (21,)
    are those of the SMPL on the same topology.
    """

    def __init__(self, skel: SKEL, joint_regressor: Tensor, j19: Tensor, vertex_joint_ids: Tensor) -> None:
        super().__init__()
        used = (joint_regressor != 0).any(0) | (j19 != 0).any(0)
        used[vertex_joint_ids] = True
        kept = used.nonzero()[:, 0]
        place = torch.full((len(used),), -1, dtype=torch.long)
        place[kept] = torch.arange(len(kept))
        self.skel = reduced_skel(skel, kept)
        dtype = skel.v_template.dtype
        self.register_buffer("joint_regressor", joint_regressor[:, kept].to(dtype), persistent=False)
        self.register_buffer("j19", j19[:, kept].to(dtype), persistent=False)
        self.register_buffer("vertex_joint_ids", place[vertex_joint_ids], persistent=False)

    @classmethod
    def of(cls, models: BodyModels) -> KeypointLayer:
        """From body models that hold SKEL, SMPL and the two regressors, on their device.

        Raises schemas.InputError for what is missing or damaged.
        """
        regressors = (models.regressor(name) for name in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19"))
        ids = models.smpl().vertex_joint_selector.extra_joints_idxs
        return cls(models.skel, *regressors, torch.as_tensor(ids, dtype=torch.long, device=models.device))

    def forward(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, 44, 3) keypoints, m, before any translation, of poses (B, 46) and betas (B, 10); float32 in autocast."""
        with torch.autocast(poses.device.type, enabled=False):
            dtype = self.skel.v_template.dtype
            vertices = self.skel(poses.to(dtype), betas.to(dtype)).vertices
            joints = torch.einsum("nv,bvc->bnc", self.joint_regressor, vertices)
            return keypoints_44(vertices, joints, self.vertex_joint_ids, self.j19)[0]
