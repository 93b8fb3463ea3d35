"""Figures of sweeps: t-mAP, own-mAP and mAP over a parameter of an attack or a defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.api.errors import UserError
from bench.engine.runs import LATEST
from bench.engine.store import Store
from reports import chart_layout
from reports import sweeps as sweeping
from reports.chart import Chart
from reports.context import components, contexts
from reports.figures import suffix_of, write
from reports.frame import read
from reports.labels import Names
from reports.palette import METRICS, TARGET
from reports.selection import NONE, groups
from reports.sweeps import FEWEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEEP = 16  # the axis is logarithmic if the largest value exceeds the smallest one by this factor
LINES = ("t_map", "own_map", "map")
TRAINING_LINES = (*LINES, "attention", "loss_left")  # also shares of the bits, and of the loss of the first epoch
NAMES = {"t_map": "t-mAP", "own_map": "own-mAP", "map": "mAP", "attention": "attention", "loss_left": "loss left"}


@dataclass(frozen=True)
class Panel:
    """One curve per metric over the values of a parameter.

    rows: the trials, with the value in column `x`. lines: the metrics.
    """

    name: str
    parameter: str
    rows: pd.DataFrame
    attacked: bool = True
    lines: tuple[str, ...] = LINES


@dataclass(frozen=True)
class Sweep:
    """The panels of one figure: a swept defense against each attack, or the swept attacks of a setting."""

    title: str
    setting: str
    panels: tuple[Panel, ...]

    def renamed(self, short: Callable[[str], str]) -> Sweep:
        """The sweep with short names."""
        panels = tuple(replace(panel, name=short(panel.name)) for panel in self.panels)
        return replace(self, setting=short(self.setting), panels=panels)


def draw(store: Store, path: Path, *, run: str = LATEST, suite: str | None = None) -> str:
    """Draw every sweep of a run into a file; returns a summary. UserError if nothing was swept."""
    return draw_trials(read(store, suite=suite, run=run).trials, path)


def draw_trials(trials: pd.DataFrame, path: Path) -> str:
    """Draw every sweep of the trials into a file; returns a summary.

    The suffix of the file names the format. UserError if nothing was swept.
    """
    suffix = suffix_of(path)
    found = [sweep.renamed(Names.of(components(trials)).within) for sweep in sweeps(trials)]
    if not found:
        raise UserError(
            "this run has no sweep",
            f"give a parameter at least {FEWEST} values, for example"
            """ --set 'defenses=["none", { name = "fine_pruning", steps = 0, ratio = [0.3, 0.6, 0.9] }]'""",
        )
    columns = 1 if max(len(sweep.panels) for sweep in found) == 1 else 2
    write(path, Chart("Sweeps", "", "", partial(figure, found)).as_bytes(suffix, columns))
    return "; ".join(
        f"{sweep.title} · {sweep.setting}: {', '.join(dict.fromkeys(_counted(panel) for panel in sweep.panels))}"
        for sweep in found
    )


def _counted(panel: Panel) -> str:
    return f"{panel.parameter} at {panel.rows['x'].nunique()} values"


def sweeps(trials: pd.DataFrame, *, mixed: bool = False) -> Iterator[Sweep]:
    """The sweeps of undefended attacks, of defenses, and of the training of undefended attacks, per setting."""
    for context in contexts(trials, mixed):
        swept = [Panel(title, parameter, rows) for title, parameter, rows in sweeping.attacks(context.trials)]
        if swept:
            yield Sweep("Strength of attacks", context.setting, tuple(swept))
        for title, parameter, rows in sweeping.defenses(context.trials):
            each = groups(rows, ["attack"])
            panels = (Panel(attack, parameter, mine, attacked=attack != NONE) for (attack,), mine in each)
            yield Sweep(title, context.setting, tuple(panels))
    for context in contexts(trials, mixed, without="training"):
        trained = [
            Panel(attack, parameter, rows, attacked=rows["attack"].iloc[0] != NONE, lines=TRAINING_LINES)
            for attack, parameter, rows in sweeping.trainings(context.trials)
        ]
        if trained:
            yield Sweep("Strength over the training", context.setting, tuple(trained))


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """Means per x over the (target, seed) cells that all x share, and their number `n`; empty without such cells."""
    kept = sweeping.shared(rows)
    means = kept.groupby("x")[[*TRAINING_LINES, "t_map_control"]].mean()
    return means.assign(n=len(kept) // max(len(means), 1)).sort_index()


def figure(found: Sequence[Sweep], width: float, *, titled: bool = True) -> Figure:
    """The panels of each sweep below each other, with one legend. titled: also the titles of sweeps."""
    from matplotlib.figure import Figure

    count = max(len(sweep.panels) for sweep in found)
    columns, wide = chart_layout.columns_of(count, width), chart_layout.panel_points(count, width)
    heads = [
        chart_layout.fitted(f"{sweep.title} · {sweep.setting}", width * chart_layout.POINTS) if titled else ""
        for sweep in found
    ]
    heights = [_height(sweep, head, columns, wide) for sweep, head in zip(found, heads, strict=True)]
    made = Figure(figsize=(width, sum(heights)), facecolor="white", layout="constrained")
    parts = made.subfigures(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    drawn = []
    for sweep, head, part in zip(found, heads, parts, strict=True):
        if head:
            part.suptitle(head, x=0.01, ha="left", fontsize="medium", parse_math=False)
        part.set_facecolor("none")
        lines = -(-len(sweep.panels) // columns)
        grid = list(part.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for axes, panel in zip(grid, sweep.panels, strict=False):
            _panel(axes, panel, wide)
        for axes in grid[len(sweep.panels) :]:
            axes.set_axis_off()
        for axes in grid[::columns]:
            axes.set_ylabel("mAP")
        drawn += grid
    chart_layout.legend_of(made, drawn)
    return made


def _height(sweep: Sweep, head: str, columns: int, wide: float) -> float:
    """Inches."""
    lines = -(-len(sweep.panels) // columns)
    rise = chart_layout.titled_height([_titled(panel) for panel in sweep.panels], wide)
    letters = chart_layout.LEADING * chart_layout.font_size() / chart_layout.POINTS
    return lines * (2.0 + rise) + (letters * (head.count("\n") + 1.5) if head else 0)


def _titled(panel: Panel) -> str:
    means = points(panel.rows)
    return f"{panel.name}, n = {int(means['n'].iloc[0]) if len(means) else 0}"


def _panel(axes: Axes, panel: Panel, wide: float) -> None:
    means = points(panel.rows)
    for metric in panel.lines if panel.attacked else ("map",):
        if not means[metric].isna().all():  # an attack that trains no model has neither attention nor loss
            axes.plot(means.index, means[metric], **METRICS[metric].line, label=NAMES[metric])
    if panel.attacked and len(means):
        axes.axhline(means["t_map_control"].mean(), color=TARGET, linestyle=":", linewidth=1.2, label="t-mAP control")
    chart_layout.title(axes, _titled(panel), wide)
    axes.set_xlabel(chart_layout.fitted(panel.parameter, wide, lines=1))
    if len(means) and 0 < means.index[0] * STEEP <= means.index[-1]:
        axes.set_xscale("log")
        axes.minorticks_off()
        chart_layout.ticks_at(axes, list(means.index), wide)
    else:
        axes.locator_params(axis="x", nbins=3)
    axes.set_ylim(-0.02, 1.02)
    chart_layout.grid(axes)
