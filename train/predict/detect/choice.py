"""Which detector an option means."""

from __future__ import annotations

from schemas import InputError
from train.predict.detect.people import Detector

TRANSFORMERS = "transformers:"


def detector(name: str = "movenet", *, least_score: float | None = None, device: str = "cpu") -> Detector:
    """`movenet`, or `transformers:ID` for one of the library of that name. Raises InputError for other names."""
    score = {} if least_score is None else {"least_score": least_score}
    if name == "movenet":
        from train.predict.detect.movenet_detector import MoveNetDetector

        return MoveNetDetector(**score, device=device)
    if name.startswith(TRANSFORMERS):
        from train.predict.detect.transformers_detector import TransformersDetector

        return TransformersDetector.load(name.removeprefix(TRANSFORMERS), **score, device=device)
    raise InputError(f"{name!r} is no detector", field="--detector", expected=f"movenet or {TRANSFORMERS}ID")
