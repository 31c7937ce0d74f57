"""The job on Dask: Beam's runner for it, with what that loses put right.

Beam's evaluator takes a bundle's results before `finish_bundle` has given its own, and cuts what is created into pieces
of 128 elements that a reshuffle leaves as they are.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from concurrent.futures import CancelledError
from typing import Any

import dask
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.common import DoFnInvoker
from apache_beam.runners.dask import dask_runner, transform_evaluator
from apache_beam.runners.runner import PipelineResult
from distributed import KilledWorker

_OPTIONS = dask_runner.DaskOptions


def bundle(items: Iterable, arguments: list, keywords: dict[str, Any], receivers: Any) -> list:
    """A DoFn's work on one partition; takes the place of `transform_evaluator.apply_dofn_to_bundle`."""
    # Threads of a worker are given the same objects, in which results are gathered.
    arguments, keywords, receivers = copy.deepcopy((arguments, keywords, receivers))
    invoker = DoFnInvoker.create_invoker(*arguments, **keywords)
    invoker.invoke_setup()
    try:
        invoker.invoke_start_bundle()
        for item in items:
            invoker.invoke_process(item)
        invoker.invoke_finish_bundle()
    finally:
        invoker.invoke_teardown()
    return [value.value for value in receivers.values]


class DaskRunner(dask_runner.DaskRunner):
    """A bundle for each of so many elements."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = elements

    def run_pipeline(self, pipeline: Any, options: PipelineOptions) -> PipelineResult:
        cut = options.view_as(_OPTIONS)
        if not cut.npartitions and not cut.partition_size:
            cut.npartitions = self.elements
        transform_evaluator.apply_dofn_to_bundle = bundle
        logging.getLogger("distributed").setLevel(logging.WARNING)
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # for workers that are started here
        dask.config.set({"distributed.worker.daemon": False})  # workers started here may start processes, as GPUs need
        result = super().run_pipeline(pipeline, options)
        return _Result(result.client, result.futures)


class _Result(dask_runner.DaskRunnerResult):
    """The scheduler is left when the job is done."""

    def wait_until_finish(self, duration: float | None = None) -> str:
        try:
            state = super().wait_until_finish(duration)
            if any(future.status != "finished" for future in self.futures):
                raise CancelledError("the scheduler was lost")
            return state
        finally:
            self.client.close()


def what_is_lost(error: BaseException) -> str | None:
    """What to say of an error by which Dask gives up; None for other errors."""
    if isinstance(error, KilledWorker):
        return f"Dask's workers died over the same shard {error.allowed_failures + 1} times (out of memory?)"
    if isinstance(error, (OSError, TimeoutError, CancelledError)):
        return "Dask's scheduler cannot be reached, or is gone"
    return None
