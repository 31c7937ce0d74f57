"""What is sent to a cluster: the job's graph under the options of the README's recipes. Nothing is run here."""

from __future__ import annotations

import numpy as np
import pytest
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from graph_runner import GraphRunner
from memory_files import content, file_of

from pipelines.build_hmr_skel import main

ACCELERATOR = "type:nvidia-l4;count:1;install-nvidia-driver"
FLINK = ["--environment_type=DOCKER", "--environment_config=registry/hmr-skel:1", "--flink_master=host:8081"]
FLINK += ["--parallelism=8"]
DATAFLOW = ["--project=my-project", "--region=europe-west4", "--temp_location=memtest://tmp"]
DATAFLOW += ["--sdk_container_image=registry/hmr-skel:1", "--experiments=use_runner_v2"]
DATAFLOW += ["--experiments=no_use_multiple_sdk_containers", "--num_workers=4", "--machine_type=g2-standard-8"]


@pytest.fixture
def graph_of(tmp_path, monkeypatch):
    """Graph of the job for so many rows, with labels and output behind URLs."""
    monkeypatch.setenv("MEMTEST_FILES", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for the log of a run that does not finish

    def graph(rows, *arguments):
        np.savez(file_of("memtest://in/aic.npz").open("wb"), pose_cam=np.zeros((rows, 72)), shape=np.zeros((rows, 10)))
        always = ["--annotations", "memtest://in/*.npz", "--images", "none", "--output", "memtest://out"]
        always += ["--samples-per-shard", "10", "--quiet", "--runner=graph_runner.GraphRunner", *arguments]
        assert main([*always, f"--resource_hint=accelerator={ACCELERATOR}"]) == 1  # nothing was run
        return GraphRunner.sent

    return graph


def function_of(step):
    """The object that would process a step's elements."""
    return pickler.loads(proto.ParDoPayload.FromString(step.spec.payload).do_fn.payload)[0]


@pytest.mark.parametrize("options", [FLINK, DATAFLOW], ids=["flink", "dataflow"])
def test_steps_ask_for_accelerator_and_image_and_name_nothing_local(graph_of, options, tmp_path):
    graph = graph_of(25, *options)
    steps = {t.unique_name: t for t in graph.components.transforms.values()}
    environment = graph.components.environments[steps["Read, fit, crop, write"].environment_id]
    assert environment.resource_hints["beam:resources:accelerator:v1"] == ACCELERATOR.encode()
    if options is FLINK:
        assert proto.DockerPayload.FromString(environment.payload).container_image == "registry/hmr-skel:1"
    convert, write = (function_of(steps[name]) for name in ("Read, fit, crop, write", "Write dataset.json"))
    assert convert.settings.output == write.output == "memtest://out"
    assert convert.settings.fit.device == "auto", "the workers' devices are not the driver's"
    for function in (convert, write):
        assert "/tmp" not in (said := repr(vars(function))) and str(tmp_path) not in said


def test_the_graph_hardly_grows_with_the_rows(graph_of):
    """It holds a name and a place per shard, the specs lie in the output; Dataflow takes 10 MB at most."""
    sizes = [graph_of(rows).ByteSize() for rows in (100, 4100)]
    assert (sizes[1] - sizes[0]) / 400 < 250
    assert not [name for name in content("memtest://out") if ".plan" in name], "the plan goes when the run ends"
