"""Files of `option: value` lines (YAML): words, numbers, lists and mappings, and nothing else that YAML knows.

No dates, no sexagesimal numbers (`rows: 0:5` is a text), no aliases, which could multiply themselves, no tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from schemas import InputError

_LARGEST_FILE = 1 << 20
"""Bytes of an option file; nobody writes longer ones."""
_DEEPEST = 8
"""Lists within lists of an option file."""
_LONGEST_NUMBER = 40
"""Digits of a whole number; more than 4,300 Python does not print."""
_EXPECTED = "lines of option: value"
_KINDS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", tuple("tTfFyYnNoO")),
    ("int", rf"[-+]?(0|[1-9][0-9]{{0,{_LONGEST_NUMBER}}})", tuple("-+0123456789")),
    ("float", r"[-+]?[0-9]*\.[0-9]+([eE][-+][0-9]+)?|[-+]?[0-9]+\.([eE][-+][0-9]+)?", tuple("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", tuple("-+.")),
)
"""Plain words that stand for something else than themselves: kind, what they look like, how they begin.

All of them do so for PyYAML as well, so that what it writes as a text is read as one.
"""


def read_options(file: Any) -> dict[Any, Any]:
    """The mapping that a file (a Path, or a UrlPath) holds; an empty file is an empty one.

    Raises InputError for everything else.
    """
    import yaml

    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(error.strerror or str(error), file=file, field="--config", expected="a YAML file") from error
    if len(text) > _LARGEST_FILE:
        raise InputError("longer than any option file", file=file, expected=_EXPECTED)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError("a YAML alias", file=file, expected=_EXPECTED)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise InputError("not YAML that options are written in", file=file, expected=_EXPECTED)
        values = yaml.load(text, _loader())
    except InputError:
        raise
    except Exception as error:  # a parser of untrusted text has many words for nonsense
        problem = f"not YAML that options are written in: {error or type(error).__name__}"
        raise InputError(problem, file=file, expected=_EXPECTED) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"a {type(values).__name__} at the top", file=file, expected=_EXPECTED)
    return values


def write_options(path: Any, values: Mapping[str, Any]) -> None:
    """Write options by name as a file for `--config`."""
    import yaml

    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))


@cache
def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """Of the kinds above, lists and mappings; what has another tag is refused."""

        yaml_implicit_resolvers = {}  # noqa: RUF012
        yaml_constructors = {  # noqa: RUF012
            tag: construct
            for tag, construct in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag.rpartition(":")[2] in ("null", "bool", "float", "str", "seq", "map")
        }

    for kind, pattern, first in _KINDS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), first)
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
    return Loader
