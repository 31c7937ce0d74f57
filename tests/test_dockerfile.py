"""The text of the Dockerfile against setup.cfg and constraints.txt: there is no Docker where these tests run."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """(word, the rest of it on one line) of each instruction."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def position(word: str, part: str) -> int:
    """Which instruction says so; there is one."""
    [found] = [n for n, (name, rest) in enumerate(instructions()) if name == word and part in rest]
    return found


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_base_is_an_argument_and_has_a_python_that_the_package_runs_on(setup):
    (word, base), (source, image) = instructions()[:2]
    assert (word, source, image) == ("ARG", "FROM", "$BASE")
    version = re.fullmatch(r"BASE=python:(3\.\d+)-slim", base)[1]
    assert SpecifierSet(setup["options"]["python_requires"]).contains(version)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for text in (ROOT / "pipelines" / "README.md").read_text().split("apache/beam_python")[1:]:
        found = re.match(r"([\d.]+)_sdk:([\d.]+\d)", text)
        assert found.groups() == (version, pins["apache-beam"])


def test_what_it_needs_is_a_layer_that_no_source_file_changes(setup):
    needs = position("RUN", "EXTRAS")
    copied = [rest.split()[:-1] for word, rest in instructions()[:needs] if word == "COPY"]
    assert [name for names in copied for name in names] == ["constraints.txt", "setup.cfg", "pyproject.toml"]
    assert "-c constraints.txt" in instructions()[needs][1]
    assert "--no-deps" in instructions()[position("RUN", "-e .")][1]
    later = {name for word, rest in instructions()[needs:] if word == "COPY" for name in rest.split()[:-1]}
    packages = {line.strip("* ") for line in setup["options.packages.find"]["include"].split()}
    assert packages | {"README.md", "LICENSE"} == later


@pytest.mark.parametrize(("extras", "expected"), [("", "."), ("s3,gs", ".[s3,gs]")])
def test_extras_are_those_of_the_package(setup, extras, expected):
    said = re.search(r'"(\.\$\{EXTRAS[^"]*)"', instructions()[position("RUN", "EXTRAS")][1])[1]
    done = subprocess.run(["sh", "-c", f'EXTRAS={shlex.quote(extras)}; echo "{said}"'], capture_output=True, text=True)
    assert done.stdout.strip() == expected
    known = set(setup["options.extras_require"])
    named = re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Dockerfile").read_text())
    assert named and all(set(names.split(",")) <= known for names in [*named, extras] if names)
