"""A process that owns one accelerator: it loads the body models once and fits for every worker of this machine.

    python -m pipelines.convert.device_server SOCKET '{"body_models": "demo", ...}'

Workers (pipelines.convert.sharing) start it when they need it and send rows over a Unix socket. Requests are served one
at a time in the order in which they come. It ends some seconds after the last worker has gone, however that went.

A request is a JSON object and an .npz of arrays; the answer is any number of {"progress": people} and then
{"seconds": s} and an .npz, or {"error": ..}.
"""

from __future__ import annotations

import io
import json
import socket
import sys
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.write.shards import npz_bytes
from schemas import InputError

if TYPE_CHECKING:
    from pipelines.convert.bodies import Bodies

LINGER = 5.0
"""Seconds without any worker after which the process ends."""


def main(argv: list[str]) -> int:
    from pipelines.convert.bodies import LoadedBodies

    path, settings = argv
    serve(Path(path), LoadedBodies(**json.loads(settings)))
    return 0


def serve(path: Path, bodies: Bodies, linger: float = LINGER) -> None:
    """Answer requests at the socket `path` until nobody has been connected for `linger` seconds."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        workers: list[Connection] = []
        while ready := wait([listener, *workers], None if workers else linger):
            for source in ready:
                if source is listener:
                    workers.append(Connection(listener.accept()[0].detach()))
                elif not _answered(source, bodies):  # type: ignore[arg-type]
                    source.close()  # type: ignore[union-attr]
                    workers.remove(source)  # type: ignore[arg-type]
        path.unlink(missing_ok=True)  # before the socket closes: who finds it from now on would start another server


def send(connection: Connection, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    connection.send_bytes(json.dumps(document).encode())
    connection.send_bytes(npz_bytes(arrays))


def receive_arrays(connection: Connection) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(connection.recv_bytes()), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _answered(worker: Connection, bodies: Bodies) -> bool:
    """False if the worker has gone."""

    def progress(people: int) -> None:
        worker.send_bytes(json.dumps({"progress": people}).encode())

    try:
        request = json.loads(worker.recv_bytes())
        arrays = receive_arrays(worker)
        began = time.perf_counter()
        try:
            if request["call"] == "keypoints":
                points, confidence = bodies.keypoints(request["gender"], **arrays)
                found = {"points": points, "confidence": confidence}
            else:
                found = bodies.fit(request["gender"], **arrays, progress=progress)
        except InputError as error:
            answer = {name: getattr(error, name) for name in ("problem", "file", "row", "field", "expected")}
            worker.send_bytes(json.dumps({"error": answer}).encode())
        except Exception as error:
            if isinstance(error, OSError):
                raise
            worker.send_bytes(json.dumps({"failure": traceback.format_exc()}).encode())
        else:
            send(worker, {"seconds": time.perf_counter() - began}, {k: np.asarray(v) for k, v in found.items()})
        return True
    except (EOFError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
