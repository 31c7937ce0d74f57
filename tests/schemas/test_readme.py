"""The field tables of schemas/README.md are the schemas'. Run as a script, this file writes the tables anew."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from schemas import HMR_SKEL, PREDICTION

README = Path(__file__).parents[2] / "schemas" / "README.md"
TABLES = {"fields": HMR_SKEL, "prediction": PREDICTION}
"""Name in the comment before the table -> schema."""
END = "<!-- end of fields -->\n"


def field_table(schema: pa.Schema) -> str:
    """A Markdown table of a schema: field, type and shape, unit, frame, where a shard's sample keeps it, meaning."""
    columns = {"unit": "unit", "frame": "frame", "form": "in", "doc": "meaning"}
    if all(field.metadata[b"form"] == b"json" for field in schema):
        del columns["form"]
    rows = [f"| field | type | {' | '.join(columns.values())} |", "| --- " * (2 + len(columns)) + "|"]
    for field in schema:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        shape = json.loads(facts["shape"])
        value = field.type.value_type if shape else field.type
        kind = f"{value} ({', '.join(map(str, shape))})" if shape else str(value)
        row = [f"`{field.name}`", kind, *(facts[name] for name in columns)]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows) + "\n"


def parts(text: str, name: str) -> tuple[str, str, str]:
    """The file up to a table, the table, and the rest."""
    begin = f"<!-- {name}: written by python tests/schemas/test_readme.py -->\n"
    before, _, rest = text.partition(begin)
    table, _, after = rest.partition(END)
    return before + begin, table, END + after


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_lists_the_fields_of_the_schema(name):
    assert parts(README.read_text(), name)[1] == field_table(TABLES[name])


if __name__ == "__main__":
    for name, schema in TABLES.items():
        before, _, after = parts(README.read_text(), name)
        README.write_text(before + field_table(schema) + after)
