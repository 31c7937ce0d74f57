"""What `hmr-skel fit` says of the body models and the coordinates, in its lines, tables and files."""

from __future__ import annotations

import shutil

import numpy as np
import official_files
import pytest

from fitting.anatomy import COORDINATE_NAMES
from fitting.body.limits import HUMAN_LIMITS
from pipelines.command.hmr_skel import main


@pytest.fixture(scope="module")
def models(tmp_path_factory, random_models):
    """SMPL in all genders and SKEL male; `both` has SKEL female as well."""
    root = tmp_path_factory.mktemp("models")
    official_files.write_model_directory(root / "male", *random_models)
    for gender in ("MALE", "FEMALE"):
        shutil.copy(root / "male" / "smpl" / "SMPL_NEUTRAL.pkl", root / "male" / "smpl" / f"SMPL_{gender}.pkl")
    shutil.copytree(root / "male", root / "both")
    shutil.copy(root / "both" / "skel" / "skel_male.pkl", root / "both" / "skel" / "skel_female.pkl")
    return root


def fit(folder, models, gender, *options):
    poses = np.random.default_rng(0).normal(0, 0.05, (2, 72))
    np.savez(folder / "in.npz", poses=poses, betas=np.zeros((2, 10)), trans=np.zeros((2, 3)), gender=np.array(gender))
    where = ["--body-models", str(models)] if models else []
    assert main(["fit", str(folder / "in.npz"), "-o", str(folder / "out.npz"), *where, *options]) == 0
    with np.load(folder / "out.npz", allow_pickle=False) as found:
        return dict(found)


def test_the_demo_body_is_told_of_in_line_table_and_files(tmp_path, caplog, capsys):
    files = {name: tmp_path / f"p.{name}" for name in ("osim", "mot")}
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    found = fit(tmp_path, None, "female", *options, "--up", "y")
    assert "embedded demo body" in caplog.records[0].getMessage()
    assert "embedded demo body" in " ".join(capsys.readouterr().out.split())
    assert str(found["body_models"]).startswith("demo") and found["gender"] == "male"
    for path in files.values():
        assert "embedded demo body" in path.read_text()
    assert 'name="p_demo_body"' in files["osim"].read_text()
    assert found["pose_names"].tolist() == list(COORDINATE_NAMES) and set(found["pose_units"].tolist()) == {"rad"}
    bounded = np.isfinite(HUMAN_LIMITS)
    assert np.allclose(found["pose_limits"][bounded], HUMAN_LIMITS[bounded], atol=1e-6)
    assert np.isnan(found["pose_limits"][~bounded]).all()


@pytest.mark.parametrize(
    ("place", "stated", "option", "skel", "line"),
    [
        ("both", "female", [], "female", ""),
        ("both", "f", ["--gender", "male"], "male", ""),
        ("both", "male", [], "male", ""),
        ("both", "male", ["--smpl-gender", "female"], "female", ""),
        ("both", ["female", "male"], [], "male", "rows of female and male; all are fitted with SKEL male"),
        ("male", "female", [], "male", "holds no SKEL female: SKEL male is fitted"),
    ],
)
def test_women_get_the_female_skel_where_it_is(models, tmp_path, caplog, capsys, place, stated, option, skel, line):
    found = fit(tmp_path, models / place, stated, *option)
    assert (str(found["gender"]), str(found["body_models"])) == (skel, "files")
    assert f"SKEL {skel}" in " ".join(capsys.readouterr().out.split())
    assert line in caplog.text and bool(line) == bool(caplog.records)
