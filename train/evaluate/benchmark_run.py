"""Methods on benchmarks: from the options of `hmr-skel evaluate` to its tables, numbers and pictures."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.command.devices import one_device
from pipelines.files.body_models import BodyModels
from pipelines.files.outputs import written
from schemas import InputError
from train.benchmarks.known import Opened, open_benchmark
from train.benchmarks.quirks import QUIRKS, input_quirks, without
from train.benchmarks.stream import BenchmarkCrops, crop_batches
from train.evaluate.attention import attention_maps, attention_sheet
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.estimates import FINAL, Method, focal_lengths, mean_method, network_method
from train.evaluate.measure import Measured, measure
from train.evaluate.networks import MEAN, Network, open_network
from train.evaluate.options import EvaluateOptions
from train.evaluate.pictures import worst_cases
from train.evaluate.protocols import Protocol, protocol
from train.evaluate.ready import check_ready
from train.evaluate.report import benchmark_summary, joined_tables, person_columns
from train.evaluate.tables import WIDTH, Result, main_tables, method_table, stage_table
from train.evaluate.two_stage import two_stage_method
from train.network.camera import bbox_cue
from train.network.inputs import assumed_framing, normalised
from train.network.mean_parameters import BETAS, CAM, POSES

log = logging.getLogger(__name__)

ATTENTION_BATCH = 8


def run_benchmarks(options: EvaluateOptions) -> int:
    """Measures every checkpoint and two-stage file on every benchmark, prints the tables, writes what --output asks."""
    if not (options.checkpoint or options.two_stage):
        raise InputError("nothing to measure", field="checkpoint", expected="CHECKPOINT..., mean or --two-stage")
    quirks, device = without(options.without), torch.device(one_device(options.device))
    whole = [open_benchmark(name, options.data) for name in options.benchmark]
    opened = [_limited(benchmark, options.people.limit) for benchmark in whole]
    if len({o.name for o in opened}) < len(opened):
        raise InputError("the same benchmark twice", field="--benchmark", expected="names that differ")
    second = _by_benchmark(options.two_stage, [o.name for o in opened])
    models = BodyModels(options.body_models, device=device)
    rows = {o.name: len(o.people) for o in whole}
    bodies = EvaluationBodies(models)
    camera = None if options.focal else options.camera
    networks = [
        open_network(name, options.which, device, camera=camera, patches=options.patches)
        for name in options.checkpoint
        if name != MEAN
    ]
    for benchmark in opened:
        rules = _rules(benchmark.benchmark.protocol, quirks, options.clean).values()
        check_ready(benchmark, rules, bodies, images=bool(options.checkpoint))
    fitted = {
        o.name: [two_stage_method(file, o.people, models, rows[o.name]) for file in second.get(o.name, [])]
        for o in opened
    }
    results, tables, pictures = [], [], 0
    for benchmark in opened:
        measured = []
        for methods, patches in _methods(networks, fitted[benchmark.name], options):
            settings = BenchmarkCrops(patches, not options.focal and any(n.camera for n in networks), quirks)
            found = _measured(benchmark, methods, settings, bodies, options, device)
            seconds = {m.name: m.seconds_per_person for m in methods}
            results += [
                Result(benchmark.name, m.method, v, m.stage, benchmark_summary(m, benchmark.people), seconds[m.method])
                for v, m in found
            ]
            measured += found
        tables += [person_columns(benchmark.name, v, m, benchmark.people) for v, m in measured]
        if options.output is not None:
            pictures += _write_pictures(benchmark, measured, networks, bodies, options, quirks, device)
    _print(opened, results, options)
    if options.output is not None:
        _write(options.output, opened, results, tables, options, quirks)
        sys.stdout.write(f"{options.output}: evaluation.json, people.parquet, {pictures} pictures\n")
    return 0


def _methods(
    networks: Sequence[Network], fitted: Sequence[Method], options: EvaluateOptions
) -> list[tuple[list[Method], str]]:
    """Methods by the crops that they want, so that each image is read once for all that want the same."""
    groups: dict[str, list[Method]] = {}
    for network in networks:
        method = network_method(network.name, network.model, network.camera, options.focal, options.layers)
        groups.setdefault(network.patches, []).append(method)
    first = next(iter(groups), "released")
    others = list(fitted)
    if MEAN in options.checkpoint:
        others.append(mean_method(*(torch.tensor(m) for m in (POSES, BETAS, CAM))))
    if others:
        groups[first] = groups.get(first, []) + others
    return [(_distinct(methods), patches) for patches, methods in groups.items()]


def _measured(
    opened: Opened,
    methods: list[Method],
    settings: BenchmarkCrops,
    bodies: EvaluationBodies,
    options: EvaluateOptions,
    device: torch.device,
) -> list[tuple[str, Measured]]:
    """Variant and figures, method by method. Where quirks show in what networks are given, those who look at images
    look twice: the clean variant is without these, too."""
    rules = _rules(opened.benchmark.protocol, settings.quirks, options.clean)
    apart = input_quirks(opened.people.layout, settings.quirks, settings.patches == "released", settings.whole)
    passes: list[tuple[list[Method], BenchmarkCrops, dict[str, Protocol]]] = [(methods, settings, rules)]
    if options.clean and apart:
        clean = {"clean": protocol(opened.benchmark.protocol, frozenset())}
        lookers, others = ([m for m in methods if m.images is wanted] for wanted in (True, False))
        as_published = {"published": rules["published"]}
        passes = [
            (lookers, settings, as_published),
            (lookers, replace(settings, quirks=frozenset()), clean),
            (others, settings, rules),
        ]
    found: list[tuple[str, Measured]] = []
    for some, crops, by in passes:
        if some:
            arguments = (bodies, crops, device, options.batch, options.workers, True)
            variants = {rule: variant for variant, rule in by.items()}
            found += [(variants[m.rules], m) for m in measure(opened, some, list(by.values()), *arguments)]
    names = [m.name for m in methods]
    return sorted(found, key=lambda pair: names.index(pair[1].method))


def _distinct(methods: list[Method]) -> list[Method]:
    """Two of the same name are numbered."""
    for n, method in enumerate(methods):
        same = sum(other.name == method.name for other in methods[:n])
        method.name += f" ({same + 1})" if same else ""
    return methods


def _rules(name: str, quirks: frozenset[str], clean: bool) -> dict[str, Any]:
    rules = {"published": protocol(name, quirks)}
    if clean and (tidy := protocol(name, frozenset())) != rules["published"]:
        rules["clean"] = tidy
    return rules


def _limited(opened: Opened, limit: int) -> Opened:
    return replace(opened, people=opened.people.take(np.arange(min(limit, len(opened.people))))) if limit else opened


def _by_benchmark(files: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Files of two-stage estimates by the benchmark they are for."""
    found: dict[str, list[str]] = {}
    for given in files:
        name, mark, file = given.partition("=")
        if not mark and len(names) > 1:
            raise InputError(f"{given!r} given", field="--two-stage", expected=f"NAME=FILE, NAME of {', '.join(names)}")
        if mark and name not in names:
            raise InputError(f"no benchmark {name!r}", field="--two-stage", expected=f"one of {', '.join(names)}")
        found.setdefault(name if mark else names[0], []).append(file if mark else given)
    return found


def _print(opened: Sequence[Opened], results: Sequence[Result], options: EvaluateOptions) -> None:
    from rich.console import Console

    console = Console(width=WIDTH)
    sys.stdout.write(main_tables({o.name: o.benchmark for o in opened}, results) + "\n\n")
    tables = [stage_table(o.name, results) for o in opened] if options.layers else []
    for table in [*tables, method_table(results)]:
        console.print(table)
        console.print()


def _write(
    folder: Path,
    opened: Sequence[Opened],
    results: Sequence[Result],
    tables: list[dict[str, Any]],
    options: EvaluateOptions,
    quirks: frozenset[str],
) -> None:
    import pyarrow.parquet as pq

    document = {
        "benchmarks": {
            o.name: {
                "file": o.people.file,
                "layout": o.people.layout,
                "protocol": o.benchmark.protocol,
                "people": len(o.people),
                "published": {method: list(values) for method, values in o.benchmark.published.items()},
            }
            for o in opened
        },
        "quirks": {name: text for name, text in QUIRKS.items() if name in quirks},
        "body_models": options.body_models,
        "results": [
            {
                "benchmark": r.benchmark,
                "method": r.method,
                "variant": r.variant,
                "stage": r.stage,
                "seconds_per_person": r.seconds,
                **r.numbers,
            }
            for r in results
        ],
    }
    text = json.dumps(_without_nan(document), indent=1, allow_nan=False)
    with written(folder / "evaluation.json") as hidden:
        hidden.write_text(text + "\n")
    with written(folder / "people.parquet") as hidden:
        pq.write_table(joined_tables(tables), hidden)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write_pictures(
    opened: Opened,
    measured: Sequence[tuple[str, Measured]],
    networks: Sequence[Network],
    bodies: EvaluationBodies,
    options: EvaluateOptions,
    quirks: frozenset[str],
    device: torch.device,
) -> int:
    """How many there are."""
    count = 0
    for variant, m in measured:
        if m.stage == FINAL and variant == "published" and options.worst:
            picture = worst_cases(m, opened, bodies, options.worst)
            if picture is not None:
                _write_png(options.output / f"worst_{opened.name}_{_plain(m.method)}.png", picture)
                count += 1
    for network in networks if options.attention else ():
        picture = _attention(network, opened, options, quirks, device)
        if picture is None:
            log.warning("%s: no layers that look at the image, so no picture of attention", network.name)
            continue
        _write_png(options.output / f"attention_{opened.name}_{_plain(network.name)}.png", picture)
        count += 1
    return count


@torch.inference_mode()
def _attention(
    network: Network, opened: Opened, options: EvaluateOptions, quirks: frozenset[str], device: torch.device
) -> np.ndarray | None:
    """None of a network without such layers."""
    people = opened.people.take(np.arange(min(options.attention, len(opened.people))))
    settings = BenchmarkCrops(network.patches, network.camera is not None, quirks)
    crops, maps = [], []
    for batch in crop_batches(people, opened.images, settings, ATTENTION_BATCH):
        batch = batch.to(device)
        framing = assumed_framing(network.model, batch.framing(focal_lengths(batch, network.camera, options.focal)))
        maps.append(attention_maps(network.model, normalised(batch.image), bbox_cue(framing)).cpu().numpy())
        crops.append(batch.image.cpu().numpy())
    shares = np.concatenate(maps)
    return attention_sheet(np.concatenate(crops), shares) if shares.shape[1] else None


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _write_png(path: Path, picture: np.ndarray) -> None:
    import cv2

    with written(path) as hidden:
        hidden.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
