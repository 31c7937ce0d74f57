"""The 44 keypoints: each name is the point of the body that it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_smpl import call, parameters

from fitting import load_smpl
from fitting.body.keypoints import SMPLKeypoints, skel_keypoints, smpl_keypoints
from fitting.body.smpl import VERTEX_JOINT_NAMES
from schemas.camerahmr import EXTRA_NAMES, KEYPOINT_NAMES, OPENPOSE_NAMES

SMPL_JOINT_OF = {
    "neck": 12,
    "right_shoulder": 17,
    "right_elbow": 19,
    "right_wrist": 21,
    "left_shoulder": 16,
    "left_elbow": 18,
    "left_wrist": 20,
    "mid_hip": 0,
    "right_hip": 2,
    "right_knee": 5,
    "right_ankle": 8,
    "left_hip": 1,
    "left_knee": 4,
    "left_ankle": 7,
}
SMPLX_NAME_OF = {
    "nose": "nose",
    "right_eye": "reye",
    "left_eye": "leye",
    "right_ear": "rear",
    "left_ear": "lear",
    "left_big_toe": "LBigToe",
    "left_small_toe": "LSmallToe",
    "left_heel": "LHeel",
    "right_big_toe": "RBigToe",
    "right_small_toe": "RSmallToe",
    "right_heel": "RHeel",
}


def test_names():
    assert len(OPENPOSE_NAMES) == 25
    assert len(EXTRA_NAMES) == 19
    assert len(set(KEYPOINT_NAMES)) == 44
    assert set(OPENPOSE_NAMES) == set(SMPL_JOINT_OF) | set(SMPLX_NAME_OF)


def test_openpose_keypoints_are_the_joints_of_their_names(model_directory, random_models):
    smpl = load_smpl(model_directory)
    out = call(smpl, *(a.float() for a in parameters(3)))
    points, confidence = smpl_keypoints(smpl, out)
    assert points.shape == (3, 44, 3)
    for n, name in enumerate(OPENPOSE_NAMES):
        if name in SMPL_JOINT_OF:
            wanted = out.joints[:, SMPL_JOINT_OF[name]]
        else:
            vertex = random_models[0]["vertex_joint_ids"][VERTEX_JOINT_NAMES.index(SMPLX_NAME_OF[name])]
            wanted = out.vertices[:, vertex]
        assert torch.equal(points[:, n], wanted), name
    assert confidence.tolist() == [1.0] * 25 + [0.0] * 19


def test_missing_regressors_mean_no_confidence(random_models):
    generator = torch.Generator().manual_seed(0)
    ids, count = random_models[0]["vertex_joint_ids"], len(random_models[0]["v_template"])
    vertices = torch.randn(2, count, 3, generator=generator)
    j24, j19 = (torch.rand(n, count, generator=generator, dtype=torch.float64) for n in (24, 19))
    full, confidence = skel_keypoints(vertices, ids, j24, j19)
    assert confidence.tolist() == [1.0] * 44
    assert torch.equal(full[:, 0], vertices[:, ids[0]])
    np.testing.assert_allclose(full[1, 8], j24[0].float() @ vertices[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(full[1, 25:], j19.float() @ vertices[1], rtol=1e-4, atol=1e-4)
    partial, confidence = skel_keypoints(vertices, ids, None, None)
    present = [OPENPOSE_NAMES[n] for n in np.flatnonzero(confidence)]
    assert set(present) == set(SMPLX_NAME_OF)
    known = confidence.bool()
    assert torch.equal(partial[:, known], full[:, known])
    assert (partial[:, ~known] == 0).all()


def test_keypoints_are_differentiable_and_equivariant(random_models):
    ids, count = random_models[0]["vertex_joint_ids"], len(random_models[0]["v_template"])
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(1, count, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    convex = torch.softmax(torch.randn(43, count, generator=generator, dtype=torch.float64), 1)
    points, _ = skel_keypoints(vertices, ids, convex[:24], convex[24:])
    moved, _ = skel_keypoints(vertices * 2 + 1, ids, convex[:24], convex[24:])
    torch.testing.assert_close(moved, points * 2 + 1)
    (gradient,) = torch.autograd.grad(points.sum(), vertices)
    assert gradient.sum().item() == pytest.approx(44 * 3)


def test_keypoints_of_the_embedded_body_lie_where_their_names_say(demo_smpl):
    """T-pose, y up, facing z: the left side of the body is at positive x."""
    from fitting.body.files import keypoint_arrays

    zero = torch.zeros(1, 72)
    out = call(demo_smpl, zero, torch.zeros(1, 10), torch.zeros(1, 3))
    regressors = keypoint_arrays("demo", out.vertices.shape[1])
    points, confidence = smpl_keypoints(demo_smpl, out, regressors["SMPL_to_J19"])
    assert (confidence == 1).all()
    place = {name: points[0, n].numpy() for n, name in enumerate(KEYPOINT_NAMES)}
    for name, point in place.items():
        if name.startswith("left"):
            assert point[0] > 0.02, name
        elif name.startswith("right"):
            assert point[0] < -0.02, name
        else:
            assert abs(point[0]) < 0.02, name
        base = name.removesuffix("_lsp")
        if base != name and base in place:
            assert np.linalg.norm(point - place[base]) < 0.1, name
    bottom_up = ["left_ankle", "left_knee", "left_hip", "mid_hip", "left_shoulder", "nose", "head_top_lsp"]
    heights = [place[name][1] for name in bottom_up]
    assert heights[0] < heights[1] < heights[2]
    assert heights[3] < heights[4] < heights[5] < heights[6]
    assert place["nose"][2] > place["neck"][2] + 0.05
    assert place["left_big_toe"][2] > place["left_heel"][2] + 0.1
    assert place["left_wrist"][0] > place["left_elbow"][0] > place["left_shoulder"][0]


def test_keypoints_without_the_mesh_are_those_of_the_mesh(demo_smpl):
    from fitting.body.files import keypoint_arrays

    regressors = keypoint_arrays("demo", len(demo_smpl.v_template))
    generator = torch.Generator().manual_seed(2)
    poses = 0.5 * torch.randn(5, 72, generator=generator)
    betas = torch.randn(5, 10, generator=generator)
    out = call(demo_smpl, poses, betas, torch.zeros(5, 3))
    for j19 in (None, torch.as_tensor(regressors["SMPL_to_J19"], dtype=torch.float32)):
        wanted, sure = smpl_keypoints(demo_smpl, out, j19)
        found, confidence = SMPLKeypoints(demo_smpl, j19)(poses, betas)
        assert torch.equal(confidence, sure)
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
