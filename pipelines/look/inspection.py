"""The command `hmr-skel inspect`: what is in HMR-SKEL shards, in numbers, one sample, a picture or a verdict.

Numbers come from the Parquet files alone, and of them only from the columns that are shown.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from pipelines.command.devices import cores
from pipelines.command.hmr_skel import console
from pipelines.command.options import Positional, arg, parse_options
from pipelines.files.shards import (
    REJECTS_FILE,
    Shard,
    concatenated,
    find_key,
    find_shards,
    parquet_problems,
    read_columns,
    read_document,
    read_members,
    read_parts,
    read_rows,
    whole_folder,
)
from pipelines.files.storage import readable
from pipelines.write.statistics import mean_and_quantiles
from schemas import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY_SCALARS = ("converged", "iterations", "limits_exceeded", "worst_limit_excess", "limits_pressed", "betas_change")
WORST_SHOWN = ("max_vertex_error_mm", "joint_error_mm", "converged", "limits_pressed")


@dataclass
class InspectOptions:
    """What to show of which shards."""

    paths: Annotated[list[str], Positional, arg(metavar="SHARDS...")] = field(default_factory=list)
    """A shard (NNNNNN.tar), a folder of shards or a glob; several may be given."""
    sample: Annotated[str | None, arg(metavar="KEY")] = None
    """Show the sample of this key in full."""
    worst: int = 5
    """How many of the worst samples to list."""
    verify: bool = False
    """Check checksums, schema, counts and every sample; exit status 1 if anything is wrong."""
    against: Annotated[list[str], arg(metavar="FILE...")] = field(default_factory=list)
    """With --verify: label files that the shards were made from; each of their rows must be in one shard or among the
    rejects."""
    contact_sheet: Path | None = None
    """Draw people with skin and skeleton over their crops into this image file."""
    report: Path | None = None
    """Write a page with tables and histograms of distances, joint angles and rejects to this .html file."""
    people: int = 24
    """How many people the contact sheet shows."""
    pick: Literal["mixed", "worst", "best", "random"] = "mixed"
    """Whom the contact sheet shows by mean vertex distance; mixed: a third worst, a third best, the rest at random."""
    seed: int = 0
    """Seed of the random pick."""
    tile_size: int = 256
    """Side of a picture on the contact sheet, pixels."""
    body_models: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder with the SKEL model that the shards were made with, or demo; by default what dataset.json names."""
    json: bool = False
    """Print JSON instead of tables."""


def main(argv: list[str], prog: str = "hmr-skel inspect") -> int:
    """Show what is in HMR-SKEL shards: counts, errors, samples, pictures; verify them."""
    options = parse_options(InspectOptions, argv, prog, "Show what is in HMR-SKEL shards, or verify them.")
    if not options.paths:
        raise InputError("no shards given", expected="a shard (NNNNNN.tar), a folder of shards or a glob")
    shards = find_shards(options.paths)
    status = 0
    if options.sample is not None:
        shard, sample = find_key(shards, options.sample)
        _show_sample(shard, sample, options.json, console())
    if options.verify or options.against:
        from pipelines.look.verification import verify

        verdict = verify(shards, options.against)
        if options.json:
            _print_json(verdict.document())
        else:
            verdict.show(console())
        status = 0 if verdict.passed else 1
    if options.report is not None:
        from pipelines.look.report import write_report

        write_report(shards, options.report, count_rejects(shards), body_models=options.body_models)
        if not options.json:
            console().print(f"report: {options.report}", highlight=False, soft_wrap=True)
    if options.contact_sheet is not None:
        people = draw_contact_sheet(shards, options)
        if not options.json:
            console().print(
                f"contact sheet of {people} people: {options.contact_sheet}", highlight=False, soft_wrap=True
            )
    shown = options.sample is not None or options.verify or options.against
    drawn = options.contact_sheet is not None or options.report is not None
    if not shown and (not drawn or options.json):
        summary = summarise(shards, options.worst)
        if options.json:
            _print_json(summary)
        else:
            _show_summary(summary, console())
    return status


def summarise(shards: Sequence[Shard], worst: int = 5) -> dict:
    """Counts, distances, limits and the worst samples of shards, as a JSON document.

    Distances are millimetres, angles radians; a statistic of no people is None.
    """
    from schemas import QUANTILE_FIELDS, STAGES

    parts = read_parts(
        shards,
        [
            "dataset",
            "verdict",
            "label_check",
            "reprojection_error",
            *SUMMARY_SCALARS,
            *QUANTILE_FIELDS,
            "stage_vertex_error_mm",
        ],
    )
    table = concatenated(parts)
    scalars = {name: table[name].to_numpy() for name in (*SUMMARY_SCALARS, *QUANTILE_FIELDS)}
    stages = table["stage_vertex_error_mm"].combine_chunks().flatten().to_numpy().reshape(-1, len(STAGES))
    described = [name for name in scalars if name in (*QUANTILE_FIELDS, "iterations", "betas_change")]
    columns = {name: scalars[name] for name in described} | dict(zip(STAGES, stages.T, strict=True))
    with ThreadPoolExecutor(cores()) as pool:  # quantiles of a million numbers are what is left to compute
        found = dict(zip(columns, pool.map(statistics, columns.values()), strict=True))
    errors = table["reprojection_error"].drop_null().to_numpy()
    exceeded, pressed = scalars["limits_exceeded"], scalars["limits_pressed"]
    return {
        "shards": len(shards),
        "samples": table.num_rows,
        "converged": int(scalars["converged"].sum()),
        "verdicts": _counts(table["verdict"].drop_null()),
        "label_checks": _counts(table["label_check"].drop_null()),
        "reprojection_error": statistics(errors[errors >= 0]),
        "datasets": _counts(table["dataset"]),
        "rejects": count_rejects(shards),
        "errors": {name: found[name] for name in QUANTILE_FIELDS},
        "stages": {name: found[name] for name in STAGES},
        "iterations": found["iterations"],
        "betas_change": found["betas_change"],
        "limits": {
            "people_exceeding": int((exceeded > 0).sum()),
            "angles_exceeding": int(exceeded.sum()),
            "worst_excess_rad": float(scalars["worst_limit_excess"].max()) if len(exceeded) else None,
            "people_pressing": int((pressed > 0).sum()),
            "angles_pressing": int(pressed.sum()),
        },
        "worst": _worst(shards, [len(part) for part in parts], scalars["vertex_error_mm"], worst),
        "fields": _fields(shards[0]),
    }


def statistics(values: np.ndarray) -> dict[str, float] | None:
    """Mean and quantiles of the finite values; None if there are none."""
    return mean_and_quantiles(values[np.isfinite(values)])


def count_rejects(shards: Sequence[Shard]) -> dict[str, int]:
    """Rejected label rows by reason: of a whole folder from its rejects file, of a lone shard from its statistics."""
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    folders: dict[Path, list[Shard]] = {}
    for shard in shards:
        folders.setdefault(shard.folder, []).append(shard)
    for folder, members in folders.items():
        rejects = folder / REJECTS_FILE
        if whole_folder(members) and rejects.is_file():
            with parquet_problems(rejects):
                counts.update(_counts(pq.read_table(readable(rejects), columns=["reason"])["reason"]))
        else:
            for shard in members:
                stated = read_document(shard.stats).get("rejects") if shard.stats.is_file() else {}
                if not isinstance(stated, dict):
                    raise InputError("no counts", file=shard.stats, field="rejects", expected="reason: rows")
                counts.update(stated)
    return dict(sorted(counts.items()))


def pick_rows(errors: np.ndarray, count: int, pick: str, seed: int) -> np.ndarray:
    """Rows of the people to show, by mean vertex distance; all rows if there are fewer. Worst come first."""
    count = min(count, len(errors))
    order = np.argsort(-np.where(np.isfinite(errors), errors, np.inf), kind="stable")
    shares = {"worst": (count, 0), "best": (0, count), "random": (0, 0), "mixed": (-(-count // 3), count // 3)}
    worst, best = shares[pick]
    chosen = [order[:worst], order[len(order) - best :]]
    rest = order[worst : len(order) - best]
    others = np.random.default_rng(seed).choice(rest, count - worst - best, replace=False)
    return np.concatenate([chosen[0], np.sort(others), chosen[1]])


def draw_contact_sheet(shards: Sequence[Shard], options: InspectOptions) -> int:
    """Writes the contact sheet to `options.contact_sheet`, and returns how many people are on it.

    Raises InputError if there is nobody to draw, or if it cannot be written.
    """
    import cv2

    from pipelines.draw.sheet import body_of, contact_sheet, tiles_of

    errors = read_columns(shards, ["vertex_error_mm"])["vertex_error_mm"].to_numpy()
    if not len(errors):
        raise InputError("no samples to draw", file=shards[0].parquet, field="--contact-sheet")
    for name in ("people", "tile_size"):
        if getattr(options, name) < 1:
            raise InputError("not a positive number", field=f"--{name.replace('_', '-')}")
    samples = read_rows(shards, pick_rows(errors, options.people, options.pick, options.seed))
    skel = body_of(shards, options.body_models)
    sheet = contact_sheet(tiles_of(samples, skel), skel.faces, skel.skeleton_faces, options.tile_size)
    try:
        written = cv2.imwrite(str(options.contact_sheet), np.ascontiguousarray(sheet[:, :, ::-1]))
    except cv2.error:  # an ending that is no image format
        written = False
    if not written:
        expected = "a .png or .jpg file in a folder that exists"
        raise InputError("cannot be written", file=options.contact_sheet, field="--contact-sheet", expected=expected)
    return len(samples)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in column.value_counts().to_pylist()}


def _worst(shards: Sequence[Shard], counts: Sequence[int], errors: np.ndarray, count: int) -> list[dict]:
    if not len(errors) or count < 1:
        return []
    errors = np.where(np.isfinite(errors), errors, np.inf)
    top = np.argpartition(-errors, min(count, len(errors)) - 1)[:count]
    names = ("key", "vertex_error_mm", *WORST_SHOWN)
    rows = read_rows(shards, top[np.argsort(-errors[top], kind="stable")], names, counts)
    return [{"shard": shard.name, **{name: _plain(row[name]) for name in names}} for shard, row in rows]


def _fields(shard: Shard) -> list[dict]:
    import pyarrow.parquet as pq

    from schemas import field_dtype, field_shape

    found = []
    with parquet_problems(shard.parquet):
        schema = pq.read_schema(readable(shard.parquet))
    for stored in schema:
        facts = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
        if "shape" not in facts:
            continue
        entry = {
            "name": stored.name,
            "dtype": "text" if field_dtype(stored).kind == "O" else str(field_dtype(stored)),
            "shape": list(field_shape(stored)),
        }
        found.append(entry | {name: facts[name] for name in ("unit", "frame", "doc")})
    return found


def _show_sample(shard: Shard, sample: dict, as_json: bool, out) -> None:
    members = read_members(shard, [sample["key"]]).get(sample["key"], {}) if shard.tar.is_file() else {}
    sizes = {ending: len(content) for ending, content in members.items()}
    if as_json:
        document = {name: _plain(value) for name, value in sample.items()}
        _print_json({"shard": shard.name, "members_bytes": sizes, **document})
        return
    from rich.table import Table

    from schemas import HMR_SKEL, describe

    table = Table("field", "type", "value", title=f"{sample['key']} in {shard.tar}", title_justify="left")
    for name, value in sample.items():
        text = str(_plain(value))
        if isinstance(value, np.ndarray):
            text = np.array2string(value, precision=4, suppress_small=True, threshold=10_000, max_line_width=96)
        known = HMR_SKEL.get_field_index(name) >= 0
        table.add_row(name, describe(HMR_SKEL.field(name)) if known else "", text)
    for ending, size in sizes.items():
        table.add_row(f".{ending}", "member of the tar", f"{size:,} bytes")
    out.print(table)


def _show_summary(summary: dict, out) -> None:
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


def _plain(value):
    """A numpy value as JSON has it; what is not finite as None."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _print_json(document: dict) -> None:
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
