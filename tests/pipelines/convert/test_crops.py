"""Crops: where a point of the image lands, how shrinking looks, what is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.convert.crops import box_side, person_crop, whole_frame
from pipelines.files.jpeg import ImageError, decode_image, encode_jpeg, image_size, reduction
from pipelines.files.pictures import exif_orientation


def ramps(width, height):
    """An image whose colours tell, linearly, where in the image a point lies (corner convention)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x * 255 / width, y * 255 / height, np.zeros_like(x)], axis=2).round().astype(np.uint8)


def test_box_side_is_200_px_per_unit_of_the_larger_scale():
    assert box_side(np.array([[1.0, 2.0], [0.5, 0.25]])).tolist() == [400.0, 100.0]


def test_the_box_fills_the_crop_and_context_widens_it():
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[100:300, 200:400] = 255
    crop = person_crop(pixels, np.array([300, 200]), 200, 1.0, 64, 95)
    assert decode_image(crop.data).min() > 225
    crop = person_crop(pixels, np.array([300, 200]), 200, 2.0, 64, 100)
    inner = decode_image(crop.data)[16:48, 16:48]
    assert inner.min() > 230
    assert decode_image(crop.data)[:14].max() < 25
    corners = np.array([[200, 100, 1], [400, 300, 1]]) @ crop.affine.T
    assert corners == pytest.approx(np.array([[16, 16], [48, 48]]))
    assert (crop.crop_size, crop.image_size) == ((64, 64), (600, 400))


def test_the_same_image_gives_the_same_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    crops = [person_crop(noise, np.array([150, 100]), 130, 1.5, 96, 90).data for _ in range(3)]
    assert len(set(crops)) == 1


EXIF_ROTATED = (
    b"\xff\xe1" + struct.pack(">H", 34) + b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
)


def test_exif_orientation_is_ignored_and_not_kept():
    pixels = ramps(64, 32)
    data = encode_jpeg(pixels, 95)
    turned = data[:2] + EXIF_ROTATED + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 32, 3)
    assert np.array_equal(decode_image(turned), decode_image(data))
    assert whole_frame(data, decode_image(data), 90).data == data
    stored = whole_frame(turned, decode_image(turned), 90).data
    assert cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR).shape == (32, 64, 3)


def test_other_encodings_decode_to_three_channels():
    pixels = ramps(64, 32)
    grey = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[:, :, :1]), colorspace="GRAY")
    assert decode_image(grey).shape == (32, 64, 3)
    for image in (pixels, pixels[:, :, 0], np.dstack([pixels, pixels[:, :, :1]])):
        assert decode_image(cv2.imencode(".png", image)[1].tobytes()).shape == (32, 64, 3)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    assert np.array_equal(decode_image(png), pixels)
    frame = whole_frame(png, pixels, 90)
    assert frame.data[:2] == b"\xff\xd8"
    assert np.array_equal(frame.affine, np.eye(3)[:2])


def png_of(width, height):
    """A PNG that claims a size; its pixels are missing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def test_damaged_and_enormous_images_are_refused():
    data = encode_jpeg(ramps(200, 100), 90)
    png = cv2.imencode(".png", ramps(200, 100))[1].tobytes()
    assert (image_size(data), image_size(png)) == ((200, 100), (200, 100))
    bomb = bytearray(data)
    at = bomb.index(b"\xff\xc0")
    bomb[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    bad = [b"", b"\xff\xd8", data[: len(data) // 2], data[:30], data[:-2], png[: len(png) // 2], b"<html>", bytes(bomb)]
    for content in [*bad, png_of(100_000, 100_000), png_of(0, 5), png_of(50, 50)]:
        with pytest.raises(ImageError):
            decode_image(content)


def test_noise_after_the_last_scan_does_not_cost_an_image():
    data = encode_jpeg(ramps(200, 100), 90)
    assert decode_image(data[:-2] + b"\0\0\0\xff\xd9").shape == (100, 200, 3)
    assert decode_image(data + b"trailing").shape == (100, 200, 3)


def test_mutated_images_raise_nothing_else():
    rng = np.random.default_rng(0)
    png = cv2.imencode(".png", ramps(60, 40))[1].tobytes()
    for good in (encode_jpeg(ramps(60, 40), 90), png):
        for _ in range(150):
            bad = bytearray(good)
            for position in rng.integers(0, len(good), rng.integers(1, 8)):
                bad[position] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert decode_image(bytes(bad)).dtype == np.uint8


@pytest.mark.parametrize(("width", "height"), [(1201, 903), (1600, 1200), (1927, 1085), (1203, 901)])
@pytest.mark.parametrize(("side", "factor"), [(250, 1), (420, 2), (900, 4)])
def test_a_reduced_decoding_gives_the_same_crop(width, height, side, factor):
    """Against the crop from all pixels: the same place to a fraction of a pixel, the same colours, less work."""
    rng = np.random.default_rng(side)
    rough = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()
    center, context, size = np.array([width * 0.61, height * 0.47]), 1.2, 128
    assert reduction(data, side * context / size) == factor
    pixels = decode_image(data, factor)
    assert pixels.shape == (-(-height // factor), -(-width // factor), 3)
    whole = person_crop(decode_image(data), center, side, context, size, 100)
    crop = person_crop(pixels, center, side, context, size, 100, (width, height), factor)
    assert np.array_equal(crop.affine, whole.affine) and crop.image_size == whole.image_size == (width, height)
    a, b = (decode_image(found.data).astype(np.float32).mean(axis=2) for found in (whole, crop))
    assert np.abs(a - b).mean() < 1.0
    shift, _ = cv2.phaseCorrelate(a, b)
    assert np.hypot(*shift) < 0.05


def test_what_is_not_reduced():
    png = cv2.imencode(".png", np.zeros((900, 900, 3), np.uint8))[1].tobytes()
    small = cv2.imencode(".jpg", np.zeros((60, 900, 3), np.uint8))[1].tobytes()
    assert reduction(png, 100.0) == reduction(small, 100.0) == 1


ORIENTED = ("JPEG", "WEBP", "PNG")


def saved(pixels, kind, mode="RGB", orientation=None, **how):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, exif=exif.tobytes() if orientation else b"", **how)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize(
    ("kind", "how"),
    [("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_webp_bmp_and_tiff_are_decoded_as_pillow_does(kind, how, mode):
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 8, (12, 16, 3)) * 32, np.ones((4, 4, 1))).astype(np.uint8)
    if (kind, mode) in (("WEBP", "L"), ("WEBP", "P")):
        mode = "RGB"  # WebP has no others
    data = saved(pixels, kind, mode, **how)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert image_size(data) == (64, 48)
    np.testing.assert_array_equal(decode_image(data)[:, :, ::-1], expected)
    assert whole_frame(data, decode_image(data), 90).data[:2] == b"\xff\xd8"


def test_sixteen_bits_are_scaled_and_other_kinds_of_numbers_are_refused():
    deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    data = saved(deep, "TIFF", "I;16")
    np.testing.assert_allclose(decode_image(data)[..., 0], deep / 257, atol=1)
    for mode in ("F", "CMYK"):
        with pytest.raises(ImageError, match=f"mode {mode}"):
            decode_image(saved(ramps(64, 48), "TIFF", mode))


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF"])
def test_damage_and_claims_of_other_formats_are_named(kind):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = saved(noise, kind)
    for cut in (10, 40, len(data) // 2):
        with pytest.raises(ImageError):
            decode_image(data[:cut])
    if kind == "BMP":
        huge = data[:18] + struct.pack("<ii", 30_000, 30_000) + data[26:]
        with pytest.raises(ImageError, match=r"30000 x 30000|900000000 pixels"):
            decode_image(huge)
    with pytest.raises(ImageError, match="GIF image, which is not read"):
        decode_image(saved(noise, "GIF"))


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
def test_orientations_are_found_and_not_applied(kind, orientation):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = saved(noise, kind, orientation=orientation)
    assert exif_orientation(data) == (orientation or 1)
    assert decode_image(data).shape == (48, 64, 3)


def test_a_tiff_with_an_orientation_is_refused():
    """Decoders turn it, whatever they are told."""
    data = saved(ramps(64, 48), "TIFF", orientation=3)
    with pytest.raises(ImageError, match="TIFF image with an orientation"):
        decode_image(data)
    assert decode_image(saved(ramps(64, 48), "TIFF", orientation=1)).shape == (48, 64, 3)
