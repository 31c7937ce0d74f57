"""What a run writes beside its output goes with it, or with the next run if it is killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.files.temporary import lasting_folder, run_temporaries, sweep

KILLED = """
import os, signal, subprocess, sys, tempfile
from pipelines.files.temporary import run_temporaries
with run_temporaries():
    tempfile.mkdtemp()
    subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkdtemp()"], check=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with run_temporaries() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder and folder.parent == tmp_path
        assert lasting_folder() == tmp_path
        with run_temporaries():  # another run does not take what this one uses
            assert folder.exists()
    assert not list(tmp_path.iterdir()) and tempfile.gettempdir() == str(tmp_path)


def test_the_next_run_sweeps_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    repository = Path(__file__).parents[3]
    for _ in range(2):  # the second sweeps after the first
        assert subprocess.run([sys.executable, "-c", KILLED], cwd=repository).returncode < 0
        [left] = tmp_path.iterdir()
        assert len([path for path in left.iterdir() if path.is_dir()]) == 2
    other = tmp_path / "hmr-skel-tmp-of-a-link"
    other.symlink_to(tmp_path.parent)
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [other]
