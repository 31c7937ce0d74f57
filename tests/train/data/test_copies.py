"""Shards behind URLs: what is copied when, by whom, and what happens when the wrong bytes come."""

from __future__ import annotations

import http.server
import os
import pickle
import shlex
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from s3_bucket import s3_bucket, upload
from written_shards import label_columns, write_shard

from schemas import InputError
from train.data import copies
from train.data.batch import as_batch
from train.data.config import DataConfig
from train.data.copies import Copies
from train.data.loader import PeopleStream, stream
from train.data.origin import beside
from train.data.shards import training_shards

SHARDS, PEOPLE = 6, 5
RANGE = "{000000..000005}.tar"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(copies, "_PAUSE", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for number in range(SHARDS):
        columns = label_columns(PEOPLE, seed=number, first_row=10 * number)
        columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
        write_shard(folder, f"{number:06d}", columns)
    return folder


class Served:
    """A folder behind HTTP: its address, how often each file was asked for, and what is sent instead of a file."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: Counter[str] = Counter()
        self.instead: dict[str, list[bytes]] = {}

    def tars(self) -> dict[str, int]:
        return {name: count for name, count in self.asked.items() if name.endswith(".tar")}


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            found.asked[name] += 1
            if not found.instead.get(name):
                super().do_GET()
                return
            content = found.instead[name].pop(0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Served(f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def people_of(shards: str, cache: Path, **data) -> PeopleStream:
    return PeopleStream(DataConfig(shards=[shards], cache=str(cache), **data), 5)


def keys(people: PeopleStream, **where) -> list[str]:
    return [key for _, values in stream(people, **where) for key in as_batch(values).keys]


def copied(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*.tar"))


def wait_until(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_shards_behind_urls_give_the_people_of_local_ones_and_are_copied_once(folder, tmp_path):
    local = keys(people_of(str(folder), tmp_path))
    with served(folder) as there:
        people = people_of(there.address + RANGE, tmp_path)
        assert keys(people, epochs=2)[: len(local)] == local
        assert set(there.tars().values()) == {1} and len(there.tars()) == SHARDS
    assert keys(people_of(there.address + RANGE, tmp_path)) == local  # the server is gone
    assert not list(tmp_path.glob("*/.*.tmp-*"))


def test_tars_are_copied_when_they_are_needed_and_those_of_the_next_window_in_the_background(folder, tmp_path):
    with served(folder) as there:
        people = people_of(there.address + RANGE, tmp_path, window=2)
        assert there.tars() == {}  # labels only
        shard = people.people.shard[people.order.epoch(0)]

        def tars_of(start: int, stop: int) -> list[str]:
            return sorted({people.shards[n].copied_from.rpartition("/")[2] for n in shard[start:stop]})

        people[0, 0, 0]
        wait_until(lambda: copied(tmp_path) == tars_of(0, 10))
        time.sleep(0.2)
        assert copied(tmp_path) == tars_of(0, 10) and len(tars_of(0, 10)) == 2
        people[0, 1, 0]  # reads people of the same two; a window of ten people on come others
        assert set(tars_of(5, 10)) < set(tars_of(5, 15))
        wait_until(lambda: copied(tmp_path) == tars_of(0, 15))


def test_what_a_killed_process_left_half_copied_goes(folder, tmp_path):
    with served(folder) as there:
        kept = Copies(tmp_path)
        target = kept.path(there.address + "000000.tar")
        target.parent.mkdir()
        left = target.with_name(".000000.tar.tmp-1")
        left.write_bytes(b"half")
        assert kept.fetch(there.address + "000000.tar").read_bytes() == (folder / "000000.tar").read_bytes()
        assert not left.exists()


def _fetch(cache: str, url: str) -> int:
    return Copies(cache).fetch(url).stat().st_size


def test_processes_that_need_the_same_file_fetch_it_once(folder, tmp_path):
    with served(folder) as there, ProcessPoolExecutor(4) as processes:
        url = there.address + "000000.tar"
        sizes = set(processes.map(_fetch, [str(tmp_path)] * 8, [url] * 8))
        assert sizes == {(folder / "000000.tar").stat().st_size}
        assert there.tars() == {"000000.tar": 1}


def test_other_bytes_than_the_shards_json_tells_are_fetched_again_and_then_refused(folder, tmp_path, caplog):
    whole = (folder / "000001.tar").read_bytes()
    url_of = "{}000001.tar".format
    with served(folder) as there:
        there.instead["000001.tar"] = [whole[: len(whole) // 2]]
        assert Copies(tmp_path).fetch(url_of(there.address)).read_bytes() == whole
        assert "trying again" in caplog.text
        there.instead["000001.tar"] = [whole[:512], b"", whole[:-1]]
        with pytest.raises(InputError, match=r"000001\.tar: cannot be fetched: not the bytes") as caught:
            Copies(tmp_path / "other").fetch(url_of(there.address))
        assert caught.value.file == url_of(there.address)
    assert copied(tmp_path / "other") == []


def test_a_damaged_tar_without_checksum_is_not_kept(folder, tmp_path):
    (tmp_path / "served").mkdir()
    for ending in ("tar", "parquet"):
        content = (folder / f"000000.{ending}").read_bytes()
        (tmp_path / "served" / f"000000.{ending}").write_bytes(content[:2000] if ending == "tar" else content)
    with served(tmp_path / "served") as there:
        people = people_of(there.address + "000000.tar", tmp_path / "cache")
        with pytest.raises(InputError, match="file ends with"):
            keys(people)
        assert copied(tmp_path / "cache") == []
        shards = (folder / "000000.tar").read_bytes()
        (tmp_path / "served" / "000000.tar").write_bytes(shards)
        assert len(keys(people)) == PEOPLE


def test_files_that_are_not_there_are_told_by_url(folder, tmp_path):
    with served(folder) as there:
        with pytest.raises(InputError, match=r"000009\.parquet: cannot be fetched: no such file"):
            training_shards([there.address + "000009.tar"], Copies(tmp_path))
        with pytest.raises(InputError, match=r"--cache.*no folder for copies"):
            training_shards([there.address + "000000.tar"])


def test_copies_make_room_for_others_in_the_order_of_their_use(folder, tmp_path):
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    with served(folder) as there:
        kept = Copies(tmp_path, gigabytes=2 * size / 1e9)
        for place, number in enumerate((0, 1, 0, 2)):
            # File systems tell times apart by milliseconds only.
            path = kept.fetch(f"{there.address}{number:06d}.tar")
            os.utime(path, (place, place))
        assert copied(tmp_path) == ["000000.tar", "000002.tar"]
        # Nobody notices, apart from having to wait.
        tight = people_of(there.address + RANGE, tmp_path / "tight", window=2, cache_gb=2 * size / 1e9)
        found = keys(tight, epochs=2)
        # One more is there for the moment between a copy's coming and another's going.
        wait_until(lambda: len(copied(tmp_path / "tight")) <= 2)
    assert found == keys(people_of(str(folder), tmp_path, window=2), epochs=2)


def test_a_copy_that_goes_while_it_is_looked_at_is_made_again(folder, tmp_path, monkeypatch):
    gone, touch = [], os.utime

    def utime(path, ns) -> None:
        if not gone:
            gone.append(path)
            Path(path).unlink()  # as another process does that needs the room
        touch(path, ns=ns)

    with served(folder) as there:
        monkeypatch.setattr(copies.os, "utime", utime)
        assert Copies(tmp_path).fetch(there.address + "000000.tar").is_file()
        assert gone and there.tars() == {"000000.tar": 2}


def test_shards_in_a_bucket(folder, tmp_path, caplog):
    """Copied once, and again when others lie there; what is not there is told by URL."""
    with s3_bucket() as bucket:
        upload(folder, f"{bucket}/set")
        local = keys(people_of(str(folder), tmp_path))
        assert keys(people_of(f"{bucket}/set/{RANGE}", tmp_path)) == local
        kept = {path: path.stat().st_ino for path in tmp_path.glob("*/*.tar")}
        assert len(kept) == SHARDS
        assert keys(people_of(f"{bucket}/set/{RANGE}", tmp_path)) == local
        assert kept == {path: path.stat().st_ino for path in tmp_path.glob("*/*.tar")}
        other = tmp_path / "other"
        other.mkdir()
        after = replace_data_set(other)
        upload(other, f"{bucket}/set")
        assert keys(people_of(f"{bucket}/set/{TWO}", tmp_path)) == after
        for path in other.glob("*.json"):  # now by size and ETag
            fsspec.filesystem("s3").rm_file(f"{bucket}/set/{path.name}")
        caplog.clear()
        assert keys(people_of(f"{bucket}/set/{TWO}", tmp_path)) == after
        assert "no JSON file with checksums" in caplog.text
        replace_data_set(other, seed=200)
        upload(other, f"{bucket}/set")
        for path in other.glob("*.json"):
            fsspec.filesystem("s3").rm_file(f"{bucket}/set/{path.name}")
        assert keys(people_of(f"{bucket}/set/{TWO}", tmp_path)) == keys(people_of(str(other), other)) != after
        with pytest.raises(InputError, match=r"s3://.*/000009\.parquet: cannot be fetched: no such file"):
            training_shards([f"{bucket}/set/000009.tar"], Copies(tmp_path))


def test_commands_can_be_the_source(folder, tmp_path):
    command = f"pipe:cat {shlex.quote(str(folder))}/"
    assert beside(f"{command}000000.tar", "json") == f"{command}000000.json"
    assert beside("pipe:aws s3 cp s3://b/0.tar -", "parquet") == "pipe:aws s3 cp s3://b/0.parquet -"
    assert beside("https://a/0.tar?key=1", "json") == "https://a/0.json?key=1"
    assert keys(people_of(command + RANGE, tmp_path, allow_pipe=True)) == keys(people_of(str(folder), tmp_path))


def test_places_of_copies(tmp_path):
    copies = Copies(tmp_path)
    one, table, other = (copies.path(f"https://a.tar.org/{name}") for name in ("x/0.tar", "x/0.parquet", "y/0.tar"))
    assert (one.name, table.name) == ("0.tar", "0.parquet") and one.parent == table.parent != other.parent
    with pytest.raises(InputError, match=r"expected the URL of a \.tar"):
        copies.path("https://a/b.zip")


def test_copies_can_be_sent_to_processes_that_start_anew(tmp_path):
    first = Copies(tmp_path, 2.0)
    first.ahead(["http://127.0.0.1:9/0.tar"])
    again = pickle.loads(pickle.dumps(first))
    assert (again.folder, again.most) == (tmp_path, 2_000_000_000)


def test_commands_run_only_if_they_are_allowed(folder, tmp_path, monkeypatch):
    """Also when a glob of the shell brought them: a file may be called so."""
    monkeypatch.chdir(tmp_path)
    for place in ("pipe:touch executed; cat x.tar", "http://127.0.0.1:9/0.tar::pipe:touch executed; cat x.tar"):
        with pytest.raises(InputError, match=r"'--shards': a shell command; expected --allow-pipe"):
            people_of(place, tmp_path / "cache")
        assert not (tmp_path / "executed").exists()
    for ending in ("tar", "parquet", "json"):
        shutil.copy(folder / f"000000.{ending}", tmp_path / f"pipe:touch executed; cat x.{ending}")
    for allowed in (False, True):
        assert len(keys(people_of("pipe:touch executed; cat x.tar", tmp_path / "cache", allow_pipe=allowed))) == PEOPLE
    assert not (tmp_path / "executed").exists()
    with pytest.raises(InputError, match="quotes or spaces in a URL"):
        people_of("http://127.0.0.1:9/'; touch executed; '.tar", tmp_path / "cache")


@pytest.fixture
def data_set(folder, tmp_path) -> Path:
    """A copy of two shards, to be changed."""
    here = tmp_path / "served"
    here.mkdir()
    for path in sorted(folder.glob("00000[01].*")):
        shutil.copy(path, here / path.name)
    return here


TWO = "{000000..000001}.tar"


def replace_data_set(here: Path, seed: int = 100) -> list[str]:
    """Other people in shards of the same names; their keys."""
    for number in range(2):
        columns = label_columns(PEOPLE, seed=seed + number, first_row=10 * (seed + number))
        columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
        write_shard(here, f"{number:06d}", columns)
    return keys(people_of(str(here), here))


@pytest.mark.parametrize("told", [True, False], ids=["checksums", "none"])
def test_a_data_set_that_was_replaced_is_noticed(data_set, tmp_path, told, caplog):
    cache = tmp_path / "cache"
    if not told:
        for path in data_set.glob("*.json"):
            path.unlink()
    with served(data_set) as there:
        before = keys(people_of(there.address + TWO, cache))
        asked = there.tars()
        assert keys(people_of(there.address + TWO, cache)) == before and there.tars() == asked  # nothing is new
        assert ("no JSON file with checksums" in caplog.text) is not told
        after = replace_data_set(data_set)
        if not told:
            for path in data_set.glob("*.json"):
                path.unlink()
            for path in data_set.iterdir():  # HTTP tells seconds
                os.utime(path, (2e9, 2e9))
        assert after != before and keys(people_of(there.address + TWO, cache)) == after
    assert keys(people_of(there.address + TWO, cache)) == after  # nobody answers
    assert "does not answer" in caplog.text


def test_a_data_set_that_is_replaced_during_a_run_is_not_mixed_with_it(data_set, tmp_path):
    with served(data_set) as there:
        people = people_of(there.address + TWO, tmp_path / "cache")  # labels are copied, tars not yet
        replace_data_set(data_set)
        with pytest.raises(InputError, match="not the bytes that the JSON file"):
            keys(people)


@pytest.mark.parametrize("told", [True, False], ids=["checksums", "none"])
@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_a_copy_that_was_altered_is_fetched_again(data_set, tmp_path, told, ending, caplog):
    cache = tmp_path / "cache"
    if not told:
        for path in data_set.glob("*.json"):
            path.unlink()
    with served(data_set) as there:
        found = keys(people_of(there.address + TWO, cache))
        [copy] = cache.glob(f"*/000001.{ending}")
        data = bytearray(copy.read_bytes())
        data[len(data) // 2] ^= 1
        facts = copy.stat()
        copy.write_bytes(data)
        os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        people = people_of(there.address + TWO, cache)
        assert keys(people) == found and copy.read_bytes() == (data_set / f"000001.{ending}").read_bytes()
        assert "fetched again" in caplog.text


def test_a_copy_is_looked_at_once_per_process(data_set, tmp_path, monkeypatch):
    looked = []
    sha256 = copies._sha256
    monkeypatch.setattr(copies, "_sha256", lambda file: looked.append(file) or sha256(file))
    with served(data_set) as there:
        kept = Copies(tmp_path / "cache")
        for _ in range(3):
            kept.fetch(there.address + "000000.tar")
        assert len(looked) == 1
        Copies(tmp_path / "cache").fetch(there.address + "000000.tar")
        assert len(looked) == 2


@pytest.mark.parametrize("name", ["000000.tar", ".000000.tar.lock", ".000000.tar.origin", "000000.json", "*.tmp"])
def test_links_planted_among_copies_are_not_followed(data_set, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with served(data_set) as there:
        kept = Copies(tmp_path / "cache")
        target = kept.path(there.address + "000000.tar")
        target.parent.mkdir(parents=True)
        (target.parent / name.replace("*.tmp", f".000000.tar.tmp-{os.getpid()}")).symlink_to(victim)
        assert kept.fetch(there.address + "000000.tar").read_bytes() == (data_set / "000000.tar").read_bytes()
        assert victim.read_bytes() == b"precious" and not target.is_symlink()


def test_pipes_among_copies_hold_nobody_up(data_set, tmp_path):
    with served(data_set) as there:
        kept = Copies(tmp_path / "cache")
        target = kept.path(there.address + "000000.tar")
        target.parent.mkdir(parents=True)
        os.mkfifo(target)
        os.mkfifo(target.with_name(".000000.tar.lock"))
        assert kept.fetch(there.address + "000000.tar").read_bytes() == (data_set / "000000.tar").read_bytes()


@pytest.mark.parametrize("inner", [False, True])
def test_folders_of_others_are_refused(data_set, tmp_path, inner, monkeypatch):
    cache = tmp_path / "cache"
    with served(data_set) as there:
        url = there.address + "000000.tar"
        Copies(cache).fetch(url)
        open_to_all = Copies(cache).path(url).parent if inner else cache
        open_to_all.chmod(0o777)
        with pytest.raises(InputError, match="everybody can write into it; expected a folder of your own"):
            Copies(cache).fetch(url)
        open_to_all.chmod(0o700)
        assert Copies(cache).fetch(url).is_file()
        monkeypatch.setattr(copies.os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(InputError, match=f"belongs to user {os.getuid()}"):
            Copies(cache).fetch(url)
