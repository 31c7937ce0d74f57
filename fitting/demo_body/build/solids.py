"""Small solids for the bone mesh: tubes, and shapes from signed distances (build time only)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]
Distance = Callable[[np.ndarray], np.ndarray]
Point = Sequence[float]


def tube(
    points: Sequence[Point], radii: Sequence[float], sides: int = 8, flat: float = 1.0, up: Point | None = None
) -> Mesh:
    """Closed tube through points (N,3) with radii (N,); `flat` squeezes it along `up`."""
    p, r = np.asarray(points, float), np.asarray(radii, float)
    along = np.gradient(p, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(along.mean(0)).argmin()] if up is None else np.asarray(up, float)
    u = np.cross(along, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w = np.cross(u, along) * flat
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(turn)[None, :, None] * u[:, None] + np.sin(turn)[None, :, None] * w[:, None]
    v = np.concatenate([(p[:, None] + r[:, None, None] * ring).reshape(-1, 3), p[:1], p[-1:]])
    n, k = len(p), np.arange(sides)
    following = (k + 1) % sides
    faces = []
    for i in range(n - 1):
        a, b = i * sides + k, i * sides + following
        faces += [np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)]
    last = (n - 1) * sides
    faces.append(np.stack([np.full(sides, n * sides), following, k], 1))
    faces.append(np.stack([np.full(sides, n * sides + 1), last + k, last + following], 1))
    return _outward(v, np.concatenate(faces))


def smooth_path(points: Sequence[Point], radii: Sequence[float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample a polyline with radii by a cubic through its points, `count` samples."""
    from scipy.interpolate import PchipInterpolator

    p, r = np.asarray(points, float), np.asarray(radii, float)
    length = np.concatenate([[0], np.linalg.norm(np.diff(p, axis=0), axis=1).cumsum()])
    t = np.linspace(0, length[-1], count)
    return PchipInterpolator(length, p)(t), PchipInterpolator(length, r)(t)


def ball(centre: Point, radii: Point | float, rings: int = 5, sides: int = 8, frame: np.ndarray | None = None) -> Mesh:
    """Ellipsoid, its poles on the frame's last axis."""
    lat = np.linspace(0, np.pi, rings + 2)[1:-1]
    lon = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    v = np.stack(
        [np.outer(np.sin(lat), np.cos(lon)), np.outer(np.sin(lat), np.sin(lon)), np.outer(np.cos(lat), np.ones(sides))],
        axis=-1,
    ).reshape(-1, 3)
    v = np.concatenate([v, [[0, 0, 1], [0, 0, -1]]]) * (np.ones(3) * radii)
    if frame is not None:
        v = v @ frame.T
    k = np.arange(sides)
    following = (k + 1) % sides
    faces = []
    for i in range(rings - 1):
        a, b = i * sides + k, i * sides + following
        faces += [np.stack([a, a + sides, b], 1), np.stack([b, a + sides, b + sides], 1)]
    last = (rings - 1) * sides
    faces.append(np.stack([np.full(sides, rings * sides), k, following], 1))
    faces.append(np.stack([np.full(sides, rings * sides + 1), last + following, last + k], 1))
    return _outward(v + np.asarray(centre), np.concatenate(faces))


def mirrored(mesh: Mesh) -> Mesh:
    """Image in the plane x = 0."""
    return mesh[0] * [-1, 1, 1], mesh[1][:, ::-1]


def _outward(v: np.ndarray, f: np.ndarray) -> Mesh:
    volume = np.einsum("fa,fa->f", v[f[:, 0]], np.cross(v[f[:, 1]], v[f[:, 2]])).sum()
    return (v, f) if volume > 0 else (v, f[:, ::-1])


# Signed distances (negative inside), functions of points (N,3).


def ellipsoid(centre: Point, radii: Point) -> Distance:
    """Approximate distance to an ellipsoid along the axes."""
    c, r = np.asarray(centre, float), np.asarray(radii, float)

    def distance(p: np.ndarray) -> np.ndarray:
        k0 = np.linalg.norm((p - c) / r, axis=1)
        k1 = np.linalg.norm((p - c) / r**2, axis=1)
        return k0 * (k0 - 1) / np.maximum(k1, 1e-9)

    return distance


def rod(points: Sequence[Point], radii: Sequence[float]) -> Distance:
    """Polyline of round cones."""
    pts, rad = np.asarray(points, float), np.asarray(radii, float)

    def distance(p: np.ndarray) -> np.ndarray:
        best = np.full(len(p), np.inf)
        for a, b, ra, rb in zip(pts[:-1], pts[1:], rad[:-1], rad[1:], strict=True):
            t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            best = np.minimum(best, np.linalg.norm(p - a - t[:, None] * (b - a), axis=1) - ra - t * (rb - ra))
        return best

    return distance


def plate(a: Point, b: Point, c: Point, thickness: float) -> Distance:
    """A triangle with rounded edges, `thickness` to either side."""
    import trimesh

    corners = np.array([a, b, c], float)

    def distance(p: np.ndarray) -> np.ndarray:
        near = trimesh.triangles.closest_point(np.tile(corners, (len(p), 1, 1)), p)
        return np.linalg.norm(p - near, axis=1) - thickness

    return distance


def union(parts: Sequence[Distance], blend: float) -> Distance:
    """Union whose creases are rounded over about `blend` metres."""

    def distance(p: np.ndarray) -> np.ndarray:
        out = parts[0](p)
        for part in parts[1:]:
            other = part(p)
            h = np.maximum(blend - np.abs(out - other), 0) / blend
            out = np.minimum(out, other) - h * h * blend / 4
        return out

    return distance


def surface(distance: Distance, low: Point, high: Point, step: float, symmetric: bool = False) -> Mesh:
    """Zero level of a signed distance on a grid, by surface nets (one vertex per crossed cell).

    symmetric: the grid is laid evenly about x = 0, so that a symmetric distance gives a symmetric mesh.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    counts = np.ceil((high - low) / step).astype(int) + 1
    if symmetric:
        counts[0] = 2 * (counts[0] // 2) + 1
        low = np.array([-(counts[0] - 1) / 2 * step, low[1], low[2]])
    axes = [low[i] + step * np.arange(counts[i]) for i in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    d = distance(grid.reshape(-1, 3)).reshape(counts)
    inside = d < 0
    total, hits = np.zeros((*(counts - 1), 3)), np.zeros(counts - 1)
    for axis in range(3):
        for i in (0, 1):
            for j in (0, 1):
                cut = [slice(i, i + n - 1) for n in counts]
                other = [k for k in range(3) if k != axis]
                cut[other[0]], cut[other[1]] = slice(i, counts[other[0]] - 1 + i), slice(j, counts[other[1]] - 1 + j)
                first, second = list(cut), list(cut)
                first[axis], second[axis] = slice(0, counts[axis] - 1), slice(1, counts[axis])
                a, b = d[tuple(first)], d[tuple(second)]
                cross = (a < 0) != (b < 0)
                t = np.where(cross, a / np.where(cross, a - b, 1), 0)
                at = grid[tuple(first)].copy()
                at[..., axis] += t * step
                total += np.where(cross[..., None], at, 0)
                hits += cross
    used = hits > 0
    index = np.full(hits.shape, -1)
    index[used] = np.arange(used.sum())
    v = total[used] / hits[used][:, None]
    faces = []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(0, -1), slice(1, None)
        change = inside[tuple(first)] != inside[tuple(second)]
        where = np.argwhere(change)
        where = where[
            (where[:, b] > 0) & (where[:, c] > 0) & (where[:, b] < counts[b] - 1) & (where[:, c] < counts[c] - 1)
        ]
        quad = []
        for db, dc in ((1, 1), (0, 1), (0, 0), (1, 0)):
            w = where.copy()
            w[:, b] -= db
            w[:, c] -= dc
            quad.append(index[tuple(w.T)])
        q = np.stack(quad, 1)
        out = inside[tuple(first)][tuple(where.T)]
        q[~out] = q[~out][:, ::-1]
        faces += [q[:, [0, 1, 2]], q[:, [0, 2, 3]]]
    return v, np.concatenate(faces)
