"""Detectors of the library transformers (RT-DETRv2, D-FINE and others for objects), as an extra: `[detect]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from schemas import InputError
from train.predict.detect.people import DetectedPeople

_PERSON_NAMES = ("person", "Person", "people", "human")
_SIDE = 640
"""Sides, px, to which pictures are stretched: what RT-DETR, RT-DETRv2 and D-FINE were trained with."""


@dataclass(frozen=True)
class TransformersDetector:
    """The people among the objects that a network finds."""

    network: Any
    """maps pixel_values (B, 3, 640, 640) of 0..1 to logits (B, n, classes) and pred_boxes (B, n, 4)"""
    person: int
    """class of people"""
    least_score: float = 0.5
    """People with lower scores are left out."""

    @classmethod
    def load(cls, name: str, least_score: float = 0.5, device: str = "cpu") -> TransformersDetector:
        """A network by its name on the hub or its folder. Raises InputError if it or the library is not there."""
        try:
            from transformers import AutoModelForObjectDetection
        except ImportError as error:
            raise InputError(
                "the library transformers is not installed", field="--detector", expected="pip install hmr-skel[detect]"
            ) from error
        with torch.device("cpu"):
            # torch keeps a list of what makes tensors from its first use of a default device on. The library exchanges
            # one of them while it loads (5.24: linspace), and the list would be made of the exchanged one.
            torch.empty(0)
        try:
            network = AutoModelForObjectDetection.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"transformers:{name}: {reason}", field="--detector", expected="a detector") from error
        names = {label: int(number) for number, label in network.config.id2label.items()}
        person = next((names[label] for label in _PERSON_NAMES if label in names), None)
        if person is None:
            raise InputError(f"transformers:{name} knows no people", field="--detector", expected="a class 'person'")
        return cls(network.to(device).eval(), person, least_score)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> DetectedPeople:
        """The people of a picture (H, W, 3), uint8 RGB."""
        import cv2

        height, width = picture.shape[:2]
        pixels = cv2.resize(
            picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if width > _SIDE else cv2.INTER_LINEAR
        )
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        out = self.network(pixel_values=batch.to(next(self.network.parameters()).device))
        # Each query may be of any class: sigmoids, no class for nothing.
        scores = out.logits[0, :, self.person].sigmoid().double().cpu().numpy()
        middle, size = np.split(out.pred_boxes[0].double().cpu().numpy() * np.tile([width, height], 2), 2, axis=1)
        boxes = np.concatenate([middle - size / 2, middle + size / 2], 1).clip(0, np.tile([width, height], 2))
        kept = np.flatnonzero((scores >= self.least_score) & (boxes[:, :2] < boxes[:, 2:]).all(1))
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        return DetectedPeople(boxes[kept], scores[kept])
