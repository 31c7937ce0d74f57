"""Writers of the demo's files in the layouts that users have: CameraHMR label files and 4DHumans image tars."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.demo.scenes import Photo

IMAGES_PER_TAR = 16
JPEG_QUALITY = 92


class DataSetFiles:
    """A label file and its image tars, in the making, with the flaws that belong to the data set."""

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


class Coco(DataSetFiles):
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


class Aic(DataSetFiles):
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
