"""The ray caster against shapes whose depth, normals and shadows can be written down."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.draw.rays import Light, Scene, Surface, Tracer, cast, develop, pixels_of, render

CAMERA = np.array([[300.0, 0.0, 82.5], [0.0, 280.0, 61.0], [0.0, 0.0, 1.0]])
SIZE = (160, 120)
RADIUS = 0.7


def sphere(centre, radius=RADIUS, subdivisions=5):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(mesh.vertices) + centre, np.asarray(mesh.faces)


def rays(camera=CAMERA, size=SIZE):
    """Directions (h,w,3) through pixel centres with z = 1, written without the module under test."""
    x = (np.arange(size[0]) + 0.5 - camera[0, 2]) / camera[0, 0]
    y = (np.arange(size[1]) + 0.5 - camera[1, 2]) / camera[1, 1]
    return np.stack([*np.meshgrid(x, y), np.ones(size[::-1])], axis=-1)


def sphere_depth(centre, radius=RADIUS, camera=CAMERA, size=SIZE):
    """Depth (h,w) of the near side of a sphere, inf beside it, and how far inside its outline a ray is."""
    d = rays(camera, size)
    a, b, c = (d * d).sum(-1), d @ centre, centre @ centre - radius**2
    root = b * b - a * c
    return np.where(root >= 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf), root


@settings(deadline=None, max_examples=20)
@given(x=st.floats(-1.5, 1.5), y=st.floats(-1.0, 1.0), z=st.floats(2.5, 9.0))
def test_sphere_has_its_depth_and_normals(x, y, z):
    centre = np.array([x, y, z])
    hit = cast(*sphere(centre), CAMERA, SIZE)
    depth, root = sphere_depth(centre)
    inside, outside = root > 0.15, root < -0.02
    assert np.array_equal(hit.face >= 0, np.isfinite(hit.depth))
    assert (hit.face[inside] >= 0).all()
    assert (hit.face[outside] == -1).all() and np.isinf(hit.depth[outside]).all()
    assert np.abs(hit.depth[inside] - depth[inside]).max(initial=0) < 2e-3
    outward = (rays()[inside] * hit.depth[inside][:, None] - centre) / RADIUS
    assert np.abs(hit.normal[inside] - outward).max(initial=0) < 0.02
    assert (hit.normal[outside] == 0).all()


def test_slanted_plane_has_its_depth_to_the_pixel_centre():
    # z = 4 + x through corners far outside the picture: a shift of half a pixel would be seen
    corners = np.array([[-3.0, -9.0, 1.0], [9.0, -9.0, 13.0], [9.0, 9.0, 13.0], [-3.0, 9.0, 1.0]])
    hit = cast(corners, np.array([[0, 1, 2], [0, 2, 3]]), CAMERA, SIZE)
    expected = 4.0 / (1.0 - rays()[..., 0])
    assert np.abs(hit.depth - expected).max() < 1e-6


def test_the_nearer_of_two_hides_the_farther():
    near, far = sphere(np.array([0.0, 0.0, 3.0]), 0.4), sphere(np.array([0.3, 0.0, 5.0]), 0.9)
    for first, second in ((near, far), (far, near)):
        vertices = np.concatenate([first[0], second[0]])
        faces = np.concatenate([first[1], second[1] + len(first[0])])
        both = cast(vertices, faces, CAMERA, SIZE)
        alone = [cast(*mesh, CAMERA, SIZE) for mesh in (first, second)]
        nearest = np.minimum(alone[0].depth, alone[1].depth)
        assert np.array_equal(np.isfinite(both.depth), np.isfinite(nearest))
        there = np.isfinite(nearest)
        assert np.abs(both.depth[there] - nearest[there]).max() < 1e-6
        shows_first = both.face[there] < len(first[1])
        assert np.array_equal(shows_first, (alone[0].depth < alone[1].depth)[there])


@pytest.mark.parametrize("crop", [(48, 64), (300, 200)])
def test_affine_gives_the_same_as_its_camera(crop):
    centre = np.array([0.2, -0.1, 4.0])
    affine = np.array([[1.7, 0.0, -60.0], [0.0, 1.7, -35.0]])
    hit = cast(*sphere(centre), CAMERA, crop, affine)
    depth, root = sphere_depth(centre, camera=np.vstack([affine, [0, 0, 1]]) @ CAMERA, size=crop)
    assert (root > 0.15).any()
    assert np.abs(hit.depth[root > 0.15] - depth[root > 0.15]).max() < 2e-3
    assert (hit.face[root < -0.02] == -1).all()


def test_weights_give_back_the_point_that_was_hit():
    vertices, faces = sphere(np.array([0.0, 0.1, 3.0]), subdivisions=2)
    hit = cast(vertices, faces, CAMERA, SIZE)
    seen = hit.face >= 0
    points = np.einsum("nk,nkc->nc", hit.weights[seen], vertices[faces[hit.face[seen]]])
    assert np.abs(points - rays()[seen] * hit.depth[seen][:, None]).max() < 1e-5
    assert np.abs(hit.weights[seen].sum(-1) - 1).max() < 1e-9


def test_a_mesh_behind_or_around_the_camera():
    behind = cast(*sphere(np.array([0.0, 0.0, -4.0])), CAMERA, SIZE)
    assert (behind.face == -1).all()
    around = cast(*sphere(np.zeros(3), 2.0), CAMERA, SIZE)
    distance = np.linalg.norm(rays() * around.depth[..., None], axis=-1)
    assert np.abs(distance - 2.0).max() < 5e-3
    nothing = cast(np.zeros((0, 3)), np.zeros((0, 3), int), CAMERA, SIZE)
    assert np.isinf(nothing.depth).all()


def test_projection_hits_what_was_projected():
    point = np.array([0.31, -0.22, 3.7])
    x, y = pixels_of(point, CAMERA)
    hit = cast(*sphere(point, 0.02, 3), CAMERA, SIZE)
    rows, columns = np.nonzero(hit.face >= 0)
    assert abs(columns.mean() + 0.5 - x) < 0.3 and abs(rows.mean() + 0.5 - y) < 0.3
    assert np.isnan(pixels_of(np.array([0.0, 0.0, -1.0]), CAMERA)).all()


def ground_scene(direction):
    """A ball above level ground (y = 1) under one light."""
    up = np.array([0.0, -1.0, 0.0])
    light = Light(
        direction / np.linalg.norm(direction), up, np.ones(3), np.full(3, 0.2), np.full(3, 0.1), softness=1e-4
    )

    def surroundings(directions):
        down = directions[:, 1] > 1e-6
        distance = np.where(down, 1.0 / np.where(down, directions[:, 1], 1.0), np.inf)
        return Surface(distance, np.broadcast_to(up, directions.shape), np.full(directions.shape, 0.5))

    mesh = Tracer(*sphere(np.array([0.0, 0.0, 5.0]), 0.5))
    return Scene(mesh, lambda faces, weights: np.tile([0.1, 0.4, 0.9], (len(faces), 1)), surroundings, light)


def test_shadow_falls_where_the_light_says():
    direction = np.array([1.0, -1.5, 0.5])
    image = render(ground_scene(direction), CAMERA, SIZE, np.random.default_rng(0))
    shadow_centre = np.array([0.0, 0.0, 5.0]) - direction / 1.5  # down to y = 1
    behind = shadow_centre + np.array([0.0, 0.0, 1.2])
    for point, dark in ((shadow_centre, True), (behind, False), ([0.7, 1.0, 5.0], False)):
        x, y = pixels_of(np.asarray(point), CAMERA).astype(int)
        brightness = image[y - 1 : y + 2, x - 1 : x + 2].mean()
        sunlit = 0.5 * (1.5 / np.linalg.norm(direction))
        assert (brightness < 0.12) if dark else (brightness > sunlit)


def test_a_ball_is_bright_towards_the_light_and_keeps_its_colour():
    image = render(ground_scene(np.array([1.0, -0.3, -0.5])), CAMERA, SIZE, np.random.default_rng(0))
    left, right = (image[tuple(pixels_of(np.array([x, 0.0, 4.6]), CAMERA).astype(int)[::-1])] for x in (-0.3, 0.3))
    assert right.sum() > 3 * left.sum()
    assert np.allclose(right / right[2], [1 / 9, 4 / 9, 1.0], atol=1e-6)


def test_develop_keeps_order_and_range():
    ramp = np.tile(np.linspace(0, 4, 400), (50, 1))[..., None] * np.ones(3)
    picture = develop(ramp, np.random.default_rng(0), noise=0.0)
    assert picture.dtype == np.uint8 and picture.shape == (50, 400, 3)
    centre = picture[25, :, 0].astype(int)
    assert centre[0] == 0 and centre[-1] > 250 and (np.diff(centre[:200]) >= 0).all()
