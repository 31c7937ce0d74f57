"""Meshes of estimates and of truth, and the points that protocols compare on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fitting.body.keypoints import regress, skel_keypoints
from pipelines.files.body_models import BodyModels
from train.evaluate.metrics import aligned, mean_distance_mm, point_distances_mm

if TYPE_CHECKING:
    import numpy as np

    from train.evaluate.protocols import Protocol

BETAS = 10
_REGRESSORS = {
    "h36m": ("J_regressor_h36m",),
    "kinematic": ("J_regressor_SMPL_MALE",),
    "smpl-male": ("J_regressor_SMPL_MALE",),
    "keypoints": ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19"),
}
"""Files that protocols need for their points, beside the body models' own."""


class EvaluationBodies:
    """SKEL's skin for estimates, SMPL of every gender for truth, and the regressors of the protocols."""

    def __init__(self, models: BodyModels) -> None:
        self.models = models

    def skel_vertices(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, V, 3) m, without translation, of q (B, 46) and betas (B, 10)."""
        return self.models.skel(poses.float(), betas.float(), poses.new_zeros(len(poses), 3).float()).vertices

    def smpl(self, poses: Tensor, betas: Tensor, genders: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) and kinematic joints (B, 24, 3), m, without translation, of axis-angle (B, 72)."""
        stated = ["neutral"] * len(poses) if genders is None else [str(g) for g in genders]
        vertices = poses.new_zeros(len(poses), self.models.skel.num_vertices, 3)
        joints = poses.new_zeros(len(poses), 24, 3)
        for gender in sorted(set(stated)):
            rows = torch.tensor([n for n, g in enumerate(stated) if g == gender], device=poses.device)
            pose = poses[rows]
            out = self.models.smpl(gender)(betas=betas[rows], body_pose=pose[:, 3:], global_orient=pose[:, :3])
            vertices[rows], joints[rows] = out.vertices, out.joints[:, :24]
        return vertices, joints

    def require(self, rules: Protocol, genders: Iterable[str] = ()) -> None:
        """Loads what a protocol compares with, SMPL of these genders too. Raises InputError for what is not there."""
        for name in _REGRESSORS.get(rules.points, ()):
            self.models.regressor(name)
        for gender in genders:
            self.models.smpl(gender)

    @property
    def has_keypoints(self) -> bool:
        """Whether the regressors of the 44 keypoints are among the body models."""
        return set(_REGRESSORS["keypoints"]) <= self.models.regressors.keys()

    def keypoints(self, vertices: Tensor) -> Tensor:
        """The 44 (B, 44, 3) of a SKEL skin."""
        ids = self.models.smpl().vertex_joint_selector.extra_joints_idxs
        mix, j19 = (self.models.regressor(name) for name in _REGRESSORS["keypoints"])
        return skel_keypoints(vertices, ids, mix, j19)[0]

    def points(self, vertices: Tensor, rules: Protocol) -> Tensor:
        """(B, P, 3) of an estimate's mesh, before any are chosen."""
        if rules.points == "keypoints":
            return self.keypoints(vertices)
        if rules.points in ("neutral", "own"):
            return regress(self.models.smpl().J_regressor, vertices)
        return regress(self.models.regressor(*_REGRESSORS[rules.points]), vertices)

    def true_points(self, vertices: Tensor, joints: Tensor, genders: np.ndarray, rules: Protocol) -> Tensor:
        """The same of truth's mesh and kinematic joints, as `smpl` gives them."""
        if rules.points == "kinematic":
            return joints
        if rules.points != "own":
            return self.points(vertices, rules)
        found = torch.empty_like(joints)
        for gender in sorted({str(g) for g in genders}):
            rows = torch.tensor([n for n, g in enumerate(genders) if str(g) == gender], device=vertices.device)
            found[rows] = regress(self.models.smpl(gender).J_regressor, vertices[rows])
        return found


def body_errors(
    rules: Protocol,
    points: Tensor,
    goals: Tensor,
    vertices: Tensor | None = None,
    goal_vertices: Tensor | None = None,
    confidence: Tensor | None = None,
) -> dict[str, Tensor]:
    """`mpjpe_mm`, `pa_mpjpe_mm` (B,) and `joints_mm` (B, n); `pve_mm`, `pa_pve_mm` (B,) if the protocol has meshes.

    Points (B, P, 3) of estimate and truth, before any are chosen, and vertices (B, V, 3), m. `confidence` (B, P) of
    truth's points counts if the protocol says so: what is not positive is left out, NaN where nothing is left.
    """
    chosen, root = list(rules.chosen), list(rules.root)
    origin, goal_origin = (p[:, root].mean(1, keepdim=True) for p in (points, goals))
    moved, goal = points[:, chosen] - origin, goals[:, chosen] - goal_origin
    counts = None
    if rules.confidence and confidence is not None:
        counts = confidence[:, chosen] > 0
        rooted = (confidence[:, root] > 0).all(1, keepdim=True)
        goal = torch.where(rooted[..., None], goal, torch.nan)
    apart = point_distances_mm(moved, goal)
    if counts is not None:
        apart = torch.where(counts, apart, torch.nan)
    plain, plain_goal = points[:, chosen], goals[:, chosen]
    found = {
        "mpjpe_mm": mean_distance_mm(moved, goal, counts),
        "pa_mpjpe_mm": mean_distance_mm(aligned(plain, plain_goal, counts), plain_goal, counts),
        "joints_mm": apart,
    }
    if rules.meshes and vertices is not None and goal_vertices is not None:
        found["pve_mm"] = mean_distance_mm(vertices - origin, goal_vertices - goal_origin)
        found["pa_pve_mm"] = mean_distance_mm(aligned(vertices, goal_vertices), goal_vertices)
    return found
