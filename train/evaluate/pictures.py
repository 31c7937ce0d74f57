"""The people whom a method misses most, drawn over their images."""

from __future__ import annotations

import numpy as np
import torch

from pipelines.draw.sheet import Tile, contact_sheet
from train.benchmarks.images import read_benchmark_image
from train.benchmarks.known import Opened
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.measure import Measured
from train.evaluate.report import worst


def worst_cases(measured: Measured, opened: Opened, bodies: EvaluationBodies, count: int) -> np.ndarray | None:
    """A contact sheet, uint8 RGB, of `count` people, the worst first; None of a method that places nobody."""
    if measured.trans is None:
        return None
    skel, tiles = bodies.models.skel, []
    for n in worst(measured, count):
        row = measured.people[n]
        image = read_benchmark_image(opened.images.find(opened.people, row), opened.people, row)
        device = skel.v_template.device
        with torch.inference_mode():
            values = (torch.as_tensor(v[n], device=device)[None] for v in (measured.poses, measured.betas))
            out = skel(*values, torch.as_tensor(measured.trans[n], device=device)[None], skeleton_mesh=True)
        focal, (x, y) = float(measured.focal[n]), measured.principal[n]
        error = measured.errors.get("mpjpe_mm")
        told = "" if error is None else f"  {error[n]:.0f} mm"
        tiles.append(
            Tile(
                caption=f"row {opened.people.rows[row]} {opened.people.imgname[row]}{told}",
                image=image,
                cam_int=np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float64),
                crop_affine=np.eye(3)[:2],
                box_center=opened.people.center[row],
                box_size=float(opened.people.side[row]),
                vertices=out.vertices[0].double().cpu().numpy(),
                skeleton_vertices=out.skeleton_vertices[0].double().cpu().numpy(),
            )
        )
    return contact_sheet(tiles, skel.faces, skel.skeleton_faces)
