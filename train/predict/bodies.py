"""Bodies of detected people: by the fit to their keypoints, or by a network on their crops; and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from fitting import KeypointBody, KeypointFitOptions, SKELStart, fit_keypoints
from fitting.body.limits import HUMAN_LIMITS
from fitting.fit.keypoint_layouts import to_44
from fitting.fit.verdict import IMPLAUSIBLE_BETAS
from pipelines.files.body_models import BodyModels
from schemas import Columns
from train.evaluate.networks import Network
from train.predict.detect.people import DetectedPeople
from train.predict.network import Crops, cut_crops, estimate
from train.predict.seen import SeenPicture

Parameters = dict[str, np.ndarray]
"""poses (B, 46), betas (B, 10), trans (B, 3), and, of fits, converged (B,). Rows that hold NaN are of nobody."""

_ON_A_LIMIT = np.radians(0.1)
"""As near as this an angle is at its limit."""
_AT_REACH = KeypointFitOptions().betas_reach - 1e-3


class Estimator(Protocol):
    """Gives people bodies: `add` those of each view, then `finish`."""

    def add(self, view: SeenPicture, people: DetectedPeople) -> None: ...

    def finish(self) -> Parameters:
        """Of all people since the last time, in their order."""
        ...


@dataclass
class KeypointEstimator:
    """By the fit to keypoints, everybody of a part together."""

    body: KeypointBody
    _seen: list[tuple[np.ndarray, float, np.ndarray]] = field(default_factory=list)

    def add(self, view: SeenPicture, people: DetectedPeople) -> None:
        self._seen += [(points, view.focal, view.principal) for points in people.keypoints]

    def finish(self) -> Parameters:
        seen, self._seen = self._seen, []
        if not seen:
            return _nobody() | {"converged": np.zeros(0, bool)}
        return fitted(self.body, *(np.array(values) for values in zip(*seen, strict=True)))


@dataclass
class NetworkEstimator:
    """By a network, on batches of crops across pictures."""

    network: Network
    margin: float
    batch: int
    _waiting: list[Crops] = field(default_factory=list)
    _done: list[Parameters] = field(default_factory=list)

    def add(self, view: SeenPicture, people: DetectedPeople) -> None:
        for first in range(0, len(people), self.batch):  # a crowd's crops never lie in memory together
            boxes = people.boxes[first : first + self.batch]
            self._waiting.append(cut_crops(view.pixels, boxes, view.focal, self.margin, self.network.patches))
            while sum(len(crops.sides) for crops in self._waiting) >= self.batch:
                self._run()

    def finish(self) -> Parameters:
        while self._waiting:
            self._run()
        done, self._done = self._done, []
        return {name: np.concatenate([part[name] for part in done]) for name in _nobody()} if done else _nobody()

    def _run(self) -> None:
        crops = Crops(*(np.concatenate(values) for values in zip(*self._waiting, strict=True)))
        now, later = Crops(*(v[: self.batch] for v in crops)), Crops(*(v[self.batch :] for v in crops))
        self._waiting = [later] if len(later.sides) else []
        self._done.append(estimate(self.network.model, now))


def fitted(
    body: KeypointBody,
    keypoints: np.ndarray,
    focal: np.ndarray,
    principal: np.ndarray,
    *,
    start: SKELStart | None = None,
    track: bool = False,
    betas: np.ndarray | None = None,
    options: KeypointFitOptions | None = None,
) -> Parameters:
    """`fit_keypoints` of people (B, 17, 3)."""
    fit = fit_keypoints(
        keypoints, focal, principal, body=body, layout="coco17", start=start, track=track, betas=betas, options=options
    )
    return {name: getattr(fit, name).cpu().numpy() for name in ("poses", "betas", "trans", "converged")}


def keypoint_body(models: BodyModels) -> KeypointBody:
    """SKEL of the body models with what its keypoints need. Raises InputError for what is missing."""
    regressors = [models.regressor(name) for name in ("J_regressor_SKEL_mix_MALE", "SMPL_to_J19")]
    ids = models.smpl().vertex_joint_selector.extra_joints_idxs
    return KeypointBody.of(models.skel, *regressors, torch.as_tensor(ids, dtype=torch.long, device=models.device))


@torch.inference_mode()
def described(body: KeypointBody, found: Columns) -> Columns:
    """What a prediction says of bodies beyond their parameters: angles, joints, keypoints, errors, verdicts.

    `found` are columns of `schemas.PREDICTION`: parameters, camera and detected keypoints.
    """
    like = body.directions
    poses, betas, trans = (torch.as_tensor(found[name]).to(like) for name in ("poses", "betas", "trans"))
    skel = body.skel
    joints = skel.pose(skel.rest_frames(skel.rest_joints(betas)), poses).joints + trans[:, None]
    points = (body.keypoints(poses, betas) + trans[:, None]).cpu().numpy()
    error = keypoint_error(points, found)
    return {
        "angles": np.degrees(found["poses"].astype(np.float64)).astype(np.float32),
        "joints": joints.cpu().numpy(),
        "keypoints_3d": points,
        "reprojection_error_px": np.ma.masked_invalid(error),
        "verdict": predicted_verdicts(found["poses"], found["betas"], found["method"] == "fit_keypoints"),
    }


def keypoint_error(points: np.ndarray, found: Columns) -> np.ndarray:
    """(B,) px: mean distance of keypoints (B, 44, 3) from the detected ones, weighed by confidence; NaN without."""
    depth = np.maximum(points[..., 2:], 1e-3)
    pixels = points[..., :2] / depth * found["focal"][:, None, None] + found["principal"][:, None]
    observed = to_44(found["detected_keypoints"], "coco17") if len(points) else np.zeros((0, 44, 3))
    weight = np.clip(observed[..., 2], 0, 1)
    apart = np.linalg.norm(pixels - observed[..., :2], axis=2)
    with np.errstate(invalid="ignore"):
        return ((apart * weight).sum(1) / weight.sum(1)).astype(np.float32)


def predicted_verdicts(poses: np.ndarray, betas: np.ndarray, bounded: np.ndarray) -> np.ndarray:
    """(B,) words of `schemas.VERDICTS`; betas of people who are `bounded` end where the fit holds them."""
    low, high = HUMAN_LIMITS[3:].T
    pressed = ((poses[:, 3:] < low + _ON_A_LIMIT) | (poses[:, 3:] > high - _ON_A_LIMIT)).any(1)
    wild = (np.linalg.norm(betas, axis=1) > IMPLAUSIBLE_BETAS) | (bounded & (np.abs(betas) > _AT_REACH).any(1))
    return np.where(wild, "implausible_shape", np.where(pressed, "at_limits", "good")).astype(object)


def _nobody() -> Parameters:
    return {
        "poses": np.zeros((0, 46), np.float32),
        "betas": np.zeros((0, 10), np.float32),
        "trans": np.zeros((0, 3), np.float32),
    }
