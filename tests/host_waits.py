"""Which operations make the host of a GPU wait: numbers that come from Python or go there."""

from __future__ import annotations

from typing import Any

import torch


def is_host_wait(function: Any, args: Any) -> bool:
    """Whether a call of this operation (torch.ops) copies numbers between host and device, on any device."""
    name = function.name()
    by_mask = name.startswith("aten::index") and any(
        part is not None and part.dtype == torch.bool for part in (args[1] if isinstance(args[1], list) else ())
    )
    return by_mask or name in ("aten::lift_fresh", "aten::_local_scalar_dense", "aten::nonzero")
