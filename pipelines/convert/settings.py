"""The settings of a fit and of a crop: worker arguments, and what of them a shard's bytes depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from schemas import HMR_SKEL, record_version

PACKAGE = "hmr-skel"
_PACKAGES = (PACKAGE, "numpy", "torch", "smplx", "opencv-python-headless", "simplejpeg", "pyarrow")

BEHAVIOUR = 7
"""Version of what the code makes of rows, images and options. Raise it with every change after which a shard's bytes
are others (how crops are cut, decoded and encoded, what the fit finds, what is rejected): reruns over an older data set
then make its shards again instead of keeping them. 2: JPEGs are decoded at reduced size. 3: the fit solves its bounded
steps to their optimum. 4: human joint limits, betas near the source's, verdicts. 5: rows are
compared with themselves. 6: WebP, BMP and TIFF are read. 7: bodies that no
translation brings to their keypoints contradict them."""

JointLimits = tuple[tuple[float, float], ...]

_HARMLESS = {"harmless": True}
"""Of a setting that changes no byte of a shard, or the last digits of a fit only."""


@dataclass(frozen=True)
class FitSettings:
    """What SMPL is fitted with, and where. Plain values: they travel to the workers."""

    body_models: str = "demo"
    gender: str = "male"
    limits: str | JointLimits = "human"
    """Name of a table, or (46, 2) rad."""
    betas: Literal["keep", "near", "free"] = "near"
    smpl_gender: str | None = None
    """Gender of the SMPL that all rows are for; None: what the label files say."""
    device: str = field(default="auto", metadata=_HARMLESS)
    batch_size: int | None = field(default=None, metadata=_HARMLESS)
    threads: int = field(default=1, metadata=_HARMLESS)
    """CPU threads of each process."""


@dataclass(frozen=True)
class CropSettings:
    """What is stored of an image; options of the same names say more."""

    images: bool = True
    crop: Literal["person", "none"] = "person"
    crop_size: int = 384
    context: float = 1.5
    jpeg_quality: int = 90
    image_threads: int = field(default=2, metadata=_HARMLESS)


@dataclass(frozen=True)
class ConversionSettings:
    """How rows become samples; what a worker knows besides the rows."""

    output: str
    fit: FitSettings = FitSettings()
    crop: CropSettings = CropSettings()
    float_width: Literal[16, 32, 64] = 32
    versions: dict[str, str] = field(default_factory=dict)
    run: str = ""
    """Token of the run that may write to `output`."""
    body_models: dict[str, Any] = field(default_factory=dict)
    """`BodyModels.facts`."""

    def made_with(self) -> dict[str, Any]:
        """What a shard tells about its numbers: body models, and the coordinates that poses are, rad."""
        return {"body_models": self.body_models, "coordinates": coordinates(self.fit.limits)}

    def sha256(self) -> str:
        """sha256 of everything but rows and images that determines a shard's bytes.

        Of the body models their content counts, not where they are. A setting that is None is left out: one that is
        added later does not make the shards of those who do not use it again.
        """
        facts = _counted(self.fit) | _counted(self.crop)
        facts |= {
            "body_models": self.body_models.get("sha256", ""),
            "float_width": self.float_width,
            "behaviour": BEHAVIOUR,
            "record": record_version(HMR_SKEL),
            "package": package_versions()[PACKAGE],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _counted(record: FitSettings | CropSettings) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record) if not field.metadata.get("harmless")}
    return {name: value for name, value in values.items() if value is not None}


def limits_for_workers(source: str) -> str | JointLimits:
    """What `--limits` says, with a file's content in its place: it may be on this machine only. Raises InputError."""
    from fitting.body.limits import LIMITS, read_limits

    return source if source in LIMITS else tuple((float(low), float(high)) for low, high in read_limits(source))


def limits_in_degrees(limits: str | JointLimits) -> dict[str, list[float | None]]:
    """Coordinate -> lowest and highest angle, None where there is no limit, as a manifest tells them."""
    from fitting import read_limits
    from fitting.anatomy import COORDINATE_NAMES

    table = np.degrees(read_limits(limits) if isinstance(limits, str) else limits)
    ends = [[round(float(end), 4) if np.isfinite(end) else None for end in row] for row in table]
    return dict(zip(COORDINATE_NAMES, ends, strict=True))


def coordinates(limits: str | JointLimits) -> list[dict[str, Any]]:
    """SKEL's 46 coordinates in the order of poses: name, unit, lowest and highest angle, None without limit."""
    from fitting import read_limits
    from fitting.anatomy import COORDINATE_NAMES

    table = np.asarray(read_limits(limits) if isinstance(limits, str) else limits, np.float64)
    ends = [[round(float(end), 6) if np.isfinite(end) else None for end in row] for row in table]
    return [
        {"name": name, "unit": "rad", "low": low, "high": high}
        for name, (low, high) in zip(COORDINATE_NAMES, ends, strict=True)
    ]


def package_versions() -> dict[str, str]:
    """Versions of the packages that what is written depends on."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions
