"""Charts over the trials of a run. Attacks and defenses have the colours and marks of `reports.palette`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from bench.api.errors import StoreError
from bench.api.untrusted import strip_controls
from bench.engine.record_cache import RecordCache
from bench.metrics import METRICS
from reports import chart_layout, curves
from reports.artifact_files import opened
from reports.chart import Chart
from reports.common_cells import CommonCells
from reports.context import REPAIRS, contexts
from reports.frontier import Frontier, frontiers
from reports.palette import GREY, INK, Palette, Style, defense_styles
from reports.point_labels import label_points
from reports.rows import removed
from reports.selection import NONE, attacked, undefended
from reports.strength import WeakAttacks, note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Short = Callable[[str], str]  # the short name of a label


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    style: Style
    values: Sequence[float]


class CostPoint(NamedTuple):
    """A defense against an attack. style: the colour of the attack, the mark of the defense."""

    attack: str
    defense: str
    style: Style
    lost: float
    removed: float


class FrontierPanel(NamedTuple):
    """The repairs of one attack. control: of the metric. repairs: for each its points (mAP lost, metric)."""

    attack: str
    colour: str
    control: float | None
    repairs: Mapping[str, Sequence[tuple[float, float]]]


def of_sweeps(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """t-mAP, own-mAP and mAP over each swept parameter, for example the number of poisons."""
    for found in curves.sweeps(trials, mixed=mixed):
        sweep = found.renamed(short)
        caption = "Means over the (target, seed) cells that all values share; n counts them."
        yield Chart(sweep.title, sweep.setting, caption, partial(curves.figure, [sweep], titled=False))


def of_bits(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """MAP and t-mAP of undefended attacks over code lengths, for runs with several."""
    styles = Palette.of(trials).attacks
    for context in contexts(undefended(trials), mixed, without="bits"):
        lengths = sorted({int(bits) for bits in context.trials["bits"]})
        made = context.grouped(context.trials, ["attack", "bits"])
        shared = CommonCells.of(made)
        attacks = [a for a in dict.fromkeys(context.trials["attack"]) if {(a, b) for b in lengths} <= shared.counted]
        if len(lengths) < 2 or not attacks:
            continue
        lines = {
            metric: [Line(short(a), styles[a], [shared.mean(made[a, b], metric) for b in lengths]) for a in attacks]
            for metric in ("map", "t_map")
        }
        caption = f"{short(context.setting)}. {shared.sentence(intervals=False)} Undefended."
        yield Chart("Code length", "", caption, partial(length_figure, lines, lengths))


def of_costs(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """A point per attack and defense: mAP lost against gain removed."""
    weak_attacks, palette = WeakAttacks(trials, mixed), Palette.of(trials)
    for context in contexts(trials, mixed):
        made = context.grouped(attacked(context.part(REPAIRS)), ["attack", "defense"])
        shared = CommonCells.of(made)
        points: list[CostPoint] = []
        weak = weak_attacks.of(context)
        for attack, defense in made:
            if attack not in weak and defense != NONE and {(attack, defense), (attack, NONE)} <= shared.counted:
                found = removed(made[attack, NONE], made[attack, defense], shared)
                style = palette.defenses[defense]._replace(colour=palette.attacks[attack].colour)
                points.append(CostPoint(short(attack), short(defense), style, found["mAP lost"], found["removed"]))
        if points:
            caption = (
                f"{shared.sentence(intervals=False)} A point per attack and defense. Vertical: gain that the defense"
                " removes; horizontal: mAP of benign queries that it loses. Top left is best. Below the line, the"
                f" defense makes the attack stronger. {note(weak, {attack for attack, _ in made})}"
            )
            yield Chart("Effects and costs of defenses", short(context.setting), caption, partial(cost_figure, points))


def of_frontiers(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """A curve per repair through its bounds: mAP lost against own-mAP, and against t-mAP; a panel per attack."""
    weak_attacks, styles = WeakAttacks(trials, mixed), Palette.of(trials).attacks
    for frontier in frontiers(trials, mixed):
        weak = weak_attacks.of(frontier.basis.context)
        attacks = [attack for attack in frontier.attacks if attack != NONE and attack not in weak]
        for metric, control, better in (("own_map", "own_map_control", "high"), ("t_map", "t_map_control", "low")):
            panels = []
            for attack in attacks:
                curves_of = {short(repair): curve for repair in frontier.repairs
                             if (curve := _curve(frontier, attack, repair, metric))}  # fmt: skip
                if curves_of:
                    known = frontier.mean(attack, control)
                    panels.append(FrontierPanel(short(attack), styles[attack].colour, known, curves_of))
            if panels:
                caption = (
                    f"{frontier.basis.cells.sentence(intervals=False)} A point per bound"
                    f" ({', '.join(f'{100 * bound:g} %' for bound in frontier.bounds)} of the mAP of trusted images),"
                    " from the model without defense at 0. Horizontal: mAP that queries lose. Dotted: the control. The"
                    f" best repairs are {better} and on the left."
                    f" {note(weak, {attack for attack, _, _ in frontier.basis.rows})}"
                )
                title = f"Frontier of repairs: {METRICS[metric].title}"
                draw = partial(frontier_figure, panels, METRICS[metric].title)
                yield Chart(title, short(frontier.basis.context.setting), caption, draw)


def _curve(frontier: Frontier, attack: str, repair: str, metric: str) -> list[tuple[float, float]]:
    """Points (mAP lost, metric) from no defense over all bounds; empty if one of them was not measured."""
    quality, values = (frontier.values(attack, repair, name) for name in ("map", metric))
    known = [(q, v) for q, v in zip(quality, values, strict=True) if q is not None and v is not None]
    return [(known[0][0] - q, v) for q, v in known] if len(known) == len(values) else []


def of_attention(trials: pd.DataFrame, cache: RecordCache, short: Short, mixed: bool) -> Iterator[Chart]:
    """Distance between codes of triggered images and of the trigger during training, as in CIBA's Figure 2b."""
    styles = Palette.of(trials).attacks
    for context in contexts(attacked(undefended(trials)), mixed):
        rows = {}
        for attack, part in context.grouped(context.done, ["attack"]).items():
            seen = {place: found for place, key in part.keys.items()
                    if (found := attention(cache, key)) is not None}  # fmt: skip
            if seen:
                rows[attack] = seen
        common = set.intersection(*(set(seen) for seen in rows.values())) if rows else set()
        if common:
            bits = int(context.trials["bits"].iloc[0])
            series = [
                (short(attack), styles[attack],
                 pd.concat([seen[place] for place in sorted(common)]).groupby(level=0).mean() / bits)
                for attack, seen in rows.items()
            ]  # fmt: skip
            caption = (
                "Mean distance between the codes of triggered images and of the trigger on black, as a share of the"
                f" bits; small if the trigger decides the code. n = {len(common)} models per attack, the cells of all"
                " attacks."
            )
            yield Chart("Attention to the trigger", short(context.setting), caption, partial(attention_figure, series))


def attention(cache: RecordCache, key: str) -> pd.Series | None:
    """Distances by epoch; None if the attack trains no model, or its artifact is missing or damaged."""
    implant = cache.implant(cache.record(key))
    if implant is None or not cache.store.artifact_path(implant.key).is_file():
        return None
    try:
        with opened(cache, implant.key) as file:
            epochs, distances = (file.get_tensor(name) for name in ("attention_epochs", "attention"))
            return pd.Series(distances.astype(float), index=epochs) if len(epochs) > 1 else None
    except StoreError:  # `bench verify` names the damage
        return None


def length_figure(lines: Mapping[str, Sequence[Line]], lengths: Sequence[int], width: float) -> Figure:
    """A panel per metric, with a line per attack over the code lengths."""
    figure, panels = chart_layout.panels(len(lines), width, share=True)
    for axes, (metric, each) in zip(panels, lines.items(), strict=True):
        for line in each:
            axes.plot(lengths, line.values, **line.style.line, label=line.name)
        chart_layout.title(axes, METRICS[metric].title, width * chart_layout.POINTS)
        axes.set_xlabel("bits")
        chart_layout.ticks_at(axes, lengths, chart_layout.panel_points(len(panels), width))
        axes.set_ylim(-0.02, 1.02)
        chart_layout.grid(axes)
    chart_layout.legend_of(figure, panels)
    return figure


def cost_figure(points: Sequence[CostPoint], width: float) -> Figure:
    """Colours are attacks, marks are defenses. Where there is room, a point has the name of what differs."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure, (axes,) = chart_layout.panels(1, width, height=min(2.9, 0.75 * width))
    for at in points:
        style = at.style._replace(dash="none").line
        (drawn,) = axes.plot(at.lost, at.removed, **style, markersize=6)
        words = f"{at.defense} against {at.attack}: {at.removed:+.3f} gain removed, {at.lost:+.3f} mAP lost"
        drawn.set_gid(f"tip:{strip_controls(words)}")  # matplotlib escapes it
    for line in (axes.axhline, axes.axvline):
        line(0, color=INK, linewidth=0.6)
    axes.set_xlabel("mAP lost")
    axes.set_ylabel("gain removed")
    axes.margins(0.12)
    axes.locator_params(axis="x", nbins=5)
    chart_layout.grid(axes)
    by_defense = {at.defense: Line2D([], [], **at.style._replace(colour=INK, dash="none").line) for at in points}
    by_attack = {at.attack: Patch(color=at.style.colour) for at in points}
    handles = [*by_defense.values(), *by_attack.values()]
    chart_layout.legend(figure, handles, [*by_defense, *by_attack])
    named = [at.attack if len(by_attack) > 1 else at.defense for at in points]
    places = [(at.lost, at.removed, name) for at, name in zip(points, named, strict=True)]
    label_points(figure, axes, places, corner="↖ better")
    return figure


def frontier_figure(panels: Sequence[FrontierPanel], title: str, width: float) -> Figure:
    """A panel per attack in the attack's colour, with a line per repair."""
    wide = chart_layout.panel_points(len(panels), width)
    rise = chart_layout.titled_height([panel.attack for panel in panels], wide)
    figure, grid = chart_layout.panels(len(panels), width, height=2.0 + rise, share=True)
    styles = defense_styles(repair for panel in panels for repair in panel.repairs)
    for axes, panel in zip(grid, panels, strict=True):
        for repair, points in panel.repairs.items():
            across, up = zip(*points, strict=True)
            axes.plot(across, up, **styles[repair]._replace(colour=panel.colour).line, label=repair)
        if panel.control is not None:
            axes.axhline(panel.control, color=GREY, linestyle=":", linewidth=1.2)
        chart_layout.title(axes, panel.attack, wide)
        axes.set_xlabel("mAP lost")
        axes.locator_params(axis="x", nbins=3)
        axes.set_ylim(-0.02, 1.02)
        chart_layout.grid(axes)
    grid[0].set_ylabel(title)
    chart_layout.legend_of(figure, grid)
    for handle in figure.legends[0].legend_handles:
        handle.set_color(INK)  # type: ignore[union-attr]
    return figure


def attention_figure(series: Sequence[tuple[str, Style, pd.Series]], width: float) -> Figure:
    """A line per attack over the epochs."""
    figure, (axes,) = chart_layout.panels(1, width, height=min(2.6, 0.7 * width))
    for name, style, values in series:
        axes.plot(values.index, values, **style.line, label=name)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    height = 0.7 * figure.get_figheight() * chart_layout.POINTS
    axes.set_ylabel(chart_layout.fitted("distance to the trigger's code (share of the bits)", height))
    axes.set_ylim(bottom=-0.01)
    chart_layout.grid(axes)
    chart_layout.legend_of(figure, [axes])
    return figure
