"""What the released evaluation code does that nobody would do on purpose, by name.

The published figures rest on these; each can be left out, which gives the clean variant. Source: README.md beside
this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from schemas import InputError

QUIRKS = {
    "neutral-is-female": "layout A: a literal gender `neutral` takes the female SMPL",
    "cue-before-aspect": "layout B: the network is told the label's box, not the larger square that it sees",
    "whole-pixel-crop": "layout B, released patches: the square's corners are cut to whole pixels",
    "bgr-focal": "layouts B and C: the focal-length network is given blue for red",
    "one-regressor": "EMDB: the neutral body's joint regressor for meshes of every gender",
    "hip-and-knee-root": "SPEC-SYN: the root is the middle of a hip and the knee of the same leg",
    "two-kinds-of-joints": "MOYO: truth has SMPL's kinematic joints, the estimate joints regressed from its skin",
    "pelvis-keypoint-root": "Human3.6M: the root is keypoint 39 although the settings say hips; confidence is ignored",
    "accuracy-by-keypoint": "keypoints: accuracy of each keypoint, then their plain mean, however few have a label",
}
"""name -> what it does"""

PUBLISHED = frozenset(QUIRKS)
"""All: as the published figures were made."""

INPUT_QUIRKS = {
    "A": frozenset(),
    "B": frozenset({"cue-before-aspect", "whole-pixel-crop", "bgr-focal"}),
    "C": frozenset({"bgr-focal"}),
}
"""By layout, those that change what a network is given, and so its estimates; the others change what is compared."""


def input_quirks(layout: str, quirks: Set[str], released: bool, camera: bool) -> frozenset[str]:
    """Those of `quirks` that show in what networks are given of a file of this layout.

    `released` patches are cut as the released code does; `camera` says whether a focal-length network looks on.
    """
    idle = frozenset({} if released else {"whole-pixel-crop"}) | frozenset({} if camera else {"bgr-focal"})
    return (INPUT_QUIRKS[layout] & quirks) - idle


def without(names: Iterable[str]) -> frozenset[str]:
    """All quirks but these; `all` leaves none. Raises InputError for an unknown name."""
    left = set(names)
    for name in left - set(QUIRKS) - {"all"}:
        raise InputError(f"no quirk {name!r}", field="--without", expected=", ".join(["all", *QUIRKS]))
    return frozenset() if "all" in left else PUBLISHED - left
