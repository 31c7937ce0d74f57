"""Mesh files of people, read back by trimesh and compared with what SKEL itself says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from pipelines.command.hmr_skel import guarded
from pipelines.convert.ground import TO_Y_UP
from pipelines.hand_on.body_meshes import write_bodies
from pipelines.hand_on.fit import main as fit

UPSIDE_DOWN = COORDINATE_NAMES.index("pelvis_list")
HEAD, TOES = SKEL_JOINTS.index("head"), SKEL_JOINTS.index("toes_r")


def people(count: int = 2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Poses, betas and translations of people who stand before a camera, whose y points down."""
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, 0.2, (count, 46))
    poses[:, :3] *= 0.3
    poses[:, UPSIDE_DOWN] += np.pi
    trans = rng.uniform([-1, -0.5, 3], [1, 0.5, 6], (count, 3))
    return tuple(v.astype(np.float32) for v in (poses, rng.normal(0, 0.7, (count, 10)), trans))


def posed(skel, parameters: tuple[np.ndarray, ...], up: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin, bones and joints in a frame with y up."""
    with torch.no_grad():
        body = skel(*map(torch.from_numpy, parameters), skeleton_mesh=True)
    return tuple(v.numpy() @ TO_Y_UP[up].T for v in (body.vertices, body.skeleton_vertices, body.joints))


@pytest.mark.parametrize("up", ["camera", "z"])
def test_a_glb_holds_everybody_with_y_up(demo_skel, tmp_path, up):
    parameters = people()
    path = tmp_path / "people.glb"
    assert write_bodies(path, demo_skel, *parameters, up=up) == [path]
    assert [p.name for p in tmp_path.iterdir()] == ["people.glb"], "nothing half-written stays"
    scene = trimesh.load(path, process=False)
    assert set(scene.geometry) == {f"person_{n}_{part}" for n in (0, 1) for part in ("skin", "bones")}
    assert set(scene.graph.nodes_geometry) == set(scene.geometry)
    skins, bones, _ = posed(demo_skel, parameters, up)
    for n in (0, 1):
        for part, wanted, faces in (
            ("skin", skins[n], demo_skel.faces),
            ("bones", bones[n], demo_skel.skeleton_faces),
        ):
            transform, name = scene.graph[f"person_{n}_{part}"]
            mesh = scene.geometry[name]
            np.testing.assert_allclose(trimesh.transform_points(mesh.vertices, transform), wanted, atol=2e-6)
            np.testing.assert_array_equal(mesh.faces, faces)


def test_who_stands_before_a_camera_stands(demo_skel, tmp_path):
    """Feet below the head, before the viewer at the depth that the camera saw, bones inside the skin."""
    parameters = people(1)
    write_bodies(tmp_path / "one.glb", demo_skel, *parameters)
    scene = trimesh.load(tmp_path / "one.glb", process=False)
    skin, bones = (scene.geometry[f"person_0_{part}"] for part in ("skin", "bones"))
    weights = demo_skel.weights.numpy()
    head, toes = (skin.vertices[weights[:, joint] > 0.9].mean(0) for joint in (HEAD, TOES))
    assert 1.2 < head[1] - toes[1] < 2.1, "metres"
    assert skin.vertices[:, 2].mean() == pytest.approx(-parameters[2][0, 2], abs=0.5)
    margin = 0.01
    assert (bones.bounds[0] > skin.bounds[0] - margin).all() and (bones.bounds[1] < skin.bounds[1] + margin).all()
    assert skin.visual.material.alphaMode == "BLEND" and bones.visual.material.alphaMode != "BLEND"
    # Faces turn outwards, or a viewer that hides their backs would show the inside.
    assert 0.03 < skin.volume < 0.15, "cubic metres"


def test_the_skin_of_one_person_as_ply_is_fitted_again(demo_skel, tmp_path):
    parameters = people(1)
    written = write_bodies(tmp_path / "one.ply", demo_skel, *parameters)
    assert written == [tmp_path / "one.ply", tmp_path / "one_bones.ply"]
    skins, bones, _ = posed(demo_skel, parameters, "camera")
    for path, wanted in zip(written, (skins[0], bones[0]), strict=True):
        np.testing.assert_allclose(trimesh.load(path, process=False).vertices, wanted, atol=2e-6)
    out = tmp_path / "fit.npz"
    arguments = [str(written[0]), "-o", str(out), "--device", "cpu", "--betas", "free", "--limits", "none"]
    assert guarded(lambda: fit(arguments), "hmr-skel") == 0
    with np.load(out) as found:
        assert found["vertex_error_mm"][0] < 5


def test_several_people_in_one_ply(demo_skel, tmp_path):
    parameters = people(2)
    path = write_bodies(tmp_path / "two.ply", demo_skel, *parameters)[0]
    mesh = trimesh.load(path, process=False)
    skins, _, _ = posed(demo_skel, parameters, "camera")
    np.testing.assert_allclose(mesh.vertices.reshape(skins.shape), skins, atol=2e-6)
    own = np.split(mesh.faces, 2)[1]
    assert own.min() == len(skins[0]) and own.max() == 2 * len(skins[0]) - 1
    assert len(mesh.split(only_watertight=False)) >= 2


def test_what_cannot_be_written(demo_skel, tmp_path):
    parameters = people(1)
    with pytest.raises(ValueError, match=r"ends in \.glb or \.ply"):
        write_bodies(tmp_path / "one.obj", demo_skel, *parameters)
    with pytest.raises(ValueError, match="nobody"):
        write_bodies(tmp_path / "none.glb", demo_skel, *(v[:0] for v in parameters))
    with pytest.raises(OSError):
        write_bodies(tmp_path / "gone" / "one.glb", demo_skel, *parameters)
    assert not list(tmp_path.iterdir())
