"""Names of libraries that they do not promise to keep: which ones are used, that they are there, and version bounds."""

from __future__ import annotations

import ast
import configparser
import importlib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("schemas", "fitting", "pipelines", "train")

PRIVATE = {
    "apache-beam": [
        "apache_beam.runners.dask.dask_runner:DaskRunner.run_pipeline",
        "apache_beam.runners.dask.dask_runner:DaskRunnerResult.wait_until_finish",
        "apache_beam.runners.dask.transform_evaluator:apply_dofn_to_bundle",
        "apache_beam.runners.portability.fn_api_runner.fn_runner:FnApiRunner",
        "apache_beam.runners.portability.fn_api_runner.fn_runner:ExtendedProvisionInfo",
        "apache_beam.runners.portability.fn_api_runner.worker_handlers:BeamFnControlServicer.UNSTARTED_STATE",
        "apache_beam.runners.portability.fn_api_runner.worker_handlers:ControlConnection._state",
        "apache_beam.runners.portability.fn_api_runner.worker_handlers:ControlConnection.abort",
        "apache_beam.runners.portability.fn_api_runner.worker_handlers:GrpcWorkerHandler.close",
        "apache_beam.runners.portability.local_job_service:BeamFnLoggingServicer",
        "apache_beam.runners.portability.portable_runner:JobServiceHandle.encode_pipeline_options",
        "apache_beam.utils.multi_process_shared:AUTH_KEY",
        "apache_beam.utils.multi_process_shared:MultiProcessShared.acquire",
    ],
    "torch": [
        "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter._shutdown_workers",
        "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter._workers",
        "torch.nn:Module._buffers",
        "torch:_foreach_lerp_",
    ],
}
"""Library -> the names, as MODULE:NAME."""

OF_PYTHON = {"_replace", "_asdict", "_fields", "_exit"}
"""Described in Python's manual, for named tuples and the end of a process."""


def requirement(name: str) -> Requirement:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    [found] = [r for r in map(Requirement, (line for line in lines if line and line[0] != "#")) if r.name == name]
    return found


@pytest.mark.parametrize("library", PRIVATE)
def test_the_library_is_bound_to_versions_that_were_tried(library):
    wanted = requirement(library).specifier
    assert {"<", "<="} & {bound.operator for bound in wanted}, f"{library} has no upper bound"
    assert metadata.version(library) in wanted


@pytest.mark.parametrize("name", [name for names in PRIVATE.values() for name in names])
def test_the_name_is_there(name):
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        if not hasattr(found, part):  # instances have it: its class must set it
            assert part in attributes_set(found), name
            return
        found = getattr(found, part)


def attributes_set(kind: type) -> set[str]:
    """Names that a class sets on itself, or declares."""
    names = set()
    for base in kind.__mro__[:-1]:
        source = Path(importlib.import_module(base.__module__).__file__).read_text()
        tree = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) and n.name == base.__name__)
        names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        names |= {
            n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
    return names


def test_no_other_private_names_are_used():
    """Private attributes that our code takes of something and that it has not made itself."""
    used, ours = {}, set()
    for path in (path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if isinstance(node.ctx, ast.Store) and own:
                    ours.add(node.attr)
                elif not own:
                    used.setdefault(node.attr, f"{path.relative_to(REPOSITORY)}:{node.lineno}")
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                ours |= {target.id for target in targets if isinstance(target, ast.Name)}
    named = {name.rpartition(":")[2].rpartition(".")[2] for names in PRIVATE.values() for name in names}
    assert not {name: where for name, where in used.items() if name not in ours | named | OF_PYTHON}
