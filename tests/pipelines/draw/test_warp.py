"""Warps: where a point of the image lands, and how shrinking looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.draw.warp import inverse, square_affine, warp


def exact_ramps(width, height):
    """An image whose colours tell, linearly, where in the image a point lies; float32, so that nothing is rounded."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x * 255 / width, y * 255 / height, np.zeros_like(x)], axis=2).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(20, 3000),
    st.integers(16, 300),
    st.floats(-100, 700),
    st.floats(-100, 500),
)
def test_colours_land_where_the_affine_says(side, size, x, y):
    width, height = 600, 400
    affine = square_affine(np.array([x, y]), side, size)
    found = warp(exact_ramps(width, height), affine, size).astype(float)
    v, u = np.mgrid[:size, :size] + 0.5
    source = np.stack([(u - affine[0, 2]) / affine[0, 0], (v - affine[1, 2]) / affine[1, 1]], axis=2)
    margin = side / size + 1
    low, high = source.min(axis=2), np.minimum(width - source[..., 0], height - source[..., 1])
    inside = (low > margin) & (high > margin)
    expected = source * 255 / [width, height]
    # OpenCV places samples to 1/32 px, which is 0.01 levels of the steeper ramp.
    assert np.abs(found[..., :2] - expected)[inside].max(initial=0) < 0.02
    outside = (source < -margin).any(axis=2) | (source > np.array([width, height]) + margin).any(axis=2)
    assert not found[outside].any()
    # In bytes, samples are rounded and then their average, half a level each; beyond a shrinking by 8, blocks too.
    roundings = 2 + (side / size > 8)
    pixels = exact_ramps(width, height).round().astype(np.uint8)
    rounded, smooth = warp(pixels, affine, size).astype(float), warp(pixels.astype(np.float32), affine, size)
    assert np.abs(rounded - smooth).max() <= 0.5 * roundings + 0.01


def test_half_a_pixel_would_show():
    """The mean of a crop of a ramp tells its centre to a few hundredths of a pixel (floats: no rounding to bytes)."""
    y, x = np.mgrid[:400, :600] + 0.5
    ramp = np.stack([x, y], axis=2).astype(np.float32)
    for side, size in ((300, 300), (300, 100), (300, 384), (299.5, 123), (40, 384), (301, 20)):
        crop = warp(ramp, square_affine(np.array([303.3, 201.7]), side, size), size)
        mean = crop.astype(np.float64).mean(axis=(0, 1))
        assert mean == pytest.approx([303.3, 201.7], abs=0.03)


def test_shrinking_averages_areas():
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    for factor in (2, 5, 6, 8):
        size = 600 // factor
        found = warp(noise, square_affine(np.array([300, 300]), 600, size), size)
        blocks = noise[: size * factor, : size * factor].reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
        assert np.abs(found - blocks).max() <= 1
    found = warp(noise, square_affine(np.array([300, 300]), 600, 20), 20)
    assert found.std() < 2 * noise.std() / 30  # white noise falls with the number of pixels averaged


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("degrees", [0, 37, 180])
@pytest.mark.parametrize("zoom", [0.15, 0.7, 3.0])
def test_turned_and_mirrored_images_show_what_the_affine_says(degrees, zoom, antialias):
    turn = np.deg2rad(degrees)
    linear = zoom * np.array([[-np.cos(turn), -np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    affine = np.column_stack([linear, [64, 48] - linear @ [300, 200]])
    found = warp(exact_ramps(600, 400), affine, (128, 96), antialias)
    assert found.shape == (96, 128, 3)
    v, u = np.mgrid[:96, :128] + 0.5
    source = np.stack([u, v, np.ones_like(u)], axis=2) @ inverse(affine).T[:, :2]
    inside = ((source > 2 / zoom + 1) & (source < np.array([600, 400]) - 2 / zoom - 1)).all(axis=2)
    assert inside.any()
    apart = np.abs(found[..., :2] - source * 255 / [600, 400])[inside]
    assert apart.max() < 0.03
