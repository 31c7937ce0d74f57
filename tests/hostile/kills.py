"""The job and the trainer killed at random moments: what they end with must be what an undisturbed run ends with."""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.forked_commands import JOB, TRAINER, Forks, is_alive
from tests.hostile.trials import processor_of
from tests.written_shards import label_columns, write_shard
from train import load_checkpoint
from train.network.checkpoints import run_checkpoints

PEOPLE = 10
TRAINER_SHARE = 20
"""One kill in so many is the trainer's, each of whose runs takes longer."""
WHEN = ("run.json", "report.html")
"""Files that tell when a run was and what it took."""
KILLED, FINISHED, FAILED = "killed", "finished", "failed"


@dataclass
class Campaign:
    """`counts`: kills, runs that finished, runs that ended with something else; outputs that are other than they should
    be, and hidden files that the last run left. `faults` says which."""

    counts: Counter[str] = field(default_factory=Counter)
    moments: set[tuple[str, ...]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {text}")
        print(self.faults[-1], flush=True)  # a campaign may be ended before it is through


def kill_job(kills: int, seed: int, folder: Path) -> Campaign:
    """Kill the job so often, each time going on in the same folder until it finishes."""
    labels = folder / "labels"
    labels.mkdir(parents=True)
    dice = np.random.default_rng(0)
    poses = dice.normal(0, 0.1, (PEOPLE, 72)).astype(np.float32)
    poses[5, 7] = np.nan
    for name, rows in (("aic", slice(0, 6)), ("coco", slice(6, PEOPLE))):
        names = np.array([f"{name}/{i // 2}.jpg" for i in range(len(poses[rows]))])
        betas = dice.normal(0, 0.5, (len(names), 10)).astype(np.float32)
        np.savez(labels / f"{name}.npz", pose_cam=poses[rows], shape=betas, imgname=names)
    always = ["--annotations", str(labels / "*.npz"), "--images", "none", "--samples-per-shard", "2"]
    always += ["--threads", "1", "--device", "cpu", "--quiet", "--output"]
    return _campaign(Forks(folder / "errors", JOB), always, kills, seed, folder, written)


def kill_trainer(kills: int, seed: int, folder: Path) -> Campaign:
    """The same with a small network, which writes a checkpoint after every step."""
    shards = folder / "shards"
    columns = label_columns(12)
    columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
    write_shard(shards, "000000", columns)
    always = ["--shards", str(shards), "--backbone", "tiny", "--refinement-layers", "1", "--heads", "1"]
    always += ["--head-dim", "4", "--mlp-dim", "8", "--hidden-dim", "8", "--batch", "4", "--epochs", "2"]
    always += ["--workers", "0", "--part", "all", "--precision", "float32", "--device", "cpu"]
    always += ["--evaluate-people", "0", "--panel-steps", "0", "--checkpoint-steps", "1", "--output"]
    return _campaign(Forks(folder / "errors", TRAINER), always, kills, seed, folder, learnt)


def written(output: Path) -> dict[str, str]:
    """Checksums of all files that must repeat."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file() and path.name not in WHEN)
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def learnt(output: Path) -> dict[str, str]:
    """Checksums of a run's parameters and of their moving average."""
    newest = run_checkpoints(output)[-1]
    found = {"checkpoint": newest.name}
    for which in ("model", "ema"):
        for name, value in load_checkpoint(newest, which).state_dict().items():
            found[f"{which} {name}"] = hashlib.sha256(value.numpy().tobytes()).hexdigest()
    return found


def _work_until(process: int, seconds: float = math.inf) -> float:
    """Waits until a process has used the processor for so long, or is gone; gives how long it was seen to.

    How far a run has come by then does not depend on who else is at work on the machine.
    """
    used = 0.0
    while used < seconds and is_alive(process):
        time.sleep(0.002)
        used = max(used, processor_of(process))
    return used


def _campaign(
    forks: Forks, always: list[str], kills: int, seed: int, folder: Path, facts: Callable[[Path], dict[str, str]]
) -> Campaign:
    found, dice = Campaign(), random.Random(seed)
    work = _work_until(forks.start([*always, str(folder / "undisturbed")]))
    assert forks.exit_code() == 0, forks.errors.read_text()
    expected, rounds = facts(folder / "undisturbed"), 0
    while found.counts[KILLED] < kills:
        output, rounds = folder / str(rounds), rounds + 1
        before = found.counts[KILLED]
        code = None
        while code != 0:
            process = forks.start([*always, str(output)])
            if found.counts[KILLED] < kills:
                _work_until(process, dice.uniform(0.02, 0.9) * work)
                if is_alive(process):
                    os.kill(process, signal.SIGKILL)
            code = forks.exit_code()
            if code == -signal.SIGKILL:
                found.counts[KILLED] += 1
                found.moments.add(tuple(sorted(path.name.partition(".tmp-")[0] for path in output.glob("*"))))
            elif code != 0:
                found.fault(FAILED, f"exit code {code} after {found.counts[KILLED] - before} kills of round {rounds}")
                break
        if code == 0:
            found.counts[FINISHED] += 1
            if other := sorted(name for name, _ in facts(output).items() ^ expected.items()):
                found.fault("other", f"{', '.join(other[:3])} in round {rounds}")
            if left := sorted(path.name for path in output.glob(".*")):
                found.fault("left", f"{', '.join(left[:3])} in round {rounds}")
        shutil.rmtree(output, ignore_errors=True)
    forks.close()
    return found
