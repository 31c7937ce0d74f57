"""What the bone mesh is put together from: pieces with an owner, and the skin they stay under (build time only)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fitting.demo_body.build.solids import Distance, Mesh, smooth_path, tube

COVER = 0.006  # metres of soft tissue over every bone of the template


@dataclass
class Part:
    """One piece: mesh, owner joint, and optionally a second joint with per-vertex share for posing."""

    mesh: Mesh
    owner: int
    other: int = -1
    share: np.ndarray = field(default_factory=lambda: np.zeros(0))


class SkinDepth:
    """Depth under the template skin, by nearest of many surface samples."""

    def __init__(self, v: np.ndarray, f: np.ndarray) -> None:
        import trimesh
        from scipy.spatial import cKDTree

        mesh = trimesh.Trimesh(v, f, process=False)
        corner = np.array(
            [
                [1, 0, 0],
                [0, 1, 0],
                [0, 0, 1],
                [1, 1, 0],
                [0, 1, 1],
                [1, 0, 1],
                [1, 1, 1],
                [4, 1, 1],
                [1, 4, 1],
                [1, 1, 4],
            ],
            float,
        )
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


def shaft(points: list, radii: list, count: int, sides: int = 8, **shape) -> Mesh:
    """Tube through a smooth path, `count` rings."""
    return tube(*smooth_path(points, radii, count), sides=sides, **shape)
