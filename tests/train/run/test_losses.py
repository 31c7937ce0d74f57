"""The loss, its camera and its keypoints: values worked out by hand, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fitting import SKEL, load_smpl
from fitting.body.files import keypoint_arrays
from fitting.body.keypoints import skel_keypoints
from pipelines.files.body_models import BodyModels
from schemas import InputError
from train import SKELCF
from train.config import LossConfig, NetworkConfig
from train.data.batch import Targets
from train.network.camera import (
    Framing,
    bbox_cue,
    cam_to_translation,
    project,
    project_to_crop,
    to_crop,
    translation_to_cam,
)
from train.network.decoder import Estimate
from train.network.model import Output
from train.network.pose_representation import poses_to_representation, poses_to_rotations, representation_to_rotations
from train.run import losses
from train.run.body import PELVIS_KEYPOINT, KeypointLayer

PEOPLE = 3


pytestmark = pytest.mark.usefixtures("one_thread", "small_backbone")


@pytest.fixture(scope="module")
def body() -> KeypointLayer:
    return KeypointLayer.of(BodyModels())


@pytest.fixture(scope="module")
def framing() -> Framing:
    """Boxes in three corners of 640 x 480 photographs."""
    center = torch.tensor([[100.0, 80.0], [500.0, 400.0], [320.0, 240.0]])
    return Framing(center, torch.tensor([150.0, 90.0, 300.0]), torch.tensor([500.0, 700.0, 900.0]), middle())


def middle() -> torch.Tensor:
    return torch.tensor([[320.0, 240.0]]).expand(PEOPLE, -1)


@pytest.fixture(scope="module")
def truth() -> Estimate:
    g = torch.Generator().manual_seed(2)
    poses = torch.randn(PEOPLE, 46, generator=g) * 0.3
    cam = torch.tensor([[0.9, 0.05, -0.1], [1.1, 0.0, 0.2], [0.7, -0.2, 0.0]])
    return Estimate(poses_to_representation(poses), torch.randn(PEOPLE, 10, generator=g), cam)


@pytest.fixture(scope="module")
def targets(body, framing, truth) -> Targets:
    """Labels that `truth` meets exactly, each keypoint with its own confidence."""
    keypoints = body(truth.poses, truth.betas)
    confidence = torch.rand(PEOPLE, 44, 1, generator=torch.Generator().manual_seed(3))
    elsewhere = keypoints + torch.tensor([1.0, 2.0, 30.0])
    projected = project_to_crop(keypoints, truth.cam, framing)
    three, two = torch.cat([elsewhere, confidence], -1), torch.cat([projected, confidence], -1)
    return Targets(truth.poses, truth.betas, three, two, framing)


# --------------------------------------------------------------------------------------------------------- camera


def test_the_shift_and_scale_place_a_person_within_the_crop_whatever_the_framing(framing, truth):
    """A point at the body's origin appears at s t / 2, and a metre beside it s / 2 further, wherever the box lies."""
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).expand(PEOPLE, -1, -1)
    seen = project_to_crop(points, truth.cam, framing)
    scale, shift = truth.cam[:, :1], truth.cam[:, 1:]
    torch.testing.assert_close(seen[:, 0], scale * shift / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[:, 1] - seen[:, 0], scale / 2 * torch.tensor([1.0, 0.0]), rtol=0, atol=1e-5)


def test_translation_and_back(framing, truth):
    translation = cam_to_translation(truth.cam, framing)
    # tz = 2 f / (s box)
    torch.testing.assert_close(translation[:, 2], 2 * framing.focal / (truth.cam[:, 0] * framing.box))
    torch.testing.assert_close(translation_to_cam(translation, framing), truth.cam, rtol=1e-4, atol=1e-5)


def test_projection_is_that_of_the_camera_matrix(framing):
    points = torch.rand(PEOPLE, 5, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, 2.0])
    cam_int = torch.zeros(PEOPLE, 3, 3)
    cam_int[:, 0, 0] = cam_int[:, 1, 1] = framing.focal
    cam_int[:, :2, 2], cam_int[:, 2, 2] = framing.principal, 1
    image = torch.einsum("bij,bnj->bni", cam_int, points)
    torch.testing.assert_close(project(points, framing), image[..., :2] / image[..., 2:])


def test_box_cue_of_a_box_in_the_middle_and_of_one_beside_it():
    box, focal = torch.tensor([100.0, 100.0]), torch.tensor([400.0, 400.0])
    center = torch.tensor([[320.0, 240.0], [420.0, 140.0]])
    cue = bbox_cue(Framing(center, box, focal, middle()[:2]))
    torch.testing.assert_close(cue, torch.tensor([[0.0, 0.0, 0.25], [0.25, -0.25, 0.25]]))


def test_crop_coordinates_of_a_boxs_corners(framing):
    half = framing.box[:, None] / 2
    corners = torch.stack([framing.center - half, framing.center + half], 1)
    expected = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]).expand(PEOPLE, -1, -1)
    torch.testing.assert_close(to_crop(corners, framing), expected)


def test_without_camera_the_place_of_the_box_does_not_matter(truth):
    points = torch.rand(PEOPLE, 5, 3, generator=torch.Generator().manual_seed(0))
    here, there = (Framing.of_crop(torch.full((PEOPLE, 2), x), torch.full((PEOPLE,), x)) for x in (50.0, 300.0))
    seen = project_to_crop(points, truth.cam, here)
    torch.testing.assert_close(seen, project_to_crop(points, truth.cam, there))


def test_points_behind_the_camera_and_absurd_scales_stay_finite(framing):
    cam = torch.tensor([[-5.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1e4, 0.0, 0.0]], requires_grad=True)
    points = torch.randn(PEOPLE, 44, 3, generator=torch.Generator().manual_seed(0)) * 100
    seen = project_to_crop(points, cam, framing)
    seen.sum().backward()
    assert torch.isfinite(seen).all()
    assert torch.isfinite(cam.grad).all()


# ------------------------------------------------------------------------------------------------------ keypoints


def test_the_keypoint_layer_gives_the_keypoints_of_the_whole_mesh(body, truth):
    skel = SKEL.demo()
    arrays = keypoint_arrays("demo", skel.num_vertices)
    ids = load_smpl.demo().vertex_joint_selector.extra_joints_idxs
    joints, j19 = (torch.from_numpy(arrays[name]).float() for name in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19"))
    vertices = skel(truth.poses, truth.betas).vertices
    whole, _ = skel_keypoints(vertices, ids, joints, j19)
    torch.testing.assert_close(body(truth.poses, truth.betas), whole, rtol=0, atol=1e-5)
    assert body.skel.num_vertices < skel.num_vertices
    assert body.state_dict() == {}


def test_keypoints_keep_their_precision_in_autocast(body, truth):
    with torch.autocast("cpu", torch.bfloat16):
        rough = body(truth.poses.bfloat16().float(), truth.betas)
    torch.testing.assert_close(rough, body(truth.poses.bfloat16().float(), truth.betas), rtol=0, atol=1e-6)


def test_a_directory_without_regressors_is_named(model_directory):
    with pytest.raises(InputError, match=r"J_regressor_SKEL_mix_MALE|SMPL_to_J19"):
        KeypointLayer.of(BodyModels(str(model_directory)))


# ----------------------------------------------------------------------------------------------- equations (1)-(6)


def test_truth_costs_nothing(body, truth, targets):
    loss = losses.total(Output(truth, (truth,) * 6), targets, body)
    assert loss.total < 1e-4
    assert set(loss.terms) == {
        *(f"{stage}/{term}" for stage in ("coarse", "final") for term in ("joints_3d", "joints_2d", "betas")),
        *(f"{stage}/{term}" for stage in ("coarse", "final") for term in ("body_rotations", "root_rotation")),
        "layers/rotations",
    }


def test_joints_3d_is_a_sum_over_joints_and_a_mean_over_people():
    """(1) One joint of one person is off by (1, 2, 3) m and has half the confidence."""
    target = torch.cat([torch.zeros(2, 44, 3), torch.ones(2, 44, 1)], -1)
    target[0, 7, 3] = 0.5
    keypoints = torch.zeros(2, 44, 3)
    keypoints[0, 7] = torch.tensor([1.0, -2.0, 3.0])
    assert losses.joints_3d(keypoints, target) == pytest.approx(0.5 * 6 / 2)
    # Relative to the pelvis: moving everything changes nothing, moving the pelvis moves all others.
    assert losses.joints_3d(keypoints + 5, target) == pytest.approx(0.5 * 6 / 2)
    pelvis = torch.zeros(2, 44, 3)
    pelvis[:, PELVIS_KEYPOINT, 0] = 0.1
    target[0, 7, 3] = 1.0
    assert losses.joints_3d(pelvis, target) == pytest.approx(0.1 * 43)


def test_joints_3d_of_a_label_without_pelvis_is_relative_to_the_hips():
    """A missing keypoint is zero with confidence zero: as an origin it would move everybody."""
    torch.manual_seed(0)
    keypoints = torch.randn(3, 44, 3) + torch.tensor([0.0, 0.0, 4.0])
    target = torch.cat([keypoints, torch.ones(3, 44, 1)], -1)
    target[1:, 25:] = 0
    target[2, 9] = 0
    assert losses.joints_3d(keypoints, target) == pytest.approx(0, abs=1e-4)
    assert losses.joints_3d(keypoints + 1, target) == pytest.approx(0, abs=1e-4)
    moved = keypoints.clone()
    moved[:, 0] += 1  # the nose, of three people; the third has neither pelvis nor both hips
    assert losses.joints_3d(moved, target) == pytest.approx(2 * 3 / 3, abs=1e-4)


def test_joints_2d_is_a_sum_over_joints_and_a_mean_over_people():
    """(2) Keypoints without confidence may lie anywhere."""
    target = torch.zeros(2, 44, 3)
    target[1, 3] = torch.tensor([0.1, 0.1, 0.8])
    projected = torch.full((2, 44, 2), 9.0)
    projected[1, 3] = torch.tensor([0.3, -0.1])
    assert losses.joints_2d(projected, target) == pytest.approx(0.8 * 0.4 / 2)


def test_parameters_count_shape_body_and_root_apart(truth):
    """(3) A quarter turn of one hinge changes four entries of its rotation matrix by one."""
    poses = torch.zeros(1, 46)
    bent = poses.clone()
    bent[0, 6] = torch.pi / 2  # right knee, about an axis of its frame
    estimate = Estimate(poses_to_representation(bent), torch.ones(1, 10), truth.cam[:1])
    found = losses.parameters(estimate, torch.zeros(1, 10), poses_to_rotations(poses))
    assert found.betas == pytest.approx(10)
    assert found.body_rotations == pytest.approx(4, abs=1e-5)
    assert found.root_rotation == pytest.approx(0, abs=1e-6)
    turned = poses.clone()
    turned[0, 0] = torch.pi / 2
    estimate = Estimate(poses_to_representation(turned), torch.zeros(1, 10), truth.cam[:1])
    found = losses.parameters(estimate, torch.zeros(1, 10), poses_to_rotations(poses))
    assert found.root_rotation == pytest.approx(4, abs=1e-5)
    assert found.body_rotations == pytest.approx(0, abs=1e-5)


def _moved(truth: Estimate, seed: int) -> Estimate:
    g = torch.Generator().manual_seed(seed)
    return Estimate(*(value + 0.1 * torch.randn(value.shape, generator=g) for value in truth))


def test_a_stage_is_the_weighted_sum_of_its_terms(body, truth, targets):
    """(4)"""
    config = LossConfig()
    rotations = poses_to_rotations(targets.poses)
    off = _moved(truth, 0)
    value, terms = losses.stage(off, body(off.poses, off.betas), targets, rotations, config)
    weights = {"joints_3d": 0.05, "joints_2d": 0.05, "betas": 0.0005, "body_rotations": 0.001, "root_rotation": 0.002}
    assert value == pytest.approx(sum(weights[name] * float(term) for name, term in terms.items()), rel=1e-5)
    assert all(term > 0 for term in terms.values())


def test_refinement_is_summed_over_layers(truth, targets):
    """(5) The mean over people, joints and entries for each layer."""
    rotations = poses_to_rotations(targets.poses)
    off, more = _moved(truth, 1), _moved(truth, 2)
    apart = [float((representation_to_rotations(e.poses_6d) - rotations).abs().mean()) for e in (off, more)]
    assert losses.refinement((truth, off, truth, more), rotations) == pytest.approx(sum(apart), rel=1e-4)
    six = (truth, off, truth, truth, truth, more)
    config = LossConfig(joints_3d=0, joints_2d=0, betas=0, body_rotations=0, root_rotation=0)
    loss = losses.total(Output(truth, six), targets, KeypointLayer.of(BodyModels()), config)
    assert loss.total == pytest.approx(0.1 * apart[0], rel=1e-3)  # the last is the final estimate
    released = replace(config, layer_supervision="rotations-all")
    loss = losses.total(Output(truth, six), targets, KeypointLayer.of(BodyModels()), released)
    assert loss.total == pytest.approx(0.1 * sum(apart), rel=1e-3)


def test_hsmrs_parameter_losses_are_squared(body, truth, targets):
    rotations = poses_to_rotations(targets.poses)
    off = _moved(truth, 0)
    found = losses.parameters(off, targets.betas, rotations, squared=True)
    apart = (representation_to_rotations(off.poses_6d) - rotations).square()
    assert found.betas == pytest.approx(float((off.betas - targets.betas).square().sum() / PEOPLE), rel=1e-5)
    assert found.body_rotations == pytest.approx(float(apart[:, 1:].sum() / PEOPLE), rel=1e-5)
    assert found.root_rotation == pytest.approx(float(apart[:, 0].sum() / PEOPLE), rel=1e-5)
    terms = losses.total(Output(None, (off,)), targets, body, LossConfig(parameters="squared")).terms
    assert terms["final/betas"] == pytest.approx(float(found.betas), rel=1e-5)


def test_the_total_is_coarse_and_final_and_a_tenth_of_the_refinement(body, truth, targets):
    """(6)"""
    coarse, between, final = (_moved(truth, seed) for seed in (3, 4, 5))
    rotations = poses_to_rotations(targets.poses)

    def stage(estimate):
        keypoints = body(estimate.poses, estimate.betas)
        return float(losses.stage(estimate, keypoints, targets, rotations, LossConfig())[0])

    output = Output(coarse, (between, final))
    refined = float(losses.refinement(output.layers[:-1], rotations))
    total = losses.total(output, targets, body).total
    assert total == pytest.approx(stage(coarse) + stage(final) + 0.1 * refined, rel=1e-5)
    full = losses.total(output, targets, body, LossConfig(layer_supervision="full")).total
    assert full == pytest.approx(stage(coarse) + stage(between) + stage(final), rel=1e-5)
    # Variants: without coarse heads, and without refinement.
    no_coarse = losses.total(Output(None, (between, final)), targets, body).total
    assert no_coarse == pytest.approx(stage(final) + 0.1 * refined, rel=1e-5)
    assert losses.total(Output(coarse, ()), targets, body).total == pytest.approx(stage(coarse), rel=1e-5)
    assert losses.total(Output(None, (final,)), targets, body).total == pytest.approx(stage(final), rel=1e-5)


def test_descending_the_loss_recovers_the_person(body, truth, targets):
    """From a disturbed estimate, the gradient leads back to pose, shape and camera, which only the image points see."""
    start = _moved(truth, 6)
    values = [value.clone().requires_grad_() for value in start]
    optimiser = torch.optim.Adam(values, lr=0.02)
    history = []
    for _ in range(80):
        loss = losses.total(Output(Estimate(*values), ()), targets, body).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.2 * history[0]
    assert (values[2] - truth.cam).abs().max() < 0.5 * (start.cam - truth.cam).abs().max()


def test_keypoint_maps_want_each_keypoint_in_its_patch():
    """Row 3, column 5 of the 16 x 12 patches, whose columns begin 32 px from the crop's left edge."""
    target = torch.zeros(1, 44, 3)
    target[0, 7] = torch.tensor([(32 + 5.5 * 16) / 256 - 0.5, 3.5 / 16 - 0.5, 1.0])

    def loss(row: int, column: int) -> float:
        logits = torch.zeros(1, 44, 192)
        logits[0, 7, 12 * row + column] = 4.0
        return float(losses.keypoint_maps(logits, target))

    found = {(row, column): loss(row, column) for row in range(16) for column in range(12)}
    assert min(found, key=found.get) == (3, 5)
    assert found[3, 6] == pytest.approx(found[2, 5]) and found[3, 6] < found[3, 7] < found[10, 5]


def test_keypoint_maps_count_only_known_keypoints_inside():
    logits = torch.randn(2, 44, 192, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 44, 3)
    target[0, 0] = torch.tensor([0.45, 0.0, 1.0])  # beside the columns that the encoder sees
    target[0, 1] = torch.tensor([0.0, -0.6, 1.0])  # above the crop
    assert losses.keypoint_maps(logits, target) == 0
    target[1, 2] = torch.tensor([0.1, 0.2, 1.0])
    one = losses.keypoint_maps(logits, target)
    target[1, 2, 2] = 0.5
    assert one > 0 and losses.keypoint_maps(logits, target) == pytest.approx(float(one) / 2)


def test_the_loss_is_float32_in_autocast(body, truth, targets):
    output = Output(_moved(truth, 7), (_moved(truth, 8), _moved(truth, 9)))
    exact = losses.total(output, targets, body).total
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.total(output, targets, body).total == pytest.approx(float(exact), rel=1e-6)


def test_the_network_and_its_loss_train_together(body, targets):
    torch.manual_seed(0)
    settings = {"refinement_layers": 2, "heads": 2, "head_dim": 32, "mlp_dim": 64, "keypoint_maps": True}
    model = SKELCF(NetworkConfig(backbone="tiny", **settings)).train()
    image = torch.randn(PEOPLE, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history, maps = [], []
    for _ in range(15):
        loss, terms = losses.total(model(image, bbox_cue(targets.framing)), targets, body)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
        maps.append(terms["maps"].item())
    assert history[-1] < 0.8 * history[0] and maps[-1] < maps[0] - 0.05
