"""What a device option means, on machines with other GPUs than this one."""

from __future__ import annotations

import pytest
import torch

from pipelines.command.devices import devices_of, one_device, resolve_device
from schemas import InputError


@pytest.fixture
def gpus(monkeypatch):
    def there_are(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return there_are


def test_which_devices_an_option_means(gpus):
    gpus(3)
    assert devices_of("cpu") == ["cpu"] and devices_of("cuda:1") == ["cuda:1"]
    assert devices_of("auto") == devices_of("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert (resolve_device("auto"), resolve_device("cuda:2"), resolve_device("cpu")) == ("cuda", "cuda:2", "cpu")
    assert (one_device("auto"), one_device("cuda", 2), one_device("cuda:1", 2)) == ("cuda:0", "cuda:2", "cuda:1")
    gpus(0)
    assert devices_of("auto") == ["cpu"]
    assert resolve_device("auto") == one_device("auto", 3) == "cpu"


def test_a_device_that_is_not_there_is_the_users_error(gpus):
    gpus(0)
    for option, problem in (("cuda", "no GPU is available"), ("cuda:0", "no GPU is available"), ("gpu", "'gpu' given")):
        with pytest.raises(InputError, match=f"'--device': {problem}"):
            resolve_device(option)
    gpus(2)
    for chosen in (lambda: resolve_device("cuda:2"), lambda: one_device("cuda", 2)):
        with pytest.raises(InputError, match="no device cuda:2; expected cuda:0 to cuda:1"):
            chosen()
