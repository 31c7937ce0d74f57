"""Do shards account for the label files that they were made from?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.files.parquet import parquet_problems, read_table
from pipelines.files.shards import DATASET_FILE, Shard, read_document, rejects_of, whole_folder
from pipelines.files.urls import UrlPath
from pipelines.plan.planning import RowSelection, find_label_files
from pipelines.read.labels import LabelFile
from pipelines.write.ledger import Ledger
from schemas import InputError


@dataclass
class Account:
    """`problems`: (where, what is wrong). `notes`: what of the label files nobody asked to have converted."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Made:
    """What a folder's dataset.json says of label files."""

    options: dict
    inputs: dict

    def rows_of(self, file: LabelFile) -> range:
        selection = RowSelection.parse(str(self.options.get("rows") or ""), int(self.options.get("every") or 1))
        return selection.of(file.rows)

    def words(self) -> str:
        """The options that select rows."""
        given = {name: self.options.get(name) for name in ("rows", "every")}
        return " ".join(f"--{name} {value}" for name, value in given.items() if value and value != 1)


def account_of(shards: Sequence[Shard], patterns: Iterable[str]) -> Account:
    """Whether these shards and their rejects account for the rows of label files.

    `patterns` name the label files as `--annotations` does. Which of their rows were asked for (`--subset`, `--rows`,
    `--every`), and what the files' content was, is read from dataset.json; of several folders, parts of a data set,
    from each. Raises InputError if there is no such label file, or if the shards are not all of their folders, each
    with a dataset.json.
    """

    members: dict[Path | UrlPath, list[Shard]] = {}
    for shard in shards:
        members.setdefault(shard.folder, []).append(shard)
    made = {folder: _made(folder, of_folder) for folder, of_folder in members.items()}
    account, planned = Account(), {}
    for file in find_label_files(patterns, with_images=False):
        holders = {folder: facts for folder, facts in made.items() if file.name in facts.inputs}
        for folder, facts in holders.items():
            if file.sha256 != facts.inputs[file.name]:
                problem = "the label file has other content than when the data set was made"
                account.problems.append((file.path, problem + f": {folder}" * (len(made) > 1)))
        if not holders:
            named = sorted({name for facts in made.values() for name in facts.options.get("subset") or ()})
            why = f"--subset names {', '.join(named)}" if named else "it was not there when the data set was made"
            account.problems.append((file.path, f"no row of the label file was converted: {why}"))
            continue
        rows = [facts.rows_of(file) for facts in holders.values()]
        planned[file.name] = rows[0] if len(set(rows)) == 1 else sorted(set().union(*rows))
        if left := file.rows - len(planned[file.name]):
            options = "; ".join(dict.fromkeys(facts.words() for facts in holders.values()))
            account.notes.append(f"{file.path}: {left:,} of {file.rows:,} rows were not asked for ({options})")
    ledger = Ledger(planned)
    for path in [*(shard.parquet for shard in shards), *(rejects_of(folder) for folder in members)]:
        try:
            with parquet_problems(path):
                ledger.add(read_table(path, ["label_file", "label_row"]))
        except InputError as error:
            account.problems.append((str(path), error.problem))
    account.problems += [(", ".join(map(str, members)), problem) for problem in ledger.problems()]
    return account


def _made(folder: Path | UrlPath, shards: Sequence[Shard]) -> _Made:
    from schemas import DATASET

    if whole_folder(shards) is None:
        raise InputError("shards of a part of a folder", field="--against", expected="all shards of one data set")
    manifest = read_document(folder / DATASET_FILE, DATASET)
    options, inputs = manifest.get("options"), manifest.get("inputs")
    if not isinstance(options, dict) or not isinstance(inputs, dict):
        raise InputError("options or inputs are missing", file=folder / DATASET_FILE, expected="a data set's manifest")
    return _Made(options, inputs)
