"""Images that labels refer to: an index of 4DHumans-style tars, or a folder; images are read later, by byte range.

A label's `imgname` is looked for as it stands, then by the rule of its data set (`image_names.QUIRKS`). Annotations
inside the tars (KEY.data.pyd) are pickles: never opened.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pipelines.files.storage import find, place
from pipelines.files.tar import TarScan
from pipelines.files.urls import UrlPath, is_url
from pipelines.read.image_index import Entry, ImageIndex
from pipelines.read.image_names import EXTENSIONS, is_safe, normal_name, quirk_of, spellings, without_extension
from schemas import InputError

log = logging.getLogger(__name__)

_TAR_DEPTH = 3


@dataclass(frozen=True)
class ImageRef:
    """Bytes [offset, offset + size) of a file; `file` is relative to the source's root, `member` the name in a tar.

    `modified` is when the file was changed, ns, if that is known: bytes of one that was changed since are not read."""

    file: str
    offset: int
    size: int
    member: str = ""
    modified: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """`tar:member`, or the file."""
        return f"{self.file}:{self.member}" if self.member else self.file


class ImageSource(Protocol):
    """Where images come from; `root` is the folder that references are relative to."""

    root: str

    def find_all(self, dataset: str, names: Iterable[str]) -> dict[str, ImageRef | str]:
        """The images of label rows by `imgname`; where there is none, the reason in words."""
        ...


def open_images(where: str) -> ImageSource | None:
    """The source that `--images` names: None for `none`, else tars (file, glob, folder that holds some) or a folder.

    Raises InputError if there is nothing.
    """
    if where.lower() == "none":
        return None
    folder = place(where)
    if folder.is_dir():
        files = UrlFolderImages(str(folder)) if is_url(where) else FolderImages(where)
        tars = _tars_below(folder)
        in_tars = TarImages.scan(tars, where) if tars else None
        if in_tars is None or not len(in_tars.index):
            return files
        return TarsAndFiles(in_tars.root, in_tars, files)
    tars = find(where)
    if not tars:
        raise InputError("no such file or folder", file=where, expected="a folder, image tars, or none")
    for path in tars:
        if not path.lower().endswith(".tar"):
            raise InputError(
                "not a .tar file", file=path, expected="an uncompressed .tar, so that it can be read by range"
            )
    images = TarImages.scan(tars, _common_folder(tars))
    if not len(images.index):
        raise InputError("no image in the tars", file=tars[0], expected=f"members KEY{' or KEY'.join(EXTENSIONS)}")
    return images


def modified_at(root: str, file: str) -> int:
    """When a file below the folder was changed, ns; 0 if that cannot be told."""
    try:
        return 0 if is_url(root) else os.stat(os.path.join(root, file)).st_mtime_ns
    except OSError:
        return 0


def read_image(root: str, ref: ImageRef) -> bytes:
    """The encoded image. Raises OSError if the file is gone or no regular file, EOFError if it is not what was planned:
    shorter, or changed since."""
    if is_url(root):
        data = (UrlPath(root) / ref.file).read_range(ref.offset, ref.size)
        if len(data) != ref.size:
            raise EOFError(f"{len(data)} of {ref.size} bytes")
        return data
    # Since the plan was made the name may have become a link or a pipe: the one is not followed, the other not awaited.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.path.join(root, ref.file), "rb", buffering=0, opener=lambda path, _: os.open(path, flags)) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        file.seek(ref.offset)
        data = file.read(ref.size)
    if len(data) != ref.size:
        raise EOFError(f"{len(data)} of {ref.size} bytes")
    if ref.modified and facts.st_mtime_ns != ref.modified:
        raise EOFError("changed since the run was planned")
    return data


@dataclass
class TarImages:
    """Index of image tars by sample key (a member's name without its extension)."""

    root: str
    tars: list[str]
    index: ImageIndex = field(default_factory=ImageIndex, repr=False)

    @classmethod
    def scan(cls, tars: list[str], root: str) -> TarImages:
        """Read all headers. Damage, links and unsafe names are logged; what is sound is used."""
        if is_url(root):
            root = str(UrlPath(root))
            images = cls(root, [path.removeprefix(f"{root}/") for path in tars])
        else:
            root = os.path.abspath(root)
            images = cls(root, [os.path.relpath(os.path.abspath(path), root) for path in tars])
        members = sum(images.index.add(_members(number, path)) for number, path in enumerate(tars))
        images.index.arrange()
        log.info("%d images in %d tars", members, len(tars))
        return images

    def find_all(self, dataset: str, names: Iterable[str]) -> dict[str, ImageRef | str]:
        spelled = {name: normal_name(name) for name in names}
        keys = {name: without_extension(normal) for name, normal in spelled.items()}
        entries = self.index.get(keys.values())
        found = {name: entries.get(key, []) for name, key in keys.items()}
        quirk = quirk_of(dataset)
        if quirk is not None:
            rewritten = {name: quirk.rewrite(keys[name]) for name, there in found.items() if not there}
            if quirk.by_base_name:
                found |= {name: self._of_base_name(dataset, base) for name, base in rewritten.items()}
            else:
                entries = self.index.get(rewritten.values())
                found |= {name: entries.get(key, []) for name, key in rewritten.items()}
        return {name: self._choose(there, spelled[name][len(keys[name]) :]) for name, there in found.items()}

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        return self.find_all(dataset, [imgname])[imgname]

    def _choose(self, entries: list[Entry], extension: str) -> ImageRef | str:
        """Of images whose names differ in the extension the one that the label names; equal ones count as one."""
        exact = [entry for entry in entries if entry.extension.lower() == extension.lower()]
        entries = exact or entries
        if not entries:
            return f"not in the {len(self.tars)} image tars"
        refs = [ImageRef(self.tars[e.file], e.offset, e.size, e.key + e.extension) for e in entries]
        if len(refs) > 1 and not self._equal(refs):
            return f"several different images have this name: {', '.join(ref.label for ref in refs)}"
        return refs[0]

    def _equal(self, refs: list[ImageRef]) -> bool:
        if len({ref.size for ref in refs}) > 1:
            return False
        first = read_image(self.root, refs[0])
        return all(read_image(self.root, ref) == first for ref in refs[1:])

    def _of_base_name(self, dataset: str, base: str) -> list[Entry]:
        """The images of this base name; of several keys (in several data sets) those whose tar or folder names ours."""
        entries = list(self.index.with_base_name(base))
        if len({entry.key for entry in entries}) < 2:
            return entries
        mine = [e for e in entries if dataset.lower() in f"{self.tars[e.file]}/{e.key}".lower()]
        return mine if len({entry.key for entry in mine}) == 1 else []


@dataclass
class TarsAndFiles:
    """A folder that holds image tars and images: what is not in the tars is looked for among the files."""

    root: str
    tars: TarImages
    files: FolderImages

    def find_all(self, dataset: str, names: Iterable[str]) -> dict[str, ImageRef | str]:
        found = self.tars.find_all(dataset, names)
        absent = [name for name, ref in found.items() if isinstance(ref, str) and ref.startswith("not in")]
        there = self.files.find_all(dataset, absent)
        return found | {name: ref for name, ref in there.items() if isinstance(ref, ImageRef)}

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        return self.find_all(dataset, [imgname])[imgname]


def _members(number: int, path: str) -> Iterator[Entry]:
    """The images of a tar. What is damaged or refused is logged."""
    images = unsafe = 0
    example = ""
    scan = TarScan(path)
    try:
        for member in scan:
            bare = without_extension(member.name)
            if bare == member.name:
                continue
            key = normal_name(bare)
            if is_safe(key):
                images += 1
                yield Entry(key, number, member.offset, member.size, member.name[len(bare) :])
            else:
                unsafe, example = unsafe + 1, example or member.name
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
            *(path, scan.links, unsafe, f", such as {example!r}" if unsafe else ""),
        )


@dataclass
class FolderImages:
    """A folder that image names are relative to."""

    root: str

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.root)

    def find_all(self, dataset: str, names: Iterable[str]) -> dict[str, ImageRef | str]:
        return {name: self.find(dataset, name) for name in names}

    def find(self, dataset: str, imgname: str) -> ImageRef | str:
        if not is_safe(imgname):
            return "the name leads out of the image folder"
        spelled = normal_name(imgname)
        names = [spelled]
        quirk = quirk_of(dataset)
        if quirk is not None and quirk.rewrite(without_extension(spelled)) != without_extension(spelled):
            names.append(quirk.rewrite(without_extension(spelled)))
        for name in names:
            for path in spellings(name):
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


@dataclass
class UrlFolderImages(FolderImages):
    """The same behind a URL. A folder is listed when an image in it is first asked for, and not again."""

    index: ImageIndex = field(default_factory=ImageIndex, repr=False)

    def __post_init__(self) -> None:
        """The root is taken as it is: nothing behind a URL is a link."""

    def _file(self, name: str) -> ImageRef | str | None:
        folder, slash, _ = name.rpartition("/")
        listed = folder + "/"  # no file is called so
        if not self.index.get([listed]):
            try:
                files = (UrlPath(self.root) / folder if folder else UrlPath(self.root)).sizes()
            except OSError:
                files = []
            self.index.add([Entry(listed, 0, 0, 0, ""), *(Entry(folder + slash + n, 0, 0, s, "") for n, s in files)])
            self.index.arrange()
        found = self.index.get([name]).get(name)
        return None if found is None else ImageRef(name, 0, found[0].size)


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _tars_below(folder: Path | UrlPath) -> list[str]:
    found = (path for depth in range(_TAR_DEPTH) for path in folder.glob("*/" * depth + "*.tar"))
    packed = [path for pattern in ("*.tar.gz", "*.tgz", "*.zip") for path in folder.glob(pattern)]
    if packed:
        log.warning("%s: %d packed files such as %s are not read; unpack them", folder, len(packed), packed[0].name)
    return sorted(str(path) for path in found if is_url(path) or path.is_file())


def _common_folder(tars: list[str]) -> str:
    if not is_url(tars[0]):
        return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in tars])
    scheme, mark, _ = tars[0].partition("://")
    return scheme + mark + posixpath.commonpath([posixpath.dirname(path.partition(mark)[2]) for path in tars])
