"""What stretches of a label file's rows hold, as checksums: they tell which shards an edited file changes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.files.npz import Member, iterate_rows
from pipelines.read.labels import LabelFile

_PIECE = 65536


def content_digests(labels: LabelFile, stretches: Sequence[range]) -> list[str]:
    """sha256 of all fields but `imgname` over each stretch, from its first row to its last, rows between included.

    Stretches are in order and do not overlap. Numbers count as they are stored, text as it is read: a longer name
    elsewhere widens a whole array of text. It is done in the pass over the file that finds `labels.sha256`, and raises
    what that does.
    """
    rows = [(stretch[0], stretch[-1] + 1) for stretch in stretches]
    found, watch = {}, {}
    for name, member in _numbers(labels).items():
        found[name] = digests = _of_member(labels, member, rows)
        if not _is_turned(member):
            watch[name] = digests.add
    labels.watch(watch)
    for name, member in _numbers(labels).items():
        if _is_turned(member):
            for values in iterate_rows(labels.path, member, _PIECE):
                found[name].add(memoryview(values.tobytes()))
    if "gender" in labels.fields:
        found["gender"] = _Digests("text", rows, lambda words: "".join(f"{word}\n" for word in words).encode())
        for genders in labels.iterate("gender", _PIECE):
            found["gender"].add(genders)
    told = [json.dumps([digests.of(number) for digests in found.values()]) for number in range(len(stretches))]
    return [hashlib.sha256(text.encode()).hexdigest() for text in told]


def _numbers(labels: LabelFile) -> dict[str, Member]:
    """Members that are no text, by name: one may serve two fields."""
    members = (member for name in labels.fields for member in labels.members[name])
    return {member.name: member for member in members if member.dtype.kind not in "US"}


def _is_turned(member: Member) -> bool:
    """Whether an array's bytes are not one row after another."""
    return member.fortran_order and len(member.shape) > 1


def _of_member(labels: LabelFile, member: Member, rows: Sequence[tuple[int, int]]) -> _Digests:
    size, shared = member.dtype.itemsize * math.prod(member.shape), not labels.has_rows(member)
    kind = json.dumps([member.name, member.dtype.str, list(member.shape[not shared :])])
    per_row = 0 if shared else size // labels.rows
    return _Digests(kind, [(0, size)] if shared else [(start * per_row, stop * per_row) for start, stop in rows])


class _Digests:
    """sha256 of places [start, stop) in what comes in pieces; one place stands for all stretches if they share it."""

    def __init__(
        self, kind: str, places: Sequence[tuple[int, int]], encode: Callable[[Any], Any] = lambda piece: piece
    ) -> None:
        self._kind, self._places, self._encode = kind, places, encode
        self._open, self._position = hashlib.sha256(), 0
        self._done: list[bytes] = []

    def add(self, piece: Any) -> None:
        end = self._position + len(piece)
        while len(self._done) < len(self._places) and self._places[len(self._done)][0] < end:
            start, stop = (max(place - self._position, 0) for place in self._places[len(self._done)])
            self._open.update(self._encode(piece[start:stop]))
            if self._position + stop > end:
                break
            self._done.append(self._open.digest())
            self._open = hashlib.sha256()
        self._position = end

    def of(self, stretch: int) -> list[str]:
        number = stretch if len(self._places) > 1 else 0
        return [self._kind, self._done[number].hex() if number < len(self._done) else ""]
