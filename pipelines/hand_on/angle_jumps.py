"""Frames in which a joint angle jumps: faster than people move, a spike for what differentiates or filters it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitting.anatomy import COORDINATE_NAMES

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.convert.ground import GroundMotion

FASTEST = 1200.0
"""Degrees per second; a sprinter's knee does about 1,000."""

SMALLEST, LARGEST = 20.0, 60.0
"""Degrees between two frames: less is no jump at any frame rate, more is one at any."""

SHOWN = 10


@dataclass(frozen=True)
class Jump:
    """One angle between a frame and the next; degrees."""

    frame: int
    """Row in the source of the frame behind the jump."""
    coordinate: str
    before: float
    after: float

    @property
    def size(self) -> float:
        return abs(self.after - self.before)


def find_jumps(motion: GroundMotion) -> list[Jump]:
    """All jumps, the largest first. Frames on either side of one that is missing are not compared."""
    degrees = np.degrees(motion.angles)
    step = np.abs(np.diff(degrees, axis=0))
    largest = np.clip(FASTEST / motion.frame_rate, SMALLEST, LARGEST)
    neighbours = np.diff(motion.frames) == 1
    found = [
        Jump(int(motion.frames[i + 1]), COORDINATE_NAMES[c], float(degrees[i, c]), float(degrees[i + 1, c]))
        for i, c in np.argwhere((step > largest) & neighbours[:, None])
    ]
    return sorted(found, key=lambda jump: (-jump.size, jump.frame))


def jump_table(jumps: list[Jump]) -> Table:
    """The largest of them for a person to read."""
    from rich.table import Table

    more = f", {SHOWN} of them" if len(jumps) > SHOWN else ""
    title = f"{len(jumps):,} jumps of an angle between two frames{more}"
    table = Table("frame", "coordinate", "from, deg", "to, deg", title=title, title_justify="left")
    for jump in jumps[:SHOWN]:
        table.add_row(str(jump.frame), jump.coordinate, f"{jump.before:.1f}", f"{jump.after:.1f}")
    return table
