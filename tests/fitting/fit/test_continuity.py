"""Angles that run on: whole turns of body and arms, the same rotations in another writing, limits that still hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from motions import WHOLE_TURNS, windmill

from fitting import FitOptions, SKELFitter
from fitting.anatomy import COORDINATE_NAMES
from fitting.fit.continuity import continuous

FASTEST = math.radians(20)
"""rad per frame of any angle; the motions turn by 9 degrees a frame, and angles near a singularity somewhat more."""


def fastest(poses: torch.Tensor | np.ndarray) -> tuple[str, float]:
    """The coordinate that moves farthest between two frames."""
    steps = np.abs(np.diff(np.asarray(poses), axis=0)).max(0)
    return COORDINATE_NAMES[int(steps.argmax())], float(steps.max())


@pytest.fixture(scope="module")
def fitter(demo_smpl, demo_skel) -> SKELFitter:
    return SKELFitter(demo_smpl, demo_skel)


@pytest.mark.parametrize("name", WHOLE_TURNS)
def test_whole_turns_of_the_body(fitter, name):
    poses = WHOLE_TURNS[name]
    fit = fitter.fit_sequence(poses, np.zeros((1, 10)))
    assert fastest(fit.poses)[1] < FASTEST, fastest(fit.poses)
    turns = (fit.poses[-1, :3] - fit.poses[0, :3]).abs() / (2 * math.pi)
    assert float(turns.max()) == pytest.approx(2.0 if "two" in name or "double" in name else 1.0, abs=0.02)
    assert fit.converged.all() and (fit.limits_exceeded == 0).all()


def test_arms_that_swing_round(demo_smpl, demo_skel):
    fit = SKELFitter(demo_smpl, demo_skel, FitOptions(limits="none")).fit_sequence(windmill(2, 96), np.zeros((1, 10)))
    assert fastest(fit.poses)[1] < FASTEST, fastest(fit.poses)
    for side in "rl":
        around = fit.poses[:, COORDINATE_NAMES.index(f"shoulder_{side}_y")]
        assert abs(float(around[-1] - around[0])) == pytest.approx(4 * math.pi, abs=0.05)


@pytest.fixture(scope="module")
def wild(demo_skel) -> np.ndarray:
    """Random poses, the first of which are in gimbal lock."""
    poses = np.random.default_rng(0).uniform(-math.pi, math.pi, (60, 46))
    poses[:, 17:26] /= 4
    poses[:10, 1] = math.pi / 2
    poses[10:20, 1] = -math.pi / 2
    return poses


def test_another_writing_is_the_same_body(demo_skel, wild):
    """Every free joint in either branch, with turns more or less, and in gimbal lock: the skin does not move."""
    skel = demo_skel
    written = continuous(wild)
    assert np.abs(written - wild).max() > 3
    betas = torch.zeros(60, 10)
    with torch.no_grad():
        skins = [skel(torch.tensor(q, dtype=torch.float32), betas, betas[:, :3]).vertices for q in (wild, written)]
    torch.testing.assert_close(skins[1], skins[0], atol=1e-5, rtol=0)


def test_writing_does_not_change_when_written_again(wild):
    once = continuous(wild)
    np.testing.assert_allclose(continuous(once), once, atol=1e-9)
    np.testing.assert_array_equal(once[0], wild[0])


def test_poses_that_run_on_are_left_alone():
    poses = 0.3 * np.sin(np.linspace(0, 9, 50))[:, None] * np.linspace(0.5, 1, 46)
    np.testing.assert_array_equal(continuous(poses), poses)


def test_frames_without_trust_or_numbers_lead_nobody():
    """A frame upside down in between does not bring the others into another branch, nor does a missing one."""
    poses = np.zeros((6, 46))
    poses[:, 0] = np.linspace(3.0, 3.5, 6)
    principal = np.remainder(poses + math.pi, 2 * math.pi) - math.pi
    principal[2] = 3 * math.pi
    principal[4] = np.nan
    trusted = np.array([True, True, False, True, True, True])
    written = continuous(principal, trusted)
    kept = [0, 1, 3, 5]
    np.testing.assert_allclose(written[kept], poses[kept], atol=1e-9)
    assert np.isnan(written[4]).all()
