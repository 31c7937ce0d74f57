"""The console script `hmr-skel`: finds the commands that installed packages offer and runs one of them.

A command is an entry point of group `hmr_skel.commands` naming a function `main(argv: list[str], prog: str) -> int`.
Its summary is the first line of the function's docstring, or else of its module's, read from the source so that
`hmr-skel --help` imports no command.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import errno
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.command.log import set_up_logging

if TYPE_CHECKING:
    from rich.console import Console

PROG = "hmr-skel"
COMMAND_GROUP = "hmr_skel.commands"
INPUT_ERROR = 2
"""Exit status when the user's input is at fault."""
INTERRUPTED = 130

_USERS_TO_MEND = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
}
"""Where commands name what they write themselves, this is never reached."""


def main(argv: list[str] | None = None) -> int:
    """Runs `hmr-skel [-v] COMMAND ...`; returns the exit status: 0, 1 a check failed, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    at = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    commands = {entry.name: entry for entry in importlib.metadata.entry_points(group=COMMAND_GROUP)}
    parser = _parser(commands)
    head = parser.parse_args(arguments[:at])
    set_up_logging(head.verbose)
    if at == len(arguments):
        parser.print_help(sys.stderr)
        return INPUT_ERROR
    name = arguments[at]
    if name not in commands:
        close = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(sorted(commands)) or 'absent'}"
        sys.stderr.write(f"{PROG}: error: no command {name!r}; {hint}\n")
        return INPUT_ERROR
    return guarded(lambda: commands[name].load()(arguments[at + 1 :], prog=f"{PROG} {name}"), PROG)


def guarded(run: Callable[[], int | None], prog: str) -> int:
    """Runs a command; what the user's input causes becomes one line on stderr and an exit status."""
    try:
        return run() or 0
    except BrokenPipeError:  # the reader of our output has gone, as in `hmr-skel inspect DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if _cause(error, KeyboardInterrupt, contexts=True):
            sys.stderr.write(f"{prog}: interrupted\n")
            return INTERRUPTED
        errors = sys.modules.get("schemas.errors")  # one that has not been imported has not been raised
        problem = _cause(error, errors.InputError) if errors else None
        problem = problem or _of_the_system(error)
        if problem is None:
            raise
        sys.stderr.write(f"{prog}: error: {' '.join(str(problem).split())}\n")
        return INPUT_ERROR


def _of_the_system(error: BaseException) -> str | None:
    """What is wrong with a file or a disk, if that is all that is wrong: a full one, a place without permission."""
    found = _cause(error, OSError, contexts=True)
    if not isinstance(found, OSError) or found.errno not in _USERS_TO_MEND:
        return None
    return f"{found.filename}: {found.strerror}" if found.filename else f"{found.strerror}, in writing or reading"


def console() -> Console:
    """Where a command's tables go. Without a terminal lines are wide, so that names survive a pipe or a log."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=160)


def _parser(commands: dict[str, importlib.metadata.EntryPoint]) -> argparse.ArgumentParser:
    width = max(map(len, commands), default=0)
    lines = [f"  {name:{width}}  {_summary(entry)}" for name, entry in sorted(commands.items())]
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [-h] [--version] [-v] COMMAND ...",
        description="Work with HMR-SKEL shards and SKEL fits.",
        epilog="\n".join(["commands:", *lines, "", f"`{PROG} COMMAND --help` describes a command's options."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {version()}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more on stderr; twice: everything")
    return parser


def version() -> str:
    """Version of the installed package."""
    try:
        return importlib.metadata.version("hmr-skel")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _summary(entry: importlib.metadata.EntryPoint) -> str:
    try:
        spec = importlib.util.find_spec(entry.module)
        source = spec.loader.get_source(entry.module) if spec and spec.loader else None
        module = ast.parse(source or "")
    except (ImportError, SyntaxError, AttributeError):
        return "(cannot be loaded)"
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr]
    texts = [ast.get_docstring(node) for node in [*functions, module]]
    return next((text.splitlines()[0].rstrip(".") for text in texts if text), "")


def _cause(error: BaseException | None, kind: type[BaseException], contexts: bool = False) -> BaseException | None:
    """The first of a kind in a chain of exceptions: runners wrap what a step raises, some without naming the cause."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or (error.__context__ if contexts else None)
    return error


if __name__ == "__main__":
    sys.exit(main())
