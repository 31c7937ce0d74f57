"""A photograph for those who have none at hand: three rendered people before a house, from nothing but this package.

    python -m pipelines.demo.photo OUT.jpg [--seed S] [--draft]

Like a camera, it writes the focal length into the picture's EXIF data, rounded to a whole millimetre of 35 mm film.
"""

from __future__ import annotations

import io
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from pipelines.command.hmr_skel import guarded
from pipelines.command.options import Positional, arg, parse_options
from pipelines.demo.files import JPEG_QUALITY
from pipelines.files.outputs import check_output_file, written

if TYPE_CHECKING:
    from pipelines.demo.scenes import Photo

PEOPLE = 3
_SEED = 3
"""Sets the numbers of this module apart from those of the demo's other data, which begin with 0, 1 and 2."""
_POSES = ("stand_easy", "walk", "stroll", "reach", "run", "stand", "warrior")
_STAGING = {"fill": (0.6, 0.85), "hidden": 0.1}

_EXIF, _FOCAL_35MM = 0x8769, 0xA405
"""Tags of EXIF 2.32."""
_DIAGONAL_35MM = math.hypot(36, 24)
"""mm"""


def street_photo(seed: int = 0, draft: bool = False) -> Photo:
    """The photograph and the truth about it; a draft has half the width and height."""
    from pipelines.demo.scenes import Staging, demo_studio, draw_cast, take_photo

    cast = draw_cast(PEOPLE, np.random.default_rng([seed, _SEED]), _POSES)
    rng = np.random.default_rng([seed, _SEED, 1])
    return take_photo(demo_studio(), cast, rng, draft, Staging(**_STAGING))


def jpeg_of(photo: Photo) -> bytes:
    """The file, focal length included. The same photograph gives the same bytes."""
    from PIL import Image

    height, width = photo.image.shape[:2]
    image, content = Image.fromarray(photo.image), io.BytesIO()
    exif = image.getexif()
    exif.get_ifd(_EXIF)[_FOCAL_35MM] = round(photo.cam_int[0, 0] / math.hypot(width, height) * _DIAGONAL_35MM)
    image.save(content, "JPEG", quality=JPEG_QUALITY, exif=exif)
    return content.getvalue()


@dataclass(frozen=True)
class PhotoCommand:
    """Options of `python -m pipelines.demo.photo`."""

    output: Annotated[Path, Positional, arg(metavar="OUT")]
    """the .jpg to write"""
    seed: int = 0
    """another seed gives another photograph"""
    draft: bool = False
    """half the size with fewer rays"""


def main(argv: list[str] | None = None) -> int:
    """Render a photograph of three people."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(parse_options(PhotoCommand, arguments, PROG, main.__doc__ or "")), PROG)


def _run(options: PhotoCommand) -> None:
    path = options.output
    check_output_file(path, "OUT", [".jpg", ".jpeg"])
    content = jpeg_of(street_photo(options.seed, options.draft))
    with written(path) as hidden:
        hidden.write_bytes(content)
    sys.stdout.write(f"{path}\n")


PROG = "python -m pipelines.demo.photo"


if __name__ == "__main__":
    sys.exit(main())
