"""The command `hmr-skel predict`: SKEL parameters of the people in a photograph, from a box around each."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from pipelines.command.devices import one_device
from pipelines.command.options import Positional, arg, parse_options
from schemas import InputError

if TYPE_CHECKING:
    from torch import nn

    from fitting import SKEL
    from train.network.model import SKELCF

log = logging.getLogger(__name__)


@dataclass
class PredictOptions:
    """SKEL parameters of the people in a photograph."""

    checkpoint: Annotated[str, Positional, arg(metavar="CHECKPOINT")]
    """this project's or a released network, or the folder of a training run"""
    image: Annotated[Path, Positional, arg(metavar="IMAGE")]
    """the photograph"""
    output: Path = Path("prediction.npz")
    """the .npz to write: poses, betas, trans, joints (camera frame, m), focal, cam, box_center, box_size"""
    boxes: list[float] = field(default_factory=list)
    """left top right bottom of each person, px, four numbers per person; default: the whole image is one box"""
    box_margin: float = 1.0
    """side of the square that the network sees divided by the longer side of the box"""
    focal: float = 0.0
    """focal length, px; 0 = what the camera network says, or, without one, the image's diagonal"""
    camera: str = ""
    """checkpoint with the focal-length network (CameraHMR's, or SKEL-CF's); default: the network's own file"""
    patches: Literal["auto", "released", "ours"] = "auto"
    """how crops are cut: as the released code does, or antialiased; auto: as the network was taught"""
    which: Literal["ema", "model"] = "ema"
    """weights of the checkpoint to take: the moving average, or those last trained"""
    overlay: Path | None = None
    """also draw skin and bones over the photograph (.png or .jpg)"""
    mesh: Path | None = None
    """also write the first person's skin, and bones beside it as NAME_skeleton.obj (.obj, m, y up)"""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """folder with the official SKEL file; demo is the embedded body"""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N"""


def predict(
    model: SKELCF,
    photograph: np.ndarray,
    boxes: np.ndarray,
    focal: float,
    margin: float = 1.0,
    patches: Literal["released", "ours"] | None = None,
) -> dict[str, np.ndarray]:
    """People in a photograph (H, W, 3), uint8 RGB, from boxes (B, 4): left, top, right, bottom, px.

    `focal` in px; the principal point is the image's middle. The result has poses (B, 46), betas (B, 10), trans (B, 3)
    m in the camera's frame, cam (B, 3), box_center (B, 2) and box_size (B,), px. Networks without camera place people
    where the far camera that they assume shows them. Crops are cut as `patches` says, by default as those that the
    network was taught on. Raises InputError for boxes without area.
    """
    import torch

    from pipelines.draw.warp import square_affine, warp
    from train.benchmarks.images import released_crop
    from train.network.camera import Framing, bbox_cue, cam_to_translation
    from train.network.inputs import assumed_framing, normalised
    from train.network.model import IMAGE

    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sizes = boxes[:, 2:] - boxes[:, :2]
    if not (np.isfinite(boxes).all() and (sizes > 0).all()):
        raise InputError(f"{boxes.tolist()} given", field="--boxes", expected="left < right and top < bottom, px")
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, sizes.max(1) * margin
    squares, released = zip(centers, sides, strict=True), (patches or model.crops) == "released"
    crops = np.stack(
        [
            released_crop(photograph, *square) if released else warp(photograph, square_affine(*square, IMAGE), IMAGE)
            for square in squares
        ]
    )
    device = next(model.parameters()).device
    tensor = lambda value: torch.as_tensor(np.asarray(value), dtype=torch.float32, device=device)  # noqa: E731
    middle = np.broadcast_to([photograph.shape[1] / 2, photograph.shape[0] / 2], centers.shape).copy()
    real = Framing(tensor(centers), tensor(sides), tensor(np.full(len(boxes), focal)), tensor(middle))
    framing = assumed_framing(model, real)
    with torch.inference_mode():
        final = model.eval()(normalised(torch.from_numpy(crops).to(device)), bbox_cue(framing)).final
    # Scale and shift say how the crop looks; seen through the photograph's own camera they say where somebody stands.
    trans = cam_to_translation(final.cam, real)
    found = {"poses": final.poses, "betas": final.betas, "trans": trans, "cam": final.cam}
    arrays = {name: value.float().cpu().numpy() for name, value in found.items()}
    return arrays | {"box_center": centers, "box_size": sides}


def estimated_focal(photograph: np.ndarray, network: nn.Module | None = None) -> float:
    """Focal length, px, of a photograph (H, W, 3): by a focal-length network, or without one the image's diagonal."""
    height, width = photograph.shape[:2]
    if network is None:
        return math.hypot(width, height)
    import torch

    from train.network.camera import focal_length
    from train.network.flnet import whole_image

    device = next(network.parameters()).device
    with torch.inference_mode():
        vertical = network(whole_image(photograph)[None].to(device)).vertical
    return float(focal_length(vertical, torch.full_like(vertical, height))[0])


def read_photograph(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF data say. Raises InputError."""
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"cannot be opened: {error.strerror}", file=path, expected="an image") from error
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if pixels is None:
        raise InputError("cannot be decoded", file=path, expected="a JPEG, PNG or other image")
    return np.ascontiguousarray(pixels[:, :, ::-1])


def main(argv: list[str] | None = None, prog: str = "hmr-skel predict") -> int:
    """Predict SKEL parameters of the people in a photograph."""
    options = parse_options(PredictOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__)
    if len(options.boxes) % 4:
        raise InputError(f"{len(options.boxes)} numbers given", field="--boxes", expected="four per person")
    if not (math.isfinite(options.focal) and options.focal >= 0):
        raise InputError(f"{options.focal}", field="--focal", expected="a length above 0, px, or 0: not known")
    _check_names(options)
    photograph = read_photograph(options.image)
    height, width = photograph.shape[:2]
    boxes = np.array(options.boxes or [0, 0, width, height], np.float64).reshape(-1, 4)
    outside = (boxes[:, :2] >= [width, height]) | (boxes[:, 2:] <= 0)
    if outside.any():
        shown = boxes[outside.any(1)].tolist()
        raise InputError(f"{shown} shows nothing of the image", field="--boxes", expected=f"in {width} x {height} px")
    import torch

    from pipelines.files.body_models import BodyModels
    from train.evaluate.networks import open_network

    device = torch.device(one_device(options.device))
    camera = None if options.focal else options.camera
    network = open_network(options.checkpoint, options.which, device, camera=camera, patches=options.patches)
    skel = BodyModels(options.body_models).skel
    focal = options.focal or estimated_focal(photograph, network.camera)
    found = predict(network.model, photograph, boxes, focal, options.box_margin, network.patches)
    body = [torch.from_numpy(found[name]) for name in ("poses", "betas", "trans")]
    with torch.inference_mode():
        found["joints"] = skel(*body).joints.numpy()
    with _written(options.output, "--output"):
        np.savez(options.output, **found, focal=np.float32(focal))
    if options.overlay is not None:
        _write_overlay(options.overlay, photograph, skel, body, focal)
    if options.mesh is not None:
        _write_meshes(options.mesh, skel, *(value[:1] for value in body))
    for number, (x, y, z) in enumerate(found["trans"]):
        sys.stdout.write(f"person {number}: {z:.2f} m before the camera, {x:+.2f} m across, {y:+.2f} m down\n")
    return 0


def _check_names(options: PredictOptions) -> None:
    """Before anything long is done: each output has an ending that says what it is."""
    outputs = (
        ("--output", options.output, (".npz",)),
        ("--overlay", options.overlay, (".png", ".jpg", ".jpeg")),
        ("--mesh", options.mesh, (".obj",)),
    )
    for option, path, endings in outputs:
        if path is not None and path.suffix.lower() not in endings:
            expected = f"a name ending in {' or '.join(endings)}"
            raise InputError("cannot be written", file=path, field=option, expected=expected)


@contextmanager
def _written(path: Path, option: str) -> Iterator[None]:
    """Makes the folders above an output; what the system says against writing it becomes an InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path, field=option) from error


def _write_overlay(path: Path, photograph: np.ndarray, skel: SKEL, body: list, focal: float) -> None:
    import cv2

    from train.run.panels import draw_body

    picture, principal = photograph, np.array([photograph.shape[1], photograph.shape[0]]) / 2
    for person in np.argsort(-body[2][:, 2].numpy()):  # the farthest first
        picture = draw_body(picture, skel, *(value[person] for value in body), focal, principal)
    encoded = cv2.imencode(path.suffix, picture[:, :, ::-1])[1]
    with _written(path, "--overlay"):  # by cv2.imwrite a full disk could not be told from a name that it does not know
        path.write_bytes(encoded.tobytes())


def _write_meshes(path: Path, skel: SKEL, poses, betas, trans) -> None:
    out = skel(poses, betas, trans, skeleton_mesh=True)
    parts = (
        (path, out.vertices, skel.faces),
        (path.with_name(f"{path.stem}_skeleton.obj"), out.skeleton_vertices, skel.skeleton_faces),
    )
    for file, vertices, faces in parts:
        # The camera's y points down, a viewer's up: half a turn about x.
        lines = [f"v {x:.5f} {-y:.5f} {-z:.5f}" for x, y, z in vertices[0].tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
        with _written(file, "--mesh"):
            file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
