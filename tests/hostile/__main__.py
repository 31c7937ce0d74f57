"""Mutants of every kind of file through every reader, and kills of the job and of the trainer.

    python -m tests.hostile [--mutants 20000] [--kills 20] [--seed 0] [--only KIND]
    python -m tests.hostile --replay 'KIND/READER:NUMBER' [--seed 0]

Prints a table within 80 columns, and what each fault was with the number that makes its mutant again. The exit code is
1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from tests.hostile.kills import TRAINER_SHARE, Campaign, kill_job, kill_trainer
from tests.hostile.subjects import Subject, subjects
from tests.hostile.trials import FAULTS, OUTCOMES, Tally, files_of, shares, try_mutants

WIDTHS = {name: max(len(name) + 1, 8 if name not in FAULTS else 5) for name in OUTCOMES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds, or kind/reader, that begin so")
    parser.add_argument("--replay", default="", metavar="KIND/READER:NUMBER", help="read one mutant again and show why")
    given = parser.parse_args()
    torch.set_num_threads(1)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=memory) as name:
        folder = Path(name)
        (folder / "made").mkdir()
        every = [s for s in subjects(folder / "made") if f"{s.kind}/{s.name}".startswith(given.only)]
        if given.replay:
            return replay(every, given.replay, given.seed, folder)
        tallies = {}
        began = time.monotonic()
        for share in shares(every, given.mutants) if given.mutants else ():
            label = f"{share.subject.kind}/{share.subject.name}"
            tallies[label] = try_mutants(share.subject, given.seed, share.numbers, folder / "trial")
            show_faults(label, tallies[label])
        seconds = time.monotonic() - began
        learners = -(-given.kills // TRAINER_SHARE)
        campaigns = {"job": kill_job(given.kills - learners, given.seed, folder / "job")} if given.kills > 1 else {}
        if given.kills:
            campaigns["trainer"] = kill_trainer(learners, given.seed, folder / "trainer")
    faults = show_kills(campaigns)
    if given.mutants:
        faults += show_table(tallies)
        tried = sum(tally.counts["tried"] for tally in tallies.values())
        print(f"seed {given.seed}: {tried:,} mutants, {60 * tried / seconds:,.0f} a minute", flush=True)
    return 1 if faults else 0


def show_faults(label: str, tally: Tally) -> None:
    for (outcome, detail), number in sorted(tally.faults.items()):
        print(f"{outcome}: {label}:{number} {detail}", flush=True)


def show_table(tallies: dict[str, Tally]) -> int:
    """Rows are kinds of files; returns the number of faults."""
    kinds: dict[str, Counter[str]] = {}
    for label, tally in tallies.items():
        kinds.setdefault(label.partition("/")[0], Counter()).update(tally.counts)
    whole = Counter()
    print(f"{'':15}" + "".join(f"{name:>{width}}" for name, width in WIDTHS.items()))
    for kind, counts in [*kinds.items(), ("all", whole)]:
        numbers = (f"{counts[name]:{width},}" for name, width in WIDTHS.items())
        print(f"{kind:15}" + "".join(numbers))
        whole.update(counts if kind != "all" else {})
    return sum(whole[name] for name in FAULTS)


def show_kills(campaigns: dict[str, Campaign]) -> int:
    """A row per command; returns the number of faults."""
    for name, campaign in campaigns.items():
        counts = campaign.counts
        print(
            f"{name}: {counts['killed']:,} kills at {len(campaign.moments)} points; {counts['finished']:,} outputs, "
            f"{counts['other']} other, {counts['left']} left files,\n  {counts['failed']} runs failed"
        )
    return sum(len(campaign.faults) for campaign in campaigns.values())


def replay(every: list[Subject], wanted: str, seed: int, folder: Path) -> int:
    label, _, number = wanted.rpartition(":")
    [subject] = [s for s in every if f"{s.kind}/{s.name}" == label]
    files, sealed = files_of(subject, seed, int(number))
    here = folder / "replay"
    here.mkdir()
    for name, data in subject.files.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(data)
    sound = subject.read(here)
    for name, data in files.items():
        (here / name).write_bytes(data)
    Path("/tmp/mutant").write_bytes(files[subject.file])
    print("checksums set right:", sealed, "- mutant in /tmp/mutant")
    taken = subject.read(here)
    print({name: (sound.get(name), value) for name, value in taken.items() if sound.get(name) != value})
    return 0


if __name__ == "__main__":
    sys.exit(main())
