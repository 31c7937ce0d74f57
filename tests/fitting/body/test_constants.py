"""Constants stay on their device: neither a training step nor a fit copies Python's numbers there again and again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_waits import is_host_wait
from torch.utils._python_dispatch import TorchDispatchMode

from fitting import SKELFitter
from fitting.body.constants import constant
from pipelines.files.body_models import BodyModels
from train.config import NetworkConfig
from train.data.batch import Targets
from train.network.camera import Framing, bbox_cue
from train.network.inputs import normalised
from train.network.model import SKELCF
from train.run.body import KeypointLayer
from train.run.losses import total


class WaitsOfAHost(TorchDispatchMode):
    """Counts, on any device, operations that make the host of a GPU wait: numbers that come from Python or go there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        if is_host_wait(function, args):
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


def test_what_counts_as_waiting():
    x = torch.arange(6.0)
    for wait in (
        lambda: x[[0, 2]],
        lambda: x[np.array([1])],
        lambda: x[x > 2],
        lambda: float(x[0]),
        lambda: x.nonzero(),
    ):
        with WaitsOfAHost() as waits:
            wait()
        assert len(waits.found) == 1
    with WaitsOfAHost() as waits:
        x[constant([0, 2], x.device)] + x[1:3]
    assert waits.found in ([], ["aten::lift_fresh"])  # the first use copies
    with WaitsOfAHost() as waits:
        x[constant([0, 2], x.device)] + x[1:3]
    assert not waits.found


def test_a_training_step_does_not_wait(small_backbone):
    torch.manual_seed(0)
    people = 2
    model = SKELCF(NetworkConfig("tiny", refinement_layers=2, heads=1, keypoint_maps=True)).train()
    body = KeypointLayer.of(BodyModels("demo"))
    framing = Framing(*(torch.full(shape, 300.0) for shape in ((people, 2), (people,), (people,), (people, 2))))
    image = torch.randint(0, 255, (people, 256, 256, 3), dtype=torch.uint8)
    targets = Targets(*(torch.rand(people, *shape) for shape in ((46,), (10,), (44, 4), (44, 3))), framing)

    def step():
        total(model(normalised(image), bbox_cue(framing)), targets, body).total.backward()

    step()
    with WaitsOfAHost() as waits:
        step()
    assert not waits.found


def test_a_fit_waits_only_to_see_who_goes_on(demo_smpl, demo_skel):
    fitter = SKELFitter(demo_smpl, demo_skel)
    rng = torch.Generator().manual_seed(0)
    people = [torch.randn(8, n, generator=rng) * scale for n, scale in ((72, 0.2), (10, 0.5), (3, 0.0))]
    with torch.no_grad():
        valid = torch.ones(8, dtype=torch.bool)
        fitter._fit_batch(*fitter._problem(*people), valid)
        with WaitsOfAHost() as waits:
            fit = fitter._fit_batch(*fitter._problem(*people), valid)
    assert set(waits.found) <= {"aten::nonzero", "aten::_local_scalar_dense"}
    # Per iteration: who is finished, and a few rounds of the bounded step.
    assert 0 < len(waits.found) < 12 * int(fit.iterations.max())


class Calls(TorchDispatchMode):
    """Counts what reaches the device, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_batch_is_a_bounded_number_of_calls(demo_smpl, demo_skel):
    """Each costs some 5 us of a core, whoever shares the batch: 15,000 of them were twice what eight people cost."""
    fitter = SKELFitter(demo_smpl, demo_skel)
    rng = torch.Generator().manual_seed(0)
    people = [torch.randn(8, n, generator=rng) * scale for n, scale in ((72, 0.2), (10, 0.5), (3, 0.0))]
    with torch.no_grad():
        fitter._fit_batch(*fitter._problem(*people), torch.ones(8, dtype=torch.bool))
        with Calls() as start:
            problem = fitter._problem(*people)
        with Calls() as stages:
            fit = fitter._fit_batch(*problem, torch.ones(8, dtype=torch.bool))
    assert start.count < 3_000
    assert stages.count < 1_300 * int(fit.iterations.max())


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_constants_are_told_apart_by_values_and_type(dtype):
    values = ([0, 1], [[0, 1]], [0.0, 1.0], np.array([0, 1], np.int32), (1, 0), [True, True])
    for value in values:
        found = constant(value, "cpu", dtype)
        assert found.dtype == dtype and torch.equal(found, torch.as_tensor(np.asarray(value)).to(dtype))
        assert constant(value, "cpu", dtype) is found


def test_first_use_in_inference_mode_leaves_training_possible():
    with torch.inference_mode():
        weights = constant([0.25, 0.5], "cpu", torch.float32)
    x = torch.ones(2, requires_grad=True)
    (x * weights).sum().backward()
    assert torch.equal(x.grad, weights)
