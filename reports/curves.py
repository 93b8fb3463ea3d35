"""Figures of sweeps: t-mAP, own-mAP and mAP over a parameter of an attack or a defense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.api.errors import UserError
from bench.api.untrusted import strip_controls
from bench.engine.runs import LATEST
from bench.engine.store import Store
from reports import sweeps as sweeping
from reports.context import contexts
from reports.figures import DPI, as_bytes, default_style, suffix_of, write
from reports.frame import read
from reports.selection import NONE, groups
from reports.sweeps import FEWEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 4  # panels side by side
STEEP = 16  # the axis is logarithmic if the largest value exceeds the smallest one by this factor
LINES = {  # metric: (name, colour of the Okabe-Ito palette, mark), different without colour too
    "t_map": ("t-mAP", "#D55E00", "o"),
    "own_map": ("own-mAP", "#0072B2", "s"),
    "map": ("mAP", "#009E73", "^"),
}


TRAINING_LINES = LINES | {  # shares of the bits, and of the loss of the first epoch
    "attention": ("attention", "#CC79A7", "D"),
    "loss_left": ("loss left", "#8a6d3b", "v"),
}


@dataclass(frozen=True)
class Panel:
    """One curve per metric over the values of a parameter.

    rows: the trials, with the value in column `x`. lines: the metrics, with name, colour and mark.
    """

    name: str
    parameter: str
    rows: pd.DataFrame
    attacked: bool = True
    lines: Mapping[str, tuple[str, str, str]] = field(default_factory=lambda: LINES)


@dataclass(frozen=True)
class Sweep:
    """The panels of one figure: a swept defense against each attack, or the swept attacks of a setting."""

    title: str
    setting: str
    panels: tuple[Panel, ...]


def draw(store: Store, path: Path, *, run: str = LATEST, suite: str | None = None) -> str:
    """Draw every sweep of a run into a file; returns a summary.

    The suffix of the file names the format. UserError if nothing was swept.
    """
    suffix = suffix_of(path)
    found = list(sweeps(read(store, suite=suite, run=run).trials))
    if not found:
        raise UserError(
            f"this run has no sweep: give a parameter at least {FEWEST} values, for example"
            """ --set 'defenses=["none", { name = "fine_pruning", steps = 0, ratio = [0.3, 0.6, 0.9] }]'"""
        )
    with default_style():
        write(path, as_bytes(figure(found), suffix))
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


def figure(found: Sequence[Sweep], *, titled: bool = True) -> Figure:
    """A row of panels per sweep, at most WIDE panels per line."""
    from matplotlib.figure import Figure

    columns = min(WIDE, max(len(sweep.panels) for sweep in found))
    layout = [
        (f"{sweep.title} · {sweep.setting}" if titled and not i else "", sweep.panels[i : i + columns])
        for sweep in found
        for i in range(0, len(sweep.panels), columns)
    ]
    made = Figure(figsize=(3.2 * columns, 3.0 * len(layout)), dpi=DPI, facecolor="white", layout="constrained")
    axes = made.subplots(len(layout), columns, squeeze=False)
    for line, (title, row) in zip(axes, layout, strict=True):
        for i, panel in enumerate(line):
            if i < len(row):
                _panel(panel, row[i], title if i == 0 else "")
            else:
                panel.set_axis_off()
    drawn = [panel.get_legend_handles_labels() for line in axes for panel in line]
    handles = {label: handle for marks, labels in drawn for handle, label in zip(marks, labels, strict=True)}
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
    return made


def _panel(axes: Axes, panel: Panel, title: str) -> None:
    means = points(panel.rows)
    shown = panel.lines if panel.attacked else {"map": panel.lines["map"]}
    for metric, (name, colour, mark) in shown.items():
        if means[metric].isna().all():
            continue  # an attack that trains no model has neither attention nor loss
        axes.plot(means.index, means[metric], color=colour, marker=mark, markersize=4, linewidth=1.4, label=name)
    if panel.attacked and len(means):
        axes.axhline(means["t_map_control"].mean(), color="#D55E00", linestyle=":", linewidth=1, label="t-mAP control")
    n = int(means["n"].iloc[0]) if len(means) else 0
    words = [strip_controls(title)] if title else []
    axes.set_title(
        "\n".join([*words, f"{strip_controls(panel.name)}, n = {n}"]), fontsize=8, loc="left", parse_math=False
    )
    axes.set_xlabel(panel.parameter, fontsize=8)
    if len(means) and 0 < means.index[0] * STEEP <= means.index[-1]:
        axes.set_xscale("log")
        axes.set_xticks(means.index, [f"{value:g}" for value in means.index])
        axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.tick_params(labelsize=7)
