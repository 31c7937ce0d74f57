"""`hmr-skel fit` on files of meshes: .npz and .ply, SMPL-X's topology, and what is wrong with a file."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import scipy.sparse
import torch
import trimesh
from motions import X, turning

from fitting import load_smpl
from fitting.body.smplx_meshes import smplx_to_smpl
from pipelines.command.hmr_skel import guarded
from pipelines.hand_on import fit as fit_command
from schemas import InputError


def run(*arguments) -> int:
    return guarded(lambda: fit_command.main([str(argument) for argument in arguments]), "hmr-skel")


def read(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def source() -> dict[str, np.ndarray]:
    """SMPL parameters of five people, as a label file has them."""
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.15, (5, 72)).astype(np.float32)
    betas, trans = rng.normal(0, 0.7, (5, 10)).astype(np.float32), rng.normal(0, 1, (5, 3)).astype(np.float32)
    return {"poses": poses, "betas": betas, "trans": trans}


@pytest.fixture(scope="module")
def meshes(source, demo_smpl) -> np.ndarray:
    poses, betas, trans = (torch.from_numpy(values) for values in source.values())
    with torch.no_grad():
        return demo_smpl(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3], transl=trans).vertices.numpy()


def test_meshes_are_fitted_as_their_parameters_are(tmp_path, source, meshes, demo_smpl, capsys):
    np.savez(tmp_path / "labels.npz", **source)
    np.savez(tmp_path / "meshes.npz", vertices=meshes)
    np.savez_compressed(tmp_path / "shaped.npz", verts=meshes.astype(np.float64), betas=source["betas"], gender="male")
    trimesh.Trimesh(meshes[2], demo_smpl.faces, process=False).export(tmp_path / "one.ply")
    np.savez(tmp_path / "columns.npz", vertices=np.asfortranarray(meshes[2]))
    found = {}
    for name in ("labels.npz", "meshes.npz", "shaped.npz", "one.ply", "columns.npz"):
        assert run(tmp_path / name, "-o", tmp_path / "out.npz") == 0, capsys.readouterr().err
        found[name] = read(tmp_path / "out.npz")
    expected = found.pop("labels.npz")
    rows = {"one.ply": slice(2, 3), "columns.npz": slice(2, 3)}
    for name, fit in found.items():
        some = rows.get(name, slice(0, 5))
        assert fit["valid"].all() and fit["converged"].all()
        np.testing.assert_allclose(fit["vertex_error_mm"], expected["vertex_error_mm"][some], rtol=0.02, atol=0.01)
        np.testing.assert_allclose(fit["trans"], expected["trans"][some], atol=2e-3)
        assert fit["source"] == name and "smpl_poses" not in fit
    assert found["one.ply"]["source_row"].tolist() == [0]
    assert run(tmp_path / "meshes.npz", "-o", tmp_path / "some.npz", "--rows", "1:3") == 0
    some = read(tmp_path / "some.npz")
    assert some["source_row"].tolist() == [1, 2]
    np.testing.assert_allclose(some["poses"], found["meshes.npz"]["poses"][1:3], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: {"vertices": 1000 * v}, "field 'vertices': bodies of"),
        (lambda v: {"vertices": 100 * v}, "as if in centimetres; expected metres"),
        (lambda v: {"vertices": v[:, :-1]}, "vertices; expected"),
        (lambda v: {"vertices": v[..., :2]}, "field 'vertices': an array of shape"),
        (lambda v: {"vertices": v.astype(str)}, "expected numbers (N, V, 3) or (V, 3), metres"),
        (lambda v: {"vertices": v, "fps": np.array(-3.0)}, "field 'fps': -3.0 given; expected a positive number"),
        (lambda v: {"vertices": v, "betas": np.zeros((3, 10))}, "field 'betas': an array of shape (3, 10)"),
        (lambda v: {"vertices": np.zeros((2, 10475, 3))}, "smplx2smpl_deftrafo_setup.pkl among the body models"),
    ],
)
def test_complaints(tmp_path, meshes, capsys, change, complaint):
    np.savez(tmp_path / "in.npz", **change(meshes))
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and complaint in error
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("content", [b"", b"ply\nhello", b"ply\nformat ascii 1.0\nelement vertex 9\nend_header\n1 2\n"])
def test_damaged_ply(tmp_path, capsys, content):
    (tmp_path / "in.ply").write_bytes(content)
    assert run(tmp_path / "in.ply", "-o", tmp_path / "out.npz") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "in.ply" in error


def test_meshes_of_a_motion(tmp_path, demo_smpl, capsys):
    """A somersault without parameters: one shape, no jumps, and as near as with them; a bad frame is left out."""
    poses = turning(X, 1, 40).astype(np.float32)
    pose, betas = torch.from_numpy(poses), np.tile(np.linspace(-1, 1, 10, dtype=np.float32), (40, 1))
    with torch.no_grad():
        mesh = demo_smpl(betas=torch.from_numpy(betas), body_pose=pose[:, 3:], global_orient=pose[:, :3]).vertices
    mesh[7, 0] = np.nan
    np.savez(tmp_path / "meshes.npz", vertices=mesh)
    np.savez(tmp_path / "labels.npz", poses=poses, betas=betas)
    for name in ("meshes", "labels"):
        command = [tmp_path / f"{name}.npz", "-o", tmp_path / f"{name}-out.npz", "--sequence"]
        assert run(*command) == 0, capsys.readouterr().err
    found, expected = read(tmp_path / "meshes-out.npz"), read(tmp_path / "labels-out.npz")
    sound = np.delete(np.arange(40), 7)
    assert found["valid"].tolist() == [row != 7 for row in range(40)]
    assert (found["betas"][sound] == found["betas"][0]).all()
    assert np.abs(np.diff(found["poses"][sound], axis=0)).max() < np.radians(40)
    np.testing.assert_allclose(found["vertex_error_mm"][sound], expected["vertex_error_mm"][sound], rtol=0.03)


def test_a_bad_mesh_among_good_ones_is_told_and_kept(tmp_path, meshes, capsys):
    meshes = meshes.copy()
    meshes[1, 7] = np.nan
    meshes[3] *= 1000
    np.savez(tmp_path / "in.npz", vertices=meshes)
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz") == 0
    assert read(tmp_path / "out.npz")["valid"].tolist() == [True, False, True, False, True]
    assert "(rows 1, 3)" in capsys.readouterr().out


@pytest.fixture
def transfer_directory(tmp_path, model_directory):
    """Body models with a transfer matrix, whose SMPL-X has SMPL's vertices in another order and some more."""
    folder = tmp_path / "models"
    shutil.copytree(model_directory, folder)
    count = len(load_smpl(folder).v_template)
    order = np.random.default_rng(1).permutation(count + 40)[:count]
    matrix = scipy.sparse.csr_matrix((np.ones(count), (np.arange(count), order)), (count, count + 40))
    both = scipy.sparse.hstack([matrix, 7 * matrix]).tocsr()
    (folder / "smplx2smpl_deftrafo_setup.pkl").write_bytes(pickle.dumps({"mtx": both}))
    return folder, order


def test_smplx_meshes_go_through_the_matrix(tmp_path, transfer_directory):
    folder, order = transfer_directory
    mesh = load_smpl(folder).v_template.numpy()
    other = np.random.default_rng(0).normal(size=(len(mesh) + 40, 3)).astype(np.float32)
    other[order] = mesh
    np.savez(tmp_path / "smpl.npz", vertices=mesh[None])
    np.savez(tmp_path / "smplx.npz", vertices=other[None])
    for name in ("smpl", "smplx"):
        assert run(tmp_path / f"{name}.npz", "-o", tmp_path / f"{name}-fit.npz", "--body-models", folder) == 0
    found, expected = read(tmp_path / "smplx-fit.npz"), read(tmp_path / "smpl-fit.npz")
    np.testing.assert_allclose(found["vertex_error_mm"], expected["vertex_error_mm"], rtol=1e-4)
    np.testing.assert_allclose(found["poses"], expected["poses"], atol=1e-4)


def test_transfer_matrices_of_other_kinds(tmp_path, transfer_directory):
    folder, order = transfer_directory
    count = len(order)
    matrix = smplx_to_smpl(folder, count)
    np.savez(tmp_path / "m.npz", matrix=matrix.toarray())
    assert (smplx_to_smpl(tmp_path / "m.npz", count) != matrix).nnz == 0
    for arrays, complaint in (
        ({"matrix": np.zeros((3, 7))}, f"a matrix of 3 rows; expected {count}"),
        ({"matrix": np.full((count, 7), np.nan)}, "not a finite number"),
        ({"other": np.zeros(2)}, "expected the key mtx or matrix"),
    ):
        np.savez(tmp_path / "m.npz", **arrays)
        with pytest.raises(InputError, match=complaint):
            smplx_to_smpl(tmp_path / "m.npz", count)


def smplx_arrays(smpl: dict, order: np.ndarray) -> dict[str, np.ndarray]:
    """A SMPL-X file whose first 22 joints move a random SMPL's vertices, in another order and with some more."""
    count, joints = len(order), 55
    total = count + 40

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros((total, *values.shape[1:]))
        out[order] = values
        return out

    weights = np.zeros((count, joints))
    weights[:, :22] = smpl["weights"][:, :22]
    weights[:, [20, 21]] += smpl["weights"][:, 22:]
    regressor = np.zeros((joints, total))
    regressor[:22, order] = smpl["J_regressor"][:22]
    regressor[22:, order[0]] = 1
    posedirs = np.zeros((count, 3, 9 * 54))
    posedirs[..., : 21 * 9] = smpl["posedirs"][..., : 21 * 9]
    weights_all = spread(weights)
    weights_all[weights_all.sum(1) == 0, 0] = 1
    return {
        "v_template": spread(smpl["v_template"]),
        "shapedirs": spread(np.concatenate([smpl["shapedirs"][..., :10], np.zeros((count, 3, 10))], 2)),
        "posedirs": spread(posedirs),
        "J_regressor": regressor,
        "weights": weights_all,
        "kintree_table": np.stack([np.r_[smpl["parents"][:22], np.zeros(33)], np.arange(joints)]).astype(np.int64),
        "joint2num": np.array({"Pelvis": 0}, object),
    }


def test_smplx_parameters_become_meshes(tmp_path, transfer_directory, source, capsys):
    """The same surface by SMPL-X's parameters as by SMPL's; without SMPL-X's model one sentence."""
    from fitting.body.files import smpl_arrays

    folder, order = transfer_directory
    poses = source["poses"].copy()
    poses[:, 66:] = 0
    file = {
        "global_orient": poses[:, :3],
        "body_pose": poses[:, 3:66],
        "betas": source["betas"],
        "transl": source["trans"],
        "jaw_pose": np.zeros((5, 3)),
    }
    np.savez(tmp_path / "in.npz", **file)
    command = [tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--body-models", folder]
    assert run(*command) == 2
    assert "SMPL-X's parameters, and its model is not there; expected SMPLX_NEUTRAL.npz" in capsys.readouterr().err
    np.savez(folder / "SMPLX_NEUTRAL.npz", **smplx_arrays(smpl_arrays(folder), order))
    assert run(*command) == 0, capsys.readouterr().err
    smpl = load_smpl(folder)
    given = (torch.from_numpy(values) for values in (poses, source["betas"], source["trans"]))
    pose, betas, trans = given
    with torch.no_grad():
        mesh = smpl(betas=betas, body_pose=pose[:, 3:], global_orient=pose[:, :3], transl=trans).vertices
    np.savez(tmp_path / "mesh.npz", vertices=mesh)
    assert run(tmp_path / "mesh.npz", "-o", tmp_path / "mesh-out.npz", "--body-models", folder) == 0
    found, expected = read(tmp_path / "out.npz"), read(tmp_path / "mesh-out.npz")
    np.testing.assert_allclose(found["vertex_error_mm"], expected["vertex_error_mm"], rtol=1e-2)
    np.testing.assert_allclose(found["trans"], expected["trans"], atol=1e-3)
    file["body_pose"] = poses[:, 3:60]
    np.savez(tmp_path / "in.npz", **file)
    assert run(*command) == 2
    assert "in.npz, field 'body_pose': an array of shape (5, 57)" in capsys.readouterr().err
