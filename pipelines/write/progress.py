"""What a person sees of a run: a bar while it works, a table at its end.

Workers may be other processes, so each shard's progress is a small file in a folder that the driver polls. Behind a
URL, where each look costs a request, a shard tells that it is done and no more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.command.progress import progress_bar
from pipelines.files.body_models import body_models_in_words
from pipelines.files.shards import DATASET_FILE
from pipelines.files.storage import remove_folder
from pipelines.files.urls import UrlPath
from pipelines.write.earlier import counts_in_words
from pipelines.write.run_record import RUN_FILE

log = logging.getLogger(__name__)

FOLDER = ".progress"
_FAILURE = "failed.txt"
_BEGUN = "begun.txt"
_WRITE_EVERY = 0.2
_POLL_EVERY = 0.25
_POLL_URL_EVERY = 5.0


def report_failure(directory: Path | UrlPath, problem: str) -> None:
    """Tell the driver, and the other workers, why the run cannot be finished; the first word stands.

    On a disk too full for words an empty file can still be made: its name has the number of the error.
    """
    path = directory / FOLDER / _FAILURE
    with contextlib.suppress(OSError):
        if path.exists():
            return
    try:
        path.write_text(problem)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_suffix(f".{error.errno or 0}").write_text("")


def failed_run(directory: Path | UrlPath) -> str:
    """What `report_failure` was told in this run; empty if nothing failed."""
    path = directory / FOLDER / _FAILURE
    with contextlib.suppress(OSError):
        if told := path.read_text():
            return told
    with contextlib.suppress(OSError, ValueError):
        for unable in (directory / FOLDER).glob(f"{path.with_suffix('').name}.[0-9]*"):
            reason = os.strerror(int(unable.suffix[1:])) if unable.suffix != ".0" else "an error of the file system"
            return f"{directory}: cannot be written to: {reason}; not even what else went wrong"
    with contextlib.suppress(OSError):
        if path.exists():
            return f"{directory}: cannot be written to: a worker could not write what went wrong (is the disk full?)"
    return ""


def report_begun(directory: Path | UrlPath) -> None:
    """Tell the driver that there is a worker."""
    path = directory / FOLDER / _BEGUN
    with contextlib.suppress(OSError):
        if not path.exists():
            path.write_text("begun")


def has_begun(directory: Path | UrlPath) -> bool:
    """Whether `report_begun` was called in this run."""
    return (directory / FOLDER / _BEGUN).exists()


class ShardProgress:
    """Counts the people of one shard that are done; call it with how many more."""

    def __init__(self, directory: Path | UrlPath, shard: str) -> None:
        self.path = directory / FOLDER / shard
        self.people = 0
        self._written = 0.0

    def __call__(self, people: int) -> None:
        self.people += people
        now = time.monotonic()
        if now - self._written >= _WRITE_EVERY and not isinstance(self.path, UrlPath):
            self._written = now
            self.write()

    def write(self) -> None:
        """Progress is for the eye: a folder that is gone must not stop the work."""
        with contextlib.suppress(OSError):
            self.path.write_text(str(self.people))


class ProgressBar:
    """A context in which a thread shows people done, people per second and remaining time."""

    def __init__(self, directory: Path | UrlPath, total: int, quiet: bool = False) -> None:
        self.folder = directory / FOLDER
        self.total = total
        self.quiet = quiet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> ProgressBar:
        remove_folder(self.folder)
        self.folder.mkdir(parents=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        remove_folder(self.folder)

    def _watch(self) -> None:
        seen: dict[str, tuple[int, int]] = {}
        with progress_bar(desc="HMR-SKEL", unit="people", total=self.total, quiet=self.quiet, smoothing=0.1) as bar:
            last, every = False, _POLL_URL_EVERY if isinstance(self.folder, UrlPath) else _POLL_EVERY
            while not last:
                last = self._stop.wait(every)
                bar.update(min(self._done(seen), self.total) - bar.n)

    def _done(self, seen: dict[str, tuple[int, int]]) -> int:
        """Sum over shards; only files that changed since the last look are read."""
        with contextlib.suppress(OSError):
            for path, changed in self._files():
                if seen.get(path.name, (0, -1))[1] != changed:
                    text = path.read_text()
                    if text.isdigit():
                        seen[path.name] = int(text), changed
        return sum(people for people, _ in seen.values())

    def _files(self) -> Iterator[tuple[Path | UrlPath, int]]:
        """(file, what changes when it does)"""
        if isinstance(self.folder, UrlPath):
            yield from ((path, 0) for path in self.folder.iterdir())
            return
        with os.scandir(self.folder) as entries:
            yield from ((Path(entry.path), entry.stat().st_mtime_ns) for entry in entries)


def nothing_written(directory: Path | UrlPath) -> str | None:
    """What to say of a run that has written nobody: nothing should go on from there as if it had."""
    manifest = json.loads((directory / DATASET_FILE).read_text())
    if manifest["samples"]:
        return None
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in manifest["rejects"].items())
    return f"nobody was written, all {manifest['rows']:,} rows are rejects ({reasons})"


def tell_of_turned_images(directory: Path | UrlPath, name: str) -> None:
    """One line if images are shown otherwise than they are stored: labels made of what is shown do not fit them."""
    if turned := json.loads((directory / DATASET_FILE).read_text()).get("turned_images"):
        problem = "%s: %d people are in images with an EXIF orientation, which is not applied: labels are for pixels"
        log.warning(f"{problem} as stored", name, turned)


def print_summary(directory: Path | UrlPath, name: str, seconds: float) -> None:
    """The closing table of a run, from its dataset.json and run.json; `seconds` is what converting took."""
    from rich.console import Console
    from rich.table import Table

    manifest, run = (json.loads((directory / file).read_text()) for file in (DATASET_FILE, RUN_FILE))
    table = Table(title="HMR-SKEL", show_header=False, title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("people in", f"{manifest['rows']:,}")
    table.add_row("written", f"{manifest['samples']:,}")
    for reason, count in manifest["rejects"].items():
        table.add_row(f"rejected: {reason}", f"{count:,}")
    table.add_row("fits that did not converge (flagged)", f"{manifest['samples'] - manifest['converged']:,}")
    for word, count in manifest["verdicts"].items():
        table.add_row(f"verdict: {word}", f"{count:,}")
    for word, count in manifest.get("label_checks", {}).items():
        if word != "consistent":
            table.add_row(f"labels: {word}", f"{count:,}")
    if turned := manifest.get("turned_images"):
        table.add_row("EXIF orientation ignored", f"{turned:,}")
    genders = ", ".join(f"{gender} {count:,}" for gender, count in manifest.get("smpl_genders", {}).items())
    table.add_row("SMPL models", genders or "none")
    options = manifest.get("options", {})
    table.add_row("body models", body_models_in_words(options.get("body_models", ""), options.get("gender", "")))
    for word, count in manifest.get("keypoints_3d_sources", {}).items():
        if word != "label":
            table.add_row(f"3D keypoints: {word}", f"{count:,}")
    table.add_row("shards", f"{len(manifest['shards']):,}")
    if run["shards_kept"] or run["shards_removed"]:
        table.add_row("of these and of earlier ones", counts_in_words(run))
    table.add_row("rate", f"{run['rows_made'] / max(seconds, 1e-9):,.1f} people/s over {seconds:,.1f} s")
    if run["devices"]:
        fitting = "fitting" if len(run["devices"]) == 1 else f"fitting, mean of {len(run['devices'])} devices"
        table.add_row(fitting, f"{run['busy_share']:.0%} of the time")
    table.add_row("output", name)
    console = Console()
    console.print(table)
    if not manifest["samples"]:
        return
    errors = Table(title="distance from SKEL to SMPL, mm, over people", title_justify="left")
    errors.add_column("")
    for name in next(iter(manifest["errors"].values())):
        errors.add_column(name, justify="right")
    for name, numbers in manifest["errors"].items():
        errors.add_row(name.removesuffix("_mm"), *(f"{number:.2f}" for number in numbers.values()))
    console.print(errors)
    stages = Table(title="vertex distance by stage, mm", title_justify="left")
    for name in manifest["stage_errors"]:
        stages.add_column(name, justify="right")
    stages.add_row(*(f"{number:.2f}" for number in manifest["stage_errors"].values()))
    console.print(stages)
