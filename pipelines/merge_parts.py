"""The command `hmr-skel merge`: one data set of parts that several runs have made, on as many machines.

Parts of one plan (`--shard-range`) keep the names of their shards, and what comes out is what one run would have
written, to the byte. Data sets of other label files, made with the same settings, are numbered through in the order of
the label files. Nothing is fitted, and the parts stay as they are: on one file system files are linked, else copied.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pipelines.command.build_options import HARMLESS, option_name
from pipelines.command.devices import cores
from pipelines.command.options import Positional, arg, parse_options
from pipelines.files.lock import output_lock
from pipelines.files.shards import DATASET_FILE, Shard, read_document
from pipelines.files.storage import file_sha256, output_problems, place, published
from pipelines.files.urls import UrlPath
from pipelines.look.report import REPORT_FILE, write_report
from pipelines.plan.parts import joined_rows, label_rows
from pipelines.write.dataset import remove_leftovers, withdraw_dataset, write_dataset
from pipelines.write.earlier import earlier_shards
from pipelines.write.progress import nothing_written
from pipelines.write.run_record import check_writable, run_facts, save_options, write_run
from pipelines.write.shards import sealed_statistics, write_statistics
from schemas import DATASET, SHARD_STATS, InputError, check_document

log = logging.getLogger(__name__)

_PIECE = 1 << 22
_WHERE = ("annotations", "images", "body_models")
"""Options that name places, which may differ between machines: the content counts."""


@dataclass
class MergeOptions:
    """Parts of a data set, and where it goes."""

    parts: Annotated[list[str], Positional, arg(metavar="PART...")] = field(default_factory=list)
    """Folders of finished parts (`hmr-skel build --shard-range`), or of data sets of other label files."""
    output: Annotated[str, arg(metavar="DIR", aliases=("-o",))] = ""
    """Folder for the data set; the one that the parts lie in will do."""
    overwrite: bool = False
    """Let shards in the output folder go that are not of these parts."""
    quiet: bool = False
    """Say nothing of what was merged."""


@dataclass(frozen=True)
class DatasetPart:
    """A folder with a dataset.json, and the statistics of its shards."""

    folder: Path | UrlPath
    manifest: dict[str, Any]
    statistics: dict[str, dict[str, Any]]

    @property
    def range(self) -> dict[str, Any] | None:
        return self.manifest.get("part")


@dataclass(frozen=True)
class ShardSource:
    """Where a shard of the data set comes from."""

    part: DatasetPart
    name: str

    @property
    def statistics(self) -> dict[str, Any]:
        return self.part.statistics[self.name]


def main(argv: list[str], prog: str = "hmr-skel merge") -> int:
    """Join parts of a data set that several runs have made."""
    options = parse_options(MergeOptions, argv, prog, "Join parts of a data set that several runs have made.")
    if not options.parts:
        raise InputError("no parts given", expected="folders of finished parts")
    if not options.output:
        raise InputError("missing", field="--output", expected="a folder for the data set")
    parts = [read_part(place(folder)) for folder in dict.fromkeys(options.parts)]
    check_alike(parts)
    sources = sources_of(parts)
    directory = place(options.output)
    check_writable(directory)
    with output_lock(directory):
        merge_shards(parts, sources, directory, options.overwrite)
    nothing = nothing_written(directory)
    if nothing:
        sys.stderr.write(f"{prog}: error: {options.output}: {nothing}\n")
        return 1
    if not options.quiet:
        people = sum(source.statistics["samples"] for source in sources.values())
        sys.stdout.write(f"{options.output}: {len(sources):,} shards of {len(parts)} parts, {people:,} people\n")
    return 0


def read_part(folder: Path | UrlPath) -> DatasetPart:
    """A finished part, its files held to their checksums. Raises InputError for one that is not finished or damaged."""
    if not (folder / DATASET_FILE).is_file():
        raise InputError(f"no {DATASET_FILE} is here", file=folder, expected="a part whose run has ended")
    manifest = read_document(folder / DATASET_FILE, DATASET)
    try:
        names = [str(entry["shard"]) for entry in manifest["shards"]]
        part = manifest.get("part")
        usable = all(isinstance(manifest[name], dict) for name in ("options", "inputs", "versions", "joint_limits"))
        usable &= part is None or all(type(part[name]) is int for name in ("first", "stop", "shards"))
    except (KeyError, TypeError):
        usable = False
    if not usable:
        raise InputError("not a manifest of this program's version", file=folder / DATASET_FILE)
    with ThreadPoolExecutor(min(8, cores())) as pool:
        return DatasetPart(
            folder, manifest, dict(zip(names, pool.map(lambda name: _whole(folder, name), names), strict=True))
        )


def _whole(folder: Path | UrlPath, name: str) -> dict[str, Any]:
    stats, expected = sealed_statistics(folder, name), "a whole shard; the part's own command makes it again"
    if stats is None:
        raise InputError("missing, damaged or of another version", file=folder / f"{name}.json", expected=expected)
    check_document(SHARD_STATS, stats, folder / f"{name}.json")
    list(label_rows([stats]))
    for ending in ("tar", "parquet"):
        file = folder / f"{name}.{ending}"
        try:
            sha256 = file_sha256(file)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=file, expected=expected) from error
        if sha256 != stats[f"{ending}_sha256"]:
            raise InputError(f"another checksum than {name}.json states", file=file, expected=expected)
    return stats


def check_alike(parts: Sequence[DatasetPart]) -> None:
    """Raise InputError for parts that were not made with the same settings, or are not of one plan."""
    first = parts[0]
    for other in parts[1:]:
        if (first.range is None) != (other.range is None):
            whole, part = (first, other) if first.range is None else (other, first)
            problem = f"a whole data set, and {part.folder} is a part of one"
            raise InputError(problem, file=whole.folder, expected="parts of one plan, or whole data sets")
        settings = [{stats["settings_sha256"] for stats in part.statistics.values()} for part in (first, other)]
        plans = [(part.range or {}).get(name) for part in (first, other) for name in ("plan_sha256",)]
        if len(settings[0] | settings[1]) > 1 or plans[0] != plans[1]:
            expected = "parts of one plan" if first.range else "data sets of the same settings"
            problem = f"made otherwise than {first.folder}: {'; '.join(_differences(first, other))}"
            raise InputError(problem, file=other.folder, expected=expected)


def _differences(first: DatasetPart, other: DatasetPart) -> Iterable[str]:
    """In words, what of two parts differs."""
    told = False
    skipped = HARMLESS | {*_WHERE} | (set() if first.range else {"subset", "rows", "every", "samples_per_shard"})
    for name, value in other.manifest["options"].items():
        before = first.manifest["options"].get(name)
        if name not in skipped and value != before:
            told = True
            yield f"{option_name(name)} is {value!r}, not {before!r}"
    for name in sorted(first.manifest["inputs"].keys() | other.manifest["inputs"].keys()):
        values = [part.manifest["inputs"].get(name) for part in (first, other)]
        if values[0] != values[1] and (first.range or name == "body_models"):
            told = True
            yield f"{name.replace('_', ' ')} {'differs' if all(values) else 'is given to one of them only'}"
    if not told:
        yield "images, joint limits or this program's version differ"


def sources_of(parts: Sequence[DatasetPart]) -> dict[str, ShardSource]:
    """Name of each shard of the data set -> where it is. Raises InputError for rows that are there twice or missing."""
    found: dict[str, ShardSource] = {}
    if parts[0].range is None:
        shards = [ShardSource(part, name) for part in parts for name in part.statistics]
        owner: dict[str, DatasetPart] = {}
        for source in shards:
            for label_file, _ in label_rows([source.statistics]):
                if owner.setdefault(label_file, source.part) is not source.part:
                    where = f"{owner[label_file].folder} and {source.part.folder}"
                    raise InputError(f"rows of {label_file} are in {where}", expected="each label file in one of them")
        shards.sort(key=lambda source: _first_row(source.statistics))
        return {f"{number:06d}": source for number, source in enumerate(shards)}
    for part in parts:
        for name in part.statistics:
            if name in found:
                where = f"{found[name].part.folder} and {part.folder}"
                raise InputError(f"shard {name} is in {where}", expected="each shard in one part")
            found[name] = ShardSource(part, name)
    count = parts[0].range["shards"]
    missing = [number for number in range(count) if f"{number:06d}" not in found]
    if missing:
        stop = next((n for n in range(missing[0], count) if f"{n:06d}" in found), count)
        problem = f"{len(missing)} of {count} shards are in no part, the first of them {missing[0]:06d}"
        raise InputError(problem, expected=f"also the part of --shard-range {missing[0]}:{stop}")
    return dict(sorted(found.items()))


def _first_row(statistics: Mapping[str, Any]) -> tuple[str, int]:
    name, rows = next(iter(label_rows([statistics])))
    return name, rows.start


def merge_shards(
    parts: Sequence[DatasetPart], sources: Mapping[str, ShardSource], directory: Path | UrlPath, overwrite: bool
) -> None:
    """Bring the shards into the folder, and write what a run writes when its shards are there."""
    facts = run_facts(merged=[str(part.folder) for part in parts])
    with output_problems(directory):
        remove_leftovers(directory)
        there = {shard.name: shard.spec_hash for shard in earlier_shards(directory)}
        wanted = {name: source.statistics["spec_hash"] for name, source in sources.items()}
        lost = [name for name, spec_hash in there.items() if wanted.get(name) != spec_hash]
        if lost and not overwrite:
            problem = f"{len(lost)} finished shards would go that are not of these parts, such as {min(lost)}"
            expected = "--overwrite to let them go, or another folder"
            raise InputError(problem, file=directory, field="--output", expected=expected)
        withdraw_dataset(directory)
        for name in lost:
            for ending in (".json", ".tar", ".parquet"):
                (directory / f"{name}{ending}").unlink(missing_ok=True)
        for name, source in sources.items():
            _bring(source, directory, name)
        options = _options(parts)
        save_options(directory, options)
    statistics = [source.statistics | {"shard": name} for name, source in sources.items()]

    def before_the_last(manifest: dict[str, Any]) -> None:
        write_run(directory, facts | {"device": options["device"]}, statistics)
        write_report([Shard(directory / name) for name in sources], directory / REPORT_FILE, manifest=manifest)

    first = parts[0].manifest
    write_dataset(
        directory,
        sources,
        options,
        {name: _together(part.manifest["versions"].get(name) for part in parts) for name in first["versions"]},
        {name: sha256 for part in parts for name, sha256 in part.manifest["inputs"].items()},
        first["joint_limits"],
        joined_rows(label_rows(statistics)),
        first.get("body_models"),
        before_the_last,
    )


def _options(parts: Sequence[DatasetPart]) -> dict[str, Any]:
    """The options of a run that would have made all of it."""
    ordered = sorted(parts, key=lambda part: (part.range or {}).get("first", 0))
    found = dict(ordered[0].manifest["options"])
    found["device"] = _together(part.manifest["options"].get("device") for part in parts)
    if parts[0].range is None:
        for name in ("annotations", "subset"):
            lists = [part.manifest["options"].get(name) or [] for part in parts]
            found[name] = list(dict.fromkeys(item for items in lists for item in items)) if all(lists) else []
    return found


def _together(values: Iterable[str | None]) -> str:
    """One word for what parts say; all that they say if that differs."""
    return ",".join(sorted({word for value in values if value for word in value.split(",")}))


def _bring(source: ShardSource, directory: Path | UrlPath, name: str) -> None:
    """Link or copy a shard's files, the tar last; one that is there already stays."""
    stats = sealed_statistics(directory, name)
    for ending in ("parquet", "json", "tar"):
        target, origin = directory / f"{name}.{ending}", source.part.folder / f"{source.name}.{ending}"
        if ending == "json" and name != source.name:
            write_statistics(directory, name, source.statistics | {"shard": name})
        elif ending == "json" or not _is_there(target, stats, source.statistics[f"{ending}_sha256"]):
            _link_or_copy(origin, target)


def _is_there(target: Path | UrlPath, stats: Mapping[str, Any] | None, sha256: str) -> bool:
    return stats is not None and target.is_file() and file_sha256(target) == sha256


def _link_or_copy(origin: Path | UrlPath, target: Path | UrlPath) -> None:
    if isinstance(origin, Path) and isinstance(target, Path):
        hidden = target.with_name(f".{target.name}.tmp-{os.getpid()}")
        try:
            os.link(origin, hidden)
            os.replace(hidden, target)
            return
        except OSError:  # another file system, or one without links
            log.debug("%s is copied: it cannot be linked", origin)
        finally:
            hidden.unlink(missing_ok=True)  # it stays if the target is this very file already
    with published(target) as copy, origin.open("rb") as source, copy.open("wb") as file:
        shutil.copyfileobj(source, file, _PIECE)
