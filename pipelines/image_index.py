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
_GET = "SELECT file, offset, size, ext FROM images WHERE key = ? ORDER BY rowid LIMIT 1"


class Entry(NamedTuple):
    """An image's bytes [offset, offset + size) in file number `file`; its name is `key` + `extension`."""

    key: str
    file: int
    offset: int
    size: int
    extension: str


class ImageIndex:
    """Entries by key. Of several with one key the first that was added counts."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hmr-skel-index-")
        with self._problems():
            self._db = sqlite3.connect(Path(self._folder.name) / "images.sqlite", isolation_level=None)
            for setting in _SETTINGS:
                self._db.execute(f"PRAGMA {setting}")
            self._db.create_function("base_name", 1, _base_name, deterministic=True)
            self._db.execute("CREATE TABLE images (key BLOB, file INTEGER, offset INTEGER, size INTEGER, ext TEXT)")

    def __len__(self) -> int:
        """How many different keys there are."""
        with self._problems():
            return self._db.execute("SELECT count(DISTINCT key) FROM images").fetchone()[0]

    def add(self, entries: Iterable[Entry]) -> int:
        """Returns how many there were."""
        with self._problems():
            rows = ((_bytes(key), *rest) for key, *rest in entries)
            self._db.execute("BEGIN")
            try:
                return self._db.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?)", rows).rowcount
            finally:
                self._db.execute("COMMIT")

    def arrange(self) -> None:
        """To be called once, before anything is looked for; sorting all entries at once is what makes it fast."""
        with self._problems():
            self._db.execute("CREATE INDEX by_key ON images (key)")

    def get(self, key: str) -> Entry | None:
        row = self._db.execute(_GET, (_bytes(key),)).fetchone()
        return Entry(key, *row) if row else None

    def with_base_name(self, base: str) -> Iterator[Entry]:
        """Entries whose key ends with `/base` or is it, one for each key."""
        with self._problems():
            self._db.execute("CREATE INDEX IF NOT EXISTS by_base ON images (base_name(key))")
            found = self._db.execute(
                # beside min() SQLite gives the other columns of that very row
                "SELECT key, file, offset, size, ext, min(rowid) FROM images WHERE base_name(key) = ? GROUP BY key",
                (_bytes(base),),
            )
            for key, *rest, _ in found:
                yield Entry(key.decode("utf-8", "surrogatepass"), *rest)

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


def _base_name(key: bytes) -> bytes:
    return key.rpartition(b"/")[2]
