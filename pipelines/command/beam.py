"""The console script `beam`: `beam run FILE [options]` runs a pipeline file with the given options."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import runpy
import sys
from pathlib import Path

from pipelines.command.hmr_skel import INPUT_ERROR, guarded, version
from pipelines.command.log import set_up_logging

PROG = "beam"

_DESCRIPTION = """Run an Apache Beam pipeline that is kept in a Python file.

  beam run FILE [options]

Everything after FILE is passed to the pipeline: its own options and Beam's, such as --runner=DirectRunner,
--direct_running_mode=multi_processing or --direct_num_workers=2. `beam run FILE --help` describes them.

A file inside a package is imported under its name in that package, so that workers in other processes find its
functions; then its main(argv) is called. A file without main(argv) runs as a script."""


def main(argv: list[str] | None = None) -> int:
    """Runs `beam run FILE [options]`; returns the pipeline's exit status, 2 if the file is absent."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [-h] [--version] run FILE [options]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} (hmr-skel {version()})")
    at = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    parser.parse_args(arguments[:at])
    if at == len(arguments):
        parser.print_help(sys.stderr)
        return INPUT_ERROR
    if arguments[at] != "run":
        return _error(f"no command {arguments[at]!r}; the only command is `{PROG} run FILE`")
    if at + 1 == len(arguments):
        return _error(f"`{PROG} run` without a file; expected `{PROG} run FILE [options]`")
    if arguments[at + 1] in ("-h", "--help"):
        parser.print_help()
        return 0
    file = Path(arguments[at + 1])
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no such file"
        return _error(f"{file}: {found}; expected a Python file with a pipeline, looked in {Path.cwd()}")
    set_up_logging(0)
    return guarded(lambda: run_file(file, arguments[at + 2 :]), PROG)


def run_file(file: Path, argv: list[str]) -> int:
    """Imports a pipeline file and calls its `main(argv)`, or runs it as a script; returns its exit status."""
    if not _has_main(file):
        _put_first(file.resolve().parent)
        sys.argv = [str(file), *argv]
        runpy.run_path(str(file), run_name="__main__")
        return 0
    name, root = module_of(file)
    if not _leads_to(name, file):
        _forget_modules_of(root)
        _put_first(root)
    module = importlib.import_module(name)
    sys.argv = [str(file), *argv]  # Beam's own options fall back to it
    return module.main(argv) or 0


def module_of(file: Path) -> tuple[str, Path]:
    """Full name of a Python file as a module, and the folder from which it is importable under that name."""
    file = file.resolve()
    parts, root = [file.stem], file.parent
    while (root / "__init__.py").is_file() and root != root.parent:
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


def _leads_to(name: str, file: Path) -> bool:
    """Whether importing this name gives this file, here and in a worker process that is started without our path."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve()


def _forget_modules_of(root: Path) -> None:
    """Drops loaded modules that the folder has its own copy of: the user named a checkout, we are an installed copy."""
    mine = {path.name for path in root.iterdir() if (path / "__init__.py").is_file()}
    mine |= {path.stem for path in root.glob("*.py")}
    for loaded in [name for name in sys.modules if name.partition(".")[0] in mine and name != "__main__"]:
        del sys.modules[loaded]
    importlib.invalidate_caches()


def _put_first(folder: Path) -> None:
    """Makes the folder the first place of imports, here and in the worker processes that Beam starts."""
    sys.path.insert(0, str(folder))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{inherited}" if inherited else str(folder)


def _has_main(file: Path) -> bool:
    """Whether the file defines a function main that takes an argument; a file that does not parse has none."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" and _takes_one(node.args) for node in body)


def _takes_one(arguments: ast.arguments) -> bool:
    positional = arguments.posonlyargs + arguments.args
    required = len(positional) - len(arguments.defaults)
    return required <= 1 and (bool(positional) or arguments.vararg is not None)


def _error(text: str) -> int:
    sys.stderr.write(f"{PROG}: error: {text}\n")
    return INPUT_ERROR


if __name__ == "__main__":
    sys.exit(main())
