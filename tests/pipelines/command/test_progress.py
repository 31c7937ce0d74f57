"""Progress where nobody looks at a terminal: lines in the log."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from pipelines.command import progress
from pipelines.command.log import set_up_logging
from pipelines.command.progress import progress_bar


@pytest.fixture
def at_once(monkeypatch):
    """A line at each step, whatever the clock says."""
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)


def test_lines_tell_how_many_of_how_many_and_how_fast(at_once, caplog):
    with progress_bar(desc="fit", unit="people", total=12_000, initial=2_000) as bar:
        bar.update(3_000)
        bar.set_postfix(loss=0.5)
        bar.update(7_000)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("fit: 2,000 of 12,000 people, ")
    assert any(line.startswith("fit: 5,000 of 12,000 people, ") and "people/s" in line for line in told)
    assert told[-1].startswith("fit: 12,000 of 12,000 people, ") and told[-1].endswith("00:00 left, loss=0.5")
    assert not [line for line in told if "\r" in line or "\n" in line]


def test_what_has_no_known_end_is_counted(at_once, caplog):
    with progress_bar(desc="meshes", unit="pictures") as bar:
        bar.update(4)
    assert [r.getMessage() for r in caplog.records][-1].startswith("meshes: 4 pictures, ")
    assert list(progress_bar([5, 6], desc="verify", unit="shards")) == [5, 6]
    assert "verify: 2 of 2 shards" in caplog.text


def test_short_work_and_quiet_commands_say_nothing(caplog, capsys):
    with progress_bar(desc="fit", unit="people", total=3) as bar:
        bar.update(3)
    with progress_bar(desc="fit", unit="people", total=3, quiet=True) as bar:
        bar.update(3)
    assert not caplog.records and capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar_and_no_line(at_once, monkeypatch, caplog):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(desc="fit", unit="people", total=3) as bar:
        bar.update(3)
    assert "3/3" in sys.stderr.getvalue() and not caplog.records


def test_lines_are_seen_without_being_asked_for(at_once, capsys, monkeypatch):
    """Other commands' details need -v; how far a command is does not."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    set_up_logging(0)
    with progress_bar(desc="fit", unit="people", total=3) as bar:
        bar.update(3)
    logging.getLogger("pipelines").info("a detail")
    said = capsys.readouterr().err
    assert "INFO pipelines.command.progress: fit: 3 of 3 people" in said and "a detail" not in said
