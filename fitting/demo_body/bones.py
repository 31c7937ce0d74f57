"""The bone mesh: a procedural human skeleton inside the template skin (build time only).

Measures are read from the joint centres and finger and toe bones of the template where they exist and set by eye
elsewhere, in the template's frame (x left, y up, z forward, metres). Left bones are modelled and mirrored. Every
vertex is then kept a few millimetres under the skin and stored in its bone's own frame, as DESIGN section 3 step 7 wants it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .joints import SKEL_JOINTS, mirror_joints
from .solids import (
    Distance,
    Mesh,
    ball,
    ellipsoid,
    mirrored,
    plate,
    rod,
    smooth_path,
    surface,
    tube,
    union,
)

COVER = 0.006  # metres of soft tissue over every bone of the template
TRUNK_COVER = 0.011  # more over ribs and spine: their scale follows the spine's length, not the trunk's girth


@dataclass
class Part:
    """One piece: mesh, owner joint, and optionally a second joint with per-vertex share for posing."""

    mesh: Mesh
    owner: int
    other: int = -1
    share: np.ndarray = field(default_factory=lambda: np.zeros(0))


class Skin:
    """Depth under the template skin, by nearest of many surface samples."""

    def __init__(self, v: np.ndarray, f: np.ndarray) -> None:
        import trimesh
        from scipy.spatial import cKDTree

        mesh = trimesh.Trimesh(v, f, process=False)
        corner = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [4, 1, 1],
                           [1, 4, 1], [1, 1, 4]], float)
        corner /= corner.sum(1, keepdims=True)
        self.points = np.einsum("kc,fcx->fkx", corner, v[f]).reshape(-1, 3)
        normals = np.einsum("kc,fcx->fkx", corner, mesh.vertex_normals[f]).reshape(-1, 3)
        self.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        self.tree = cKDTree(self.points)

    def depth(self, p: np.ndarray) -> np.ndarray:
        """Metres below the skin, positive inside."""
        distance, i = self.tree.query(p)
        side = np.einsum("na,na->n", self.points[i] - p, self.normals[i])
        return np.where(side > 0, distance, -distance)

    def covered(self, p: np.ndarray, cover: float) -> np.ndarray:
        """Points moved inward until `cover` of skin lies over them."""
        p = p.copy()
        for _ in range(12):
            distance, i = self.tree.query(p)
            side = np.einsum("na,na->n", self.points[i] - p, self.normals[i])
            depth = np.where(side > 0, distance, -distance)
            lack = np.maximum(cover - depth, 0)
            p -= 0.7 * lack[:, None] * self.normals[i]
        return p

    def under(self, cover: float) -> Distance:
        """Signed distance of the region more than `cover` below the skin."""
        return lambda p: cover - self.depth(p)


def build_bones(
    template: np.ndarray,
    faces: np.ndarray,
    joints: np.ndarray,
    heads: dict[str, np.ndarray],
    to_local: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """Bone mesh for the template.

    joints: (24,3) SKEL joint centres. heads: template positions of Anny's left and middle bones.
    to_local: A (24,3,3) and uniform bone scale (24,) at zero shape.
    Returns v (Nk,3) in bone frames, f (Fk,3), rigid (Nk,24) and weights (Nk,24).
    """
    at = dict(zip(SKEL_JOINTS, joints, strict=True))
    index = {n: i for i, n in enumerate(SKEL_JOINTS)}
    skin = Skin(template, faces)
    left = _leg(at, heads, index) + _arm(at, heads, index, skin) + _scapula(at, index, skin) + _ribs(at, index)
    twins = mirror_joints(SKEL_JOINTS)
    parts = _skull(at, index, skin, heads) + _spine(at, index) + _pelvis(at, index, skin) + left
    for part in left:
        other = twins[part.other] if part.other >= 0 else -1
        parts.append(Part(mirrored(part.mesh), twins[part.owner], other, part.share))
    vertices, triangles, rigid, weights, used = [], [], [], [], 0
    frames, scale = to_local
    trunk = (index["thorax"], index["lumbar_body"])
    for part in parts:
        v, f = part.mesh
        v = skin.covered(v, TRUNK_COVER if part.owner in trunk else COVER)
        own, pose = np.zeros((len(v), 24)), np.zeros((len(v), 24))
        own[:, part.owner] = 1
        share = part.share if part.other >= 0 else np.zeros(len(v))
        pose[:, part.owner] = 1 - share
        if part.other >= 0:
            pose[:, part.other] = share
        vertices.append((v - joints[part.owner]) @ frames[part.owner] / scale[part.owner])
        triangles.append(f + used)
        rigid.append(own)
        weights.append(pose)
        used += len(v)
    return {
        "v": np.concatenate(vertices),
        "f": np.concatenate(triangles),
        "rigid": np.concatenate(rigid),
        "weights": np.concatenate(weights),
    }


def _path(points: list, radii: list, count: int, sides: int = 8, **shape) -> Mesh:
    return tube(*smooth_path(points, radii, count), sides=sides, **shape)


def _leg(at: dict, heads: dict, index: dict) -> list[Part]:
    hip, knee, ankle, heel, ball_of_foot = (at[f"{n}_l"] for n in ("femur", "tibia", "talus", "calcn", "toes"))
    femur, tibia, talus, calcn, toes = (index[f"{n}_l"] for n in ("femur", "tibia", "talus", "calcn", "toes"))
    parts = [
        Part(ball(hip, 0.0235, 6, 10), femur),
        Part(_path([hip, hip + [0.022, -0.012, -0.002], hip + [0.04, -0.03, -0.006]], [0.016, 0.013, 0.017], 4), femur),
        Part(ball(hip + [0.047, -0.02, -0.01], (0.012, 0.02, 0.014)), femur),
        Part(
            _path(
                [hip + [0.042, -0.022, -0.008], hip + [0.042, -0.07, -0.004], (hip + knee) / 2 + [0.014, 0, 0.014],
                 knee + [0.003, 0.07, 0.008], knee + [0, 0.022, 0.002]],
                [0.017, 0.0165, 0.0135, 0.0165, 0.028], 11, 10,
            ),
            femur,
        ),
        Part(ball(knee + [0.02, 0.004, -0.002], (0.0155, 0.021, 0.027)), femur),
        Part(ball(knee + [-0.021, 0.003, -0.002], (0.0155, 0.021, 0.028)), femur),
    ]
    patella = ball(knee + [0.001, 0.004, 0.036], (0.018, 0.02, 0.009))
    parts.append(Part(patella, tibia, femur, np.full(len(patella[0]), 0.5)))
    parts += [
        Part(
            _path(
                [knee + [0, -0.02, -0.002], knee + [0, -0.045, 0.0], knee + [-0.004, -0.11, 0.006],
                 (knee + ankle) / 2 + [-0.004, -0.02, 0.008], ankle + [-0.003, 0.07, 0.003], ankle + [-0.003, 0.018, 0]],
                [0.034, 0.026, 0.0155, 0.0125, 0.0125, 0.02], 12, 10,
            ),
            tibia,
        ),
        Part(ball(ankle + [-0.024, 0.002, 0.002], (0.008, 0.014, 0.01)), tibia),
        Part(
            _path(
                [knee + [0.033, -0.034, -0.018], knee + [0.03, -0.08, -0.016], (knee + ankle) / 2 + [0.022, 0, -0.012],
                 ankle + [0.022, 0.06, -0.006], ankle + [0.025, -0.008, -0.004]],
                [0.011, 0.0065, 0.006, 0.0065, 0.0095], 10, 7,
            ),
            tibia,
        ),
        Part(ball(ankle + [0, -0.008, 0.006], (0.018, 0.015, 0.025)), talus),
        Part(ball(ankle + [-0.004, -0.018, 0.03], (0.014, 0.012, 0.014)), talus),
    ]
    sole = template_low = ankle[1] - 0.062
    parts.append(Part(_path(
        [[heel[0] - 0.001, sole + 0.02, heel[2] - 0.016], [heel[0], sole + 0.025, heel[2] + 0.005],
         [heel[0], sole + 0.028, heel[2] + 0.032], [heel[0] + 0.007, sole + 0.026, heel[2] + 0.06]],
        [0.013, 0.021, 0.018, 0.012], 7), calcn))
    middle = heads["toe2-1"] * 0.38 + ankle * 0.62
    for dx, dy, dz, r in ((-0.011, 0.002, -0.005, 0.0145), (-0.019, 0.001, 0.017, 0.012), (-0.004, 0.004, 0.017, 0.0105),
                          (0.009, 0.002, 0.015, 0.0105), (0.02, -0.008, 0.001, 0.0145)):
        parts.append(Part(ball(middle + [dx, dy, dz], (r, r, 1.1 * r), 4, 7), calcn))
    for k in range(1, 6):
        knuckle = heads[f"toe{k}-1"]
        base = middle + [(-0.02, -0.008, 0.003, 0.014, 0.023)[k - 1], (0, 0.001, 0, -0.004, -0.008)[k - 1], 0.027]
        thick = 0.0085 if k == 1 else 0.0055
        start = knuckle - [0, 0.001, 0.014 if k == 1 else 0.012]
        parts.append(Part(_path([base, (base + start) / 2 + [0, 0.002, 0], start],
                                [1.15 * thick, 0.75 * thick, 1.2 * thick], 5, 7), calcn))
        chain = [heads[f"toe{k}-{m}"] for m in (1, 2, 3) if f"toe{k}-{m}" in heads]
        chain[0] = chain[0] - [0, 0.001, 0.006]
        chain.append(chain[-1] + 0.8 * (chain[-1] - chain[-2]) * (1.0 if k > 1 else 0.8))
        for a, b in zip(chain[:-1], chain[1:], strict=True):
            r = 0.0068 if k == 1 else 0.0042
            parts.append(Part(_path([a + 0.08 * (b - a), (a + b) / 2, b - 0.08 * (b - a)], [r, 0.7 * r, 0.9 * r], 3, 6),
                              toes))
    del template_low, ball_of_foot
    return parts


def _arm(at: dict, heads: dict, index: dict, skin: Skin) -> list[Part]:
    shoulder, elbow, radius, wrist = (at[f"{n}_l"] for n in ("humerus", "ulna", "radius", "hand"))
    humerus_i, ulna_i, radius_i, hand_i = (index[f"{n}_l"] for n in ("humerus", "ulna", "radius", "hand"))
    parts = [
        Part(ball(shoulder + [-0.003, 0.002, 0], 0.0225, 6, 10), humerus_i),
        Part(ball(shoulder + [0.014, 0.01, 0.003], (0.012, 0.012, 0.014)), humerus_i),
        Part(_path([shoulder + [0.006, 0, 0], shoulder + [0.04, 0, 0.001], (shoulder + elbow) / 2,
                    elbow + [-0.05, 0.002, 0.001], elbow + [-0.016, 0.003, 0.002]],
                   [0.019, 0.0135, 0.0105, 0.0115, 0.014], 10, 9), humerus_i),
        Part(_path([elbow + [-0.012, -0.024, 0.0], elbow + [-0.004, -0.008, 0.003], elbow + [-0.002, 0.01, 0.004],
                    elbow + [-0.006, 0.025, 0.002]], [0.007, 0.011, 0.0115, 0.008], 6), humerus_i),
        Part(_path([elbow + [-0.01, -0.002, -0.016], elbow + [0.012, -0.004, -0.01], elbow + [0.05, -0.006, -0.006],
                    (elbow + wrist) / 2 + [0, -0.003, -0.013], wrist + [-0.03, 0.0, -0.017], wrist + [-0.008, 0.001, -0.018]],
                   [0.01, 0.0125, 0.009, 0.007, 0.006, 0.008], 11, 8), ulna_i),
        Part(_path([radius + [-0.006, -0.003, 0.003], radius + [0.006, -0.003, 0.003], radius + [0.02, -0.005, 0.004],
                    radius * 0.5 + wrist * 0.5 + [0, 0.0, 0.014], wrist + [-0.04, 0.001, 0.01], wrist + [-0.007, 0.0, 0.007]],
                   [0.0115, 0.011, 0.0075, 0.0075, 0.0095, 0.0145], 12, 8, flat=0.8, up=(0, 1, 0)), radius_i),
    ]
    palm = wrist * 0.8 + (heads["finger3-1"]) * 0.2
    for dx, dz in ((-0.009, -0.017), (-0.011, -0.004), (-0.01, 0.01), (-0.003, 0.02), (0.006, -0.015), (0.006, -0.003),
                   (0.007, 0.008), (0.008, 0.018)):
        parts.append(Part(ball(palm + [dx, -0.001, dz - 0.003], (0.0075, 0.007, 0.0072), 3, 6), hand_i))
    for k in range(1, 6):
        knuckle = heads[f"finger{k}-1"]
        chain = [heads[f"finger{k}-{m}"] for m in (1, 2, 3)]
        tip = chain[2] + (chain[2] - chain[1]) * (0.72 if k > 1 else 0.62)
        tip = skin.covered(tip[None], 0.0065)[0]
        if k > 1:
            base = palm + [0.017, -0.001, (0, 0, 0.014, 0.003, -0.007, -0.016)[k]]
            parts.append(Part(_path([base, (base + knuckle) / 2 + [0, 0.001, 0], knuckle - [0.006, 0, 0]],
                                    [0.007, 0.0042, 0.007], 5, 6), hand_i))
        else:
            chain[0] = chain[0] * 0.8 + palm * 0.2
        for (a, b), r in zip(zip(chain, [*chain[1:], tip], strict=True), (0.0058, 0.005, 0.0042), strict=True):
            parts.append(Part(_path([a + 0.08 * (b - a), (a + b) / 2, b - 0.08 * (b - a)], [r, 0.68 * r, 0.9 * r], 4, 6),
                              hand_i))
    return parts


def _scapula(at: dict, index: dict, skin: Skin) -> list[Part]:
    gh, ac = at["humerus_l"], at["scapula_l"]
    socket = gh + [-0.031, 0.0, -0.006]
    upper, lower = np.array([0.07, ac[1] - 0.022, -0.046]), np.array([0.082, ac[1] - 0.152, -0.058])
    edge = np.array([0.066, ac[1] - 0.055, -0.052])
    shape = union(
        [
            plate(upper, edge, socket, 0.0055),
            plate(edge, lower, socket, 0.0055),
            rod([edge + [0.004, 0.004, -0.006], (edge + ac) / 2 + [0, 0.004, -0.014], ac + [0.006, 0.006, -0.012],
                 ac + [0.022, 0.008, 0.008]], [0.005, 0.007, 0.0075, 0.008]),
            rod([socket, socket + [-0.012, 0.0, -0.004]], [0.0135, 0.009]),
            rod([socket + [-0.014, 0.012, 0.006], socket + [-0.012, 0.022, 0.024], socket + [0.004, 0.012, 0.034]],
                [0.006, 0.006, 0.005]),
        ],
        0.008,
    )
    cover = skin.under(COVER)
    mesh = surface(lambda p: np.maximum(shape(p), cover(p)), lower - 0.03, ac + [0.06, 0.04, 0.07], 0.0072)
    thorax, scapula = index["thorax"], index["scapula_l"]
    clavicle = _path(
        [[0.016, ac[1] - 0.025, 0.054], [0.05, ac[1] - 0.01, 0.056], [0.1, ac[1] + 0.003, 0.03], ac + [0.002, 0.008, 0.003]],
        [0.0105, 0.0065, 0.006, 0.0085], 9, 7,
    )
    share = np.clip((clavicle[0][:, 0] - 0.016) / (ac[0] - 0.016), 0, 1)
    return [Part(mesh, scapula), Part(clavicle, thorax, scapula, share)]


# The back of the vertebral bodies' line: height as a fraction from lumbar joint (0) to the head joint (1), depth z.
def _spine_line(at: dict) -> tuple[np.ndarray, np.ndarray]:
    """Centres (24,3) and half-heights (24,) of C1..L5 from the top down."""
    from scipy.interpolate import PchipInterpolator

    sizes = np.concatenate([np.full(7, 0.78), np.linspace(0.95, 1.3, 12), np.linspace(1.45, 1.6, 5)])
    top, bottom = at["head"][1] + 0.012, at["lumbar_body"][1] - 0.018
    edges = np.concatenate([[0], sizes.cumsum()]) / sizes.sum()
    y = top + (bottom - top) * edges
    z = PchipInterpolator(
        [bottom, bottom + 0.06, bottom + 0.15, bottom + 0.28, bottom + 0.36, bottom + 0.42, top],
        [-0.022, -0.008, -0.014, -0.034, -0.018, 0.008, at["head"][2] + 0.002],
    )
    centre = np.stack([np.zeros(24), (y[1:] + y[:-1]) / 2, z((y[1:] + y[:-1]) / 2)], axis=1)
    return centre, np.abs(np.diff(y)) / 2


def _spine(at: dict, index: dict) -> list[Part]:
    centre, half = _spine_line(at)
    head, thorax, lumbar = index["head"], index["thorax"], index["lumbar_body"]
    parts = []
    for k in range(24):
        c, h = centre[k], half[k]
        wide = (0.0095 + 0.0004 * k) if k < 7 else 0.0115 + 0.0006 * (k - 7)
        deep = 0.8 * wide
        upright = np.array([0.0, h * 0.86, 0])
        body = tube([c - upright, c - 0.5 * upright, c + 0.5 * upright, c + upright],
                    [0.95 * wide, 0.85 * wide, 0.85 * wide, 0.95 * wide], 8, flat=deep / wide, up=(0, 0, 1))
        back = np.array([0, -0.004 if k < 7 else (-0.012 if k < 17 else -0.002), -0.012])
        length = 1.0 if k < 6 else 1.35
        spine = tube([c + [0, 0, -deep], c + [0, 0, -deep] + 0.6 * length * back, c + [0, 0, -deep] + length * 1.3 * back],
                     [0.006, 0.0042, 0.0035], 6)
        across = 0.02 if k < 7 else (0.026 if k < 19 else 0.032)
        wings = tube([c + [-across, 0, -deep - 0.004], c + [0, 0, -deep * 0.9], c + [across, 0, -deep - 0.004]],
                     [0.003, 0.0055, 0.003], 6)
        if k < 7:
            owner, other = (head, thorax) if k < 3 else (thorax, head)
            up = 1 - (k + 0.5) / 7
            share = 1 - up if owner == head else up
        elif k < 19:
            owner, other, share = thorax, lumbar, max(0.0, (k - 16) / 6)
        else:
            owner, other, share = lumbar, thorax, max(0.0, (21 - k) / 6)
        for mesh in (body, spine, wings):
            parts.append(Part(mesh, owner, other, np.full(len(mesh[0]), share)))
    return parts


HALF_WIDTH = (0.046, 0.068, 0.083, 0.094, 0.102, 0.107, 0.110, 0.111, 0.110, 0.106, 0.098, 0.084)
DROP = (0.028, 0.042, 0.055, 0.066, 0.075, 0.082, 0.088, 0.090, 0.085, 0.08, 0.07, 0.045)


def _ribs(at: dict, index: dict) -> list[Part]:
    centre, _ = _spine_line(at)
    thorax = index["thorax"]
    notch = np.array([0, at["scapula_l"][1] - 0.03, 0.06])
    tip = np.array([0, notch[1] - 0.15, 0.098])
    parts = [Part(tube([notch + [0, 0.004, -0.002], notch * 0.8 + tip * 0.2, notch * 0.6 + tip * 0.4, tip,
                        tip + [0, -0.022, -0.002]], [0.019, 0.021, 0.014, 0.0155, 0.004], 8, flat=0.32, up=(0, 0, 1)),
                  thorax)]
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
    # The sternum is modelled whole; the caller mirrors left parts, so only its left half is needed: split by halves.
    whole = parts[0].mesh[0]
    whole[:, 0] = np.maximum(whole[:, 0], 0)
    return parts


def _pelvis(at: dict, index: dict, skin: Skin) -> list[Part]:
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
            plate(back, rear_crest, socket, 0.006),
            plate(rear_crest, crest, socket, 0.0055),
            plate(back, low_back, socket, 0.008),
            plate(crest, front, socket, 0.0055),
            plate(front, front_low, socket, 0.007),
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
            plate([-0.042, back[1] - 0.012, back[2] + 0.01], [0.042, back[1] - 0.012, back[2] + 0.01],
                  [0, hip[1] + 0.01, back[2] - 0.004], 0.012),
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


def _skull(at: dict, index: dict, skin: Skin, heads: dict) -> list[Part]:
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

    def skull(q: np.ndarray) -> np.ndarray:
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
        Part(surface(skull, low, high, 0.008, symmetric=True), index["head"]),
        Part(surface(mandible, low, high, 0.0074, symmetric=True), index["head"]),
    ]
