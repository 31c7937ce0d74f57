"""Fits in OpenSim's ground: the same from every source frame, and played by OpenSim itself on the model of the fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from opensim_playing import played, pose
from scipy.spatial.transform import Rotation

from fitting import SKEL
from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from fitting.fit.continuity import continuous
from pipelines.command.hmr_skel import guarded
from pipelines.convert.ground import GroundMotion, detect_up, ground_axes
from pipelines.hand_on import fit as fit_command
from pipelines.hand_on.angle_jumps import find_jumps
from pipelines.hand_on.opensim import MotionFiles, ground_motion, marker_positions, resolve_up, write_motion
from pipelines.hand_on.opensim_joints import skeleton_of
from pipelines.hand_on.opensim_markers import JOINT_CENTRES, SKIN_MARKERS, skin_vertices
from pipelines.hand_on.opensim_model import bone_meshes
from pipelines.hand_on.opensim_tables import MOTION_COLUMNS, motion_table
from pipelines.read.labels import open_labels
from schemas import InputError

RUNNING = Path(__file__).with_name("running_frames.npz")
"""Twelve frames of a run, a third of a second apart, z up (SMPL fit of real footage, aitviewer's examples, MIT)."""

SLIDING = [SKEL_JOINTS.index(name) for name in ("lumbar_body", "thorax", "head", "scapula_r", "scapula_l")]

MARKER_NAMES = [*JOINT_CENTRES, *(marker.name for marker in SKIN_MARKERS)]

TO_Y_UP = {
    "y": np.eye(3),
    "z": Rotation.from_euler("x", -90, degrees=True).as_matrix(),
    "camera": np.diag([1.0, -1, -1]),
}


def run(*arguments) -> int:
    return guarded(lambda: fit_command.main([str(argument) for argument in arguments]), "hmr-skel")


def random_fit(count: int, seed: int = 0, spread: float = 0.5) -> dict[str, np.ndarray]:
    """Parameters of one person in wild poses, as a fit has them."""
    rng = np.random.default_rng(seed)
    return {
        "poses": rng.normal(0, spread, (count, 46)),
        "betas": np.tile(rng.normal(0, 0.7, 10), (count, 1)),
        "trans": rng.normal(0, 1, (count, 3)),
        "valid": np.ones(count, bool),
    }


def joints_in_ground(skel: SKEL, fit, up: str) -> np.ndarray:
    with torch.no_grad():
        body = skel(*(torch.as_tensor(fit[name]).double() for name in ("poses", "betas", "trans")))
    return body.joints.numpy() @ ground_axes(up).T


@pytest.fixture(scope="module")
def double_skel():
    return SKEL.demo(torch.float64)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The run, fitted and written in every form."""
    folder = tmp_path_factory.mktemp("running")
    files = {
        name: folder / f"run.{ending}"
        for name, ending in (("mot", "mot"), ("trc", "trc"), ("osim", "osim"), ("angles", "csv"), ("plot", "png"))
    }
    options = [text for name, file in files.items() for text in (f"--{name}", file)]
    assert run(RUNNING, "-o", folder / "run.npz", "--sequence", "--device", "cpu", *options) == 0
    with np.load(folder / "run.npz") as found:
        return files, {name: found[name] for name in found.files}


def test_opensim_plays_the_run_as_skel_has_it(running, double_skel):
    files, fit = running
    found, wanted = played(files["osim"], files["mot"]), joints_in_ground(double_skel, fit, "z")
    apart = 1000 * np.linalg.norm(found - wanted, axis=-1).max(0)
    assert apart[SLIDING].max() < 2 and np.delete(apart, SLIDING).max() < 1
    head, feet = found[:, SKEL_JOINTS.index("head"), 1], found[:, [SKEL_JOINTS.index(f"calcn_{s}") for s in "rl"], 1]
    assert (feet < head[:, None] - 0.8).all()
    travel = (found[-1, 0] - found[0, 0]) * [1, 0, 1]
    hips = found[:, SKEL_JOINTS.index("femur_r")] - found[:, SKEL_JOINTS.index("femur_l")]
    facing = np.cross([0, 1, 0], hips).mean(0)  # up x right is forward
    assert np.linalg.norm(travel) > 5
    assert facing @ travel > 0.95 * np.linalg.norm(facing) * np.linalg.norm(travel)


def test_opensim_reads_the_markers(running, double_skel):
    opensim = pytest.importorskip("opensim", reason="OpenSim's Python package is not installed")
    files, fit = running
    table = opensim.TimeSeriesTableVec3(str(files["trc"]))
    assert table.getTableMetaDataString("Units") == "m"
    assert list(table.getColumnLabels()) == MARKER_NAMES
    np.testing.assert_allclose(table.getIndependentColumn(), np.arange(12) / 3, atol=1e-8)
    last = np.array([table.getRowAtIndex(11).getElt(0, i).to_numpy() for i in range(24)])
    np.testing.assert_allclose(last, joints_in_ground(double_skel, fit, "z")[11], atol=1e-5)


def test_markers_of_the_model_stay_near_the_skin(running, double_skel):
    """Each is fixed to the bone that its skin goes with: a wrong bone is several centimetres off."""
    opensim = pytest.importorskip("opensim", reason="OpenSim's Python package is not installed")
    files, fit = running
    opensim.Logger.setLevelString("error")
    model = opensim.Model(str(files["osim"]))
    state, table = model.initSystem(), opensim.TimeSeriesTable(str(files["mot"]))
    skin = marker_positions(double_skel, fit, "z")
    apart = []
    for frame in range(table.getNumRows()):
        pose(opensim, model, state, table, frame)
        found = [model.getMarkerSet().get(name).getLocationInGround(state).to_numpy() for name in MARKER_NAMES]
        apart.append(1000 * np.linalg.norm(np.array(found) - skin[frame], axis=1))
    mean = dict(zip(MARKER_NAMES, np.mean(apart, axis=0), strict=True))
    assert max(mean[name] for name in JOINT_CENTRES) < 0.1
    assert {name: mm for name, mm in mean.items() if mm > 15} == {}


def test_every_form_holds_the_same_numbers(running):
    files, fit = running
    lines = files["mot"].read_text().splitlines()
    head = lines.index("endheader")
    table = np.array([[float(x) for x in line.split("\t")] for line in lines[head + 2 :]])
    assert tuple(lines[head + 1].split("\t")) == MOTION_COLUMNS and table.shape == (12, 50)
    csv = files["angles"].read_text().splitlines()
    assert csv[0].startswith("time (s),pelvis_tilt (deg),") and "pelvis_ty (m)" in csv[0]
    np.testing.assert_array_equal(np.array([[float(x) for x in line.split(",")] for line in csv[1:]]), table)
    knee = MOTION_COLUMNS.index("knee_angle_r")
    np.testing.assert_allclose(
        np.radians(table[:, knee]), fit["poses"][:, COORDINATE_NAMES.index("knee_angle_r")], atol=1e-6
    )
    assert files["plot"].read_bytes()[:4] == b"\x89PNG"
    assert 0.7 < table[:, MOTION_COLUMNS.index("pelvis_ty")].mean() < 1.1, "the height of a pelvis above the floor"


@pytest.mark.parametrize("official", [False, True])
def test_opensim_plays_any_pose_of_any_body(official, double_skel, model_directory, tmp_path):
    """Also of a model with random frames, whose pelvis axes are nobody's."""
    skel = SKEL.load(model_directory, dtype=torch.float64) if official else double_skel
    fit = random_fit(5, seed=3)
    motion = ground_motion(skel, fit, 0, 30.0, "camera")
    files = MotionFiles(mot=tmp_path / "a.mot", osim=tmp_path / "a.osim")
    write_motion(files, skel, fit, motion, "camera")
    apart = np.linalg.norm(played(files.osim, files.mot) - joints_in_ground(skel, fit, "camera"), axis=-1)
    assert 1000 * apart.max() < 0.1


def test_bones_lie_in_their_bodies(running, double_skel):
    """A rigid bone, moved with its body, is where SKEL has it."""
    files, fit = running
    betas = fit["betas"][0].astype(float)
    skeleton = skeleton_of(double_skel, betas)
    meshes = bone_meshes(double_skel, skeleton, betas)
    written = {path.stem.removeprefix("run_") for path in (files["osim"].parent / "Geometry").iterdir()}
    assert written == set(meshes) and {"femur_r", "head", "pelvis", "hand_l"} <= written
    zero = torch.zeros(1, 46, dtype=torch.float64)
    rest = double_skel(zero, torch.from_numpy(betas)[None], skeleton_mesh=True).skeleton_vertices[0].numpy()
    thigh = trimesh.load(files["osim"].parent / "Geometry" / "run_femur_r.obj", process=False)
    j = SKEL_JOINTS.index("femur_r")
    back = thigh.vertices @ skeleton.frames[j].T + skeleton.centres[j]
    own = rest[double_skel.skeleton_bone.numpy() == j]
    assert np.linalg.norm(back[:, None] - own[None], axis=-1).min(1).max() < 1e-5
    assert thigh.vertices[:, 1].min() < -0.3 < thigh.vertices[:, 1].max(), "y of a thigh points up along it"


@pytest.mark.parametrize("up", ["y", "z", "camera"])
def test_a_motion_is_the_same_from_every_frame(up, double_skel):
    """Source parameters turned into another frame: the person in the ground stays where and as it is."""
    fit, turn = random_fit(6), TO_Y_UP[up].T
    basis = (double_skel.per_joint_rot[0] @ double_skel.apose_rotations[0].T).numpy()
    root = Rotation.from_euler("ZXY"[::-1], fit["poses"][:, [2, 1, 0]])
    turned = Rotation.from_matrix(basis.T @ turn @ basis @ root.as_matrix())
    moved = dict(fit, poses=fit["poses"].copy())
    moved["poses"][:, :3] = turned.as_euler("YXZ")[:, ::-1]
    pelvis = double_skel.rest_joints(torch.from_numpy(fit["betas"]))[:, 0].numpy()
    moved["trans"] = (pelvis + fit["trans"]) @ turn.T - pelvis
    one, other = (ground_motion(double_skel, f, 0, 30.0, u) for f, u in ((fit, "y"), (moved, up)))
    np.testing.assert_allclose(other.pelvis, one.pelvis, atol=1e-12)
    np.testing.assert_allclose(np.exp(1j * other.angles), np.exp(1j * one.angles), atol=1e-9)
    np.testing.assert_allclose(one.pelvis[:, 1], (pelvis + fit["trans"])[:, 1], atol=1e-12)


def test_translation_goes_from_smpl_axes_to_opensims():
    left, up, forward = np.eye(3)
    np.testing.assert_array_equal(
        np.stack([left, up, forward]) @ ground_axes("y").T, [[0, 0, -1], [0, 1, 0], [1, 0, 0]]
    )


def test_up_is_told_by_trunks_or_asked_for(tmp_path, caplog):
    upright = Rotation.from_euler("yx", np.random.default_rng(0).normal(0, [1.5, 0.3], (40, 2)))
    for up, turn in TO_Y_UP.items():
        orient = (Rotation.from_matrix(turn.T) * upright).as_rotvec()
        orient[3] = np.nan
        assert detect_up(orient) == up
    lying = Rotation.from_euler("z", 90, degrees=True) * upright
    with pytest.raises(InputError, match=r"field '--up': which axis is up cannot be told.*expected y, z or camera"):
        detect_up(lying.as_rotvec())
    somersault = Rotation.from_rotvec(np.outer(np.linspace(0, 2 * np.pi, 40), [1, 0, 0]))
    assert detect_up(somersault.as_rotvec()) == "y"
    assert "the first one is taken for upright" in caplog.text
    poses, betas = np.zeros((4, 72), np.float32), np.zeros((4, 10), np.float32)
    np.savez(tmp_path / "labels.npz", pose_cam=poses, shape=betas)
    labels = open_labels(tmp_path / "labels.npz")
    assert resolve_up("auto", labels, 0, 4) == "camera", "what the name says, not what these poses look like"
    assert resolve_up("z", labels, 0, 4) == "z"


def test_angles_run_on(double_skel):
    """Somersaults, cartwheels and turns on the spot: continuous, and the same rotations."""
    time = np.linspace(0, 4 * np.pi, 120)
    angles = np.zeros((120, 46))
    angles[:, 0], angles[:, 1], angles[:, 2] = time, 1.2 * np.sin(time), -2 * time
    hip = COORDINATE_NAMES.index("hip_flexion_r")
    angles[:, hip] = 1.5 * time
    root = Rotation.from_euler("YXZ", angles[:, [2, 1, 0]])
    wrapped = (angles + np.pi) % (2 * np.pi) - np.pi
    odd = wrapped.copy()
    odd[::2, :3] = odd[::2, :3] * [1, -1, 1] + [np.pi, np.pi, -np.pi]  # every second frame by the other triple
    for jumping in (wrapped, odd):
        found = continuous(jumping)
        assert np.abs(np.diff(found, axis=0)).max() < 0.5
        again = Rotation.from_euler("YXZ", found[:, [2, 1, 0]])
        assert (root * again.inv()).magnitude().max() < 1e-9
        np.testing.assert_allclose(found[:, hip] - found[0, hip], angles[:, hip], atol=1e-9)
    smooth = np.random.default_rng(0).normal(0, 0.3, (20, 46)).cumsum(0) * 0.1
    np.testing.assert_array_equal(continuous(smooth), smooth)


def test_jumps_are_found_and_motion_is_none():
    frames = np.array([0, 1, 2, 3, 5, 6])
    angles = np.zeros((6, 46))
    knee = COORDINATE_NAMES.index("knee_angle_l")
    angles[:, knee] = np.radians([0, 39, 78, 78, 0, -45])  # 39 degrees are 1,170 a second; frame 4 is missing
    found = find_jumps(GroundMotion(frames, 30.0, angles, np.zeros((6, 3))))
    assert [(jump.frame, jump.coordinate, round(jump.size)) for jump in found] == [(6, "knee_angle_l", 45)]
    assert find_jumps(GroundMotion(frames, 60.0, angles, np.zeros((6, 3))))[0].size == pytest.approx(45)
    assert len(find_jumps(GroundMotion(frames, 60.0, angles, np.zeros((6, 3))))) == 3
    assert find_jumps(GroundMotion(frames, 10.0, angles, np.zeros((6, 3)))) == [], "a slow camera sees large steps"


def test_markers_lie_where_their_names_say(double_skel):
    vertices = double_skel.v_template.numpy() @ ground_axes("y").T
    places = dict(zip((marker.name for marker in SKIN_MARKERS), vertices[skin_vertices(double_skel)], strict=True))
    joints = double_skel.rest_joints(torch.zeros(1, 10, dtype=torch.float64))[0].numpy() @ ground_axes("y").T
    centre = dict(zip(SKEL_JOINTS, joints, strict=True))
    assert len(set(map(tuple, places.values()))) == len(SKIN_MARKERS)
    for name, place in places.items():
        if name.endswith("_r"):
            np.testing.assert_allclose(places[name[:-1] + "l"], place * [1, 1, -1], atol=0.015, err_msg=name)
    for marker, bone, axis, sign in (
        *(("knee_lateral_r", "tibia_r", 2, 1), ("knee_medial_r", "tibia_r", 2, -1), ("heel_r", "calcn_r", 0, -1)),
        *(("toe_tip_r", "toes_r", 0, 1), ("ankle_lateral_r", "talus_r", 2, 1), ("wrist_radial_r", "hand_r", 0, 1)),
        *(("elbow_lateral_r", "ulna_r", 1, 1), ("head_top", "head", 1, 1), ("sacrum", "pelvis", 0, -1)),
        *(("sternum", "thorax", 0, 1), ("finger_tip_r", "hand_r", 2, 1), ("back_middle", "thorax", 0, -1)),
    ):
        away = places[marker] - centre[bone]
        assert 0.015 < sign * away[axis] < 0.3, marker


def test_markers_go_with_the_fit(double_skel):
    fit = random_fit(3)
    fit["valid"][1] = False
    found = marker_positions(double_skel, fit, "y")
    assert found.shape == (2, 24 + len(SKIN_MARKERS), 3)
    np.testing.assert_allclose(found[:, :24], joints_in_ground(double_skel, fit, "y")[[0, 2]], atol=1e-12)
    motion = ground_motion(double_skel, fit, 10, 50.0, "y")
    np.testing.assert_allclose(motion_table(motion)[:, 0], [10 / 50, 12 / 50])
    np.testing.assert_allclose(motion.pelvis, found[:, 0], atol=1e-12)


def test_several_shapes_have_one_model_and_it_is_said(double_skel, tmp_path, caplog):
    fit = random_fit(3)
    files = MotionFiles(osim=tmp_path / "a.osim")
    write_motion(files, double_skel, fit, ground_motion(double_skel, fit, 0, 30.0, "y"), "y")
    assert "several shapes" not in caplog.text
    fit["betas"][0, 0] += 3
    write_motion(files, double_skel, fit, ground_motion(double_skel, fit, 0, 30.0, "y"), "y")
    assert "several shapes" in caplog.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--mot", "m.csv"], "m.csv, field '--mot': cannot be written; expected a name that ends in .mot"),
        (["--trc", "m.mot"], "m.mot, field '--trc': cannot be written; expected a name that ends in .trc"),
        (["--osim", "m.xml"], "m.xml, field '--osim': cannot be written; expected a name that ends in .osim"),
        (["--plot", "m.gif"], "field '--plot': cannot be written; expected a name that ends in .png or .svg or .pdf"),
        (["--up", "y", "--mot", "{tmp}/in.npz/a.mot"], "in.npz/a.mot, field '--mot': cannot be written"),
        (["--mot", "{tmp}/lying.mot"], "in.npz, field '--up': which axis is up cannot be told"),
    ],
)
def test_complaints(tmp_path, capsys, options, complaint):
    poses = np.zeros((2, 72), np.float32)
    poses[:, 2] = np.pi / 2
    np.savez(tmp_path / "in.npz", poses=poses, betas=np.zeros((2, 10)), trans=np.zeros((2, 3)), fps=30)
    options = [option.format(tmp=tmp_path) for option in options]
    assert run(tmp_path / "in.npz", "-o", tmp_path / "out.npz", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
