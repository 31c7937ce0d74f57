"""The fast fit against a slow one that shares nothing with it but the objective."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hard_poses import HUMAN, INHUMAN, people
from reference_fit import reference_fit

from fitting import SKEL, SKELFitter, load_smpl

WORSE_BY = 1.05
"""No distance may be more than this factor above the reference's."""

CHECKED = ("crossed legs", "singular root", "knee bent sideways")
"""A reference fit takes seconds; these are compared, `python -m tests.benchmarks.accuracy` compares all."""


@pytest.fixture(scope="module")
def fits(demo_smpl, demo_skel):
    names = [*HUMAN, *INHUMAN]
    poses, betas = people({**HUMAN, **INHUMAN})
    return names, poses, betas, SKELFitter(demo_smpl, demo_skel).fit(poses, betas)


@pytest.fixture(scope="module")
def exact():
    return SKELFitter(load_smpl("demo", dtype=torch.float64), SKEL.demo(torch.float64))


@pytest.mark.parametrize("name", CHECKED)
def test_as_good_as_the_reference(fits, exact, name):
    names, poses, betas, fit = fits
    row = names.index(name)
    reference = reference_fit(exact, poses[row].double(), betas[row].double(), starts=2, iterations=40)
    found = [fit.vertex_error_mm, fit.vertex_error_p95_mm, fit.max_vertex_error_mm, fit.joint_error_mm]
    found = [values[row] for values in found]
    distances = reference.vertex_error_mm
    wanted = [distances.mean(), np.quantile(distances, 0.95), distances.max(), reference.joint_error_mm.mean()]
    for ours, theirs in zip(found, wanted, strict=True):
        assert float(ours) <= WORSE_BY * theirs, (name, found, wanted)


def test_hard_people_converge_to_plausible_bodies(fits):
    names, _, _, fit = fits
    assert fit.converged.all(), [n for n, c in zip(names, fit.converged, strict=True) if not c]
    assert (fit.limits_exceeded == 0).all()
    human = fit.vertex_error_mm[: len(HUMAN)]
    assert human.max() < 9, dict(zip(names, human.tolist(), strict=False))


def test_what_no_human_can_do_is_told_by_distance_and_limits(fits):
    _, _, _, fit = fits
    inhuman = slice(len(HUMAN), None)
    assert (fit.limits_pressed[inhuman].sum(1) > 0).all()
    assert fit.max_vertex_error_mm[inhuman].min() > 1.5 * fit.max_vertex_error_mm[: len(HUMAN)].median()
