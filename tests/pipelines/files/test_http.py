"""Labels and tars on a web server: read by range, and refused with a line where the server has no ranges."""

from __future__ import annotations

import http.server
import io
import json
import re
import tarfile
import threading
from collections import Counter
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from pipelines.build_hmr_skel import main
from pipelines.files import urls
from pipelines.files.storage import find
from pipelines.files.urls import UrlPath

PEOPLE = 4


@contextmanager
def served(folder, ranges=True):
    """A folder behind HTTP: its address, and how many bytes of each file went out."""
    sent: Counter[str] = Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def end_headers(self):
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

        def do_GET(self):
            wanted = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
            path = folder / self.path.lstrip("/")
            if not (ranges and wanted and path.is_file()):
                sent[self.path] += path.stat().st_size if path.is_file() else 0
                super().do_GET()
                return
            data = path.read_bytes()
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            piece = data[first : last + 1]
            sent[self.path] += len(piece)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(len(piece)))
            self.end_headers()
            self.wfile.write(piece)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in {
            "aic-train/0.jpg": cv2.imencode(".jpg", rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))[1].tobytes(),
            "unused.bin": bytes(20_000_000),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    np.savez(
        folder / "aic-release.npz",
        imgname=np.array(["aic-train/0.jpg"] * PEOPLE),
        center=np.full((PEOPLE, 2), 60.0),
        scale=np.full(PEOPLE, 0.4),
        pose_cam=rng.normal(0, 0.1, (PEOPLE, 72)).astype(np.float32),
        shape=rng.normal(0, 0.5, (PEOPLE, 10)).astype(np.float32),
        cam_int=np.tile(np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]), (PEOPLE, 1, 1)),
        gtkps=rng.uniform(0, 120, (PEOPLE, 44, 3)),
        trans_cam=np.tile([0.0, 0, 4], (PEOPLE, 1)),
    )
    return folder


def convert(annotations, images, output):
    more = ["--crop-size", "64", "--threads", "1", "--quiet"]
    return main(["--annotations", annotations, "--images", images, "--output", str(output), *more])


def test_labels_and_tars_come_over_http(inputs, tmp_path):
    assert convert(str(inputs / "*.npz"), str(inputs), tmp_path / "local") == 0
    with served(inputs) as (address, sent):
        assert find(f"{address}/*.npz") == [f"{address}/aic-release.npz"]  # its page lists the files
        assert convert(f"{address}/aic-release.npz", f"{address}/0.tar", tmp_path / "http") == 0
    assert sent["/0.tar"] < 10_000_000  # what is read ahead of two headers, and the image; not all that lies between
    for name in ("000000.tar", "000000.parquet"):
        assert (tmp_path / "http" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert json.loads((tmp_path / "http" / "dataset.json").read_text())["samples"] == PEOPLE


def test_a_server_without_ranges_is_refused_with_a_line(inputs, tmp_path, capfd):
    with served(inputs, ranges=False) as (address, _):
        assert convert(f"{address}/aic-release.npz", "none", tmp_path / "out") == 2
    [line] = capfd.readouterr().err.splitlines()
    assert f"{address}/aic-release.npz" in line and "whole files" in line


def test_what_is_not_there_is_refused_with_a_line(inputs, tmp_path, capfd):
    with served(inputs) as (address, _):
        assert convert(f"{address}/none.npz", "none", tmp_path / "out") == 2
        [line] = capfd.readouterr().err.splitlines()
        assert f"{address}/none.npz" in line
        with pytest.raises(OSError, match="cannot be written"):
            UrlPath(f"{address}/new.json").write_text("{}")
    assert convert(f"{address}/aic-release.npz", "none", tmp_path / "out") == 2  # nobody answers any more
    [line] = capfd.readouterr().err.splitlines()
    assert address in line


def test_a_page_is_a_folder_and_a_file_is_none(inputs):
    with served(inputs) as (address, _):
        assert UrlPath(address).is_dir() and not UrlPath(f"{address}/0.tar").is_dir()
        assert UrlPath(f"{address}/0.tar").is_file()
        assert UrlPath(f"{address}/0.tar").stat().st_size == (inputs / "0.tar").stat().st_size


def test_a_server_that_falls_silent_is_given_up(monkeypatch):
    """Not one that takes long: there is no limit to a whole file."""
    monkeypatch.setattr(urls, "_SILENCE", 0.2)
    ended = threading.Event()

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b"half")
            ended.wait()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = UrlPath(f"http://127.0.0.1:{server.server_port}/0.tar")
        with pytest.raises(OSError, match=r"(?i)timeout"):
            path.read_bytes()
        ended.set()
        server.shutdown()
    assert urls._file_system(path).client_kwargs["timeout"].total is None
