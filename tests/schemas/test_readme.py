"""The field table of schemas/README.md is the schema's. Run as a script, this file writes the table anew."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from schemas import HMR_SKEL

README = Path(__file__).parents[2] / "schemas" / "README.md"
BEGIN, END = "<!-- fields: written by python tests/schemas/test_readme.py -->\n", "<!-- end of fields -->\n"


def field_table(schema: pa.Schema) -> str:
    """A Markdown table of a schema: field, type and shape, unit, frame, where a sample keeps it, meaning."""
    rows = ["| field | type | unit | frame | in | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for field in schema:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        shape = json.loads(facts["shape"])
        value = field.type.value_type if shape else field.type
        kind = f"{value} ({', '.join(map(str, shape))})" if shape else str(value)
        row = [f"`{field.name}`", kind, *(facts[name] for name in ("unit", "frame", "form", "doc"))]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows) + "\n"


def parts() -> tuple[str, str, str]:
    before, _, rest = README.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


def test_the_readme_lists_the_fields_of_the_schema():
    assert parts()[1] == field_table(HMR_SKEL)


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(before + BEGIN + field_table(HMR_SKEL) + END + after)
