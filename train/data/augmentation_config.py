"""How training images are changed at random. Imports nothing heavy, for command lines."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import InputError


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training images. The defaults are the paper's."""

    scale_change: float = 0.1
    """the box is up to this much larger or smaller"""
    shift: float = 0.0
    """the box is moved up to this part of its side, in x and in y"""
    rotation: float = 0.0
    """the camera is rolled by up to this many degrees"""
    mirror: float = 0.0
    """share of people who are mirrored"""
    colour: float = 0.2
    """each colour is up to this much brighter or darker"""
    photometric: float = 0.3
    """share of images that are blurred, noisy, badly compressed or of poor contrast"""
    extreme_crop: float = 0.1
    """share of people of whom only a part of the body is shown"""

    def __post_init__(self) -> None:
        for name in ("mirror", "photometric", "extreme_crop", "colour", "scale_change", "shift"):
            if not 0 <= getattr(self, name) <= (0.9 if name == "scale_change" else 1):
                raise InputError(f"{getattr(self, name)} given", field=name, expected="0 to 1")


NONE = AugmentationConfig(0, 0, 0, 0, 0, 0, 0)
"""No change at all, as for evaluation."""
