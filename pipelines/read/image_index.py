"""Names of images and where they lie, in a temporary SQLite file: memory does not grow with their number."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemas import InputError

_CACHE_KIB = 16_384
_SETTINGS = (
    "locking_mode = exclusive",
    "journal_mode = off",
    "synchronous = off",
    "temp_store = file",
    f"cache_size = -{_CACHE_KIB}",
)
_COLUMNS = "key BLOB, file INTEGER, offset INTEGER, size INTEGER, ext TEXT"
_NAMES = "key, file, offset, size, ext"
_AT_A_TIME = 500


class Entry(NamedTuple):
    """An image's bytes [offset, offset + size) in file number `file`; its name is `key` + `extension`."""

    key: str
    file: int
    offset: int
    size: int
    extension: str


class ImageIndex:
    """Entries by key, in the order in which they were added."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hmr-skel-index-")
        with self._problems():
            self._db = sqlite3.connect(Path(self._folder.name) / "images.sqlite", isolation_level=None)
            for setting in _SETTINGS:
                self._db.execute(f"PRAGMA {setting}")
            self._db.create_function("base_name", 1, _base_name, deterministic=True)
            self._db.execute(f"CREATE TABLE added ({_COLUMNS})")
            self._db.execute(
                f"CREATE TABLE images ({_COLUMNS}, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID"
            )

    def __len__(self) -> int:
        """How many different keys there are."""
        with self._problems():
            return self._db.execute("SELECT count(DISTINCT key) FROM images").fetchone()[0]

    def add(self, entries: Iterable[Entry]) -> int:
        """Returns how many there were. They are found after `arrange`."""
        with self._problems():
            rows = ((_bytes(entry[0]), *entry[1:]) for entry in entries)
            self._db.execute("BEGIN")
            try:
                return self._db.executemany("INSERT INTO added VALUES (?, ?, ?, ?, ?)", rows).rowcount
            finally:
                self._db.execute("COMMIT")

    def arrange(self) -> None:
        """Put what was added in order, all at once: that is what makes it fast."""
        with self._problems():
            (before,) = self._db.execute("SELECT coalesce(max(number), 0) FROM images").fetchone()
            order = "SELECT *, rowid + ? FROM added ORDER BY key, rowid"
            self._db.execute(f"INSERT INTO images {order}", (before,))
            self._db.execute("DELETE FROM added")

    def get(self, keys: Iterable[str]) -> dict[str, list[Entry]]:
        """The entries of those keys that there are."""
        wanted = list(dict.fromkeys(_bytes(key) for key in keys))
        found: dict[str, list[Entry]] = {}
        with self._problems():
            for first in range(0, len(wanted), _AT_A_TIME):
                part = wanted[first : first + _AT_A_TIME]
                question = f"SELECT {_NAMES} FROM images WHERE key IN ({','.join('?' * len(part))})"
                for row in self._db.execute(question, part):
                    entry = _entry(row)
                    found.setdefault(entry.key, []).append(entry)
        return found

    def with_base_name(self, base: str) -> Iterator[Entry]:
        """Entries whose key ends with `/base` or is it."""
        with self._problems():
            self._db.execute("CREATE INDEX IF NOT EXISTS by_base ON images (base_name(key))")
            yield from map(
                _entry, self._db.execute(f"SELECT {_NAMES} FROM images WHERE base_name(key) = ?", (_bytes(base),))
            )

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            problem = f"the index of the images cannot be kept here: {error}"
            raise InputError(problem, file=self._folder.name, expected="room for it; TMPDIR names another") from error


def _bytes(key: str) -> bytes:
    """Names in tars need not be UTF-8."""
    return key.encode("utf-8", "surrogatepass")


def _entry(row: tuple) -> Entry:
    return Entry(row[0].decode("utf-8", "surrogatepass"), *row[1:])


def _base_name(key: bytes) -> bytes:
    return key.rpartition(b"/")[2]
