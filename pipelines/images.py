"""Images that labels refer to: an index of 4DHumans-style tars, or a folder; images are read later, by byte range.

A label's `imgname` is looked for as it stands, then by the rule of its data set (QUIRKS), which says how that data
set's image names differ from its label names. Annotations inside the tars (KEY.data.pyd) are pickles: never opened.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipelines.tar_members import TarScan
from schemas import InputError

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png")
_TAR_DEPTH = 3


@dataclass(frozen=True)
class ImageRef:
    """Bytes [offset, offset + size) of a file; `file` is relative to the source's root, `member` the name in a tar."""

    file: str
    offset: int
    size: int
    member: str = ""

    @property
    def label(self) -> str:
        """`tar:member`, or the file."""
        return f"{self.file}:{self.member}" if self.member else self.file


class ImageSource(Protocol):
    """Where images come from; `root` is the folder that references are relative to."""

    root: str

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        """The image of a label row, or the reason why there is none, in words."""
        ...


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


def without_extension(name: str) -> str:
    """The name without .jpg, .jpeg or .png; other dots belong to it."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name


def quirk_of(dataset: str) -> Quirk | None:
    for quirk in QUIRKS:
        if re.match(quirk.datasets, dataset, re.IGNORECASE):
            return quirk
    return None


def open_images(where: str) -> ImageSource | None:
    """The source that `--images` names: None for `none`, else tars (file, glob, folder that holds some) or a folder.

    Raises InputError if there is nothing.
    """
    if where.lower() == "none":
        return None
    if os.path.isdir(where):
        tars = _tars_below(where)
        return TarImages.scan(tars, where) if tars else FolderImages(where)
    tars = sorted(path for path in glob.glob(where, recursive=True) if os.path.isfile(path))
    if not tars:
        raise InputError("no such file or folder", file=where, expected="a folder, image tars, or none")
    for path in tars:
        if not path.lower().endswith(".tar"):
            raise InputError(
                "not a .tar file", file=path, expected="an uncompressed .tar, so that it can be read by range"
            )
    return TarImages.scan(tars, os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in tars]))


def read_image(root: str, ref: ImageRef) -> bytes:
    """The encoded image. Raises OSError if the file is gone or no regular file, EOFError if it has become shorter."""
    # Since the plan was made the name may have become a link or a pipe: the one is not followed, the other not awaited.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.path.join(root, ref.file), "rb", buffering=0, opener=lambda path, _: os.open(path, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        file.seek(ref.offset)
        data = file.read(ref.size)
    if len(data) != ref.size:
        raise EOFError(f"{len(data)} of {ref.size} bytes")
    return data


@dataclass
class TarImages:
    """Index of image tars by sample key (a member's name without its extension)."""

    root: str
    tars: list[str]
    entries: dict[str, tuple[int, int, int, str]] = field(default_factory=dict, repr=False)
    _by_base: dict[str, list[str]] | None = field(default=None, repr=False)

    @classmethod
    def scan(cls, tars: list[str], root: str) -> TarImages:
        """Read all headers. Damage, links and unsafe names are logged; what is sound is used."""
        root = os.path.abspath(root)
        index = cls(root, [os.path.relpath(os.path.abspath(path), root) for path in tars])
        for number, path in enumerate(tars):
            index._add(number, path)
        if not index.entries:
            raise InputError("no image in the tars", file=tars[0], expected="members KEY.jpg, KEY.jpeg or KEY.png")
        log.info("%d images in %d tars", len(index.entries), len(tars))
        return index

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        key = without_extension(imgname)
        found = self.entries.get(key)
        quirk = quirk_of(dataset)
        if found is None and quirk is not None:
            rewritten = quirk.rewrite(key)
            key = self._only_one(dataset, rewritten) if quirk.by_base_name else rewritten
            found = self.entries.get(key)
        if found is None:
            return f"not in the {len(self.tars)} image tars"
        tar, offset, size, extension = found
        return ImageRef(self.tars[tar], offset, size, key + extension)

    def _add(self, number: int, path: str) -> None:
        images = repeated = 0
        unsafe: list[str] = []
        scan = TarScan(path)
        try:
            for member in scan:
                key = without_extension(member.name)
                if key == member.name:
                    continue
                key = key[2:] if key.startswith("./") else key
                if not _is_safe(key):
                    unsafe.append(member.name)
                elif key in self.entries:
                    repeated += 1
                else:
                    extension = member.name[len(without_extension(member.name)) :]
                    self.entries[key] = (number, member.offset, member.size, extension)
                    images += 1
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
        if scan.damage:
            log.warning(
                "%s: damaged at byte %d (%s); the %d images before it are used",
                *(path, scan.damage.offset, scan.damage.problem, images),
            )
        if unsafe or scan.links:
            log.warning(
                "%s: refused %d links and %d names that lead out of the folder%s",
                *(path, scan.links, len(unsafe), f", such as {unsafe[0]!r}" if unsafe else ""),
            )
        if repeated:
            log.info("%s: %d images whose name came before are not used", path, repeated)

    def _only_one(self, dataset: str, base: str) -> str:
        if self._by_base is None:
            self._by_base = {}
            for key in self.entries:
                self._by_base.setdefault(_base_name(key), []).append(key)
        keys = self._by_base.get(base, [])
        if len(keys) > 1:  # the same base name in several data sets: the one whose tar or folder names ours
            keys = [key for key in keys if dataset.lower() in f"{self.tars[self.entries[key][0]]}/{key}".lower()]
        return keys[0] if len(keys) == 1 else ""


@dataclass
class FolderImages:
    """A folder that image names are relative to."""

    root: str

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.root)

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        if not _is_safe(imgname):
            return "the name leads out of the image folder"
        quirk = quirk_of(dataset)
        names = [imgname]
        if quirk is not None and quirk.rewrite(without_extension(imgname)) != without_extension(imgname):
            names.append(quirk.rewrite(without_extension(imgname)))
        for name in names:
            bare = without_extension(name) == name
            for path in [name] + [name + extension for extension in EXTENSIONS if bare]:
                found = self._file(path)
                if found is not None:
                    return found
        return "no such file in the image folder"

    def _file(self, name: str) -> ImageRef | str | None:
        path = os.path.join(self.root, name)
        try:
            facts = os.lstat(path)
        except (OSError, ValueError):
            return None
        parent = _real_folder(os.path.dirname(path))
        linked = stat.S_ISLNK(facts.st_mode)
        real = os.path.realpath(path) if linked else os.path.join(parent, os.path.basename(path))
        if os.path.commonpath([real, self.root]) != self.root:
            return "a link that leads out of the image folder"
        if linked:
            try:
                facts = os.stat(real)
            except OSError:
                return None
        if not stat.S_ISREG(facts.st_mode):
            return None
        return ImageRef(os.path.relpath(real, self.root), 0, facts.st_size)


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _is_safe(name: str) -> bool:
    """Relative, without `..` and without characters that no path has."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in parts and "\0" not in name


def _tars_below(folder: str) -> list[str]:
    root = Path(folder)
    return sorted(
        str(path) for depth in range(_TAR_DEPTH) for path in root.glob("*/" * depth + "*.tar") if path.is_file()
    )
