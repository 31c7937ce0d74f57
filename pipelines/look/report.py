"""report.html: a data set on one page that needs nothing else: people, tables, histograms drawn as SVG.

What it was made with, its best, median and worst people, distances per data set and stage, joint angles against their
limits, rejects. It is made from the shards' Parquet files, one at a time; the same files give the same page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitting.anatomy import COORDINATE_NAMES
from pipelines.files.body_models import body_models_in_words
from pipelines.files.outputs import written
from pipelines.files.urls import UrlPath
from pipelines.look.angle_counts import AngleCounts
from pipelines.look.charts import ALARM, Histogram, bars_svg, histogram_svg, round_edges, tally

if TYPE_CHECKING:
    from pipelines.files.shards import Shard

REPORT_FILE = "report.html"
_FINE = 1 << 16
_LARGEST_MM = 4096.0
_RUN_FILE = "run.json"

_STYLE = """body{font-family:sans-serif;margin:2em auto;max-width:1260px;color:#222;line-height:1.4}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}h2{margin-top:1.6em}svg{margin:4px 8px 4px 0;vertical-align:top}
.note{color:#555;max-width:60em}img{max-width:100%;display:block}.facts td{text-align:left}"""


class Distances:
    """Mean, quantiles and histogram of one distance, mm, from counts in bins of 1/16 mm: no list is kept."""

    def __init__(self) -> None:
        self.edges = np.linspace(0, _LARGEST_MM, _FINE + 1)
        self.counts = np.zeros(_FINE, np.int64)
        self.total, self.people, self.largest = 0.0, 0, 0.0

    def add(self, values: np.ndarray) -> None:
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        self.counts += tally(values, self.edges)
        self.total += float(values.sum())
        self.people += len(values)
        self.largest = max(self.largest, float(values.max(initial=0)))

    @property
    def mean(self) -> float:
        return self.total / self.people if self.people else float("nan")

    def quantile(self, part: float) -> float:
        """To half a bin, that is 1/32 mm."""
        if not self.people:
            return float("nan")
        place = min(int(np.searchsorted(np.cumsum(self.counts), part * self.people)), _FINE - 1)
        return float(min((self.edges[place] + self.edges[place + 1]) / 2, self.largest))

    def chart(self, title: str, top: float) -> Histogram:
        edges = round_edges(top)
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        counts = np.histogram(np.minimum(middles, edges[-1]), edges, weights=self.counts)[0]
        return Histogram(title, edges, counts, "mm", [(self.mean, ALARM)] if self.people else [])


def write_report(
    shards: Sequence[Shard],
    path: Path | UrlPath,
    rejects: dict[str, int] | None = None,
    title: str = "HMR-SKEL",
    body_models: str | None = None,
    manifest: dict | None = None,
) -> None:
    """Write the page for these shards. `rejects`: reason -> rows, by default counted from the shards' files.

    `manifest` stands in for a dataset.json that is not there yet. `body_models` is what to draw people with, by default
    what it names.

    Raises InputError if a shard cannot be read or the page not be written.
    """
    from pipelines.files.parquet import parquet_problems, read_table
    from pipelines.files.shards import read_parts, rejects_of, whole_folder
    from schemas import QUANTILE_FIELDS, STAGES

    distances: dict[str, dict[str, Distances]] = {}
    people, converged, exceeded, pressed = {}, {}, 0, 0
    angles = AngleCounts(COORDINATE_NAMES)
    verdicts: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    columns = ["label_file", "converged", "verdict", "label_check", "limits_exceeded", "limits_pressed", "poses"]
    columns += ["stage_vertex_error_mm"]
    for shard in shards:
        table = read_parts([shard], [*columns, *QUANTILE_FIELDS])[0]
        files = np.asarray(table["label_file"].to_pylist(), object)
        stages = _matrix(table["stage_vertex_error_mm"], len(STAGES))
        angles.add(_matrix(table["poses"], len(COORDINATE_NAMES)))
        values = {name: table[name].to_numpy() for name in QUANTILE_FIELDS}
        values |= {f"stage: {stage}": stages[:, i] for i, stage in enumerate(STAGES)}
        fine = table["converged"].to_numpy()
        exceeded += int((table["limits_exceeded"].to_numpy() > 0).sum())
        pressed += int((table["limits_pressed"].to_numpy() > 0).sum())
        verdicts.update(table["verdict"].drop_null().to_pylist())
        checks.update(table["label_check"].drop_null().to_pylist())
        for file in sorted(set(files)):
            mine = files == file
            kinds = distances.setdefault(file, {name: Distances() for name in values})
            for name, numbers in values.items():
                kinds[name].add(numbers[mine])
            people[file] = people.get(file, 0) + int(mine.sum())
            converged[file] = converged.get(file, 0) + int(fine[mine].sum())
    reasons: list[dict[str, Any]] = []
    folder = whole_folder(shards)
    if folder and (rejected := rejects_of(folder)).is_file():
        with parquet_problems(rejected):
            counted = read_table(rejected, ["label_file", "reason"])
            reasons = counted.group_by(["label_file", "reason"]).aggregate([([], "count_all")]).to_pylist()
    stored, run = _documents(shards[0].folder)
    manifest = manifest or stored
    page = [
        f"<h1>{escape(title)}</h1>",
        _made_line(manifest, run),
        *_overview(people, converged, reasons, rejects, exceeded, pressed),
        *_words_part("Verdicts", verdicts),
        *_words_part("Labels compared with themselves", checks),
    ]
    page += _people_part(shards, body_models, manifest)
    page += _distance_part(distances, QUANTILE_FIELDS, STAGES)
    page += _angle_part(angles, manifest)
    page += _facts_part(manifest, run)
    text = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    text += f"<style>{_STYLE}</style></head><body>\n" + "\n".join(page) + "\n</body></html>\n"
    with written(path) as hidden:
        hidden.write_text(text, encoding="utf-8")


def _matrix(column, width: int) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _overview(people, converged, reasons, rejects, exceeded: int, pressed: int) -> Iterable[str]:
    rejected: dict[str, int] = {}
    by_reason: dict[str, int] = dict(rejects or {})
    for entry in reasons:
        rejected[entry["label_file"]] = rejected.get(entry["label_file"], 0) + entry["count_all"]
        if rejects is None:
            by_reason[entry["reason"]] = by_reason.get(entry["reason"], 0) + entry["count_all"]
    rows = []
    for file in sorted({*people, *rejected}):
        count, fine = people.get(file, 0), converged.get(file, 0)
        share = f"{fine / count:.2%}" if count else "-"
        rows.append([file, f"{count + rejected.get(file, 0):,}", f"{count:,}", f"{rejected.get(file, 0):,}", share])
    yield _table(["label file", "rows", "people written", "rejected", "fits converged"], rows)
    total = sum(people.values())
    yield f"<p>{exceeded:,} of {total:,} people have an angle outside its limit, {pressed:,} have one on its limit.</p>"
    yield "<h2>Rejects</h2>"
    if by_reason:
        yield bars_svg(dict(sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))))
    else:
        yield "<p>None.</p>"


def _distance_part(distances, fields: Sequence[str], stages: Sequence[str]) -> Iterable[str]:
    yield "<h2>Distance from SKEL to SMPL</h2>"
    yield (
        '<p class="note">Over people, millimetres. Mean, 95th percentile and largest distance are over the vertices of '
        "one person. Quantiles are exact to 0.04 mm; those in dataset.json are exact. The red line "
        "is the mean; what lies beyond the axis counts in the last bar.</p>"
    )
    kinds = [*fields, *(f"stage: {stage}" for stage in stages)]
    words = {name: name.removesuffix("_mm").replace("_", " ") for name in fields}
    words |= {f"stage: {stage}": f"vertex error after stage: {stage}" for stage in stages}
    for file, found in sorted(distances.items()):
        yield f"<h3>{escape(file)}</h3>"
        rows = []
        for name in kinds:
            d = found[name]
            rows.append([words[name], *(f"{v:.2f}" for v in (d.mean, *map(d.quantile, (0.5, 0.95, 0.99)), d.largest))])
        yield _table(["", "mean", "median", "95 %", "99 %", "largest"], rows)
        for name in kinds:
            yield histogram_svg(found[name].chart(words[name], found[name].quantile(0.995) or 1.0))


def _people_part(shards: Sequence[Shard], body_models: str | None, manifest: dict) -> Iterable[str]:
    """Pictures, or why there are none: a page without them is better than no page."""
    from pipelines.look.people_pictures import people_html
    from schemas import InputError

    yield "<h2>People</h2>"
    yield '<p class="note">By mean vertex distance from SMPL, mm: the picture, and skin and bones over it.</p>'
    try:
        yield from people_html(shards, body_models, manifest)
    except InputError as error:
        yield f"<p>They could not be drawn: {escape(str(error))}</p>"


def _words_part(title: str, words: Mapping[str, int]) -> Iterable[str]:
    if words:
        yield f"<h2>{title}</h2>"
        yield bars_svg(dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))))


def _angle_part(angles: AngleCounts, manifest: dict) -> Iterable[str]:
    limits, whose = _limits_of(manifest)
    yield "<h2>Joint angles</h2>"
    yield (
        f'<p class="note">SKEL\'s 46 coordinates, degrees, over all people; dashed: {escape(whose)}. '
        "An axis spans 99.9 % of the people; who lies beyond counts in the outer bars.</p>"
    )
    for chart in angles.charts(limits):
        yield histogram_svg(chart, 240, 110)


def _limits_of(manifest: dict) -> tuple[np.ndarray, str]:
    """(46, 2) joint limits, rad, that the fit was held to, infinite where there is none, and what they are called."""
    from fitting.body.limits import HUMAN_LIMITS

    stated, options = manifest.get("joint_limits"), manifest.get("options") or {}
    if not isinstance(stated, dict) or stated.keys() != set(COORDINATE_NAMES):
        return HUMAN_LIMITS, "the human limits"
    table = np.radians(np.array([stated[name] for name in COORDINATE_NAMES], float))
    return np.nan_to_num(table, nan=np.inf), f"the fit's limits ({options.get('limits', 'human')})"


def _documents(folder: Path | UrlPath) -> tuple[dict, dict]:
    """The manifest of a data set and the record of its last run; empty where there are none."""
    from pipelines.files.shards import DATASET_FILE, read_document
    from schemas import DATASET

    manifest, run = (
        read_document(folder / name, schema) if (folder / name).is_file() else {}
        for name, schema in ((DATASET_FILE, DATASET), (_RUN_FILE, None))
    )
    return manifest, run


def _made_line(manifest: dict, run: dict) -> str:
    options, versions = (manifest.get(name) or {} for name in ("options", "versions"))
    parts = [
        f"made {run['started']}" if run.get("started") else "",
        f"by hmr-skel {versions['hmr-skel']}" if versions.get("hmr-skel") else "",
        f"body models: {body_models_in_words(str(options['body_models']), str(options.get('gender', 'male')))}"
        if options.get("body_models")
        else "",
    ]
    known = ", ".join(part for part in parts if part)
    return f'<p class="note">{escape(known[:1].upper() + known[1:])}</p>' if known else ""


def _facts_part(manifest: dict, run: dict) -> Iterable[str]:
    """What the data set was made from, with and when, as far as its manifest and the last run's record say."""
    made = {"date": run.get("started"), "machine": run.get("system"), "device": run.get("device")}
    parts = {"made": made} | {name: manifest.get(name) for name in ("options", "inputs", "versions")}
    yield "<h2>Made with</h2>"
    for name, facts in parts.items():
        known = {k: v for k, v in facts.items() if v not in (None, "", [])} if isinstance(facts, dict) else {}
        if known:
            yield f"<h3>{name.capitalize()}</h3>"
            rows = [[str(k), ", ".join(map(str, v)) if isinstance(v, list) else str(v)] for k, v in known.items()]
            yield _table(["", ""], rows).replace("<table>", '<table class="facts">', 1)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows]
    return "\n".join(lines) + "</table>"
