"""HMR-SKEL shards as a trainer sees them: labels of their people (Parquet), and their images one at a time (tar).

Tars are read at random: their headers are scanned once, then an image is one read. Of shards elsewhere (http, s3, gs,
...) the Parquet files are copied at once, the tars when they are needed (`copies`). Format: schemas/README.md.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.files.parquet import parquet_problems, read_schema, read_table
from pipelines.files.shards import DATASET_FILE, Shard, checked_labels, find_shards, sample_members
from pipelines.files.tar import TarMember, TarScan
from pipelines.files.urls import is_url
from schemas import HMR_SKEL, Columns, InputError, check_schema, describe, table_to_columns
from train.data.copies import Copies
from train.data.origin import PIPE, beside

log = logging.getLogger(__name__)

LABELS = ("poses", "betas", "keypoints_3d", "keypoints_2d", "cam_int", "crop_affine")
"""Arrays that training needs of a person."""
SOURCE = ("smpl_poses", "smpl_betas")
"""Arrays that evaluation against the SMPL source needs besides."""
_DOCUMENT = ("key", "image_size", "box_center", "box_size")
"""What else is used of a person."""


@dataclass(frozen=True)
class Person:
    """One sample of a shard: `image` is JPEG bytes, the others its labels by field name, arrays as float32."""

    key: str
    image: bytes
    document: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tar: str


def training_shards(places: Sequence[str], copies: Copies | None = None) -> list[Shard]:
    """Shards on this machine, as `find_shards` finds them, and those of URLs of tars, with {000000..000099} ranges.

    Of those behind URLs the Parquet files are copied. Raises InputError for a place without shards, and for a shard
    whose tar or Parquet file is missing.
    """
    if not places:
        raise InputError("no shards given", field="--shards", expected="a folder, tars or URLs of tars")
    shards: list[Shard] = []
    for place in map(os.fspath, places):
        if is_url(place) or (place.startswith(PIPE) and not os.path.lexists(place)):
            shards += _remote_shards(place, copies)
            continue
        if os.path.isdir(place) and not os.path.exists(os.path.join(place, DATASET_FILE)):
            log.warning("%s: no %s: a part of a data set, or one whose making has not ended", place, DATASET_FILE)
        for shard in find_shards([place]):
            if not shard.tar.is_file():
                raise InputError("the file is missing", file=shard.tar, expected=f"the people of {shard.parquet.name}")
            shards.append(shard)
    return list(dict.fromkeys(shards))


def _remote_shards(place: str, copies: Copies | None) -> list[Shard]:
    from webdataset.shardlists import expand_urls

    if copies is None:
        raise InputError("no folder for copies", file=place, field="--cache", expected="a folder on local disk")
    urls = [place] if place.startswith(PIPE) and "{" not in place else expand_urls(place)
    copies.ask(urls)
    copies.fetch_all([beside(url, "parquet") for url in urls])
    return [Shard(copies.path(url).with_suffix(""), url) for url in urls]


def read_label_columns(
    shard: Shard, names: Sequence[str], content: bytes | None = None, later: Sequence[str] = ()
) -> Columns:
    """Columns of a shard's Parquet file, or of its `content`, a value for every person.

    Of `later` fields, which older shards lack, those are read that are there.

    Raises InputError for other versions, for missing columns and for values that are missing.
    """

    with parquet_problems(shard.parquet):
        schema = read_schema(shard.parquet, content)
        check_schema(schema, HMR_SKEL, shard.parquet)
        names = [*names, *(name for name in later if name in schema.names)]
        table = read_table(shard.parquet, names, content=content)
        for name in names:
            if name not in table.column_names or table[name].null_count:
                expected = describe(HMR_SKEL.field(name))
                raise InputError("values are missing", file=shard.parquet, field=name, expected=expected)
        return table_to_columns(table)


class OpenShard:
    """The labels of a shard's people, and where in the tar their images are.

    Raises InputError if the Parquet file or the tar is damaged, or if they do not hold the same people.
    """

    def __init__(self, shard: Shard, fields: Sequence[str] = LABELS) -> None:
        self.shard, self.fields = shard, fields
        columns = read_label_columns(shard, (*_DOCUMENT, *fields), checked_labels(shard))
        self._columns = columns | {name: columns[name].astype(np.float32) for name in fields}
        self._finite = {
            name: np.isfinite(values.reshape(len(values), -1)).all(1)
            for name, values in self._columns.items()
            if name != "key"
        }
        self._images = self._find_images()
        self._file = os.open(shard.tar, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self._columns["key"])

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def person(self, place: int) -> Person:
        """The person at a place. Raises InputError that names tar or Parquet file, and the key."""
        key = self._columns["key"][place]
        for name, finite in self._finite.items():
            if not finite[place]:
                raise InputError(f"sample {key}: not a finite number", file=self.shard.parquet, field=name)
        member = self._images[place]
        if member is None:
            raise InputError(f"sample {key} has no .jpg", file=self.shard.tar)
        image = os.pread(self._file, member.size, member.offset)
        if len(image) != member.size:
            raise InputError(f"ends inside sample {key}", file=self.shard.tar)
        document, arrays = ({name: self._columns[name][place] for name in names} for names in (_DOCUMENT, self.fields))
        return Person(key, image, document, arrays, str(self.shard.tar))

    def _find_images(self) -> list[TarMember | None]:
        """Where the image of each person is; None for a person without."""
        place_of = {key: place for place, key in enumerate(self._columns["key"])}
        images: list[TarMember | None] = [None] * len(self)
        seen = set()
        for key, ending, member in sample_members(TarScan(str(self.shard.tar))):
            seen.add(key)
            if ending != "jpg" or key not in place_of:
                continue
            if images[place_of[key]] is not None:
                raise InputError(f"sample {key} has two images", file=self.shard.tar)
            images[place_of[key]] = member
        if seen != place_of.keys():
            problem = f"{len(seen)} people where the Parquet file has {len(self)}"
            some = next(iter(seen ^ place_of.keys()))
            expected = f"tar and Parquet file of one run; {some} is in one of them only"
            raise InputError(problem, file=self.shard.tar, expected=expected)
        return images


class OpenShards:
    """The shards last used, opened. One per process."""

    def __init__(self, shards: Sequence[Shard], fields: Sequence[str], most: int, copies: Copies) -> None:
        self._shards, self._fields, self._most, self._copies = shards, fields, most, copies
        self._opened: OrderedDict[int, OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:  # open files do not travel to another process
        return self.__dict__ | {"_opened": OrderedDict()}

    def __getitem__(self, shard: int) -> OpenShard:
        if shard in self._opened:
            self._opened.move_to_end(shard)
        else:
            self._opened[shard] = self._open(self._shards[shard])
            if len(self._opened) > self._most:
                self._opened.popitem(last=False)
        return self._opened[shard]

    def soon(self, shards: Sequence[int]) -> None:
        """These will be wanted, in this order: those behind URLs are copied in the background."""
        urls = [self._shards[n].copied_from for n in shards if self._shards[n].copied_from and n not in self._opened]
        self._copies.ahead([url for url in urls if not self._copies.path(url).exists()])

    def _open(self, shard: Shard) -> OpenShard:
        if not shard.copied_from:
            return OpenShard(shard, self._fields)
        self._copies.fetch(shard.copied_from)
        try:
            return OpenShard(shard, self._fields)
        except InputError:
            self._copies.forget(shard.copied_from)  # the next run shall not find it
            raise
