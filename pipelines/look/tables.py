"""A summary of shards, or one sample, as tables for a terminal or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np

from pipelines.files.shards import Shard, body_models_of, read_members
from pipelines.look.summary import coordinates_of, plain

if TYPE_CHECKING:
    from rich.console import Console


_ANGLES = ("poses", "mirrored_poses")


def show_sample(shard: Shard, sample: dict, as_json: bool, out: Console) -> None:
    """All of one person, and the members of the tar."""
    members = read_members(shard, [sample["key"]]).get(sample["key"], {}) if shard.tar.is_file() else {}
    sizes = {ending: len(content) for ending, content in members.items()}
    if as_json:
        document = {name: plain(value) for name, value in sample.items()}
        told = {"coordinates": coordinates_of(shard), "body_models": body_models_of(shard.folder)}
        print_json({"shard": shard.name, "members_bytes": sizes, **document, **told})
        return
    from rich.table import Table

    from schemas import HMR_SKEL, describe

    table = Table("field", "type", "value", title=f"{sample['key']} in {shard.tar}", title_justify="left")
    for name, value in sample.items():
        text = str(plain(value))
        if isinstance(value, np.ndarray):
            text = np.array2string(value, precision=4, suppress_small=True, threshold=10_000, max_line_width=96)
        if name in _ANGLES:
            text = _angles(value, coordinates_of(shard))
        known = HMR_SKEL.get_field_index(name) >= 0
        table.add_row(name, describe(HMR_SKEL.field(name)) if known else "", text)
    if models := body_models_of(shard.folder):
        table.add_row("body models", "", models)
    for ending, size in sizes.items():
        table.add_row(f".{ending}", "member of the tar", f"{size:,} bytes")
    out.print(table)


def _angles(values: np.ndarray, coordinates: list[dict]) -> str:
    """A line per coordinate: name, angle, and the limits that the fit was held to."""
    lines = []
    for coordinate, value in zip(coordinates, np.asarray(values, np.float64), strict=True):
        ends = [coordinate.get(end) for end in ("low", "high")]
        limits = "" if None in ends else f"  ({ends[0]:.4f} to {ends[1]:.4f})"
        unit = coordinate["unit"]
        lines.append(f"{coordinate['name']:20} {value:8.4f} {unit} {np.degrees(value):7.1f} deg{limits}")
    return "\n".join(lines)


def show_summary(summary: dict, out: Console) -> None:
    """What `summary.summarise` found."""
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        found = Table(title=title, title_justify="left", title_style="bold")
        for i, column in enumerate(columns):
            found.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        return found

    counts = table("counts", "what", "number")
    samples = summary["samples"]
    rows = {"shards": summary["shards"], "samples": samples, "fits converged": summary["converged"]}
    rows |= {f"verdict {word}": count for word, count in summary["verdicts"].items()}
    rows |= {f"labels {word}": count for word, count in summary["label_checks"].items()}
    rows |= {f"3D keypoints: {word}": count for word, count in summary["keypoints_3d_sources"].items()}
    rows |= {f"data set {name}": count for name, count in summary["datasets"].items()}
    rows |= {f"rejected: {reason}": count for reason, count in summary["rejects"].items()} or {"rejected": 0}
    limits = summary["limits"]
    rows |= {
        "people beyond a joint limit": limits["people_exceeding"],
        "angles beyond their limit": limits["angles_exceeding"],
        "people on a joint limit": limits["people_pressing"],
        "angles on their limit": limits["angles_pressing"],
    }
    for name, count in rows.items():
        counts.add_row(name, f"{count:,}")
    if limits["worst_excess_rad"] is not None:
        counts.add_row("worst excess of a limit, degrees", f"{np.degrees(limits['worst_excess_rad']):.3f}")
    for models in summary["body_models"]:
        counts.add_row("body models", models)
    out.print(counts)

    stages = {f"vertex_error_mm after {name}": values for name, values in summary["stages"].items()}
    described = summary["errors"] | stages | {"iterations": summary["iterations"]}
    described |= {name: summary[name] for name in ("betas_change", "reprojection_error")}
    heads = next((list(values) for values in described.values() if values), [])
    errors = table("over people", "quantity", *heads)
    for name, values in described.items():
        errors.add_row(name, *(f"{value:,.2f}" for value in (values or {}).values()))
    out.print(errors)

    worst = table("worst samples by mean vertex distance", *(summary["worst"][0] if summary["worst"] else ["key"]))
    for sample in summary["worst"]:
        worst.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in sample.values()))
    out.print(worst)

    fields = Table("field", "dtype", "shape", "unit", "frame", "meaning", title="fields", title_justify="left")
    for entry in summary["fields"]:
        shape = "x".join(map(str, entry["shape"]))
        fields.add_row(entry["name"], entry["dtype"], shape, entry["unit"], entry["frame"], entry["doc"])
    out.print(fields)


def print_json(document: dict) -> None:
    """To the standard output; a number that is not finite is an error of ours."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
