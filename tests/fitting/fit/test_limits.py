"""Tables of joint limits: the ones by name, and a user's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_fitter import smpl_people

from fitting import FitOptions, SKELFitter, read_limits
from fitting.anatomy import COORDINATE_NAMES
from fitting.body.limits import BSM_LIMITS, HUMAN_LIMITS
from fitting.body.mirror import mirror_poses
from schemas import InputError

KNEE = COORDINATE_NAMES.index("knee_angle_r")


def test_human_limits_hold_both_sides_alike_the_rest_pose_and_the_bsm_model():
    low, high = torch.as_tensor(HUMAN_LIMITS).unbind(1)
    body = slice(3, None)
    assert (low[body] < 0).all() and (high[body] > 0).all()
    mirrored = torch.stack([mirror_poses(low), mirror_poses(high)])
    torch.testing.assert_close(mirrored.amin(0), low)
    torch.testing.assert_close(mirrored.amax(0), high)
    bsm = torch.as_tensor(BSM_LIMITS)
    both = torch.stack([bsm[:, 0], bsm[:, 1], mirror_poses(bsm[:, 0]), mirror_poses(bsm[:, 1])])
    assert (low <= both.amin(0)).all() and (high >= both.amax(0)).all()
    assert np.isfinite(HUMAN_LIMITS[body]).all() and np.isinf(HUMAN_LIMITS[:3]).all()


def test_tables_go_by_name():
    np.testing.assert_array_equal(read_limits("human"), HUMAN_LIMITS)
    np.testing.assert_array_equal(read_limits("bsm"), BSM_LIMITS)
    assert np.isinf(read_limits("none")).all()


def written(folder, *lines):
    path = folder / "limits.csv"
    path.write_text("\n".join(["coordinate,low,high", *lines]))
    return path


def test_listed_limits_replace_the_default(tmp_path):
    table = read_limits(written(tmp_path, "knee_angle_r, 5, 60", "hip_flexion_l,,90.5"))
    expected = HUMAN_LIMITS.copy()
    expected[KNEE] = np.radians([5, 60])
    expected[COORDINATE_NAMES.index("hip_flexion_l")] = -math.inf, math.radians(90.5)
    np.testing.assert_allclose(table, expected)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("knee_angel_r,0,10", "knee_angle_r"),
        ("pelvis_tilt,0,10", "pelvis_tilt"),
        ("knee_angle_r,10,5", "low below high"),
        ("knee_angle_r,ten,20", "degrees"),
        ("knee_angle_r,0", "2 columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path, line, says):
    with pytest.raises(InputError, match=says) as error:
        read_limits(written(tmp_path, "mtp_angle_r,0,10", line))
    assert "limits.csv" in str(error.value)
    assert error.value.row == 3


def test_the_fit_holds_them(demo_smpl, demo_skel, tmp_path):
    limits = read_limits(written(tmp_path, "knee_angle_r,20,40"))
    fit = SKELFitter(demo_smpl, demo_skel, FitOptions(limits=limits)).fit(*smpl_people(8))
    assert (fit.poses[:, KNEE] >= math.radians(20) - 1e-5).all()
    assert (fit.poses[:, KNEE] <= math.radians(40) + 1e-5).all()
    assert (fit.limits_exceeded == 0).all()
    assert fit.limits_pressed[:, KNEE].any()


def test_gain_of_betas_is_the_difference_of_two_fits(demo_smpl, demo_skel):
    people = smpl_people(8)
    fit = SKELFitter(demo_smpl, demo_skel, FitOptions(measure_betas_gain=True)).fit(*people)
    kept = SKELFitter(demo_smpl, demo_skel, FitOptions(betas="keep")).fit(*people)
    torch.testing.assert_close(fit.betas_gain_mm, kept.vertex_error_mm - fit.vertex_error_mm, rtol=0, atol=0.05)
    assert fit.betas_gain_mm.mean() > 0
    assert (kept.betas_change == 0).all()
    plain = SKELFitter(demo_smpl, demo_skel).fit(*people)
    assert plain.betas_gain_mm.isnan().all()
    torch.testing.assert_close(plain.poses, fit.poses, rtol=0, atol=0)
