"""What was planned is what is read: label files and images that change in between are noticed."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from pipelines.command.hmr_skel import guarded
from pipelines.convert.rows import read_rows
from pipelines.hand_on import fit as fit_sequence
from pipelines.plan.planning import ShardSpec, find_label_files, plan_shards
from pipelines.read.images import open_images, read_image
from schemas import InputError

ROWS = 3


def labels(seed=0):
    camera = [[500, 0, 32], [0, 500, 32], [0, 0, 1]]
    return {
        "imgname": np.array([f"{i}.png" for i in range(ROWS)]),
        "center": np.full((ROWS, 2), 32.0),
        "scale": np.full(ROWS, 0.2),
        "pose_cam": np.random.default_rng(seed).normal(0, 0.1, (ROWS, 72)),
        "shape": np.zeros((ROWS, 10)),
        "cam_int": np.array([camera] * ROWS),
        "gtkps": np.zeros((ROWS, 44, 3)),
    }


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(ROWS):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((64, 64, 3), i, np.uint8))
    np.savez(tmp_path / "a.npz", **labels())

    def spec():
        files = find_label_files([str(tmp_path / "a.npz")], with_images=True)
        [found] = plan_shards(files, open_images(str(tmp_path / "images")), 100)
        return ShardSpec.from_json(found.to_json())  # as it travels

    return spec


def test_labels_replaced_between_planning_and_reading_are_refused(tmp_path, plan):
    spec = plan()
    assert len(read_rows(spec)) == ROWS
    facts = (tmp_path / "a.npz").stat()
    np.savez(tmp_path / "a.npz", **labels(seed=1))
    os.utime(tmp_path / "a.npz", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert (tmp_path / "a.npz").stat().st_size == facts.st_size
    with pytest.raises(InputError, match="has changed since the run was planned"):
        read_rows(spec)
    assert len(read_rows(plan())) == ROWS  # planned anew


def test_an_image_changed_in_place_is_not_read_and_tells_in_the_spec(tmp_path, plan):
    spec = plan()
    assert plan().hash == spec.hash
    assert all(len(read_image(spec.image_root, spec.image(i))) for i in range(ROWS))
    path = tmp_path / "images" / "1.png"
    facts = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    with pytest.raises(EOFError, match="changed since"):
        read_image(spec.image_root, spec.image(1))
    assert len(read_image(spec.image_root, spec.image(0)))
    assert plan().modified_sha256 != spec.modified_sha256


def test_a_flipped_bit_ends_a_fit(tmp_path, capsys):
    np.savez(tmp_path / "in.npz", poses=np.full((100, 72), 0.1), betas=np.zeros(10))
    run = [str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz"), "--rows", ":2"]
    assert guarded(lambda: fit_sequence.main(run), "hmr-skel") == 0
    (tmp_path / "out.npz").unlink()
    damaged = bytearray((tmp_path / "in.npz").read_bytes())
    damaged[40000] ^= 1 << 6
    (tmp_path / "in.npz").write_bytes(damaged)
    assert guarded(lambda: fit_sequence.main(run), "hmr-skel") == 2
    assert "field 'poses'" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
