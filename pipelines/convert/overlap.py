"""A worker's shards one after another: each is written while the next one is read and fitted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from pipelines.command.devices import resolve_device
from pipelines.convert.conversion import FittedShard, finished, fit_shard, write_fitted
from pipelines.convert.settings import ConversionSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.files.lock import OutputTaken, check_still_ours
from pipelines.files.storage import place
from pipelines.plan.plan_file import PlannedShard
from pipelines.write.progress import ShardProgress, failed_run, report_failure
from schemas import InputError

Stats = dict[str, Any]
"""Statistics of a shard (`write_fitted`) without its rejects, and the worker's "device"; {"shard": name, "error": text}
if it cannot be made."""

_STAYS_IN_THE_FILE = ("rejected_rows", "versions")


class OverlappedConversion:
    """Converts planned shards. Once the output cannot be written to, the shards that are left are not tried."""

    def __init__(self, settings: ConversionSettings) -> None:
        self.settings = settings
        self._directory = place(settings.output)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writing: Future[Stats] | None = None
        self._closed = False

    def convert(self, planned: PlannedShard) -> Iterator[Stats]:
        """Fits the shard and begins to write it; gives the statistics of those that are done by then."""
        progress = ShardProgress(self._directory, planned.name)
        try:
            begun = self._fit(planned, progress)
        except BaseException:  # the runner may try again at once: nothing of this try may still be writing
            wait([self._writing] if self._writing else [])
            raise
        yield from self.written()
        if isinstance(begun, dict):
            yield begun
        elif not self._closed:  # else the run has lost another worker, and this one is put down in the midst of a shard
            self._writing = self._writer.submit(self._write, begun, progress)

    def written(self) -> Iterator[Stats]:
        """The statistics of the shard that is being written, if there is one, when it is done."""
        writing, self._writing = self._writing, None
        if writing is not None:
            yield writing.result()

    def close(self) -> None:
        self._closed = True
        self._writer.shutdown()

    def _fit(self, planned: PlannedShard, progress: ShardProgress) -> FittedShard | Stats:
        """The fitted shard; or the statistics of one that was finished before, or cannot be made."""
        if failed_run(self._directory):
            return {"shard": planned.name, "error": ""}
        problems: list[str] = []
        with self._told(problems):
            check_still_ours(self._directory, self.settings.run)
            resolve_device(self.settings.fit.device)  # there may be none, on a machine that is not the driver's
            spec = planned.spec()
            if (stats := finished(spec, self.settings)) is not None:
                progress(len(spec))
                progress.write()
                return self._sent(stats)
            bodies = bodies_of_process(self.settings.fit, self.settings.run)
            return fit_shard(spec, self.settings, bodies, progress)
        return {"shard": planned.name, "error": problems[0]}

    def _write(self, shard: FittedShard, progress: ShardProgress) -> Stats:
        problems: list[str] = []
        with self._told(problems):
            stats = write_fitted(shard, self.settings)
            progress.write()
            return self._sent(stats)
        return {"shard": shard.spec.name, "error": problems[0]}

    @contextmanager
    def _told(self, problems: list[str]) -> Iterator[None]:
        """What is wrong with the input or output becomes text; other workers hear of an output that cannot be used."""
        try:
            yield
        except InputError as error:
            if error.field == "--output":
                report_failure(self._directory, str(error))
            problems.append(str(error))
        except OutputTaken as error:
            problems.append(str(error))

    def _sent(self, stats: Stats) -> Stats:
        sent = {name: value for name, value in stats.items() if name not in _STAYS_IN_THE_FILE}
        return sent | {"device": resolve_device(self.settings.fit.device)}
