"""Constant numbers as tensors on the device that needs them.

A list or NumPy array that stands as an index is copied to the device at every use, and the host of a GPU waits for it.
These are copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor


def constant(values: Sequence | np.ndarray, device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers in any number of dimensions, by default indices, as a tensor that callers share and must not change."""
    if torch.compiler.is_compiling():
        return torch.as_tensor(values, dtype=dtype, device=device)
    array = np.asarray(values)
    return _kept(array.tobytes(), array.shape, array.dtype.str, device, dtype)


@cache
def _kept(content: bytes, shape: tuple[int, ...], kind: str, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    array = np.frombuffer(content, kind).reshape(shape)
    with torch.inference_mode(False):  # a tensor made in inference mode could not be trained with
        return torch.tensor(array, dtype=dtype, device=device)
