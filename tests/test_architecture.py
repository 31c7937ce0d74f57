"""The import graph, made from the source: packages and their folders go one way, and no file leads back to itself.

Imports inside functions count as well, and those for annotations alone.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

PACKAGES = ("schemas", "fitting", "pipelines", "train")
"""Each imports only those before it."""

ROOMS = {
    "fitting": ("anatomy", "demo_body", "body", "fit"),
    "pipelines": (
        *("command", "files", "read", "plan", "draw", "write", "convert", "look", "hand_on", "demo"),
        "merge_parts",
        "build_hmr_skel",
    ),
    "train": ("config", "network", "data", "options", "benchmarks", "evaluate", "run", "predict", "command"),
}
"""Folders and files of a package; each imports only those before it and itself."""

OPEN_TO_TRAIN = ("command", "files", "read", "look", "draw", "hand_on")
"""What train may import of pipelines; the job's other rooms it never needs."""

SAID_TWICE = {
    "main": "every command's",
    "build": "the job's graph, and a script's",
    "smpl_arrays": "the embedded body has the functions of the files",
    "skel_arrays": "the embedded body has the functions of the files",
    "keypoint_arrays": "the embedded body has the functions of the files",
    "place": "points of the fit, and where a file is",
}
"""Public names that two modules may have."""

IMPORTED_BY_NOBODY = ("fitting.demo_body.build",)
MOST_LINES = 400


def modules() -> dict[str, Path]:
    """Name -> file of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """Other modules of ours that a module imports; of `from package import name` the module `name`, if it is one."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: imports say the whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys()
            if inner - MODULES.keys():
                found.add(node.module)
    return (found & MODULES.keys()) - {name}  # the job's file, run as a script, calls itself by its name


GRAPH = {name: imports_of(name) for name in MODULES}
EDGES = sorted((name, imported) for name, found in GRAPH.items() for imported in found)


def room_of(name: str) -> str | None:
    """The folder or file of its package in which a module is; None for the package's own __init__."""
    return name.split(".")[1] if "." in name else None


def test_packages_go_one_way():
    order = {package: number for number, package in enumerate(PACKAGES)}
    assert not [edge for edge in EDGES if order[edge[1].split(".")[0]] > order[edge[0].split(".")[0]]]


def test_train_enters_only_some_rooms_of_pipelines():
    entered = [edge for edge in EDGES if edge[0].startswith("train") and edge[1].startswith("pipelines")]
    assert entered
    assert not [edge for edge in entered if room_of(edge[1]) not in OPEN_TO_TRAIN]


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_go_one_way(package):
    order = {room: number for number, room in enumerate(ROOMS[package])}
    inside = [
        (name, imported)
        for name, imported in EDGES
        if name.split(".")[0] == imported.split(".")[0] == package and room_of(name) and room_of(imported)
    ]
    rooms = {room_of(name) for name in MODULES if name.split(".")[0] == package} - {None}
    assert rooms <= order.keys(), "a new room: where does it stand?"
    assert not [edge for edge in inside if order[room_of(edge[1])] > order[room_of(edge[0])]]


def test_no_circle_of_files():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("folder", IMPORTED_BY_NOBODY)
def test_some_folders_are_imported_by_nobody(folder):
    inside = (folder, f"{folder}.")
    assert folder in MODULES
    assert not [edge for edge in EDGES if edge[1].startswith(inside) and not edge[0].startswith(inside)]


def test_every_folder_says_what_it_is_for():
    inits = [path for path in MODULES.values() if path.name == "__init__.py"]
    folders = {path.parent for path in MODULES.values()}
    assert folders == {path.parent for path in inits}
    assert not [str(path) for path in inits if not ast.get_docstring(ast.parse(path.read_text()))]


def test_no_file_is_long():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_a_public_name_means_one_thing():
    """Classes and functions: whoever meets a name in a traceback or in an import knows which one it is."""
    homes: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(module)
    assert not {name: sorted(at) for name, at in homes.items() if len(at) > 1 and name not in SAID_TWICE}
    assert not {name for name in SAID_TWICE if len(homes.get(name, ())) < 2}
