"""Which devices and how many CPU cores a command may use."""

from __future__ import annotations

import os

from schemas import InputError


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(option: str) -> str:
    """A device option with `auto` decided: `cuda` if there are GPUs, else `cpu`.

    `cuda` without a number stays as it is: every GPU of a job (`devices_of`), one for other commands (`one_device`).
    Raises InputError for what is no device, or not there.
    """
    import torch

    there = torch.cuda.device_count()
    if option == "auto":
        return "cuda" if there else "cpu"
    try:
        device = torch.device(option)
    except RuntimeError:
        raise InputError(f"{option!r} given", field="--device", expected="auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not there:
        raise InputError("no GPU is available", field="--device", expected="cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= there:
        raise InputError(f"no device {option}", field="--device", expected=f"cuda:0 to cuda:{there - 1}")
    return option


def one_device(option: str, local_rank: int = 0) -> str:
    """The one device of this process: of several GPUs the one named, or else that of its rank on this machine.

    Raises InputError as `resolve_device` does.
    """
    device = resolve_device(option)
    return resolve_device(f"cuda:{local_rank}") if device == "cuda" else device


def devices_of(option: str) -> list[str]:
    """Devices of this machine that the option of a job means: `cuda` is every GPU, `auto` as well if there is one."""
    import torch

    if option in ("auto", "cuda"):
        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        return found or (["cpu"] if option == "auto" else ["cuda"])
    return [option]
