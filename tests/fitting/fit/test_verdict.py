"""One word per person on whether the fit can be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from range_of_motion import INHUMAN, smpl_poses
from test_fitter import smpl_people

from fitting import FitOptions, SKELFitter
from fitting.fit.verdict import FAR_MM
from schemas import VERDICTS


@pytest.fixture(scope="module")
def fitter(demo_smpl, demo_skel):
    return SKELFitter(demo_smpl, demo_skel)


def words(fit):
    return fit.numpy()["verdict"].tolist()


def test_people_are_good(fitter):
    fit = fitter.fit(*smpl_people(12, scale=0.1))
    assert words(fit) == ["good"] * 12
    assert [VERDICTS[code] for code in fit.verdict] == words(fit)


def test_degrees_and_millimetres_are_doubted_and_harm_nobody_else(fitter):
    poses, betas, trans = smpl_people(8, scale=0.1)
    poses[1] = torch.rad2deg(poses[1])
    trans[2] = trans[2] + torch.tensor([0.0, 0.0, 3000.0])
    # Rotation vectors of the root that count turns, and people far from the camera, are right.
    poses[3, :3] = torch.tensor([0.0, 4 * torch.pi, 0.0])
    trans[4, 2] = 300.0
    fit = fitter.fit(poses, betas, trans)
    assert words(fit) == ["good", "doubtful_source", "doubtful_source", *["good"] * 5]


def test_shapes_of_nobody_are_implausible(fitter):
    poses, betas, trans = smpl_people(8, scale=0.1)
    betas[0] *= 50 / betas[0].norm()
    betas[1] *= 6 / betas[1].norm()
    fit = fitter.fit(poses, betas, trans)
    assert words(fit) == ["implausible_shape", *["good"] * 7]


def test_betas_at_the_end_of_their_reach_are_told(demo_smpl, demo_skel):
    short = SKELFitter(demo_smpl, demo_skel, FitOptions(betas="free", betas_reach=0.05)).fit(*smpl_people(8, scale=0.1))
    long = SKELFitter(demo_smpl, demo_skel, FitOptions(betas="free")).fit(*smpl_people(8, scale=0.1))
    assert short.betas_pressed.any(1).all() and words(short) == ["implausible_shape"] * 8
    assert not long.betas_pressed.any() and words(long) == ["good"] * 8


def test_who_stays_far_from_the_target_is_far(fitter):
    """A trunk turned round takes all its limits, and the limits keep it far from the mesh."""
    poses = smpl_poses({"turned": INHUMAN["trunk turned round"], "rest": {}})
    fit = fitter.fit(poses, torch.zeros(2, 10))
    assert fit.vertex_error_mm[0] > FAR_MM and fit.limits_pressed[0].any()
    assert words(fit) == ["far", "good"]


def test_rows_that_are_not_finite_are_doubted(fitter):
    poses, betas, trans = smpl_people(8, scale=0.1)
    poses[5, 7] = np.nan
    fit = fitter.fit(poses, betas, trans)
    assert words(fit)[5] == "doubtful_source" and words(fit).count("good") == 7
