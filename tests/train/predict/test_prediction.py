"""Prediction on a photograph: what a known network says must come out where it belongs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import trimesh

from fitting import SKEL
from schemas import InputError
from train import SKELCF, FLNet, load_checkpoint
from train.config import NetworkConfig
from train.network import inputs
from train.network.checkpoints import save_checkpoint
from train.predict.command import main, predict

NORMALISED = inputs.normalised


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
    files = {name: str(tmp_path / name) for name in ("out.npz", "new/over.png", "new/deep/mesh.obj")}
    more = [
        "--output",
        files["out.npz"],
        "--overlay",
        files["new/over.png"],
        "--mesh",
        files["new/deep/mesh.obj"],
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
    mesh, bones = (
        trimesh.load(tmp_path / "new" / "deep" / name, process=False) for name in ("mesh.obj", "mesh_skeleton.obj")
    )
    np.testing.assert_allclose(mesh.vertices, out.vertices[0] * torch.tensor([1, -1, -1]), atol=1e-4)  # y up
    assert mesh.faces.shape == skel.faces.shape and bones.faces.shape == skel.skeleton_faces.shape
    drawn = cv2.imread(files["new/over.png"])[:, :, ::-1]
    assert drawn.shape == photograph.shape and not np.array_equal(drawn, photograph)
    assert capsys.readouterr().out.count("m before the camera") == 2


def test_a_released_file_is_used_at_its_best(tmp_path, photograph, monkeypatch):
    """Its own focal-length network, the box as it is, and crops cut as the released code cuts them."""
    torch.manual_seed(1)
    model = SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1, heads=1, mlp_dim=16))
    camera = FLNet().eval()
    with torch.no_grad():
        camera.fc3.weight.zero_()
        camera.fc3.bias.copy_(torch.tensor([0.0, 1.1]))  # vertical field of view, rad
    inside = {f"cam_model.{name}": value for name, value in camera.state_dict().items()}
    released = tmp_path / "skelcf.pth"
    average = {f"model.{name}": value for name, value in {**model.state_dict(), **inside}.items()}
    torch.save({"model": {**model.state_dict(), **inside}, "ema_model": average}, released)
    cv2.imwrite(str(tmp_path / "photo.png"), photograph[:, :, ::-1])
    out = tmp_path / "out.npz"
    box = ["--boxes", "10", "20", "90", "110"]
    assert main([str(released), str(tmp_path / "photo.png"), *box, "--output", str(out), "--device", "cpu"]) == 0
    found = dict(np.load(out))
    assert found["focal"] == pytest.approx(120 / (2 * np.tan(1.1 / 2)), rel=1e-5)
    assert found["box_size"] == pytest.approx([90])
    # By hand: bilinear, the box's centre (50, 65) at pixel index 128, centres of pixels at whole numbers.
    zoom = 256 / 90
    matrix = np.array([[zoom, 0, 128 - zoom * 50], [0, zoom, 128 - zoom * 65]])
    seen = []
    monkeypatch.setattr(inputs, "normalised", lambda image: seen.append(image.numpy()) or NORMALISED(image))
    boxes = np.array([[10, 20, 90, 110]])
    again = predict(load_checkpoint(released), photograph, boxes, float(found["focal"]))
    np.testing.assert_array_equal(seen[0][0], cv2.warpAffine(photograph, matrix, (256, 256), flags=cv2.INTER_LINEAR))
    np.testing.assert_allclose(found["poses"], again["poses"], atol=1e-5)
    ours = predict(load_checkpoint(released), photograph, boxes, float(found["focal"]), patches="ours")
    assert np.abs(seen[1].astype(int) - seen[0]).mean() > 1 and not np.array_equal(ours["poses"], again["poses"])


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


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (["--focal", "nan"], "--focal"),
        (["--focal", "-3"], "--focal"),
        (["--mesh", "m.ply"], "ending in .obj"),
        (["--overlay", "o.txt"], "ending in .png"),
        (["--boxes", "-500", "-500", "-400", "-400"], "shows nothing of the image"),
        (["--boxes", "200", "0", "300", "50"], "shows nothing of the image"),
    ],
)
def test_options_that_cannot_be_are_told_before_anything_is_written(checkpoint, photograph, tmp_path, wrong, problem):
    cv2.imwrite(str(tmp_path / "photo.png"), photograph)
    out = tmp_path / "out.npz"
    with pytest.raises(InputError, match=problem):
        main([checkpoint, str(tmp_path / "photo.png"), "--output", str(out), "--device", "cpu", *wrong])
    assert not out.exists()


@pytest.mark.parametrize(("option", "name"), [("--output", "o.npz"), ("--overlay", "o.png"), ("--mesh", "o.obj")])
def test_where_nothing_can_be_written_is_told(checkpoint, photograph, tmp_path, option, name):
    """A file stands where a folder should be; as with a full disk, it is the system that refuses."""
    cv2.imwrite(str(tmp_path / "photo.png"), photograph)
    (tmp_path / "file").write_text("")
    more = [] if option == "--output" else ["--output", str(tmp_path / "out.npz")]
    with pytest.raises(InputError, match="cannot be written") as caught:
        main([checkpoint, str(tmp_path / "photo.png"), *more, option, str(tmp_path / "file" / name), "--device", "cpu"])
    assert caught.value.field == option and caught.value.problem.startswith("cannot be written")
