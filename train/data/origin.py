"""What lies behind the URL of a shard's file: its bytes, its checksum by the JSON file beside it, its version."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipelines.files.storage import file_sha256
from pipelines.files.urls import UrlPath
from schemas import SHARD_STATS, InputError, document_problems

ENDINGS = (".tar", ".parquet", ".json")
PIPE = "pipe:"
"""Begins a shell command whose output is the file."""
LARGEST_DOCUMENT = 1 << 28


@dataclass(frozen=True)
class Told:
    """What is said of a shard where it lies; asked once, at the beginning of a run."""

    sums: dict[str, str] = field(default_factory=dict)
    """Ending -> sha256 of the file, by the shard's JSON file; empty where there is none."""
    document: bytes = b""
    """The JSON file."""
    reached: bool = True
    """False if nobody answered."""


def split(url: str) -> tuple[str, str, str]:
    """What stands before and after the ending of a shard's file, and the ending, also inside a `pipe:` command.

    Raises InputError if there is none, and for characters that would end a shell's quotes.
    """
    ending = max(ENDINGS, key=url.rfind)
    head, dot, tail = url.rpartition(ending)
    if not dot:
        raise InputError("not a shard", file=url, expected="the URL of a .tar")
    if not url.startswith(PIPE) and re.search(r"['\"\s\x00-\x1f]", url):
        raise InputError("quotes or spaces in a URL", file=url, expected="%27, %22 and %20 in their place")
    return head, ending, tail


def beside(url: str, ending: str) -> str:
    """The URL of the file that lies beside another of a shard and has another ending."""
    head, _, tail = split(url)
    return f"{head}.{ending}{tail}"


def ask(url: str) -> Told:
    """What is told of the shard to which a file belongs."""
    where = beside(url, "json")
    try:
        if where.startswith(PIPE):
            with contextlib.closing(_output(where)) as stream:
                data = stream.read(LARGEST_DOCUMENT)
        else:
            data = UrlPath(where).read_bytes()
    except FileNotFoundError:
        return Told()
    except Exception:  # each protocol's reader has its own
        return Told(reached=where.startswith(PIPE))
    return Told(sums_of(data), data)


def sums_of(document: bytes) -> dict[str, str]:
    """Ending -> sha256, of the text of a shard's JSON file; nothing of another text."""
    try:
        facts = json.loads(document)
    except (ValueError, RecursionError):
        return {}
    names = {".tar": "tar_sha256", ".parquet": "parquet_sha256"}
    if not isinstance(facts, dict) or any(document_problems(SHARD_STATS, facts, whole=False)):
        return {}
    return {ending: facts[name] for ending, name in names.items() if name in facts}


def version_of(url: str) -> str | None:
    """What tells one content of a URL from another: size and ETag, or when it was changed. None if nobody says."""
    if url.startswith(PIPE):
        return None
    with contextlib.suppress(OSError, InputError):
        return UrlPath(url).version() or None
    return None


def copy(url: str, target: Path) -> str:
    """Writes the bytes of a URL into a local file; gives their sha256. Raises whatever its reader does."""
    if url.startswith(PIPE):
        with _output(url) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file)
    else:
        UrlPath(url).get(target)
    if not target.stat().st_size:
        raise OSError("nothing came")
    return file_sha256(target)


def problem(error: Exception) -> str:
    """In words. webdataset tells of a command that failed by the arguments of its making."""
    match = re.match(r"\(\(\[?'(.*?)'.*exit (\d+) \(read\)", str(error))
    if match:
        return f"{match[1].partition(' ')[0]} ended with exit status {match[2]}"
    return str(getattr(error, "strerror", None) or error)


def _output(command: str) -> BinaryIO:
    """What a command writes."""
    from webdataset.gopen import gopen

    return gopen(command)
