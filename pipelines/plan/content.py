"""What stretches of a label file's rows hold, as checksums: they tell which shards an edited file changes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from pipelines.files.npz import Member, iterate_rows
from pipelines.read.labels import LabelFile

_PIECE = 65536


def content_digests(labels: LabelFile, stretches: Sequence[range]) -> list[str]:
    """sha256 of all fields but `imgname` over each stretch, from its first row to its last, rows between included.

    Stretches are in order and do not overlap. Numbers count as they are stored, text as it is read: a longer name
    elsewhere widens a whole array of text. It is done in the pass over the file that finds `labels.sha256`, and raises
    what that does.
    """
    found, watch = {}, {}
    for name, member in _numbers(labels).items():
        found[name] = digests = _Digests(labels, member, stretches)
        if not _is_turned(member):
            watch[name] = digests.add
    labels.watch(watch)
    for name, member in _numbers(labels).items():
        if _is_turned(member):
            for rows in iterate_rows(labels.path, member, _PIECE):
                found[name].add(memoryview(rows.tobytes()))
    texts = [hashlib.sha256() for _ in stretches]
    if "gender" in labels.fields:
        start = 0
        for genders in labels.iterate("gender", _PIECE):
            for text, rows in zip(texts, stretches, strict=True):
                mine = genders[max(rows[0] - start, 0) : max(rows[-1] + 1 - start, 0)]
                text.update("".join(f"{gender}\n" for gender in mine).encode())
            start += len(genders)
    return [
        hashlib.sha256(json.dumps([text.hexdigest(), *(found[name].of(i) for name in found)]).encode()).hexdigest()
        for i, text in enumerate(texts)
    ]


def _numbers(labels: LabelFile) -> dict[str, Member]:
    """Members that are no text, by name: one may serve two fields."""
    members = (member for name in labels.fields for member in labels.members[name])
    return {member.name: member for member in members if member.dtype.kind not in "US"}


def _is_turned(member: Member) -> bool:
    """Whether an array's bytes are not one row after another."""
    return member.fortran_order and len(member.shape) > 1


class _Digests:
    """sha256 of each stretch of one member, from its bytes as they come."""

    def __init__(self, labels: LabelFile, member: Member, stretches: Sequence[range]) -> None:
        size, rows = member.dtype.itemsize * math.prod(member.shape), labels.rows
        self.shared = not labels.has_rows(member)
        per_row = size if self.shared else size // rows
        self._kind = [member.name, member.dtype.str, list(member.shape[not self.shared :])]
        self._places = [(0, size)] if self.shared else [(r[0] * per_row, (r[-1] + 1) * per_row) for r in stretches]
        self._digests = [hashlib.sha256() for _ in self._places]
        self._number = self._position = 0

    def add(self, piece: memoryview) -> None:
        end = self._position + len(piece)
        while self._number < len(self._places) and self._places[self._number][0] < end:
            start, stop = self._places[self._number]
            self._digests[self._number].update(piece[max(start - self._position, 0) : max(stop - self._position, 0)])
            if stop > end:
                break
            self._number += 1
        self._position = end

    def of(self, stretch: int) -> list:
        return [*self._kind, self._digests[0 if self.shared else stretch].hexdigest()]
