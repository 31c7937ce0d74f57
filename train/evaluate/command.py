"""The command `hmr-skel evaluate`: networks on the field's benchmarks, or on people of HMR-SKEL shards."""

from __future__ import annotations

import json
import sys

from pipelines.command.devices import one_device
from pipelines.command.options import parse_options
from pipelines.files.outputs import check_output_file, check_output_folder, written
from schemas import InputError
from train.evaluate.options import EvaluateOptions


def main(argv: list[str] | None = None, prog: str = "hmr-skel evaluate") -> int:
    """Measure networks by the benchmarks' protocols: MPJPE, PA-MPJPE, PVE and accuracy of keypoints."""
    options = parse_options(EvaluateOptions, sys.argv[1:] if argv is None else argv, prog, main.__doc__ or "")
    if options.benchmark:
        if options.output is not None:
            check_output_folder(options.output, "--output")
        from train.evaluate.benchmark_run import run_benchmarks

        return run_benchmarks(options)
    if options.two_stage:
        raise InputError("no benchmark given", field="--benchmark", expected="the benchmark of the SMPL estimates")
    if len(options.checkpoint) != 1:
        given = f"{len(options.checkpoint)} checkpoints given"
        raise InputError(given, field="checkpoint", expected="one for --shards, or --benchmark")
    return _on_shards(options)


def _on_shards(options: EvaluateOptions) -> int:
    if options.output is not None:
        check_output_file(options.output, "--output", [".json"])
    import torch
    from rich.console import Console
    from rich.table import Table

    from pipelines.files.body_models import BodyModels
    from train.data.loader import PeopleStream
    from train.data.shards import LABELS, SOURCE
    from train.evaluate.bodies import EvaluationBodies
    from train.evaluate.networks import MEAN, load_network
    from train.evaluate.shards import evaluate_shards, mean_estimator, mean_person, network_estimator, shard_summary

    device = torch.device(one_device(options.device))
    people = PeopleStream(options.people, options.batch, shuffle=False, fields=(*LABELS, *SOURCE))
    bodies = EvaluationBodies(BodyModels(options.body_models, device=device))
    if options.checkpoint[0] == MEAN:
        estimator = mean_estimator(*mean_person(people))
    else:
        estimator = network_estimator(load_network(options.checkpoint[0], options.which, device))
    name, truth = options.protocol, options.truth
    errors = evaluate_shards(estimator, people, bodies, device, name, truth, options.workers, True)
    numbers = shard_summary(errors)
    table = Table(title=f"{len(errors['key']):,} people, protocol {name}, truth {truth}", title_justify="left")
    for column in numbers:
        words = column.removesuffix("_mm").replace("_", " ").upper()
        table.add_column(f"{words}, mm" if column.endswith("_mm") else words, justify="right")
    table.add_row(*(f"{value:.3f}" if key.startswith("pck") else f"{value:.1f}" for key, value in numbers.items()))
    Console(width=None if sys.stdout.isatty() else 80).print(table)
    if options.output is not None:
        document = {"people": len(errors["key"]), "protocol": name, "truth": truth, **numbers}
        document["errors"] = {key: values.tolist() for key, values in errors.items()}
        with written(options.output) as hidden:
            hidden.write_text(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
