"""How images are called: one spelling of a name, and where data sets call them otherwise than their labels do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Quirk:
    """How a data set's image names differ from its label names: one rule."""

    datasets: str
    rule: str
    rewrite: Callable[[str], str]
    by_base_name: bool = False


def _aic(name: str) -> str:
    return re.sub(r"^aic-train/", "aic-train-vitpose/", name)


def _insta(name: str) -> str:
    parts = name.split("/")
    if len(parts) > 3:
        words = parts[2].split("_", 3)
        if len(words) == 4:
            parts[2] = "_".join([words[0], words[1][:2], words[2][:2], words[3]])
    parts[-1] = re.sub(r"\d+$", lambda digits: digits.group().zfill(4), parts[-1])
    return "/".join(parts)


def _base_name(name: str) -> str:
    return PurePosixPath(name).name


QUIRKS = (
    Quirk("aic", "names start with aic-train/ where the tars say aic-train-vitpose/", _aic),
    Quirk("coco|mpii", "names are used by base name", _base_name, by_base_name=True),
    Quirk(
        "insta",
        "the third path component a_b_c_d is a_(first two letters of b)_(first two letters of c)_d, and the frame "
        "number has four digits",
        _insta,
    ),
    Quirk("h36m|mpi.?inf", "names have no extension (any dot belongs to the name)", lambda name: name),
)
"""Rules by data set (a pattern that the data set's name begins with)."""


def normal_name(name: str) -> str:
    """One spelling of a relative path: forward slashes, no `./`, no `//`, composed Unicode (NFC)."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return ("/" if name.startswith(("/", "\\")) else "") + unicodedata.normalize("NFC", "/".join(parts))


def without_extension(name: str) -> str:
    """The name without an image's extension (EXTENSIONS); other dots belong to it."""
    bare, dot, extension = name.rpartition(".")
    return bare if dot + extension.lower() in EXTENSIONS else name


@lru_cache(maxsize=256)
def quirk_of(dataset: str) -> Quirk | None:
    for quirk in QUIRKS:
        if re.match(quirk.datasets, dataset, re.IGNORECASE):
            return quirk
    return None


def spellings(name: str) -> Iterator[str]:
    """File names that a label may mean, the likeliest first: other cases of the extension, decomposed Unicode."""
    bare = without_extension(name)
    own = name[len(bare) :]
    extensions = [own, own.lower(), own.upper()] if own else ["", *EXTENSIONS, *(e.upper() for e in EXTENSIONS)]
    for form in dict.fromkeys((bare, unicodedata.normalize("NFD", bare))):
        yield from (form + extension for extension in dict.fromkeys(extensions))


def is_safe(name: str) -> bool:
    """Relative, without `..` and without characters that no path has."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in parts and "\0" not in name
