"""Bodies for processes of their own: they tell in a file which process fitted where and when."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.convert.settings import FitSettings
from pipelines.convert.sharing import SharedBodies
from schemas import InputError

FIT_S = 0.02
"""Seconds that a person takes."""


@dataclass
class StandIn:
    """`settings.body_models` is the folder of the log."""

    settings: FitSettings
    device: str

    def fit(self, gender, poses, betas, trans, progress, *, spent):
        folder = Path(self.settings.body_models)
        if gender == "nobody":
            raise InputError("no such body", file="models", field="gender", expected="another")
        if gender == "bug":
            raise ZeroDivisionError("a bug")
        began = time.monotonic()
        with open(folder / "begun", "a") as begun:
            begun.write(f"{os.getpid()}\n")
        time.sleep(FIT_S * len(poses))
        if gender == "deadly" and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        with open(folder / "log", "a") as log:
            log.write(f"{self.device} {os.getpid()} {began} {time.monotonic()}\n")
        spent("", time.monotonic() - began)
        return {"poses": poses + 1, "converged": np.ones(len(poses), bool)}

    def keypoints(self, gender, poses, betas):
        return np.ones((len(poses), 44, 3)), np.ones(44)


def stand_in(folder, devices=("gpu:0",)):
    return SharedBodies(FitSettings(str(folder)), devices, "a run", StandIn, Path(folder))


def fit(bodies, people, gender="neutral", **more):
    poses = np.arange(people * 72, dtype=np.float32).reshape(people, 72)
    zeros = np.zeros((people, 10), np.float32), np.zeros((people, 3), np.float32)
    return poses, bodies.fit(gender, poses, *zeros, more.pop("progress", lambda count: None), **more)
