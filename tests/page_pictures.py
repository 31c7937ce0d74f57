"""What headless Chromium shows of a page, as pixels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 1000, 620
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def screenshot(page: Path, state: str, folder: Path) -> np.ndarray:
    """(H, W, 3) what headless Chromium shows of the page, RGB."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian's package chromium)")
    target = folder / "shot.png"
    target.unlink(missing_ok=True)
    flags = "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-sync"
    flags += " --disable-component-update --hide-scrollbars --use-angle=swiftshader --enable-unsafe-swiftshader"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"]
    command += ["--virtual-time-budget=20000", f"--screenshot={target}", f"{page.as_uri()}#{state}"]
    done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    assert target.exists(), done.stderr[-2000:]
    return cv2.imread(str(target))[:, :, ::-1].astype(int)


def changed(shown: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels in which two screenshots differ, the controls at the foot of the page left out."""
    found = np.abs(shown - other).max(2) > 8
    found[HEIGHT - 150 :] = False  # headless Chromium's window is lower than its picture
    return found
