"""Mirrored parameters against the mirrored mesh, as the body gives them and as a shard holds them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
import written_shards

from fitting import SKEL, load_smpl
from fitting.body.keypoints import skel_keypoints
from fitting.body.mirror import COUNTERPART, MIRROR_SIGN, mirror_poses, mirror_trans
from fitting.demo_body import mirror_vertices
from pipelines.convert.conversion import convert_shard
from pipelines.convert.settings import ConversionSettings, CropSettings, FitSettings
from pipelines.convert.sharing import bodies_of_process
from pipelines.draw.warp import warp
from pipelines.plan.planning import find_label_files, plan_shards
from pipelines.read.images import open_images
from schemas import HMR_SKEL, check_schema, columns_to_table, table_to_columns


def test_mirrored_parameters_give_the_mirrored_mesh():
    skel = SKEL.demo(torch.float64)
    generator = torch.Generator().manual_seed(0)
    poses = 0.6 * torch.randn(6, 46, generator=generator, dtype=torch.float64)
    betas = torch.randn(6, 10, generator=generator, dtype=torch.float64)
    trans = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    out = skel(poses, betas, trans)
    mirrored = skel(mirror_poses(poses), betas, mirror_trans(trans))
    expected = mirror_trans(out.vertices)[:, torch.as_tensor(mirror_vertices())]
    torch.testing.assert_close(mirrored.vertices, expected, atol=1e-6, rtol=0)


def test_mirroring_twice_is_nothing():
    poses = torch.randn(4, 46)
    assert torch.equal(mirror_poses(mirror_poses(poses)), poses)
    assert (COUNTERPART[COUNTERPART] == range(46)).all() and (MIRROR_SIGN[COUNTERPART] == MIRROR_SIGN).all()


WIDTH, HEIGHT = 320, 240
CAMERA = np.array([[400.0, 0, 130], [0, 400, 125], [0, 0, 1]])  # the principal point is not the image's middle


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """One person of a shard as stock webdataset reads it, its Parquet metadata, and the photograph."""
    folder = tmp_path_factory.mktemp("mirrored")
    rng = np.random.default_rng(3)
    grey = cv2.resize(rng.integers(0, 256, (30, 40), dtype=np.uint8), (WIDTH, HEIGHT))
    photograph = np.repeat(grey[..., None], 3, axis=2)  # JPEG halves the resolution of colour
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), photograph)
    poses = rng.normal(0, 0.3, (1, 72)).astype(np.float32)
    poses[:, 0] += np.pi
    labels = {"pose_cam": poses, "shape": rng.normal(0, 0.5, (1, 10)), "trans_cam": [[0.3, 0.1, 4.0]]}
    labels |= {"imgname": np.array(["a.png"]), "center": [[170.0, 118.0]], "scale": [0.6]}
    labels |= {"cam_int": CAMERA[None], "gtkps": np.ones((1, 44, 3))}
    np.savez(folder / "set-release.npz", **labels)
    files = find_label_files([str(folder / "set-release.npz")], with_images=True)
    [spec] = plan_shards(files, open_images(str(folder / "images")), 10)
    settings = ConversionSettings(str(folder), crop=CropSettings(crop_size=96, jpeg_quality=100))
    stats = convert_shard(spec, settings, bodies_of_process(FitSettings(device="cpu")))
    assert stats["samples"] == 1
    [found] = wds.WebDataset(str(folder / "000000.tar"), shardshuffle=False).decode("rgb8")
    metadata = pq.read_schema(folder / "000000.parquet").metadata
    return found, metadata, photograph


def test_a_shard_holds_the_mirrored_parameters(sample):
    """As its schema says it: mesh, pixels, keypoints and crop of the flipped photograph, from stored numbers alone."""
    found, metadata, photograph = sample
    stored = {name: torch.as_tensor(values)[None].double() for name, values in found["npz"].items()}
    skel = SKEL.demo(torch.float64)
    out = skel(stored["poses"], stored["betas"], stored["trans"])
    mirrored = skel(stored["mirrored_poses"], stored["betas"], stored["mirrored_trans"])
    pairs = torch.as_tensor(mirror_vertices())
    torch.testing.assert_close(mirrored.vertices, out.vertices[:, pairs] * torch.tensor([-1, 1, 1]), atol=1e-6, rtol=0)

    camera, flipped = found["npz"]["cam_int"].astype(float), found["npz"]["cam_int"].astype(float)
    flipped[0, 2] = WIDTH - camera[0, 2]
    pixels, pixels_mirrored = (project(o.vertices[0].numpy(), c) for o, c in ((out, camera), (mirrored, flipped)))
    expected = pixels[pairs] * [-1, 1] + [WIDTH, 0]
    assert np.abs(pixels_mirrored - expected).max() < 1e-3

    order = json.loads(metadata[b"mirrored_keypoints"])
    ids = load_smpl.demo().vertex_joint_selector.extra_joints_idxs
    (points, sure), (points_mirrored, _) = (skel_keypoints(o.vertices, ids) for o in (out, mirrored))
    assert sure.sum() > 5
    difference = (points_mirrored - points[:, order] * torch.tensor([-1, 1, 1])).norm(dim=2)[0]
    assert difference[sure > 0].max() < 0.01  # left and right keypoints are not quite each other's mirror vertices

    (a, _, b), size = found["npz"]["crop_affine"][0].astype(float), found["json"]["crop_size"][0]
    affine = found["npz"]["crop_affine"].astype(float)
    affine[0, 2] = size - a * WIDTH - b
    again = warp(np.ascontiguousarray(photograph[:, ::-1]), affine, size)[:, :, ::-1]
    assert np.abs(again.astype(int) - found["jpg"][:, ::-1]).mean() < 1
    assert np.abs(again.astype(int) - found["jpg"]).mean() > 20


def project(points, camera):
    seen = points @ camera.T
    return seen[:, :2] / seen[:, 2:]


def test_shards_of_before_are_read_without_them():
    columns = written_shards.label_columns(3)
    kept = [field for field in HMR_SKEL if not field.name.startswith("mirrored")]
    older = pa.schema(kept, metadata={**HMR_SKEL.metadata, b"version": b"1.0"})
    table = columns_to_table(older, columns)
    check_schema(table.schema, HMR_SKEL, "x.parquet")
    assert "mirrored_poses" not in table_to_columns(table)
