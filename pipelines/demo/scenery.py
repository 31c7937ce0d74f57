"""Procedural places for the demo images: meadow, street, square, beach, court, hall; ground, walls, sky and light.

World frame: x right, y up, z towards the camera, metres; the ground is y = 0 and the camera stands at (0, height, 0).
All colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.draw.rays import Light, Surface

TILE = 512
"""Side of the periodic noise picture, texels."""

PLACES = ("meadow", "street", "square", "beach", "court", "hall", "studio", "home")


def srgb(*colour: float) -> np.ndarray:
    """Linear RGB of an sRGB colour given in 0..255."""
    c = np.asarray(colour, dtype=np.float64) / 255.0
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


class Noise:
    """Periodic fractal noise on the plane, mean 0, standard deviation 1."""

    def __init__(self, rng: np.random.Generator, roughness: float = 1.6) -> None:
        frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]) * TILE
        spectrum = np.where(frequency < 3, 0.0, np.maximum(frequency, 1.0) ** -roughness)
        tile = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(TILE, TILE))) * spectrum, s=(TILE, TILE))
        self.tile = ((tile - tile.mean()) / tile.std()).astype(np.float32)

    def __call__(self, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
        """Bilinear values at n points of the plane; the picture repeats after `period` (same unit as u and v)."""
        import cv2

        # OpenCV's coordinates and pictures are bounded: wrap the ones, fold the others
        across = 1024
        maps = np.zeros((2, max(-(-len(u) // across), 1) * across), np.float32)
        maps[0, : len(u)] = np.mod(u * (TILE / period), TILE)
        maps[1, : len(v)] = np.mod(v * (TILE / period), TILE)
        maps = maps.reshape(2, -1, across)
        values = cv2.remap(self.tile, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return values.ravel()[: len(u)].astype(np.float64)

    def cell(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """An unrelated value for each integer cell (tiles, planks, windows)."""
        return self.tile[(i.astype(np.int64) * 131 + 17) % TILE, (j.astype(np.int64) * 197 + 71) % TILE]


@dataclass(frozen=True)
class Place:
    """The surroundings of one image. Calling it with rays in the camera frame answers what they meet."""

    kind: str
    to_world: np.ndarray
    """(3,3) camera frame -> world frame."""
    height: float
    """Camera above the ground, metres."""
    noise: Noise
    palette: np.ndarray
    """(6,3) colours: ground, ground's second colour, wall, wall's second colour, sky above, sky at the horizon."""
    wall_distance: float
    wall_turn: float
    """Heading of the room or of the row of houses, radians."""
    seed: int

    def __call__(self, directions: np.ndarray) -> Surface:
        rays = directions @ self.to_world.T
        if self.kind in ("hall", "studio", "home"):
            return self._indoors(rays)
        return self._outdoors(rays)

    def _to_camera(self, normals: np.ndarray) -> np.ndarray:
        return normals @ self.to_world

    def _outdoors(self, rays: np.ndarray) -> Surface:
        distance = np.full(len(rays), np.inf)
        normal = np.zeros((len(rays), 3))
        colour = np.zeros((len(rays), 3))
        high = np.flatnonzero(rays[:, 1] > -0.02)
        colour[high] = self._sky(rays[high])
        if self.kind in ("street", "square"):
            self._houses(rays, distance, normal, colour)
        down = np.flatnonzero(rays[:, 1] < -1e-4)
        reach = self.height / -rays[down, 1]
        far = reach * np.linalg.norm(rays[down], axis=1)
        near = (reach < distance[down]) & (far < 400)
        down, reach, far = down[near], reach[near], far[near]
        ground = self._ground(rays[down, 0] * reach, rays[down, 2] * reach, far)
        haze = (1.0 - np.exp(-far / 150.0))[:, None]
        colour[down] = ground * (1 - haze) + self.palette[5] * haze * 0.45
        distance[down], normal[down] = reach, (0.0, 1.0, 0.0)
        return Surface(distance, self._to_camera(normal), colour)

    def _sky(self, rays: np.ndarray) -> np.ndarray:
        unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        rise = np.clip(unit[:, 1], 0.0, 1.0)
        blend = (1.0 - np.exp(-rise * 4.0))[:, None]
        sky = self.palette[4] * blend + self.palette[5] * (1 - blend)
        spread = 1.0 / (0.12 + rise)
        clouds = self.noise(unit[:, 0] * spread, unit[:, 2] * spread + self.seed % 7, 9.0)
        cover = np.clip(clouds * 0.8 - 0.15, 0.0, 1.0)[:, None] * np.minimum(rise * 12, 1.0)[:, None]
        sky = sky * (1 - 0.75 * cover) + 0.95 * self.palette[5].max() * 0.75 * cover
        if self.kind in ("meadow", "court", "beach"):
            self._skyline(unit, sky)
        return sky

    def _skyline(self, unit: np.ndarray, sky: np.ndarray) -> None:
        """Trees (hills of them) along the horizon; on the beach a strip of sea."""
        azimuth = np.arctan2(unit[:, 0], -unit[:, 2])
        if self.kind == "beach":
            sea = unit[:, 1] < 0.004
            sky[sea] = srgb(60, 105, 130)
            return
        for layer, (base, swing, shade) in enumerate(((0.075, 0.018, 0.55), (0.035, 0.02, 1.0))):
            crowns = self.noise(azimuth * 3, np.full_like(azimuth, 0.37 * layer), 4.0)
            leaves = self.noise(azimuth * 40, np.full_like(azimuth, 0.61 + layer), 6.0)
            top = base + swing * (crowns + 0.25 * leaves)
            trees = unit[:, 1] < top
            texture = 1 + 0.3 * self.noise(azimuth[trees] * 30, unit[trees, 1] * 30, 5.0)
            green = srgb(52, 74, 40) * (0.6 + 0.8 * layer) * texture[:, None].clip(0.3)
            haze = 0.35 * (1 - layer)
            sky[trees] = green * shade * (1 - haze) + self.palette[5] * haze * 0.6

    def _houses(self, rays: np.ndarray, distance: np.ndarray, normal: np.ndarray, colour: np.ndarray) -> None:
        """A row of facades with windows, as one vertical plane whose height changes from house to house."""
        cos, sin = np.cos(self.wall_turn), np.sin(self.wall_turn)
        facing = np.array([sin, 0.0, cos])
        approach = rays @ -facing
        ahead = np.flatnonzero(approach > 1e-3)
        reach = self.wall_distance / approach[ahead]
        along = (rays[ahead] @ np.array([cos, 0.0, -sin])) * reach + 3.0 * (self.seed % 11)
        up = self.height + rays[ahead, 1] * reach
        house = np.floor(along / 9.0)
        tall = 8.0 + 3.0 * np.abs(self.noise.cell(house, house * 0))
        seen = (up > 0) & (up < tall) & (reach < 120)
        ahead, reach, along, up, house = ahead[seen], reach[seen], along[seen], up[seen], house[seen]
        tint = self.noise.cell(house, house * 0 + 5)[:, None]
        wall = self.palette[2] * (1 + 0.25 * tint) + 0.08 * (self.palette[3] - self.palette[2]) * tint
        wall = wall * (1 + 0.08 * self.noise(along, up, 7.0)[:, None])
        column, storey = np.floor(along / 1.8), np.floor(up / 3.0)
        window = (np.abs(along / 1.8 - column - 0.5) < 0.27) & (np.abs(up / 3.0 - storey - 0.5) < 0.28)
        frame = window & ((np.abs(along / 1.8 - column - 0.5) > 0.23) | (np.abs(up / 3.0 - storey - 0.5) > 0.25))
        bright = 0.12 + 0.1 * np.abs(self.noise.cell(column, storey))
        wall[window] = bright[window, None] * np.array([0.7, 0.85, 1.0])
        wall[frame] = 0.6
        wall[up < 0.35] *= 0.6
        colour[ahead] = wall.clip(0.01, 0.9)
        distance[ahead], normal[ahead] = reach, facing

    def _indoors(self, rays: np.ndarray) -> Surface:
        """A box around the camera, turned by `wall_turn`: floor, ceiling, four walls."""
        cos, sin = np.cos(self.wall_turn), np.sin(self.wall_turn)
        turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        local = rays @ turn.T
        tall = {"home": 2.7, "studio": 6.0, "hall": 9.0}[self.kind]
        half = self.wall_distance
        extent = np.where(local > 0, [half, tall - self.height, half], [half, self.height, half])
        with np.errstate(divide="ignore"):
            reaches = extent / np.maximum(np.abs(local), 1e-9)
        axis = np.argmin(reaches, axis=1)
        rows = np.arange(len(rays))
        distance = reaches[rows, axis]
        points = local * distance[:, None] + [0.0, self.height, 0.0]
        normal = np.zeros_like(local)
        normal[rows, axis] = -np.sign(local[rows, axis])
        colour = np.empty((len(rays), 3))
        floor, ceiling = (axis == 1) & (local[:, 1] < 0), (axis == 1) & (local[:, 1] > 0)
        wall = axis != 1
        far = distance * np.linalg.norm(local, axis=1)
        colour[floor] = self._ground(points[floor, 0], points[floor, 2], far[floor])
        colour[ceiling] = srgb(225, 225, 220)
        along = np.where(axis == 0, points[:, 2], points[:, 0])[wall]
        colour[wall] = self._wall(along, points[wall, 1], axis[wall] * 2 + (local[rows, axis][wall] > 0))
        return Surface(distance, self._to_camera(normal @ turn), colour)

    def _wall(self, along: np.ndarray, up: np.ndarray, which: np.ndarray) -> np.ndarray:
        paint = self.palette[2] * (1 + 0.03 * self.noise(along, up, 3.0) + 0.02 * self.noise(up, along, 0.7))[:, None]
        if self.kind == "studio":
            return paint * (0.75 + 0.25 * np.clip(up / 3, 0, 1))[:, None]
        paint[up < 1.0 if self.kind == "hall" else up < 0.1] = self.palette[3]
        spacing = 3.2 if self.kind == "hall" else 2.3
        cell = np.floor(along / spacing)
        there = self.noise.cell(cell, which) > -0.3
        across = along / spacing - cell - 0.5
        size = 0.16 + 0.05 * self.noise.cell(cell, which + 9).clip(-1, 1)
        low, high = (3.0, 5.5) if self.kind == "hall" else (1.2, 2.0)
        framed = there & (np.abs(across) < size) & (up > low) & (up < high)
        inner = framed & (np.abs(across) < size - 0.015) & (up > low + 0.05) & (up < high - 0.05)
        paint[framed] = 0.08
        tone = 0.3 + 0.2 * self.noise(along * 3 + 17 * cell, up * 3, 6.0)
        hue = np.stack([self.noise.cell(cell, which + k) for k in range(3)], axis=-1).clip(-1.5, 1.5)
        paint[inner] = (tone[:, None] * (1 + 0.4 * hue)).clip(0.02, 0.9)[inner]
        return paint

    def _ground(self, x: np.ndarray, z: np.ndarray, far: np.ndarray) -> np.ndarray:
        first, second = self.palette[0], self.palette[1]
        fine = 1.0 / (1.0 + (far / 9.0) ** 2)  # what is smaller than a pixel fades into its mean
        coarse = 1.0 / (1.0 + (far / 60.0) ** 2)
        n = self.noise
        if self.kind == "meadow":
            mix = np.clip(0.5 + 0.35 * n(x, z, 23.0) * coarse + 0.3 * n(x, z * 0.6, 1.9) * fine, 0, 1)[:, None]
            return (first * mix + second * (1 - mix)) * (1 + 0.22 * n(z, x, 0.9) * fine)[:, None].clip(0.3)
        grain = (1 + 0.06 * n(x, z, 11.0) * coarse + 0.06 * n(z, x, 0.8) * fine)[:, None]
        if self.kind == "beach":
            ripple = n(x * 0.7, z, 2.5) * fine
            return first * (grain + 0.07 * ripple[:, None])
        if self.kind == "street":
            line = (np.abs(np.mod(x + 1.3, 7.0) - 3.5) < 0.06) & (np.mod(z, 6.0) < 3.0)
            return np.where(line[:, None], 0.6 * grain, first * grain)
        if self.kind == "court":
            near_line = np.minimum(np.abs(np.mod(x + 2.0, 9.0) - 4.5), np.abs(np.mod(z + 1.0, 8.0) - 4.0))
            return np.where((near_line < 0.04)[:, None], 0.65, first * grain)
        if self.kind in ("hall", "home"):
            row = np.floor(x / 0.14)
            plank = np.floor(z / 1.3 + 0.37 * row)
            tone = 1 + (0.1 * n.cell(row, plank) + 0.07 * n(x * 9, z, 2.0)) * (fine * 0.7 + 0.3)
            seam = (np.mod(x, 0.14) < 0.006) * 0.35 * fine
            return first * (tone - seam)[:, None].clip(0.2)
        if self.kind == "square":
            i, j = np.floor(x / 0.6), np.floor(z / 0.6)
            gap = (np.mod(x, 0.6) < 0.018) | (np.mod(z, 0.6) < 0.018)
            tone = grain[:, 0] + 0.07 * n.cell(i, j) * coarse - 0.4 * gap * fine
            mix = (n.cell(i + 3, j) > 0.8)[:, None] * 0.5
            return (first * (1 - mix) + second * mix) * tone[:, None].clip(0.2)
        return first * grain


_PALETTES = {
    "meadow": [(88, 112, 50), (120, 124, 66), (150, 140, 120), (120, 110, 100)],
    "street": [(92, 92, 95), (80, 80, 82), (176, 150, 126), (150, 120, 110)],
    "square": [(150, 142, 130), (120, 112, 104), (186, 170, 146), (140, 132, 126)],
    "beach": [(204, 184, 146), (186, 166, 130), (150, 140, 120), (120, 110, 100)],
    "court": [(74, 108, 126), (60, 110, 80), (150, 140, 120), (120, 110, 100)],
    "hall": [(184, 140, 92), (160, 120, 80), (206, 202, 190), (110, 130, 150)],
    "studio": [(150, 150, 152), (150, 150, 152), (172, 172, 176), (150, 150, 150)],
    "home": [(140, 104, 74), (120, 90, 64), (206, 196, 176), (235, 235, 230)],
}
_GROUND_CHOICES = {
    "court": [(74, 108, 126), (60, 112, 78), (168, 92, 64), (84, 84, 120)],
    "studio": [(150, 150, 152), (96, 100, 110), (170, 150, 140), (120, 136, 130)],
    "home": [(140, 104, 74), (176, 140, 104), (110, 84, 66), (150, 146, 140)],
}
_SKIES = (((70, 120, 190), (186, 206, 224)), ((120, 150, 190), (226, 226, 220)), ((150, 160, 172), (206, 208, 210)))


def random_place(
    kind: str, to_world: np.ndarray, height: float, depth: float, rng: np.random.Generator
) -> tuple[Place, Light]:
    """A place of a kind and its light. `depth`: distance (metres) to which people stand; walls are behind it."""
    colours = [list(c) for c in _PALETTES[kind]]
    if kind in _GROUND_CHOICES:
        colours[0] = list(_GROUND_CHOICES[kind][rng.integers(len(_GROUND_CHOICES[kind]))])
    weather = int(rng.choice(3, p=[0.5, 0.2, 0.3]))
    palette = np.stack([srgb(*c) for c in [*colours, *_SKIES[weather]]])
    palette[:4] *= rng.uniform(0.85, 1.15, size=(4, 1)) * rng.uniform(0.94, 1.06, size=(4, 3))
    if kind in ("home", "hall", "studio"):
        palette[2] *= rng.uniform(0.7, 1.05) * rng.uniform(0.88, 1.08, size=3)
    indoors = kind in ("hall", "studio", "home")
    turn = rng.uniform(-0.6, 0.6) if indoors else rng.uniform(-0.35, 0.35)
    distance = depth + rng.uniform(1.0, 3.0) + (1.5 if indoors else rng.uniform(3, 12))
    place = Place(kind, to_world, height, Noise(rng), palette, distance, turn, int(rng.integers(1000)))
    return place, _light(indoors, weather, palette, to_world, rng)


def _light(indoors: bool, weather: int, palette: np.ndarray, to_world: np.ndarray, rng: np.random.Generator) -> Light:
    # the light comes from the camera's side more often than from behind the people, as photographers like it
    azimuth = rng.normal(0.0, 1.1)
    elevation = rng.uniform(0.9, 1.3) if indoors else rng.uniform(0.45, 1.15)
    world = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    if indoors:
        sun, sky, softness = np.array([0.75, 0.7, 0.62]), np.array([0.95, 0.93, 0.9]), 0.2
    elif weather == 2:
        sun, sky, softness = np.array([0.25, 0.25, 0.25]), np.array([1.25, 1.3, 1.35]), 0.4
    else:
        warm = np.clip(1.1 - elevation, 0.0, 0.6)
        sun = np.array([1.9, 1.9 - 0.35 * warm, 1.75 - 1.1 * warm]) * (1.0 if weather == 0 else 0.7)
        sky, softness = np.array([0.62, 0.74, 0.95]), 0.02
    mean_ground = palette[0]
    bounce = mean_ground * (sun * max(world[1], 0.2) + sky) * 0.9
    return Light(world @ to_world, np.array([0.0, 1.0, 0.0]) @ to_world, sun, sky, bounce, softness)
