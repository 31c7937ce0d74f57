"""SKEL's angles as 24 x 6 numbers and back: the released numbers, and what holds for any pose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from seeded_weights import REFERENCE

from fitting.anatomy import COORDINATE_NAMES
from fitting.body.limits import BSM_LIMITS
from train.network.pose_representation import (
    BALLS,
    HANDS,
    HINGES,
    poses_to_representation,
    poses_to_rotations,
    representation_to_poses,
    representation_to_rotations,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE / "golden_pose_rep.npz") as values:
        return {name: torch.from_numpy(values[name]) for name in values.files}


def _random_poses(count: int, dtype=torch.float64) -> torch.Tensor:
    """Within the joint limits, the root anywhere within its angles' ranges."""
    low, high = (torch.from_numpy(np.clip(BSM_LIMITS, -1.5, 1.5)[:, n]) for n in range(2))
    draw = torch.rand(count, 46, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    poses = low + (high - low) * draw
    poses[:, 0] = (draw[:, 0] * 2 - 1) * 3.14
    poses[:, 2] = (draw[:, 2] * 2 - 1) * 3.14
    return poses.to(dtype)


def test_released_numbers_both_ways(golden):
    torch.testing.assert_close(poses_to_representation(golden["q"]), golden["rep"], rtol=0, atol=1e-6)
    torch.testing.assert_close(poses_to_rotations(golden["q"]), golden["rot"], rtol=0, atol=1e-6)
    torch.testing.assert_close(representation_to_poses(golden["noisy_rep"]), golden["q_from_noisy"], rtol=0, atol=2e-6)
    torch.testing.assert_close(representation_to_poses(golden["rep"]), golden["q"], rtol=0, atol=2e-6)


def test_round_trip_over_the_range_of_motion():
    poses = _random_poses(500)
    back = representation_to_poses(poses_to_representation(poses))
    torch.testing.assert_close(back, poses, rtol=0, atol=1e-7)


def test_rotations_of_any_numbers_are_those_of_the_poses_read_from_them(golden):
    rotations = representation_to_rotations(golden["noisy_rep"].double())
    torch.testing.assert_close(rotations, poses_to_rotations(representation_to_poses(golden["noisy_rep"].double())))
    eye = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(-1, -2), eye, rtol=0, atol=1e-12)
    assert torch.linalg.det(rotations).min() > 0.99


def test_pelvis_and_shoulder_are_euler_angles_in_their_named_order():
    poses = _random_poses(50)
    rotations = poses_to_rotations(poses).numpy()
    pelvis = Rotation.from_euler("zxy", poses[:, :3].numpy()).as_matrix()
    np.testing.assert_allclose(rotations[:, 0], pelvis, atol=1e-12)
    x = COORDINATE_NAMES.index("shoulder_r_x")
    shoulder = Rotation.from_euler("xyz", poses[:, x : x + 3].numpy()).as_matrix()
    np.testing.assert_allclose(rotations[:, 15], shoulder, atol=1e-12)


def test_length_of_the_numbers_does_not_matter_except_for_hands():
    rep = poses_to_representation(_random_poses(20))
    stretched = rep.clone()
    stretched[:, BALLS + HINGES] *= 3.7
    torch.testing.assert_close(representation_to_poses(stretched), representation_to_poses(rep))
    stretched[:, HANDS] *= 2
    assert (representation_to_poses(stretched) - representation_to_poses(rep)).abs().max() > 0.1
    assert sorted(BALLS + HINGES + HANDS) == list(range(24))


def test_gradient_is_that_of_finite_differences():
    rep = poses_to_representation(_random_poses(1)) * 1.1
    rep.requires_grad_()
    assert torch.autograd.gradcheck(representation_to_poses, rep)
    assert torch.autograd.gradcheck(representation_to_rotations, rep)


@pytest.mark.parametrize("kind", ["zeros", "parallel rows", "gimbal lock"])
def test_gradients_stay_finite_where_angles_are_undefined(kind):
    rep = poses_to_representation(_random_poses(1, torch.float32))
    if kind == "zeros":
        rep = torch.zeros_like(rep)
    elif kind == "parallel rows":
        rep[..., 3:] = 2 * rep[..., :3]
    else:
        poses = torch.zeros(1, 46)
        poses[:, 1] = math.pi / 2  # pelvis list: the middle angle
        rep = poses_to_representation(poses)
    rep.requires_grad_()
    for convert in (representation_to_poses, representation_to_rotations):
        result = convert(rep)
        (gradient,) = torch.autograd.grad(result.sum(), rep)
        assert torch.isfinite(result).all()
        assert torch.isfinite(gradient).all()


def test_autocast_does_not_lower_the_precision():
    poses = _random_poses(10, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        back = representation_to_poses(poses_to_representation(poses))
        rotations = poses_to_rotations(poses)
    torch.testing.assert_close(back, poses, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotations, poses_to_rotations(poses.double()).float(), rtol=0, atol=1e-6)


def test_compiles_as_one_graph():
    compiled = torch.compile(lambda r: representation_to_poses(r), fullgraph=True, backend="eager")
    rep = poses_to_representation(_random_poses(3, torch.float32))
    torch.testing.assert_close(compiled(rep), representation_to_poses(rep))
