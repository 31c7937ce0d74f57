"""Images of other formats and turned ones through the whole job: from folders and tars, counted and told."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.build_hmr_skel import main
from pipelines.command.hmr_skel import main as hmr_skel

NAMES = ["plain.jpg", "turned.jpg", "a.webp", "b.bmp", "c.tif", "d.gif", "e.jpg"]
"""The last label says .jpg where the file is a .tiff."""


def encoded(name: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.rpartition(".")[2].upper())
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    how = {"exif": exif.tobytes()} if name.startswith("turned") else {}
    Image.fromarray(noise).save(stream, "TIFF" if name[0] == "e" else kind, **how)
    return stream.getvalue()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    (folder / "images").mkdir()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for name in NAMES:
            stored, data = ("e.tiff" if name == "e.jpg" else name), encoded(name)
            (folder / "images" / stored).write_bytes(data)
            info = tarfile.TarInfo(stored)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    count = len(NAMES)
    np.savez(
        folder / "x.npz",
        imgname=np.array(NAMES),
        center=np.full((count, 2), 150.0),
        scale=np.ones(count),
        pose_cam=np.zeros((count, 72)),
        shape=np.zeros((count, 10)),
        trans_cam=np.tile([0, 0, 5.0], (count, 1)),
        cam_int=np.array([[400.0, 0, 150], [0, 400, 150], [0, 0, 1]]),
        gtkps=np.zeros((count, 44, 3)),
    )
    return folder


@pytest.mark.parametrize("images", ["images", "images.tar"])
def test_formats_and_orientations(inputs, tmp_path, images, caplog, capsys):
    where = ["--annotations", str(inputs / "x.npz"), "--images", str(inputs / images), "--output", str(tmp_path)]
    assert main([*where, "--device", "cpu", "--crop-size", "32"]) == 0
    people = pq.read_table(tmp_path / "000000.parquet", columns=["imgname", "exif_orientation"]).to_pydict()
    turned = dict(zip(people["imgname"], people["exif_orientation"], strict=True))
    rejects = pq.read_table(tmp_path / "_rejects" / "rejects.parquet").to_pylist()
    said = {row["imgname"]: row["detail"] for row in rejects}
    assert turned == {name: 6 if name == "turned.jpg" else 1 for name in NAMES[:5] + NAMES[6:] * (images[-3:] == "tar")}
    assert "GIF image, which is not read" in said["d.gif"] or images[-3:] == "tar"
    assert json.loads((tmp_path / "dataset.json").read_text())["turned_images"] == 1
    assert "1 people are in images with an EXIF orientation, which is not applied" in caplog.text
    assert "EXIF orientation ignored" in capsys.readouterr().out
    verify = ["inspect", str(tmp_path), "--verify", "--against", str(inputs / "x.npz")]
    assert hmr_skel(verify) == 0
    told = json.loads((tmp_path / "dataset.json").read_text()) | {"turned_images": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    assert hmr_skel(verify) == 1
    assert "states 2 turned_images, its shards have 1" in " ".join(capsys.readouterr().out.split())
