"""A runner that runs nothing: it keeps the graph that a portable runner would send to its cluster."""

from __future__ import annotations

from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState


class GraphRunner(PipelineRunner):
    """`--runner=graph_runner.GraphRunner`; `sent` is the last graph."""

    sent = None

    def run_pipeline(self, pipeline, options):
        GraphRunner.sent = PortableRunner.get_proto_pipeline(pipeline, options)
        return _Done(PipelineState.DONE)


class _Done(PipelineResult):
    def wait_until_finish(self, duration=None):
        return self.state
