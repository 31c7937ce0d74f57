"""Software ray casting and shading of triangle meshes: embree on the CPU, no display and no GPU.

Camera frame: x right, y down, z forward, metres. Image frame: pixels, origin at the outer corner of the top left
pixel, so that the ray of pixel (row i, column j) goes through (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

NEAR = 1e-3
"""A vertex closer to the camera than this (metres) cannot be projected; the whole image is searched then."""

SURFACE_OFFSET = 2e-3
"""Distance (metres) by which a secondary ray leaves its surface, so that it does not hit where it starts."""


@dataclass(frozen=True)
class Hit:
    """What each pixel's ray meets first.

    `depth` (h,w): z in the camera frame, metres, inf where nothing is hit. `normal` (h,w,3): unit normal interpolated
    from the vertices, outward by the faces' winding, zero where nothing is hit. `face` (h,w): index, -1 where nothing
    is hit. `weights` (h,w,3): barycentric weights of the face's three corners.
    """

    depth: np.ndarray
    normal: np.ndarray
    face: np.ndarray
    weights: np.ndarray


class Tracer:
    """A mesh that answers ray queries. `vertices` (V,3), `faces` (F,3); any frame, metres. `normals` (V,3): smooth."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.vertices = np.asarray(vertices, dtype=np.float64)
        self.faces = np.asarray(faces, dtype=np.int64)
        self.normals = vertex_normals(self.vertices, self.faces)
        # embree works in float32: a local origin keeps its resolution far from the frame's zero
        self._origin = self.vertices.mean(axis=0) if len(self.vertices) else np.zeros(3)
        self._scene = EmbreeScene()
        if len(self.faces):
            local = np.ascontiguousarray(self.vertices - self._origin, dtype=np.float32)
            TriangleMesh(scene=self._scene, vertices=local, indices=np.ascontiguousarray(self.faces, dtype=np.int32))

    def first(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Index (n,) of the first face each ray hits, -1 for none. `origins` (3,) or (n,3), `directions` (n,3)."""
        if not len(self.faces) or not len(directions):
            return np.full(len(directions), -1)
        starts = np.broadcast_to(origins - self._origin, directions.shape)
        return self._scene.run(
            np.ascontiguousarray(starts, dtype=np.float32), np.ascontiguousarray(directions, dtype=np.float32)
        ).astype(np.int64)

    def blocked(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether (n,) bool each ray hits anything."""
        return self.first(origins, directions) >= 0

    def corner_weights(self, faces: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Barycentric weights (n,3) of the point at which ray n meets the plane of face n, brought into the face."""
        a, b, c = (self.vertices[self.faces[faces, k]] - origins for k in range(3))
        # signed volumes that the ray spans with the edges: exact for rays from one eye, no division by the plane angle
        volumes = [np.einsum("ni,ni->n", directions, np.cross(p, q)) for p, q in ((b, c), (c, a), (a, b))]
        weights = np.stack(volumes, axis=-1)
        weights *= np.sign(weights.sum(axis=-1, keepdims=True))
        weights = np.maximum(weights, 0.0)
        total = weights.sum(axis=-1, keepdims=True)
        return np.where(total > 0, weights / np.maximum(total, 1e-300), 1.0 / 3.0)

    def interpolate(self, faces: np.ndarray, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values (V,c) given at the vertices, at points (n,c) inside faces."""
        return np.einsum("nk,nkc->nc", weights, values[self.faces[faces]])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V,3): mean of the normals of the faces around a vertex, weighted by their area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(across[:, k], 3), len(vertices)) for k in range(3)], axis=-1
    )
    return _unit(normals)


def cast(
    vertices: np.ndarray,
    faces: np.ndarray,
    cam_int: np.ndarray,
    size: tuple[int, int],
    affine: np.ndarray | None = None,
) -> Hit:
    """Cast one ray per pixel of a stored image.

    `vertices` (V,3): camera frame, metres. `faces` (F,3). `cam_int` (3,3): camera matrix of the full image, pixels.
    `size`: width and height of the stored image, pixels. `affine` (2,3): full image -> stored image; None if it is the
    full image. Rays go only through the pixels that the mesh can cover.
    """
    return cast_at(Tracer(vertices, faces), cam_int, size, affine)


def cast_at(tracer: Tracer, cam_int: np.ndarray, size: tuple[int, int], affine: np.ndarray | None = None) -> Hit:
    """`cast` at a mesh that is ready for rays; its vertices are in the camera frame."""
    width, height = size
    camera = _stored_camera(cam_int, affine)
    left, top, right, bottom = _covered_box(tracer.vertices, camera, size)
    depth = np.full((height, width), np.inf)
    normal, weights = np.zeros((height, width, 3)), np.zeros((height, width, 3))
    face = np.full((height, width), -1)
    if left >= right or top >= bottom or not len(tracer.faces):
        return Hit(depth, normal, face, weights)
    directions = pixel_rays(np.linalg.inv(camera), np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    found = tracer.first(np.zeros(3), directions)
    hit = np.flatnonzero(found >= 0)
    rows, columns = top + hit // (right - left), left + hit % (right - left)
    hit_weights = tracer.corner_weights(found[hit], np.zeros(3), directions[hit])
    face[rows, columns] = found[hit]
    weights[rows, columns] = hit_weights
    depth[rows, columns] = tracer.interpolate(found[hit], hit_weights, tracer.vertices)[:, 2]
    normal[rows, columns] = _unit(tracer.interpolate(found[hit], hit_weights, tracer.normals))
    return Hit(depth, normal, face, weights)


def pixel_rays(pixels_to_rays: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Directions (len(y)*len(x), 3), row by row, of the rays through image points; z = 1 in the camera frame."""
    points = np.stack([np.tile(x, len(y)), np.repeat(y, len(x)), np.ones(len(x) * len(y))], axis=-1)
    return points @ pixels_to_rays.T


def pixels_of(points: np.ndarray, cam_int: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) in the camera frame; NaN for points that are not in front of the camera."""
    image = points @ np.asarray(cam_int, dtype=np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(points[..., 2:] > NEAR, image[..., :2] / image[..., 2:], np.nan)


def _stored_camera(cam_int: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    camera = np.asarray(cam_int, dtype=np.float64)
    if affine is None:
        return camera
    return np.vstack([np.asarray(affine, dtype=np.float64), [0.0, 0.0, 1.0]]) @ camera


def _covered_box(vertices: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    if not len(vertices) or vertices[:, 2].min() <= NEAR:
        return 0, 0, width, height
    points = pixels_of(vertices, camera)
    left, top = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)) + 1, 0, size).astype(int)
    return left, top, right, bottom


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Light:
    """A sun (or lamp far away) and a sky. `direction` (3,): from the scene to the sun. Colours: linear RGB."""

    direction: np.ndarray
    up: np.ndarray
    sun: np.ndarray = field(default_factory=lambda: np.array([2.2, 2.0, 1.7]))
    sky: np.ndarray = field(default_factory=lambda: np.array([0.7, 0.8, 1.0]))
    bounce: np.ndarray = field(default_factory=lambda: np.array([0.25, 0.23, 0.2]))
    softness: float = 0.02
    """Half the angle under which the sun is seen, radians: the width of penumbras."""


@dataclass(frozen=True)
class Surface:
    """What rays meet behind the meshes: distance along the ray (n,) (inf = sky), normal (n,3), colour (n,3).

    The colour is the reflectance of a surface and the radiance of the sky, linear RGB.
    """

    distance: np.ndarray
    normal: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Meshes before an analytic background, all in the camera frame.

    `reflectance(faces (n,), weights (n,3))` -> linear RGB (n,3) of points on the mesh.
    `surroundings(directions (n,3))` -> Surface for rays from the camera.
    """

    mesh: Tracer
    reflectance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    surroundings: Callable[[np.ndarray], Surface]
    light: Light


def render(
    scene: Scene,
    cam_int: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    samples: int = 2,
    vertex_rays: int = 12,
) -> np.ndarray:
    """Linear RGB radiance (h,w,3) float of the scene.

    `samples` x `samples` rays per pixel where meshes are, `vertex_rays` for the light that reaches each vertex.
    """
    tracer = scene.mesh
    openness = _vertex_openness(tracer, scene.light.up, rng, vertex_rays)
    to_rays = np.linalg.inv(np.asarray(cam_int, dtype=np.float64))

    image = _shade_surroundings(scene, to_rays, size, rng)
    left, top, right, bottom = _covered_box(tracer.vertices, np.asarray(cam_int, dtype=np.float64), size)
    if left >= right or top >= bottom:
        return image
    steps = (np.arange(samples) + 0.5) / samples
    x = (np.arange(left, right)[:, None] + steps).ravel()
    y = (np.arange(top, bottom)[:, None] + steps).ravel()
    directions = pixel_rays(to_rays, x, y)
    found = tracer.first(np.zeros(3), directions)
    hit = np.flatnonzero(found >= 0)
    colour = _shade_mesh(scene, openness, found[hit], directions[hit], rng)
    # mean over a pixel's samples; those that miss the meshes show what lies behind
    pixel = (hit // len(x)) // samples * (right - left) + (hit % len(x)) // samples
    count = (right - left) * (bottom - top)
    summed = np.stack([np.bincount(pixel, colour[:, k], count) for k in range(3)], axis=-1)
    share = np.bincount(pixel, minlength=count)[:, None] / samples**2
    window = image[top:bottom, left:right]
    window[:] = (summed / samples**2 + (1.0 - share) * window.reshape(count, 3)).reshape(window.shape)
    return image


def develop(radiance: np.ndarray, rng: np.random.Generator, exposure: float = 1.0, noise: float = 0.01) -> np.ndarray:
    """An 8-bit sRGB picture (h,w,3) of linear radiance: shoulder for highlights, vignette, sensor noise."""
    height, width = radiance.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = radiance * exposure * (1.0 - 0.12 * (x * x + y * y))[..., None]
    # photons arrive one by one (noise grows with the root of the signal), electronics add a constant part
    light = light + rng.standard_normal(light.shape, dtype=np.float32) * noise * (0.2 + np.sqrt(np.maximum(light, 0.0)))
    light = np.maximum(light, 0.0)
    light = np.where(light < 0.6, light, 0.6 + 0.4 * (1.0 - np.exp(-(light - 0.6) / 0.4)))
    gamma = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return np.clip(np.rint(gamma * 255.0), 0, 255).astype(np.uint8)


def _vertex_openness(tracer: Tracer, up: np.ndarray, rng: np.random.Generator, rays: int) -> np.ndarray:
    """Shares (V,2) of the cosine-weighted hemisphere of each vertex that see the sky and the ground."""
    count = len(tracer.vertices)
    sky, ground = np.zeros(count), np.zeros(count)
    normals = tracer.normals
    starts = tracer.vertices + normals * SURFACE_OFFSET * 2
    for _ in range(rays):
        directions = _cosine_directions(normals, rng)
        free = ~tracer.blocked(starts, directions)
        above = directions @ up > 0
        sky += free & above
        ground += free & ~above
    openness = np.stack([sky, ground], axis=-1) / rays
    # few rays per vertex, so neighbours lend theirs
    corner = tracer.faces.ravel()
    around = np.maximum(np.bincount(corner, minlength=count), 1)
    for _ in range(2):
        of_faces = openness[tracer.faces].mean(axis=1)
        openness = np.stack([np.bincount(corner, np.repeat(of_faces[:, k], 3), count) / around for k in (0, 1)], axis=1)
    return openness


def _shade_mesh(
    scene: Scene,
    openness: np.ndarray,
    faces: np.ndarray,
    directions: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    tracer = scene.mesh
    weights = tracer.corner_weights(faces, np.zeros(3), directions)
    points = tracer.interpolate(faces, weights, tracer.vertices)
    smooth = _unit(tracer.interpolate(faces, weights, tracer.normals))
    corners = tracer.vertices[tracer.faces[faces]]
    flat = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    light = scene.light
    sky, ground = tracer.interpolate(faces, weights, openness).T
    cosine = np.maximum(smooth @ light.direction, 0.0)
    lit = np.flatnonzero((cosine > 0) & (flat @ light.direction > 0))
    to_sun = _sun_directions(light, len(lit), rng)
    sunlit = np.zeros(len(faces))
    sunlit[lit] = ~tracer.blocked(points[lit] + flat[lit] * SURFACE_OFFSET, to_sun)
    shut = np.maximum(1.0 - sky - ground, 0.0)[:, None]  # light that comes back from the bodies themselves
    irradiance = (
        (cosine * sunlit)[:, None] * light.sun
        + sky[:, None] * light.sky
        + ground[:, None] * light.bounce
        + shut * 0.25 * light.bounce
    )
    return scene.reflectance(faces, weights) * irradiance


def _shade_surroundings(
    scene: Scene, to_rays: np.ndarray, size: tuple[int, int], rng: np.random.Generator, rays: int = 4
) -> np.ndarray:
    """Radiance (h,w,3) of what lies behind the meshes, with the shadows that they cast on it."""
    import cv2

    width, height = size
    directions = pixel_rays(to_rays, np.arange(width) + 0.5, np.arange(height) + 0.5)
    surface = scene.surroundings(directions)
    colour, light, mesh = surface.colour.copy(), scene.light, scene.mesh
    solid = np.isfinite(surface.distance)
    cosine = np.maximum(surface.normal @ light.direction, 0.0)
    sunlit = np.ones((height, width), np.float32)
    openness = np.ones((height, width), np.float32)
    if len(mesh.faces):
        points = directions * np.where(solid, surface.distance, 0.0)[:, None] + surface.normal * SURFACE_OFFSET
        centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
        radius = np.linalg.norm(mesh.vertices - centre, axis=1).max()
        to_centre = centre - points
        along = to_centre @ light.direction
        square = np.einsum("ni,ni->n", to_centre, to_centre)
        shaded = np.flatnonzero(solid & (cosine > 0) & (square - along**2 < (radius + 0.5) ** 2))
        for _ in range(rays):
            to_sun = _sun_directions(light, len(shaded), rng)
            sunlit.reshape(-1)[shaded] -= mesh.blocked(points[shaded], to_sun) / rays
        # skylight changes so slowly that a quarter of the pixels tell enough
        sparse = np.zeros((height, width), bool)
        sparse[::2, ::2] = True
        near = np.flatnonzero(solid & sparse.ravel() & (square < (radius + 1.0) ** 2))
        for _ in range(rays):
            free = _cosine_directions(surface.normal[near], rng)
            openness.reshape(-1)[near] -= mesh.blocked(points[near], free) / rays
        openness = cv2.resize(openness[::2, ::2], size, interpolation=cv2.INTER_LINEAR)
        # few rays per pixel, so neighbours lend theirs
        sunlit = cv2.GaussianBlur(sunlit, (0, 0), 0.8 + 12 * light.softness)
        openness = cv2.GaussianBlur(openness, (0, 0), 3.5)
    irradiance = (cosine * sunlit.ravel())[:, None] * light.sun + openness.reshape(-1, 1) * light.sky
    colour *= np.where(solid[:, None], irradiance, 1.0)
    return colour.reshape(height, width, 3)


def _sun_directions(light: Light, count: int, rng: np.random.Generator) -> np.ndarray:
    return _unit(light.direction + rng.standard_normal((count, 3), dtype=np.float32) * light.softness)


def _cosine_directions(normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # a uniform point on the unit sphere that touches the surface is cosine-distributed as a direction
    return _unit(normals + _unit(rng.standard_normal(normals.shape, dtype=np.float32)) * 0.999)
