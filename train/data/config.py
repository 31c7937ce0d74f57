"""Which people are drawn from shards. Imports nothing heavy, for command lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """Which people are drawn from the shards."""

    shards: list[str] = field(default_factory=list)
    """folders, tars, globs or URLs of tars; each tar has its Parquet file beside it"""
    weights: list[str] = field(default_factory=list)
    """shares of the data sets, as NAME=NUMBER; default: everybody once per epoch"""
    max_vertex_error_mm: float = 30.0
    """leave out people whose fit is further off than this on average"""
    unconverged: bool = False
    """also take people whose fit did not converge"""
    verdicts: list[str] = field(default_factory=lambda: ["good", "at_limits"])
    """take people whose fit is judged so: good, at_limits, far, implausible_shape, doubtful_source"""
    label_checks: list[str] = field(default_factory=list)
    """take only people whose labels compare so with their 2D keypoints: unchecked, consistent, cam_ext_added,
    translation_in_mm, translation_in_cm, translation_from_keypoints, off_keypoints, contradicts_keypoints; default:
    all but the last"""
    max_reprojection_error: float = 0.5
    """leave out people whose SMPL joints project further than this, in boxes, from their 2D keypoints"""
    smallest_box: float = 20.0
    """leave out people whose box is smaller than this, px"""
    part: Literal["all", "training", "held-out"] = "all"
    """everybody, or one side of a division by image that never changes"""
    held_out: float = 0.1
    """share of images that are held out"""
    limit: int = 0
    """take only the first people who pass; 0 = all"""
    margin: float = 1.0
    """side of the network's input divided by the side of the person's box"""
    window: int = 8
    """shards among which people are shuffled"""
    cache: str = "~/.cache/hmr-skel"
    """folder for copies of shards that lie behind URLs, which all processes of a machine share"""
    allow_pipe: bool = False
    """let 'pipe:COMMAND' among the shards run a command of the shell"""
    cache_gb: float = 0.0
    """what copied tars may take; the longest unused go first, so give room for two windows of shards; 0 = no limit"""
