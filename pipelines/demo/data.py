"""Demo labels and images: a few hundred rendered people in exactly the layouts that users of the field have.

    python -m pipelines.demo.data DIR [--images N] [--seed S] [--people N] [--draft]

writes

    DIR/labels/coco-release.npz, DIR/labels/aic-release.npz    CameraHMR label files
    DIR/images/coco-train-2014-vitpose/000000.tar ...           4DHumans image tars: KEY.jpg, KEY.data.pyd and, for
    DIR/images/aic-train-vitpose/000000.tar ...                 some images, KEY.detection.npz
    DIR/body_models/                                            the embedded body as official SMPL and SKEL files
    DIR/demo.json                                               what made it, written last

The two label files differ as real ones do: coco's is stored uncompressed with one scale per person and refers to
images by path where the tars have base names; aic's is compressed with two scales and says aic-train/ where the tars
say aic-train-vitpose/.

Four flaws of real data are put in on purpose, so that a run over the demo shows rejects: in coco the JPEG of one image
of two people is damaged and one person's box has no size; in aic one image of two people is not in the tars and one
pose is NaN. FLAWS counts the rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from pipelines.command.build_options import BuildOptions
from pipelines.command.devices import cores
from pipelines.command.hmr_skel import guarded
from pipelines.command.options import Positional, arg, parse_options
from pipelines.command.progress import progress_bar
from pipelines.demo.files import Aic, Coco
from pipelines.files.outputs import check_output_folder
from schemas import InputError

if TYPE_CHECKING:
    from pipelines.demo.scenes import Photo

log = logging.getLogger(__name__)

FLAWS = {"corrupt_image": 2, "missing_image": 2, "degenerate_box": 1, "non_finite_pose": 1}
"""Label rows that a run rejects, by reason (schemas.REJECT_REASONS); fewer where a picture had room for one person."""

_MANIFEST = "demo.json"
_PARTS = ("labels", "images", "body_models")


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo's inputs lie, as the options of pipelines/build_hmr_skel.py take them."""

    annotations: str
    """Glob of the label files."""
    images: str
    """Folder with the image tars."""
    body_models: str
    """Body-model directory."""


@dataclass(frozen=True)
class DemoOptions:
    """What determines the demo data."""

    images: int = 48
    """Number of images, at least 4; coco has the even ones, aic the odd ones."""
    seed: int = 0
    """Another seed gives other people."""
    people: int = 6
    """People per image on average; between half and one and a half times as many try to find a place."""
    draft: bool = False
    """Pictures of half the size with fewer rays: a third of the time, for training data."""


def demo_inputs(
    directory: str | os.PathLike[str],
    images: int = 48,
    seed: int = 0,
    people: int = 6,
    draft: bool = False,
    *,
    workers: int | None = None,
    progress: bool | None = None,
) -> DemoPaths:
    """Write the demo data into a directory, or find that it is there already.

    The bytes depend on the options and the package only, not on `workers` (processes that render; None = one per
    core, at most 4). `progress` shows a bar; None = if stderr is a terminal. Raises InputError if the options are out
    of range or the directory holds folders of these names that this function did not write.
    """
    options = DemoOptions(images, seed, people, draft)
    if images < 4:
        raise InputError(f"{images} images", field="images", expected="at least 4")
    if people < 1:
        raise InputError(f"{people} people per image", field="people", expected="at least 1")
    root = Path(directory)
    paths = DemoPaths(str(root / "labels" / "*.npz"), str(root / "images"), str(root / "body_models"))
    spec = {"options": asdict(options), "source": _source_hash()}
    if _is_complete(root, spec):
        log.info("%s: demo data is complete", root)
        return paths
    check_output_folder(root, "DIR")
    _check_ours(root)
    part = root / f".partial-{os.getpid()}"
    part.mkdir(parents=True)
    try:
        _write_all(part, options, workers, sys.stderr.isatty() if progress is None else progress)
        manifest = {"spec": spec, "complete": False, "files": _file_sizes(part)}
        _write_manifest(root, manifest)
        for name in _PARTS:
            if (root / name).exists():
                shutil.rmtree(root / name)
            (part / name).rename(root / name)
        _write_manifest(root, manifest | {"complete": True})
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return paths


def with_demo_inputs(options: BuildOptions) -> BuildOptions:
    """The options of a job without label files, with the demo's. Raises InputError for images that they would miss."""
    if options.images and options.with_images:
        raise InputError("missing", field="--annotations", expected="the label files that belong to --images")
    paths = demo_inputs(Path("demo") / "input")
    output = options.output or str(Path("demo") / "hmr_skel")
    return replace(options, annotations=[paths.annotations], images=options.images or paths.images, output=output)


def _write_all(root: Path, options: DemoOptions, workers: int | None, progress: bool) -> None:
    from fitting import demo_body
    from pipelines.demo.scenes import draw_cast

    (root / "labels").mkdir()
    demo_body.write_model_directory(root / "body_models")
    rng = np.random.default_rng([options.seed, 0])
    counts = rng.integers((options.people + 1) // 2, options.people * 3 // 2 + 1, size=options.images)
    # the two images that will be lost show few people
    counts[[0, 1]] = np.minimum(counts[[0, 1]], 2)
    cast = draw_cast(int(counts.sum()), rng)
    ends = np.cumsum(counts)
    jobs = [
        (cast.part(end - n, end), [options.seed, 1, i], options.draft)
        for i, (n, end) in enumerate(zip(counts, ends, strict=True))
    ]
    sets = [Coco(root), Aic(root)]
    shown = progress_bar(desc="Rendering demo images", unit="images", total=options.images, quiet=not progress)
    with shown as bar:
        for index, photo in enumerate(_photos(jobs, workers)):
            sets[index % 2].add(photo)
            bar.update()
    for data_set in sets:
        data_set.finish()


def _photos(jobs: list[tuple], workers: int | None) -> Iterator[Photo]:
    """Pictures in order, rendered in other processes if that pays."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    count = min(workers or min(cores(), 4), len(jobs) // 4)
    done = 0
    if count > 1:
        try:
            # fresh interpreters: a copy of this one may hold locks of threads that it does not have
            spawn = get_context("spawn")
            with _one_thread_each(), ProcessPoolExecutor(count, mp_context=spawn, initializer=_one_thread) as pool:
                for photo in pool.map(_photo, jobs):
                    yield photo
                    done += 1
        except BrokenProcessPool:  # little memory, or a script that starts again when a worker imports it
            log.warning("rendering in one process: the worker processes ended")
    yield from map(_photo, jobs[done:])


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside have one thread for linear algebra, which reads its number when it is imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_thread() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _photo(job: tuple) -> Photo:
    from pipelines.demo.scenes import demo_studio, take_photo

    cast, seed, draft = job
    return take_photo(demo_studio(), cast, np.random.default_rng(seed), draft)


def _source_hash() -> str:
    """Changes when the code or the body that makes the demo changes."""
    from fitting import demo_body

    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "draw" / "rays.py"]
    files += sorted(Path(demo_body.__file__).parent.glob("*.npz"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _file_sizes(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_size for p in sorted(root.rglob("*")) if p.is_file()}


def _read_manifest(root: Path) -> dict | None:
    try:
        return json.loads((root / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _write_manifest(root: Path, manifest: dict) -> None:
    fresh = root / f"{_MANIFEST}.{os.getpid()}"
    fresh.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    fresh.replace(root / _MANIFEST)


def _is_complete(root: Path, spec: dict) -> bool:
    manifest = _read_manifest(root)
    if manifest is None or manifest.get("spec") != spec or not manifest.get("complete"):
        return False
    found = {name: (root / name).stat().st_size for name in manifest["files"] if (root / name).is_file()}
    return found == manifest["files"]


def _check_ours(root: Path) -> None:
    """Older demo data may be replaced, somebody's files may not."""
    taken = [name for name in _PARTS if (root / name).exists()]
    if taken and _read_manifest(root) is None:
        raise InputError(
            f"holds {taken[0]}/ but no {_MANIFEST}: not demo data", file=root, expected="an empty or new directory"
        )


@dataclass(frozen=True)
class DemoCommand(DemoOptions):
    """Options of `python -m pipelines.demo.data`."""

    directory: Annotated[Path | None, Positional, arg(metavar="DIR")] = None
    """Where to write; an older demo there is replaced."""
    workers: int | None = None
    """Processes that render; by default one per core, at most 4."""


def main(argv: list[str] | None = None) -> int:
    """Write the demo labels, image tars and body models into a directory."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(parse_options(DemoCommand, arguments, PROG, main.__doc__ or "")), PROG)


def _run(options: DemoCommand) -> None:
    if options.directory is None:
        raise InputError("no directory given", expected="DIR")
    size = options.images, options.seed, options.people, options.draft
    paths = demo_inputs(options.directory, *size, workers=options.workers)
    for name, value in asdict(paths).items():
        sys.stdout.write(f"--{name.replace('_', '-')} {value}\n")


PROG = "python -m pipelines.demo.data"


if __name__ == "__main__":
    sys.exit(main())
