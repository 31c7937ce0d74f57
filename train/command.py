"""The command `hmr-skel train`; `torchrun --nproc-per-node N -m train.command ...` trains on N devices."""

from __future__ import annotations

import sys

from train.options import TrainOptions, parse_options


def main(argv: list[str] | None = None, prog: str = "hmr-skel train") -> int:
    """Train SKEL-CF on HMR-SKEL shards."""
    options = parse_options(TrainOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__)
    from train.run.trainer import train

    return train(options)


if __name__ == "__main__":
    sys.exit(main())
