"""Do shards account for the label files that they were made from?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipelines.files.shards import DATASET_FILE, Shard, parquet_problems, read_document, rejects_of, whole_folder
from pipelines.files.storage import readable
from pipelines.plan.planning import RowSelection, find_label_files
from pipelines.write.ledger import Ledger
from schemas import InputError


def account_problems(shards: Sequence[Shard], patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Whether these shards and their rejects account for the rows of label files: (where, what is wrong).

    `patterns` name the label files as `--annotations` does. Which of their rows were asked for (`--subset`, `--rows`,
    `--every`), and what the files' content was, is read from dataset.json. Raises InputError if there is no such label
    file, or if the shards are not one whole folder with a dataset.json.
    """
    import pyarrow.parquet as pq

    from schemas import DATASET

    folder = whole_folder(shards)
    if folder is None:
        raise InputError("shards of a part of a folder", field="--against", expected="all shards of one data set")
    manifest = read_document(folder / DATASET_FILE, DATASET)
    options, inputs = manifest.get("options"), manifest.get("inputs")
    if not isinstance(options, dict) or not isinstance(inputs, dict):
        raise InputError("options or inputs are missing", file=folder / DATASET_FILE, expected="a data set's manifest")
    labels = find_label_files(patterns, with_images=False, datasets=options.get("subset") or ())
    selection = RowSelection.parse(str(options.get("rows") or ""), int(options.get("every") or 1))
    for file in labels:
        if file.sha256 != inputs.get(file.name):
            told = "has other content than when" if file.name in inputs else "was not there when"
            yield file.path, f"the label file {told} the data set was made"
    ledger = Ledger({file.name: selection.of(file.rows) for file in labels})
    for path in [*(shard.parquet for shard in shards), rejects_of(folder)]:
        try:
            with parquet_problems(path):
                ledger.add(pq.read_table(readable(path), columns=["label_file", "label_row"]))
        except InputError as error:
            yield str(path), error.problem
    for problem in ledger.problems():
        yield str(folder), problem
