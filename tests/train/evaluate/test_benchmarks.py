"""The command on a rendered benchmark: every layout, protocol and table, with a network of the published size."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from seeded_weights import seeded_state

from pipelines.demo.benchmark import GRADES, write_benchmark
from schemas import InputError
from train.benchmarks.known import BENCHMARKS, open_benchmark
from train.benchmarks.labels import read_benchmark
from train.config import NetworkConfig
from train.evaluate import benchmark_run, networks
from train.evaluate.attention import attention_maps
from train.evaluate.command import main
from train.evaluate.tables import Result, main_tables, stage_table
from train.network.checkpoints import save_checkpoint
from train.network.flnet import FieldOfView
from train.network.model import SKELCF

ALL = [name for name in BENCHMARKS if name.startswith("demo-")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    assert write_benchmark(folder, images=1, draft=True) > 8
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file of the released layout with seeded ViT-B weights."""
    model = SKELCF(NetworkConfig(backbone="b"))
    model.load_state_dict(seeded_state(model.state_dict()))
    path = tmp_path_factory.mktemp("weights") / "seeded.pt"
    torch.save({"ema_model": {f"model.{name}": value for name, value in model.state_dict().items()}}, path)
    return path


@pytest.fixture
def evaluated(data, tmp_path, capsys):
    def run(*arguments, output=True):
        shared = ["--data", str(data), "--device", "cpu", "--workers", "0", "--batch", "4"]
        shared += ["--output", str(tmp_path / "out")] if output else []
        assert main([*map(str, arguments), *shared]) == 0
        document = json.loads((tmp_path / "out/evaluation.json").read_text()) if output else {}
        return document, capsys.readouterr().out

    return run


def results(document: dict, **wanted) -> list[dict]:
    return [r for r in document["results"] if all(r[name] == value for name, value in wanted.items())]


def test_three_layouts_tell_of_the_same_people(data):
    for grade in GRADES:
        a, b, c = (read_benchmark(data / f"demo_{grade}_{layout}.npz") for layout in "abc")
        assert [people.layout for people in (a, b, c)] == ["A", "B", "C"] and len(a) == len(b) == len(c) > 0
        np.testing.assert_allclose(a.label_box, b.label_box, rtol=1e-6)
        np.testing.assert_allclose(a.label_box, c.label_box, rtol=1e-6)
        np.testing.assert_array_equal(a.poses, b.poses)
        np.testing.assert_array_equal(a.keypoints_2d, c.keypoints_2d)
        assert a.imgname.tolist() == b.imgname.tolist() == c.imgname.tolist()
        assert all((data / "images" / name).is_file() for name in a.imgname)


def test_seeded_weights_on_every_layout(evaluated, released, caplog):
    looks = ["--layers", "--attention", "1", "--worst", "1"]
    document, told = evaluated(released, "mean", "--benchmark", *ALL, "--limit", "2", *looks)
    assert f"{3 * len(ALL)} pictures" in told  # worst cases of both methods, and attention
    assert "no focal-length network" in caplog.text
    assert max(map(len, told.splitlines()[:-1])) <= 80 and "Human3.6M" in told and "@0.05" in told
    assert set(document["benchmarks"]) == set(ALL)
    for name in ALL:
        final = results(document, benchmark=name, method="seeded", stage="final", variant="published")
        assert len(final) == 1 and final[0]["people"] == document["benchmarks"][name]["people"]
        figures = ["pck_0.05"] if name == "demo-keypoints" else ["mpjpe_mm", "pa_mpjpe_mm"]
        for figure in figures:
            value = final[0][figure]
            mean = value["mean"] if isinstance(value, dict) else value
            assert np.isfinite(mean) and (not isinstance(value, dict) or value["low"] <= mean <= value["high"])
        stages = {r["stage"] for r in results(document, benchmark=name, method="seeded")}
        assert {"coarse", "layer 1", "layer 6", "last, shift 1", "layer 5, last shift"} <= stages
    last, sixth = (results(document, benchmark=ALL[0], method="seeded", stage=s)[0] for s in ("final", "layer 6"))
    assert last["mpjpe_mm"] == sixth["mpjpe_mm"]
    moved = results(document, benchmark=ALL[0], method="seeded", stage="last, shift 1")[0]
    assert moved["mpjpe_mm"] == last["mpjpe_mm"] and moved["kpl2"] != last["kpl2"]  # only the camera differs


def test_rows_of_people_and_pictures(evaluated, released, data, tmp_path):
    document, _ = evaluated(released, "--benchmark", "demo-yoga", "--attention", "1", "--worst", "1", "--focal", "500")
    table = pq.read_table(tmp_path / "out/people.parquet").to_pydict()
    people = read_benchmark(data / "demo_yoga_a.npz")
    published = [n for n, variant in enumerate(table["variant"]) if variant == "published"]
    assert [table["row"][n] for n in published] == list(range(len(people)))
    mean = results(document, variant="published")[0]["mpjpe_mm"]["mean"]
    assert np.mean([table["mpjpe_mm"][n] for n in published]) == pytest.approx(mean)
    assert all(len(q) == 46 and np.isfinite(t).all() for q, t in zip(table["poses"], table["trans"], strict=True))
    sheet, maps = (cv2.imread(str(tmp_path / f"out/{kind}_demo-yoga_seeded.png")) for kind in ("worst", "attention"))
    assert sheet.shape[1] > sheet.shape[0] > 200
    assert maps.shape == (22 + 3 * 128, 7 * 96, 3) and maps[30:, 96:].std() > 10


def test_attention_is_a_distribution_over_the_image():
    model = SKELCF(NetworkConfig(backbone="tiny", refinement_layers=3, looped=True)).eval()
    maps = attention_maps(model, torch.randn(2, 3, 256, 256), torch.zeros(2, 3))
    assert maps.shape == (2, 3, 3, 16, 12)
    np.testing.assert_allclose(maps.sum((3, 4)), 1, atol=1e-5)
    hsmr = SKELCF(NetworkConfig("tiny", architecture="hsmr", camera=False, coarse=False, refinement_layers=2)).eval()
    assert attention_maps(hsmr, torch.randn(1, 3, 256, 256), torch.zeros(1, 3)).shape == (1, 2, 1, 16, 12)


def test_two_stages_come_close_to_the_truth_they_are_given(evaluated, data, tmp_path):
    truth = np.load(data / "demo_yoga_a.npz")
    parts = {"global_orient_axis_angle": truth["pose_cam"][:, :3], "body_pose_axis_angle": truth["pose_cam"][:, 3:]}
    demo = np.array(parts | {"betas": truth["shape"]}, dtype=object)
    np.savez(tmp_path / "camerahmr.npz", pred_smpl_parms=demo, verts=np.zeros(1), pred_cam_t=np.zeros(1))
    files = ["--two-stage", f"demo-yoga={data / 'demo_yoga_a.npz'}", f"demo-moyo={tmp_path / 'camerahmr.npz'}"]
    document, told = evaluated("--benchmark", "demo-yoga", "demo-moyo", *files)
    names = "demo_yoga_a + fit", "camerahmr + fit"
    for result, method in zip(results(document, variant="clean"), names, strict=True):
        assert result["method"] == method and result["mpjpe_mm"]["mean"] < 10 and result["seconds_per_person"] > 0
        assert result["reality"]["all_beyond_0_deg"] == 0  # the fit holds the limits
    assert "camerahmr + fit" in told


def test_the_first_people_alone_are_fitted_as_the_file_has_them(evaluated, data, tmp_path):
    files, figures = f"demo-yoga={data / 'demo_yoga_a.npz'}", []
    for more in ([], ["--limit", "2"]):
        evaluated("--benchmark", "demo-yoga", "--two-stage", files, *more)
        rows = pq.read_table(tmp_path / "out/people.parquet").to_pylist()
        figures.append([r["mpjpe_mm"] for r in rows if r["variant"] == "published"])
    assert len(figures[1]) == 2 and figures[1] == pytest.approx(figures[0][:2], abs=0.2)


def test_estimates_of_other_people_are_refused(evaluated, data, tmp_path):
    truth = dict(np.load(data / "demo_yoga_a.npz"))
    few = {name: value[:1] for name, value in truth.items()}
    np.savez(tmp_path / "few.npz", **few)
    with pytest.raises(InputError, match="1 rows; expected"):
        evaluated("--benchmark", "demo-yoga", "--two-stage", tmp_path / "few.npz")
    truth["imgname"] = np.array(["other.jpg"] * len(truth["imgname"]))
    np.savez(tmp_path / "other.npz", **truth)
    with pytest.raises(InputError, match=r"row 0, field 'imgname': other\.jpg"):
        evaluated("--benchmark", "demo-yoga", "--two-stage", tmp_path / "other.npz")


class Wide(torch.nn.Module):
    """A focal-length network that sees a right angle everywhere."""

    def forward(self, image):
        return FieldOfView(torch.full((len(image), 2), np.pi / 2), image.new_zeros(len(image), 720))


def test_the_focal_length_is_the_camera_networks_and_never_the_labels(evaluated, released, monkeypatch, tmp_path, data):
    def kpl2(*more):
        document, _ = evaluated(released, "--benchmark", "demo-perspective", *more)
        return results(document, variant="published")[0]["kpl2"]

    monkeypatch.setattr(networks, "_camera", lambda *_: Wide())
    seen = kpl2()
    height = cv2.imread(str(data / "images/perspective/0000.jpg")).shape[0]
    assert seen == pytest.approx(kpl2("--focal", height / 2), rel=1e-4)
    assert seen != pytest.approx(kpl2("--focal", height), rel=1e-3)


class Colours(torch.nn.Module):
    """A focal-length network that goes by the picture's red."""

    def forward(self, image):
        return FieldOfView(1 + 0.3 * torch.tanh(image[:, :1].mean((2, 3))).expand(-1, 2), image.new_zeros(0))


@pytest.mark.parametrize("crops", ["ours", "released"])
def test_clean_rows_are_without_the_quirks_of_what_networks_see(evaluated, tmp_path, monkeypatch, crops):
    model = SKELCF(NetworkConfig(backbone="tiny", refinement_layers=1))
    model.crops = crops
    save_checkpoint(tmp_path / "small.pt", model)
    monkeypatch.setattr(networks, "_camera", lambda *_: Colours())
    names, figures = ["demo-moyo", "demo-h36m", "demo-everyday"], ("variant", "trans", "mpjpe_mm", "pve_mm")
    cheap = ["--limit", "2", "--worst", "0"]

    def people(*more):
        evaluated(tmp_path / "small.pt", "--which", "model", "--benchmark", *names, *cheap, *more)
        rows = pq.read_table(tmp_path / "out/people.parquet").to_pylist()
        return {name: [[r[f] for f in figures] for r in rows if r["benchmark"] == name] for name in names}

    both, without = people(), people("--without", "all", "--no-clean")
    for name in names:
        published, clean = ([r[1:] for r in both[name] if r[0] == variant] for variant in ("published", "clean"))
        np.testing.assert_array_equal(
            np.concatenate([np.hstack(r) for r in clean]), np.concatenate([np.hstack(r[1:]) for r in without[name]])
        )
        same = [a[0] == b[0] for a, b in zip(published, clean, strict=True)]  # where they stand
        assert all(same) if name == "demo-everyday" else not any(same)


def test_what_is_missing_is_told_before_anything_is_measured(evaluated, data, tmp_path, monkeypatch):
    files = dict(np.load(data / "demo_yoga_a.npz"))
    files["imgname"][-1] = "yoga/absent.jpg"
    np.savez(tmp_path / "labels.npz", **files)
    monkeypatch.setattr(benchmark_run, "measure", lambda *_: pytest.fail("measured"))
    estimates = ["--two-stage", f"demo-yoga={data / 'demo_everyday_a.npz'}"]
    with pytest.raises(InputError, match="rows; expected"):
        evaluated("mean", "--benchmark", "demo-everyday", "demo-yoga", *estimates)
    with pytest.raises(
        InputError, match=rf"labels.npz, row {len(files['imgname']) - 1}, field 'imgname': no image 'yoga"
    ):
        evaluated("mean", "--benchmark", "demo-everyday", f"demo-yoga={tmp_path / 'labels.npz'}")


def test_boxes_beside_their_images_are_told(evaluated, data, tmp_path, caplog):
    files = dict(np.load(data / "demo_yoga_a.npz"))
    files["center"][-1] += 10000
    np.savez(tmp_path / "labels.npz", **files)
    evaluated("mean", "--benchmark", f"demo-yoga={tmp_path / 'labels.npz'}", "--worst", "0")
    assert f"boxes of 1 people lie outside their images, that of row {len(files['center']) - 1}" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mean", "--benchmark", "nobody"], "no benchmark 'nobody'"),
        (["mean", "--benchmark", "emdb"], "no label file of EMDB"),
        (["mean", "--benchmark", "demo-yoga", "demo-yoga"], "the same benchmark twice"),
        (["--benchmark", "demo-yoga"], "nothing to measure"),
        (["mean", "--benchmark", "demo-yoga", "--without", "x"], "no quirk 'x'"),
        (["mean", "--benchmark", "demo-yoga", "--two-stage", "moyo=x.npz"], "no benchmark 'moyo'"),
        (["mean", "mean"], "2 checkpoints given"),
        (["mean", "--two-stage", "x.npz"], "no benchmark given"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(evaluated, arguments, told):
    with pytest.raises(InputError, match=told):
        evaluated(*arguments)


def test_a_variant_stands_below_its_method_although_not_every_benchmark_has_it():
    def result(benchmark, method, variant, mm):
        return Result(benchmark, method, variant, "final", {"mpjpe_mm": mm, "pa_mpjpe_mm": mm, "pve_mm": mm}, 0.0)

    told = main_tables(
        {name: BENCHMARKS[name] for name in ("demo-yoga", "demo-moyo")},
        [
            *(result("demo-yoga", method, "published", mm) for method, mm in (("one", 123456.7), ("two", 20.0))),
            *(result("demo-moyo", "one", variant, mm) for variant, mm in (("published", 11.0), ("clean", 12.0))),
            *(result("demo-moyo", "two", variant, mm) for variant, mm in (("published", 21.0), ("clean", 22.0))),
        ],
    )
    rows = [line.split() for line in told.splitlines()[2:]]
    assert all(len(row) in (4, 7) for row in rows)
    assert [(row[0], row[-1]) for row in rows] == [
        ("one", "11.0"),
        ("clean", "12.0"),
        ("two", "21.0"),
        ("clean", "22.0"),
    ]


def test_shifts_of_the_camera_are_told_where_pictures_have_labels():
    def rows(**shares):
        stages = ("final", "layer 1", "last, shift 1", "layer 1, last shift")
        numbers = {"mpjpe_mm": 1.0, **shares}
        return stage_table("x", [Result("x", "m", "published", stage, numbers, 0.0) for stage in stages]).row_count

    assert rows() == 2 and rows(**{"pck_0.05": 0.5, "pck_0.1": 0.6}) == 4


def test_a_network_that_does_not_look_has_no_picture_of_it(evaluated, tmp_path, caplog):
    save_checkpoint(tmp_path / "small.pt", SKELCF(NetworkConfig(backbone="tiny", refinement_layers=0)))
    more = ["--which", "model", "--focal", "500", "--limit", "1", "--worst", "0", "--attention", "1"]
    _, told = evaluated(tmp_path / "small.pt", "--benchmark", "demo-yoga", *more)
    assert "small: no layers that look at the image" in caplog.text
    assert "people.parquet, 0 pictures" in told and not list((tmp_path / "out").glob("*.png"))


def test_a_benchmark_by_file(data):
    opened = open_benchmark(f"mine={data / 'demo_occluded_c.npz'}", data)
    assert opened.benchmark.protocol == "h36m" and opened.benchmark.title == "mine"
    with pytest.raises(InputError, match="its keys are those of layout B"):
        open_benchmark(f"3dpw={data / 'demo_yoga_b.npz'}", data)
