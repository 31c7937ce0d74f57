"""Clothes, skin and hair of the demo people, painted as a function of the point on the body in its rest pose.

SMPL's rest pose is a T-pose (x to the person's left, y up, z forward, metres), so that sleeves end at a value of |x|
and trousers at a value of y. All colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo.scenery import Noise, srgb


@dataclass(frozen=True)
class BodyMap:
    """Places on the template body that clothes refer to, metres in the rest frame."""

    points: np.ndarray
    """(V,3) template vertices in the rest pose."""
    headness: np.ndarray
    """(V,) share of the head's joint in a vertex's skinning weights."""
    sole: float
    ankle: float
    knee: float
    crotch: float
    waist: float
    neck: np.ndarray
    """(3,) base of the neck."""
    shoulder: float
    elbow: float
    wrist: float
    head: np.ndarray
    """(3,) centre of the skull."""
    head_top: float
    eyes: np.ndarray
    """(2,3) right and left."""
    nose: np.ndarray


def map_body(template: np.ndarray, joints: np.ndarray, weights: np.ndarray, landmarks: np.ndarray) -> BodyMap:
    """`template` (V,3), SMPL's rest `joints` (24,3), skinning `weights` (V,24), `landmarks` (3,) vertex indices of
    nose, right eye, left eye (smplx order)."""
    headness = weights[:, 15]
    skull = template[headness > 0.9]
    middle = (skull.min(axis=0) + skull.max(axis=0)) / 2
    return BodyMap(
        points=template,
        headness=headness,
        sole=template[:, 1].min(),
        ankle=joints[[7, 8], 1].mean(),
        knee=joints[[4, 5], 1].mean(),
        crotch=joints[[1, 2], 1].mean() - 0.08,
        waist=joints[3, 1],
        neck=joints[12],
        shoulder=np.abs(joints[[16, 17], 0]).mean(),
        elbow=np.abs(joints[[18, 19], 0]).mean(),
        wrist=np.abs(joints[[20, 21], 0]).mean(),
        head=middle,
        head_top=skull[:, 1].max(),
        eyes=template[landmarks[1:3]],
        nose=template[landmarks[0]],
    )


@dataclass(frozen=True)
class Outfit:
    """What one person wears; lengths are shares of the limb (0 = none, 1 = to wrist or ankle)."""

    skin: np.ndarray
    hair: np.ndarray
    hair_style: str
    top: np.ndarray
    top_second: np.ndarray
    pattern: str
    pattern_size: float
    sleeve: float
    neckline: float
    """How far the collar dips in front, metres."""
    bottom: np.ndarray
    leg: float
    shoes: np.ndarray
    socks: np.ndarray
    fit: float
    """How far clothes stand off the skin, metres."""


_SKINS = [(244, 208, 180), (232, 184, 150), (210, 158, 122), (178, 124, 88), (134, 88, 60), (92, 60, 44)]
_HAIRS = [(28, 22, 20), (52, 36, 26), (88, 60, 38), (140, 100, 58), (190, 156, 104), (120, 58, 34), (150, 148, 146)]
_CLOTHES = [
    *((176, 44, 46), (40, 74, 140), (232, 230, 224), (36, 38, 44), (70, 128, 84), (226, 178, 62), (120, 132, 148)),
    *((200, 110, 60), (110, 66, 130), (92, 150, 186), (206, 150, 164), (60, 92, 84), (150, 120, 92), (24, 42, 84)),
]
_BOTTOMS = [(44, 58, 92), (34, 36, 42), (92, 94, 98), (150, 132, 104), (70, 84, 116), (66, 60, 52), (196, 190, 178)]
_SHOES = [(230, 230, 228), (30, 30, 32), (92, 64, 44), (170, 50, 50), (60, 80, 130)]


def random_outfit(rng: np.random.Generator) -> Outfit:
    """An outfit drawn from a small wardrobe."""

    def pick(colours: list[tuple[int, int, int]], spread: float = 0.12) -> np.ndarray:
        colour = srgb(*colours[rng.integers(len(colours))])
        return (colour * rng.uniform(1 - spread, 1 + spread, size=3) + 0.004).clip(0.004, 0.85)

    return Outfit(
        skin=pick(_SKINS, 0.06),
        hair=pick(_HAIRS),
        hair_style=str(rng.choice(["short", "long", "bob", "cap", "bald"], p=[0.38, 0.24, 0.2, 0.12, 0.06])),
        top=pick(_CLOTHES),
        top_second=pick(_CLOTHES),
        pattern=str(rng.choice(["plain", "hoops", "pinstripe", "check", "block", "print"], p=[0.4, *[0.12] * 5])),
        pattern_size=rng.uniform(0.035, 0.075),
        sleeve=float(rng.choice([0.0, 0.28, 0.36, 0.97])),
        neckline=rng.uniform(0.0, 0.085),
        bottom=pick(_BOTTOMS),
        leg=float(rng.choice([0.12, 0.45, 0.95, 0.97, 0.98])),
        shoes=pick(_SHOES),
        socks=pick([(225, 225, 222), (40, 40, 44)]),
        fit=rng.uniform(0.004, 0.011),
    )


class Wearer:
    """One person's surface: colour of points and how far clothes and hair stand off the body."""

    def __init__(self, body: BodyMap, outfit: Outfit, noise: Noise, seed: int) -> None:
        self.body, self.outfit, self.noise = body, outfit, noise
        self.shift = 0.37 * (seed % 97)

    def paint(self, points: np.ndarray, headness: np.ndarray) -> np.ndarray:
        """Reflectance (n,3) of points (n,3) of the rest pose; `headness` (n,): share of the head in their weights."""
        o = self.outfit
        x, y, z = points.T
        cloth = 1 + 0.07 * self.noise(x + self.shift, y * 0.6 + z, 0.5) + 0.05 * self.noise(z - self.shift, y, 0.1)
        colour = o.skin * (1 + 0.03 * self.noise(x * 2 + self.shift, y * 2 + z, 0.3))[:, None]
        shoe, sock, bottom, top = self._garments(points, headness)
        colour[sock] = o.socks * cloth[sock, None]
        colour[top] = self._top_colour(x[top], y[top], z[top]) * cloth[top, None]
        colour[bottom] = o.bottom * cloth[bottom, None]
        belt = bottom & (y > self._belt() - 0.03)
        colour[belt] *= 0.45
        colour[shoe] = o.shoes * cloth[shoe, None]
        colour[shoe & (y < self.body.sole + 0.018)] *= 0.4
        self._face(points, headness, colour)
        hair = self._hair(points, headness) > 0
        around = np.arctan2(x, z - self.body.head[2])
        strands = 1 + 0.16 * self.noise(around * 0.3 + self.shift, y * 0.12, 0.4)
        hair_colour = o.top_second if o.hair_style == "cap" else o.hair
        colour[hair] = hair_colour * (cloth if o.hair_style == "cap" else strands)[hair, None]
        return colour.clip(0.003, 0.9)

    def standoff(self) -> np.ndarray:
        """(V,) metres along the normal by which the visible surface lies outside the body's."""
        o, points, headness = self.outfit, self.body.points, self.body.headness
        shoe, _, bottom, top = self._garments(points, headness)
        thickness = np.zeros(len(points))
        thickness[top | bottom] = o.fit
        thickness[shoe] = 0.009
        full = {"short": 0.016, "long": 0.024, "bob": 0.026, "cap": 0.016, "bald": 0.0}[o.hair_style]
        hair = self._hair(points, headness)
        return np.maximum(thickness, full * np.clip(hair / 0.02, 0, 1))

    def smoothness(self) -> np.ndarray:
        """(V,) between 0 and 1: how much garments hide of the body's relief; shoes have no toes."""
        shoe, _, bottom, top = self._garments(self.body.points, self.body.headness)
        return np.where(shoe, 0.85, np.where(top | bottom, 0.3, 0.0))

    def _belt(self) -> float:
        return self.body.waist - 0.02

    def _garments(self, points: np.ndarray, headness: np.ndarray) -> tuple[np.ndarray, ...]:
        """Masks of shoes, socks, trousers and top; they do not overlap."""
        b, o = self.body, self.outfit
        x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        arm = (x > b.shoulder) & (y > b.waist)
        shoe = ~arm & (y < b.ankle - 0.005)
        sock = ~arm & ~shoe & (y < b.ankle + 0.07)
        hem = b.crotch + o.leg * (b.ankle - b.crotch)
        bottom = ~arm & ~shoe & (y < self._belt()) & (y > hem)
        cuff = b.shoulder + 0.05 + o.sleeve * (b.wrist - b.shoulder - 0.05)
        if o.sleeve == 0.0:
            cuff = b.shoulder + 0.01
        front = np.clip((z - b.neck[2] - 0.01) / 0.05, 0.0, 1.0)
        collar = b.neck[1] - 0.005 - o.neckline * front * np.clip(1.3 - x / 0.065, 0.0, 1.0)
        top = (y >= self._belt()) & (x < cuff) & (y < collar)
        return shoe, sock & ~bottom, bottom, top

    def _top_colour(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        o, b = self.outfit, self.body
        arm = np.abs(x) > b.shoulder
        along = np.where(arm, np.abs(x), y)  # stripes run around the arm as around the trunk
        across = np.where(arm, y, x)
        if o.pattern == "hoops":
            second = np.mod(along / o.pattern_size, 1) < 0.5
        elif o.pattern == "pinstripe":
            second = np.mod(across / o.pattern_size * 2, 1) < 0.22
        elif o.pattern == "check":
            second = (np.mod(along / o.pattern_size, 1) < 0.5) ^ (np.mod(across / o.pattern_size, 1) < 0.5)
        elif o.pattern == "block":
            second = arm | (y > b.neck[1] - 0.16)
        elif o.pattern == "print":
            second = (z > b.neck[2]) & (np.abs(x) < 0.09) & (np.abs(y - b.neck[1] + 0.22) < 0.06)
            second &= self.noise(x * 3 + self.shift, y * 3, 0.5) > -0.2
        else:
            second = np.zeros(len(x), bool)
        return np.where(second[:, None], o.top_second, o.top)

    def _face(self, points: np.ndarray, headness: np.ndarray, colour: np.ndarray) -> None:
        b = self.body
        face = np.flatnonzero((headness > 0.5) & (points[:, 2] > b.head[2]))
        x, y = np.abs(points[face, 0]), points[face, 1]
        eye_x, eye_y = np.abs(b.eyes[:, 0]).mean(), b.eyes[:, 1].mean()
        gap = eye_y - b.nose[1]  # from the eyes to the tip of the nose: the unit of a face
        apart = np.hypot((x - eye_x) / 1.5, y - eye_y)
        colour[face[apart < 0.17 * gap]] = 0.5
        colour[face[np.hypot(x - eye_x, y - eye_y) < 0.16 * gap]] = srgb(58, 44, 36)
        brow = (np.abs(y - eye_y - 0.5 * gap) < 0.09 * gap) & (np.abs(x - eye_x) < 0.42 * gap)
        colour[face[brow]] = np.minimum(self.outfit.hair, self.outfit.skin * 0.5)
        mouth = np.hypot(x / (0.62 * gap), (y - b.nose[1] + 0.72 * gap) / (0.16 * gap)) < 1
        colour[face[mouth]] *= np.array([0.75, 0.45, 0.45])
        cheeks = np.hypot((x - 1.2 * eye_x) / gap, (y - b.nose[1] + 0.05) / gap) < 0.6
        colour[face[cheeks]] *= np.array([1.04, 0.97, 0.96])

    def _hair(self, points: np.ndarray, headness: np.ndarray) -> np.ndarray:
        """Signed depth (n,) inside the region that hair covers, metres, positive inside."""
        b, style = self.body, self.outfit.hair_style
        x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        if style == "bald":
            return np.full(len(points), -1.0)
        tall = b.head_top - b.nose[1]
        front = (z - b.head[2]) / max(b.nose[2] - b.head[2], 1e-3)  # 1 at the nose, 0 in the middle, -1 at the back
        brow = b.eyes[:, 1].mean() + 0.38 * tall
        if style == "cap":
            line = brow - 0.06 * tall + 0 * front
        else:
            low = {"short": b.nose[1] - 0.01, "long": b.neck[1] - 0.08, "bob": b.nose[1] - 0.075}[style]
            edge = {"short": 0.05, "long": 0.3, "bob": 0.32}[style]
            line = low + (brow - low) * np.clip((front - edge + 0.3) / 0.3, 0, 1)
            line = line + 0.12 * tall * np.cos(np.clip(x / 0.06, 0, np.pi / 2)) * (front > 0.3)
        nape = (x < 0.075) & (z < b.neck[2] - 0.03 * (y < b.neck[1])) & (y > b.neck[1] - 0.1)
        return np.where(((headness > 0.3) & (y > b.neck[1])) | nape, y - line, -1.0)
