"""Sweeps as pictures: what a defense's strength does to t-mAP, own-mAP and mAP, one panel per attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.api.errors import UserError
from bench.store import Store
from reports._painting import DPI, plain, saved, suffix_of, write
from reports._sweeps import FEWEST
from reports._sweeps import sweeps as swept
from reports.frame import SETTING, Shelf, groups, read
from reports.render import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACE = ["target", "seed"]
WIDE = 4  # panels side by side
LINES = {  # metric: (name, colour of the Okabe-Ito palette, mark), told apart without colour too
    "t_map": ("t-mAP", "#D55E00", "o"),
    "own_map": ("own-mAP", "#0072B2", "s"),
    "map": ("mAP", "#009E73", "^"),
}


@dataclass(frozen=True)
class Sweep:
    """One numeric parameter of a defense with everything else equal. rows: the cells, with its value as `x`."""

    title: str
    parameter: str
    rows: pd.DataFrame


def draw(store: Store, path: Path, *, suite: str | None = None) -> str:
    """Every sweep of a defense in the latest run (of a suite), into a file whose suffix names the format."""
    suffix = suffix_of(path)
    found = sweeps(store, suite)
    if not found:
        raise UserError(
            f"no defense of this run was swept: a list of at least {FEWEST} numbers makes a curve, for example"
            """ --set 'defenses=["none", { name = "fine_pruning", epochs = 0, ratio = [0.3, 0.6, 0.9] }]'"""
        )
    write(path, paint(found, suffix))
    return "; ".join(f"{sweep.title}: {sweep.parameter} at {sweep.rows['x'].nunique()} values" for sweep in found)


def sweeps(store: Store, suite: str | None) -> list[Sweep]:
    """Defenses whose cells differ in one number, in each setting."""
    shelf, found = Shelf(store), []
    cells = read(store, suite=suite).cells
    done = cells[(cells["status"] == "ok") & cells["defense_kind"].isin(("repair", "filter"))]
    for setting, part in groups(done, list(SETTING)):
        records = {key: shelf.record(key) or {} for key in set(part["defended"])}
        specs = [records[key].get("spec", {}).get("defense") for key in part["defended"]]
        place = " · ".join(str(value) for value in setting[:3]) + f" · {setting[3]} bits"
        found += [Sweep(f"{title} · {place}", parameter, of) for title, parameter, of in swept(part, specs)]
    return found


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of each x over the (target, seed) cells that all x share; `n` counts them. Empty where none is shared."""
    places = [set(zip(part["target"], part["seed"], strict=True)) for _, part in groups(rows, ["x"])]
    shared = set.intersection(*places)
    kept = rows[[place in shared for place in zip(rows["target"], rows["seed"], strict=True)]]
    means = kept.drop_duplicates(["x", *PLACE]).groupby("x")[[*LINES, "t_map_control"]].mean()
    return means.assign(n=len(shared)).sort_index()


def paint(found: Sequence[Sweep], suffix: str) -> bytes:
    """The file: a row of panels per sweep, broken after WIDE."""
    from matplotlib.figure import Figure

    panels = [(sweep, attack, points(rows)) for sweep in found for (attack,), rows in groups(sweep.rows, ["attack"])]
    columns = min(WIDE, max(sum(sweep is each for sweep, _, _ in panels) for each in found))
    layout: list[list[tuple[Sweep, str, pd.DataFrame]]] = []
    for each in found:
        mine = [panel for panel in panels if panel[0] is each]
        layout += [mine[i : i + columns] for i in range(0, len(mine), columns)]
    with plain():
        figure = Figure(figsize=(3.2 * columns, 3.0 * len(layout)), dpi=DPI, facecolor="white", layout="constrained")
        axes = figure.subplots(len(layout), columns, squeeze=False)
        for line, row in zip(axes, layout, strict=True):
            for i, panel in enumerate(line):
                if i < len(row):
                    _panel(panel, *row[i], first=i == 0)
                else:
                    panel.set_axis_off()
        drawn = [panel.get_legend_handles_labels() for line in axes for panel in line]
        handles = {label: handle for marks, labels in drawn for handle, label in zip(marks, labels, strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
        return saved(figure, suffix)


def _panel(axes: Axes, sweep: Sweep, attack: str, means: pd.DataFrame, *, first: bool) -> None:
    shown = {"map": LINES["map"]} if attack == "none" else LINES
    for metric, (name, colour, mark) in shown.items():
        axes.plot(means.index, means[metric], color=colour, marker=mark, markersize=4, linewidth=1.4, label=name)
    if attack != "none" and len(means):
        axes.axhline(means["t_map_control"].mean(), color="#D55E00", linestyle=":", linewidth=1, label="t-mAP control")
    n = int(means["n"].iloc[0]) if len(means) else 0
    title = f"{clean(sweep.title)}\n{clean(attack)}, n = {n}" if first else f"{clean(attack)}, n = {n}"
    axes.set_title(title, fontsize=8, loc="left", parse_math=False)
    axes.set_xlabel(sweep.parameter, fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.tick_params(labelsize=7)
