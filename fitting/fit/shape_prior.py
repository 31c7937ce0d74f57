"""The pull of betas towards the transferred ones: the shape is who somebody is, not how they stand.

What the fit would change about betas is mostly error of pose that the shape can hide. Bones have one length in
any pose, so a change of the limbs' lengths costs extra; the outline of the body may follow the mesh.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting import anatomy
from fitting.body.skel import NUM_BETAS, SKEL
from fitting.fit.options import BetasPrior

LIMBS = (
    *(anatomy.TIBIA_R, anatomy.TALUS_R, anatomy.TIBIA_L, anatomy.TALUS_L),
    *(anatomy.ULNA_R, anatomy.RADIUS_R, anatomy.HAND_R, anatomy.ULNA_L, anatomy.RADIUS_L, anatomy.HAND_L),
)
"""Joints at the far ends of thighs, shanks, upper arms and forearms."""


def limb_length_slopes(skel: SKEL) -> Tensor:
    """(10, 10) m per standard deviation: how the distance of each joint of LIMBS to its parent changes with betas."""
    like = skel.v_template
    shapes = torch.cat([like.new_zeros(1, NUM_BETAS), torch.eye(NUM_BETAS, dtype=like.dtype, device=like.device)])
    joints = skel.rest_joints(shapes)
    bones = joints[:, LIMBS] - joints[:, [skel.parents[joint] for joint in LIMBS]]
    along = torch.nn.functional.normalize(bones[0], dim=-1)
    # Joints are linear in betas, so differences are slopes.
    return ((bones[1:] - bones[0]) * along).sum(-1).T


def shape_prior(skel: SKEL, prior: BetasPrior) -> Tensor:
    """(10, 10) m^2 per squared standard deviation: a move b of betas costs b^T P b."""
    slopes = limb_length_slopes(skel)
    own = prior.own * torch.eye(NUM_BETAS, dtype=slopes.dtype, device=slopes.device)
    return own + prior.limb_lengths * slopes.T @ slopes
