"""MOYO-HARD from MOYO's labels, by its rule."""

from __future__ import annotations

import numpy as np
import pytest
from test_benchmark_labels import boxed, layout_b

from schemas import InputError
from train.benchmarks.labels import read_benchmark
from train.benchmarks.moyo_hard import build_moyo_hard, main, middle_half


def moyo(frames: dict[str, int], cameras: int = 3, seed: int = 0) -> dict:
    """Labels of sequences with so many frames, in an order that says nothing; the first beta is the frame."""
    rng = np.random.default_rng(seed)
    rows = [(s, c, f) for s, n in frames.items() for c in range(cameras) for f in range(n)]
    rng.shuffle(rows)
    count, frame = len(rows), np.array([int(f) for _, _, f in rows])
    betas = np.zeros((count, 10))
    betas[:, 0] = frame
    smpl = {"global_orient": np.zeros((count, 3)), "body_pose": np.zeros((count, 69)), "betas": betas}
    return {
        "names": np.array([s for s, _, _ in rows]),
        "img_paths": np.array([f"{s}/YOGI_Cam_0{c}/{s}_{c}_{int(f):05d}.jpg" for s, c, f in rows]),
        "centers": np.full((count, 2), 100.0),
        "scales": np.full((count, 2), 100.0),
        "smpl": boxed(smpl),
        "extra_info": boxed({"dataset_name": "MoYo"}),
    }


def test_the_front_cameras_middle_half_of_each_sequence(tmp_path, capsys):
    np.savez(tmp_path / "moyo.npz", **moyo({"one": 8, "two": 21, "three": 1}))
    assert main([str(tmp_path / "moyo.npz"), str(tmp_path / "hard.npz")]) == 0
    assert "14 images of 2 sequences; the paper's has 9,725 of 29" in capsys.readouterr().out
    people = read_benchmark(tmp_path / "hard.npz")
    assert all("YOGI_Cam_01" in name for name in people.imgname)
    for name, frames in (("one", range(2, 6)), ("two", range(5, 15))):
        mine = people.betas[people.sequence == name, 0]
        assert sorted(mine) == list(frames)
        stems = [int(n[-9:-4]) for n in people.imgname[people.sequence == name]]
        assert stems == mine.tolist()  # rows of the members belong together


def test_camera_one_is_not_camera_eleven():
    assert middle_half(["a"] * 4, [f"a/YOGI_Cam_1{n}/0.jpg" for n in range(4)]).size == 0


def test_files_without_the_front_camera_or_of_another_layout_are_refused(tmp_path):
    np.savez(tmp_path / "moyo.npz", **moyo({"one": 8}, cameras=1))
    with pytest.raises(InputError, match="no images of the front camera"):
        build_moyo_hard(str(tmp_path / "moyo.npz"), str(tmp_path / "hard.npz"))
    assert layout_b()["names"].size and not (tmp_path / "hard.npz").exists()
    assert main([str(tmp_path / "absent.npz"), str(tmp_path / "hard.npz")]) == 2
