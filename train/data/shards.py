"""HMR-SKEL shards as a trainer sees them: which people they hold (Parquet), and one person at a time (tar).

What a shard holds, and each person's quality record, come from the Parquet file beside the tar. Tars are read at
random: their headers are scanned once, then a person is one contiguous read. Of shards elsewhere (http, s3, gs, ...)
the Parquet files are copied at once, the tars when they are needed (`copies`). Files: DESIGN section 6; fields:
schemas.hmr_skel.
"""

from __future__ import annotations

import ast
import glob
import json
import logging
import math
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from schemas import HMR_SKEL, InputError, check_schema, describe, field_shape, record_name, record_version
from train.data.copies import Copies, beside, is_url

log = logging.getLogger(__name__)

LABELS = ("poses", "betas", "keypoints_3d", "keypoints_2d", "cam_int", "crop_affine")
"""Arrays that training needs of a person."""
SOURCE = ("smpl_poses", "smpl_betas")
"""Arrays that evaluation against the SMPL source needs besides."""
_DOCUMENT = ("key", "dataset", "imgname", "image_size", "crop_size", "box_center", "box_size")
_SHAPES = {field.name: field_shape(field) for field in HMR_SKEL}
_ZEROS = np.zeros(max(int(np.prod(shape)) for shape in _SHAPES.values()), np.float32)
_BLOCK = 512


@dataclass(frozen=True)
class Shard:
    """A tar and the Parquet file beside it, on local disk."""

    tar: str
    parquet: str
    url: str = ""
    """Where the tar comes from; it may not have been copied yet."""


@dataclass(frozen=True)
class Person:
    """One sample of a shard: `image` is JPEG bytes, `document` and `arrays` its labels by field name."""

    key: str
    image: bytes
    document: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tar: str


def find_shards(places: Sequence[str], copies: Copies | None = None) -> list[Shard]:
    """Shards in folders, tars, globs or URLs of tars (with {000000..000099} ranges), sorted by name.

    Of those behind URLs the Parquet files are copied. Raises InputError for a place without shards, and for a tar
    without its Parquet file.
    """
    if not places:
        raise InputError("no shards given", field="--shards", expected="a folder, tars or URLs of tars")
    shards: list[Shard] = []
    for place in map(os.fspath, places):
        if is_url(place):
            shards += _remote_shards(place, copies)
            continue
        found = glob.glob(os.path.join(glob.escape(place), "*.tar")) if os.path.isdir(place) else glob.glob(place)
        if not found and os.path.isfile(place):
            found = [place]
        if not found:
            raise InputError("no shards here", file=place, expected="a folder of .tar files, a tar or a glob")
        shards += [Shard(tar, f"{tar.removesuffix('.tar')}.parquet") for tar in sorted(found)]
    for shard in shards:
        if not os.path.isfile(shard.parquet):
            raise InputError("no Parquet file beside the tar", file=shard.tar, expected=shard.parquet)
    return list(dict.fromkeys(shards))


def _remote_shards(place: str, copies: Copies | None) -> list[Shard]:
    from webdataset.shardlists import expand_urls

    if copies is None:
        raise InputError("no folder for copies", file=place, field="--cache", expected="a folder on local disk")
    urls = expand_urls(place)
    tables = copies.fetch_all([beside(url, "parquet") for url in urls])
    return [Shard(str(copies.path(url)), str(table), url) for url, table in zip(urls, tables, strict=True)]


def read_columns(shard: Shard, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Scalar or array columns of a shard's Parquet file. Raises InputError for older versions and missing columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas import table_to_columns

    try:
        with pq.ParquetFile(shard.parquet, pre_buffer=False) as stored:
            check_schema(stored.schema_arrow, HMR_SKEL, shard.parquet)
            table = stored.read(columns=list(names), use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(f"cannot be read: {error}", file=shard.parquet, expected="Parquet of HMR_SKEL rows") from error
    columns = table_to_columns(table)
    return {name: columns.get(name, np.zeros(len(table), object)) for name in names}


class TarReader:
    """Reads people of one tar by their place in it. Headers are scanned when the reader is made.

    Raises InputError if the tar is damaged or holds another number of people than `people`.
    """

    def __init__(self, path: str, people: int | None = None) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"cannot be opened: {error.strerror}", file=path) from error
        self._samples = self._scan()
        if people is not None and len(self._samples) != people:
            problem = f"{len(self._samples)} people where the Parquet file has {people}"
            raise InputError(problem, file=path, expected="tar and Parquet file of one run")

    def __len__(self) -> int:
        return len(self._samples)

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def person(self, place: int, fields: Sequence[str] = LABELS, image: bool = True) -> Person:
        """The person at a place, checked. Raises InputError that names tar, key and field."""
        key, members = self._samples[place]
        for ending in ("jpg", "json", "npz") if image else ("json", "npz"):
            if ending not in members:
                held = ", ".join(members) or "nothing"
                raise InputError(f"sample {key} has no .{ending} but {held}", file=self.path)
        first = min(start for start, _ in members.values())
        size = max(start + length for start, length in members.values()) - first
        data = os.pread(self._file, size, first)
        if len(data) != size:
            raise InputError(f"ends inside sample {key}", file=self.path)
        parts = {ending: data[start - first : start - first + length] for ending, (start, length) in members.items()}
        document = self._document(key, parts["json"])
        return Person(key, parts.get("jpg", b""), document, self._arrays(key, parts["npz"], fields), self.path)

    def _document(self, key: str, text: bytes) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InputError(f"sample {key}: its .json is not JSON ({error})", file=self.path) from error
        facts = document if isinstance(document, dict) else {}
        kind, version = facts.get("record"), facts.get("version")
        if kind != record_name(HMR_SKEL):
            raise InputError(f"sample {key}: a record of kind {kind!r}", file=self.path, expected=record_name(HMR_SKEL))
        expected = record_version(HMR_SKEL)
        if str(version).split(".")[0] != expected.split(".")[0]:
            raise InputError(f"sample {key}: version {version}", file=self.path, expected=f"version {expected}")
        for name in _DOCUMENT:
            if name not in document:
                self._missing(key, name)
        return document

    def _arrays(self, key: str, content: bytes, fields: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            stored = read_npz(content, fields)
        except (ValueError, KeyError, SyntaxError, struct.error) as error:
            raise InputError(f"sample {key}: its .npz cannot be read ({error})", file=self.path) from error
        arrays = {}
        for name in fields:
            if name not in stored:
                self._missing(key, name)
            value = stored[name]
            if value.shape != _SHAPES[name] or value.dtype.kind != "f":
                problem = f"sample {key}: {value.dtype} {value.shape}"
                raise InputError(problem, file=self.path, field=name, expected=describe(HMR_SKEL.field(name)))
            arrays[name] = value.astype(np.float32)
            if not math.isfinite(np.dot(arrays[name].ravel(), _ZEROS[: value.size])):  # 0 x nan and 0 x inf are nan
                raise InputError(f"sample {key}: not a finite number", file=self.path, field=name)
        return arrays

    def _missing(self, key: str, name: str) -> None:
        expected = describe(HMR_SKEL.field(name))
        raise InputError(f"sample {key}: the field is missing", file=self.path, field=name, expected=expected)

    def _scan(self) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """Samples in order: (key, ending -> (offset, size)); names are split as webdataset does."""
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        position, end, long_name = 0, os.fstat(self._file).st_size, None
        while True:
            header = os.pread(self._file, _BLOCK, position)
            if len(header) < _BLOCK:
                raise InputError(f"cut short at byte {position}", file=self.path, expected="a whole tar")
            if not header.strip(b"\0"):
                return list(samples.items())
            try:
                sound = int(header[148:156].split(b"\0")[0] or b"0", 8) == sum(header) - sum(header[148:156]) + 256
                size = int(header[124:136].split(b"\0")[0] or b"0", 8)
            except ValueError:
                sound, size = False, 0
            if not sound or position + _BLOCK + size > end:
                raise InputError(f"not a tar header, or cut short, at byte {position}", file=self.path)
            data, kind = position + _BLOCK, header[156:157]
            position = data + -(-size // _BLOCK) * _BLOCK
            if kind in b"xL":
                long_name = _long_name(os.pread(self._file, size, data), kind) or long_name
            elif kind in b"0\0":
                name = long_name or _name(header)
                folder, slash, base = name.rpartition("/")
                stem, _, ending = base.partition(".")
                samples.setdefault(f"{folder}{slash}{stem}", {})[ending] = (data, size)
                long_name = None


class OpenTars:
    """Readers of the tars last used. One per process: file positions are not shared."""

    def __init__(self, shards: Sequence[Shard], people: Sequence[int], most: int, copies: Copies) -> None:
        self._shards, self._people, self._most, self._copies = shards, people, most, copies
        self._readers: OrderedDict[int, TarReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:  # open files do not travel to another process
        return self.__dict__ | {"_readers": OrderedDict()}

    def __getitem__(self, shard: int) -> TarReader:
        if shard in self._readers:
            self._readers.move_to_end(shard)
        else:
            self._readers[shard] = self._open(self._shards[shard], int(self._people[shard]))
            if len(self._readers) > self._most:
                self._readers.popitem(last=False)
        return self._readers[shard]

    def soon(self, shards: Sequence[int]) -> None:
        """These will be wanted, in this order: those behind URLs are copied in the background."""
        urls = [self._shards[n].url for n in shards if self._shards[n].url and n not in self._readers]
        self._copies.ahead([url for url in urls if not self._copies.path(url).exists()])

    def _open(self, shard: Shard, people: int) -> TarReader:
        if not shard.url:
            return TarReader(shard.tar, people)
        self._copies.fetch(shard.url)
        try:
            return TarReader(shard.tar, people)
        except InputError:
            self._copies.forget(shard.url)  # the next run shall not find it
            raise


def read_npz(content: bytes, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz whose members are stored, as views of `content`; compressed ones are read by numpy.

    Arrays that are not among `fields` may be left out.

    Six times as fast as numpy.load, whose time for a person would exceed that of decoding the image. Raises ValueError.
    """
    end = content.rfind(b"PK\5\6")
    if end < 0 or len(content) < end + 22:
        raise ValueError("not a zip archive, or cut short")
    count, _, position = struct.unpack_from("<HII", content, end + 10)
    arrays = {}
    for _ in range(count):
        fixed = struct.unpack_from("<4s6H3I5H2I", content, position)
        if fixed[0] != b"PK\1\2":
            raise ValueError("a damaged zip directory")
        method, size, name_length, offset = fixed[4], fixed[9], fixed[10], fixed[16]
        name = content[position + 46 : position + 46 + name_length].decode()
        position += 46 + name_length + fixed[11] + fixed[12]
        if fields is not None and name.removesuffix(".npy") not in fields:
            continue
        if method != 0 or 0xFFFFFFFF in (size, offset):
            return _numpy_npz(content)
        name_length, extra = struct.unpack_from("<HH", content, offset + 26)
        start = offset + 30 + name_length + extra
        header = struct.unpack_from("<H", content, start + 8)[0]
        if content[start : start + 8] != b"\x93NUMPY\x01\x00" or start + size > len(content):
            raise ValueError(f"{name} is not an array")
        dtype, shape = _npy_header(content[start + 10 : start + 10 + header])
        values = np.frombuffer(content, dtype, int(np.prod(shape)), start + 10 + header)
        arrays[name.removesuffix(".npy")] = values.reshape(shape)
    return arrays


@lru_cache(maxsize=256)
def _npy_header(text: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    facts = ast.literal_eval(text.decode("latin1"))
    if facts["fortran_order"] and len(facts["shape"]) > 1:
        raise ValueError("an array in Fortran order")
    dtype = np.dtype(facts["descr"])
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return dtype, tuple(facts["shape"])


def _numpy_npz(content: bytes) -> dict[str, np.ndarray]:
    import io
    import zipfile

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(str(error)) from error


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _long_name(content: bytes, kind: bytes) -> str | None:
    if kind == b"L":
        return content.rstrip(b"\0").decode("utf-8", "surrogateescape")
    while content:
        length = int(content.split(b" ", 1)[0])
        key, _, value = content[:length].split(b" ", 1)[1].partition(b"=")
        if key == b"path":
            return value.rstrip(b"\n").decode("utf-8", "surrogateescape")
        content = content[length:]
    return None
