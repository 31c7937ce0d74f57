"""Films: what is written is read, turned as a phone's films say, and damage is told where it begins."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.files import films
from pipelines.files.films import FilmError, FilmWriter, film_facts, film_frames

QUARTER_CLOCKWISE = (0, 1, 0, -1, 0, 0, 0, 0, 1)
"""Of a QuickTime header: x goes to y, y to -x. The last column counts in 1/2^30, the others in 1/2^16."""


def write(path, count: int = 12, width: int = 64, height: int = 48):
    """Frame n is n * 15 bright, but for a white square in the top left corner."""
    with FilmWriter(path, 25) as film:
        for n in range(count):
            pixels = np.full((height, width, 3), n * 15, np.uint8)
            pixels[:16, :16] = 255
            film.write(pixels)
    return path


def level(frame) -> float:
    return float(frame.pixels[20:30, 20:30].mean())


def test_frames_and_times_are_those_that_were_written(tmp_path):
    path = write(tmp_path / "film.mp4")
    facts = film_facts(path)
    assert (facts.frames, facts.rate) == (12, 25)
    frames = list(film_frames(path))
    assert [frame.number for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 25, atol=1e-6)
    np.testing.assert_allclose([level(frame) for frame in frames], np.arange(12) * 15, atol=5)
    some = list(film_frames(path, 5, 3))
    assert [frame.number for frame in some] == [5, 8, 11]
    for frame in some:
        np.testing.assert_array_equal(frame.pixels, frames[frame.number].pixels)


def test_odd_sides_lose_their_last_line(tmp_path):
    with FilmWriter(tmp_path / "film.mp4", 30) as film:
        film.write(np.zeros((33, 47, 3), np.uint8))
    assert next(film_frames(tmp_path / "film.mp4")).pixels.shape == (32, 46, 3)


def test_films_of_a_phone_held_upright_are_turned(tmp_path):
    path = write(tmp_path / "film.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version, flags and 36 bytes of times and numbers stand before the matrix
    for n, value in enumerate(QUARTER_CLOCKWISE):
        data[at + 4 * n : at + 4 * n + 4] = (value << (30 if n % 3 == 2 else 16)).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    frame = next(film_frames(path))
    assert frame.orientation == 6 and frame.pixels.shape == (64, 48, 3)
    assert frame.pixels[:16, -16:].mean() > 230 and frame.pixels[:16, :16].mean() < 30


def test_frames_that_are_too_large_are_not_decoded(tmp_path, monkeypatch):
    """Whether the container says so, or only what is decoded."""
    path = write(tmp_path / "film.mp4", width=640, height=480)
    monkeypatch.setattr(films, "_MOST_PIXELS", 640 * 480 - 1)
    for read in (film_facts, lambda path: next(film_frames(path))):
        with pytest.raises(FilmError, match="frames of 640 x 480 pixels"):
            read(path)
    monkeypatch.setattr(films, "_MOST_PIXELS", 640 * 480)
    monkeypatch.setattr(films, "_LIMITS", {"max_pixels": "100000"})
    with pytest.raises(FilmError):
        next(film_frames(path))


def test_damage_is_told_where_it_begins(tmp_path):
    path = write(tmp_path / "film.mp4")
    data = bytearray(path.read_bytes())
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(FilmError) as caught:
        next(film_frames(tmp_path / "text.mp4"))
    assert caught.value.frame == 0 and "text.mp4" not in str(caught.value)
    body = data.index(b"mdat")
    data[body + 900 :] = bytes(len(data) - body - 900) if data.index(b"moov") < body else data[body + 900 :]
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(FilmError):
        list(film_frames(tmp_path / "half.mp4"))
