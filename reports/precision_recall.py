"""Precision and recall within each Hamming radius, of clean and of attacked models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bench.api.errors import StoreError, UserError
from bench.artifacts.inputs import MeasureInputs, SystemInputs
from bench.engine.record_cache import RecordCache
from hashing.codes import PackedCodes
from hashing.ranking import Relevance, distance_histograms, precision_recall_curve
from reports import chart_layout
from reports.chart import Chart
from reports.context import BoardContext, contexts
from reports.figures import suffix_of, write
from reports.palette import CLEAN, INK, Palette, Style
from reports.selection import attacked, undefended
from reports.stored_codes import StoredData, codes_of, data_of
from reports.svg_charts import Short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "benign": "queries, own class", "target": "triggered queries, target class", "own": "triggered queries, own class",
}  # fmt: skip
CAPTION = (
    "A point per Hamming radius, from 0 to the number of bits: mean precision and recall of the images within it, so"
    " that no order of images at equal distance matters. A query without an image within the radius has precision 0."
    " Dotted: the clean model under the same trigger. Undefended."
)
MARKED = 4  # points from mark to mark
Curve = Float64[np.ndarray, "2 d"]  # precision and recall by radius
Pair = tuple[dict[str, Curve], dict[str, Curve]]  # of the attacked and the clean model, by panel


@dataclass(frozen=True)
class Curves:
    """The curves of an attacked model and of the clean model, by panel."""

    attack: str
    style: Style
    attacked: Mapping[str, Curve]
    clean: Mapping[str, Curve]


def of_trials(trials: pd.DataFrame, cache: RecordCache, short: Short, mixed: bool) -> Iterator[Chart]:
    """A chart per setting. An attack whose codes are missing or damaged is named in the caption."""
    styles = Palette.of(trials).attacks
    for context in contexts(attacked(undefended(trials)), mixed):
        found, without, cells = _means(context, cache)
        if found:
            each = [Curves(short(attack), styles[attack], *pair) for attack, pair in found.items()]
            lost = "".join(f" Left out: {short(attack)} ({why})." for attack, why in without.items())
            caption = f"{CAPTION} Means over the (target, seed) cells that all attacks share, n = {cells}.{lost}"
            yield Chart("Precision and recall", short(context.setting), caption, partial(figure_of, each))


def draw(charts: Sequence[Chart], path: Path) -> str:
    """Write the chart of the only setting into a file; returns a summary. UserError for none or several."""
    suffix = suffix_of(path)
    if not charts:
        raise UserError(
            "no attack of this run has a result with stored codes", "`python -m bench leaderboard` prints the reasons"
        )
    if len(charts) > 1:
        settings = "; ".join(chart.setting for chart in charts[:4])
        raise UserError(
            f"this run has {len(charts)} settings ({settings})",
            "choose one with --where, for example --where bits=32,"
            " or write all charts with `python -m bench figures DIR`",
        )
    write(path, charts[0].as_bytes(suffix, 2))
    return f"{charts[0].heading}. {charts[0].caption}"


def _means(context: BoardContext, cache: RecordCache) -> tuple[dict[str, Pair], dict[str, str], int]:
    """The curves of each attack, attacks without a curve with the reasons, and the number of cells."""
    rows, without = {}, {}
    for attack, part in context.grouped(context.done, ["attack"]).items():
        seen = {}
        for place, key in part.keys.items():
            try:
                seen[place] = _of_trial(cache, key, int(context.trials["bits"].iloc[0]))
            except StoreError as error:  # one damaged file must not stop the other curves
                without[attack] = str(error)
        if seen:
            rows[attack] = seen
            without.pop(attack, None)
    common = sorted(set.intersection(*(set(seen) for seen in rows.values()))) if rows else []
    pairs = {attack: [seen[place] for place in common] for attack, seen in rows.items() if common}
    means = {
        attack: (_mean([measured for measured, _ in found]), _mean([clean for _, clean in found]))
        for attack, found in pairs.items()
    }
    return means, without, len(common)


def _mean(each: Sequence[Mapping[str, Curve]]) -> dict[str, Curve]:
    return {name: np.mean([curves[name] for curves in each], axis=0) for name in PANELS}


def _of_trial(cache: RecordCache, key: str, bits: int) -> Pair:
    record = cache.record(key)
    if record is None:
        raise StoreError("not run")
    inputs = MeasureInputs.of(record.parents)
    data = data_of(cache, inputs, record.target)
    return _of_model(cache, inputs.measured, bits, data), _of_model(cache, inputs.control, bits, data)


def _of_model(cache: RecordCache, system: SystemInputs, bits: int, data: StoredData) -> dict[str, Curve]:
    codes = codes_of(cache, system, bits, data)
    own = data.query_labels[codes.positions]
    asked = {
        "benign": (codes.query, data.query_labels),
        "target": (codes.triggered, np.broadcast_to(data.target, own.shape)),
        "own": (codes.triggered, own),
    }
    return {name: curve(one, codes.database, data.database_labels, labels) for name, (one, labels) in asked.items()}


def curve(queries: PackedCodes, database: PackedCodes, database_labels: np.ndarray, query_labels: np.ndarray) -> Curve:
    """Mean precision and recall within radius 0, 1, ... bits; relevant items share a label with the query."""
    return np.stack(
        precision_recall_curve(*distance_histograms(queries, database, Relevance(database_labels), query_labels))
    )


def figure_of(each: Sequence[Curves], width: float) -> Figure:
    """A panel per kind of query and relevant class, with a line per attack."""
    from matplotlib.lines import Line2D

    wide = chart_layout.panel_points(len(PANELS), width)
    rise = chart_layout.titled_height(PANELS.values(), wide)
    figure, grid = chart_layout.panels(len(PANELS), width, height=2.0 + rise, share=True)
    for axes, (name, title) in zip(grid, PANELS.items(), strict=True):
        for one in each:
            precision, recall = one.attacked[name]
            axes.plot(recall, precision, **one.style.line, markersize=3, markevery=MARKED, label=one.attack)
        if name == "benign":
            precision, recall = each[0].clean[name]
            axes.plot(recall, precision, **CLEAN.line, markersize=3, markevery=MARKED, label="clean model")
        else:
            for one in each:
                precision, recall = one.clean[name]
                axes.plot(recall, precision, color=one.style.colour, linestyle=":", linewidth=1)
        chart_layout.title(axes, title, wide)
        axes.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.locator_params(axis="x", nbins=3)
        chart_layout.grid(axes)
    for axes in grid[:: chart_layout.columns_of(len(PANELS), width)]:
        axes.set_ylabel("precision")
    handles, labels = grid[0].get_legend_handles_labels()
    control = Line2D([], [], color=INK, linestyle=":", linewidth=1)
    chart_layout.legend(figure, [*handles, control], [*labels, "clean model, same trigger"])
    return figure
