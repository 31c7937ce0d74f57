"""What people can do costs nothing for limits, and what they cannot do is held and said."""

from __future__ import annotations

import pytest
import torch
from range_of_motion import ENDS, HUMAN, INHUMAN, smpl_poses

from fitting import FitOptions, SKELFitter
from fitting.anatomy import COORDINATE_NAMES
from schemas import VERDICTS

WORSE_BY, WORSE_BY_MM = 1.1, 0.2
"""Nobody may be farther from the target than without limits by more than the larger of these."""


@pytest.fixture(scope="module")
def fitter(demo_smpl, demo_skel):
    return SKELFitter(demo_smpl, demo_skel)


def fit_of(fitter, poses):
    targets = smpl_poses(poses)
    return fitter.fit(targets, torch.zeros(len(targets), 10))


@pytest.fixture(scope="module")
def human(fitter):
    return fit_of(fitter, HUMAN)


def words(fit):
    return [VERDICTS[code] for code in fit.verdict]


def test_limits_cost_no_human_pose_anything(human, demo_smpl, demo_skel):
    free = fit_of(SKELFitter(demo_smpl, demo_skel, FitOptions(limits="none")), HUMAN)
    allowed = torch.maximum(WORSE_BY * free.vertex_error_mm, free.vertex_error_mm + WORSE_BY_MM)
    cut = [n for n, worse in zip(HUMAN, human.vertex_error_mm > allowed, strict=True) if worse]
    assert not cut and human.converged.all()
    assert human.vertex_error_mm[list(HUMAN).index("rest")] < 0.05


def test_human_poses_are_good(human):
    assert words(human) == ["good"] * len(HUMAN)


def test_the_suite_bends_every_joint_to_both_sides(human):
    """The poses are SMPL's; what they are to SKEL must reach about half the way to each limit at least."""
    ends = human.poses[: len(ENDS)]
    for name in COORDINATE_NAMES[3:]:
        if "shoulder" in name:  # their limits are whole turns
            continue
        coordinate = COORDINATE_NAMES.index(name)
        limits = torch.as_tensor(_limits_of(coordinate))
        assert ends[:, coordinate].min() < 0.25 * limits[0], name
        assert ends[:, coordinate].max() > 0.25 * limits[1], name


def _limits_of(coordinate):
    from fitting.body.limits import HUMAN_LIMITS

    return HUMAN_LIMITS[coordinate]


def test_what_no_human_can_do_ends_inside_the_limits_and_is_called_so(fitter):
    fit = fit_of(fitter, INHUMAN)
    assert (fit.limits_exceeded == 0).all()
    assert (fit.limits_pressed.sum(1) > 0).all()
    assert set(words(fit)) <= {"at_limits", "far", "implausible_shape"}, dict(zip(INHUMAN, words(fit), strict=True))


def test_without_limits_the_inhuman_is_called_so_too(demo_smpl, demo_skel):
    fit = fit_of(SKELFitter(demo_smpl, demo_skel, FitOptions(limits="none")), {"knee": INHUMAN["knee bent forward 60"]})
    assert words(fit) == ["at_limits"] and fit.limits_exceeded[0] > 0 and fit.vertex_error_mm[0] < 1
