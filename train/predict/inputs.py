"""What a command line names: photographs and films, in files, folders and globs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from pipelines.files.storage import find, is_url
from schemas import InputError
from train.network.checkpoints import run_checkpoints

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FILM_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".gif")
OVERLAYS = "overlays"
"""Pictures and films that `predict` writes, in this folder of its output."""
_CHECKPOINT_ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class InputFile:
    """A photograph or a film."""

    path: Path
    stem: str
    """its path below the folder that was given, or its name, without ending; for the names of what is made of it, and
    no other source has it"""

    @property
    def name(self) -> str:
        """As it was given or found."""
        return str(self.path)

    @property
    def is_film(self) -> bool:
        return self.path.suffix.lower() in FILM_ENDINGS


def find_sources(inputs: Sequence[str], output: Path) -> list[InputFile]:
    """Photographs and films of files, folders (with all below them) and globs, each once, in the order of the names.

    Overlays in the output folder are left out. Raises InputError for names that lead to nothing, and for checkpoints.
    """
    if not inputs:
        raise InputError("nothing to look at", field="IN", expected="photographs, films, folders or globs of them")
    sources, known, stems, own = [], set(), set(), output.resolve() / OVERLAYS
    for text in inputs:
        for path, below in _paths(text):
            real = path.resolve()
            if real in known or own in real.parents:
                continue
            known.add(real)
            stem, number = below.with_suffix("").as_posix(), 1
            while stem.lower() in stems:
                number += 1
                stem = f"{below.with_suffix('').as_posix()}-{number}"
            stems.add(stem.lower())
            sources.append(InputFile(path, stem))
    if not sources:
        raise InputError("nothing to look at but overlays", field="IN", expected="photographs or films")
    return sources


def _paths(text: str) -> Iterator[tuple[Path, Path]]:
    """(path, what of it names outputs) of an argument."""
    path = Path(text)
    if is_url(text):
        raise InputError("URLs are not read", file=text, field="IN", expected="files of this machine")
    if path.is_dir():
        yield from ((found, found.relative_to(path)) for found in _below(path))
    elif path.exists():
        if path.suffix.lower() in _CHECKPOINT_ENDINGS:
            raise InputError("looks like a network", file=text, field="IN", expected=f"--checkpoint {text}")
        yield path, Path(path.name)
    elif has_magic(text):
        found = [Path(name) for name in find(text)]
        if not found:
            raise InputError("matches no file", file=text, field="IN", expected="photographs or films")
        yield from ((match, Path(match.name)) for match in found)
    else:
        raise InputError("cannot be opened: no such file or folder", file=text, field="IN")


def _below(folder: Path) -> list[Path]:
    if run_checkpoints(folder):
        raise InputError("is a training run", file=folder, field="IN", expected=f"--checkpoint {folder}")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen = (Path(root, name) for name in sorted(names) if not name.startswith("."))
        found += [path for path in seen if path.suffix.lower() in PICTURE_ENDINGS + FILM_ENDINGS]
    if not found:
        raise InputError("no photographs or films in it", file=folder, field="IN")
    return sorted(found)
