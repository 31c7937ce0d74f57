"""The how-manieth person of its image each row of a label file is, counted in bounded memory.

The rows of one image may lie anywhere in the file. They are brought together by sorting hashes of the image names into
temporary files small enough to be sorted in memory, and put back into the file's order in the same way.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.read.images import without_extension
from pipelines.read.labels import LabelFile

_BUCKET = 1 << 18
_HASHED = np.dtype([("hash", "<u8"), ("row", "<i8")])
_NUMBERED = np.dtype([("row", "<i8"), ("person", "<i4")])


class PersonNumbers:
    """For each row, how many earlier ones show the same image (the same path without extension); kept in a file.

    Names are told apart by 64 bits. If two images ever shared them, their people would be numbered through; a person's
    key has the image's name besides.
    """

    def __init__(self, labels: LabelFile) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hmr-skel-persons-")
        self._path = Path(self._folder.name) / "numbers"
        count = labels.rows // _BUCKET + 1
        images = _Buckets(self._folder.name, "image", count, _HASHED)
        start = 0
        for names in labels.iterate("imgname"):
            found = np.empty(len(names), _HASHED)
            found["hash"] = np.frombuffer(b"".join(map(_hash, names)), "<u8")
            found["row"] = np.arange(start, start + len(names))
            images.add(found["hash"] % np.uint64(count), found)
            start += len(names)
        rows = _Buckets(self._folder.name, "rows", count, _NUMBERED)
        for found in images:
            numbered = np.empty(len(found), _NUMBERED)
            numbered["row"], numbered["person"] = found["row"], _earlier_equals(found["hash"])
            rows.add(numbered["row"] // _BUCKET, numbered)
        with self._path.open("wb") as file:
            for found in rows:
                persons = np.empty(len(found), "<i4")
                persons[found["row"] % _BUCKET] = found["person"]
                file.write(persons.tobytes())

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int32"""
        return np.fromfile(self._path, "<i4", stop - start, offset=4 * start)


class _Buckets:
    """Records spread over files; iterating gives each file's records, in the order in which they were added."""

    def __init__(self, folder: str, name: str, count: int, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._paths = [Path(folder) / f"{name}-{i}" for i in range(count)]
        self._files = [path.open("wb") for path in self._paths]

    def add(self, bucket: np.ndarray, records: np.ndarray) -> None:
        order = np.argsort(bucket, kind="stable")
        numbers, counts = np.unique(bucket, return_counts=True)
        for number, last, count in zip(numbers, np.cumsum(counts), counts, strict=True):
            self._files[number].write(records[order[last - count : last]].tobytes())

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self._files:
            file.close()
        for path in self._paths:
            yield np.fromfile(path, self._dtype)
            path.unlink()


def _earlier_equals(values: np.ndarray) -> np.ndarray:
    """For each value, how many before it are equal to it."""
    order = np.argsort(values, kind="stable")
    ordered, position = values[order], np.arange(len(values))
    first = np.r_[True, ordered[1:] != ordered[:-1]][: len(values)]
    found = np.empty(len(values), np.int32)
    found[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return found


def _hash(name: str | None) -> bytes:
    path = without_extension(name or "").encode("utf-8", "surrogatepass")
    return hashlib.blake2b(path, digest_size=8).digest()
