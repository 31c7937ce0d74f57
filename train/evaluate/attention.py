"""Where in the crop the pose, shape and camera tokens look, layer by layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from train.network.decoder import CrossAttention
from train.network.model import COLUMNS, IMAGE

GRID = (16, 12)
"""Rows and columns of image tokens."""
TOKENS = ("pose", "shape", "camera")
_TILE = 128
_HEADING = 22


@torch.inference_mode()
def attention_maps(model: nn.Module, image: Tensor, cue: Tensor) -> Tensor:
    """(B, layers, tokens, 16, 12) shares of attention to the image, mean over heads, of network inputs and cues.

    Tokens are TOKENS, or HSMR's single query. A looped layer counts at each of its steps.
    """
    seen: list[Tensor] = []

    def note(module: CrossAttention, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        x, context = inputs
        heads = module.heads
        q = module.to_q(x).unflatten(-1, (heads, -1)).transpose(1, 2)
        k = module.to_kv(context).chunk(2, -1)[0].unflatten(-1, (heads, -1)).transpose(1, 2)
        logits = q.float() @ k.float().transpose(2, 3) / q.shape[-1] ** 0.5
        seen.append(logits.softmax(-1).mean(1))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, CrossAttention)]
    try:
        model(image, cue)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen, 1).unflatten(-1, GRID) if seen else torch.zeros(len(image), 0, len(TOKENS), *GRID)


def attention_sheet(crops: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """One picture, uint8 RGB: a row per person and token, the crop (B, 256, 256, 3) and then each layer's map over it.

    Each map (B, L, T, 16, 12) is shown relative to its largest value.
    """
    import cv2

    layers, tokens = maps.shape[1:3]
    width = COLUMNS.stop - COLUMNS.start
    names = TOKENS if tokens == len(TOKENS) else ("query",) * tokens
    tile = (_TILE * width // IMAGE, _TILE)
    titles = ["crop", *(f"layer {n + 1}" for n in range(layers))]
    heading = np.full((_HEADING, tile[0] * len(titles), 3), 250, np.uint8)
    for n, title in enumerate(titles):
        cv2.putText(heading, title, (n * tile[0] + 4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    rows = [heading]
    for crop, person in zip(crops, maps, strict=True):
        plain = cv2.resize(np.ascontiguousarray(crop[:, COLUMNS]), tile, interpolation=cv2.INTER_AREA)
        for t, name in enumerate(names):
            first = plain.copy()
            cv2.putText(first, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 2, cv2.LINE_AA)
            cv2.putText(first, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
            rows.append(np.concatenate([first, *(_over(plain, layer[t]) for layer in person)], 1))
    return np.concatenate(rows)


def _over(picture: np.ndarray, share: np.ndarray) -> np.ndarray:
    import cv2

    level = np.uint8(np.clip(share / max(float(share.max()), 1e-12), 0, 1) * 255)
    level = cv2.resize(level, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    return cv2.addWeighted(picture, 0.4, np.ascontiguousarray(colour), 0.6, 0)
