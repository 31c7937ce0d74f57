"""Body-model files: what is read equals what was written, nothing in them runs, and every fault is one clear error."""

from __future__ import annotations

import os
import pickle
import pickletools
import tracemalloc

import numpy as np
import official_files
import pytest
from scipy import sparse

from fitting.body.files import find_model_file, keypoint_arrays, read_model_file, skel_arrays, smpl_arrays
from fitting.body.limits import read_limits
from schemas import InputError


def same(read: dict, written: dict):
    for key, value in written.items():
        if key in official_files.SPARSE_KEYS or np.asarray(value).dtype.kind == "f":
            np.testing.assert_array_equal(read[key], value, err_msg=key)


def test_python2_pickle_with_chumpy_is_read(tmp_path, random_models):
    path = official_files.write_official_smpl(tmp_path / "SMPL_NEUTRAL.pkl", random_models[0])
    names = {arg for _, arg, _ in pickletools.genops(path.read_bytes()) if isinstance(arg, str)}
    assert {"chumpy.ch Ch", "chumpy.reordering Select", "scipy.sparse.csc csc_matrix"} <= names
    assert "numpy.core.multiarray _reconstruct" in names
    read = smpl_arrays(path)
    same(read, random_models[0])
    assert read["parents"].tolist() == official_files.SMPL_PARENTS
    assert read["f"].tolist() == random_models[0]["f"].tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, random_models, protocol):
    path = tmp_path / "skel_male.pkl"
    values = {k: sparse.coo_array(v) if k in official_files.SPARSE_KEYS else v for k, v in random_models[1].items()}
    path.write_bytes(pickle.dumps(values, protocol=protocol))
    same(skel_arrays(path), random_models[1])
    with official_files.chumpy_in_memory() as make:
        array = np.arange(6.0).reshape(2, 3)
        state = {
            "plain": make("Ch", x=array, _dirty_vars=set()),
            "moved": make("transpose", a=make("Ch", x=array), axes=None),
            "reshaped": make("reshape", a=array, newshape=(3, 2)),
            "rows": sparse.csr_matrix(array),
            "number": np.float32(1.5),
            "objects": np.array(["a", None, 3], dtype=object),
        }
        path.write_bytes(pickle.dumps(state, protocol=protocol))
    read = read_model_file(path)
    np.testing.assert_array_equal(read["plain"], array)
    np.testing.assert_array_equal(read["moved"], array.T)
    np.testing.assert_array_equal(read["reshaped"], array.reshape(3, 2))
    np.testing.assert_array_equal(read["rows"], array)
    assert read["number"] == 1.5
    assert read["objects"].tolist() == ["a", None, 3]


@pytest.mark.parametrize("triplets", [False, True])
def test_npz_is_read(tmp_path, random_models, triplets):
    smpl, skel = random_models
    same(smpl_arrays(official_files.write_npz(tmp_path / "a.npz", smpl, triplets)), smpl)
    same(skel_arrays(official_files.write_npz(tmp_path / "b.npz", skel, triplets)), skel)


def test_entries_of_the_same_place_add_up(tmp_path):
    path = tmp_path / "m.pkl"
    matrix = sparse.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    path.write_bytes(pickle.dumps({"m": matrix}))
    np.testing.assert_array_equal(read_model_file(path)["m"], matrix.toarray())


def test_official_landmarks_for_the_official_topology(tmp_path):
    smpl, skel = official_files.random_models(seed=1, vertices=6890, bone_vertices=48)
    directory = official_files.write_model_directory(tmp_path / "models", smpl, skel)
    assert skel_arrays(directory)["landmarks"][:3].tolist() == [410, 384, 414]
    assert smpl_arrays(directory)["vertex_joint_ids"] is None


class _Writes:
    """A pickle of this creates a file when it is loaded by the ordinary unpickler."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_foreign_class_is_refused_by_name_and_does_not_run(tmp_path, random_models, protocol):
    trap = tmp_path / "ran"
    raw = pickle.dumps(_Writes(trap), protocol=protocol)
    pickle.loads(raw)
    assert trap.exists(), "the trap must work to prove anything"
    trap.rmdir()
    path = tmp_path / "skel_male.pkl"
    path.write_bytes(pickle.dumps({**random_models[1], "extra": _Writes(trap)}, protocol=protocol))
    with pytest.raises(InputError, match=r"skel_male\.pkl.*posix\.mkdir.*refused") as caught:
        skel_arrays(tmp_path)
    assert not trap.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "numpy load",
        "numpy.core.multiarray fromstring",
        "chumpy.utils something",
        "scipy.sparse.csc os",
        "numpy ndarray.__class__",
        "torch._utils _rebuild_sparse_tensor",
    ],
)
def test_only_listed_names_are_admitted(tmp_path, name):
    module, _, attribute = name.partition(" ")
    path = tmp_path / "m.pkl"
    path.write_bytes(
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, attribute)) + b"\x93."
    )
    with pytest.raises(InputError, match="refused"):
        read_model_file(path)


def test_hostile_array_states_are_errors(tmp_path):
    """Type flags, sizes and indices that numpy's own unpickling would believe."""
    array = np.arange(4.0)
    kind, shape = array.dtype, array.shape

    class Claims:
        def __init__(self, state):
            self.state = state

        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state

    short = Claims((1, shape, kind, False, b"\0" * 31))
    pointers = Claims((1, shape, np.dtype("O"), False, b"\x41" * 32))
    far = sparse.coo_matrix(([1.0], ([0], [0])), shape=(2, 2))
    far.coords = (np.array([5]), np.array([0]))
    huge = sparse.coo_matrix(([1.0], ([0], [0])), shape=(2, 2))
    huge._shape = (2**31, 2**31)
    loop: list = []
    loop.append(loop)
    for value in (short, pointers, far, huge, loop):
        path = tmp_path / "m.pkl"
        path.write_bytes(pickle.dumps({"m": value}))
        with pytest.raises(InputError, match="truncated or damaged"):
            read_model_file(path)


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.csr_matrix])
def test_pointers_of_a_sparse_matrix_that_claim_more_entries_than_there_are_take_no_memory(tmp_path, kind):
    for pointers in ([0, 1, 2, 1 << 24], [0, 1 << 24, 1 << 24, 3], [1 << 24, 1, 2, 3], [0, 1, 2, 2]):
        matrix = kind(np.eye(3))
        matrix.indptr = np.array(pointers, np.int32)
        path = tmp_path / "m.pkl"
        path.write_bytes(pickle.dumps({"m": matrix}))
        tracemalloc.start()
        with pytest.raises(InputError, match="pointers are not those of its entries"):
            read_model_file(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    matrix = kind(np.eye(3))
    matrix.indices = matrix.indices[:1]  # which numpy would repeat
    path.write_bytes(pickle.dumps({"m": matrix}))
    with pytest.raises(InputError, match="other places than entries"):
        read_model_file(path)


@pytest.mark.parametrize("ending", [".pkl", ".npz"])
def test_truncated_and_garbled_files(tmp_path, random_models, ending):
    path = tmp_path / f"SMPL_NEUTRAL{ending}"
    if ending == ".pkl":
        official_files.write_official_smpl(path, random_models[0])
    else:
        official_files.write_npz(path, random_models[0])
    whole = path.read_bytes()
    garbled = bytearray(whole)
    garbled[100:4000] = bytes(reversed(garbled[100:4000]))
    for raw in (
        whole[: len(whole) // 2],
        whole[:-1] if ending == ".pkl" else whole[:-30],
        b"",
        b"not a model",
        bytes(garbled),
    ):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=rf"SMPL_NEUTRAL\{ending}") as caught:
            smpl_arrays(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("writer", ["pickle", "npz"])
def test_each_missing_key_is_named(tmp_path, random_models, writer):
    smpl, skel = random_models
    needed = {
        "smpl": ["v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights"],
        "skel": [
            *("version", "skin_template_v", "skin_template_f", "skel_template_v", "skel_template_f", "shapedirs"),
            *("posedirs", "J_regressor_osim", "skin_weights", "skel_weights", "per_joint_rot", "osim_kintree_table"),
            *("apose_rel_transfo", "landmarks"),
        ],
    }
    for kind, model, read in (("smpl", smpl, smpl_arrays), ("skel", skel, skel_arrays)):
        for key in needed[kind]:
            rest = {k: v for k, v in model.items() if k != key}
            path = tmp_path / f"{kind}.{'pkl' if writer == 'pickle' else 'npz'}"
            if writer == "pickle":
                path.write_bytes(pickle.dumps(rest))
            else:
                official_files.write_npz(path, rest)
            with pytest.raises(InputError, match="the key is missing") as caught:
                read(path)
            assert caught.value.field == key
            assert caught.value.file == str(path)


def _broken(skel):
    count = len(skel["skin_template_v"])
    nan = skel["shapedirs"].copy()
    nan[0, 0, 0] = np.nan
    return {
        "version": ("1.0", "'1.0'.*expected '1.1.1'"),
        "skin_template_v": (skel["skin_template_v"][:-1], "shapedirs"),
        "shapedirs": (nan, "finite"),
        "posedirs": (skel["posedirs"][:, :, :206], r"206\).*207\)"),
        "J_regressor_osim": (skel["J_regressor_osim"].T, "shape"),
        "skin_template_f": (skel["skin_template_f"] + count, f"0 to {count - 1}"),
        "skel_template_f": (-skel["skel_template_f"], "vertex indices from -"),
        "skin_weights": ("text", "not an array of numbers"),
        "osim_kintree_table": (np.stack([np.arange(24), np.arange(24)]), "tree"),
        "landmarks": (np.full(14, count), "vertex indices"),
        "per_joint_rot": (skel["per_joint_rot"][0], "shape"),
    }


@pytest.mark.parametrize("key", list(_broken(official_files.random_models(seed=3)[1])))
def test_contents_that_do_not_fit_are_named(tmp_path, random_models, key):
    value, said = _broken(random_models[1])[key]
    path = tmp_path / "skel_male.pkl"
    path.write_bytes(pickle.dumps({**random_models[1], key: value}))
    with pytest.raises(InputError, match=said) as caught:
        skel_arrays(path)
    assert "skel_male.pkl" in str(caught.value)
    assert caught.value.field == ("shapedirs" if key == "skin_template_v" else key)


def test_expression_without_a_value_is_named_only_if_needed(tmp_path, random_models):
    path = tmp_path / "m.pkl"
    with official_files.chumpy_in_memory() as make:
        path.write_bytes(pickle.dumps({**random_models[0], "J": make("MatVecMult", mtx=1)}))
        smpl_arrays(path)
        path.write_bytes(pickle.dumps({**random_models[0], "weights": make("MatVecMult", mtx=1)}))
    with pytest.raises(InputError, match=r"chumpy\.ch\.MatVecMult") as caught:
        smpl_arrays(path)
    assert caught.value.field == "weights"


def test_files_are_found_flat_or_in_folders_in_any_case(tmp_path):
    for n, (folder, name) in enumerate(
        [("", "smpl_neutral.PKL"), ("SMPL", "SMPL_NEUTRAL.npz"), ("Smpl", "Smpl_Neutral.pkl")]
    ):
        place = tmp_path / str(n) / folder
        place.mkdir(parents=True)
        (place / name).touch()
        assert find_model_file(tmp_path / str(n), "smpl", "neutral") == place / name
    (tmp_path / "1" / "SMPL" / "smpl_neutral.pkl").touch()
    assert find_model_file(tmp_path / "1", "smpl", "neutral").suffix == ".pkl"
    assert find_model_file(tmp_path / "0" / "smpl_neutral.PKL", "smpl", "neutral").name == "smpl_neutral.PKL"


def test_missing_files_say_what_was_looked_for_and_what_is_there(tmp_path, model_directory):
    with pytest.raises(InputError, match=r"nowhere: no such file or directory; expected skel_male\.pkl"):
        skel_arrays(tmp_path / "nowhere")
    with pytest.raises(InputError, match="9: no such file or directory"):  # longer than a name may be
        skel_arrays(tmp_path / ("9" * 300))
    with pytest.raises(InputError, match="neither a name nor a file"):
        read_limits("9" * 300)
    with pytest.raises(InputError) as caught:
        skel_arrays(model_directory, "female")
    for part in (
        "skel_female.pkl",
        "skel_female.npz",
        "skel/skel_male.pkl",
        "smpl/SMPL_MALE.pkl",
        str(model_directory),
    ):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=r"'neutral'; expected male or female"):
        skel_arrays(model_directory, "neutral")
    with pytest.raises(InputError, match="it holds no files"):
        smpl_arrays(tmp_path)


def test_keypoint_regressors(tmp_path, random_models):
    smpl, skel = random_models
    directory = official_files.write_model_directory(tmp_path / "models", smpl, skel)
    count = len(smpl["v_template"])
    assert keypoint_arrays(directory, count) == {}
    rng = np.random.default_rng(0)
    j19, mix, j24 = rng.random((19, count)), rng.random((24, count)), rng.random((24, count))
    (directory / "SMPL_to_J19.pkl").write_bytes(official_files.python2_pickle(j19))
    (directory / "skel" / "J_regressor_SKEL_mix_MALE.pkl").write_bytes(pickle.dumps(sparse.csr_matrix(mix)))
    np.save(directory / "smpl" / "j_regressor_smpl_male.npy", j24)
    found = keypoint_arrays(directory, count)
    np.testing.assert_array_equal(found["SMPL_to_J19"], j19)
    np.testing.assert_array_equal(found["J_regressor_SKEL_mix_MALE"], mix)
    np.testing.assert_array_equal(found["J_regressor_SMPL_MALE"], j24)
    with pytest.raises(InputError, match="SMPL_to_J19"):
        keypoint_arrays(directory, count + 1)


def test_the_embedded_body_passes_the_same_checks():
    smpl, skel = smpl_arrays("demo"), skel_arrays("demo")
    assert smpl["v_template"].shape == skel["skin_template_v"].shape
    np.testing.assert_array_equal(smpl["f"], skel["skin_template_f"])
    assert set(keypoint_arrays("demo", len(smpl["v_template"]))) == {
        *("SMPL_to_J19", "J_regressor_SKEL_mix_MALE", "J_regressor_SMPL_MALE", "J_regressor_h36m")
    }


@pytest.mark.parametrize(
    ("place", "name", "gender"),
    [
        (".", "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", "neutral"),
        (".", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "neutral"),
        ("smpl/models", "basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "male"),
        ("SMPL_python_v.1.1.0/smpl/models", "basicmodel_f_lbs_10_207_0_v1.1.0.pkl", "female"),
    ],
)
def test_smpl_is_found_under_its_downloads_name(tmp_path, place, name, gender):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / name).touch()
    assert find_model_file(tmp_path, "smpl", gender) == tmp_path / place / name
    (tmp_path / f"SMPL_{gender.upper()}.pkl").touch()
    assert find_model_file(tmp_path, "smpl", gender).name == f"SMPL_{gender.upper()}.pkl", "the official name wins"
    other = "male" if gender != "male" else "female"
    with pytest.raises(InputError, match="no SMPL body model in this directory"):
        find_model_file(tmp_path, "smpl", other)


def test_skel_is_found_in_its_downloads_folder(tmp_path):
    (tmp_path / "skel_models_v1.1").mkdir()
    (tmp_path / "skel_models_v1.1" / "skel_male.pkl").touch()
    assert find_model_file(tmp_path, "skel", "male").parent.name == "skel_models_v1.1"


def test_skel_without_a_version_is_called_older(tmp_path, random_models):
    values = {key: value for key, value in random_models[1].items() if key != "version"}
    (tmp_path / "skel_male.pkl").write_bytes(pickle.dumps(values))
    with pytest.raises(InputError, match=r"older than 1\.1\.1"):
        skel_arrays(tmp_path / "skel_male.pkl")
