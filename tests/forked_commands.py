"""Commands of ours in processes that start at once: a parent imports and loads, and forks one process per run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

JOB = """
import pipelines.build_hmr_skel as command
import pyarrow.parquet
from pipelines.convert.settings import FitSettings
from pipelines.convert.sharing import bodies_of_process
bodies_of_process(FitSettings(device="cpu")).load()
"""
TRAINER = """
import train.command as command
import torch
import train.run.trainer
import torch.utils.tensorboard
torch.set_num_threads(1)
"""
"""What the parent does first; `command.main` is what its children run."""

_PARENT = """
import os, resource, sys
{first}
print("ready", flush=True)
for line in sys.stdin:
    largest, die_at, *arguments = line.split("\\t")
    child = os.fork()
    if not child:
        if int(largest):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
        renames = [int(die_at)]
        def rename(*names, real=os.replace):
            renames[0] -= 1
            return os._exit(77) if renames[0] == 0 else real(*names)
        os.replace = rename
        os.dup2(2, 1)
        code = command.main([a.strip() for a in arguments])
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Each line of its input makes it fork a process: only that one is killed."""


class Forks:
    """A command in processes that start at once; what they say on stderr goes to a file."""

    def __init__(self, errors: Path, first: str = JOB) -> None:
        self.errors = errors
        self.parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT.format(first=first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )
        assert self.parent.stdout.readline() == "ready\n", errors.read_text()

    def start(self, arguments: list[str], largest_file: int = 0, die_at: int = 0) -> int:
        """Begin a run, with a limit in bytes to any file, or to die before its n-th renaming; gives its process."""
        self.parent.stdin.write("\t".join([str(largest_file), str(die_at), *arguments]) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def exit_code(self) -> int:
        return int(self.parent.stdout.readline())

    def run(self, arguments: list[str], **how: int) -> int:
        self.start(arguments, **how)
        return self.exit_code()

    def close(self) -> None:
        self.parent.stdin.close()
        self.parent.wait()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
