"""The command `hmr-skel evaluate`: a network's errors on people of HMR-SKEL shards, by a benchmark's protocol."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipelines.command.devices import one_device
from pipelines.command.options import Positional, arg, parse_options
from pipelines.files.body_models import BodyModels
from schemas import VERDICTS, InputError
from train.data.config import DataConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from train.data.batch import Targets
    from train.data.loader import PeopleStream
    from train.network.camera import Framing
    from train.network.model import SKELCF

log = logging.getLogger(__name__)

PCK = (0.05, 0.1)
"""Thresholds of the share of correct keypoints, in units of the box."""

Estimator = Callable[["Tensor", "Targets"], tuple["Tensor", "Tensor", "Tensor", "Framing"]]
"""(image, targets) -> poses (B, 46), betas (B, 10), cam (B, 3) and the framing that cam is for."""


def _everybody() -> DataConfig:
    return DataConfig(unconverged=True, max_vertex_error_mm=1e9, verdicts=list(VERDICTS))


@dataclass
class EvaluateOptions:
    """Measure a network on HMR-SKEL shards: MPJPE, PA-MPJPE, PVE, PCK."""

    checkpoint: Annotated[str, Positional, arg(metavar="CHECKPOINT")]
    """this project's or a released file, or the folder of a run; mean: the mean person, whom any network must beat"""
    which: Literal["ema", "model"] = "ema"
    """weights of the checkpoint to take: the moving average, or those last trained"""
    protocol: Literal["3dpw", "moyo", "h36m"] = "3dpw"
    """joints and root that are compared; 3dpw also for EMDB and SPEC-SYN"""
    truth: Literal["smpl", "skel"] = "smpl"
    """compare with the SMPL source, or with the SKEL fit that the network was trained on"""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """folder with the official SMPL and SKEL files and regressors; demo is the embedded body"""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N"""
    batch: int = 64
    """people per pass"""
    workers: int = 2
    """processes that read"""
    output: Path | None = None
    """also write the numbers, and every person's, as JSON"""
    data: DataConfig = field(default_factory=_everybody)


class Bodies:
    """Meshes and joints of estimates and of labels."""

    def __init__(self, models: BodyModels) -> None:
        self.models = models

    def skel_vertices(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, V, 3) m, without translation."""
        return self.models.skel(poses.float(), betas.float(), poses.new_zeros(len(poses), 3)).vertices

    def smpl_vertices(self, poses: Tensor, betas: Tensor) -> Tensor:
        """(B, V, 3) m, without translation, of SMPL axis-angle (B, 72)."""
        return self.models.smpl()(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3]).vertices

    def joints(self, vertices: Tensor, kind: str) -> Tensor:
        """`smpl` or `mix` joints (B, 24, 3) or 44 `keypoints` of a mesh."""
        from fitting.body.keypoints import skel_keypoints
        from train.evaluate.metrics import regressed

        if kind == "keypoints":
            ids = self.models.smpl().vertex_joint_selector.extra_joints_idxs
            return skel_keypoints(
                vertices, ids, self.models.regressor("J_regressor_SKEL_mix_MALE"), self.models.regressor("SMPL_to_J19")
            )[0]
        return regressed(
            vertices, self.models.regressor(f"J_regressor_{'SMPL' if kind == 'smpl' else 'SKEL_mix'}_MALE")
        )


def evaluate(
    estimate: Estimator,
    people: PeopleStream,
    bodies: Bodies,
    device: Any,
    protocol: str = "3dpw",
    truth: str = "skel",
    workers: int = 0,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Errors of every person, (N,) by name: `mpjpe_mm`, `pa_mpjpe_mm`, `pve_mm`, `pck_0.05_hits`, `keypoints`, `key`.

    `truth` smpl needs a stream whose `fields` hold `smpl_poses` and `smpl_betas`.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from train.data.batch import as_batch
    from train.data.loader import stream
    from train.evaluate.metrics import PROTOCOLS, body_errors, correct_keypoints
    from train.network.camera import project_to_crop

    rules, found = PROTOCOLS[protocol], []
    with (
        torch.inference_mode(),
        tqdm(total=len(people.people), unit="person", disable=None if progress else True) as bar,
    ):
        for _, values in stream(people, workers=workers):
            batch = as_batch(values).to(device)
            poses, betas, cam, framing = estimate(batch.image, batch.targets)
            vertices = bodies.skel_vertices(poses, betas)
            if truth == "smpl":
                source = (torch.from_numpy(values[name]).to(device) for name in ("smpl_poses", "smpl_betas"))
                goal = bodies.smpl_vertices(*source)
            else:
                goal = bodies.skel_vertices(batch.targets.poses, batch.targets.betas)
            joints, goals = (bodies.joints(mesh, rules.joints) for mesh in (vertices, goal))
            errors = body_errors(vertices, goal, joints, goals, rules)
            seen = project_to_crop(bodies.joints(vertices, "keypoints"), cam, framing)
            for threshold in PCK:
                hits, errors["keypoints"] = correct_keypoints(seen, batch.targets.keypoints_2d, threshold)
                errors[f"pck_{threshold}_hits"] = hits
            found.append({name: value.cpu().numpy() for name, value in errors.items()} | {"key": np.array(batch.keys)})
            bar.update(len(batch.keys))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def summary(errors: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over people, mm; shares of correct keypoints over all annotated ones."""
    keypoints = max(int(errors["keypoints"].sum()), 1)
    means = {name: float(values.mean()) for name, values in errors.items() if name.endswith("_mm")}
    return means | {f"pck_{t}": float(errors[f"pck_{t}_hits"].sum() / keypoints) for t in PCK}


def network_estimator(model: nn.Module) -> Estimator:
    """What a network says."""
    from train.network.camera import bbox_cue
    from train.network.inputs import assumed_framing, normalised

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
    import torch

    from train.data.batch import as_batch
    from train.data.loader import stream
    from train.network.camera import translation_to_cam
    from train.network.pose_representation import poses_to_representation, representation_to_poses

    poses, betas, cams, count = [], [], [], 0
    for _, values in stream(people):
        targets = as_batch(values).targets
        pelvis = targets.keypoints_3d[:, 39, :3]
        poses.append(poses_to_representation(targets.poses))
        betas.append(targets.betas)
        cams.append(translation_to_cam(pelvis, targets.framing)[pelvis[:, 2] > 0])
        count += len(pelvis)
        if count >= most:
            break
    mean = representation_to_poses(torch.cat(poses).mean(0, keepdim=True))[0]
    cam = torch.cat(cams).median(0).values if sum(map(len, cams)) else torch.tensor([0.9, 0.0, 0.0])
    return mean, torch.cat(betas).mean(0), cam


def main(argv: list[str] | None = None, prog: str = "hmr-skel evaluate") -> int:
    """Measure a network on HMR-SKEL shards: MPJPE, PA-MPJPE, PVE and PCK."""
    options = parse_options(EvaluateOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__)
    import torch
    from rich.console import Console
    from rich.table import Table

    from train.data.loader import PeopleStream
    from train.data.shards import LABELS, SOURCE

    device = torch.device(one_device(options.device))
    people = PeopleStream(options.data, options.batch, shuffle=False, fields=(*LABELS, *SOURCE))
    bodies = Bodies(BodyModels(options.body_models, device=device))
    if options.checkpoint == "mean":
        estimator = mean_estimator(*mean_person(people))
    else:
        estimator = network_estimator(load_network(options.checkpoint, options.which, device))
    errors = evaluate(estimator, people, bodies, device, options.protocol, options.truth, options.workers, True)
    numbers = summary(errors)
    table = Table(title=f"{len(errors['key']):,} people, protocol {options.protocol}, truth {options.truth}")
    for name in numbers:
        table.add_column(
            name.replace("_mm", ", mm").replace("_", " ").upper().replace(", MM", " (mm)"), justify="right"
        )
    table.add_row(*(f"{value:.3f}" if name.startswith("pck") else f"{value:.1f}" for name, value in numbers.items()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.output is not None:
        document = {"people": len(errors["key"]), "protocol": options.protocol, "truth": options.truth, **numbers}
        document["errors"] = {name: values.tolist() for name, values in errors.items()}
        options.output.write_text(json.dumps(document) + "\n")
    return 0


def load_network(checkpoint: str, which: str, device: Any) -> SKELCF:
    """The network of a file, or of a training run's newest checkpoint. Raises InputError if there is none."""
    from train.network.checkpoints import load_checkpoint, run_checkpoints
    from train.network.model import SKELCF

    file = Path(checkpoint)
    if file.is_dir():
        found = run_checkpoints(file)
        if not found:
            raise InputError("no checkpoints here", file=file, expected="the output folder of hmr-skel train")
        file = found[-1]
    model = load_checkpoint(file, which, device=str(device))  # type: ignore[arg-type]
    if not isinstance(model, SKELCF):
        raise InputError("holds no whole network", file=file, expected="a SKEL-CF or HSMR checkpoint")
    return model


if __name__ == "__main__":
    sys.exit(main())
