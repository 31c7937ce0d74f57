"""The options of every command: a dataclass, option files (YAML) over its defaults, the command line over both.

A field's docstring is its help. Nested dataclasses group options; their fields are named as if they were the command's
own. `Annotated[..., Positional]` makes an argument of a field, `arg(metavar=..., aliases=...)` names its value.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import textwrap
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from tyro.conf import Positional, arg

from pipelines.command.log import set_up_logging
from pipelines.command.option_files import read_options
from schemas import InputError

__all__ = ["Positional", "arg", "option_values", "parse_options", "parse_row_range"]

Options = TypeVar("Options")

_WIDTH = 80
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}


def parse_options(
    kind: type[Options],
    argv: list[str],
    prog: str,
    description: str,
    *,
    presets: Path | None = None,
    unknown: list[str] | None = None,
) -> Options:
    """The options of a command.

    `--config FILE` takes values from a file of `option: value` lines, `--preset NAME` from `presets`/NAME.yaml where
    there is such a folder; `-v` sets up logging. Arguments that are no options go to `unknown`, where it is given.

    Raises InputError for a file that is absent, malformed or names an unknown option, and for arguments that are wrong.
    """
    import tyro

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    early.add_argument("-v", "--verbose", action="count", default=0)
    if presets:
        early.add_argument("--preset")
    found, rest = early.parse_known_args(argv)
    values: dict[str, tuple[Any, str]] = {}
    if presets and found.preset is not None:
        names = sorted(path.stem for path in presets.glob("*.yaml"))
        if found.preset not in names:
            raise InputError(f"no preset {found.preset!r}", field="--preset", expected=", ".join(names))
        values |= _read_file(presets / f"{found.preset}.yaml", kind)
    if found.config is not None:
        values |= _read_file(found.config, kind)
    sources = "--config FILE, YAML lines of option: value"
    if presets:
        sources += f", or --preset NAME ({', '.join(sorted(path.stem for path in presets.glob('*.yaml')))})"
    more = f"Values may also come from {sources}; the command line wins. -v says more on stderr, -vv everything."
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options, left = tyro.cli(
                kind,
                args=rest,
                prog=prog,
                description=f"{textwrap.fill(description, _WIDTH)}\n\n{textwrap.fill(more, _WIDTH)}",
                default=_with_values(kind, values),
                config=(tyro.conf.OmitArgPrefixes,),
                registry=_registry(),
                return_unknown_args=True,
            )
            if unknown is None and left:  # said once more, for the library's hints at similar names
                tyro.cli(kind, args=rest, prog=prog, default=options, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(_first_words(said.getvalue())) from None
    if unknown is not None:
        unknown += left
    set_up_logging(found.verbose)
    return options


def option_values(options: Any) -> dict[str, Any]:
    """All options by name, those of nested dataclasses included, as plain values."""
    values: dict[str, Any] = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if dataclasses.is_dataclass(value):
            values |= option_values(value)
        else:
            values[option.name] = str(value) if isinstance(value, Path) else value
    return values


def parse_row_range(text: str, step: bool = False, option: str = "--rows") -> slice:
    """`START:STOP` as in a Python slice, with `step` also `START:STOP:STEP`; empty text is all rows. Raises InputError.

    Any part may be left out.
    """
    numbers = text.split(":") if text else ["", ""]
    try:
        if not 2 <= len(numbers) <= 2 + step:
            raise ValueError
        parts = [int(number) if number.strip() else None for number in numbers]
        if parts[2:] == [0]:
            raise ValueError
        return slice(*parts)
    except ValueError:
        grammar = "START:STOP or START:STOP:STEP" if step else "START:STOP"
        raise InputError(f"{text!r} given", field=option, expected=f"{grammar}, for instance 0:1000") from None


def _read_file(file: Path, kind: type) -> dict[str, tuple[Any, str]]:
    """Values of an option file and the file that they stand in, by option name with underscores."""
    values, hints, found = read_options(file), _hints(kind), {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in hints:
            close = difflib.get_close_matches(name, sorted(hints), n=1)
            raise InputError("no such option", file=file, field=str(key), expected=close[0] if close else None)
        found[name] = (_checked(value, hints[name], file, str(key)), str(file))
    return found


def _hints(kind: type) -> dict[str, Any]:
    """Types of all options by name, those of nested dataclasses included."""
    found: dict[str, Any] = {}
    types_by_name = typing.get_type_hints(kind)
    for option in dataclasses.fields(kind):
        hint = types_by_name[option.name]
        found |= _hints(hint) if dataclasses.is_dataclass(hint) else {option.name: hint}
    return found


def _checked(value: Any, hint: Any, file: Path, field: str) -> Any:
    """A value of a file in the type of its option. Raises InputError."""
    choices = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        return _checked(value, next(choice for choice in choices if choice is not type(None)), file, field)
    if origin is Literal:
        if value in choices and type(value) in map(type, choices):
            return value
        raise InputError(f"{_shown(value)} given", file=file, field=field, expected=" or ".join(map(str, choices)))
    if origin in (list, tuple):
        items = value if isinstance(value, list) else [value]
        return origin(_checked(item, choices[0], file, field) for item in items)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # YAML takes 1e-5 for a word
            return float(value)
    if type(value) is not hint:
        raise InputError(
            f"{_shown(value)} given", file=file, field=field, expected=getattr(hint, "__name__", str(hint))
        )
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ..."


def _with_values(kind: type, values: dict[str, tuple[Any, str]]) -> Any:
    """An instance with these values over the defaults; options that have neither stay to be given."""
    import tyro

    types_by_name, arguments = typing.get_type_hints(kind), {}
    for option in dataclasses.fields(kind):
        hint = types_by_name[option.name]
        default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
        if dataclasses.is_dataclass(hint):
            names = {name: value for name, (value, _) in values.items() if name in _hints(hint)}
            try:
                arguments[option.name] = dataclasses.replace(default, **names)
            except InputError as error:
                file = next((file for name, (_, file) in values.items() if name in names), None)
                raise InputError(error.problem, file=file, field=error.field, expected=error.expected) from error
        elif option.name in values:
            arguments[option.name] = values[option.name][0]
        else:
            arguments[option.name] = tyro.MISSING if default is dataclasses.MISSING else default
    return kind(**arguments)


def _registry() -> Any:
    """How values are called in the help: N, X, TEXT, FILE."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def rule(about: Any) -> PrimitiveConstructorSpec | None:
        choices = [choice for choice in typing.get_args(about.type) if choice is not type(None)]
        union = typing.get_origin(about.type) in (typing.Union, types.UnionType)
        kind = choices[0] if union and len(choices) == 1 else about.type
        if not isinstance(kind, type) or kind not in _METAVARS:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=_METAVARS[kind],
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: value is None or isinstance(value, (kind, int) if kind is float else kind),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry


def _first_words(text: str) -> str:
    """What a box of an error message says before its first rule, on one line."""
    said: list[str] = []
    for line in text.splitlines()[1:]:
        words = line.strip().strip("│╭╮╰╯").strip()
        if words and not words.strip("─"):
            break
        said.append(words)
    return " ".join(" ".join(said).split())
