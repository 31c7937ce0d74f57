"""One model per device, whoever asks: real processes, with a stand-in for the models where time counts."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from stand_in_bodies import FIT_S, fit, stand_in

from fitting.body.limits import HUMAN_LIMITS
from pipelines.build_hmr_skel import main
from pipelines.convert.bodies import LoadedBodies
from pipelines.convert.settings import FitSettings
from pipelines.convert.sharing import SharedBodies, bodies_of_process
from schemas import InputError


def log(folder):
    """device, pid, began, ended of every fit"""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [(device, int(pid), float(began), float(ended)) for device, pid, began, ended in lines]


def worker(folder, lines):
    """A process that fits on the devices of this folder."""
    tests = Path(__file__).parents[2]
    head = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent)]}\nfrom stand_in_bodies import fit, stand_in\n"
    return subprocess.Popen([sys.executable, "-c", head + lines, str(folder)])


def test_one_process_per_device_however_many_workers(tmp_path):
    """Three processes with two threads each on two devices: two owners, one fit at a time on each, shared."""
    lines = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "for device in ('gpu:0', 'gpu:1'):\n"
        "    fit(stand_in(sys.argv[1], [device]), 1)\n"
        "bodies = stand_in(sys.argv[1], ['gpu:0', 'gpu:1'])\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    list(pool.map(lambda _: fit(bodies, 2), range(8)))\n"
        "while len(open(sys.argv[1] + '/log').readlines()) < 30:\n"  # owners end with the worker that started them
        "    import time; time.sleep(0.02)\n"
    )
    workers = [worker(tmp_path, lines) for _ in range(3)]
    assert [process.wait(120) for process in workers] == [0, 0, 0]
    fits = log(tmp_path)
    assert len(fits) == 30
    assert len({(device, pid) for device, pid, _, _ in fits}) == 2
    shares = Counter(device for device, *_ in fits)
    assert min(shares.values()) >= 8
    for device in shares:
        spans = sorted((began, ended) for where, _, began, ended in fits if where == device)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


def test_devices_take_turns_and_whoever_comes_takes_a_free_one(tmp_path):
    devices = [f"gpu:{number}" for number in range(3)]
    bodies, others = stand_in(tmp_path, devices), stand_in(tmp_path, devices)
    taken = Counter()
    for _ in range(9):
        with bodies._lease() as device:
            taken[device] += 1
    assert taken == dict.fromkeys(devices, 3)
    for _ in range(3):
        with bodies._lease() as first, others._lease() as second, bodies._lease() as third:
            assert {first, second, third} == set(devices)


def test_results_time_and_errors_come_back(tmp_path):
    bodies, counts, spent = stand_in(tmp_path), [], {}
    poses, found = fit(bodies, 3, progress=counts.append, spent=spent.__setitem__)
    assert np.array_equal(found["poses"], poses + 1) and found["poses"].dtype == np.float32
    assert found["converged"].tolist() == [True] * 3
    assert counts == [3]
    [(device, seconds)] = spent.items()
    assert device.endswith(" gpu:0") and seconds >= 3 * FIT_S
    points, sure = bodies.keypoints("neutral", poses, np.zeros((3, 10)))
    assert points.shape == (3, 44, 3) and sure.shape == (44,)
    with pytest.raises(InputError) as caught:
        fit(bodies, 1, "nobody")
    assert str(caught.value) == "models, field 'gender': no such body; expected another"
    with pytest.raises(ZeroDivisionError, match="a bug"):
        fit(bodies, 1, "bug")
    fit(bodies, 1)
    assert len({pid for _, pid, _, _ in log(tmp_path)}) == 1


def test_an_owner_that_dies_is_replaced_and_people_count_once(tmp_path):
    bodies, counts = stand_in(tmp_path), []
    poses, found = fit(bodies, 4, "deadly", progress=counts.append)
    assert np.array_equal(found["poses"], poses + 1)
    assert counts == [4]
    [(_, pid, _, _)] = log(tmp_path)
    os.kill(pid, signal.SIGKILL)
    fit(bodies, 1)
    assert len({pid for _, pid, _, _ in log(tmp_path)}) == 2


def test_a_killed_worker_leaves_its_device_to_others(tmp_path):
    """It has started the device's owner, which ends with it, and is killed while it holds the device."""
    process = worker(tmp_path, "fit(stand_in(sys.argv[1]), 1)\nfit(stand_in(sys.argv[1]), 50_000)\n")
    while not (tmp_path / "begun").exists() or len(begun := (tmp_path / "begun").read_text().split()) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    bodies, first = stand_in(tmp_path), int(begun[0])
    process.kill()
    process.wait()
    fit(bodies, 1)
    assert len({pid for _, pid, _, _ in log(tmp_path)}) == 2
    ended = time.monotonic() + 60  # for a test that fails instead of waiting for ever
    while alive(first):
        assert time.monotonic() < ended
        time.sleep(0.05)


def same(a, b):
    return np.array_equal(a, b, equal_nan=b.dtype.kind == "f")


def alive(pid):
    """Not gone, nor a zombie for whom nobody has waited."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_real_models_give_what_a_process_of_its_own_gives(tmp_path, model_directory):
    limits = tuple((0.5 * low, 0.5 * high) for low, high in HUMAN_LIMITS.tolist())  # the root has none: infinities
    settings = FitSettings(str(model_directory), limits=limits)
    rng = np.random.default_rng(0)
    poses, betas = rng.normal(0, 0.2, (5, 72)).astype(np.float32), rng.normal(0, 0.5, (5, 10)).astype(np.float32)
    trans = np.zeros((5, 3), np.float32)
    shared = SharedBodies(
        settings, ["cpu:0"], folder=tmp_path
    )  # torch's other name of the CPU stands for an accelerator
    alone = LoadedBodies(settings, "cpu")
    a = shared.fit("neutral", poses, betas, trans, lambda people: None)
    b = alone.fit("neutral", poses, betas, trans, lambda people: None)
    assert a.keys() == b.keys() and all(same(a[name], b[name]) for name in b)
    a, b = (bodies.keypoints("neutral", poses, betas) for bodies in (shared, alone))
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_a_job_with_several_processes_uses_one_device(tmp_path, model_directory):
    """`cpu:0` stands for an accelerator: the same shards as on the CPU, and the run's record knows one device."""
    rng = np.random.default_rng(0)
    labels = {"pose_cam": rng.normal(0, 0.1, (6, 72)), "shape": rng.normal(0, 0.5, (6, 10))}
    np.savez(tmp_path / "set-release.npz", **labels)
    common = ["--annotations", str(tmp_path / "set-release.npz"), "--images", "none", "--samples-per-shard", "2"]
    common += ["--body-models", str(model_directory), "--threads", "1", "--quiet"]
    assert main([*common, "--output", str(tmp_path / "a"), "--device", "cpu"]) == 0
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    assert main([*common, *workers, "--output", str(tmp_path / "b"), "--device", "cpu:0"]) == 0
    for path in sorted((tmp_path / "a").glob("0*")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    alone, shared = (json.loads((tmp_path / name / "run.json").read_text()) for name in "ab")
    for run, name in ((alone, f" cpu of process {os.getpid()}"), (shared, " cpu:0")):
        [(device, facts)] = run["devices"].items()
        assert device.endswith(name)
        assert 0 < facts["busy_share"] == run["busy_share"] <= 1
        assert run["shards_made"] == 3


def test_what_a_process_fits_with(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    shared = bodies_of_process(FitSettings(device="cuda"), "a run")
    assert isinstance(shared, SharedBodies) and shared.devices == ["cuda:0", "cuda:1", "cuda:2"]
    assert bodies_of_process(FitSettings(device="auto"), "a run") is shared
    assert bodies_of_process(FitSettings(device="cuda"), "another run") is not shared
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    own = bodies_of_process(FitSettings(device="auto"), "a run")
    assert own is bodies_of_process(FitSettings(device="cpu"), "another run")
    assert isinstance(own, LoadedBodies)
