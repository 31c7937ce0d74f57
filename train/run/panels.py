"""Pictures of predictions: SKEL's skin and bones over the crop, and sheets of them that show a run's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fitting import SKEL
from pipelines.draw.overlay import draw_overlay
from pipelines.files.body_models import BodyModels
from pipelines.files.outputs import written
from train.data.batch import Batch, Targets, as_batch
from train.data.loader import PeopleStream
from train.network.camera import Framing, bbox_cue, cam_to_translation, translation_to_cam
from train.network.decoder import Estimate
from train.network.inputs import assumed_framing, normalised
from train.network.model import SKELCF
from train.options import TrainOptions
from train.run.body import PELVIS_KEYPOINT, KeypointLayer
from train.run.held_out import held_out_people

PEOPLE = 16
"""How many a run's pictures show."""


def draw_body(
    image: np.ndarray, skel: SKEL, poses: Tensor, betas: Tensor, trans: Tensor, focal: float, principal: np.ndarray
) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB with the bones, and the skin as glass over them; a new array.

    One person: poses (46,), betas (10,), trans (3,) m. Focal length and principal point (2,) are in px of this image.
    """
    out = skel(poses[None], betas[None], trans[None], skeleton_mesh=True)
    skin, bones = (mesh[0].double().cpu().numpy() for mesh in (out.vertices, out.skeleton_vertices))
    camera = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]], np.float64)
    return draw_overlay(image, skin, skel.faces, camera, np.eye(3)[:2], bones, skel.skeleton_faces)


def draw_in_crop(image: np.ndarray, skel: SKEL, poses: Tensor, betas: Tensor, cam: Tensor, framing: Framing):
    """`draw_body` on a square crop (S, S, 3); cam (3,) is for `framing`, a batch of one."""
    zoom = image.shape[0] / float(framing.box[0])
    principal = zoom * (framing.principal - framing.center)[0].cpu().numpy() + image.shape[0] / 2
    trans = cam_to_translation(cam[None], framing)[0]
    return draw_body(image, skel, poses, betas, trans, zoom * float(framing.focal[0]), principal)


@torch.inference_mode()
def estimates(model: nn.Module, batch: Batch) -> tuple[Estimate, Framing]:
    """A network's final estimates in evaluation mode, and the framing that their cameras are for."""
    framing, training = assumed_framing(model, batch.targets.framing), model.training
    model.eval()
    final = model(normalised(batch.image), bbox_cue(framing)).final
    model.train(training)
    return final, framing


def draw_estimates(batch: Batch, skel: SKEL, estimate: Estimate, framing: Framing) -> list[np.ndarray]:
    """Each person's crop with the estimated body."""
    poses, images = estimate.poses, batch.image.cpu().numpy()
    return [
        draw_in_crop(image, skel, poses[n], estimate.betas[n], estimate.cam[n], _one(framing, n))
        for n, image in enumerate(images)
    ]


def draw_labels(batch: Batch, skel: SKEL, body: KeypointLayer) -> list[np.ndarray]:
    """Each person's crop with the labelled body; the bare crop if nobody knows how far away the person is."""
    targets: Targets = batch.targets
    pelvis = targets.keypoints_3d[:, PELVIS_KEYPOINT, :3]
    drawn = []
    for n, image in enumerate(batch.image.cpu().numpy()):
        if not pelvis[n, 2] > 0:
            drawn.append(image)
            continue
        framing, (poses, betas) = _one(targets.framing, n), (v[n : n + 1] for v in (targets.poses, targets.betas))
        offset = body(poses, betas)[:, PELVIS_KEYPOINT]
        cam = translation_to_cam(pelvis[n : n + 1] - offset, framing)[0]
        drawn.append(draw_in_crop(image, skel, poses[0], betas[0], cam, framing))
    return drawn


class Panels:
    """Some of a run's people, held-out ones if there are any, drawn as networks see them and as they are labelled."""

    def __init__(self, options: TrainOptions, models: BodyModels, device: torch.device) -> None:
        self.options, self.models, self.device = options, models, device

    def draw(self, network: SKELCF, step: int) -> np.ndarray:
        """Writes OUTPUT/panels/NNNNNNNN.png, and returns the picture."""
        columns = {"image": self._images, f"step {step}": self._seen_by(network), "label": self._labels}
        return _write(self.options.output / "panels" / f"{step:08d}.png", sheet(columns))

    def draw_before_after(self, before: SKELCF, after: SKELCF) -> np.ndarray:
        """Writes OUTPUT/before_after.png, and returns the picture."""
        seen = {"before": self._seen_by(before), "after": self._seen_by(after)}
        return _write(
            self.options.output / "before_after.png", sheet({"image": self._images, **seen, "label": self._labels})
        )

    @cached_property
    def _people(self) -> Batch:
        options = self.options
        people = held_out_people(options.data, 0, PEOPLE) if options.data.part == "training" else None
        if people is None:
            people = PeopleStream(replace(options.data, weights=[]), PEOPLE)
        return as_batch(people[0, 0, 0]).to(self.device)

    @cached_property
    def _images(self) -> list[np.ndarray]:
        return list(self._people.image.cpu().numpy())

    @cached_property
    def _labels(self) -> list[np.ndarray]:
        return draw_labels(self._people, self.models.skel, KeypointLayer.of(self.models))

    def _seen_by(self, network: SKELCF) -> list[np.ndarray]:
        return draw_estimates(self._people, self.models.skel, *estimates(network, self._people))


def _write(path: Path, picture: np.ndarray) -> np.ndarray:
    with written(path) as hidden:
        hidden.write_bytes(cv2.imencode(path.suffix, picture[:, :, ::-1])[1].tobytes())
    return picture


def sheet(columns: dict[str, Sequence[np.ndarray]], per_row: int = 2) -> np.ndarray:
    """One picture, uint8 RGB: people below each other, `per_row` side by side, each as one tile per column."""
    width = next(iter(columns.values()))[0].shape[1]
    heading = np.full((24, width * len(columns), 3), 250, np.uint8)
    for n, title in enumerate(columns):
        cv2.putText(heading, title, (n * width + 6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    people = [np.concatenate(tiles, 1) for tiles in zip(*columns.values(), strict=True)]
    people += [np.full_like(people[0], 250)] * (-len(people) % per_row)
    rows = [np.concatenate(people[n : n + per_row], 1) for n in range(0, len(people), per_row)]
    return np.concatenate([np.concatenate([heading] * per_row, 1), *rows])


def _one(framing: Framing, n: int) -> Framing:
    return Framing(*(value[n : n + 1] for value in framing))
