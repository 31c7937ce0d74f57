"""One model per device, whoever asks: real server processes, with a stand-in for the models where time counts."""

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

from fitting.body.kinematics import JOINT_LIMITS
from pipelines.build_hmr_skel import main
from pipelines.convert.bodies import LoadedBodies, bodies_of_process
from pipelines.convert.sharing import SharedBodies
from pipelines.write.progress import print_summary
from pipelines.write.run_record import write_run
from schemas import InputError

SETTINGS = {"body_models": "demo", "gender": "male", "batch_size": None, "limits": "bounds", "threads": 1}

FAKE = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from pipelines.convert.device_server import serve
from schemas import InputError

class Bodies:
    '''Tells in its results which process fitted where, and in a file when.'''

    def fit(self, gender, poses, betas, trans, progress):
        if gender == "nobody":
            raise InputError("no such body", file="models", field="gender", expected="another")
        if gender == "bug":
            raise ZeroDivisionError("a bug")
        began = time.monotonic()
        time.sleep(0.02 * len(poses))
        progress(len(poses))
        if gender == "deadly" and not Path(sys.argv[1] + ".died").exists():
            Path(sys.argv[1] + ".died").touch()
            os._exit(1)
        with open(folder / "log", "a") as log:
            log.write(f"{device} {os.getpid()} {began} {time.monotonic()}\\n")
        return {"poses": poses + 1, "converged": np.ones(len(poses), bool), "iterations": np.full(len(poses), 7)}

    def keypoints(self, gender, poses, betas):
        return np.ones((len(poses), 44, 3)), np.ones(44)

folder = Path(sys.argv[1]).parent
device = json.loads(sys.argv[2])["device"]
serve(Path(sys.argv[1]), Bodies(), linger=0.3)
"""


def fake(folder, devices=("gpu:0",), **changed):
    return SharedBodies(devices, SETTINGS | changed, Path(folder), (sys.executable, "-c", FAKE))


def fit(bodies, people, gender="neutral", **more):
    poses = np.arange(people * 72, dtype=np.float32).reshape(people, 72)
    zeros = np.zeros((people, 10), np.float32), np.zeros((people, 3), np.float32)
    return poses, bodies.fit(gender, poses, *zeros, more.pop("progress", lambda count: None), **more)


def log(folder):
    """device, pid, began, ended of every fit"""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [(device, int(pid), float(began), float(ended)) for device, pid, began, ended in lines]


def test_one_process_per_device_however_many_workers(tmp_path):
    """Three processes with two threads each on two devices: two servers, one fit at a time on each, shared evenly."""
    worker = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from test_shared_bodies import fake, fit\n"
        "bodies = fake(sys.argv[2], ['gpu:0', 'gpu:1'])\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    list(pool.map(lambda _: fit(bodies, 2), range(8)))\n"
    )
    command = [sys.executable, "-c", worker, str(Path(__file__).parent), str(tmp_path)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in workers] == [0, 0, 0]
    fits = log(tmp_path)
    assert len(fits) == 24
    assert len({(device, pid) for device, pid, _, _ in fits}) == 2
    shares = Counter(device for device, *_ in fits)
    assert min(shares.values()) >= 8
    for device in shares:
        spans = sorted((began, ended) for where, _, began, ended in fits if where == device)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


def test_results_progress_and_time_come_back(tmp_path):
    bodies, counts, spent = fake(tmp_path), [], {}
    poses, found = fit(bodies, 3, progress=counts.append, spent=spent.__setitem__)
    assert np.array_equal(found["poses"], poses + 1) and found["poses"].dtype == np.float32
    assert found["converged"].tolist() == [True] * 3 and found["iterations"].tolist() == [7] * 3
    assert sum(counts) == 3
    [(device, seconds)] = spent.items()
    assert device.endswith(" gpu:0") and 0.06 <= seconds < 1
    points, sure = bodies.keypoints("neutral", poses, np.zeros((3, 10)))
    assert points.shape == (3, 44, 3) and sure.shape == (44,)


def test_errors_name_their_cause_and_the_server_lives_on(tmp_path):
    bodies = fake(tmp_path)
    with pytest.raises(InputError) as caught:
        fit(bodies, 1, "nobody")
    assert str(caught.value) == "models, field 'gender': no such body; expected another"
    with pytest.raises(RuntimeError, match=r"gpu:0 failed(.|\n)*ZeroDivisionError: a bug"):
        fit(bodies, 1, "bug")
    fit(bodies, 1)
    fit(bodies, 1)
    assert len({pid for _, pid, _, _ in log(tmp_path)}) == 1
    with pytest.raises(RuntimeError, match=r"does not start; see .*\.log"):
        fit(SharedBodies(["gpu:0"], SETTINGS, tmp_path, (sys.executable, "-c", "1 / 0")), 1)


def test_a_server_that_dies_is_started_again_and_people_count_once(tmp_path):
    bodies, counts = fake(tmp_path), []
    poses, found = fit(bodies, 4, "deadly", progress=counts.append)
    assert np.array_equal(found["poses"], poses + 1)
    assert sum(counts) == 4
    [(_, pid, _, _)] = log(tmp_path)
    os.kill(pid, signal.SIGKILL)
    fit(bodies, 1)
    assert len({pid for _, pid, _, _ in log(tmp_path)}) == 2


def test_a_killed_worker_leaves_its_device_and_the_last_one_ends_the_server(tmp_path):
    worker = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_shared_bodies import fake, fit\n"
        "fit(fake(sys.argv[2]), 1)\n"
        "fit(fake(sys.argv[2]), 500)\n"  # 10 s
    )
    process = subprocess.Popen([sys.executable, "-c", worker, str(Path(__file__).parent), str(tmp_path)])
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
        assert process.poll() is None
    [(_, pid, _, _)] = log(tmp_path)
    time.sleep(0.2)
    process.kill()
    process.wait()
    os.kill(pid, signal.SIGKILL)  # it would fit for its dead client to the end
    fit(fake(tmp_path), 1)
    servers = {pid for _, pid, _, _ in log(tmp_path)}
    assert len(servers) == 2
    ended = time.monotonic() + 20
    while any(map(alive, servers)):
        assert time.monotonic() < ended
        time.sleep(0.05)
    assert not list(tmp_path.glob("*.socket"))


def alive(pid):
    """Not gone, nor a zombie for whom nobody has waited."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_real_models_give_what_a_process_of_its_own_gives(tmp_path, model_directory):
    limits = [(0.5 * low, 0.5 * high) for low, high in JOINT_LIMITS.tolist()]  # the root has none: infinities
    settings = SETTINGS | {"body_models": str(model_directory), "fit_options": {"joint_limits": limits}}
    rng = np.random.default_rng(0)
    poses, betas = rng.normal(0, 0.2, (5, 72)).astype(np.float32), rng.normal(0, 0.5, (5, 10)).astype(np.float32)
    trans = np.zeros((5, 3), np.float32)
    shared = SharedBodies(["cpu:0"], settings, tmp_path)  # torch's other name of the CPU stands for an accelerator
    alone = LoadedBodies(**settings, device="cpu")
    a = shared.fit("neutral", poses, betas, trans, lambda people: None)
    b = alone.fit("neutral", poses, betas, trans, lambda people: None)
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in b)
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


def test_which_devices_an_option_means(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    shared = bodies_of_process("demo", "male", "cuda", None, "bounds", 1)
    assert isinstance(shared, SharedBodies) and shared.devices == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert bodies_of_process("demo", "male", "auto", None, "bounds", 1) is bodies_of_process(
        "demo", "male", "cpu", None, "bounds", 1
    )


def test_the_record_of_a_run_tells_busy_shares(tmp_path, capsys):
    def shard(name, began, ended, fit, waited=0.0):
        seconds = {"began": began, "ended": ended, "all": ended - began, "fit": fit}
        return {"shard": name, "rows": 10, "seconds": seconds | {"device_wait": waited, "images": 1.0}}

    shards = [shard("000000", 100.0, 104.0, {"a cuda:0": 3.0}), {"shard": "000003", "rows": 5}]
    shards += [shard("000001", 101.0, 108.0, {"a cuda:1": 5.0}, 2.0), shard("000002", 102.0, 110.0, {"a cuda:0": 4.0})]
    run = write_run(tmp_path, {"started": time.time() - 30}, shards)
    assert run == json.loads((tmp_path / "run.json").read_text())
    assert run["devices"] == {
        "a cuda:0": {"fit_s": 7.0, "busy_share": 0.7},
        "a cuda:1": {"fit_s": 5.0, "busy_share": 0.5},
    }
    assert run["busy_share"] == 0.6
    assert (run["worker_s"], run["device_wait_share"], run["image_wait_share"]) == (19.0, 0.1053, 0.1579)
    assert (run["rows_made"], run["rows_kept"], run["shards_kept"]) == (30, 5, 1)
    manifest = {"rows": 35, "samples": 0, "converged": 0, "rejects": {}, "shards": shards}
    print_summary(manifest, run, "out", 10.0)
    assert "60% of the time" in capsys.readouterr().out
    kept = write_run(tmp_path, {"started": time.time() - 30}, shards[1:2])
    assert (kept["devices"], kept["busy_share"]) == ({}, None)
    print_summary(manifest, kept, "out", 10.0)
    assert "of the time" not in capsys.readouterr().out
