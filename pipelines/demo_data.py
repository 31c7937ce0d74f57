"""Demo labels and images: a few hundred rendered people in exactly the layouts that users of the field have.

    python -m pipelines.demo_data DIR [--images N] [--seed S] [--people N]

writes

    DIR/labels/coco-release.npz, DIR/labels/aic-release.npz    CameraHMR label files (DESIGN section 5)
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
import io
import json
import logging
import os
import pickle
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from simple_parsing import field

from pipelines.cli import guarded, parse_options
from schemas import InputError

if TYPE_CHECKING:
    from pipelines.demo_scenes import Photo

log = logging.getLogger(__name__)

FLAWS = {"corrupt_image": 2, "missing_image": 2, "degenerate_box": 1, "non_finite_pose": 1}
"""Label rows that a run rejects, by reason (schemas.REJECT_REASONS); fewer where a picture had room for one person."""

IMAGES_PER_TAR = 16
JPEG_QUALITY = 92
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


def demo_inputs(
    directory: str | os.PathLike[str],
    images: int = 48,
    seed: int = 0,
    people: int = 6,
    *,
    workers: int | None = None,
    progress: bool | None = None,
) -> DemoPaths:
    """Write the demo data into a directory, or find that it is there already.

    The bytes depend on the options and the package only, not on `workers` (processes that render; None = one per
    core, at most 4). `progress` shows a bar; None = if stderr is a terminal. Raises InputError if the options are out
    of range or the directory holds folders of these names that this function did not write.
    """
    options = DemoOptions(images=images, seed=seed, people=people)
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


def _write_all(root: Path, options: DemoOptions, workers: int | None, progress: bool) -> None:
    from tqdm import tqdm

    from fitting import demo_body
    from pipelines.demo_scenes import draw_cast

    (root / "labels").mkdir()
    demo_body.write_model_directory(root / "body_models")
    rng = np.random.default_rng([options.seed, 0])
    counts = rng.integers((options.people + 1) // 2, options.people * 3 // 2 + 1, size=options.images)
    # the two images that will be lost show few people
    counts[[0, 1]] = np.minimum(counts[[0, 1]], 2)
    cast = draw_cast(int(counts.sum()), rng)
    ends = np.cumsum(counts)
    jobs = [
        (cast.part(end - n, end), [options.seed, 1, i]) for i, (n, end) in enumerate(zip(counts, ends, strict=True))
    ]
    sets = [_Coco(root), _Aic(root)]
    shown = tqdm(total=options.images, desc="Rendering demo images", unit="image", disable=not progress)
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

    count = min(workers or min(os.cpu_count() or 1, 4), len(jobs) // 4)
    done = 0
    if count > 1:
        try:
            # fresh interpreters: a copy of this one may hold locks of threads that it does not have
            with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
                for photo in pool.map(_photo, jobs):
                    yield photo
                    done += 1
        except BrokenProcessPool:  # little memory, or a script that starts again when a worker imports it
            log.warning("rendering in one process: the worker processes ended")
    yield from map(_photo, jobs[done:])


def _one_thread() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _photo(job: tuple) -> Photo:
    from pipelines.demo_scenes import demo_studio, take_photo

    cast, seed = job
    return take_photo(demo_studio(), cast, np.random.default_rng(seed))


class _DataSet:
    """A label file and its image tars, in the making."""

    name: str
    tar_folder: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = 0
        self.rows: list[dict[str, np.ndarray | str]] = []

    def imgname(self, index: int) -> str:
        """What the label file says."""
        raise NotImplementedError

    def key(self, imgname: str) -> str:
        """What the tars say."""
        raise NotImplementedError

    def add(self, photo: Photo) -> None:
        imgname = self.imgname(self.images)
        people = [_label_row(photo, n) for n in range(len(photo.people))]
        self.rows += [{"imgname": imgname, **row} for row in people]
        members = {".jpg": _jpeg(photo.image), ".data.pyd": _annotation(people)}
        if self.images % 3 == 0:
            members[".detection.npz"] = _npz(
                boxes=photo.boxes.astype(np.float32), scores=np.ones(len(photo.boxes), np.float32)
            )
        self.store(self.images, self.key(imgname), members)
        self.images += 1

    def store(self, index: int, key: str, members: dict[str, bytes]) -> None:
        folder = self.root / "images" / self.tar_folder
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / f"{index // IMAGES_PER_TAR:06d}.tar", "a", format=tarfile.GNU_FORMAT) as tar:
            for ending, content in members.items():
                entry = tarfile.TarInfo(key + ending)  # its time and owner are 0
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

    def finish(self) -> None:
        """Writes the label file."""
        raise NotImplementedError

    def columns(self) -> dict[str, np.ndarray]:
        return {name: np.stack([row[name] for row in self.rows]) for name in self.rows[0]}


class _Coco(_DataSet):
    name, tar_folder = "coco", "coco-train-2014-vitpose"

    def imgname(self, index: int) -> str:
        return f"images/train2014/COCO_train2014_{(index * 7919 + 25) % 581929:012d}.jpg"

    def key(self, imgname: str) -> str:
        return Path(imgname).stem

    def store(self, index: int, key: str, members: dict[str, bytes]) -> None:
        if index == 0:  # as after a disk error: the file's name and size are right, its content is not
            members[".jpg"] = members[".jpg"][:64] + bytes(len(members[".jpg"]) - 64)
        super().store(index, key, members)

    def finish(self) -> None:
        columns = self.columns()
        columns["scale"] = columns["scale"].max(axis=1)
        columns["scale"][-1] = 0.0
        np.savez(self.root / "labels" / "coco-release.npz", **columns)


class _Aic(_DataSet):
    name, tar_folder = "aic", "aic-train-vitpose"

    def imgname(self, index: int) -> str:
        return f"aic-train/keypoint_train_images_20170902/{hashlib.sha1(b'%d' % index).hexdigest()}.jpg"

    def key(self, imgname: str) -> str:
        return imgname.replace("aic-train/", "aic-train-vitpose/").removesuffix(".jpg")

    def store(self, index: int, key: str, members: dict[str, bytes]) -> None:
        if index != 0:  # the first image is missing
            super().store(index, key, members)

    def finish(self) -> None:
        columns = self.columns()
        columns["pose_cam"][-1, 5] = np.nan
        np.savez_compressed(self.root / "labels" / "aic-release.npz", **columns)


def _label_row(photo: Photo, n: int) -> dict[str, np.ndarray]:
    """A person's label, float32."""
    left, top, right, bottom = photo.boxes[n]
    row = {
        "center": [(left + right) / 2, (top + bottom) / 2],
        "scale": [(right - left) / 200, (bottom - top) / 200],
        "pose_cam": photo.poses[n],
        "shape": photo.betas[n],
        "cam_int": photo.cam_int,
        "gtkps": photo.keypoints_2d[n],
        "trans_cam": photo.trans[n],
        "keypoints3d": photo.keypoints_3d[n],
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in row.items()}


def _annotation(people: list[dict[str, np.ndarray]]) -> bytes:
    """4DHumans' KEY.data.pyd: a pickled list with a dictionary per person."""
    return pickle.dumps(
        [
            {
                "keypoints_2d": row["gtkps"],
                "keypoints_3d": row["keypoints3d"],
                "center": row["center"],
                "scale": row["scale"],
                "body_pose": row["pose_cam"][3:],
                "betas": row["shape"],
                "has_body_pose": np.float32(1.0),
                "has_betas": np.float32(1.0),
                "extra_info": {},
            }
            for row in people
        ],
        protocol=4,
    )


def _jpeg(image: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _npz(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _source_hash() -> str:
    """Changes when the code or the body that makes the demo changes."""
    from fitting import demo_body

    here = Path(__file__).parent
    files = [*sorted(here.glob("demo_*.py")), here / "rendering.py"]
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
    """Options of `python -m pipelines.demo_data`."""

    directory: Path = field(positional=True, metavar="DIR", default=None)  # noqa: RUF009
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
    paths = demo_inputs(options.directory, options.images, options.seed, options.people, workers=options.workers)
    for name, value in asdict(paths).items():
        sys.stdout.write(f"--{name.replace('_', '-')} {value}\n")


PROG = "python -m pipelines.demo_data"


if __name__ == "__main__":
    sys.exit(main())
