"""SMPL from official files: what smplx computes with what we read, against an independent implementation."""

from __future__ import annotations

import numpy as np
import official_files
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitting import load_smpl
from fitting.body.files import smpl_arrays

NEAR_F32 = 1e-5
NEAR_F64 = 1e-7
"""Metres. smplx adds 1e-8 to every rotation vector, which is felt here and nowhere else."""


def parameters(count: int, seed: int = 0, scale: float = 0.6):
    """(poses (n,72), betas, trans) as float64 tensors."""
    rng = np.random.default_rng(seed)
    poses, betas, trans = (
        rng.normal(0, scale, (count, 72)),
        rng.normal(0, 1.5, (count, 10)),
        rng.normal(0, 2, (count, 3)),
    )
    return tuple(torch.tensor(a) for a in (poses, betas, trans))


def call(smpl, poses, betas, trans):
    return smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3], transl=trans)


def literal_smpl(arrays, pose, betas, trans):
    """Vertices and joints of one person in float64, joint by joint."""
    shaped = arrays["v_template"] + arrays["shapedirs"][:, :, :10] @ betas
    joints = arrays["J_regressor"] @ shaped
    rotations = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    corrected = shaped + arrays["posedirs"] @ np.concatenate([(r - np.eye(3)).ravel() for r in rotations[1:]])
    turned, placed = [], []
    for j, parent in enumerate(official_files.SMPL_PARENTS):
        above, base = (turned[parent], placed[parent]) if j else (np.eye(3), np.zeros(3))
        turned.append(above @ rotations[j])
        placed.append(base + above @ (joints[j] - joints[parent] if j else joints[0]))
    vertices = np.zeros_like(shaped)
    for j in range(24):
        vertices += arrays["weights"][:, j : j + 1] * ((corrected - joints[j]) @ turned[j].T + placed[j])
    return vertices + trans, np.array(placed) + trans


def distance(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b), axis=-1).max())


@pytest.fixture(scope="module")
def smpl(model_directory):
    return load_smpl(model_directory)


def test_equals_a_literal_transcription(model_directory):
    arrays, (poses, betas, trans) = smpl_arrays(model_directory), parameters(6)
    exact = load_smpl(model_directory, dtype=torch.float64)
    single = load_smpl(model_directory)
    out = call(exact, poses, betas, trans)
    out32 = call(single, poses.float(), betas.float(), trans.float())
    assert out32.vertices.dtype == torch.float32
    for i in range(6):
        vertices, joints = literal_smpl(arrays, poses[i].numpy(), betas[i].numpy(), trans[i].numpy())
        assert distance(out.vertices[i], vertices) < NEAR_F64
        assert distance(out.joints[i, :24], joints) < NEAR_F64
        assert distance(out32.vertices[i], vertices) < NEAR_F32


def test_equals_an_independent_implementation(tmp_path, smpl, random_models):
    independent = pytest.importorskip("body_models.smpl.torch").SMPL
    path = official_files.write_npz(tmp_path / "SMPL_NEUTRAL.npz", random_models[0])
    poses, betas, trans = (a.float() for a in parameters(8))
    with torch.no_grad():
        vertices = independent(model_path=path).forward_vertices(
            poses[:, 3:].reshape(-1, 23, 3),
            pelvis_rotation=poses[:, :3],
            shape=betas,
            global_translation=trans,
        )
    assert distance(call(smpl, poses, betas, trans).vertices, vertices) < NEAR_F32


def test_any_batch_size(smpl):
    poses, betas, trans = (a.float() for a in parameters(5))
    together = call(smpl, poses, betas, trans)
    for i in range(5):
        alone = call(smpl, poses[i : i + 1], betas[i : i + 1], trans[i : i + 1])
        assert distance(alone.vertices[0], together.vertices[i]) < 1e-6
    shared_shape = call(smpl, poses, betas[:1], trans[:1])
    assert distance(shared_shape.vertices[4], call(smpl, poses[4:], betas[:1], trans[:1]).vertices[0]) < 1e-6
    assert not list(smpl.parameters()), "nothing that depends on a batch size or that an optimiser could move"


def test_moves_to_another_dtype_and_device(model_directory):
    poses, betas, trans = parameters(2)
    smpl = load_smpl(model_directory)
    single = call(smpl, poses.float(), betas.float(), trans.float())
    double = call(smpl.double(), poses, betas, trans)
    assert double.vertices.dtype == torch.float64
    assert distance(single.vertices, double.vertices) < NEAR_F32
    # The device without storage finds every tensor that is made on the wrong one.
    assert call(smpl.to("meta"), *(a.to("meta") for a in (poses, betas, trans))).vertices.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0])
def test_gradients_are_finite(model_directory, dtype, scale):
    inputs = [(a * scale).to(dtype).requires_grad_() for a in parameters(2)]
    out = call(load_smpl(model_directory, dtype=dtype), *inputs)
    gradients = torch.autograd.grad(out.vertices.square().sum(), inputs)
    assert all(torch.isfinite(g).all() for g in gradients)
    # The last joints in the random model may carry no vertex, all others turn some.
    assert (gradients[0].abs() > 0).float().mean() > 0.9


def test_vertex_joints_come_from_the_file(smpl, random_models):
    out = call(smpl, *(a.float() for a in parameters(2)))
    assert out.joints.shape == (2, 45, 3)
    assert distance(out.joints[:, 24:], out.vertices[:, random_models[0]["vertex_joint_ids"]]) == 0


def test_vertex_joints_of_the_official_topology(tmp_path):
    model, _ = official_files.random_models(seed=5, vertices=6890, bone_vertices=24)
    smpl = load_smpl(official_files.write_official_smpl(tmp_path / "SMPL_NEUTRAL.pkl", model))
    out = call(smpl, *(a.float() for a in parameters(1)))
    # nose, right ear, left heel, left thumb, right pinky of the field's 6890-vertex mesh
    assert distance(out.joints[:, [24, 27, 31, 35, 44]], out.vertices[:, [332, 4071, 3387, 2746, 6133]]) == 0


def test_nothing_is_printed(model_directory, capfd):
    load_smpl(model_directory)
    assert capfd.readouterr() == ("", "")


def test_demo_is_the_embedded_body(demo_smpl):
    same = load_smpl("demo")
    assert torch.equal(same.v_template, demo_smpl.v_template)
    assert demo_smpl.num_betas == 10
    height = np.ptp(demo_smpl.v_template.numpy(), axis=0)[1]
    assert 1.5 < height < 2.0
