"""The 44 keypoints of SKEL and their derivatives without a mesh.

Each keypoint is a weighted sum of skinned vertices. Summed over vertices first, what remains of it per joint is one
4-vector, which is linear in shape and pose correctives:

    p_k = sum_j T_j y_kj,    y_kj = sum_v K_kv w_vj [x_v; 1]

with T_j the 3x4 transforms of skinning. Twelve thousand numbers take the place of a mesh (compare the second moments in
`fitting/README.md`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from fitting.anatomy import JOINTS
from fitting.body.constants import constant
from fitting.body.keypoints import keypoints_44
from fitting.body.kinematics import JOINT_OF_COORDINATE
from fitting.body.skel import NUM_BETAS, SKEL
from fitting.fit import linearisation as lin
from schemas import InputError


@dataclass(frozen=True)
class KeypointBody:
    """SKEL, and what its keypoints (K: all 44, or some of them) need of the skin."""

    skel: SKEL
    directions: Tensor
    """(1 + 10 + 207, K * 24 * 4) y of the template, and its change by betas and by the correctives' features"""
    subtree: Tensor
    """(24, 24)"""
    carried: Tensor
    """(24, K) share of each keypoint that hangs on a joint or behind it"""

    @classmethod
    def of(cls, skel: SKEL, joint_regressor: Tensor, j19: Tensor, vertex_joint_ids: Tensor) -> KeypointBody:
        """`joint_regressor` (24, V) is `J_regressor_SKEL_mix_MALE`, `j19` (19, V) is `SMPL_to_J19`, `vertex_joint_ids`
        (21,) are those of the SMPL on the same topology."""
        like = skel.v_template
        every = torch.eye(skel.num_vertices, dtype=torch.float64)[None]
        joints = joint_regressor.double()[None]
        # Keypoints are linear in the vertices: those of the V unit vectors are the weights.
        weights = keypoints_44(every, joints, vertex_joint_ids, j19.double())[0][0].to(like.device)
        used = (weights != 0).any(0).nonzero()[:, 0]
        share = weights[:, used, None] * skel.weights[used].double()[None]  # 44, n, 24
        rows = [skel.v_template[None, used], skel.shapedirs[used].permute(2, 0, 1)]
        rows.append(skel.posedirs.unflatten(1, (-1, 3))[:, used])
        points = torch.einsum("knj,dnc->dkjc", share, torch.cat(rows).double())
        ones = points.new_zeros(*points.shape[:3], 1)
        ones[0, ..., 0] = share.sum(1)
        subtree = lin.subtree_matrix(skel.parents).to(share)
        return cls(
            skel,
            torch.cat([points, ones], -1).flatten(1).to(like).contiguous(),
            subtree.to(like),
            (subtree @ share.sum(1).T).to(like),
        )

    @classmethod
    def load(cls, path_or_dir: str | PathLike[str] = "demo", gender: str = "male", dtype=torch.float32) -> KeypointBody:
        """From a body-model directory that holds SKEL, SMPL and the two regressors; "demo" is the embedded body.

        Raises schemas.InputError for what is missing or damaged.
        """
        from fitting.body.files import keypoint_arrays
        from fitting.body.smpl import load_smpl

        skel = SKEL.load(path_or_dir, gender, dtype)
        regressors = keypoint_arrays(path_or_dir, skel.num_vertices)
        for name in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19"):
            if name not in regressors:
                raise InputError("not among the body models, and keypoints need it", file=path_or_dir, field=name)
        ids = load_smpl(path_or_dir, "neutral").vertex_joint_selector.extra_joints_idxs
        joints, j19 = (torch.from_numpy(regressors[n]) for n in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19"))
        return cls.of(skel, joints, j19, torch.as_tensor(ids, dtype=torch.long))

    @property
    def count(self) -> int:
        """K, the number of keypoints."""
        return self.carried.shape[1]

    def only(self, keypoints: Tensor) -> KeypointBody:
        """The same body with some of the keypoints (n,), as an index."""
        directions = self.directions.view(len(self.directions), self.count, -1)[:, keypoints].flatten(1)
        return dataclasses.replace(self, directions=directions.contiguous(), carried=self.carried[:, keypoints])

    def corrected(self, features: Tensor) -> Tensor:
        """(B, K * 24 * 4) y of the mean shape with the pose correctives of features (B, 207)."""
        return self.directions[0] + features @ self.directions[1 + NUM_BETAS :]

    def features(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, 207) what the pose correctives are linear in."""
        rest = self.skel.rest_frames(self.skel.rest_joints(betas))
        return self.skel.corrective_features(self.skel.pose(rest, poses).local_rotations)

    def keypoints(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, K, 3) exact keypoints, m, before any translation, of poses (B, 46) and betas (B, 10)."""
        corrected = self.corrected(self.features(poses, betas))
        place = self.place(poses, betas, corrected)
        return (place.points + place.root[..., None]).transpose(1, 2)

    def place(
        self,
        poses: Tensor,
        betas: Tensor,
        corrected: Tensor,
        slopes: bool = False,
        shape: bool = True,
        turn: Tensor | None = None,
    ) -> Placed:
        """Keypoints relative to the pelvis, with the correctives held at `corrected`, and (optionally) derivatives.

        Those by betas are zero without `shape`. All but the root is told in a frame that `turn` (B, 3, 3) leads to.
        """
        skel = self.skel
        people = len(poses)
        rest = skel.rest_frames(skel.rest_joints(betas))
        posed = skel.pose(rest, poses)
        transforms = lin.transforms_of(rest, posed)
        shapes = self.directions[1 : 1 + NUM_BETAS]
        own = (corrected + betas @ shapes).view(people, self.count, JOINTS, 4).permute(0, 2, 3, 1)
        parts = transforms @ own  # B, 24, 3, K
        root = posed.joints[:, 0]
        points = parts.sum(1) - root[..., None]
        if turn is not None:
            points = turn @ points
        if not slopes:
            return Placed(points, root)
        twists = lin.pose_twists(skel, rest, posed)
        joint = constant(JOINT_OF_COORDINATE, poses.device)
        behind = (self.subtree @ parts.flatten(2)).view(people, JOINTS, 3, self.count)[:, joint]
        # Coordinates are turned, not the many points that they move.
        world = twists.world if turn is None else turn[:, None] @ twists.world
        omega, u = world[..., :3], world[..., 3]
        by_pose = omega @ behind + u[..., None] * self.carried[joint][:, None]
        if not shape:
            return Placed(points, root, by_pose, torch.zeros_like(by_pose[:, :NUM_BETAS]))
        motion = lin.shape_motion(skel, rest, posed)
        flat = own.flatten(1, 2)  # B, 96, K
        by_betas = (motion.of_transforms(transforms, self.subtree).flatten(1, 2) @ flat).view(people, NUM_BETAS, 3, -1)
        change = shapes.view(NUM_BETAS * self.count, 4 * JOINTS).T
        turned = transforms.transpose(1, 2).flatten(2) @ change
        by_betas = by_betas + turned.view(people, 3, NUM_BETAS, self.count).transpose(1, 2)
        by_betas = by_betas - skel.J_shapedirs[0].T[None, :, :, None]
        if turn is not None:
            by_betas = (turn @ by_betas.transpose(1, 2).flatten(2)).unflatten(2, by_betas.shape[1::2]).transpose(1, 2)
        return Placed(points, root, by_pose, by_betas)


@dataclass(frozen=True)
class Placed:
    """Keypoints of B people relative to the pelvis's joint (m), coordinates before points."""

    points: Tensor
    """(B, 3, K)"""
    root: Tensor
    """(B, 3) the pelvis's joint"""
    by_pose: Tensor | None = None
    """(B, 46, 3, K) derivative by the coordinates"""
    by_betas: Tensor | None = None
    """(B, 10, 3, K)"""
