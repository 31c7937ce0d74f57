"""The people of a benchmark: boxes, truth, and how each is to be cut out of which image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

Layout = Literal["A", "B", "C"]


@dataclass(frozen=True)
class BenchmarkPeople:
    """N people of one label file; arrays that the file has no truth for are None. Pixels of the stored image."""

    file: str
    layout: Layout
    """of the label file (README.md beside this): A CameraHMR's test files, B MOYO, C 4D-Humans' evaluation files"""
    rows: np.ndarray
    """(N,) row in the file"""
    imgname: np.ndarray
    """(N,) text: image below the image folder"""
    sequence: np.ndarray
    """(N,) text: sequence, or the image's folder where the file names none"""
    center: np.ndarray
    """(N, 2) centre of the box, px"""
    label_box: np.ndarray
    """(N, 2) width and height of the label's box, px"""
    side: np.ndarray
    """(N,) side of the square that the network sees, px"""
    poses: np.ndarray | None = None
    """(N, 72) SMPL axis-angle, camera frame, rad"""
    betas: np.ndarray | None = None
    """(N, 10)"""
    gender: np.ndarray | None = None
    """(N,) male, female, or neutral where the file says so; unstated where it says nothing"""
    keypoints_2d: np.ndarray | None = None
    """(N, 44, 3) px and confidence"""
    keypoints_3d: np.ndarray | None = None
    """(N, 44, 4) m and confidence"""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> BenchmarkPeople:
        """Some of them: indices, or a mask."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: a[chosen] for name, a in arrays.items() if isinstance(a, np.ndarray)})
