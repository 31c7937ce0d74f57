"""Mutants tried one after another in a child process, with limits of time and memory that the parent watches over."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from schemas import InputError
from tests.hostile.mutations import mutant
from tests.hostile.subjects import Subject

OUTCOMES = ("tried", "taken", "refused", "uncaught", "died", "hung", "memory", "wrong", "executed")
"""What became of mutants. taken: read, with the sound file's values or in a format that has no checksum."""
FAULTS = OUTCOMES[3:]

HANG_SECONDS = 10.0
"""Of the processor: however busy the machine is, a reader of these small files that takes longer does not end."""
BLOCKED_SECONDS = 300.0
"""By the clock, for a reader that waits for something."""
MEMORY = 600 << 20
"""Bytes that a reader may add to what the process has: an image of 100 million pixels takes half."""
_ADDRESSES = 16 << 30
"""Bytes of address space that a claim may ask for before the system refuses it, as a large machine would."""
_MARK = "MARK"
"""The folder that mutants make if they are run."""
_CLOCK = struct.Struct("qdd")
"""Number of the trial, and when it began: seconds of the processor, and of the clock."""


@dataclass
class Tally:
    """What became of a subject's mutants; `faults` has (outcome, what it was) -> the first number."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, outcome: str, number: int = -1, detail: str = "") -> None:
        self.counts["tried"] += 1
        self.counts[outcome] += 1
        if outcome in FAULTS:
            self.faults.setdefault((outcome, detail), number)


def files_of(subject: Subject, seed: int, number: int) -> tuple[dict[str, bytes], bool]:
    """The subject's files with the mutant of this number among them, and whether checksums were set right."""
    dice = random.Random(zlib.crc32(f"{seed} {subject.kind} {subject.name} {number}".encode()))
    sealed = subject.resealed is not None and dice.random() < 0.5
    data, structured = mutant(subject.files[subject.file], dice, subject.structured)
    files = {**subject.files, subject.file: data}
    if sealed:
        files = subject.resealed(files)
    return files, sealed or (structured and subject.resealed is None)


def try_mutants(subject: Subject, seed: int, numbers: range, folder: Path) -> Tally:
    """Each of the numbers once. `folder` is made and left empty; it should be in memory."""
    tally = Tally()
    clock = mmap.mmap(-1, _CLOCK.size)
    start = numbers.start
    while start < numbers.stop:
        folder.mkdir(parents=True)
        results, child = folder.with_suffix(".results"), os.fork()
        if not child:
            _child(subject, seed, range(start, numbers.stop), folder, results, clock)
        killed = _watched(child, clock)
        for line in results.read_text().splitlines() if results.exists() else ():
            outcome, number, detail, start = json.loads(line)
            tally.add(outcome, number, detail)
        results.unlink(missing_ok=True)
        shutil.rmtree(folder)
        if (broken := results.with_suffix(".broken")).exists():
            raise RuntimeError(f"{subject.kind}/{subject.name}: {broken.read_text()}")
        if start < numbers.stop:  # it did not come to its end
            tally.add("hung" if killed else "died", start, "")
            start += 1
    return tally


def _watched(child: int, clock: mmap.mmap) -> bool:
    """Waits for a child's end; kills it if a trial does not end. Whether it was killed."""
    pause = 0.002
    while True:
        ended, _ = os.waitpid(child, os.WNOHANG)
        if ended:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
        _, processor, began = _CLOCK.unpack(clock[:])
        if began and (processor_of(child) - processor > HANG_SECONDS or time.monotonic() - began > BLOCKED_SECONDS):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True


def processor_of(process: int) -> float:
    """Seconds of the processor that a process has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(subject: Subject, seed: int, numbers: range, folder: Path, results: Path, clock: mmap.mmap) -> None:
    """Never returns. Each trial leaves a line in `results`."""
    status = 1
    try:
        os.chdir(folder)
        logging.disable(logging.CRITICAL)
        with open(os.devnull, "r+b") as nothing:
            for descriptor in (0, 1, 2):
                os.dup2(nothing.fileno(), descriptor)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        clock[:] = _CLOCK.pack(0, 0.0, 0.0)
        _write(folder, subject.files)
        sound = subject.read(folder)
        with open(results, "ab", buffering=0) as lines:
            for number in numbers:
                clock[:] = _CLOCK.pack(number, time.process_time(), time.monotonic())
                outcome, detail = _trial(subject, seed, number, folder, sound)
                lines.write(json.dumps([outcome, number, detail, number + 1]).encode() + b"\n")
        status = 0
    except BaseException:
        results.with_suffix(".broken").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def _trial(subject: Subject, seed: int, number: int, folder: Path, sound) -> tuple[str, str]:
    files, sealed = files_of(subject, seed, number)
    _write(folder, {name: data for name, data in files.items() if data != subject.files[name]})
    before = _peak(reset=True)
    try:
        taken = subject.read(folder)
    except InputError:
        outcome, detail = "refused", ""
    except BaseException as error:
        outcome, detail = "uncaught", _where(error)
    else:
        outcome, detail = "taken", ""
        other = [name for name, value in taken.items() if sound.get(name) != value]
        if subject.checked and not sealed and other:
            outcome, detail = "wrong", ", ".join(sorted(other)[:3])
    if _peak() - before > MEMORY:
        outcome, detail = "memory", f"{(_peak() - before) >> 20} MB"
    if os.path.exists(folder / _MARK):
        outcome, detail = "executed", ""
        os.rmdir(folder / _MARK)
    _write(folder, {name: subject.files[name] for name, data in files.items() if data != subject.files[name]})
    return outcome, detail


def _write(folder: Path, files) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def _peak(reset: bool = False) -> int:
    """Bytes of memory that the process had at most since the last reset."""
    if reset:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status", "rb") as file:
        text = file.read()
    at = text.index(b"VmHWM:")
    return int(text[at + 6 : text.index(b"kB", at)]) << 10


def _where(error: BaseException) -> str:
    """The error and the last line of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/site-packages/" not in frame.filename and "/tests/" not in frame.filename]
    ours = [
        frame
        for frame in ours
        if any(f"/{name}/" in frame.filename for name in ("fitting", "pipelines", "train", "schemas"))
    ]
    at = f" at {'/'.join(ours[-1].filename.split('/')[-2:])}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{at}: {str(error)[:60]}".encode("ascii", "replace").decode()


@dataclass(frozen=True)
class Share:
    """A stretch of a subject's mutants."""

    subject: Subject
    numbers: range


def shares(subjects: list[Subject], mutants: int) -> Iterator[Share]:
    """The mutants divided among the subjects as their shares say, each at least one."""
    whole = sum(subject.share for subject in subjects)
    for subject in subjects:
        yield Share(subject, range(max(1, round(mutants * subject.share / whole))))
