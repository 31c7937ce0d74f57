"""What earlier runs have left in an output folder, against what is planned for it now.

A finished shard that the plan has is kept, under whatever number it has now: it is renamed, not made again. Those that
the plan does not have would go. If labels or images were edited, that is what the user wants; if options differ, or
label files are no longer given, it is refused unless asked for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.command.build_options import HARMLESS, option_name
from pipelines.command.option_files import read_options
from pipelines.files.shards import SHARD_ENDINGS
from pipelines.files.storage import output_problems
from pipelines.files.urls import UrlPath
from pipelines.plan.plan_file import PlannedShard
from pipelines.write.dataset import SHARD_FILE
from pipelines.write.run_record import OPTIONS_FILE
from pipelines.write.shards import sealed_statistics, write_statistics
from schemas import SHARD_STATS, InputError, record_name, record_version

log = logging.getLogger(__name__)

_READERS = 16
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Earlier:
    """A finished shard; `spec_hash` is empty if another version of this program made it."""

    name: str
    spec_hash: str
    settings: str
    label_files: frozenset[str]


@dataclass(frozen=True)
class Update:
    """What becomes of the shards of earlier runs."""

    kept: tuple[str, ...]
    moved: Mapping[str, str]
    """Number that a shard will have -> the one it has."""
    lost: tuple[Earlier, ...]
    made: tuple[str, ...]
    """Numbers of the shards that the plan has and the folder has not."""

    def counts(self) -> dict[str, int]:
        """For run.json."""
        return {"shards_renamed": len(self.moved), "shards_removed": len(self.lost)}

    def forecast(self) -> dict[str, int]:
        """What run.json will say, if what is kept is undamaged and was made of the images that are there now."""
        return {"shards_kept": len(self.kept) + len(self.moved), "shards_made": len(self.made)} | self.counts()


def earlier_shards(directory: Path | UrlPath) -> list[Earlier]:
    """The shards of a folder whose three files are there. Whether they are undamaged, who keeps them sees."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    stems = sorted(match.group(1) for match in map(SHARD_FILE.fullmatch, names) if match and match.group(2) == "json")
    whole = [stem for stem in stems if all(stem + ending in names for ending in SHARD_ENDINGS)]
    with ThreadPoolExecutor(_READERS) as pool:
        return [shard for shard in pool.map(lambda name: _earlier(directory, name), whole) if shard]


def _earlier(directory: Path | UrlPath, name: str) -> Earlier | None:
    try:
        stats = json.loads((directory / f"{name}.json").read_text())
        if stats["record"] != record_name(SHARD_STATS):
            return None
        if stats["version"] != record_version(SHARD_STATS):
            return Earlier(name, "", "", frozenset())
        stats = sealed_statistics(directory, name)
        if stats is None:
            return None
        files = frozenset(str(rows["label_file"]) for rows in stats["label_rows"])
        return Earlier(name, stats["spec_hash"], str(stats["settings_sha256"]), files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def update_of(earlier: Iterable[Earlier], planned: Iterable[PlannedShard]) -> Update:
    """Which shards of earlier runs the plan has under which number, and which it has not."""
    found = {shard.spec_hash: shard for shard in earlier if shard.spec_hash}
    by_name = {shard.name: shard for shard in earlier}
    kept, moved, made, used = [], {}, [], set()
    for shard in planned:
        if shard.name in by_name and by_name[shard.name].spec_hash == shard.hash:
            kept.append(shard.name)
            used.add(shard.name)
        elif shard.hash in found:
            moved[shard.name] = found[shard.hash].name
            used.add(found[shard.hash].name)
        else:
            made.append(shard.name)
    lost = tuple(shard for shard in earlier if shard.name not in used)
    return Update(tuple(kept), moved, lost, tuple(made))


def refuse_loss(
    directory: Path | UrlPath, update: Update, options: Mapping[str, Any], settings: str, label_files: Iterable[str]
) -> None:
    """Raise InputError if finished shards would go for another reason than that labels or images were edited.

    `options` and `settings` are this run's, `label_files` the names of those that it reads.
    """
    if not update.lost:
        return
    reasons = [*_other_options(directory, options)]
    if any(shard.spec_hash and shard.settings != settings for shard in update.lost) and not reasons:
        reasons.append("body models, joint limits or this program's version are others")
    if not all(shard.spec_hash for shard in update.lost):
        reasons.append("another version of this program made them")
    gone = sorted(set().union(*(shard.label_files for shard in update.lost)) - set(label_files))
    if gone and not reasons:
        more = f" and {len(gone) - 1} more" if gone[1:] else ""
        reasons.append(f"their label file {gone[0]}{more} is not given")
    if reasons:
        there = len(update.kept) + len(update.moved) + len(update.lost)
        problem = f"{len(update.lost)} of {there} finished shards would go: {', '.join(reasons)}"
        expected = "--overwrite to let them go, or another folder"
        raise InputError(problem, file=directory, field="--output", expected=expected)


def _other_options(directory: Path | UrlPath, options: Mapping[str, Any]) -> Iterable[str]:
    """In words, which options are not those of the run before."""
    try:
        before = read_options(directory / OPTIONS_FILE)
    except InputError:  # absent, or not as we wrote it
        return
    for name in options.keys() & before.keys() - HARMLESS:
        if options[name] != before[name]:
            now, then = (_shortened(value) for value in (options[name], before[name]))
            yield f"{option_name(name)} is {now}, was {then}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def tell_of_loss(directory: Path | UrlPath, update: Update) -> None:
    """That finished shards go is said in any case, also where no closing table is."""
    if update.lost:
        kept = len(update.kept) + len(update.moved)
        words = "%s: %d finished shards are replaced or go, %d are kept, %d are made"
        log.warning(words, directory, len(update.lost), kept, len(update.made))


def counts_in_words(run: Mapping[str, Any]) -> str:
    """What run.json, or a forecast of it, tells of the shards of a run and of earlier ones."""
    return ", ".join(f"{run[f'shards_{word}']:,} {word}" for word in ("kept", "made", "renamed", "removed"))


def rename_shards(directory: Path | UrlPath, moved: Mapping[str, str]) -> None:
    """Give shards the names that they will have. One that a kill hits in between is made again."""
    left, sources = dict(moved), set(moved.values())
    for new in [name for name in moved if name not in sources]:
        while new in left:  # and then the one that wants the name that has become free
            old = left.pop(new)
            _rename(directory, old, new)
            new = old


def _rename(directory: Path | UrlPath, old: str, new: str) -> None:
    stats = sealed_statistics(directory, old)
    if stats is None:
        return
    with output_problems(directory):
        for ending in SHARD_ENDINGS:
            (directory / f"{new}{ending}").unlink(missing_ok=True)
        for ending in (".parquet", ".tar"):
            (directory / f"{old}{ending}").replace(directory / f"{new}{ending}")
        write_statistics(directory, new, stats | {"shard": new})
        (directory / f"{old}.json").unlink(missing_ok=True)
