"""One training step of preset `paper` on seeded weights and given labels, beside arithmetic written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state

from pipelines.command.options import parse_options
from pipelines.files.body_models import BodyModels
from train import SKELCF
from train.config import variant
from train.data.batch import Batch, Targets
from train.network.camera import Framing
from train.network.pose_representation import poses_to_rotations, representation_to_rotations
from train.options import PRESETS, TrainOptions
from train.run.body import KeypointLayer
from train.run.processes import World
from train.run.state import Run, learning_rate, optimiser_of
from train.run.trainer import forward, gradients

pytestmark = pytest.mark.usefixtures("one_thread", "small_backbone")

PEOPLE = 2
PELVIS = 39


@pytest.fixture(scope="module")
def body() -> KeypointLayer:
    return KeypointLayer.of(BodyModels())


@pytest.fixture(scope="module", params=["paper", "hsmr"])
def options(request) -> TrainOptions:
    """The preset on a small encoder and in float32, so that sums can be compared."""
    given = ["--preset", request.param, "--backbone", "tiny", "--precision", "float32", "--query-dim", "64"]
    return parse_options(TrainOptions, given, "train", "", presets=PRESETS)


@pytest.fixture(scope="module")
def network(options) -> SKELCF:
    network = SKELCF(variant(options.variant, options.network)[0]).eval()
    state = seeded_state(network.state_dict())
    small = {name: 0.02 * value for name, value in state.items() if "cam_decoder" in name}
    means = {name: value for name, value in network.state_dict().items() if ".init_" in name}
    network.load_state_dict(state | small | means)  # people stay before the camera, at depths that people have
    return network


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(5)
    image = torch.from_numpy(rng.integers(0, 256, (PEOPLE, 256, 256, 3), np.uint8))

    def tensor(values) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32)

    framing = Framing(
        tensor([[300, 200], [100, 250]]), tensor([180, 240]), tensor([700, 500]), tensor([[320, 240], [320, 240]])
    )
    three = np.concatenate([rng.normal([0, 0, 4], 0.5, (PEOPLE, 44, 3)), rng.random((PEOPLE, 44, 1))], 2)
    two = np.concatenate([rng.uniform(-0.5, 0.5, (PEOPLE, 44, 2)), rng.random((PEOPLE, 44, 1))], 2)
    poses, betas = tensor(rng.normal(0, 0.4, (PEOPLE, 46))), tensor(rng.normal(0, 1, (PEOPLE, 10)))
    return Batch(image, Targets(poses, betas, tensor(three), tensor(two), framing), 1.0, PEOPLE, ["a", "b"])


def stage_by_hand(estimate, batch: Batch, body: KeypointLayer, hsmr: bool) -> dict[str, float]:
    """Person by person, joint by joint; what the body and the pose representation give is taken as given."""
    keypoints = body(estimate.poses, estimate.betas).numpy().astype(float)
    rotations = representation_to_rotations(estimate.poses_6d).numpy().astype(float)
    goal = poses_to_rotations(batch.targets.poses).numpy().astype(float)
    three, two = (batch.targets.keypoints_3d.numpy().astype(float), batch.targets.keypoints_2d.numpy().astype(float))
    size = (lambda x: x * x) if hsmr else abs
    sums = dict.fromkeys(("joints_3d", "joints_2d", "betas", "body_rotations", "root_rotation"), 0.0)
    for n in range(PEOPLE):
        (cx, cy), box, f, (px, py) = (field[n].numpy() for field in batch.targets.framing)
        s, tx, ty = estimate.cam[n].numpy().astype(float)
        assert s > 0.3
        if hsmr:  # a camera of 5000 px that looks straight at the crop of 256
            x, y, z = tx, ty, 2 * 5000 / (256 * s)
        else:
            x, y, z = tx + 2 * (cx - px) / (s * box), ty + 2 * (cy - py) / (s * box), 2 * f / (s * box)
        for k in range(44):
            moved = keypoints[n, k] - keypoints[n, PELVIS]
            wanted = three[n, k, :3] - three[n, PELVIS, :3]
            sums["joints_3d"] += three[n, k, 3] * np.abs(moved - wanted).sum()
            point = keypoints[n, k] + [x, y, z]
            if hsmr:
                u, v = 5000 / 256 * point[:2] / point[2]
            else:
                u, v = ((f * point[:2] / point[2] + [px, py]) - [cx, cy]) / box
            sums["joints_2d"] += two[n, k, 2] * (abs(u - two[n, k, 0]) + abs(v - two[n, k, 1]))
        sums["betas"] += sum(size(float(b)) for b in estimate.betas[n] - batch.targets.betas[n])
        for j in range(24):
            apart = sum(size(a - b) for a, b in zip(rotations[n, j].ravel(), goal[n, j].ravel(), strict=True))
            sums["body_rotations" if j else "root_rotation"] += apart
    return {name: value / PEOPLE for name, value in sums.items()}


def test_terms_and_total_are_those_of_the_publication(options, network, batch, body):
    hsmr = options.variant == "hsmr"
    with torch.no_grad():
        output, _ = forward(network, batch)
    expected = {f"final/{name}": v for name, v in stage_by_hand(output.final, batch, body, hsmr).items()}
    weights = {"joints_3d": 0.05, "joints_2d": 0.01 if hsmr else 0.05, "betas": 0.0005}
    weights |= {"body_rotations": 0.001, "root_rotation": 0.002}
    total = sum(weights[name] * expected[f"final/{name}"] for name in weights)
    if not hsmr:
        coarse = stage_by_hand(output.coarse, batch, body, hsmr)
        expected |= {f"coarse/{name}": value for name, value in coarse.items()}
        total += sum(weights[name] * coarse[name] for name in weights)
        goal = poses_to_rotations(batch.targets.poses)
        layers = [representation_to_rotations(layer.poses_6d) for layer in output.layers]
        assert len(layers) == 6
        expected["layers/rotations"] = sum(
            float((layer - goal).abs().sum()) / (PEOPLE * 24 * 9) for layer in layers[:5]
        )
        total += 0.1 * expected["layers/rotations"]
    config = variant(options.variant, options.network, options.loss)[1]
    loss, terms = gradients(network, [batch], body, config, options.precision, World(0, 1, torch.device("cpu")))
    network.zero_grad()
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=2e-4), name
    assert float(loss) == pytest.approx(total, rel=2e-4)


def test_the_step_is_adamws_with_the_gradient_at_norm_one(options, network, batch, body):
    """The first step of AdamW moves each weight by the rate, towards the sign of its gradient, and shrinks it."""
    config = variant(options.variant, options.network, options.loss)[1]
    run = Run(network, network, optimiser_of(network, options.learning_rate, options.weight_decay))
    rate = learning_rate(options, 0, 100, 3000)
    assert rate == pytest.approx(1e-5 / (100 if options.variant == "skel-cf" else 1))  # the warm-up takes an epoch
    run.optimiser.param_groups[0]["lr"] = rate = 1e-3  # to be seen above float32's rounding
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    gradients(network, [batch], body, config, options.precision, World(0, 1, torch.device("cpu")))
    norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), options.gradient_norm))
    grads = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    whole = float(torch.stack([g.double().square().sum() for g in grads.values()]).sum().sqrt())
    assert whole == pytest.approx(min(norm, 1.0), rel=1e-3)
    run.update(options)
    for name, value in network.named_parameters():
        if name in grads:
            g = grads[name].double()
            wanted = before[name].double() * (1 - rate * 1e-4) - rate * g / (g.abs() + 1e-8)
            torch.testing.assert_close(value.detach().double(), wanted, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(before[name])
    network.zero_grad()
