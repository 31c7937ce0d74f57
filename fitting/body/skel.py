"""SKEL 1.1.1 as a torch module: skin, joints and bone mesh from pose, shape and translation.

Source: SKEL (Keller et al., SIGGRAPH Asia 2023) as written out in `fitting/README.md`. Metres and radians, at any batch
size, on any device, in float32 or float64, differentiable everywhere.
"""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fitting.anatomy import HAND_L, HAND_R, HEAD, LUMBAR, THORAX
from fitting.body import kinematics
from fitting.body.constants import constant
from fitting.body.kinematics import SMPL_JOINT_OF, Posed, RestFrames

NUM_BETAS = 10

SMPL_LANDMARKS = (410, 384, 414, 384, 196, 3708, 6179, 6137, 5670, 5906, 3027, 3495, 3506)
"""Skin vertices of SMPL between which the bone mesh is measured (step 7): head x, y, z; hand x, y; thorax x."""

_X, _Y, _Z = range(3)
_BONE_MEASURES = (
    # bones, bone axis, first and second landmark, mesh axis along which their distance counts
    ((HEAD,), _X, 0, 1, _Z),
    ((HEAD,), _Y, 2, 3, _Y),
    ((HEAD,), _Z, 4, 5, _X),
    ((HAND_R, HAND_L), _X, 6, 7, _Y),
    ((HAND_R, HAND_L), _Y, 8, 9, _X),
)
_THORAX_MEASURES = ((10, 11, _Z), (10, 12, _Z))


class SKELOutput(NamedTuple):
    """Meshes and joints of B people in metres."""

    vertices: Tensor
    """(B, V, 3) skin."""
    joints: Tensor
    """(B, 24, 3) anatomical joint centres."""
    skeleton_vertices: Tensor | None
    """(B, Nk, 3) bone mesh, if it was asked for."""


class SKEL(nn.Module):
    """The SKEL body model. Make it with `SKEL.load` or `SKEL.demo`.

    `arrays` are those of a model file under their official names (see `fitting.body.files.skel_arrays`).
    """

    def __init__(self, arrays: dict, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()

        def keep(name: str, values: np.ndarray) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(values), dtype=dtype), persistent=False)

        template = np.asarray(arrays["skin_template_v"], np.float64)
        shapedirs = np.asarray(arrays["shapedirs"], np.float64)[:, :, :NUM_BETAS]
        regressor = dense(arrays["J_regressor_osim"])
        rel = np.asarray(arrays["apose_rel_transfo"], np.float64)
        keep("v_template", template)
        keep("shapedirs", shapedirs)
        keep("posedirs", np.asarray(arrays["posedirs"], np.float64).reshape(-1, 9 * 23).T)
        keep("weights", dense(arrays["skin_weights"]))
        keep("J_regressor", regressor)
        # Regressing the blend shapes once spares a product with the whole mesh per call.
        keep("J_template", regressor @ template)
        keep("J_shapedirs", np.einsum("jv,vck->jck", regressor, shapedirs))
        keep("per_joint_rot", arrays["per_joint_rot"])
        keep("apose_rotations", rel[:, :3, :3])
        keep("apose_offsets", rel[:, :3, 3])
        keep("slot_axes", kinematics.AXIS_OF_SLOT)
        keep("skeleton_template", arrays["skel_template_v"])
        keep("skeleton_weights", dense(arrays["skel_weights"]))
        rigid = dense(arrays["skel_weights_rigid"]).argmax(1)
        self.register_buffer("skeleton_bone", torch.as_tensor(rigid), persistent=False)

        self.faces = np.asarray(arrays["skin_template_f"]).astype(np.int64)
        self.skeleton_faces = np.asarray(arrays["skel_template_f"]).astype(np.int64)
        self.landmarks = [int(v) for v in np.ravel(arrays.get("landmarks", SMPL_LANDMARKS))]
        self.gender = str(arrays.get("gender", "male"))
        self.parents = _parents(arrays["osim_kintree_table"])
        self.first_child = kinematics.children_of(self.parents)

    @classmethod
    def load(cls, path_or_dir: str | PathLike[str], gender: str = "male", dtype: torch.dtype = torch.float32) -> SKEL:
        """The model of a file, or of a body-model directory ("demo" is the embedded body).

        Raises schemas.InputError if the file is missing, damaged, of another version or unsafe to read.
        """
        from fitting.body.files import skel_arrays

        model = cls(skel_arrays(path_or_dir, gender), dtype)
        model.gender = gender
        return model

    @classmethod
    def demo(cls, dtype: torch.dtype = torch.float32) -> SKEL:
        """The embedded licence-free body."""
        return cls.load("demo", dtype=dtype)

    @property
    def num_vertices(self) -> int:
        return len(self.v_template)

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(B, 24, 3) joint centres at rest for betas (B, 10)."""
        return self.J_template + (betas @ self.J_shapedirs.flatten(0, 1).T).unflatten(1, (-1, 3))

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """(B, V, 3) skin at rest, without pose correctives, for betas (B, 10)."""
        return self.v_template + (betas @ self.shapedirs.flatten(0, 1).T).unflatten(1, (-1, 3))

    def rest_frames(self, joints: Tensor) -> RestFrames:
        """Bone frames and axes for rest joints (B, 24, 3)."""
        return kinematics.rest_frames(
            joints, self.parents, self.per_joint_rot, self.apose_rotations, self.apose_offsets, self.slot_axes
        )

    def pose(self, rest: RestFrames, poses: Tensor) -> Posed:
        """The skeleton in a pose (B, 46), untranslated."""
        return kinematics.pose_skeleton(rest, self.parents, poses)

    def corrective_features(self, local_rotations: Tensor) -> Tensor:
        """(B, 207) what the pose correctives are linear in, from (B, 24, 3, 3) local joint rotations (step 5)."""
        source = constant(CORRECTIVE_SOURCE, local_rotations.device)
        eye = torch.eye(3, dtype=local_rotations.dtype, device=local_rotations.device)
        features = local_rotations[:, source.clamp_min(0)] - eye
        return torch.where((source >= 0)[:, None, None], features, torch.zeros_like(features)).flatten(1)

    def forward(
        self, poses: Tensor, betas: Tensor, trans: Tensor | None = None, skeleton_mesh: bool = False
    ) -> SKELOutput:
        """Poses (B, 46) in radians, betas (B or 1, 10), trans (B or 1, 3) in metres, zero if absent."""
        betas = betas.expand(len(poses), -1)
        trans = poses.new_zeros(1, 3) if trans is None else trans
        rest = self.rest_frames(self.rest_joints(betas))
        posed = self.pose(rest, poses)
        shaped = self.rest_vertices(betas)
        corrected = shaped + (self.corrective_features(posed.local_rotations) @ self.posedirs).unflatten(1, (-1, 3))
        shift = posed.joints - (posed.rotations @ rest.joints[..., None]).squeeze(-1) + trans[:, None]
        vertices = skin(self.weights, posed.rotations, shift, corrected)
        bones = None
        if skeleton_mesh:
            bones = skin(self.skeleton_weights, posed.rotations, shift, self.rest_bones(rest, shaped))
        return SKELOutput(vertices, posed.joints + trans[:, None], bones)

    def bone_scale(self, rest: RestFrames, shaped: Tensor) -> Tensor:
        """(B, 24, 3) stretch of each bone along its own axes (step 7), for the rest skin (B, V, 3)."""
        child = constant(self.first_child, shaped.device)
        own = rest.offsets[:, child].norm(dim=-1) / self.apose_offsets[child].norm(dim=-1)
        scale = torch.where(child == 0, torch.ones_like(own), own)
        for ulna, radius in kinematics.FOREARMS:
            scale[:, ulna] = scale[:, radius].clone()
        scale[:, THORAX] = scale[:, LUMBAR].clone()
        scale[:, LUMBAR] = rest.offsets[:, LUMBAR, _Y].abs() / self.apose_offsets[LUMBAR, _Y].abs()
        scale = scale[..., None].repeat(1, 1, 3)

        def ratio(first: int, second: int, axis: int) -> Tensor:
            a, b = self.landmarks[first], self.landmarks[second]
            return (shaped[:, a, axis] - shaped[:, b, axis]).abs() / (
                self.v_template[a, axis] - self.v_template[b, axis]
            ).abs()

        for bones, bone_axis, first, second, mesh_axis in _BONE_MEASURES:
            for bone in bones:
                scale[:, bone, bone_axis] = ratio(first, second, mesh_axis)
        depth = torch.minimum(*(ratio(*measure) for measure in _THORAX_MEASURES))
        scale[:, THORAX, _X] = depth
        scale[:, LUMBAR, _X] = depth
        return scale

    def rest_bones(self, rest: RestFrames, shaped: Tensor) -> Tensor:
        """(B, Nk, 3) bone mesh at rest (step 7), for the rest skin (B, V, 3)."""
        bone = self.skeleton_bone
        scaled = self.bone_scale(rest, shaped)[:, bone] * self.skeleton_template
        return (rest.bones[:, bone] @ scaled[..., None]).squeeze(-1) + rest.joints[:, bone]


def skin(weights: Tensor, rotations: Tensor, shift: Tensor, points: Tensor) -> Tensor:
    """Linear blend skinning: (B, N, 3) points, weights (N, J), rotations (B, J, 3, 3) and shifts (B, J, 3)."""
    transforms = torch.cat([rotations, shift[..., None]], -1).flatten(2).transpose(1, 2)
    # Coordinates before points: elementwise work along memory is several times faster than tiny matrix products.
    blended = (transforms @ weights.T).unflatten(1, (3, 4))
    moved = (blended[:, :, :3] * points.transpose(1, 2)[:, None]).sum(2) + blended[:, :, 3]
    return moved.transpose(1, 2)


def dense(matrix) -> np.ndarray:
    """A model file's matrix, sparse or not, as a float64 array."""
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)


def _parents(table) -> list[int]:
    # Ids stand in row 1, parents' ids in row 0; the root's parent is -1, which unsigned files hold as a huge number.
    columns = {int(joint): n for n, joint in enumerate(np.asarray(table)[1])}
    return [-1] + [columns[int(parent)] for parent in np.asarray(table)[0][1:]]


def _corrective_source() -> list[int]:
    source = [-1] * 24
    for joint, smpl_joint in enumerate(SMPL_JOINT_OF):
        source[smpl_joint] = joint
    return source[1:]


CORRECTIVE_SOURCE = _corrective_source()
"""(23,) SKEL joint that drives the correctives of SMPL joints 1..23; -1 where none does."""
