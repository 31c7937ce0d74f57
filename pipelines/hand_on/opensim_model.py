"""An OpenSim model (.osim) of one person, made of SKEL's own joints, bones and shape: no licensed file is in it.

Coordinates have SKEL's names, zero, sign and order of rotation, so that the .mot of the same fit plays on it. Masses
are an estimate from the skin's volume, good for a model that can be simulated at all; there are no muscles.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from pipelines.files.body_models import DEMO
from pipelines.files.storage import published
from pipelines.hand_on.opensim_joints import JointGeometry, Skeleton, Sliding, skeleton_of
from pipelines.hand_on.opensim_markers import JOINT_CENTRES, SKIN_MARKERS, skin_vertices
from pipelines.hand_on.opensim_tables import PELVIS_POSITION

if TYPE_CHECKING:
    import trimesh

    from fitting import SKEL

GEOMETRY = "Geometry"
"""Folder beside the model in which OpenSim looks for meshes."""

FORMAT_VERSION = "40000"
"""OpenSim 4.0 and later."""

BODY_DENSITY = 985.0
"""kg/m^3 of a person who has breathed in."""

MASS_SHARES = {
    "pelvis": 0.1117,
    "lumbar_body": 0.1633,
    "thorax": 0.1596 - 0.01,
    "head": 0.0694,
    "femur": 0.1416,
    "tibia": 0.0433,
    "talus": 0.0012,
    "calcn": 0.0105,
    "toes": 0.0020,
    "scapula": 0.0050,
    "humerus": 0.0271,
    "ulna": 0.0081,
    "radius": 0.0081,
    "hand": 0.0061,
}
"""Of the body's mass: de Leva, J. Biomechanics 29 (1996), table 4, men; forearm and foot divided among their bones."""

_FREE_RANGE = {"rotation": 2 * np.pi, "translation": 100.0}


def write_model(path: Path, skel: SKEL, betas: np.ndarray, name: str, made_with: str = "") -> list[Path]:
    """Text of `path` and its bone meshes in the folder Geometry beside it, for a shape `betas` (10,).

    `made_with`, the body models in words, is told among the credits; a model of the demo body is named so.
    Returns the mesh files. Raises OSError if something cannot be written.
    """
    skeleton = skeleton_of(skel, betas)
    skin = _rest_skin(skel, betas)
    meshes = bone_meshes(skel, skeleton, betas)
    folder = path.parent / GEOMETRY
    folder.mkdir(parents=True, exist_ok=True)
    files = {body: folder / f"{path.stem}_{body}.obj" for body in meshes}
    for body, mesh in meshes.items():
        with published(files[body]) as hidden:
            hidden.write_text(mesh.export(file_type="obj", header=None, digits=6), encoding="utf-8")
    document = Element("OpenSimDocument", Version=FORMAT_VERSION)
    demo = made_with.startswith(DEMO)
    model = SubElement(document, "Model", name=f"{name}_{DEMO}_body" if demo else name)
    fit = f"body models: {made_with}" if demo else "a fit of SKEL 1.1.1"
    _text(model, "credits", f"Written by hmr-skel from {fit}. Masses are estimates; there are no muscles.")
    _text(model, "length_units", "meters")
    _text(model, "force_units", "N")
    _text(model, "gravity", [0, -9.80665, 0])
    bodies = _objects(model, "BodySet", "bodyset")
    mass = BODY_DENSITY * abs(_volume(skin, skel.faces))
    bone = skel.weights.argmax(1).numpy()
    for j, body in enumerate(SKEL_JOINTS):
        own = skeleton.to_body(j, skin[bone == j] if (bone == j).any() else skin)
        _body(bodies, body, files.get(body), mass, own)
    joints = _objects(model, "JointSet", "jointset")
    for geometry in skeleton.joints:
        _joint(joints, geometry)
    _marker_set(model, skel, skeleton, skin)
    ElementTree.indent(document, "  ")
    with published(path) as hidden:
        hidden.write_bytes(b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(document) + b"\n")
    return list(files.values())


def bone_meshes(skel: SKEL, skeleton: Skeleton, betas: np.ndarray) -> dict[str, trimesh.Trimesh]:
    """The bone mesh of each body that has one, in its frame, m. A face belongs to the bone of its first vertex."""
    import torch
    import trimesh

    with torch.no_grad():
        zero = torch.zeros(1, len(COORDINATE_NAMES), dtype=skel.v_template.dtype)
        shape = torch.as_tensor(betas, dtype=zero.dtype)[None]
        vertices = skel(zero, shape, skeleton_mesh=True).skeleton_vertices[0].double().numpy()
    bone = skel.skeleton_bone.numpy()[skel.skeleton_faces[:, 0]]
    found = {}
    for j, body in enumerate(SKEL_JOINTS):
        faces = skel.skeleton_faces[bone == j]
        if len(faces):
            used, local = np.unique(faces, return_inverse=True)
            points = skeleton.to_body(j, vertices[used])
            found[body] = trimesh.Trimesh(points, local.reshape(-1, 3), process=False)
    return found


def _rest_skin(skel: SKEL, betas: np.ndarray) -> np.ndarray:
    import torch

    return skel.rest_vertices(torch.as_tensor(betas, dtype=skel.v_template.dtype)[None])[0].double().numpy()


def _volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ni,ni->", a, np.cross(b, c))) / 6


def _body(bodies: Element, name: str, mesh: Path | None, body_mass: float, skin: np.ndarray) -> None:
    """A body with the mass of its share and the inertia of an ellipsoid as large as its skin, (N, 3) in its frame."""
    body = SubElement(bodies, "Body", name=name)
    if mesh is not None:
        geometry = SubElement(SubElement(body, "attached_geometry"), "Mesh", name=f"{name}_bone")
        _text(geometry, "socket_frame", "..")
        _text(SubElement(geometry, "Appearance"), "color", [0.97, 0.93, 0.80])
        _text(geometry, "mesh_file", mesh.name)
    mass = body_mass * MASS_SHARES[name.removesuffix("_r").removesuffix("_l")]
    low, high = skin.min(0), skin.max(0)
    squares = ((high - low) / 2) ** 2
    inertia = mass / 5 * (squares.sum() - squares)
    _text(body, "mass", mass)
    _text(body, "mass_center", (low + high) / 2)
    _text(body, "inertia", [*inertia, 0, 0, 0])


def _joint(joints: Element, geometry: JointGeometry) -> None:
    from scipy.spatial.transform import Rotation

    joint = SubElement(joints, "CustomJoint", name=geometry.name)
    parent = geometry.parent or "ground"
    _text(joint, "socket_parent_frame", f"{parent}_offset")
    _text(joint, "socket_child_frame", f"{geometry.body}_offset")
    coordinates = SubElement(joint, "coordinates")
    for name in geometry.coordinates:
        _coordinate(coordinates, name, "rotation")
    for name in PELVIS_POSITION if geometry.parent is None else ():
        _coordinate(coordinates, name, "translation")
    frames = SubElement(joint, "frames")
    turn = Rotation.from_matrix(geometry.turn).as_euler("XYZ")  # body-fixed, as OpenSim has it
    for frame, shift, angles in ((parent, geometry.shift, turn), (geometry.body, np.zeros(3), np.zeros(3))):
        offset = SubElement(frames, "PhysicalOffsetFrame", name=f"{frame}_offset")
        _text(offset, "socket_parent", "/ground" if frame == "ground" else f"/bodyset/{frame}")
        _text(offset, "translation", shift)
        _text(offset, "orientation", angles)
    transform = SubElement(joint, "SpatialTransform")
    for number, (axis, name) in enumerate(_rotations(geometry), 1):
        _axis(transform, f"rotation{number}", [name] if name else [], axis, name and _linear)
    for number in range(3):
        name = f"translation{number + 1}"
        if geometry.parent is None:
            _axis(transform, name, [PELVIS_POSITION[number]], np.eye(3)[number], _linear)
        elif geometry.slide is None:
            _axis(transform, name, [], np.eye(3)[number], None)
        else:
            _slide(transform, name, geometry, number)


def _rotations(geometry: JointGeometry) -> list[tuple[np.ndarray, str | None]]:
    """Axis and coordinate of rotation1..3: SKEL's in reverse, then axes about which nothing turns, at right angles."""
    found = list(zip(geometry.axes[::-1], geometry.coordinates[::-1], strict=True))
    while len(found) < 3:
        rest = np.linalg.svd(np.array([axis for axis, _ in found]))[2][len(found) :]
        found.append((rest[0], None))
    return found


def _slide(transform: Element, name: str, geometry: JointGeometry, number: int) -> None:
    slide: Sliding = geometry.slide[number]
    axis, only = geometry.slide_axes[number], slide.only
    if only is None:
        order = len(slide.coefficients) - 1
        # By powers of the last coordinate, then of the first, up to the order in all.
        terms = [slide.coefficients[i, k] for i in range(order + 1) for k in range(order + 1 - i)]

        def function(parent: Element) -> None:
            element = SubElement(parent, "MultivariatePolynomialFunction", name="function")
            _text(element, "coefficients", terms)
            _text(element, "dimension", 2)
            _text(element, "order", order)

        _axis(transform, name, geometry.coordinates[:2], axis, function)
        return
    powers = slide.coefficients[:, 0] if only == 0 else slide.coefficients[0]

    def polynomial(parent: Element) -> None:
        _text(SubElement(parent, "PolynomialFunction", name="function"), "coefficients", powers[::-1])

    _axis(transform, name, [geometry.coordinates[only]], axis, polynomial)


def _axis(transform: Element, name: str, coordinates: Sequence[str], axis: np.ndarray, function) -> None:
    element = SubElement(transform, "TransformAxis", name=name)
    _text(element, "coordinates", " ".join(coordinates))
    _text(element, "axis", axis)
    (function or _zero)(element)


def _linear(parent: Element) -> None:
    _text(SubElement(parent, "LinearFunction", name="function"), "coefficients", [1, 0])


def _zero(parent: Element) -> None:
    _text(SubElement(parent, "Constant", name="function"), "value", 0)


def _coordinate(parent: Element, name: str, kind: str) -> None:
    """Limits are the range, but do not hold the coordinate: a motion plays as it is."""
    from fitting.body.limits import HUMAN_LIMITS

    low, high = -_FREE_RANGE[kind], _FREE_RANGE[kind]
    if name in COORDINATE_NAMES and np.isfinite(HUMAN_LIMITS[COORDINATE_NAMES.index(name)]).all():
        low, high = HUMAN_LIMITS[COORDINATE_NAMES.index(name)]
    coordinate = SubElement(parent, "Coordinate", name=name)
    _text(coordinate, "default_value", 0)
    _text(coordinate, "range", [low, high])
    _text(coordinate, "clamped", "false")
    _text(coordinate, "locked", "false")


def _marker_set(model: Element, skel: SKEL, skeleton: Skeleton, skin: np.ndarray) -> None:
    markers = _objects(model, "MarkerSet", "markerset")
    places = [(name, j, np.zeros(3), True) for j, name in enumerate(JOINT_CENTRES)]
    for marker, vertex in zip(SKIN_MARKERS, skin_vertices(skel), strict=True):
        body = SKEL_JOINTS.index(marker.body)
        places.append((marker.name, body, skeleton.to_body(body, skin[vertex]), False))
    for name, body, location, fixed in places:
        marker = SubElement(markers, "Marker", name=name)
        _text(marker, "socket_parent_frame", f"/bodyset/{SKEL_JOINTS[body]}")
        _text(marker, "location", location)
        _text(marker, "fixed", str(fixed).lower())


def _objects(model: Element, kind: str, name: str) -> Element:
    return SubElement(SubElement(model, kind, name=name), "objects")


def _text(parent: Element, name: str, value: str | float | Sequence[float]) -> None:
    numbers = [value] if isinstance(value, (int, float)) else value
    text = value if isinstance(value, str) else " ".join(f"{number + 0.0:.12g}" for number in numbers)
    SubElement(parent, name).text = text
