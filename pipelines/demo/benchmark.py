"""A benchmark that anybody can run: rendered people with known truth, in the layouts of the field's test files.

    python -m pipelines.demo.benchmark DIR [--images N] [--seed S] [--draft]

writes, for each grade of difficulty (everyday, yoga, occluded, perspective),

    DIR/demo_GRADE_a.npz    as CameraHMR's test files: SMPL poses, keypoints, a camera that no evaluation may look at
    DIR/demo_GRADE_b.npz    as MOYO's: boxes in px, SMPL as a pickled dictionary
    DIR/demo_GRADE_c.npz    as 4D-Humans' evaluation files: names as bytes, 44 keypoints in 2D and 3D
    DIR/images/GRADE/...    what all three refer to

The people are others than those of `python -m pipelines.demo.data` with any seed. Boxes are tight around what is seen.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from pipelines.command.hmr_skel import guarded
from pipelines.command.options import Positional, arg, parse_options
from pipelines.command.progress import progress_bar
from pipelines.demo.files import JPEG_QUALITY
from pipelines.files.outputs import check_output_folder, written
from schemas import InputError

if TYPE_CHECKING:
    from pipelines.demo.scenes import Photo, Staging

_SEED = 2
"""Sets the numbers of this module apart from those of the demo data, which begin with 0 and 1."""
_OPENPOSE = 25


@dataclass(frozen=True)
class Grade:
    """A difficulty."""

    people: int
    """per image, at most; not all find a place"""
    key_poses: tuple[str, ...] | None = None
    staging: dict[str, object] | None = None
    """settings of pipelines.demo.scenes.Staging"""


GRADES = {
    "everyday": Grade(3, ("stand", "stand_easy", "walk", "stroll", "sit", "sit_crossed_ankles", "reach", "pick_up")),
    "yoga": Grade(
        *(
            2,
            ("warrior", "tree", "lunge", "side_lunge", "arabesque", "kneel", "all_fours", "squat", "sit_floor", "star"),
        )
    ),
    "occluded": Grade(9, None, {"hidden": 0.85, "apart": 0.45, "fill": (0.6, 0.95)}),
    "perspective": Grade(3, None, {"lenses": (0.45, 0.6), "lens_shares": (0.5, 0.5), "fill": (0.85, 1.15)}),
}


def write_benchmark(directory: str | os.PathLike[str], images: int = 12, seed: int = 0, draft: bool = False) -> int:
    """Writes the files, `images` per grade; how many people there are. The same options give the same bytes.

    Raises InputError if there is something else at one of the names.
    """
    from pipelines.demo.scenes import Staging, demo_studio, draw_cast, take_photo

    root = Path(directory)
    if images < 1:
        raise InputError(f"{images} images", field="images", expected="at least 1")
    check_output_folder(root, "DIR")
    if (root / "images").exists() and not list(root.glob("demo_*_a.npz")):
        raise InputError("holds images/ of somebody else", file=root, expected="an empty or new directory")
    studio, total = demo_studio(), 0
    with progress_bar(desc="Rendering the benchmark", unit="images", total=images * len(GRADES)) as bar:
        for n, (name, grade) in enumerate(GRADES.items()):
            rng = np.random.default_rng([seed, _SEED, n])
            cast = draw_cast(images * grade.people, rng, grade.key_poses)
            staging: Staging = Staging(**(grade.staging or {}))
            shutil.rmtree(root / "images" / name, ignore_errors=True)
            photos = []
            for index in range(images):
                part = cast.part(index * grade.people, (index + 1) * grade.people)
                seeds = np.random.default_rng([seed, _SEED, n, index])
                photos.append(take_photo(studio, part, seeds, draft, staging))
                _write_image(root / _imgname(name, index), photos[-1].image)
                bar.update()
            total += _write_labels(root, name, photos)
    return total


def _imgname(grade: str, index: int) -> str:
    return f"images/{grade}/{index:04d}.jpg"


def _write_image(path: Path, image: np.ndarray) -> None:
    import cv2

    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    with written(path) as hidden:
        hidden.write_bytes(encoded.tobytes())


def _write_labels(root: Path, grade: str, photos: list[Photo]) -> int:
    counts = [len(photo.people) for photo in photos]
    names = np.repeat([_imgname(grade, n).removeprefix("images/") for n in range(len(photos))], counts)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(photo, name) for photo in photos]).astype(np.float32)

    boxes, poses, betas = column("boxes"), column("poses"), column("betas")
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    keypoints_2d, keypoints_3d = column("keypoints_2d"), column("keypoints_3d")
    _save(
        root / f"demo_{grade}_a.npz",
        imgname=names,
        center=center,
        scale=size / 200,
        pose_cam=poses,
        shape=betas,
        gtkps=keypoints_2d,
        cam_int=np.repeat(np.stack([photo.cam_int for photo in photos]), counts, axis=0).astype(np.float32),
    )
    smpl = {"global_orient": poses[:, None, :3], "body_pose": poses[:, 3:].reshape(-1, 23, 3), "betas": betas}
    _save(
        root / f"demo_{grade}_b.npz",
        names=np.repeat([f"{grade}_{n:04d}" for n in range(len(photos))], counts),
        img_paths=names,
        centers=center,
        scales=size,
        smpl=np.array(smpl, dtype=object),
        extra_info=np.array({"dataset_name": "MoYo"}, dtype=object),
    )
    _save(
        root / f"demo_{grade}_c.npz",
        imgname=names.astype("S"),
        center=center,
        scale=size,
        body_keypoints_2d=keypoints_2d[:, :_OPENPOSE],
        extra_keypoints_2d=keypoints_2d[:, _OPENPOSE:],
        body_keypoints_3d=keypoints_3d[:, :_OPENPOSE],
        extra_keypoints_3d=keypoints_3d[:, _OPENPOSE:],
    )
    return len(names)


def _save(path: Path, **arrays: np.ndarray) -> None:
    """As numpy does it, for one of the layouts holds objects."""
    with written(path) as hidden, hidden.open("wb") as file:
        np.savez(file, **arrays)


@dataclass(frozen=True)
class BenchmarkCommand:
    """Options of `python -m pipelines.demo.benchmark`."""

    directory: Annotated[Path, Positional, arg(metavar="DIR")]
    """where to write; an older benchmark there is replaced"""
    images: int = 12
    """images per grade"""
    seed: int = 0
    """another seed gives other people"""
    draft: bool = False
    """pictures of half the size with fewer rays"""


def main(argv: list[str] | None = None) -> int:
    """Render the demo benchmark into a directory."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(parse_options(BenchmarkCommand, arguments, PROG, main.__doc__ or "")), PROG)


def _run(options: BenchmarkCommand) -> None:
    people = write_benchmark(options.directory, options.images, options.seed, options.draft)
    sys.stdout.write(f"{options.directory}: {people} people of {len(GRADES)} grades\n")


PROG = "python -m pipelines.demo.benchmark"

if __name__ == "__main__":
    sys.exit(main())
