"""Colours and photometric flaws of pictures (H, W, 3) uint8 RGB. Strengths are this project's; kinds and shares are
those of SKEL-CF's released training, which applies them to whole photographs: here they meet the network's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import simplejpeg

from train.data.augmentation_config import AugmentationConfig

Flaw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def change_colours(image: np.ndarray, config: AugmentationConfig, rng: np.random.Generator) -> np.ndarray:
    """The picture with photometric flaws and random colour gains, as the configuration says."""
    if config.distributions == "even":
        image = _gains(image, config.colour, rng)
        return image if rng.random() >= config.photometric else _one_of(_ANY)(image, rng)
    for group in (_DEGRADED, _TONES):
        if rng.random() < config.photometric:
            image = group[rng.integers(len(group))](image, rng)
    return _gains(image, config.colour, rng)


def _one_of(group: tuple[Flaw, ...]) -> Flaw:
    return lambda image, rng: group[rng.integers(len(group))](image, rng)


def _gains(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.transform(image, np.diag(1 + rng.uniform(-1, 1, 3) * most)) if most else image


def _table(values: np.ndarray) -> np.ndarray:
    """A table for cv2.LUT of values (256,) or (256, 3)."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------- what cameras and weather do


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 2.5)))


def _motion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = int(rng.integers(3, 12))
    kernel, angle = np.zeros((length, length), np.float32), rng.uniform(0, math.pi)
    reach = (length - 1) / 2 * np.array([math.cos(angle), math.sin(angle)])
    first, last = (np.rint((length - 1) / 2 + s * reach).astype(int).tolist() for s in (-1, 1))
    cv2.line(kernel, first, last, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _downscale(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = int(image.shape[0] * rng.uniform(0.25, 0.7))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    data = simplejpeg.encode_jpeg(image, quality=int(rng.integers(10, 50)), colorspace="RGB")
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def _rain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slanted streaks of one direction in a duller picture."""
    height, width = image.shape[:2]
    streaks, slant, length = np.zeros((height, width), np.uint8), rng.uniform(-0.4, 0.4), rng.integers(8, 24)
    starts = rng.integers(0, (width, height), (int(rng.integers(80, 300)), 2))
    ends = np.rint(starts + np.array([slant, 1.0]) * length)
    cv2.polylines(streaks, np.stack([starts, ends], 1).astype(np.int32), False, 255, 1, cv2.LINE_AA)
    return _behind(image, streaks, 0.7, 205, gain=rng.uniform(0.7, 0.95))


def _snow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round flakes in a paler picture."""
    height, width = image.shape[:2]
    flakes = np.zeros((height, width), np.uint8)
    for x, y in rng.integers(0, (width, height), (int(rng.integers(60, 250)), 2)).tolist():
        cv2.circle(flakes, (x, y), int(rng.integers(1, 3)), 255, -1, cv2.LINE_AA)
    paler = rng.uniform(0.0, 0.25)
    return _behind(image, flakes, 0.9, 250, gain=1 - paler, offset=230 * paler)


def _behind(
    image: np.ndarray, cover: np.ndarray, opacity: float, shade: float, gain: float, offset: float = 0.0
) -> np.ndarray:
    """`image` gain + offset behind a slightly blurred cover (H, W) of one grey `shade`, which hides up to `opacity`.

    In bytes, which is six times as fast as in floating point, and within one grey level of it.
    """
    hidden = np.arange(256) / 255 * opacity
    kept, added = _table(255 * (1 - hidden)), _table(offset * (1 - hidden) + shade * hidden)
    soft = cv2.merge([cv2.blur(cover, (3, 3))] * 3)
    return cv2.add(cv2.multiply(image, cv2.LUT(soft, kept), scale=gain / 255), cv2.LUT(soft, added))


# ------------------------------------------------------------------------------------------------- tones and noise


def _clahe(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(float(rng.uniform(1, 4)), (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _grey(image: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contrast, brightness = rng.uniform(0.5, 1.3), rng.uniform(-30, 30)
    return cv2.LUT(image, np.clip((np.arange(256) - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8))


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal noise, read from a table at random places: a third of the time that drawing it takes."""
    places = np.frombuffer(rng.bytes(2 * image.size), np.uint16)
    levels = np.rint(_normal_quantiles() * rng.uniform(4, 20)).astype(np.int16)
    return cv2.add(image, levels[places].reshape(image.shape), dtype=cv2.CV_8U)


@cache
def _normal_quantiles() -> np.ndarray:
    """(65536,) values that lie as those of the standard normal distribution."""
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def _hue(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hue by up to 40 degrees, saturation and value by up to a fifth."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    turn, (saturation, value) = rng.integers(-20, 21), rng.uniform(0.8, 1.2, 2)
    table = np.stack([(levels + turn) % 180, levels * saturation, levels * value], 1)
    return cv2.cvtColor(cv2.LUT(hsv, _table(table)[None]), cv2.COLOR_HSV2RGB)


def _posterise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image & np.uint8(256 - 2 ** int(rng.integers(3, 6)))


def _gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.LUT(image, _table(255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6)))


def _equalise(image: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(np.ascontiguousarray(image[..., n])) for n in range(3)])


_DEGRADED: tuple[Flaw, ...] = (_one_of((_blur, _motion)), _downscale, _jpeg, _rain, _snow)
_TONES: tuple[Flaw, ...] = (_clahe, _grey, _contrast, _noise, _hue, _posterise, _gamma, _equalise)
_ANY: tuple[Flaw, ...] = (_blur, _motion, _noise, _jpeg, _downscale, _contrast)
"""Of `even` distributions."""
