"""Killed, out of room, damaged: the same command finishes the job, and the bytes are those of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from forked_commands import Forks, is_alive

from pipelines.build_hmr_skel import main
from pipelines.files.lock import LOCK_FILE, OutputTaken, check_still_ours, output_lock
from pipelines.write.progress import failed_run, report_failure
from schemas import InputError

REPOSITORY = Path(__file__).parents[2]
PEOPLE = 10
KILLS = int(os.environ.get("HMR_SKEL_TEST_KILLS", "20"))
"""How often the job is killed at a random moment."""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks") / "errors")
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Two label files, together PEOPLE rows, one of them of a pose that cannot be used."""
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.1, (PEOPLE, 72)).astype(np.float32)
    poses[5, 7] = np.nan
    for name, rows in (("aic", slice(0, 6)), ("coco", slice(6, PEOPLE))):
        names = np.array([f"{name}/{i // 2}.jpg" for i in range(len(poses[rows]))])
        betas = rng.normal(0, 0.5, (len(names), 10)).astype(np.float32)
        np.savez(folder / f"{name}.npz", pose_cam=poses[rows], shape=betas, imgname=names)
    return folder


def arguments_of(labels, output, *more):
    always = ["--images", "none", "--samples-per-shard", "2", "--threads", "1", "--quiet", "--output", str(output)]
    return ["--annotations", str(labels / "*.npz"), *always, *more]


WHEN = ("run.json", "report.html")
"""Tell when a run was and what it took: they differ from run to run."""


def content(output):
    """All that must repeat."""
    files = (path for path in sorted(Path(output).rglob("*")) if path.is_file() and path.name not in WHEN)
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(labels, forks, tmp_path_factory):
    """The folder of a run that nothing disturbs, and the seconds that it takes."""
    output = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    assert forks.run(arguments_of(labels, output)) == 0
    return output, time.monotonic() - start


@pytest.fixture(scope="module")
def undisturbed(finished):
    """The bytes that every run must end with."""
    return content(finished[0])


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished data set."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


def test_killed_at_random_moments_the_job_ends_as_if_undisturbed(labels, forks, finished, undisturbed, tmp_path):
    seconds = finished[1]
    dice = random.Random(0)
    kills = rounds = 0
    moments = set()
    while kills < KILLS:
        output = tmp_path / str(rounds)
        rounds += 1
        while kills < KILLS:
            process = forks.start(arguments_of(labels, output))
            time.sleep(dice.uniform(0.02, 0.9) * seconds)
            if is_alive(process):
                os.kill(process, signal.SIGKILL)
            code = forks.exit_code()
            if code == 0:
                break
            assert code == -signal.SIGKILL
            kills += 1
            moments.add(tuple(sorted(path.name.partition(".tmp-")[0] for path in output.glob("*"))))
        assert forks.run(arguments_of(labels, output)) == 0
        assert content(output) == undisturbed, f"after {kills} kills"
    # How far a job comes by the clock is the machine's matter; that it was hit at more than one point is the test's.
    assert len(moments) > 1, "all kills came at the same point"


@pytest.mark.parametrize("renaming", [3, 9, 18])
def test_dead_between_two_steps_of_writing(labels, forks, undisturbed, tmp_path, renaming):
    """Plan and options, five shards of three files, rejects, dataset.json: dead before one of these gets its name."""
    assert forks.run(arguments_of(labels, tmp_path), die_at=renaming) == 77
    assert not (tmp_path / "dataset.json").exists()
    finished = len(list(tmp_path.glob("0*.tar")))
    assert finished == (renaming - 3) // 3
    kept = {path.name: path.stat().st_ino for path in tmp_path.glob("0*.tar")}
    assert forks.run(arguments_of(labels, tmp_path)) == 0
    assert content(tmp_path) == undisturbed
    assert all((tmp_path / name).stat().st_ino == inode for name, inode in kept.items()), "work was done twice"
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["shards_kept"], run["shards_made"]) == (finished, 5 - finished)


def test_one_worker_killed(labels, undisturbed, tmp_path):
    """Of two worker processes one is killed when the first shard is there: exit code 1 at once, then a rerun."""
    arguments = arguments_of(labels, tmp_path, "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    command = [sys.executable, "-m", "pipelines.build_hmr_skel", *arguments]
    with (tmp_path / "errors").open("w") as errors:
        job = subprocess.Popen(command, cwd=REPOSITORY, stderr=errors)
        while not list(tmp_path.glob("0*.tar")) and job.poll() is None:
            time.sleep(0.02)
        workers = [process for process in descendants(job.pid) if not descendants(process)]
        os.kill(workers[-1], signal.SIGKILL)
        assert job.wait(60) == 1
    *before, last = (tmp_path / "errors").read_text().splitlines()
    assert "a worker process died" in last and "the same command" in last
    assert not [line for line in before if "Traceback" in line or line.startswith("ERROR")]
    log = Path(last.rpartition(" ")[2])
    assert "Worker subprocess exited" in log.read_text()
    log.unlink()
    assert not (tmp_path / "dataset.json").exists()
    (tmp_path / "errors").unlink()
    assert main(arguments_of(labels, tmp_path)) == 0
    assert content(tmp_path) == undisturbed


def test_terminated_with_workers_at_work(labels, undisturbed, tmp_path):
    """Its temporary files stay, also those of Beam and of the workers that outlive it; the next run sweeps them."""
    output, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    arguments = arguments_of(labels, output, "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    command = [sys.executable, "-m", "pipelines.build_hmr_skel", *arguments]
    environment = os.environ | {"TMPDIR": str(temporary)}
    job = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    while not list(output.glob("0*.tar")) and job.poll() is None:
        time.sleep(0.02)
    workers = descendants(job.pid)
    job.terminate()
    assert job.wait(60) == -signal.SIGTERM
    while any(map(is_running, workers)):  # they see that their run is dead, or that their driver does not answer
        time.sleep(0.02)
    assert workers and not (output / "dataset.json").exists()
    assert [path.name.startswith("hmr-skel-tmp-") for path in temporary.iterdir() if path.is_dir()] == [True]
    again = subprocess.run(command[:-2], cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    assert again.returncode == 0 and not [path for path in temporary.iterdir() if path.name.startswith("hmr-skel-tmp")]
    assert content(output) == undisturbed


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(process):
    """Processes below one, leaves last."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("ending", ["tar", "parquet", "json"])
def test_damaged_shards_are_made_again(labels, forks, undisturbed, copied, ending):
    """A shard's file in each way, one shard per way, and the files of the whole set."""
    for shard, how in enumerate(["deleted", "empty", "cut", "flipped"]):
        damage(copied / f"00000{shard}.{ending}", how)
    before = (copied / "000004.tar").stat().st_ino
    for name in ("dataset.json", "_rejects/rejects.parquet", "options.yaml"):
        damage(copied / name, "cut")
    (copied / ".000001.tar.tmp-1").write_bytes(b"half a shard of a run that was killed")
    assert forks.run(arguments_of(labels, copied)) == 0
    assert content(copied) == undisturbed
    assert (copied / "000004.tar").stat().st_ino == before


def test_numbers_changed_in_the_statistics_are_noticed(labels, forks, undisturbed, copied):
    """Still JSON, with the checksums of the other files in place."""
    path = copied / "000003.json"
    stats = json.loads(path.read_text())
    stats["errors"]["vertex_error_mm"]["mean"] /= 2
    path.write_text(json.dumps(stats))
    assert forks.run(arguments_of(labels, copied)) == 0
    assert content(copied) == undisturbed


def test_full_disk(labels, forks, undisturbed, tmp_path):
    """No file can grow beyond a size that a shard needs: one line, exit code 2, and a rerun that finishes."""
    limit = min(len(data) for name, data in undisturbed.items() if name.endswith(".tar")) - 1
    forks.errors.write_text("")
    assert forks.run(arguments_of(labels, tmp_path), largest_file=limit) == 2
    errors = [line for line in forks.errors.read_text().strip("\0").splitlines() if "cannot be written" in line]
    assert len(errors) == 1 and str(tmp_path) in errors[0] and "File too large" in errors[0]
    assert not [*tmp_path.glob("0*.tar"), *tmp_path.glob("dataset.json")]
    assert not list(tmp_path.glob(".*.tmp-*")), "no half-written file stays to take up room"
    assert forks.run(arguments_of(labels, tmp_path)) == 0
    assert content(tmp_path) == undisturbed


def test_no_room_for_the_last_file(labels, undisturbed, copied, monkeypatch, capfd):
    real = os.fsync

    def full(descriptor):
        if "dataset.json" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(arguments_of(labels, copied)) == 2
    assert "No space left on device" in capfd.readouterr().err
    assert not (copied / "dataset.json").exists()
    monkeypatch.undo()
    assert main(arguments_of(labels, copied)) == 0
    assert content(copied) == undisturbed


def test_a_second_run_in_the_same_folder_is_refused(labels, undisturbed, copied, capfd):
    tmp_path = copied
    with output_lock(tmp_path):
        assert main(arguments_of(labels, tmp_path)) == 2
        line = capfd.readouterr().err.strip().splitlines()[-1]
        assert f"process {os.getpid()} on" in line and str(tmp_path) in line
        with pytest.raises(InputError), output_lock(tmp_path):
            pass
    assert not (tmp_path / LOCK_FILE).exists()
    # a lock file that no process holds: its run was killed
    (tmp_path / LOCK_FILE).write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere", "token": "x"}))
    assert main(arguments_of(labels, tmp_path)) == 0
    assert content(tmp_path) == undisturbed


def test_without_locks_the_last_run_has_the_folder(tmp_path, monkeypatch):
    """And the end of the earlier one does not take the lock of the later."""

    def none(descriptor, operation):
        raise OSError(errno.ENOTSUP, "not here")

    monkeypatch.setattr("fcntl.flock", none)
    earlier, later = output_lock(tmp_path), output_lock(tmp_path)
    token = earlier.__enter__()
    check_still_ours(tmp_path, token)
    with later as newer:
        with pytest.raises(OutputTaken):
            check_still_ours(tmp_path, token)
        earlier.__exit__(None, None, None)
        check_still_ours(tmp_path, newer)
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_worker_sees_that_its_run_is_dead(tmp_path):
    """It was killed, and no other has begun: the lock file is there, and nobody holds it."""
    with output_lock(tmp_path) as token:
        check_still_ours(tmp_path, token)
        left = (tmp_path / LOCK_FILE).read_text()
    (tmp_path / LOCK_FILE).write_text(left)
    with pytest.raises(OutputTaken):
        check_still_ours(tmp_path, token)
    elsewhere = json.loads(left) | {"host": "another-machine"}  # where its lock cannot be seen
    (tmp_path / LOCK_FILE).write_text(json.dumps(elsewhere))
    check_still_ours(tmp_path, token)


def test_a_shard_is_not_published_once_the_run_is_dead(tmp_path, labels, monkeypatch):
    """It dies while the shard's files are being written."""
    from pipelines.convert.conversion import convert_shard
    from pipelines.convert.settings import ConversionSettings, FitSettings
    from pipelines.convert.sharing import bodies_of_process
    from pipelines.plan.planning import find_label_files, plan_shards
    from pipelines.write import shards

    spec = next(iter(plan_shards(find_label_files([str(labels)], with_images=False), None, 2)))
    write_labels = shards.write_labels

    def dies(*arguments):
        write_labels(*arguments)
        (tmp_path / LOCK_FILE).unlink()

    monkeypatch.setattr(shards, "write_labels", dies)
    with output_lock(tmp_path) as token, pytest.raises(OutputTaken):
        convert_shard(spec, ConversionSettings(str(tmp_path), run=token), bodies_of_process(FitSettings(device="cpu")))
    assert not list(tmp_path.iterdir())


def test_a_disk_too_full_for_words(tmp_path, monkeypatch):
    """Names still have room when content has none."""
    (tmp_path / ".progress").mkdir()
    write_text = Path.write_text

    def full(path, text, *rest):
        write_text(path, "", *rest)
        if text:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    report_failure(tmp_path, "what went wrong")
    report_failure(tmp_path, "and what went wrong then")
    assert f"{tmp_path}: cannot be written to: No space left on device" in failed_run(tmp_path)
    monkeypatch.undo()
    (tmp_path / ".progress" / "failed.txt").unlink()
    report_failure(tmp_path, "what went wrong")
    assert failed_run(tmp_path) == "what went wrong"


def test_a_data_set_is_finished_when_all_else_is_there(labels, undisturbed, copied, monkeypatch, capfd):
    """The report fails: by then what an earlier run has left is gone, and there is no dataset.json."""
    (copied / "000009.tar").write_bytes(b"of an earlier, longer run")
    seen = []

    def full(shards, path, **more):
        seen.append(sorted(path.name for path in copied.glob("0*.tar")))
        raise InputError("cannot be written: No space left on device", file=path)

    monkeypatch.setattr("pipelines.build_hmr_skel.write_report", full)
    assert main(arguments_of(labels, copied)) == 2
    assert "report.html: cannot be written: No space left on device" in capfd.readouterr().err
    assert seen == [[f"00000{i}.tar" for i in range(5)]]
    assert (copied / "run.json").exists() and not (copied / "dataset.json").exists()
    monkeypatch.undo()
    assert main(arguments_of(labels, copied)) == 0
    assert content(copied) == undisturbed


def test_a_run_whose_folder_is_taken_says_so(labels, tmp_path, monkeypatch, capfd):
    from pipelines.convert import overlap

    def taken(*arguments, real=overlap.fit_shard):
        (tmp_path / LOCK_FILE).write_text(json.dumps({"token": "of another"}))
        return real(*arguments)

    monkeypatch.setattr(overlap, "fit_shard", taken)
    assert main(arguments_of(labels, tmp_path)) == 2
    assert "another run has taken this folder over" in capfd.readouterr().err
    assert (tmp_path / LOCK_FILE).exists() and not list(tmp_path.glob("0*.tar"))


def test_a_worker_that_outlives_its_run_writes_nothing(tmp_path, labels, undisturbed):
    """Its driver was killed, another run has begun."""
    from pipelines.convert.conversion import convert_shard
    from pipelines.convert.settings import ConversionSettings, FitSettings
    from pipelines.convert.sharing import bodies_of_process
    from pipelines.plan.planning import find_label_files, plan_shards

    spec = next(iter(plan_shards(find_label_files([str(labels)], with_images=False), None, 2)))
    bodies = bodies_of_process(FitSettings(device="cpu"))
    with output_lock(tmp_path) as old:
        pass
    with output_lock(tmp_path) as new:
        with pytest.raises(OutputTaken):
            convert_shard(spec, ConversionSettings(str(tmp_path), run=old), bodies)
        assert not list(tmp_path.glob("*.tar"))
        convert_shard(spec, ConversionSettings(str(tmp_path), run=new), bodies)
    assert list(tmp_path.glob("*.tar"))


def test_nothing_is_missing_or_twice(finished):
    """Over all label rows, read from the files as another program would."""
    seen = []
    for path in finished[0].rglob("*.parquet"):
        table = pq.read_table(path, columns=["label_file", "label_row"])
        seen += [tuple(row.values()) for row in table.to_pylist()]
    assert sorted(seen) == sorted([("aic.npz", i) for i in range(6)] + [("coco.npz", i) for i in range(4)])
