"""The command `hmr-skel view`: fitted people on one HTML page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pipelines.command.options import Positional, arg, parse_options, parse_row_range

MOST_FRAMES = 3000
"""A page with more takes a browser long to open."""

PEOPLE = 24


@dataclass
class ViewOptions:
    """What to show, and where to write the page."""

    html: Annotated[Path, arg(metavar="OUT")]
    """The .html file to write."""
    sources: Annotated[list[str], Positional, arg(metavar="SHARDS|FIT")] = field(default_factory=list)
    """A folder of shards, shards or a glob of them; or one .npz that hmr-skel fit wrote."""
    rows: Annotated[str, arg(metavar="START:STOP:STEP")] = ":"
    """Of a fit: rows to show, as START:STOP or START:STOP:STEP; parts may be left out."""
    people: int = PEOPLE
    """Of shards: how many people to show, evenly spread over them."""
    up: Literal["auto", "y", "z", "camera"] = "auto"
    """Of a fit: which axis of its frame points up; auto: as its trunks tell. Shards are in the camera's frame."""
    body_models: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder with the official SKEL files, or demo; by default what the shards name, of a fit the embedded body."""


def main(argv: list[str], prog: str = "hmr-skel view") -> int:
    """Show fitted people on a page of their own: skin, bones, angles over time, the camera's view."""
    from pipelines.command.hmr_skel import console
    from pipelines.files.storage import published
    from pipelines.look.viewer.clips import open_clip
    from pipelines.look.viewer.page import clip_page
    from schemas import InputError

    options = parse_options(ViewOptions, argv, prog, "Show fitted people on one HTML page that needs nothing else.")
    if options.html.suffix not in (".html", ".htm"):
        raise InputError("cannot be written", file=options.html, field="--html", expected="a name that ends in .html")
    if options.people < 1:
        raise InputError(f"{options.people} given", field="--people", expected="a positive number")
    clip = open_clip(
        options.sources, parse_row_range(options.rows, step=True), options.people, options.up, options.body_models
    )
    if len(clip) > MOST_FRAMES:
        step = -(-len(clip) // MOST_FRAMES)
        raise InputError(
            f"{len(clip):,} frames",
            field="--rows",
            expected=f"at most {MOST_FRAMES:,}, such as ::{step} or 0:{MOST_FRAMES}",
        )
    text = clip_page(clip)
    try:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        with published(options.html) as hidden:
            hidden.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=options.html) from error
    console().print(f"{options.html}: {len(clip):,} frames, {len(text) / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    return 0
