"""Prediction on a photograph: what a known network says must come out where it belongs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import trimesh

from fitting import SKEL
from schemas import InputError
from train import SKELCF
from train.config import NetworkConfig
from train.network.checkpoints import save_checkpoint
from train.predict.command import main, predict


@pytest.fixture(scope="module")
def model() -> SKELCF:
    torch.manual_seed(0)
    return SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1, heads=1, head_dim=8, mlp_dim=16)).eval()


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)


@pytest.fixture
def checkpoint(model, tmp_path):
    save_checkpoint(tmp_path / "model.pt", model, model.state_dict())
    return str(tmp_path / "model.pt")


def test_people_stand_where_their_boxes_are(model, photograph):
    """An untrained network places everybody in the middle of the box, the farther the smaller it is."""
    boxes = np.array([[0, 0, 60, 60], [140, 60, 200, 120], [90, 50, 110, 70]])
    found = predict(model, photograph, boxes, 300.0, margin=1.0)
    pixels = 300 * found["trans"][:, :2] / found["trans"][:, 2:] + [100, 60]
    np.testing.assert_allclose(pixels, [[30, 30], [170, 90], [100, 60]], atol=3)
    distance = found["trans"][:, 2]
    np.testing.assert_allclose(distance[2] / distance[:2], 3, rtol=0.1)
    wider = predict(model, photograph, boxes, 600.0, margin=1.0)["trans"][:, 2]
    np.testing.assert_allclose(wider / distance, 2, rtol=0.1)
    assert found["poses"].shape == (3, 46) and found["betas"].shape == (3, 10)


def test_the_command_writes_parameters_picture_and_meshes(checkpoint, model, photograph, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), photograph[:, :, ::-1])
    files = {name: str(tmp_path / name) for name in ("out.npz", "over.png", "mesh.obj")}
    more = [
        "--output",
        files["out.npz"],
        "--overlay",
        files["over.png"],
        "--mesh",
        files["mesh.obj"],
        "--device",
        "cpu",
    ]
    boxes = ["--boxes", *("10", "20", "90", "110"), *("120", "10", "190", "100")]
    assert main([checkpoint, str(tmp_path / "photo.png"), *boxes, *more]) == 0
    found = dict(np.load(files["out.npz"]))
    focal = float(np.hypot(200, 120))
    assert found["focal"] == pytest.approx(focal)
    expected = predict(model, photograph, np.array([[10, 20, 90, 110], [120, 10, 190, 100]]), focal)
    np.testing.assert_allclose(found["poses"], expected["poses"], atol=1e-5)
    skel = SKEL.demo()
    out = skel(*(torch.from_numpy(found[name]) for name in ("poses", "betas", "trans")), skeleton_mesh=True)
    np.testing.assert_allclose(found["joints"], out.joints, atol=1e-5)
    mesh, bones = (trimesh.load(tmp_path / name, process=False) for name in ("mesh.obj", "mesh_skeleton.obj"))
    np.testing.assert_allclose(mesh.vertices, out.vertices[0], atol=1e-4)
    assert mesh.faces.shape == skel.faces.shape and bones.faces.shape == skel.skeleton_faces.shape
    drawn = cv2.imread(files["over.png"])[:, :, ::-1]
    assert drawn.shape == photograph.shape and not np.array_equal(drawn, photograph)
    assert capsys.readouterr().out.count("m before the camera") == 2


def test_what_cannot_be_predicted_is_told(checkpoint, photograph, tmp_path):
    image = tmp_path / "photo.png"
    cv2.imwrite(str(image), photograph)
    with pytest.raises(InputError, match="four per person"):
        main([checkpoint, str(image), "--boxes", "1", "2", "3"])
    with pytest.raises(InputError, match="left < right"):
        main([checkpoint, str(image), "--boxes", "10", "10", "5", "20", "--output", str(tmp_path / "o.npz")])
    (tmp_path / "text.png").write_text("no image")
    for name, problem in (("absent.png", "cannot be opened"), ("text.png", "cannot be decoded")):
        with pytest.raises(InputError, match=problem):
            main([checkpoint, str(tmp_path / name)])
