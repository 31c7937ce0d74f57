"""Errors on people of HMR-SKEL shards, against their SMPL source or their fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.command.progress import progress_bar
from train.data.batch import Targets, as_batch
from train.data.loader import PeopleStream, stream
from train.evaluate.bodies import EvaluationBodies, body_errors
from train.evaluate.metrics import correct_keypoints
from train.evaluate.protocols import PELVIS_KEYPOINT, THRESHOLDS, protocol
from train.network.camera import Framing, bbox_cue, project_to_crop, translation_to_cam
from train.network.inputs import assumed_framing, normalised
from train.network.pose_representation import poses_to_representation, representation_to_poses

Estimator = Callable[[Tensor, Targets], tuple[Tensor, Tensor, Tensor, Framing]]
"""(image, targets) -> poses (B, 46), betas (B, 10), cam (B, 3) and the framing that cam is for."""


def evaluate_shards(
    estimate: Estimator,
    people: PeopleStream,
    bodies: EvaluationBodies,
    device: Any,
    name: str = "emdb",
    truth: str = "skel",
    workers: int = 0,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Errors of every person, (N,) by name: `mpjpe_mm`, `pa_mpjpe_mm`, `pve_mm`, `pck_0.05_hits`, `keypoints`, `key`.

    By the protocol `name` without its quirks, of points regressed from both meshes alike.
    `truth` smpl needs a stream whose `fields` hold `smpl_poses` and `smpl_betas`.
    """
    rules, found = protocol(name, frozenset()), []
    with (
        torch.inference_mode(),
        progress_bar(desc="evaluate", unit="people", total=len(people.people), quiet=not progress) as bar,
    ):
        for _, values in stream(people, workers=workers):
            batch = as_batch(values).to(device)
            poses, betas, cam, framing = estimate(batch.image, batch.targets)
            vertices = bodies.skel_vertices(poses, betas)
            if truth == "smpl":
                source = (torch.from_numpy(values[name]).to(device) for name in ("smpl_poses", "smpl_betas"))
                goal = bodies.smpl(*source)[0]
            else:
                goal = bodies.skel_vertices(batch.targets.poses, batch.targets.betas)
            points, goals = (bodies.points(mesh, rules) for mesh in (vertices, goal))
            errors = body_errors(replace(rules, meshes=True), points, goals, vertices, goal)
            del errors["joints_mm"]
            seen = project_to_crop(bodies.keypoints(vertices), cam, framing)
            for threshold in THRESHOLDS:
                hits, annotated = correct_keypoints(seen, batch.targets.keypoints_2d, threshold)
                errors |= {f"pck_{threshold}_hits": hits.sum(1), "keypoints": annotated.sum(1)}
            found.append({name: value.cpu().numpy() for name, value in errors.items()} | {"key": np.array(batch.keys)})
            bar.update(len(batch.keys))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def shard_summary(errors: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over people, mm; shares of correct keypoints over all annotated ones."""
    keypoints = max(int(errors["keypoints"].sum()), 1)
    means = {name: float(values.mean()) for name, values in errors.items() if name.endswith("_mm")}
    return means | {f"pck_{t}": float(errors[f"pck_{t}_hits"].sum() / keypoints) for t in THRESHOLDS}


def network_estimator(model: nn.Module) -> Estimator:
    """What a network says."""

    def estimate(image: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Framing]:
        framing = assumed_framing(model, targets.framing)
        final = model(normalised(image), bbox_cue(framing)).final
        return final.poses, final.betas, final.cam, framing

    return estimate


def mean_estimator(poses: Tensor, betas: Tensor, cam: Tensor) -> Estimator:
    """Says the same (46,), (10,), (3,) of everybody."""

    def estimate(image: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Framing]:
        p, b, c = (value.to(image.device).expand(len(image), -1) for value in (poses, betas, cam))
        return p, b, c, targets.framing

    return estimate


def mean_person(people: PeopleStream, most: int = 4096) -> tuple[Tensor, Tensor, Tensor]:
    """Mean pose (of rotations, so that it is one), shape and camera of people: the best that blindness can do."""

    poses, betas, cams, count = [], [], [], 0
    for _, values in stream(people):
        targets = as_batch(values).targets
        pelvis = targets.keypoints_3d[:, PELVIS_KEYPOINT, :3]
        poses.append(poses_to_representation(targets.poses))
        betas.append(targets.betas)
        cams.append(translation_to_cam(pelvis, targets.framing)[pelvis[:, 2] > 0])
        count += len(pelvis)
        if count >= most:
            break
    mean = representation_to_poses(torch.cat(poses).mean(0, keepdim=True))[0]
    cam = torch.cat(cams).median(0).values if sum(map(len, cams)) else torch.tensor([0.9, 0.0, 0.0])
    return mean, torch.cat(betas).mean(0), cam
