"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import official_files
import pytest
import torch

# Parallel runs set it; commands under test would then wrap their tables as on a narrow terminal.
os.environ.pop("COLUMNS", None)

# The same examples on every run; HYPOTHESIS_PROFILE=default searches for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def one_thread():
    """Sums in the same order as in processes with one thread; and two threads wait for each other on shared cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_backbone():
    """The backbone `tiny` is smaller than any preset's, and a plain ViTPose."""
    from train.config import BACKBONES, BackboneSize

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", BackboneSize(2, 48, 3, 0.0))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of real label files and reference values that stands beside some checkouts."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def demo_smpl():
    """The embedded SMPL, float32."""
    from fitting import load_smpl

    return load_smpl.demo()


@pytest.fixture(scope="session")
def demo_skel():
    """The embedded SKEL, float32."""
    from fitting import SKEL

    return SKEL.demo()


@pytest.fixture(scope="session")
def random_models() -> tuple[dict, dict]:
    """(SMPL, SKEL) dictionaries of one small random pair. Do not change them."""
    return official_files.random_models(seed=3)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory, random_models) -> Path:
    """The small random pair as official pickles in smpl/ and skel/."""
    return official_files.write_model_directory(tmp_path_factory.mktemp("official") / "models", *random_models)
