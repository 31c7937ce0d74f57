"""Makes `fitting/fit/pose_prior.npz`: mean and covariance of poses that this package draws itself.

    python -m pipelines.demo.pose_prior

Poses come from the demo's key poses (`pipelines.demo.poses`), which were written by hand for this project: no captured
motion and no licensed data. Each counts twice, once mirrored, so that left and right have one prior.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

PEOPLE = 20_000
SEED = 2026


def main(out: str | Path | None = None) -> None:
    """Draw the poses and write the file."""
    from fitting.body.mirror import mirror_poses
    from fitting.body.skel import SKEL
    from fitting.fit.pose_prior import FILE
    from pipelines.demo.poses import draw_poses

    q = draw_poses(PEOPLE, SKEL.demo(dtype=torch.float64), np.random.default_rng(SEED)).q
    both = np.concatenate([q, mirror_poses(torch.from_numpy(q)).numpy()])[:, 3:]
    np.savez_compressed(out or FILE, mean=both.mean(0).astype(np.float32), covariance=np.cov(both.T).astype(np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:2])
