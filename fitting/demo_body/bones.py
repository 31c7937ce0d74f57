"""The bone mesh (crude first version)."""

from __future__ import annotations

import numpy as np

from .joints import SKEL_PARENTS


def tube(points: np.ndarray, radii: np.ndarray, sides: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Closed tube through `points` (N,3) with `radii` (N,)."""
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(along.mean(0)).argmin()]
    u = np.cross(along, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w = np.cross(along, u)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(turn)[None, :, None] * u[:, None] + np.sin(turn)[None, :, None] * w[:, None]
    v = (points[:, None] + radii[:, None, None] * ring).reshape(-1, 3)
    v = np.concatenate([v, points[:1], points[-1:]])
    f = []
    n = len(points)
    for i in range(n - 1):
        for k in range(sides):
            a, b = i * sides + k, i * sides + (k + 1) % sides
            f += [[a, b, a + sides], [b, b + sides, a + sides]]
    for k in range(sides):
        b = (k + 1) % sides
        f += [[k, len(v) - 2, b], [(n - 1) * sides + k, (n - 1) * sides + b, len(v) - 1]]
    return v, np.array(f)


def build_bones(joints: np.ndarray, frames: np.ndarray) -> dict[str, np.ndarray]:
    """skel_template_v (Nk,3) in bone frames, skel_template_f, owner (Nk,)."""
    vs, fs, own, n = [], [], [], 0
    for j in range(24):
        kids = [k for k in range(24) if SKEL_PARENTS[k] == j]
        ends = [joints[k] for k in kids] or [joints[j] + frames[j] @ [0, -0.05, 0]]
        if j == 13:
            ends = [joints[j] + [0, 0.1, 0.02]]
        for e in ends:
            t = np.linspace(0, 1, 6)[:, None]
            v, f = tube(joints[j] * (1 - t) + e * t, 0.012 * np.array([0.6, 1.1, 0.8, 0.8, 1.1, 0.6]))
            vs.append((v - joints[j]) @ frames[j])
            fs.append(f + n)
            own += [j] * len(v)
            n += len(v)
    return {"v": np.concatenate(vs), "f": np.concatenate(fs), "owner": np.array(own)}
