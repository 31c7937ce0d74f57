"""`hmr-skel fit --sequence`: whole turns in the .npz and the .mot, and files that are read in pieces."""

from __future__ import annotations

import math

import numpy as np
from motions import X, turning, windmill

from pipelines.command.hmr_skel import guarded
from pipelines.hand_on import fit as fit_command


def run(*arguments) -> int:
    return guarded(lambda: fit_command.main([str(argument) for argument in arguments]), "hmr-skel")


def write(path, poses: np.ndarray) -> None:
    betas, trans = np.zeros(10, np.float32), np.zeros((len(poses), 3), np.float32)
    np.savez(path, poses=poses.astype(np.float32), betas=betas, trans=trans, mocap_framerate=30.0)


def test_somersault_and_windmill_have_no_jumps(tmp_path, capsys):
    for name, poses in (("somersault", turning(X, 1, 40)), ("windmill", windmill(1, 40))):
        write(tmp_path / "in.npz", poses)
        command = [tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--mot", tmp_path / "out.mot", "--up", "y"]
        assert run(*command, "--sequence") == 0, capsys.readouterr().err
        with np.load(tmp_path / "out.npz") as found:
            assert np.abs(np.diff(found["poses"], axis=0)).max() < math.radians(20), name
            assert found["converged"].all() and (found["betas"] == found["betas"][0]).all()
        lines = (tmp_path / "out.mot").read_text().splitlines()
        table = np.loadtxt(lines[lines.index("endheader") + 2 :])
        assert np.abs(np.diff(table, axis=0)).max() < 20, name


def test_pieces_make_no_difference(tmp_path, monkeypatch, capsys):
    write(tmp_path / "in.npz", turning(X, 0.3, 14))
    assert run(tmp_path / "in.npz", "-o", tmp_path / "whole.npz", "--sequence") == 0
    monkeypatch.setattr(fit_command, "ROWS_AT_A_TIME", 4)
    assert run(tmp_path / "in.npz", "-o", tmp_path / "pieces.npz", "--sequence") == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "pieces.npz") as pieces:
        for name in ("poses", "betas", "trans", "source_row", "smpl_poses"):
            np.testing.assert_array_equal(pieces[name], whole[name], err_msg=name)
