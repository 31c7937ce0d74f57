"""People in SKEL's parameters as mesh files: .glb (skin and bones of everybody), .ply. Frame: y up, metres."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.convert.ground import TO_Y_UP
from pipelines.files.storage import published
from pipelines.look.viewer.gltf import BONE_COLOUR, SKIN_COLOUR

if TYPE_CHECKING:
    import trimesh

    from fitting import SKEL

MESH_ENDINGS = (".glb", ".ply")
_ROUGHNESS = 0.7


def write_bodies(
    path: Path, skel: SKEL, poses: np.ndarray, betas: np.ndarray, trans: np.ndarray, up: str = "camera"
) -> list[Path]:
    """Writes people (B, 46), (B, 10), (B, 3) of a source frame with `up` (one of UP_AXES); the files that there are.

    A .glb is one file with the meshes person_0_skin, person_0_bones, person_1_skin, ... A .ply has the skin of all,
    one after the other, and bones lie beside it as NAME_bones.ply: the skin of one person is a mesh on SMPL's topology
    that `hmr-skel fit` reads. Folders above must be there. Raises OSError if a file cannot be written.
    """
    if path.suffix.lower() not in MESH_ENDINGS:
        raise ValueError(f"{path.name}: a mesh file's name ends in {' or '.join(MESH_ENDINGS)}")
    if not len(poses):
        raise ValueError("nobody to write")
    skins, bones = posed_meshes(skel, poses, betas, trans, up)
    if path.suffix.lower() == ".glb":
        _publish(path, _glb(skins, skel.faces, bones, skel.skeleton_faces))
        return [path]
    beside = path.with_name(f"{path.stem}_bones{path.suffix}")
    _publish(path, _ply(skins, skel.faces))
    _publish(beside, _ply(bones, skel.skeleton_faces))
    return [path, beside]


def posed_meshes(
    skel: SKEL, poses: np.ndarray, betas: np.ndarray, trans: np.ndarray, up: str
) -> tuple[np.ndarray, np.ndarray]:
    """Skin (B, V, 3) and bones (B, Nk, 3) in a frame with y up, m; parameters as of `write_bodies`."""
    import torch

    place = skel.v_template
    inputs = (torch.as_tensor(np.asarray(v), dtype=place.dtype, device=place.device) for v in (poses, betas, trans))
    with torch.inference_mode():
        body = skel(*inputs, skeleton_mesh=True)
    turn = TO_Y_UP[up].T
    skins, bones = (part.double().cpu().numpy() @ turn for part in (body.vertices, body.skeleton_vertices))
    return skins, bones


def _glb(skins: np.ndarray, faces: np.ndarray, bones: np.ndarray, bone_faces: np.ndarray) -> bytes:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    def material(name: str, colour: tuple[float, ...]) -> PBRMaterial:
        glass = {"alphaMode": "BLEND"} if colour[3] < 1 else {"doubleSided": True}
        colour8 = np.rint(255 * np.array(colour)).astype(np.uint8)  # trimesh takes floats for something else
        return PBRMaterial(name=name, baseColorFactor=colour8, metallicFactor=0.0, roughnessFactor=_ROUGHNESS, **glass)

    skin_look, bone_look = material("skin", SKIN_COLOUR), material("bones", BONE_COLOUR)
    scene = trimesh.Scene()
    for number, (skin, bone) in enumerate(zip(skins, bones, strict=True)):
        for part, vertices, triangles, look in (
            ("skin", skin, faces, skin_look),
            ("bones", bone, bone_faces, bone_look),
        ):
            mesh = _mesh(vertices, triangles)
            mesh.visual = TextureVisuals(material=look)
            name = f"person_{number}_{part}"
            scene.add_geometry(mesh, geom_name=name, node_name=name)
    return scene.export(file_type="glb", include_normals=True)


def _ply(people: np.ndarray, faces: np.ndarray) -> bytes:
    offsets = len(people[0]) * np.arange(len(people))
    joined = (np.asarray(faces)[None] + offsets[:, None, None]).reshape(-1, 3)
    return _mesh(people.reshape(-1, 3), joined).export(file_type="ply", vertex_normal=False)


def _mesh(vertices: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh:
    import trimesh

    # Without processing: merged vertices would be another topology.
    return trimesh.Trimesh(vertices, np.asarray(faces), process=False)


def _publish(path: Path, content: bytes) -> None:
    with published(path) as hidden:
        hidden.write_bytes(content)
