"""Encoded images: their size from the header, decoding within bounds, encoding. Pixels as stored.

JPEG and PNG, and by Pillow's headers and OpenCV's decoders WebP, BMP and TIFF; others are named. EXIF orientation is
ignored: labels are for pixels as they are stored.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_BY_PILLOW = {
    "WebP": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    "BMP": lambda data: data[:2] == b"BM",
    "TIFF": lambda data: data[:4] in (b"II*\0", b"MM\0*"),
}
_OTHERS = {
    "GIF": lambda data: data[:4] == b"GIF8",
    "HEIC or AVIF": lambda data: data[4:8] == b"ftyp",
}

LARGEST_IMAGE = 1 << 28
"""Bytes beyond which an encoded image is not read."""

MAX_PIXELS = 100_000_000
"""Images that claim more pixels than this are refused before they are decoded."""

_MAX_PNG_RATIO = 1040
"""Bytes of pixels that a byte of a PNG can hold: deflate's limit."""

_MAX_JPEG_RATIO = 1024
"""Pixels that a byte of a JPEG can hold: with one bit for each of a block's 64, fewer than 512."""

_MAX_OTHER_RATIO = 1040
"""Pixels that a byte of another format can hold: TIFF has deflate as well, and WebP beyond it shows one colour."""

_OTHER_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "I;16", "I;16B")
"""Pillow's modes of 8 and 16 bits without inks: OpenCV makes the same colours of them."""

_ORIENTATION = 0x0112
"""Tag of TIFF and EXIF."""

_TILE = (0x0142, 0x0143)
"""Tags of TIFF: width and length of a tile."""

_LARGEST_TILE = 1 << 20
"""Pixels of a tile; writers take 256 or 512 to the side. A small image may lie in a larger one."""

_MAX_SCANS = 100
"""Scans of a progressive JPEG; encoders make about ten, and each costs the decoder a pass over the image."""

_SPARE = 1.5
"""Pixels that a reduced image keeps for each of the crop's, along one side: with fewer the crop would be blurred."""

_SMALLEST_REDUCED = 64
"""Shorter side of an image, px, below which it is decoded whole."""

_NOISE_ONLY = ("extraneous bytes before marker",)


class ImageError(ValueError):
    """The bytes are not an image that can be used."""


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header, without decoding.

    Raises ImageError for what would take more memory or time to decode than its bytes are worth, and for other formats.
    """
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        _check_chunks(data)
    elif data[:2] == b"\xff\xd8":
        width, height = _jpeg_size(data)
    elif kind := format_by_pillow(data):
        width, height = _other_size(data, kind)
    else:
        other = next((name for name, begins in _OTHERS.items() if begins(data)), "")
        read = "JPEG, PNG, WebP, BMP and TIFF are"
        raise ImageError(f"a {other} image, which is not read; {read}" if other else f"no image that is read; {read}")
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} pixels")
    if format_by_pillow(data):
        if width * height > _MAX_OTHER_RATIO * len(data):
            raise ImageError(f"an image of {width} x {height} pixels in {len(data)} bytes")
        return width, height
    jpeg = data[:2] == b"\xff\xd8"
    size, most = (width * height, _MAX_JPEG_RATIO) if jpeg else (_png_bytes(data, width, height), _MAX_PNG_RATIO)
    if jpeg and data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError(f"a JPEG of more than {_MAX_SCANS} scans")
    if size > most * len(data):
        raise ImageError(f"an image of {width} x {height} pixels in {len(data)} bytes")
    return width, height


def reduction(data: bytes, shrink: float) -> int:
    """By which of 1, 2, 4, 8 an image can be reduced while it is decoded, if it is then shrunk `shrink` times."""
    if data[:2] != b"\xff\xd8" or min(image_size(data)) < _SMALLEST_REDUCED:
        return 1
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * _SPARE <= shrink)


def decode_image(data: bytes, factor: int = 1) -> np.ndarray:
    """(height, width, 3) uint8, BGR, pixels as stored. Raises ImageError for what is damaged or too large.

    A JPEG can be decoded at 1/`factor` of its size (see `reduction`): pixel (i, j) is then the mean of a block of
    factor x factor px. Where the image ends within a block, what is missing of it counts as black, like all outside.
    """
    full_width, full_height = image_size(data)
    width, height = (-(-side // factor) for side in (full_width, full_height))
    if data[:2] == b"\xff\xd8":
        pixels = _decode_jpeg(data, width, height)
        pixels[:, -1:] = _part(pixels[:, -1:], full_width, factor)
        pixels[-1:] = _part(pixels[-1:], full_height, factor)
    else:
        pixels = opencv_image(data)
    if pixels.shape != (height, width, 3):
        raise ImageError(f"decoded to {pixels.shape[1]} x {pixels.shape[0]}, the header says {width} x {height}")
    return pixels


def opencv_image(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8, BGR, pixels as stored, as OpenCV decodes it, which the field's readers do.

    Raises ImageError for what is damaged, too large, or of a format that is not read.
    """
    import cv2

    image_size(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError("the image cannot be decoded") from error
    if pixels is None:
        raise ImageError("the image cannot be decoded")
    return pixels


def read_encoded(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes, as far as an image can go. Raises OSError, and ImageError for what is no file, or too long."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ImageError("not a regular file")
        data = file.read(LARGEST_IMAGE + 1)
    if len(data) > LARGEST_IMAGE:
        raise ImageError(f"more than {LARGEST_IMAGE} bytes")
    return data


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """BGR pixels as baseline JPEG, chroma at half resolution. The same pixels give the same bytes."""
    import simplejpeg

    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace="BGR", colorsubsampling="420"
    )


def format_by_pillow(data: bytes) -> str:
    """WebP, BMP or TIFF, if the bytes begin like one; else empty."""
    return next((name for name, begins in _BY_PILLOW.items() if begins(data)), "")


def _other_size(data: bytes, kind: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(kind.upper(),)) as image:
            size, mode, turned = image.size, image.mode, kind == "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1
            tile = math.prod(image.tag_v2.get(tag, 0) for tag in _TILE) if kind == "TIFF" else 0
            large = tile > max(_LARGEST_TILE, 4 * math.prod(size))
    except Exception as error:  # Pillow has many words for damage, and warns of many pixels by an exception
        raise ImageError(f"a {kind} image whose header cannot be read ({error})") from error
    if mode not in _OTHER_MODES:
        raise ImageError(f"a {kind} image of mode {mode}, which is not read")
    if large:  # room is made for a whole tile, and it may well be filled
        raise ImageError(f"a TIFF image with tiles of {tile} pixels")
    if turned:  # OpenCV turns it, whatever it is told
        raise ImageError("a TIFF image with an orientation, which is not read")
    return size


def _png_bytes(data: bytes, width: int, height: int) -> int:
    """Bytes of an unpacked PNG."""
    depth, channels = (data[24], {2: 3, 4: 2, 6: 4}.get(data[25], 1)) if len(data) > 25 else (16, 4)
    return height * (1 + (width * depth * channels + 7) // 8)


def _decode_jpeg(data: bytes, width: int, height: int) -> np.ndarray:
    import simplejpeg

    how = {"colorspace": "BGR", "min_width": width, "min_height": height}
    try:
        return simplejpeg.decode_jpeg(data, strict=True, **how)
    except ValueError as error:
        if not any(text in str(error) for text in _NOISE_ONLY):
            raise ImageError(f"the JPEG cannot be decoded ({error})") from error
    try:
        return simplejpeg.decode_jpeg(data, strict=False, **how)
    except ValueError as error:
        raise ImageError(f"the JPEG cannot be decoded ({error})") from error


def _part(blocks: np.ndarray, side: int, factor: int) -> np.ndarray:
    """The last blocks along a side of the image, darkened by what lies outside of it."""
    outside = -side % factor
    return np.rint(blocks * (1 - outside / factor)) if outside else blocks


def _jpeg_size(data: bytes) -> tuple[int, int]:
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: for a colour space that it does not know
        raise ImageError(f"a JPEG whose header cannot be read ({error})") from error
    return width, height


def _check_chunks(data: bytes) -> None:
    """A decoder makes room for a PNG's chunks as their lengths claim."""
    position = len(_PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        position += 12 + length
        if position > len(data):
            raise ImageError("a PNG that ends within a chunk")
        if kind == b"IEND":
            return
