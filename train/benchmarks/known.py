"""The benchmarks that have a name: their files, images, protocol, and what the paper measured on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.files.npz import npz_members
from schemas import InputError
from train.benchmarks.images import ImageFolders
from train.benchmarks.labels import COMPARED_3D, layout_of, read_benchmark
from train.benchmarks.people import BenchmarkPeople

_LAYOUT_PROTOCOLS = {"A": "3dpw", "B": "moyo", "C": "h36m"}
PAPER = "SKEL-CF, paper"
"""The paper: Li, Jin et al., SKEL-CF, ECCV 2026 (arXiv 2511.20157)."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark by name."""

    title: str
    files: tuple[str, ...]
    """names that its label file has in the releases"""
    layout: str
    folders: tuple[str, ...]
    """where its images may lie below the data folder"""
    protocol: str
    """of train.evaluate.protocols"""
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """method -> MPJPE, PA-MPJPE and, if there is one, PVE, mm; of keypoints accuracy at 0.05 and 0.1"""


_FIT = "CameraHMR+fit, paper"
_HSMR = "HSMR, paper"
BENCHMARKS = {
    "3dpw": Benchmark(
        *("3DPW", ("3dpw_test.npz", "3dpw_val.npz"), "A", ("3dpw",), "3dpw"),
        {PAPER: (61.5, 38.7, 73.5), _FIT: (70.4, 41.8)},
    ),
    "emdb": Benchmark("EMDB", ("emdb_test.npz",), "A", ("emdb",), "emdb", {PAPER: (72.0, 44.5, 84.7)}),
    "spec-syn": Benchmark("SPEC-SYN", ("spec_test.npz",), "A", ("spec-syn",), "spec-syn", {PAPER: (69.4, 37.1, 83.4)}),
    "moyo": Benchmark(
        *("MOYO", ("moyo_v2.npz",), "B", ("moyo",), "moyo"), {PAPER: (85.0, 51.4, 91.9), _FIT: (75.5, 49.9)}
    ),
    "moyo-hard": Benchmark(
        *("MOYO-HARD", ("moyo_hard.npz",), "B", ("moyo",), "moyo"), {PAPER: (90.0, 61.5, 102.5), _FIT: (88.7, 61.4)}
    ),
    "h36m": Benchmark(
        "Human3.6M P2", ("h36m_val_p2.npz",), "C", ("h36m/images", "h36m-select"), "h36m", {PAPER: (39.0, 31.2)}
    ),
    "3dpw-hsmr": Benchmark("3DPW (HSMR)", ("3dpw_test.npz",), "C", ("3dpw",), "h36m", {_HSMR: (81.5, 54.8)}),
    "coco": Benchmark("COCO", ("coco_val.npz",), "C", ("coco",), "keypoints", {PAPER: (0.80, 0.93)}),
    "lsp-extended": Benchmark("LSP-extended", ("hr-lspet_train.npz",), "C", ("hr-lspet",), "keypoints"),
    "posetrack": Benchmark(
        *("PoseTrack", ("posetrack_2018_val.npz",), "C"),
        *(("posetrack/posetrack2018/posetrack_data", "posetrack"), "keypoints"),
    ),
    "demo-everyday": Benchmark("everyday", ("demo_everyday_a.npz",), "A", ("images",), "3dpw"),
    "demo-yoga": Benchmark("yoga", ("demo_yoga_a.npz",), "A", ("images",), "3dpw"),
    "demo-occluded": Benchmark("occluded", ("demo_occluded_a.npz",), "A", ("images",), "3dpw"),
    "demo-perspective": Benchmark("perspective", ("demo_perspective_a.npz",), "A", ("images",), "3dpw"),
    "demo-moyo": Benchmark("yoga, as MOYO", ("demo_yoga_b.npz",), "B", ("images",), "moyo"),
    "demo-h36m": Benchmark("as Human3.6M", ("demo_everyday_c.npz",), "C", ("images",), "h36m"),
    "demo-keypoints": Benchmark("occluded, as COCO", ("demo_occluded_c.npz",), "C", ("images",), "keypoints"),
}
"""demo-...: what `python -m pipelines.demo.benchmark` writes."""


@dataclass(frozen=True)
class Opened:
    """A benchmark whose label file has been read."""

    name: str
    benchmark: Benchmark
    people: BenchmarkPeople
    images: ImageFolders


def open_benchmark(wanted: str, data: Path) -> Opened:
    """`NAME`, a known benchmark below the folder `data`, or `NAME=FILE`, a label file; NAME may then be any.

    Label files lie in `data` or its folders labels/ and evaluation/; of several of a name the first of the benchmark's
    layout is taken. An unknown NAME gets the protocol of the file's
    layout. Raises InputError if there is no such benchmark or file, or the file has another layout.
    """
    name, given, file = wanted.partition("=")
    known = BENCHMARKS.get(name)
    if known is None and not given:
        raise InputError(
            f"no benchmark {name!r}", field="--benchmark", expected=f"NAME=FILE or {', '.join(BENCHMARKS)}"
        )
    path = Path(file) if given else _label_file(known, data)
    layout = layout_of(npz_members(str(path)), str(path))
    if known is None:
        known = Benchmark(name, (path.name,), layout, (), _LAYOUT_PROTOCOLS[layout])
    elif layout != known.layout:
        raise InputError(
            f"its keys are those of layout {layout}", file=path, expected=f"layout {known.layout}, which {name} has"
        )
    people = read_benchmark(path)
    if name not in BENCHMARKS and layout == "C" and people.keypoints_3d is None:
        known = replace(known, protocol="keypoints")
    needs = {"keypoints": ("keypoints_2d", "extra_keypoints_2d"), "h36m": ("keypoints_3d", COMPARED_3D)}
    array, key = needs.get(known.protocol, ("poses", "pose_cam"))
    if getattr(people, array) is None:
        problem = f"the field is missing, and the protocol {known.protocol} compares with it"
        raise InputError(problem, file=path, field=key)
    folders = (*(data / folder for folder in known.folders), data, path.parent)
    return Opened(name, known, people, ImageFolders(folders))


def _label_file(benchmark: Benchmark, data: Path) -> Path:
    places = [data, data / "labels", data / "evaluation"]
    found = [place / name for name in benchmark.files for place in places if (place / name).is_file()]
    for path in found:
        if len(found) == 1 or layout_of(npz_members(str(path)), str(path)) == benchmark.layout:
            return path
    if found:
        return found[0]
    raise InputError(
        f"no label file of {benchmark.title}",
        file=data,
        expected=f"{' or '.join(benchmark.files)}, there or in labels/",
    )
