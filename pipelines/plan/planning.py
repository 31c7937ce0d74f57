"""Which label rows make which shard: a plan that moves no pixels.

Rows run through the label files in order of name (`cuts` says where shards end). A row that later turns out unusable
is missing from its shard; it does not move its successors, so that one shard never depends on another's content.

A shard's hash stands for what its rows hold (`content`), not for its number: what an edited label file leaves alone is
known again, also when it has another number now. Of the label files only `imgname` is used; all is read once, in
pieces, for checksums.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from pipelines.command.options import parse_row_range
from pipelines.files.storage import find, place
from pipelines.files.urls import is_url
from pipelines.plan.content import content_digests
from pipelines.plan.cuts import Stretch, cut
from pipelines.plan.person_numbers import person_numbers
from pipelines.read.image_names import without_extension
from pipelines.read.images import ImageRef, ImageSource, modified_at
from pipelines.read.label_arrays import SPELLINGS
from pipelines.read.labels import IMAGE_LABELS, POSE_AND_SHAPE, LabelFile, open_labels
from schemas import InputError

log = logging.getLogger(__name__)

_LONGEST_KEY = 200
_PIECE = 65536


@dataclass(frozen=True)
class RowRange:
    """Rows start, start + step, ... below stop of one label file, and the file's sha256 as it was planned."""

    label_file: str
    start: int
    stop: int
    step: int = 1
    sha256: str = ""

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


@dataclass(frozen=True)
class ShardSpec:
    """One work unit: which rows make one shard, and where their images are. Plain values, small enough to travel.

    The lists have one entry per row. `persons` counts the earlier rows of the same image in the label file. An image
    is bytes [offset, offset + size) of `files[file]` below `image_root`; file -1 means that there is none, and
    `member` then says why. `modified` is when each of the files was changed, ns, 0 if unknown. Without images
    (`--images none`) `image_root` is None and the lists are empty.

    `settings` stands for all but rows and images that determines the shard's bytes, `hash` for these and for rows and
    images: name, place and size of each, not what `name` the shard has and when images were changed.
    """

    name: str
    rows: tuple[RowRange, ...]
    persons: list[int] = field(repr=False)
    image_root: str | None
    files: list[str] = field(repr=False)
    file: list[int] = field(repr=False)
    offset: list[int] = field(repr=False)
    size: list[int] = field(repr=False)
    member: list[str] = field(repr=False)
    hash: str
    settings: str = ""
    modified: list[int] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return sum(len(part) for part in self.rows)

    @property
    def modified_sha256(self) -> str:
        """Of the times at which the image files were changed; empty if none is known."""
        return hashlib.sha256(json.dumps(self.modified).encode()).hexdigest() if any(self.modified) else ""

    def image(self, i: int) -> ImageRef | str:
        """Image of the i-th row, or why there is none."""
        if self.file[i] < 0:
            return self.member[i]
        file = self.file[i]
        changed = self.modified[file] if self.modified else 0
        return ImageRef(self.files[file], self.offset[i], self.size[i], self.member[i], changed)

    def to_json(self) -> str:
        rows = [asdict(part) for part in self.rows]
        return json.dumps({**vars(self), "rows": rows})

    @classmethod
    def from_json(cls, text: str) -> ShardSpec:
        document = json.loads(text)
        document["rows"] = tuple(RowRange(**part) for part in document["rows"])
        return cls(**document)


@dataclass(frozen=True)
class RowSelection:
    """Rows of each label file: first <= row < last, every `every`-th of them. Negative numbers count from the end."""

    first: int | None = None
    last: int | None = None
    every: int = 1

    @classmethod
    def parse(cls, text: str, every: int = 1) -> RowSelection:
        """`START:STOP` and a step. Raises InputError."""
        if every < 1:
            raise InputError(f"{every} given", field="every", expected="1 or more")
        rows = parse_row_range(text)
        return cls(rows.start, rows.stop, every)

    def of(self, rows: int) -> range:
        return range(rows)[slice(self.first, self.last, self.every)]


def open_for_job(path: str, with_images: bool, smpl_gender: str | None = None) -> LabelFile:
    """A label file with what the job needs of it; its genders are not looked at if `smpl_gender` stands for them."""
    also = [name for name in SPELLINGS if name != "gender" or smpl_gender is None]
    return open_labels(path, IMAGE_LABELS if with_images else POSE_AND_SHAPE, also)


def find_label_files(
    patterns: Iterable[str], *, with_images: bool, datasets: Iterable[str] = (), smpl_gender: str | None = None
) -> list[LabelFile]:
    """Open the label files of globs, ordered by name. Raises InputError if there is none or names clash.

    With images, files must have all of IMAGE_LABELS; without, poses and shapes are enough. `datasets` limits them.
    """
    paths: set[str] = set()
    for pattern in patterns:
        folder = place(pattern)
        inside = folder.glob("*.npz") if folder.is_dir() else ()
        found = [str(path) for path in inside if not path.name.startswith(".")] or find(pattern)
        if not found:
            raise InputError(
                "no such label file", file=pattern, expected="CameraHMR .npz files (a path, folder or glob)"
            )
        paths.update(path if is_url(path) else os.path.abspath(path) for path in found)
    ordered = sorted(paths, key=lambda p: (os.path.basename(p), p))
    files = [open_for_job(path, with_images, smpl_gender) for path in ordered]
    for file in files:
        if file.choice:
            log.warning("%s: %s", file.path, file.choice)
    names: dict[str, str] = {}
    for file in files:
        if file.dataset in names:
            problem = f"makes the same data-set name {file.dataset!r} as {names[file.dataset]}"
            raise InputError(problem, file=file.path, expected="one label file per data set")
        names[file.dataset] = file.path
    wanted = list(datasets)
    for name in wanted:
        if name not in names:
            raise InputError(f"no label file of {name!r}", field="subset", expected=f"some of {', '.join(names)}")
    return [file for file in files if not wanted or file.dataset in wanted]


def plan_shards(
    files: Iterable[LabelFile],
    images: ImageSource | None,
    samples_per_shard: int,
    selection: RowSelection | None = None,
    settings_hash: str = "",
) -> Iterator[ShardSpec]:
    """The shards one after another, numbered from 000000.

    `settings_hash` stands for everything but rows and images that determines a shard's bytes; it enters the hash of
    each spec.
    """
    files, selection = list(files), selection or RowSelection()
    chosen = [selection.of(labels.rows) for labels in files]
    counts = [(labels.name, len(rows)) for labels, rows in zip(files, chosen, strict=True)]
    shards = list(cut(counts, samples_per_shard))
    stretches: dict[int, list[Stretch]] = {}
    for stretch in (stretch for shard in shards for stretch in shard):
        stretches.setdefault(stretch.file, []).append(stretch)
    current = -1
    for number, shard in enumerate(shards):
        open_shard = _OpenShard(images, settings_hash)
        for stretch in shard:
            labels, rows = files[stretch.file], chosen[stretch.file]
            if stretch.file != current:
                current = stretch.file
                mine = [rows[part.start : part.stop] for part in stretches.pop(current)]
                digests, selected = iter(content_digests(labels, mine)), _SelectedRows(labels, rows)
            names, persons = selected.take(stretch.stop - stretch.start)
            open_shard.add(labels, rows[stretch.start : stretch.stop], next(digests), names, persons)
        yield open_shard.close(f"{number:06d}")


def sample_key(dataset: str, imgname: str, person: int) -> str:
    """Name of a sample in its tar, made of letters, digits and - _ + = only.

    data set / image path without extension / person, with `/` as `+` and every other byte as `=XX`: different people
    have different keys. Of keys beyond 200 characters the end is replaced by their sha256.
    """
    path = without_extension(imgname)
    key = "+".join(_escape(part) for part in (dataset, *path.split("/"), str(person)))
    if len(key) > _LONGEST_KEY:
        # "=H" occurs in no escaped name, so a shortened key equals no other.
        key = f"{key[: _LONGEST_KEY - 66]}=H{hashlib.sha256(key.encode()).hexdigest()}"
    return key


def image_name(labels: LabelFile, row: int) -> str:
    """What stands for `imgname` where a label file has none."""
    return f"{row:07d}"


class _SelectedRows:
    """Image names of the chosen rows of a label file, and which person of its image each row is, one after another."""

    def __init__(self, labels: LabelFile, chosen: range) -> None:
        self._pieces = _name_pieces(labels, chosen)
        self._names: list[str | None] = []
        self._persons: list[int] = []

    def take(self, count: int) -> tuple[list[str | None], list[int]]:
        """Of the next `count` rows."""
        while len(self._names) < count:
            names, persons = next(self._pieces)
            self._names += names
            self._persons += persons
        names, self._names = self._names[:count], self._names[count:]
        persons, self._persons = self._persons[:count], self._persons[count:]
        return names, persons


def _name_pieces(labels: LabelFile, chosen: range) -> Iterator[tuple[list[str | None], list[int]]]:
    if "imgname" not in labels.fields:
        for first in range(0, len(chosen), _PIECE):
            rows = chosen[first : first + _PIECE]
            yield [image_name(labels, row) for row in rows], [0] * len(rows)
        return
    read = list(labels.iterate("imgname", _PIECE)) if labels.rows <= _PIECE else None
    persons = person_numbers(labels, read)
    start = 0
    for names in read or labels.iterate("imgname", _PIECE):
        stop = start + len(names)
        # the rows of `chosen` that lie in [start, stop)
        first = max(0, -(-(start - chosen.start) // chosen.step))
        last = max(first, -(-(stop - chosen.start) // chosen.step))
        rows = chosen[first:last]
        inside = slice(rows.start - start, rows.stop - start, rows.step)
        if rows:
            yield names[inside].tolist(), persons[start:stop][inside].tolist()
        start = stop


class _OpenShard:
    """A shard to which rows are still added."""

    def __init__(self, images: ImageSource | None, settings_hash: str) -> None:
        self.images = images
        self.settings = settings_hash
        self.digest = hashlib.sha256(settings_hash.encode())
        self.rows: list[RowRange] = []
        self.persons: list[int] = []
        self.files: dict[str, int] = {}
        self.file: list[int] = []
        self.offset: list[int] = []
        self.size: list[int] = []
        self.member: list[str] = []

    def add(
        self, labels: LabelFile, rows: range, content: str, names: Sequence[str | None], persons: Sequence[int]
    ) -> None:
        """Rows of one label file; `content` stands for their fields other than `imgname`."""
        self.rows.append(RowRange(labels.path, rows.start, rows[-1] + 1, rows.step, labels.sha256))
        self.persons += persons
        facts = [labels.name, rows.start, rows.step, content, names, persons]
        if self.images is not None:
            found = self.images.find_all(labels.dataset, {name for name in names if name})
            refs = [found[name] if name else "the row names no image" for name in names]
            for ref in refs:
                if isinstance(ref, str):
                    self._image(-1, 0, 0, ref)
                else:
                    number = self.files.setdefault(ref.file, len(self.files))
                    self._image(number, ref.offset, ref.size, ref.member)
            facts.append([ref if isinstance(ref, str) else [ref.label, ref.offset, ref.size] for ref in refs])
        self.digest.update(json.dumps(facts).encode() + b"\n")

    def close(self, name: str) -> ShardSpec:
        modified = [] if self.images is None else [modified_at(self.images.root, file) for file in self.files]
        return ShardSpec(
            name=name,
            rows=tuple(self.rows),
            persons=self.persons,
            image_root=None if self.images is None else self.images.root,
            files=list(self.files),
            file=self.file,
            offset=self.offset,
            size=self.size,
            member=self.member,
            hash=self.digest.hexdigest(),
            settings=self.settings,
            modified=modified,
        )

    def _image(self, file: int, offset: int, size: int, member: str) -> None:
        self.file.append(file)
        self.offset.append(offset)
        self.size.append(size)
        self.member.append(member)


def _escape(text: str) -> str:
    plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(c if c in plain else "".join(f"={byte:02X}" for byte in _bytes(c)) for c in text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
