"""Keys and values by which a label file tells that its numbers are not SMPL's, or whose they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import numpy as np

from pipelines.files.npz import Member, check_readable, read_all, read_member_rows, texts
from schemas import InputError

log = logging.getLogger(__name__)

MODEL_TYPE_SPELLINGS = ("surface_model_type", "model_type")
"""Names under which sequences say whose parameters they hold."""

SMPLX_ONLY = (
    *("jaw_pose", "pose_jaw", "leye_pose", "reye_pose", "pose_eye", "eye_pose"),
    *("expression", "expressions", "expr", "exp", "smplx_body_pose", "smplx_betas"),
)
"""Of SMPL's family only SMPL-X has a face."""

_SMPL_SHAPES = ("smpl", "smplh", "smplplush", "smplhmano")
"""Models whose betas are SMPL's: SMPL-H is SMPL with fingers. Letters only."""

KID_BETAS = 11
"""Betas in files whose last one blends SMPL with the child's template, as AGORA's."""

_GENDERS = {
    "male": ("m", "male", "man", "boy", "masculine"),
    "female": ("f", "female", "woman", "girl", "feminine"),
    "neutral": ("n", "neutral", "neut", "neuter", ""),
}
_GENDER_OF = {word: gender for gender, words in _GENDERS.items() for word in words}


def smpl_gender(text: str) -> str | None:
    """SMPL's word for a gender, None if it is not known. Empty text states nothing: neutral."""
    word = text.strip()
    quoted = re.fullmatch(r"b?(['\"])(.*)\1", word)  # str() of bytes, as NumPy 1 made text of them
    return _GENDER_OF.get((quoted.group(2) if quoted else word).strip().lower())


def refuse_other_models(path: str, arrays: Mapping[str, Member]) -> None:
    """Raises InputError for parameters of a body model whose betas mean something else than SMPL's.

    Told by the name of the model, by a face, or by `body_pose` of 21 joints where no model is named: that is how
    SMPL-X's results are spelled (AMASS and its like, whose 21 joints are SMPL-H's, say `pose_body`).
    """
    expected = (
        "SMPL parameters, for betas of other models span another space; hmr-skel fit reads SMPL-X's by their mesh"
    )
    named = next((arrays[name] for name in MODEL_TYPE_SPELLINGS if name in arrays), None)
    if named is not None:
        check_readable(path, named, named.name)
        value = texts(_first(path, named)).tolist() if named.dtype.kind in "US" else []
        text = (value[0] if value else "") or ""
        if re.sub(r"[^a-z]", "", text.lower()) not in _SMPL_SHAPES:
            raise InputError(f"{text!r} given", file=path, field=named.name, expected=expected)
    for name in SMPLX_ONLY:
        if name in arrays:
            raise InputError("these are SMPL-X parameters", file=path, field=name, expected=expected)
    body = arrays.get("body_pose")
    if named is None and body is not None and (body.shape[-1:] == (63,) or 21 in body.shape[1:2]):
        problem = "21 joints, as SMPL-X has them"
        more = "; of SMPL-H, say surface_model_type='smplh'"
        raise InputError(problem, file=path, field="body_pose", expected=f"23 joints of SMPL{more}")


def _first(path: str, member: Member) -> np.ndarray:
    """(1,) value, or none of an empty array."""
    return (
        read_member_rows(path, member, 0, min(1, member.shape[0])) if member.shape else read_all(path, member)
    ).reshape(-1)[:1]


def tell_unread(path: str, arrays: Mapping[str, Member], read: set[str]) -> None:
    """Logs the arrays that nobody reads."""
    unread = [f"{n} (Python objects)" if m.dtype.hasobject else n for n, m in sorted(arrays.items()) if n not in read]
    if unread:
        log.info("%s: not read: %s", path, ", ".join(unread))
