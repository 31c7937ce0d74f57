"""SKEL against a literal transcription of its mathematics, against an independent implementation, and as a module."""

from __future__ import annotations

import literal_skel
import numpy as np
import official_files
import pytest
import torch

from fitting import SKEL
from fitting.body.files import skel_arrays
from schemas import InputError

NEAR_F64 = 1e-9
"""Metres. The transcription is evaluated in the same precision by another route."""
NEAR_F32 = 1e-5


def parameters(count: int, seed: int = 0, pose_scale: float = 0.8):
    """(poses, betas, trans) as float64 tensors; poses well beyond the joint limits."""
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, pose_scale, (count, 46))
    return tuple(torch.tensor(a) for a in (poses, rng.normal(0, 1.5, (count, 10)), rng.normal(0, 2, (count, 3))))


@pytest.fixture(scope="module")
def arrays(model_directory):
    return skel_arrays(model_directory)


@pytest.fixture(scope="module")
def model(model_directory):
    return SKEL.load(model_directory, dtype=torch.float64)


def distance(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b), axis=-1).max())


def check_against_transcription(model, arrays, poses, betas, trans):
    out = model(poses, betas, trans, skeleton_mesh=True)
    for i in range(len(poses)):
        skin, joints, bones = literal_skel.literal_skel(arrays, poses[i].numpy(), betas[i].numpy(), trans[i].numpy())
        assert distance(out.joints[i], joints) < NEAR_F64
        assert distance(out.vertices[i], skin) < NEAR_F64
        assert distance(out.skeleton_vertices[i], bones) < NEAR_F64


def test_equals_the_literal_transcription(model, arrays):
    check_against_transcription(model, arrays, *parameters(12))


def test_equals_the_literal_transcription_at_and_near_zero_angles(model, arrays):
    poses, betas, trans = parameters(4)
    scale = torch.tensor([0.0, 1e-9, 1e-5, 1e-2], dtype=torch.float64)[:, None]
    check_against_transcription(model, arrays, poses * scale, betas, trans)
    check_against_transcription(model, arrays, poses[:1], betas[:1] * 0, trans[:1] * 0)


def test_each_angle_alone_equals_the_literal_transcription(model, arrays):
    """One angle at a time, so that errors of two angles cannot hide each other."""
    poses = torch.eye(46, dtype=torch.float64) * 0.7
    betas, trans = torch.zeros(46, 10, dtype=torch.float64), torch.zeros(46, 3, dtype=torch.float64)
    out = model(poses, betas, trans)
    rest = model(poses[:1] * 0, betas[:1], trans[:1])
    for i in range(46):
        skin, joints, _ = literal_skel.literal_skel(arrays, poses[i].numpy(), betas[i].numpy(), trans[i].numpy())
        assert distance(out.vertices[i], skin) < NEAR_F64, f"angle {i}"
        assert distance(out.joints[i], joints) < NEAR_F64, f"angle {i}"
        assert distance(out.vertices[i], rest.vertices[0]) > 1e-3, f"angle {i} moves nothing"


def test_official_topology_equals_the_literal_transcription(tmp_path):
    """6890 vertices: landmarks come from the official indices, not from the file."""
    _, skel = official_files.random_models(seed=5, vertices=6890, bone_vertices=240)
    path = official_files.write_official_skel(tmp_path / "skel_male.pkl", skel)
    check_against_transcription(SKEL.load(path, dtype=torch.float64), skel_arrays(path), *parameters(2))


def test_embedded_body_equals_the_literal_transcription():
    check_against_transcription(SKEL.demo(dtype=torch.float64), skel_arrays("demo"), *parameters(2, pose_scale=0.3))


def _independent(path, poses, betas, trans):
    """Skin and joints of the package body-models (numpy arrays, float32)."""
    skel = pytest.importorskip("body_models.skel.torch").SKEL(model_path=path, gender="male")
    poses = poses.float()
    body, head = torch.cat([poses[:, :23], poses[:, 26:]], 1), poses[:, 23:26]
    named = {"shape": betas.float(), "global_translation": trans.float()}
    with torch.no_grad():
        skin = skel.forward_vertices(body, head, **named)
        joints = skel.forward_skeleton(body, head, **named)[..., :3, 3]
    return skin.numpy(), joints.numpy()


@pytest.mark.parametrize("seed", range(3))
def test_equals_an_independent_implementation(tmp_path, seed):
    _, skel = official_files.random_models(seed=seed)
    path = official_files.write_official_skel(tmp_path / "skel_male.pkl", skel)
    poses, betas, trans = parameters(16, seed)
    skin, joints = _independent(path, poses, betas, trans)
    out = SKEL.load(path)(poses.float(), betas.float(), trans.float())
    assert distance(out.vertices, skin) < NEAR_F32
    assert distance(out.joints, joints) < NEAR_F32


def test_float32_is_close_to_float64(model, model_directory):
    poses, betas, trans = parameters(32)
    exact = model(poses, betas, trans, skeleton_mesh=True)
    single = SKEL.load(model_directory)(poses.float(), betas.float(), trans.float(), skeleton_mesh=True)
    for name in ("vertices", "joints", "skeleton_vertices"):
        assert getattr(single, name).dtype == torch.float32
        assert distance(getattr(single, name), getattr(exact, name)) < NEAR_F32, name


def test_a_person_does_not_depend_on_the_batch(model):
    poses, betas, trans = parameters(7)
    together = model(poses, betas, trans, skeleton_mesh=True)
    for i in range(7):
        alone = model(poses[i : i + 1], betas[i : i + 1], trans[i : i + 1], skeleton_mesh=True)
        for mine, all_of_them in zip(alone, together, strict=True):
            assert distance(mine[0], all_of_them[i]) < 1e-12
    shared_shape = model(poses, betas[:1], trans[:1])
    assert distance(shared_shape.vertices[3], model(poses[3:4], betas[:1], trans[:1]).vertices[0]) < 1e-12
    assert model(poses[:0], betas[:0], trans[:0]).vertices.shape[0] == 0


def test_translation_only_translates(model):
    poses, betas, trans = parameters(3)
    moved, here = model(poses, betas, trans, skeleton_mesh=True), model(poses, betas, trans * 0, skeleton_mesh=True)
    for a, b in zip(moved, here, strict=True):
        assert distance(a - trans[:, None], b) < 1e-12


def test_moves_to_another_dtype_and_device(model_directory):
    poses, betas, trans = parameters(2)
    model = SKEL.load(model_directory)
    wanted = model(poses.float(), betas.float(), trans.float(), skeleton_mesh=True)
    out = model.double()(poses, betas, trans, skeleton_mesh=True)
    assert out.vertices.dtype == out.skeleton_vertices.dtype == torch.float64
    assert distance(out.vertices, wanted.vertices) < NEAR_F32
    # The device without storage finds every tensor that is made on the wrong one.
    shapes = model.to("meta")(poses.to("meta"), betas.to("meta"), trans.to("meta"), skeleton_mesh=True)
    assert shapes.vertices.device.type == shapes.skeleton_vertices.device.type == "meta"
    assert shapes.joints.shape == (2, 24, 3)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-4, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite(model_directory, scale, dtype):
    model = SKEL.load(model_directory, dtype=dtype)
    inputs = [(a * scale).to(dtype).requires_grad_() for a in parameters(2)]
    out = model(*inputs, skeleton_mesh=True)
    gradients = torch.autograd.grad(out.vertices.square().sum() + out.skeleton_vertices.square().sum(), inputs)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert (gradients[0].abs() > 0).all(), "every angle moves the mesh"


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_derivatives_equal_finite_differences(model, scale):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(model(*parameters(1)).vertices.shape, generator=generator, dtype=torch.float64)

    def projected(poses, betas, trans):
        out = model(poses, betas, trans, skeleton_mesh=True)
        return (out.vertices * weight).sum(), out.joints, out.skeleton_vertices[:, ::17]

    inputs = [(a * scale).requires_grad_() for a in parameters(1)]
    assert torch.autograd.gradcheck(projected, inputs, eps=1e-5, atol=1e-7, rtol=1e-6, fast_mode=True)


def test_faces_and_shapes(model, random_models):
    assert model.faces.dtype == model.skeleton_faces.dtype == np.int64
    np.testing.assert_array_equal(model.faces, random_models[1]["skin_template_f"])
    np.testing.assert_array_equal(model.skeleton_faces, random_models[1]["skel_template_f"])
    out = model(*parameters(2))
    assert out.skeleton_vertices is None
    assert out.vertices.shape == (2, len(random_models[1]["skin_template_v"]), 3)


def test_a_wrong_version_is_refused(tmp_path, random_models):
    path = official_files.write_official_skel(tmp_path / "skel_male.pkl", {**random_models[1], "version": "1.0"})
    with pytest.raises(InputError, match=r"'1\.0'.*expected '1\.1\.1'"):
        SKEL.load(tmp_path)
    assert path.exists()
