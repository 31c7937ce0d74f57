"""How training images are changed at random. Imports nothing heavy, for command lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas import InputError

Distributions = Literal["published", "even"]


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training images. The defaults are the paper's."""

    distributions: Distributions = "published"
    """published: changes are clipped normal, a third of them the largest; extreme crops of people who are seen whole,
    or from the waist up; photometric flaws of two groups, each with its share. even: changes are uniform, so that
    every size is met as often; crops of anybody; at most one flaw, which costs less"""
    scale_change: float = 0.1
    """the box is up to this much larger or smaller"""
    shift: float = 0.0
    """the box is moved up to this part of its side, in x and in y"""
    rotation: float = 0.0
    """the camera is rolled by up to this many degrees"""
    rotation_share: float = 1.0
    """share of people for whom it is"""
    mirror: float = 0.0
    """share of people who are mirrored"""
    colour: float = 0.2
    """each colour is up to this much brighter or darker"""
    photometric: float = 0.3
    """share of images that are blurred, noisy, badly compressed, of poor contrast and the like"""
    extreme_crop: float = 0.1
    """share of people of whom only a part of the body is shown"""

    def __post_init__(self) -> None:
        for name in ("mirror", "photometric", "extreme_crop", "colour", "scale_change", "shift", "rotation_share"):
            if not 0 <= getattr(self, name) <= (0.9 if name == "scale_change" else 1):
                raise InputError(f"{getattr(self, name)} given", field=name, expected="0 to 1")


NONE = AugmentationConfig(scale_change=0, shift=0, rotation=0, mirror=0, colour=0, photometric=0, extreme_crop=0)
"""No change at all, as for evaluation."""
