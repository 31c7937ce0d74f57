"""The how-manieth person of its image each row of a label file is.

The rows of one image may lie anywhere in the file. They are found by sorting hashes of the image names, 8 bytes per
row; names themselves are not kept. While sorting, a row takes some 20 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from pipelines.read.image_names import without_extension
from pipelines.read.labels import LabelFile


def person_numbers(labels: LabelFile, names: Iterable[np.ndarray] | None = None) -> np.ndarray:
    """(rows,) int32: for each row, how many earlier ones show the same image (the same path without extension).

    `names` are the file's `imgname` in pieces, where they have been read.

    Names are told apart by 64 bits. If two images ever shared them, their people would be numbered through; a person's
    key has the image's name besides.
    """
    hashes = np.empty(labels.rows, np.uint64)
    start = 0
    for piece in labels.iterate("imgname") if names is None else names:
        hashes[start : start + len(piece)] = np.frombuffer(b"".join(map(_hash, piece)), "<u8")
        start += len(piece)
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    hashes = hashes[order]
    repeated = hashes[1:] == hashes[:-1]
    del hashes
    position = np.arange(len(order), dtype=np.int32)
    first = position.copy()
    first[1:][repeated] = 0
    np.maximum.accumulate(first, out=first)
    position -= first
    first[order] = position
    return first


def _hash(name: str | None) -> bytes:
    path = without_extension(name or "").encode("utf-8", "surrogatepass")
    return hashlib.blake2b(path, digest_size=8).digest()
