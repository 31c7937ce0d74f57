"""What is sent to a cluster: the job's graph under the options of the README's recipes. Nothing is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer
from graph_runner import GraphRunner
from memory_files import content, file_of

from pipelines import build_hmr_skel
from pipelines.build_hmr_skel import main
from pipelines.command.build_options import parse_build_options

README = Path(build_hmr_skel.__file__).with_name("README.md").read_text().partition("### Flink, Spark, Dataflow")[2]
"""From the recipes on."""
ACCELERATOR = "type:nvidia-l4;count:1;install-nvidia-driver"
DOCKER = ["--environment_type=DOCKER", "--environment_config=REGISTRY/hmr-skel:1"]


def recipes():
    """Runner -> Beam's arguments of its command in the README; all of them known to us or to Beam."""
    commands = re.findall(r"^    hmr-skel build (--runner=(?:.*\\\n)*.*)", README, re.MULTILINE)
    found = {}
    for command in commands:
        rest = parse_build_options(shlex.split(command.replace("\\\n", " ")))[1]
        runner = next(argument for argument in rest if argument.startswith("--runner="))
        found[runner.partition("=")[2]] = [argument for argument in rest if argument != runner]
    return found


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


@pytest.mark.parametrize("recipe", ["FlinkRunner", "FlinkRunner in an image", "SparkRunner", "DataflowRunner"])
def test_steps_ask_for_accelerator_and_workers_and_name_nothing_local(graph_of, recipe, tmp_path):
    options = recipes()[recipe.partition(" ")[0]]
    graph = graph_of(25, *options, *(DOCKER if "image" in recipe else []))
    steps = {t.unique_name: t for t in graph.components.transforms.values()}
    environment = graph.components.environments[steps["Read, fit, crop, write"].environment_id]
    assert environment.resource_hints["beam:resources:accelerator:v1"] == ACCELERATOR.encode()
    if "image" in recipe:
        assert " ".join(DOCKER) in README
        assert proto.DockerPayload.FromString(environment.payload).container_image == "REGISTRY/hmr-skel:1"
    elif recipe != "DataflowRunner":
        assert proto.ExternalPayload.FromString(environment.payload).endpoint.url == "localhost:50000"
    convert, write = (function_of(steps[name]) for name in ("Read, fit, crop, write", "Write dataset.json"))
    assert convert.settings.output == write.output == "memtest://out"
    assert convert.settings.fit.device == "auto", "the workers' devices are not the driver's"
    for function in (convert, write):
        assert "/tmp" not in (said := repr(vars(function))) and str(tmp_path) not in said


def test_the_jars_are_those_that_beam_would_fetch(monkeypatch):
    named = set(re.findall(r"-Dartifact=(\S+)", README))
    fetched = set()

    def fetch(artifact, group, version, *rest, **more):
        fetched.add(f"{group}:{artifact}:{version}")
        return "jar"

    monkeypatch.setattr("apache_beam.utils.subprocess_server.JavaJarServer.path_to_maven_jar", fetch)
    arguments = [argument for recipe in recipes().values() for argument in recipe]
    jars = {argument.partition("=")[2] for argument in arguments if "_job_server_jar=" in argument}
    assert jars == {"-".join(name.split(":")[1:]) + ".jar" for name in named}
    options = PipelineOptions([argument for argument in arguments if "_job_server_jar=" not in argument])
    for server in (FlinkJarJobServer, SparkJarJobServer):
        assert server(options).path_to_jar() == "jar"
    assert fetched == named


def test_the_graph_hardly_grows_with_the_rows(graph_of):
    """It holds a name and a place per shard, the specs lie in the output; Dataflow takes 10 MB at most."""
    sizes = [graph_of(rows).ByteSize() for rows in (100, 4100)]
    assert (sizes[1] - sizes[0]) / 400 < 250
    assert not [name for name in content("memtest://out") if ".plan" in name], "the plan goes when the run ends"
