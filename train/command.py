"""The command `hmr-skel train`; `torchrun --nproc-per-node N --no-python hmr-skel train ...` for N devices."""

from __future__ import annotations

import sys

from pipelines.command.options import parse_options
from train.options import PRESETS, TrainOptions


def main(argv: list[str] | None = None, prog: str = "hmr-skel train") -> int:
    """Train SKEL-CF on HMR-SKEL shards."""
    arguments = sys.argv[1:] if argv is None else argv
    options = parse_options(TrainOptions, arguments, prog, main.__doc__ or "", presets=PRESETS)
    from train.run.trainer import train

    return train(options)


if __name__ == "__main__":
    sys.exit(main())
