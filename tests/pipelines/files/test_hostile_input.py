"""Files that nobody should have written: refused, named, counted; never another error, a hang, or much memory."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import written_shards
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.build_hmr_skel import main
from pipelines.files.jpeg import ImageError, decode_image
from pipelines.files.shards import find_shards, read_document, tar_samples
from pipelines.files.tar import TarScan
from pipelines.look.inspection import main as inspect
from pipelines.plan.person_numbers import person_numbers
from pipelines.read.images import ImageRef, open_images, read_image
from pipelines.read.labels import MOST_ROWS, open_labels
from schemas import InputError
from train.data.config import DataConfig
from train.data.loader import PeopleStream

EXAMPLES = settings(max_examples=200, deadline=2000, suppress_health_check=list(HealthCheck))
"""A single example that takes more than two seconds fails: that is a hang."""

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "delete", "insert", "cut", "extreme"]),
        st.floats(0, 1),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=12,
)


def mutated(data: bytes, edits) -> bytes:
    changed = bytearray(data)
    for kind, place, value in edits:
        if not changed:
            break
        at = min(int(place * len(changed)), len(changed) - 1)
        if kind == "set":
            changed[at] = value & 255
        elif kind == "flip":
            changed[at] ^= 1 << (value & 7)
        elif kind == "delete":
            del changed[at : at + 1 + value % 64]
        elif kind == "insert":
            changed[at:at] = random.Random(value).randbytes(1 + value % 20)
        elif kind == "cut":
            del changed[at:]
        else:
            extreme = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"-777", b"99999999"][value % 5]
            changed[at : at + len(extreme)] = extreme
    return bytes(changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def label_arrays(rows=6):
    return {
        "imgname": np.array([f"a/{i}.jpg" for i in range(rows)]),
        "center": np.full((rows, 2), 50.0),
        "scale": np.ones(rows),
        "pose_cam": np.zeros((rows, 72), np.float32),
        "shape": np.zeros((rows, 10)),
        "cam_int": np.tile(np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]), (rows, 1, 1)),
        "gtkps": np.zeros((rows, 44, 3)),
        "trans_cam": np.tile([0.0, 0, 3], (rows, 1)),
        "mocap_framerate": np.array(30.0),
    }


def npz(save):
    buffer = io.BytesIO()
    save(buffer, **label_arrays())
    return buffer.getvalue()


STORED, PACKED = npz(np.savez), npz(np.savez_compressed)


def read_labels(path):
    labels = open_labels(path)
    for name, values in labels.read().items():
        assert len(values) == labels.rows, name
    for name in labels.fields:
        assert sum(map(len, labels.iterate(name, 4))) == labels.rows
    person_numbers(labels)


@pytest.mark.parametrize("data", [STORED, PACKED], ids=["stored", "compressed"])
def test_label_files(folder, data):
    path = folder / "a.npz"

    @EXAMPLES
    @given(EDITS)
    def refused_or_read(edits):
        path.write_bytes(mutated(data, edits))
        try:
            read_labels(path)
        except InputError as error:
            assert str(path) in str(error)

    refused_or_read()


def tar_of(*members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def with_checksums(tar: bytes) -> bytes:
    """Headers made valid again, as somebody would who means harm."""
    changed = bytearray(tar)
    for at in range(0, len(changed) - 511, 512):
        header = changed[at : at + 512]
        if header[257:262] == b"ustar":
            changed[at + 148 : at + 156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    return bytes(changed)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("repair", [bytes, with_checksums])
def test_tars(folder, format, repair):
    data = tar_of(("a/b.jpg", b"x" * 700), ("y/" * 90 + "ü.png", b"z" * 600), ("c.jpg", b""), format=format)
    path = folder / "a.tar"

    @EXAMPLES
    @given(EDITS)
    def refused_or_listed(edits):
        path.write_bytes(repair(mutated(data, edits)))
        size = path.stat().st_size
        for member in TarScan(str(path)):
            assert 0 <= member.offset <= member.offset + member.size <= size
        try:
            images = open_images(str(path))
        except InputError as error:
            assert str(path) in str(error)
            return
        assert isinstance(images.find("aic", "a/b.jpg"), str | ImageRef)

    refused_or_listed()


def test_a_size_that_leads_back_ends_the_scan(folder):
    """A signed octal size would bring the scan to the same header again and again."""
    for size in (b"-0000001000\0", b"+0000000000\0", b"0_0\0", b"\xff" * 12, b"\x80" + b"\0" * 3 + b"\xff" * 8):
        data = bytearray(tar_of(("a.jpg", b"x" * 512), ("b.jpg", b"x")))
        data[1024 + 124 : 1024 + 136] = size.ljust(12, b"\0")
        path = folder / "back.tar"
        path.write_bytes(with_checksums(bytes(data)))
        scan = TarScan(str(path))
        assert [member.name for member in scan] == ["a.jpg"]
        assert scan.damage.offset == 1024


PICTURE = (np.random.default_rng(0).random((40, 60, 3)) * 255).astype(np.uint8)


def encoded(ending, *options):
    return cv2.imencode(ending, PICTURE, options)[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [encoded(".jpg"), encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encoded(".png")],
    ids=["jpeg", "progressive", "png"],
)
def test_images(data):
    @EXAMPLES
    @given(EDITS)
    def refused_or_decoded(edits):
        try:
            pixels = decode_image(mutated(data, edits))
        except ImageError:
            return
        assert pixels.dtype == np.uint8 and pixels.ndim == 3

    refused_or_decoded()


SHARD_FILES = ["000000.json", "dataset.json", "000000.parquet", "_rejects/rejects.parquet", "000000.tar"]


@pytest.mark.parametrize("name", SHARD_FILES)
@pytest.mark.parametrize("mode", ["--verify", "--json"])
def test_shards(folder, name, mode, capsys):
    """`hmr-skel inspect` on damaged shards: numbers, a verdict, or an InputError."""
    shards = folder / "shards"
    if not shards.exists():
        written_shards.write_dataset(shards, (3, 2))
    whole = (shards / name).read_bytes()

    @settings(EXAMPLES, max_examples=25, deadline=4000)
    @given(EDITS)
    def refused_or_judged(edits):
        changed = mutated(whole, edits)
        (shards / name).write_bytes(changed)
        try:
            status = inspect([str(shards), mode])
        except InputError as error:
            assert str(shards) in str(error)
            return
        finally:
            capsys.readouterr()
        if mode == "--verify" and name.startswith("000000") and not name.endswith("json") and changed != whole:
            assert status == 1

    try:
        refused_or_judged()
    finally:
        (shards / name).write_bytes(whole)


def npy(shape, dtype="<f4", data=b""):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue() + data


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, data in members.items():
            packed.writestr(f"{name}.npy", data)
    return path


def zeros_member(path, shape, dtype, count):
    """An .npz with one member of `count` zero bytes after its header, packed a thousand to one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("pose_cam.npy", "w") as member:
        member.write(npy(shape, dtype))
        for _ in range(count >> 20):
            member.write(bytes(1 << 20))
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("shape.npy", npy((10,), data=bytes(40)))
    return path


class Memory:
    """What Python and NumPy allocate at most, in MB."""

    def __enter__(self):
        tracemalloc.start()
        self.began = time.monotonic()
        return self

    def __exit__(self, *error):
        self.mb = tracemalloc.get_traced_memory()[1] / 1e6
        self.seconds = time.monotonic() - self.began
        tracemalloc.stop()


def label_bombs(folder):
    rows = 1 << 40
    yield "promises", archive(folder / "rows.npz", {"pose_cam": npy((rows, 72)), "shape": npy((rows, 10))})
    yield "promises", archive(folder / "wide.npz", {"pose_cam": npy((2, 1 << 40)), "shape": npy((2, 10))})
    yield "not an array", archive(folder / "deep.npz", {"pose_cam": b"\x93NUMPY\x01\0\xff\x0f" + b"(" * 4095})
    long = b"\x93NUMPY\x02\0" + struct.pack("<I", (1 << 32) - 1) + b" " * 100_000
    yield "not an array", archive(folder / "header.npz", {"pose_cam": long}, zipfile.ZIP_DEFLATED)
    yield "rows of", zeros_member(folder / "row.npz", (64, 1 << 18), "<f4", 64 << 20)
    yield (
        "pickle",
        archive(
            folder / "object.npz",
            {"pose_cam": npy((2, 72), "|O", data=b"x" * 2000), "shape": npy((10,), data=bytes(40))},
        ),
    )
    lzma = archive(folder / "lzma.npz", {"pose_cam": npy((2, 72), data=bytes(576))}, zipfile.ZIP_LZMA)
    yield "another way", lzma
    lying = bytearray(PACKED)
    at = lying.index(b"PK\x01\x02")
    lying[at + 24 : at + 28] = struct.pack("<I", (1 << 32) - 2)  # unpacked size in the directory
    (folder / "lying.npz").write_bytes(lying)
    yield "cannot hold", folder / "lying.npz"


def test_label_bombs_are_refused_before_they_unpack(folder):
    for text, path in label_bombs(folder):
        with Memory() as memory, pytest.raises(InputError, match=text):
            open_labels(path)
        assert memory.mb < 8 and memory.seconds < 2, path.name


def test_a_thousandfold_packed_file_is_read_in_pieces(folder, monkeypatch):
    """128 MB of zeros in 128 KB: names of 1 KB each."""
    path = folder / "zeros.npz"
    rows = 1 << 17
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("imgname.npy", "w") as member:
            member.write(npy((rows,), "<U256"))
            for _ in range(128):
                member.write(bytes(1 << 20))
        packed.writestr("pose_cam.npy", npy((rows, 72), data=bytes(rows * 288)))
        packed.writestr("shape.npy", npy((10,), data=bytes(40)))
    assert path.stat().st_size < 1 << 20
    labels = open_labels(path)
    with Memory() as memory:
        assert sum(map(len, labels.iterate("imgname"))) == rows
    assert memory.mb < 80
    monkeypatch.setattr("pipelines.read.labels.MOST_ROWS", rows - 1)
    with pytest.raises(InputError, match=f"{rows} rows"):
        open_labels(path)
    assert MOST_ROWS >= 50_000_000


def png_of(width, height, data=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def jpeg_of(width, height):
    data = bytearray(encoded(".jpg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans():
    data = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * 60 + data[-2:]


IMAGE_BOMBS = {
    "60000 x 60000 png": png_of(60000, 60000),
    "9000 x 9000 png": png_of(9000, 9000, bytes(1 << 20)),
    "65500 x 65500 jpeg": jpeg_of(65500, 65500),
    "9000 x 9000 jpeg": jpeg_of(9000, 9000),
    "scans": many_scans(),
    "empty": b"",
    "text": b"<svg/>",
}


@pytest.mark.parametrize("data", IMAGE_BOMBS.values(), ids=IMAGE_BOMBS)
def test_image_bombs(data):
    with Memory() as memory, pytest.raises(ImageError):
        decode_image(data)
    assert memory.mb < 8 and memory.seconds < 1


def test_an_image_that_is_only_plain_is_no_bomb():
    """One colour packs as well as anything that is honest."""
    plain = np.full((3000, 4000, 3), 255, np.uint8)
    for ending, options in ((".png", (cv2.IMWRITE_PNG_COMPRESSION, 9)), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))):
        data = cv2.imencode(ending, plain, options)[1].tobytes()
        assert decode_image(data).shape == plain.shape


class Bomb:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_job_on_hostile_tars_counts_what_it_refuses(tmp_path, caplog):
    """Names out of the folder, links, devices, bombs and pickles, one per row; the honest row is written."""
    mark = tmp_path / "opened"
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(encoded(".jpg"))
    good = cv2.imencode(".jpg", np.full((100, 100, 3), 90, np.uint8))[1].tobytes()
    members = [
        ("good.jpg", good),
        ("good.data.pyd", pickle.dumps([Bomb(mark)])),
        ("../outside.jpg", good),
        (str(outside), good),
        (special("link.jpg", tarfile.SYMTYPE, str(outside)), b""),
        (special("hard.jpg", tarfile.LNKTYPE, "good.jpg"), b""),
        (special("pipe.jpg", tarfile.FIFOTYPE), b""),
        (special("device.jpg", tarfile.CHRTYPE), b""),
        ("bomb.png", IMAGE_BOMBS["60000 x 60000 png"]),
        ("scans.jpg", IMAGE_BOMBS["scans"]),
    ]
    (tmp_path / "images.tar").write_bytes(tar_of(*members))
    names = [
        "good",
        "../outside",
        str(outside),
        "link",
        "hard",
        "pipe",
        "device",
        "bomb",
        "scans",
        "good.jpg",
        "\ud800",
    ]
    arrays = label_arrays(len(names))
    arrays["imgname"] = np.array(names)
    arrays["pose_cam"][:, 0] = np.pi
    np.savez(tmp_path / "aic.npz", **arrays)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    out = tmp_path / "out"
    arguments = ["--annotations", str(tmp_path / "aic.npz"), "--images", str(tmp_path / "images.tar")]
    with caplog.at_level(logging.WARNING, "pipelines"):
        assert main([*arguments, "--output", str(out), "--quiet"]) == 0
    assert "refused 2 links and 2 names" in caplog.text and "'../outside.jpg'" in caplog.text
    rejects = {
        row["label_row"]: (row["reason"], row["detail"])
        for row in pq.read_table(out / "_rejects" / "rejects.parquet").to_pylist()
    }
    assert sorted(rejects) == [*range(1, 9), 10]
    assert {rejects[row][0] for row in range(1, 7)} == {"missing_image"}
    assert {rejects[row][0] for row in (7, 8)} == {"corrupt_image"}
    assert rejects[10][0] == "unreadable_row"
    assert "60000 x 60000" in rejects[7][1] and "scans" in rejects[8][1]
    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["samples"] + sum(manifest["rejects"].values()) == len(names)
    assert not mark.exists()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path != out} == before


def test_a_job_on_a_hostile_folder_counts_what_it_refuses(tmp_path):
    images = tmp_path / "images"
    (images / "inside").mkdir(parents=True)
    picture = cv2.imencode(".jpg", np.full((100, 100, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "secret.jpg").write_bytes(picture)
    (images / "inside" / "good.jpg").write_bytes(picture)
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (images / "folder").symlink_to(tmp_path)
    (images / "circle.jpg").symlink_to("circle.jpg")
    (images / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.jpg")
    (images / "nothing.jpg").write_bytes(b"")
    refused = [
        "../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "inside/../../secret.jpg",
        "link.jpg",
        "folder/secret.jpg",
    ]
    refused += ["circle.jpg", "zero.jpg", "pipe.jpg", "inside", "x" * 5000, "nothing.jpg"]
    arrays = label_arrays(1 + len(refused))
    arrays["imgname"] = np.array(["inside/good.jpg", *refused])
    arrays["pose_cam"][:, 0] = np.pi
    np.savez(tmp_path / "aic.npz", **arrays)
    out = tmp_path / "out"
    arguments = ["--annotations", str(tmp_path / "aic.npz"), "--images", str(images), "--output", str(out), "--quiet"]
    assert main(arguments) == 0
    rejects = {row["imgname"]: row["reason"] for row in pq.read_table(out / "_rejects" / "rejects.parquet").to_pylist()}
    assert rejects == dict.fromkeys(refused, "missing_image") | {"nothing.jpg": "corrupt_image"}


def test_files_that_change_between_plan_and_work(tmp_path):
    """A planned file that has become a link or a pipe."""
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert read_image(str(tmp_path), ImageRef("a.jpg", 0, 5)) == b"12345"
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    for name in ("pipe.jpg", "link.jpg", "no.jpg", ".", "/dev/zero"):
        with pytest.raises(OSError):
            read_image(str(tmp_path), ImageRef(name, 0, 5))


def test_pipes_and_devices_are_no_input(tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe.npz")
    os.mkfifo(tmp_path / "pipe.tar")
    os.mkfifo(tmp_path / "dataset.json")
    np.savez(tmp_path / "aic.npz", **label_arrays(1))
    for label_file, images in (
        ("pipe.npz", "none"),
        ("/dev/zero", "none"),
        ("aic.npz", "pipe.tar"),
        ("aic.npz", "/dev/zero"),
    ):
        arguments = ["--annotations", str(tmp_path / label_file), "--images", images]
        if images != "none":
            arguments[3] = str(tmp_path / images)
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
        assert "no such" in capfd.readouterr().err
    with pytest.raises(InputError, match="not a regular file"):
        read_document(tmp_path / "dataset.json")
    with pytest.raises(InputError):
        find_shards([tmp_path / "pipe.tar"])


def test_shards_that_unpack_without_end(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not JSON"):
        read_document(tmp_path / "deep.json")
    sparse = tarfile.TarInfo("a.jpg")
    sparse.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1"}
    sparse.pax_headers |= {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
    (tmp_path / "sparse.tar").write_bytes(tar_of((sparse, b"x")))
    with Memory() as memory:
        assert list(tar_samples(tmp_path / "sparse.tar")) == []
    assert memory.mb < 8


def renamed(data, old, new):
    """A name changed in the archive's directory, as damage would; the member itself keeps its own."""
    at = data.rindex(old)
    return data[:at] + new + data[at + len(old) :]


def swallowed(data, name):
    """The length of an entry's comment in the directory damaged, so that it takes what follows for its own."""
    changed, at = bytearray(data), data.rindex(name) - 46
    assert changed[at : at + 4] == b"PK\x01\x02"
    changed[at + 32 : at + 34] = struct.pack("<H", data.rindex(b"PK\x05\x06") - at - 46 - len(name))
    return bytes(changed)


@pytest.mark.parametrize("data", [STORED, PACKED], ids=["stored", "compressed"])
def test_an_array_does_not_vanish_from_an_archive(folder, data):
    """Without `trans_cam` people would stand elsewhere, without `gender` they would be others."""
    path = folder / "vanished.npz"
    for changed in (
        renamed(data, b"trans_cam.npy", b"trans_cam.npx"),
        renamed(data, b"trans_cam.npy", b"trans_cab.npy"),
        renamed(data, b"shape.npy", b"scale.npy"),
        swallowed(data, b"shape.npy"),
    ):
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"vanished\.npz"):
            open_labels(path)
    path.write_bytes(data)
    assert "trans_cam" in open_labels(path).fields
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as packed:
        packed.writestr("shape.npy", npy((6, 10), "<f8", bytes(480)))
    with pytest.raises(InputError, match="'shape': two members of this name"):
        open_labels(path)


@pytest.mark.parametrize("facts", [None, {}, {b"shape": b"[]"}, {b"shape": b"[2, 23]", b"form": b"npz"}], ids=str)
def test_columns_whose_metadata_say_something_else(tmp_path, facts, capsys):
    """Two times 23 angles are no pose."""
    shards = written_shards.write_dataset(tmp_path / "shards", (3,))
    path = shards / "000000.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("poses")
    pq.write_table(table.cast(table.schema.set(place, table.schema.field(place).with_metadata(facts))), path)
    (shards / "000000.json").unlink()
    assert inspect([str(shards), "--verify"]) == 1
    assert "its shape" in " ".join(capsys.readouterr().out.split()) or facts == {b"shape": b"[]"}
    people = DataConfig(shards=[str(path)])
    with pytest.raises(InputError, match=r"field 'poses': the column's metadata lack its shape"):
        PeopleStream(people, 3)
