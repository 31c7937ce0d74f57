"""Networks on photographs: what a known network says must come out where it belongs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from schemas import InputError
from train import SKELCF, FLNet, load_checkpoint
from train.config import NetworkConfig
from train.evaluate.networks import Network
from train.predict import bodies, network
from train.predict.bodies import NetworkEstimator
from train.predict.detect.people import DetectedPeople
from train.predict.network import predict
from train.predict.seen import SeenPicture


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
    with pytest.raises(InputError, match="left < right"):
        predict(model, photograph, np.array([[10, 10, 5, 20]]), 300.0)


def test_batches_go_across_pictures_and_crowds_are_never_cut_at_once(model, photograph, monkeypatch):
    sizes, estimate, cut = [], bodies.estimate, []
    monkeypatch.setattr(bodies, "estimate", lambda net, crops: sizes.append(len(crops.sides)) or estimate(net, crops))
    cut_crops = bodies.cut_crops
    monkeypatch.setattr(bodies, "cut_crops", lambda *given: cut.append(len(given[1])) or cut_crops(*given))
    estimator = NetworkEstimator(Network("", model, None, "ours"), 1.0, 4)
    rng, expected = np.random.default_rng(1), []
    for count in (1, 2, 0, 11, 1):
        low = rng.uniform(0, 80, (count, 2))
        boxes = np.concatenate([low, low + rng.uniform(10, 40, (count, 2))], 1)
        estimator.add(SeenPicture("", photograph, 1, 250.0, "option"), DetectedPeople(boxes, np.ones(count)))
        if count:
            expected.append(predict(model, photograph, boxes, 250.0)["poses"])
    found = estimator.finish()
    assert sizes == [4, 4, 4, 3] and max(cut) <= 4
    np.testing.assert_allclose(found["poses"], np.concatenate(expected), atol=1e-5)
    assert len(estimator.finish()["poses"]) == 0


@pytest.fixture
def released(tmp_path):
    """A file as SKEL-CF's, with its focal-length network, which says 1.1 rad of any picture."""
    torch.manual_seed(1)
    model = SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1, heads=1, mlp_dim=16))
    camera = FLNet().eval()
    with torch.no_grad():
        camera.fc3.weight.zero_()
        camera.fc3.bias.copy_(torch.tensor([0.0, 1.1]))  # vertical field of view, rad
    inside = {f"cam_model.{name}": value for name, value in camera.state_dict().items()}
    average = {f"model.{name}": value for name, value in {**model.state_dict(), **inside}.items()}
    torch.save({"model": {**model.state_dict(), **inside}, "ema_model": average}, tmp_path / "skelcf.pth")
    return tmp_path / "skelcf.pth"


def test_crops_of_released_files_are_cut_as_the_released_code_cuts_them(released, photograph, monkeypatch):
    # By hand: bilinear, the box's centre (50, 65) at pixel index 128, centres of pixels at whole numbers.
    zoom = 256 / 90
    matrix = np.array([[zoom, 0, 128 - zoom * 50], [0, zoom, 128 - zoom * 65]])
    seen, normalised = [], network.normalised
    monkeypatch.setattr(network, "normalised", lambda image: seen.append(image.numpy()) or normalised(image))
    boxes = np.array([[10, 20, 90, 110]])
    model = load_checkpoint(released)
    theirs = predict(model, photograph, boxes, 100.0)
    np.testing.assert_array_equal(seen[0][0], cv2.warpAffine(photograph, matrix, (256, 256), flags=cv2.INTER_LINEAR))
    ours = predict(model, photograph, boxes, 100.0, patches="ours")
    assert np.abs(seen[1].astype(int) - seen[0]).mean() > 1 and not np.array_equal(ours["poses"], theirs["poses"])


def test_a_released_file_is_used_at_its_best(released, photograph, tmp_path):
    """Its own focal-length network, the box as it is, and crops cut as the released code cuts them."""
    from train.predict.command import main

    cv2.imwrite(str(tmp_path / "photo.png"), photograph[:, :, ::-1])
    (tmp_path / "boxes.csv").write_text("image,left,top,right,bottom\nphoto.png,10,20,90,110\n")
    given = [str(tmp_path / "photo.png"), "--checkpoint", str(released), "--boxes", str(tmp_path / "boxes.csv")]
    assert main([*given, "-o", str(tmp_path / "out"), "--device", "cpu", "--export"]) == 0
    with np.load(tmp_path / "out" / "export" / "photo.npz") as stored:
        found = dict(stored)
    assert found["focal"] == pytest.approx(120 / (2 * np.tan(1.1 / 2)), rel=1e-5)
    assert found["box_size"] == pytest.approx([90])
    expected = predict(load_checkpoint(released), photograph, np.array([[10, 20, 90, 110]]), float(found["focal"]))
    for name in ("poses", "betas", "trans", "cam"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
