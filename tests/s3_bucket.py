"""An S3 of this machine, moto's, in a thread; fsspec is told of it, as FSSPEC_S3_ENDPOINT_URL and others would."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_bucket() -> Iterator[str]:
    """The URL of a new bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as patch:
            told = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
            patch.setitem(fsspec.config.conf, "s3", told)
            patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
            url = f"s3://bucket-{uuid.uuid4().hex}"
            fsspec.filesystem("s3").mkdir(url)
            yield url
    finally:
        server.stop()


def upload(folder: Path, url: str) -> None:
    """The files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fsspec.filesystem("s3").put_file(str(path), f"{url}/{path.relative_to(folder)}")


def content(url: str) -> dict[str, bytes]:
    """What lies below a URL: name -> bytes."""
    system = fsspec.filesystem("s3", use_listings_cache=False)
    folder = url.removeprefix("s3://")
    return {path.removeprefix(f"{folder}/"): system.cat_file(path) for path in system.find(folder)}
