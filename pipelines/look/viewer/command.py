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
    sources: Annotated[list[str], Positional, arg(metavar="SHARDS|FIT|PREDICTION")] = field(default_factory=list)
    """A folder of shards, shards or a glob of them; one .npz that hmr-skel fit wrote; or the folder or .parquet that
    hmr-skel predict wrote."""
    rows: Annotated[str, arg(metavar="START:STOP:STEP")] = ":"
    """Of a fit: rows to show, of a film: frames, as START:STOP or START:STOP:STEP; parts may be left out."""
    people: int = PEOPLE
    """How many people of shards, or pictures of a prediction, to show, evenly spread; of a film: the longest tracks."""
    source: Annotated[str | None, arg(metavar="NAME")] = None
    """Of a prediction: the picture or film to show; by default all pictures, or the one film."""
    images: Annotated[Path | None, arg(metavar="DIR")] = None
    """Of a prediction: the folder from which the names of its pictures lead to them; by default where you are."""
    up: Literal["auto", "y", "z", "camera"] = "auto"
    """Of a fit: which axis of its frame points up; auto: as its trunks tell. Others are in the camera's frame."""
    body_models: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder with the official SKEL files, or demo; by default what shards or prediction name, of a fit demo."""


def main(argv: list[str], prog: str = "hmr-skel view") -> int:
    """Show fitted people on a page of their own: skin, bones, angles over time, the camera's view."""
    from pipelines.command.hmr_skel import console
    from pipelines.files.outputs import check_output_file, written
    from pipelines.look.viewer.page import clip_page
    from pipelines.look.viewer.sources import open_clip
    from schemas import InputError

    options = parse_options(ViewOptions, argv, prog, "Show fitted people on one HTML page that needs nothing else.")
    check_output_file(options.html, "--html", [".html", ".htm"])
    if options.people < 1:
        raise InputError(f"{options.people} given", field="--people", expected="a positive number")
    rows = parse_row_range(options.rows, step=True)
    how = options.up, options.body_models, options.source, options.images
    clip = open_clip(options.sources, rows, options.people, *how)
    if len(clip) > MOST_FRAMES:
        step = -(-len(clip) // MOST_FRAMES)
        raise InputError(
            f"{len(clip):,} bodies",
            field="--rows",
            expected=f"at most {MOST_FRAMES:,}, such as ::{step} or 0:{MOST_FRAMES}",
        )
    text = clip_page(clip)
    with written(options.html) as hidden:
        hidden.write_text(text, encoding="utf-8")
    console().print(f"{options.html}: {clip.extent}, {len(text) / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    return 0
