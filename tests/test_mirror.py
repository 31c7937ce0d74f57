"""Mirrored parameters against the mirrored mesh."""

import torch

from fitting import SKEL
from fitting.demo_body import mirror_vertices
from fitting.mirror import COUNTERPART, MIRROR_SIGN, mirror_poses, mirror_trans


def test_mirrored_parameters_give_the_mirrored_mesh():
    skel = SKEL.demo(torch.float64)
    generator = torch.Generator().manual_seed(0)
    poses = 0.6 * torch.randn(6, 46, generator=generator, dtype=torch.float64)
    betas = torch.randn(6, 10, generator=generator, dtype=torch.float64)
    trans = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    out = skel(poses, betas, trans)
    mirrored = skel(mirror_poses(poses), betas, mirror_trans(trans))
    expected = mirror_trans(out.vertices)[:, torch.as_tensor(mirror_vertices())]
    torch.testing.assert_close(mirrored.vertices, expected, atol=1e-6, rtol=0)


def test_mirroring_twice_is_nothing():
    poses = torch.randn(4, 46)
    assert torch.equal(mirror_poses(mirror_poses(poses)), poses)
    assert (COUNTERPART[COUNTERPART] == range(46)).all() and (MIRROR_SIGN[COUNTERPART] == MIRROR_SIGN).all()
