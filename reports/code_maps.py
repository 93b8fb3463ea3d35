"""Maps of codes: principal components of the codes of benign and triggered queries and of the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int8, Int64

from bench.api.errors import StoreError
from bench.artifacts.inputs import MeasureInputs, SystemInputs
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from reports import chart_layout
from reports.artifact_files import evenly_spaced
from reports.chart import Chart
from reports.context import contexts
from reports.palette import FAINT, GREY, OWN, TARGET, Palette, Style
from reports.selection import attacked, groups, undefended
from reports.stored_codes import codes_of, data_of
from reports.svg_charts import Short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ITEMS = {"others": 200, "target": 80, "queries": 80}  # points of a map, at equal distances in the data set
Codes = Int8[np.ndarray, "_ b"]
Plane = Float[np.ndarray, "_ 2"]
MAPPED = (
    "Principal components (PC) of the database codes, computed per model. The variance that they do not explain is"
    " invisible, so that distances on the map can mislead. Each group is a sample; a larger mark stands for more equal"
    " codes. Triggered: the same queries with trigger."
)


@dataclass(frozen=True)
class Map:
    """Sampled codes of one model, ±1. others, target: database items without and with the target's label."""

    others: Int8[np.ndarray, "m b"]
    target: Int8[np.ndarray, "k b"]
    benign: Int8[np.ndarray, "q b"]
    triggered: Int8[np.ndarray, "q b"]


def of_codes(trials: pd.DataFrame, cache: RecordCache, short: Short, mixed: bool) -> Iterator[Chart]:
    """A chart per attack and setting with the clean and the attacked model, of the first trial with stored codes."""
    styles = Palette.of(trials).attacks
    for context in contexts(attacked(undefended(trials)), mixed):
        for (attack,), part in groups(context.done, ["attack"]):
            for _, row in part.iterrows():
                maps = _maps(cache, cache.record(row["key"]), int(row["bits"]))
                if maps is not None:
                    about = f"Target {row['target']}, seed {row['seed']}. {MAPPED}"
                    draw = partial(drawn, maps, styles[attack])
                    yield Chart(f"Codes · {short(attack)}", short(context.setting), about, draw)
                    break


def _maps(cache: RecordCache, record: Record | None, bits: int) -> dict[str, Map] | None:
    """The codes of both models; None if an artifact is missing or damaged, or fits no other one."""
    if record is None:
        return None
    try:
        inputs = MeasureInputs.of(record.parents)
        clean, attacked = (map_of(cache, inputs, one, record.target, bits) for one in (inputs.control, inputs.measured))
    except StoreError:  # `bench verify` names the damage
        return None
    return {"clean model": clean, "attacked": attacked}


def map_of(cache: RecordCache, inputs: MeasureInputs, system: SystemInputs, target: Sequence[str], bits: int) -> Map:
    """The sampled codes of one model of a trial.

    StoreError where an artifact is missing or damaged, or artifacts do not fit each other.
    """
    data = data_of(cache, inputs, target)
    codes = codes_of(cache, system, bits, data)
    holds: Bool[np.ndarray, " m"] = np.any(data.database_labels[:, data.target], axis=1)
    shown = _sample(np.arange(len(codes.positions)), ITEMS["queries"])
    return Map(
        others=codes.database.select(_sample(np.flatnonzero(~holds), ITEMS["others"])).unpack(),
        target=codes.database.select(_sample(np.flatnonzero(holds), ITEMS["target"])).unpack(),
        benign=codes.query.select(codes.positions[shown]).unpack(),
        triggered=codes.triggered.select(shown).unpack(),
    )


def _sample(places: Int64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " k"]:
    return np.take(places, evenly_spaced(len(places), count))


def flattened(codes: Codes, *others: Codes) -> tuple[list[Plane], float]:
    """Codes in the plane of the first two principal components of `codes`, and the explained share of the variance.

    The largest loading of each component is positive, so equal codes give equal maps.
    """
    centre = codes.mean(0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(codes - centre, full_matrices=False)
    axes = np.zeros((2, codes.shape[1]))
    axes[: len(directions)] = directions[:2]  # codes of one bit have one direction
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    share = float((sizes[:2] ** 2).sum() / max(float((sizes**2).sum()), 1e-12))
    return [(part - centre) @ axes.T for part in (codes, *others)], share


def drawn(maps: Mapping[str, Map], style: Style, width: float) -> Figure:
    """A panel per model. Triggered queries are hollow and in the colour of the attack: they hide nothing."""
    figure, grid = chart_layout.panels(len(maps), width, height=0.4 + min(2.0, width / len(maps)))
    for axes, (name, one) in zip(grid, maps.items(), strict=True):
        count = len(one.others)
        (database, benign, triggered), share = flattened(
            np.concatenate([one.others, one.target]), one.benign, one.triggered
        )
        for points, colour, mark, label, hollow in (
            (database[:count], GREY, "o", "other classes", False),
            (database[count:], TARGET, "s", "target's class", False),
            (benign, OWN, "^", "queries", False),
            (triggered, style.colour, "D", "triggered", True),
        ):
            places, equal = np.unique(points.round(6), axis=0, return_counts=True)
            area = 8 + 160 * equal / len(points)
            face = {"facecolors": "none", "edgecolors": colour} if hollow else {"c": colour, "linewidths": 0}
            axes.scatter(places[:, 0], places[:, 1], area, marker=mark, alpha=0.9 if hollow else 0.7, label=label,
                         **face)  # fmt: skip
        chart_layout.title(axes, f"{name}: {share:.0%} of variance", chart_layout.panel_points(len(maps), width))
        axes.margins(0.14)
        axes.set_xlabel("PC 1")
        axes.set_ylabel("PC 2")
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        axes.spines[:].set(color=FAINT, visible=True)
    chart_layout.legend_of(figure, grid)
    for handle in figure.legends[0].legend_handles:
        handle.set_sizes([30])  # type: ignore[union-attr]
    return figure
