"""The seeded weights on which the released networks' outputs in tests/reference were computed.

A number generator seeded with the checksum of each parameter's name draws its values, so that any implementation can
have the same network without a file of weights.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "reference"

MEAN_CAM = [0.9, 0.0, 0.0]
MEAN_BETAS = [
    *(0.07217558, 0.49867696, 0.4030121, -0.00920338, 0.25984487),
    *(-0.6515638, 0.30399042, -0.5180162, 0.4775672, 0.21772282),
]
MEAN_POSES = [
    *(3.1415927, 0, 0, 0.25820184, -0.007054017, -0.087581702, 0.47313252, 0.17969553, -0.088876769, 0.16858740),
    *(0.21810555, -0.042616524, -0.025765277, 0.40046576, 0.22350328, -0.12816691, 0.097408049, 0.0079731578),
    *(-0.17570567, 0.01277646, -0.0050133974, -0.013977036, -0.025100665, 0.033428278, -0.070454843, 0.011786817),
    *(0.11710781, 0.22040418, -0.15290412, 0.81089187, -0.15045549, 0.32635507, 0.87692541, 0.0028917873),
    *(0.0093058459, -0.13572657, -0.072227731, -0.20905407, -0.2010324, -0.79168558, 0.084718391, 0.39035177),
    *(0.90358895, -0.023677995, -0.029802602, -0.18856768),
]


def seeded_state(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights of a state_dict whose names lack the released files' `prefix`; means and integers stay."""
    return {name: _seeded(prefix + name, value) for name, value in state.items()}


def _seeded(name: str, value: Tensor) -> Tensor:
    short = name.partition(".")[2]
    if not value.is_floating_point() or short.startswith("mean_"):
        return value
    draw = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if short.endswith("running_var"):
        return 1 + 0.1 * draw.abs()
    if short.endswith("running_mean"):
        return 0.1 * draw
    if "norm" in short or ".bn" in short or (draw.dim() == 1 and short.endswith("weight")):
        return 1 + 0.1 * draw if short.endswith("weight") else 0.1 * draw
    if draw.dim() >= 2:
        return draw / math.sqrt(math.prod(draw.shape[1:]))
    return 0.02 * draw


def released_names(file: str, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Name -> (shape, dtype), as text, of a released network's parameters, without `prefix`."""
    rows = (line.split("\t") for line in (REFERENCE / file).read_text().splitlines())
    return {name.removeprefix(prefix): (shape, dtype) for name, shape, dtype in rows}


def names_of(state: dict[str, Tensor]) -> dict[str, tuple[str, str]]:
    """The same of a state_dict."""
    return {name: (str(tuple(value.shape)), str(value.dtype)) for name, value in state.items()}
