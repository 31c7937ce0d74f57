"""Meshes without parameters: SMPL's own as near as by their parameters, others as they are, wrong ones by name."""

from __future__ import annotations

import hard_poses
import numpy as np
import pytest
import torch
from motions import standing

from fitting import SKELFitter
from fitting.fit.target import global_rotations
from schemas import InputError


@pytest.fixture(scope="module")
def fitter(demo_smpl, demo_skel) -> SKELFitter:
    return SKELFitter(demo_smpl, demo_skel)


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Human and inhuman poses of all sorts of bodies, some hundred metres from the origin."""
    poses, betas = hard_poses.people(hard_poses.HUMAN | hard_poses.INHUMAN)
    wild = torch.randn(12, 72, generator=torch.Generator().manual_seed(1)) * 0.4
    poses = torch.cat([poses, wild])
    betas = torch.cat([betas, torch.randn(12, 10, generator=torch.Generator().manual_seed(2))])
    trans = torch.randn(len(poses), 3, generator=torch.Generator().manual_seed(3)) * torch.tensor([2.0, 1.0, 100.0])
    return poses, betas, trans


def meshes_of(smpl, poses, betas, trans) -> torch.Tensor:
    with torch.no_grad():
        return smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3], transl=trans).vertices


@pytest.fixture(scope="module")
def fits(fitter, demo_smpl, people):
    return fitter.fit(*people), fitter.fit_vertices(meshes_of(demo_smpl, *people))


def test_smpl_meshes_are_as_near_as_by_their_parameters(fits):
    by_parameters, by_mesh = fits
    assert by_mesh.valid.all() and by_mesh.converged.all()
    ratio = by_mesh.vertex_error_mm / by_parameters.vertex_error_mm
    assert float(ratio.mean()) < 1.005
    assert float((by_mesh.vertex_error_mm - by_parameters.vertex_error_mm).max()) < 0.2
    torch.testing.assert_close(by_mesh.trans, by_parameters.trans, atol=2e-3, rtol=0)


def test_distances_are_to_the_mesh_that_was_given(fits, demo_skel, demo_smpl, people):
    _, fit = fits
    with torch.no_grad():
        skin = demo_skel(fit.poses, fit.betas, fit.trans).vertices
    apart = 1000 * (skin - meshes_of(demo_smpl, *people)).norm(dim=2)
    torch.testing.assert_close(fit.vertex_error_mm, apart.mean(1), atol=0.02, rtol=0)
    torch.testing.assert_close(fit.max_vertex_error_mm, apart.amax(1), atol=0.05, rtol=0)


def test_smpl_parameters_are_recovered(fitter, demo_smpl, people):
    """Exactly, from the mesh alone: global orientation, shape, translation."""
    poses, betas, trans = people
    trans = trans / 100
    found = fitter._registrar(meshes_of(demo_smpl, poses, betas, trans).transpose(1, 2).contiguous())
    mesh = fitter.target.mesh(found.betas, found.rotations, global_rotations(found.rotations)) + found.trans[..., None]
    apart = 1000 * (mesh.transpose(1, 2) - meshes_of(demo_smpl, poses, betas, trans)).norm(dim=2).mean(1)
    assert float(apart.max()) < 0.2
    torch.testing.assert_close(found.trans, trans, atol=1e-3, rtol=0)
    own = [0, 2, 4, 6]
    torch.testing.assert_close(found.betas[own, :3], betas[own, :3], atol=0.05, rtol=0)


def test_betas_that_are_known_stay(fitter, demo_smpl, people):
    poses, betas, trans = (values[:9] for values in people)
    given = fitter.fit_vertices(meshes_of(demo_smpl, poses, betas, trans), betas)
    by_parameters = fitter.fit(poses, betas, trans)
    torch.testing.assert_close(given.betas_change, by_parameters.betas_change, atol=0.02, rtol=0)
    torch.testing.assert_close(given.vertex_error_mm, by_parameters.vertex_error_mm, atol=0.02, rtol=0)


def test_clothes_and_noise_move_the_body_little(fitter, demo_smpl):
    """A trunk 15 mm outside the skin, and 3 mm of noise: joints stay within 10 mm, the root within 2 degrees."""
    poses, betas = torch.tensor(standing(8), dtype=torch.float32), torch.zeros(8, 10)
    poses[:, :3] = torch.randn(8, 3, generator=torch.Generator().manual_seed(5))
    mesh = meshes_of(demo_smpl, poses, betas, torch.zeros(8, 3))
    sound = fitter.fit_vertices(mesh)
    centre = mesh.mean(1, keepdim=True)
    trunk = demo_smpl.lbs_weights[:, [0, 3, 6, 9]].sum(1)[:, None]
    outward = torch.nn.functional.normalize(mesh - centre, dim=2)
    noise = torch.randn(mesh.shape, generator=torch.Generator().manual_seed(6))
    clothed = fitter.fit_vertices(mesh + 0.015 * trunk * outward + 0.003 * noise)
    assert clothed.converged.all()
    joints = [fitter.skel(fit.poses, fit.betas, fit.trans).joints.detach() for fit in (sound, clothed)]
    assert float((joints[1] - joints[0]).norm(dim=2).mean()) < 0.01
    turned = (clothed.poses[:, :3] - sound.poses[:, :3] + np.pi) % (2 * np.pi) - np.pi
    assert float(turned.abs().max()) < np.radians(2)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000, "as if in millimetres"), (100, "as if in centimetres"), (39.37, "as if in inches")]
)
def test_units_are_named(fitter, demo_smpl, people, factor, unit):
    mesh = meshes_of(demo_smpl, *(values[:3] for values in people))
    with pytest.raises(InputError, match=unit):
        fitter.fit_vertices(factor * mesh)


def test_small_and_tall_people_are_people(fitter, demo_smpl):
    mesh = meshes_of(demo_smpl, torch.zeros(3, 72), torch.zeros(3, 10), torch.zeros(3, 3))
    fit = fitter.fit_vertices(mesh * torch.tensor([0.55, 1.0, 1.3])[:, None, None])
    assert fit.valid.all()


@pytest.mark.parametrize("shape", [(2, 6890, 3), (6926, 3), (1, 6926, 2)])
def test_another_topology_is_refused(fitter, shape):
    with pytest.raises(InputError, match="SMPL's topology"):
        fitter.fit_vertices(np.zeros(shape, np.float32))


def test_bad_rows_are_flagged_and_touch_nobody(fits, fitter, demo_smpl, people):
    mesh = meshes_of(demo_smpl, *people)
    mesh[3, 100, 1] = np.nan
    mesh[5] *= 1000
    fit = fitter.fit_vertices(mesh)
    assert (~fit.valid).nonzero().flatten().tolist() == [3, 5]
    assert fit.poses[[3, 5]].isnan().all()
    sound = fit.valid
    torch.testing.assert_close(fit.poses[sound], fits[1].poses[sound], atol=0, rtol=0)


def test_no_meshes_give_no_fits(fitter):
    assert len(fitter.fit_vertices(np.zeros((0, fitter.skel.num_vertices, 3), np.float32))) == 0
