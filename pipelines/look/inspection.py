"""The command `hmr-skel inspect`: what is in HMR-SKEL shards, in numbers, one sample, a picture or a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from pipelines.command.hmr_skel import console
from pipelines.command.options import Positional, arg, parse_options
from pipelines.files.outputs import check_output_file, written
from pipelines.files.shards import Shard, find_key, find_shards, read_columns, read_people
from pipelines.look.summary import count_rejects, summarise
from pipelines.look.tables import print_json, show_sample, show_summary
from schemas import InputError


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
    if options.contact_sheet is not None:
        check_output_file(options.contact_sheet, "--contact-sheet", [".png", ".jpg", ".jpeg"])
    if options.report is not None:
        check_output_file(options.report, "--report", [".html", ".htm"])
    shards = find_shards(options.paths)
    status = 0
    if options.sample is not None:
        shard, sample = find_key(shards, options.sample)
        show_sample(shard, sample, options.json, console())
    if options.verify or options.against:
        from pipelines.look.verification import verify

        verdict = verify(shards, options.against)
        if options.json:
            print_json(verdict.document())
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
            print_json(summary)
        else:
            show_summary(summary, console())
    return status


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
    samples = read_people(shards, pick_rows(errors, options.people, options.pick, options.seed))
    skel = body_of(shards, options.body_models)
    sheet = contact_sheet(tiles_of(samples, skel), skel.faces, skel.skeleton_faces, options.tile_size)
    encoded = cv2.imencode(options.contact_sheet.suffix.lower(), np.ascontiguousarray(sheet[:, :, ::-1]))[1]
    with written(options.contact_sheet) as hidden:
        hidden.write_bytes(encoded.tobytes())
    return len(samples)
