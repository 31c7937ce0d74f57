"""Metrics against plain numpy, and the command on shards whose errors are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from written_shards import label_columns, write_shard

from pipelines.files.body_models import BodyModels
from schemas import InputError
from train.data.batch import Targets
from train.data.config import DataConfig
from train.data.loader import PeopleStream
from train.data.shards import LABELS, SOURCE
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.command import main
from train.evaluate.metrics import aligned, correct_keypoints, mean_distance_mm
from train.evaluate.protocols import H36M_KEYPOINTS, PROTOCOLS
from train.evaluate.shards import evaluate_shards, shard_summary

RNG = np.random.default_rng(0)


def procrustes(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Best similarity transform of one set, with scipy's rotation fit (Kabsch) and the scale that is then best."""
    x, y = points - points.mean(0), target - target.mean(0)
    rotation = Rotation.align_vectors(y, x)[0].as_matrix()
    turned = x @ rotation.T
    return (turned * y).sum() / (turned**2).sum() * turned + target.mean(0)


def test_alignment_agrees_with_scipy():
    points, target = RNG.normal(size=(20, 14, 3)), RNG.normal(size=(20, 14, 3))
    expected = np.stack([procrustes(p, t) for p, t in zip(points, target, strict=True)])
    found = aligned(torch.from_numpy(points), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5), st.floats(-3, 3))
def test_alignment_undoes_any_similarity_but_no_reflection(seed, scale, shift):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(1, 24, 3))
    moved = scale * target @ Rotation.random(random_state=seed).as_matrix().T + shift
    np.testing.assert_allclose(aligned(torch.from_numpy(moved), torch.from_numpy(target)), target, atol=1e-8)
    mirrored = torch.from_numpy(moved * [-1, 1, 1])
    assert mean_distance_mm(aligned(mirrored, torch.from_numpy(target)), torch.from_numpy(target)) > 10


def test_the_14_joints_are_those_of_human36m():
    from schemas import KEYPOINT_NAMES

    names = [KEYPOINT_NAMES[k] for k in H36M_KEYPOINTS]
    assert names[:6] == [
        f"{n}_lsp" for n in ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle")
    ]
    assert len(names) == 14 and names[-2:] == ["neck_lsp", "head_h36m"]


def test_correct_keypoints_counts_only_annotated_ones():
    target = torch.zeros(2, 4, 3)
    target[0, :, 2] = torch.tensor([1.0, 0.5, 0.0, 1.0])
    predicted = torch.tensor([[0.04, 0.0], [0.0, 0.06], [0.0, 0.0], [0.2, 0.2]]).expand(2, 4, 2)
    assert [v.sum(1).tolist() for v in correct_keypoints(predicted, target, 0.05)] == [[1, 0], [3, 0]]
    assert [v.sum(1).tolist() for v in correct_keypoints(predicted, target, 0.1)] == [[2, 0], [3, 0]]
    assert [v.sum(1).tolist() for v in correct_keypoints(predicted, target, 0.1, 0.5)] == [[1, 0], [2, 0]]


# ------------------------------------------------------------------------------------------------------- on shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    columns = label_columns(5, seed=1)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
    columns["poses"][:, 3:] *= np.linspace(0.5, 2, 43, dtype=np.float32)
    return write_shard(folder := tmp_path_factory.mktemp("shards"), "000000", columns) and folder


@pytest.fixture(scope="module")
def bodies():
    return EvaluationBodies(BodyModels())


def people(folder) -> PeopleStream:
    return PeopleStream(DataConfig(shards=[str(folder)]), 2, shuffle=False, fields=(*LABELS, *SOURCE))


def perfect(_image, targets: Targets):
    return targets.poses, targets.betas, torch.tensor([[0.9, 0.0, 0.0]]).expand(len(targets.betas), 3), targets.framing


def test_perfect_estimates_have_no_error_against_the_fit_and_the_fits_error_against_smpl(folder, bodies):
    errors = evaluate_shards(perfect, people(folder), bodies, "cpu", truth="skel")
    assert errors["key"].tolist() == label_columns(5)["key"].tolist()
    numbers = shard_summary(errors)
    assert max(numbers[f"{name}_mm"] for name in ("mpjpe", "pa_mpjpe", "pve")) < 0.01
    other = evaluate_shards(perfect, people(folder), bodies, "cpu", truth="smpl")
    assert other["pve_mm"].min() > 10  # the SMPL source of these made-up people is somebody else


@pytest.mark.parametrize("protocol", PROTOCOLS[:5])
def test_errors_of_one_joint_appear(folder, bodies, protocol):
    def off(image, targets):
        poses, *others = perfect(image, targets)
        poses = poses.clone()
        poses[:, 6] += 0.5  # right knee
        return poses, *others

    errors = evaluate_shards(off, people(folder), bodies, "cpu", protocol)
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm"):
        assert (errors[name] > 5).all() and (errors[name] < 200).all()


def test_the_command_reports_the_mean_person(folder, tmp_path, capsys):
    output = tmp_path / "errors.json"
    shared = ["--shards", str(folder), "--workers", "0", "--device", "cpu", "--truth", "skel"]
    assert main(["mean", *shared, "--output", str(output)]) == 0
    told = capsys.readouterr().out
    document = json.loads(output.read_text())
    assert document["people"] == 5 and len(document["errors"]["mpjpe_mm"]) == 5
    assert f"{document['mpjpe_mm']:.1f}" in told and document["mpjpe_mm"] > 1
    with pytest.raises(InputError, match="no checkpoints here"):
        main([str(tmp_path), *shared])
    with pytest.raises(InputError, match="absent"):
        main([str(tmp_path / "absent.pt"), *shared])
