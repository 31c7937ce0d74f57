"""A short run of the mutants, and that the harness sees each kind of fault."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import InputError
from tests.forked_commands import Forks
from tests.hostile import trials
from tests.hostile.kills import _campaign, kill_trainer, written
from tests.hostile.mutations import edited_pickle
from tests.hostile.subjects import Subject
from tests.hostile.trials import FAULTS, try_mutants

REPOSITORY = Path(__file__).parents[2]
MUTANTS = 1500


def test_mutants_of_every_kind_are_refused_or_read_as_what_they_are():
    command = [sys.executable, "-m", "tests.hostile", "--mutants", str(MUTANTS), "--kills", "0", "--seed", "7"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    table = run.stdout.splitlines()
    assert max(map(len, table)) <= 80
    every = next(line.split() for line in table if line.startswith("all "))
    tried, taken, refused, *faults = (int(number.replace(",", "")) for number in every[1:])
    assert tried == taken + refused > 0.9 * MUTANTS and taken > 0 and faults == [0] * len(FAULTS)


def plain(folder):
    text = (folder / "a").read_bytes()
    if text != b"sound, and long enough to be changed":
        raise InputError("another text")
    return {"text": text}


def plain_changed(folder):
    return (folder / "a").read_bytes() != b"sound, and long enough to be changed"


def died(folder):
    if plain_changed(folder):
        os._exit(7)
    return {}


def hung(folder):
    while plain_changed(folder):
        pass
    return {}


def memory(folder):
    # Well above the bound: pages that the system takes back from the process meanwhile count for it.
    return {"text": len(b"x" * (1 << 30 if plain_changed(folder) else 1)) * 0}


def wrong(folder):
    return {"text": (folder / "a").read_bytes()}


def executed(folder):
    if plain_changed(folder):
        os.mkdir("MARK")
    return {}


@pytest.mark.parametrize("reader", [plain, died, hung, memory, wrong, executed])
def test_faults_are_seen(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "HANG_SECONDS", 0.2 if reader is hung else 60)
    files = {"a": b"sound, and long enough to be changed"}
    tally = try_mutants(
        Subject("x", reader.__name__, files, "a", reader, checked=True), 0, range(3), tmp_path / "trial"
    )
    assert tally.counts["tried"] == 3
    expected = "refused" if reader is plain else reader.__name__
    assert tally.counts[expected] == 3, tally


def test_kills_of_the_trainer_change_nothing(tmp_path):
    """Those of the job are in tests/pipelines/test_resume.py."""
    campaign = kill_trainer(2, 0, tmp_path)
    assert campaign.counts["killed"] == 2 and campaign.counts["finished"] > 0 and not campaign.faults


def test_a_run_that_ends_with_other_bytes_is_seen(tmp_path):
    first = """
import os, sys, time, types
def main(arguments):
    folder, began = arguments[-1], time.process_time()
    os.makedirs(folder, exist_ok=True)
    open(f"{folder}/began", "a").write("x")
    while time.process_time() < began + 0.3:
        pass
    return 0
command = types.SimpleNamespace(main=main)
"""
    campaign = _campaign(Forks(tmp_path / "errors", first), ["--output"], 2, 0, tmp_path, written)
    assert campaign.counts["killed"] == 2 and campaign.counts["other"] == campaign.counts["finished"] > 0
    assert campaign.faults[0].startswith("other: began")


def test_what_is_not_caught_is_told_with_the_number_of_its_mutant(tmp_path):
    def broken(folder):
        if plain_changed(folder):
            raise KeyError("imgname")
        return {}

    tally = try_mutants(
        Subject("x", "y", {"a": b"sound, and long enough to be changed"}, "a", broken), 0, range(4), tmp_path / "t"
    )
    assert tally.counts["uncaught"] == 4
    assert tally.faults == {("uncaught", "KeyError: 'imgname'"): 0}


def test_steps_put_into_pickles_would_run_if_somebody_ran_them(tmp_path, monkeypatch):
    """The canary sings when Python's own unpickler meets it."""
    import pickle
    import random

    monkeypatch.chdir(tmp_path)
    sung = 0
    for seed in range(200):
        with contextlib.suppress(Exception):
            pickle.loads(edited_pickle(pickle.dumps([1, "two", 3.0], 2), random.Random(seed)))
        if Path("MARK").exists():
            Path("MARK").rmdir()
            sung += 1
    assert sung > 10
