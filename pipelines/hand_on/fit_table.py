"""The closing tables of `hmr-skel fit`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.files.body_models import body_models_in_words
from pipelines.write.statistics import mean_and_quantiles
from schemas import QUANTILE_FIELDS, STAGES, Columns

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.convert.settings import FitSettings


def show_fit(fit: Columns, start: int, seconds: float, output: Path, out: Console, settings: FitSettings) -> None:
    """The closing tables: distances, stages, limits, rows that could not be fitted, rate."""
    from rich.table import Table

    from fitting.anatomy import COORDINATE_NAMES

    valid = fit["valid"]
    people = int(valid.sum())
    unplaced = int((fit["trans_source"] == "none").sum()) if "trans_source" in fit else 0
    distances = Table("over people, mm", "mean", "p50", "p95", "max", title=str(output), title_justify="left")
    rows = {name: fit[name][valid] for name in QUANTILE_FIELDS}
    if not np.isnan(fit["betas_gain_mm"]).all():
        rows["betas_gain_mm"] = fit["betas_gain_mm"][valid]
    rows |= {f"vertex_error_mm after {s}": fit["stage_vertex_error_mm"][valid, i] for i, s in enumerate(STAGES)}
    for name, values in rows.items():
        if people:
            numbers = mean_and_quantiles(values, (0.5, 0.95, 1.0))
            distances.add_row(name, *(f"{number:.2f}" for number in numbers.values()))
    out.print(distances)
    pressed = fit["limits_pressed"][valid].sum(axis=0)
    often = [f"{COORDINATE_NAMES[i]} {pressed[i]}" for i in np.argsort(-pressed, kind="stable")[:5] if pressed[i]]
    counts = Table(show_header=False)
    counts.add_row("rows", f"{len(valid):,}")
    counts.add_row("fitted", f"{people:,}")
    counts.add_row("converged", f"{int(fit['converged'].sum()):,}")
    for word, count in sorted(Counter(fit["verdict"][valid].tolist()).items()):
        counts.add_row(f"verdict: {word}", f"{count:,}", style=None if word == "good" else "yellow")
    counts.add_row("joint angles beyond a limit", f"{int(fit['limits_exceeded'][valid].sum()):,}")
    counts.add_row("joint angles on a limit", f"{int(pressed.sum()):,}" + (f" ({', '.join(often)})" if often else ""))
    if people < len(valid):
        bad = np.flatnonzero(~valid)
        listed = ", ".join(str(start + row) for row in bad[:10]) + (", ..." if len(bad) > 10 else "")
        counts.add_row("unusable, kept as NaN", f"{len(bad):,} (rows {listed})", style="red")
    if unplaced:
        counts.add_row("without translation: zero (trans_source none)", f"{unplaced:,}")
    genders = Counter(fit["smpl_gender"].astype(str).tolist()) if "smpl_gender" in fit else {}
    if genders:
        counts.add_row("SMPL models", ", ".join(f"{gender} {count:,}" for gender, count in sorted(genders.items())))
    counts.add_row("body models", body_models_in_words(settings.body_models, settings.gender))
    counts.add_row("people per second", f"{people / max(seconds, 1e-9):,.1f}")
    out.print(counts)
