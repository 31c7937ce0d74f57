"""Options in files: `option: value` lines (YAML), which the command line overrides."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from schemas.errors import InputError


def read_option_file(file: str | Path, names: Collection[str]) -> dict[str, Any]:
    """The values in a file by option name, dashes as underscores; `names` are the options that there are.

    Raises InputError if the file is absent, is not a YAML mapping or names another option.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text()) or {}
    except OSError as error:
        raise InputError(error.strerror or str(error), file=file, field="--config", expected="a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not YAML: {error}", file=file, expected="lines of option: value") from error
    if not isinstance(values, dict):
        raise InputError(f"a {type(values).__name__} at the top", file=file, expected="lines of option: value")
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, sorted(names), n=1)
            raise InputError("no such option", file=file, field=str(key), expected=close[0] if close else None)
        found[name] = value
    return found


def as_arguments(values: dict[str, Any], flags: Collection[str] = ()) -> list[str]:
    """The command-line arguments that say the same; `flags` are options that stand alone when true."""
    arguments: list[str] = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is None or value == [] or (name in flags and value is False):
            continue
        if name in flags and value is True:
            arguments.append(option)
        elif isinstance(value, list):
            arguments += [option, *map(str, value)]
        else:
            arguments.append(f"{option}={value}")
    return arguments
