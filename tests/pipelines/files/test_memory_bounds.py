"""Small files that unpack to much: refused before they do, in every format that packs; what is honest is read.

Memory is what the process takes from the system, decoders included.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitting.body.files import read_model_file
from pipelines.files import npz_whole, parquet
from pipelines.files.jpeg import ImageError, decode_image, opencv_image
from pipelines.files.npz_whole import read_whole
from pipelines.files.parquet import read_table
from pipelines.files.parquet_pages import unpacked_bytes
from pipelines.files.pictures import read_picture
from pipelines.hand_on.fit import main as fit
from pipelines.look.viewer.sources import fit_clip
from pipelines.read.results import label_file_of
from schemas import InputError
from train.benchmarks.labels import read_benchmark

MOST = 150e6
"""Bytes: what may be unpacked to without asking (64 MiB), twice, and some."""


class Taken:
    """Bytes that the process took from the system within a block."""

    def __enter__(self):
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self.before = self._peak()
        return self

    def __exit__(self, *error):
        self.bytes = self._peak() - self.before

    @staticmethod
    def _peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def npz_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, (shape, dtype) in members.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
            with packed.open(f"{name}.npy", "w") as member:
                member.write(header.getvalue())
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                for _ in range(size >> 20):
                    member.write(bytes(1 << 20))
                member.write(bytes(size & ((1 << 20) - 1)))
    return path


ROWS = 500_000
BENCHMARK = {
    "imgname": ((ROWS,), "<U1"),
    "center": ((ROWS, 2), "<f8"),
    "scale": ((ROWS,), "<f8"),
    "pose_cam": ((ROWS, 72), "<f8"),
    "shape": ((ROWS, 10), "<f8"),
}
FIT = {
    "poses": ((ROWS, 46), "<f8"),
    "betas": ((ROWS, 10), "<f8"),
    "trans": ((ROWS, 3), "<f8"),
    "valid": ((ROWS,), "|b1"),
}


@pytest.mark.parametrize(
    ("members", "read"),
    [
        (BENCHMARK, read_benchmark),
        (BENCHMARK, lambda path: fit([str(path), "-o", str(path.with_name("out.npz"))])),
        (FIT, lambda path: fit_clip(path, slice(None), "y", None)),
        (FIT, lambda path: read_whole(str(path))),
        ({"v_template": ((ROWS * 40, 3), "<f8")}, read_model_file),
    ],
    ids=["benchmark", "fit", "view", "whole", "model"],
)
def test_arrays_of_zeros(tmp_path, members, read):
    path = npz_of(tmp_path / "zeros.npz", members)
    assert path.stat().st_size < 1 << 20
    with Taken() as taken, pytest.raises(InputError, match=r"unpacks? to \d+"):
        read(path)
    assert taken.bytes < MOST


def test_arrays_that_are_only_compressible_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_whole, "WHOLE_BYTES", 0)
    values = np.repeat(np.random.default_rng(0).random(5000), 20)
    np.savez_compressed(tmp_path / "a.npz", values=values)
    assert values.nbytes / (tmp_path / "a.npz").stat().st_size > 10
    np.testing.assert_array_equal(read_whole(str(tmp_path / "a.npz"))["values"], values)


def repeated(path, kind, value, rows):
    """A Parquet file of one value in many rows, by the piece, with a number beside it."""
    schema = pa.schema([("a", kind), ("b", pa.int8())])
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        column = pa.array([value] * (rows // 10), kind)
        for _ in range(10):
            file.write_table(pa.table({"a": column, "b": pa.array(np.zeros(rows // 10, np.int8))}, schema))
    assert path.stat().st_size < 1 << 20
    return path


def test_columns_of_one_value(tmp_path):
    wide = repeated(tmp_path / "wide.parquet", pa.list_(pa.float64(), 100), [0.5] * 100, 1_000_000)
    text = repeated(tmp_path / "text.parquet", pa.string(), "x" * 2000, 1_000_000)
    for path in (wide, text):
        with Taken() as taken, pytest.raises(InputError, match=r"unpacks to \d+ bytes"):
            read_table(path)
        assert taken.bytes < MOST, path.name
    with Taken() as taken:  # what does not take it is to be had, by dictionary the text as well
        assert len(read_table(wide, ["b"])) == 1_000_000
        assert read_table(text, ["a"], ["a"])["a"].chunk(0)[0].as_py() == "x" * 2000
    assert taken.bytes < MOST


def said_otherwise(path, numbers):
    """Changes numbers in a Parquet file's footer, in as many bytes as they took."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    for true, said in numbers.items():
        there = zigzag(true)
        assert there in footer
        footer = footer.replace(there, zigzag(said, len(there)))
    path.write_bytes(data[: -8 - length] + footer + data[-8:])


def zigzag(number, width=1):
    """As Thrift's compact protocol writes it, in at least so many bytes."""
    number, digits = 2 * number, []
    while number or len(digits) < width:
        digits.append(number & 127)
        number >>= 7
    return bytes([digit | 128 for digit in digits[:-1]] + digits[-1:])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_that_unpacks_to_more_than_the_metadata_say(tmp_path, version):
    """It does unpack to it; ten rows are what is told, and what pyarrow by itself gives."""
    path, rows = tmp_path / "a.parquet", 1 << 26
    as_one_page = {"row_group_size": rows, "max_rows_per_page": rows, "data_page_size": (1 << 31) - 1}
    form = {"compression": "zstd", "use_dictionary": False, "data_page_version": version, "store_schema": False}
    pq.write_table(pa.table({"a": np.zeros(rows, np.float32)}), path, write_statistics=False, **as_one_page, **form)
    size = pq.read_metadata(path).row_group(0).total_byte_size
    said_otherwise(path, {rows: 10, size: 90})
    facts = pq.read_metadata(path)
    assert (facts.num_rows, facts.row_group(0).total_byte_size) == (10, 90) and path.stat().st_size < 10_000
    with Taken() as taken, pytest.raises(InputError, match=r"unpacks to 268\d{6} bytes"):
        read_table(path)
    assert taken.bytes < MOST
    assert len(pq.read_table(path)) == 10


def test_sizes_of_pages_are_those_that_the_metadata_tell(tmp_path):
    """Which count the pages' headers as well."""
    columns = {"text": [f"{n // 9}" * 9 for n in range(5_000)], "none": [None] * 5_000, "flag": [True] * 5_000}
    columns |= {"list": [[0.5] * 9] * 5_000, "number": np.arange(5_000)}
    table = pa.table(columns | {"record": [{"a": 1, "b": "x"}] * 5_000})
    for more in ({"use_dictionary": False}, {"data_page_version": "2.0"}, {"write_page_index": True}, {}):
        path = tmp_path / "a.parquet"
        pq.write_table(table, path, row_group_size=2_000, max_rows_per_page=500, **more)
        facts = pq.read_metadata(path)
        for name in table.column_names:
            told = pages = 0
            for group in map(facts.row_group, range(3)):
                for column in map(group.column, range(group.num_columns)):
                    if column.path_in_schema.partition(".")[0] == name:
                        told += column.total_uncompressed_size
                        pages += -(-group.num_rows // 500) + column.has_dictionary_page
            with path.open("rb") as file:
                assert told - 100 * pages < unpacked_bytes(file, [name]) < told - 10 * pages
        assert read_table(path).equals(table)
    pq.write_table(table[:0], path)
    assert len(read_table(path)) == 0


def test_lists_in_a_footer_are_what_the_format_says(tmp_path):
    """pyarrow does not look, so what it takes for the next field is another than what a reader that does takes."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.arange(9)}), path, use_dictionary=False)
    data = path.read_bytes()
    encodings = re.compile(rb"\x15\x04\x19([\x15\x25\x35])")  # of a column of int64
    assert len(encodings.findall(data)) == 1
    path.write_bytes(encodings.sub(lambda found: found[0][:-1] + bytes([found[1][0] & 0xF0 | 8]), data))
    assert len(pq.read_table(path)) == 9
    with pytest.raises(InputError, match="a list of another kind"):
        read_table(path)


def test_texts_that_are_only_repeated_are_read(tmp_path, monkeypatch):
    names = [f"image {n // 50}" for n in range(20_000)]
    pq.write_table(pa.table({"a": names, "b": np.random.default_rng(0).random(20_000)}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    monkeypatch.setattr(parquet, "WHOLE_BYTES", 0)  # now they are counted first
    assert table["a"].to_pylist() == names and read_table(tmp_path / "a.parquet").equals(table)


def test_texts_that_are_none(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["a/0.jpg", "a/1.jpg"]}), path, compression="none", use_dictionary=False)
    assert read_table(path)["a"].to_pylist() == ["a/0.jpg", "a/1.jpg"]
    path.write_bytes(path.read_bytes().replace(b"a/1.jpg", b"a/\xff.jpg"))
    with pytest.raises(InputError, match=r"(?i)utf-?8"):
        read_table(path)


def png_of(width, height, data, claimed=None):
    def chunk(kind, body, length=None):
        size = struct.pack(">I", len(body) if length is None else length)
        return size + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packed = chunk(b"IDAT", zlib.compress(data, 9), claimed)
    return b"\x89PNG\r\n\x1a\n" + head + packed + chunk(b"IEND", b"")


def jpeg_of(width, height):
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_of(width, height, tile):
    """Of one tile with `tile` pixels to the side, all there."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(3 * tile)) for _ in range(tile)) + packer.flush()
    tags = ((256, width), (257, height), (258, 0), (259, 8), (262, 2), (277, 3), (322, tile), (323, tile), (324, 0))
    bits = 14 + 12 * (len(tags) + 1)  # where the depths of the three channels stand, and after them the tile
    known = {258: (3, 3, bits), 324: (4, 1, bits + 6)}
    entries = [(tag, *known.get(tag, (4, 1, value))) for tag, value in (*tags, (325, len(packed)))]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<IHHH", 0, 8, 8, 8) + packed


def webp_of(width, height):
    """Lossless."""
    image = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(100)
    chunk = b"VP8L" + struct.pack("<I", len(image)) + image + bytes(len(image) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def bmp_of(width, height):
    """Packed by run lengths."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 100, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1178, 0, 0, 1078) + head + bytes(1024) + bytes(100)


@pytest.mark.parametrize("decode", [decode_image, opencv_image, read_picture], ids=["job", "benchmark", "predict"])
@pytest.mark.parametrize(
    "data",
    [
        *(png_of(8, 8, bytes(200), 0xFFFFFFF0), png_of(60000, 60000, bytes(1 << 20)), jpeg_of(65500, 65500)),
        *(tiff_of(64, 64, 12000), tiff_of(60000, 60000, 64), webp_of(16383, 16383), bmp_of(60000, 60000)),
    ],
    ids=[
        *("a chunk of 4 GB", "a large PNG", "a large JPEG"),
        *("a large tile", "a large TIFF", "a large WebP", "a large BMP"),
    ],
)
def test_pictures(decode, data):
    with Taken() as taken, pytest.raises(ImageError):
        decode(data)
    assert taken.bytes < MOST


@pytest.mark.parametrize("decode", [decode_image, opencv_image], ids=["job", "benchmark"])
def test_tiles_of_usual_size_are_read(decode):
    """Also larger than the image."""
    assert not decode(tiff_of(64, 64, 512)).any() and decode(tiff_of(300, 200, 320)).shape == (200, 300, 3)


@pytest.mark.parametrize("decode", [decode_image, opencv_image, read_picture], ids=["job", "benchmark", "predict"])
def test_pictures_that_are_only_plain_are_decoded(decode):
    assert decode(png_of(60, 40, bytes(40 * 181))).__class__
    with pytest.raises(ImageError):
        decode(png_of(60, 40, bytes(40 * 181))[:-20])


def test_bodies_that_a_pickle_names_again_and_again(tmp_path):
    body = {"global_orient": np.zeros((1, 3, 3)), "body_pose": np.zeros((23, 3, 3)), "betas": np.zeros(10)}
    (tmp_path / "many.pkl").write_bytes(pickle.dumps({"0": {"smpl": [body] * 200_000}}))
    assert (tmp_path / "many.pkl").stat().st_size < 1 << 20
    with Taken() as taken, pytest.raises(InputError, match="200000 bodies"):
        label_file_of(tmp_path / "many.pkl")
    assert taken.bytes < MOST
    (tmp_path / "few.pkl").write_bytes(pickle.dumps({"0": {"smpl": [body] * 200}}))
    assert label_file_of(tmp_path / "few.pkl").is_file()


@pytest.mark.parametrize("kind", [b"\x96", b"\x8e", b"\x8d"], ids=["bytearray", "bytes", "text"])
@pytest.mark.parametrize("length", [900 << 20, 1 << 62])
def test_lengths_that_a_pickle_claims(tmp_path, kind, length):
    path = tmp_path / "claims.pkl"
    for frame in (b"", b"\x95" + struct.pack("<Q", 1 << 40)):
        path.write_bytes(b"\x80\x05" + frame + kind + struct.pack("<Q", length) + b"few.")
        with Taken() as taken, pytest.raises(InputError, match="truncated or damaged"):
            read_model_file(path)
        assert taken.bytes < MOST
    path.write_bytes(pickle.dumps({"a": bytearray(b"few"), "b": b"few" * 100, "c": "few" * 100}, 5))
    assert read_model_file(path)["a"] == b"few"
