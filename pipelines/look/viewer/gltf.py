"""A clip as glTF 2.0: skin and bone mesh of everybody on 24 joints each, animated, one second of animation per moment.

The shape at rest changes from frame to frame: with the person, and with the pose correctives. It is a mean and a few
morph targets, as many as keep every vertex within TOLERANCE_MM. Frame: y up, metres.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fitting.anatomy import SKEL_JOINTS
from pipelines.convert.ground import TO_Y_UP
from pipelines.look.viewer.clips import Clip

if TYPE_CHECKING:
    from fitting import SKEL

TOLERANCE_MM = 1.0
MOST_TARGETS = 32
INFLUENCES = 4
"""Joints per vertex that every viewer takes."""

_ROWS_FOR_TARGETS = 200
_ROWS_AT_A_TIME = 64
_FLOAT, _UBYTE, _UINT = 5126, 5121, 5125
_KIND = {np.dtype("<f4"): _FLOAT, np.dtype("u1"): _UBYTE, np.dtype("<u4"): _UINT}
_WIDTH = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_VERTICES, _INDICES = 34962, 34963
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942

SKIN_COLOUR, BONE_COLOUR = (0.33, 0.55, 0.93, 0.45), (0.95, 0.90, 0.76, 1.0)


@dataclass(frozen=True)
class ClipFrames:
    """A clip's people in a frame with y up."""

    rotations: np.ndarray
    """(T, 24, 3, 3) of a joint against the rest pose."""
    joints: np.ndarray
    """(T, 24, 3) m"""
    rest_joints: np.ndarray
    """(T, 24, 3) m, model frame"""
    skin: Morphed
    bones: Morphed


@dataclass(frozen=True)
class Morphed:
    """Rest vertices of T frames as a mean and K targets."""

    mean: np.ndarray
    """(V, 3)"""
    targets: np.ndarray
    """(K, V, 3)"""
    weights: np.ndarray
    """(T, K)"""
    faces: np.ndarray
    joint_weights: np.ndarray
    """(V, 24)"""
    off_mm: float
    """By how much a vertex is off at most."""


def pose_clip(clip: Clip) -> ClipFrames:
    """Everyone posed, and the shapes at rest brought down to a few targets."""
    import torch

    skel, parts = clip.skel, []
    with torch.no_grad():
        for first in range(0, len(clip), _ROWS_AT_A_TIME):
            some = (values[first : first + _ROWS_AT_A_TIME] for values in (clip.poses, clip.betas, clip.trans))
            parts.append(_rest_and_pose(skel, *(torch.from_numpy(np.ascontiguousarray(v)) for v in some)))
    rotations, joints, rest_joints, skin, bones = (np.concatenate(values) for values in zip(*parts, strict=True))
    turn = TO_Y_UP[clip.up].astype(np.float32)
    return ClipFrames(
        rotations=turn @ rotations,
        joints=joints @ turn.T,
        rest_joints=rest_joints,
        skin=_morphed(skin, skel.faces, skel.weights.numpy()),
        bones=_morphed(bones, skel.skeleton_faces, skel.skeleton_weights.numpy()),
    )


def _rest_and_pose(skel: SKEL, poses, betas, trans) -> list[np.ndarray]:
    rest = skel.rest_frames(skel.rest_joints(betas))
    posed = skel.pose(rest, poses)
    shaped = skel.rest_vertices(betas)
    skin = shaped + (skel.corrective_features(posed.local_rotations) @ skel.posedirs).unflatten(1, (-1, 3))
    found = (posed.rotations, posed.joints + trans[:, None], rest.joints, skin, skel.rest_bones(rest, shaped))
    return [values.numpy() for values in found]


def _morphed(rest: np.ndarray, faces: np.ndarray, joint_weights: np.ndarray) -> Morphed:
    """Principal components of the frames, as few as will do."""
    mean = rest.mean(0)
    away = (rest - mean).reshape(len(rest), -1)
    some = away[np.unique(np.linspace(0, len(away) - 1, min(len(away), _ROWS_FOR_TARGETS)).astype(int))]
    values, vectors = np.linalg.eigh(some @ some.T)
    targets = np.zeros((0, away.shape[1]), np.float32)
    left = away
    while (off := 1000 * float(np.linalg.norm(left.reshape(rest.shape), axis=2).max())) > TOLERANCE_MM:
        if len(targets) == min(MOST_TARGETS, len(values)):
            break
        vector = vectors[:, -1 - len(targets)] @ some
        target = (vector / max(float(np.linalg.norm(vector)), 1e-12))[None].astype(np.float32)
        left = left - left @ target.T * target
        targets = np.concatenate([targets, target])
    return Morphed(mean, targets.reshape(-1, *mean.shape), away @ targets.T, faces, joint_weights, off)


def clip_glb(clip: Clip, posed: ClipFrames) -> bytes:
    """The binary glTF file of a clip: nodes person_0_skin, person_0_bones, person_0_skeleton and so on."""
    out = _Buffer()
    # A joint turns about where it is in the mean shape; what a person's own differs by goes into its translation.
    centre = posed.rest_joints.mean(0)
    moved = posed.joints - (posed.rotations @ (posed.rest_joints - centre)[..., None])[..., 0]
    inverse = np.tile(np.eye(4), (len(SKEL_JOINTS), 1, 1))
    inverse[:, 3, :3] = -centre  # columns come one after another
    inverse_matrices = out.add(inverse.reshape(-1, 16))
    meshes = (("skin", posed.skin, SKIN_COLOUR), ("bones", posed.bones, BONE_COLOUR))
    nodes, roots, skins, motion = [], [], [], _Animation(out, "STEP" if clip.frame_rate is None else "LINEAR")
    for person in range(len(clip.names)):
        rows, first = clip.rows_of(person), len(nodes)
        times = out.add(clip.moments[rows], limits=True)
        for i, (name, mesh, _) in enumerate(meshes):
            nodes.append({"name": f"person_{person}_{name}", "mesh": i, "skin": person})
            if len(mesh.targets):
                motion.add(first + i, "weights", times, mesh.weights[rows].reshape(-1, 1))
        skeleton = first + len(meshes)
        joints = list(range(skeleton + 1, skeleton + 1 + len(SKEL_JOINTS)))
        nodes.append({"name": f"person_{person}_skeleton", "children": joints})
        for j, node in enumerate(joints):
            turns = _quaternions(posed.rotations[rows, j])
            place = {"translation": moved[rows[0], j].tolist(), "rotation": turns[0].tolist()}
            nodes.append({"name": SKEL_JOINTS[j], **place})
            motion.add(node, "translation", times, moved[rows, j])
            motion.add(node, "rotation", times, turns)
        if len(rows) < clip.count:  # of no size where this person is not
            there = np.isin(np.arange(clip.count), clip.moments[rows]).astype(float)
            every = out.add(np.arange(clip.count), limits=True)
            motion.add(skeleton, "scale", every, np.repeat(there[:, None], 3, 1), "STEP")
        roots += [*range(first, skeleton), skeleton]
        skins.append({"joints": joints, "inverseBindMatrices": inverse_matrices, "skeleton": skeleton})
    document = {
        "asset": {"version": "2.0", "generator": "hmr-skel"},
        "scene": 0,
        "scenes": [{"nodes": roots}],
        "nodes": nodes,
        "skins": skins,
        "meshes": [_mesh(out, name, mesh, i) for i, (name, mesh, _) in enumerate(meshes)],
        "materials": [_material(name, colour) for name, _, colour in meshes],
        "animations": [{"name": "frames", "samplers": motion.samplers, "channels": motion.channels}],
    }
    return out.file(document)


def _mesh(out: _Buffer, name: str, mesh: Morphed, material: int) -> dict[str, Any]:
    strongest = np.argsort(-mesh.joint_weights, axis=1)[:, :INFLUENCES]
    weights = np.take_along_axis(mesh.joint_weights, strongest, 1)
    primitive = {
        "attributes": {
            "POSITION": out.add(mesh.mean, _VERTICES, limits=True),
            "NORMAL": out.add(_normals(mesh.mean, mesh.faces), _VERTICES),
            "JOINTS_0": out.add(np.where(weights > 0, strongest, 0).astype("u1"), _VERTICES),
            "WEIGHTS_0": out.add(weights / weights.sum(1, keepdims=True), _VERTICES),
        },
        "indices": out.add(mesh.faces.astype("<u4").reshape(-1, 1), _INDICES),
        "material": material,
    }
    if not len(mesh.targets):
        return {"name": name, "primitives": [primitive]}
    primitive["targets"] = [{"POSITION": out.add(target, _VERTICES, limits=True)} for target in mesh.targets]
    return {"name": name, "primitives": [primitive], "weights": mesh.weights[0].tolist()}


def _material(name: str, colour: tuple[float, ...]) -> dict[str, Any]:
    surface = {"baseColorFactor": list(colour), "metallicFactor": 0, "roughnessFactor": 0.7}
    blend = {"alphaMode": "BLEND"} if colour[3] < 1 else {"doubleSided": True}
    return {"name": name, "pbrMetallicRoughness": surface, **blend}


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    flat = np.cross(b - a, c - a)
    found = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(found, faces[:, corner], flat)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(length > 0, found / np.maximum(length, 1e-12), [0, 1, 0])


def _quaternions(rotations: np.ndarray) -> np.ndarray:
    """(T, 4) x, y, z, w, each on the side of the one before, so that what lies between them is the short way."""
    from scipy.spatial.transform import Rotation

    found = Rotation.from_matrix(rotations).as_quat()
    turned = np.sign((found[1:] * found[:-1]).sum(1))
    found[1:] *= np.cumprod(np.where(turned < 0, -1, 1))[:, None]
    return found


@dataclass
class _Buffer:
    """The binary part of a file, and the table of what lies where in it."""

    content: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, values: np.ndarray, target: int | None = None, limits: bool = False) -> int:
        """Rows of numbers, floats unless they are unsigned; returns the number of the accessor."""
        rows = values.reshape(len(values), -1)
        rows = np.ascontiguousarray(rows if rows.dtype in (np.dtype("u1"), np.dtype("<u4")) else rows.astype("<f4"))
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": rows.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": _KIND[rows.dtype],
            "count": len(rows),
            "type": _WIDTH[rows.shape[1]],
        }
        if limits:
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self.accessors.append(accessor)
        self.content += rows.tobytes() + b"\0" * (-rows.nbytes % 4)
        return len(self.accessors) - 1

    def file(self, document: dict[str, Any]) -> bytes:
        """A .glb of the document and all that was added."""
        document |= {"buffers": [{"byteLength": len(self.content)}], "bufferViews": self.views}
        text = json.dumps(document | {"accessors": self.accessors}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = b"".join(
            struct.pack("<II", len(part), kind) + part
            for part, kind in ((text, _JSON_CHUNK), (bytes(self.content), _BINARY_CHUNK))
        )
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


@dataclass
class _Animation:
    """What moves, in glTF's words."""

    out: _Buffer
    interpolation: str
    samplers: list[dict[str, Any]] = field(default_factory=list)
    channels: list[dict[str, Any]] = field(default_factory=list)

    def add(self, node: int, path: str, times: int, values: np.ndarray, interpolation: str | None = None) -> None:
        """Values of a node's property at the times of an accessor."""
        self.channels.append({"sampler": len(self.samplers), "target": {"node": node, "path": path}})
        output = self.out.add(values)
        self.samplers.append({"input": times, "output": output, "interpolation": interpolation or self.interpolation})
