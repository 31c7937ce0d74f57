# ruff: noqa: RUF005  (adding a list to a vector is vector addition here)
"""Skull, spine, ribs and pelvis of the bone mesh (build time only)."""

from __future__ import annotations

import numpy as np

from fitting.demo_body.build.bone_parts import COVER, Part, SkinDepth
from fitting.demo_body.build.solids import ellipsoid, plate, rod, surface, tube, union


def _spine_line(at: dict) -> tuple[np.ndarray, np.ndarray]:
    """Centres (24,3) and half-heights (24,) of C1..L5 from the top down."""
    from scipy.interpolate import PchipInterpolator

    sizes = np.concatenate([np.full(7, 0.78), np.linspace(0.95, 1.3, 12), np.linspace(1.45, 1.6, 5)])
    top, bottom = at["head"][1] + 0.012, at["femur_l"][1] + 0.12
    edges = np.concatenate([[0], sizes.cumsum()]) / sizes.sum()
    y = top + (bottom - top) * edges
    z = PchipInterpolator(
        [bottom, bottom + 0.06, bottom + 0.15, bottom + 0.28, bottom + 0.36, bottom + 0.42, top],
        [-0.022, -0.008, -0.014, -0.034, -0.018, 0.008, at["head"][2] + 0.002],
    )
    centre = np.stack([np.zeros(24), (y[1:] + y[:-1]) / 2, z((y[1:] + y[:-1]) / 2)], axis=1)
    return centre, np.abs(np.diff(y)) / 2


def spine(at: dict, index: dict) -> list[Part]:
    """24 vertebrae: body, spinous process, transverse processes. Neighbouring joints share those near a border."""
    centre, half = _spine_line(at)
    head, thorax, lumbar, pelvis_i = (index[n] for n in ("head", "thorax", "lumbar_body", "pelvis"))
    parts = []
    for k in range(24):
        c, h = centre[k], half[k]
        wide = (0.0095 + 0.0004 * k) if k < 7 else 0.0115 + 0.0006 * (k - 7)
        deep = 0.8 * wide
        upright = np.array([0.0, h * 0.86, 0])
        body = tube(
            [c - upright, c - 0.5 * upright, c + 0.5 * upright, c + upright],
            [0.95 * wide, 0.85 * wide, 0.85 * wide, 0.95 * wide],
            8,
            flat=deep / wide,
            up=(0, 0, 1),
        )
        back = np.array([0, -0.004 if k < 7 else (-0.012 if k < 17 else -0.002), -0.012])
        length = 1.0 if k < 6 else 1.35
        process = tube(
            [c + [0, 0, -deep], c + [0, 0, -deep] + 0.6 * length * back, c + [0, 0, -deep] + length * 1.3 * back],
            [0.006, 0.0042, 0.0035],
            6,
        )
        across = 0.02 if k < 7 else (0.026 if k < 19 else 0.032)
        wings = tube(
            [c + [-across, 0, -deep - 0.004], c + [0, 0, -deep * 0.9], c + [across, 0, -deep - 0.004]],
            [0.003, 0.0055, 0.003],
            6,
        )
        if k < 7:
            owner, other = (head, thorax) if k < 3 else (thorax, head)
            up = 1 - (k + 0.5) / 7
            share = 1 - up if owner == head else up
        elif k < 19:
            owner, other, share = thorax, lumbar, max(0.0, (k - 16) / 6)
        else:
            owner, other, share = lumbar, pelvis_i, 0.12 * (k - 19)
        for mesh in (body, process, wings):
            parts.append(Part(mesh, owner, other, np.full(len(mesh[0]), share)))
    return parts


HALF_WIDTH = (0.046, 0.068, 0.083, 0.094, 0.102, 0.107, 0.110, 0.111, 0.110, 0.106, 0.098, 0.084)
DROP = (0.028, 0.042, 0.055, 0.066, 0.075, 0.082, 0.088, 0.090, 0.085, 0.08, 0.07, 0.045)


def ribs(at: dict, index: dict) -> list[Part]:
    """Left ribs and the left half of the sternum."""
    centre, _ = _spine_line(at)
    thorax = index["thorax"]
    notch = np.array([0, at["scapula_l"][1] - 0.03, 0.06])
    tip = np.array([0, notch[1] - 0.15, 0.098])
    parts = [
        Part(
            tube(
                [
                    notch + [0, 0.004, -0.002],
                    notch * 0.8 + tip * 0.2,
                    notch * 0.6 + tip * 0.4,
                    tip,
                    tip + [0, -0.022, -0.002],
                ],
                [0.019, 0.021, 0.014, 0.0155, 0.004],
                8,
                flat=0.32,
                up=(0, 0, 1),
            ),
            thorax,
        )
    ]
    for k in range(12):
        c = centre[7 + k] + [0, 0.004, -0.014]
        t = min(k, 6) / 6
        if k < 7:
            end, stop = notch * (1 - t) + tip * t + [0.014, 0, 0], 1.0
        elif k < 10:
            end, stop = tip + [0.03 + 0.018 * (k - 7), -0.014 * (k - 6), -0.008 * (k - 7)], 1.0
        else:
            end, stop = tip + [0.06, -0.075, -0.03], (0.62, 0.42)[k - 10]
        angle = np.linspace(0.06, stop, 13) * np.pi
        forward = (1 - np.cos(angle)) / 2
        x = 0.012 + HALF_WIDTH[k] * np.sin(angle) ** 0.85 + (end[0] - 0.012) * forward**3
        x = np.minimum(x, HALF_WIDTH[k] + 0.004)
        z = c[2] + (end[2] - c[2]) * forward - 0.014 * np.sin(np.minimum(angle * 2.2, np.pi))
        fall = c[1] - DROP[k] * np.sin(np.minimum(angle, 0.78 * np.pi) / 0.78 / 2) ** 1.3
        rise = np.clip((angle / np.pi - 0.7) / 0.3, 0, 1)
        y = fall + (end[1] - (c[1] - DROP[k])) * rise * rise * (3 - 2 * rise) if k < 10 else fall
        parts.append(Part(tube(np.stack([x, y, z], 1), np.full(13, 0.0046), 5, flat=1.35, up=(0, 1, 0)), thorax))
    # The sternum was made whole; the caller mirrors left parts, so only its left half is kept, closed at the middle.
    whole = parts[0].mesh[0]
    whole[:, 0] = np.maximum(whole[:, 0], 0)
    return parts


def pelvis(at: dict, index: dict, skin: SkinDepth) -> list[Part]:
    """Both hip bones and the sacrum, one mesh."""
    hip = at["femur_l"]

    def p(x: float, y: float, z: float) -> np.ndarray:
        return np.array([x, hip[1] + y, hip[2] + z])

    socket = hip + [-0.004, 0.004, 0]
    back, low_back = p(0.036, 0.118, -0.052), p(0.034, 0.04, -0.05)
    crest, rear_crest = p(0.124, 0.132, 0.0), p(0.09, 0.14, -0.04)
    front, front_low = p(0.118, 0.083, 0.066), p(0.1, 0.035, 0.045)
    symphysis, seat = p(0.011, -0.028, 0.066), p(0.06, -0.082, -0.03)
    half = union(
        [
            plate(back, rear_crest, socket, 0.0072),
            plate(rear_crest, crest, socket, 0.0068),
            plate(back, low_back, socket, 0.008),
            plate(crest, front, socket, 0.0068),
            plate(front, front_low, socket, 0.0075),
            rod([rear_crest, crest, front], [0.008, 0.008, 0.008]),
            rod([socket + [-0.006, 0.0, 0.016], p(0.05, 0.0, 0.055), symphysis], [0.015, 0.0095, 0.012]),
            rod([symphysis, p(0.03, -0.055, 0.03), seat], [0.011, 0.008, 0.013]),
            rod([socket + [-0.004, -0.01, -0.012], p(0.072, -0.055, -0.03), seat], [0.02, 0.014, 0.014]),
            ellipsoid(socket, (0.031, 0.031, 0.031)),
        ],
        0.012,
    )
    sacrum = union(
        [
            plate(
                [-0.042, back[1] - 0.012, back[2] + 0.01],
                [0.042, back[1] - 0.012, back[2] + 0.01],
                [0, hip[1] + 0.01, back[2] - 0.004],
                0.012,
            ),
            rod([[0, hip[1] + 0.02, back[2] - 0.004], [0, hip[1] - 0.012, back[2] + 0.012]], [0.011, 0.005]),
        ],
        0.01,
    )
    hollow = union([ellipsoid(hip + [0.006, -0.002, 0.002], (0.0265, 0.0265, 0.0265))], 0.01)
    cover = skin.under(COVER)

    def shape(q: np.ndarray) -> np.ndarray:
        folded = q * [1, 1, 1]
        folded[:, 0] = np.abs(folded[:, 0])
        d = np.minimum(np.maximum(half(folded), -hollow(folded)), sacrum(folded))
        return np.maximum(d, cover(folded))

    mesh = surface(shape, [-0.16, hip[1] - 0.12, -0.12], [0.16, hip[1] + 0.17, 0.12], 0.0092, symmetric=True)
    return [Part(mesh, index["pelvis"])]


def skull(index: dict, skin: SkinDepth, heads: dict) -> list[Part]:
    """Skull and mandible."""
    eye = heads["eye"]

    def p(x: float, y: float, z: float) -> np.ndarray:
        """Relative to the point between the eyes."""
        return np.array([x, eye[1] + y, eye[2] + z])

    bone = union(
        [
            ellipsoid(p(0, 0.038, -0.078), (0.07, 0.075, 0.094)),
            ellipsoid(p(0, -0.005, -0.025), (0.053, 0.045, 0.05)),
            ellipsoid(p(0, -0.048, -0.016), (0.03, 0.022, 0.034)),
            rod([p(0.05, -0.018, -0.012), p(0.064, -0.014, -0.04), p(0.064, -0.01, -0.075)], [0.009, 0.0055, 0.006]),
            rod([p(0.052, -0.03, -0.085), p(0.05, -0.05, -0.078)], [0.012, 0.006]),
        ],
        0.012,
    )
    orbit = rod([p(0.033, 0.003, 0.03), p(0.026, 0.002, -0.025)], [0.0205, 0.013])
    nose = rod([p(0.005, -0.028, 0.04), p(0.004, -0.018, -0.002)], [0.0105, 0.006])
    below = ellipsoid(p(0, -0.075, -0.07), (0.038, 0.045, 0.05))
    jaw = union(
        [
            rod([p(0, -0.087, 0.002), p(0.02, -0.085, -0.006), p(0.042, -0.073, -0.05)], [0.0105, 0.0105, 0.0085]),
            rod([p(0, -0.076, 0.004), p(0.02, -0.074, -0.005), p(0.041, -0.066, -0.05)], [0.008, 0.008, 0.007]),
            plate(p(0.042, -0.073, -0.045), p(0.046, -0.062, -0.072), p(0.053, -0.02, -0.07), 0.0055),
        ],
        0.008,
    )
    thin, thick = skin.under(0.009), skin.under(0.009)

    def upper(q: np.ndarray) -> np.ndarray:
        folded = q.copy()
        folded[:, 0] = np.abs(folded[:, 0])
        d = np.maximum(bone(folded), -np.minimum(np.minimum(orbit(folded), nose(folded)), below(folded)))
        return np.maximum(d, thin(folded))

    def mandible(q: np.ndarray) -> np.ndarray:
        folded = q.copy()
        folded[:, 0] = np.abs(folded[:, 0])
        return np.maximum(jaw(folded), thick(folded))

    low, high = p(-0.09, -0.12, -0.19), p(0.09, 0.13, 0.06)
    return [
        Part(surface(upper, low, high, 0.008, symmetric=True), index["head"]),
        Part(surface(mandible, low, high, 0.0074, symmetric=True), index["head"]),
    ]
