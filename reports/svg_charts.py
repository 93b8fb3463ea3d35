"""Charts as SVG. Text and lines take the colours of the page, so charts fit light and dark pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api.errors import StoreError
from bench.api.untrusted import strip_controls
from bench.engine.record_cache import RecordCache
from bench.metrics import METRICS
from reports import curves
from reports.artifact_files import opened
from reports.common_cells import CommonCells
from reports.context import REPAIRS, contexts
from reports.figures import as_bytes, default_style
from reports.frontier import Frontier, frontiers
from reports.rows import removed
from reports.selection import NONE, attacked, undefended
from reports.strength import WeakAttacks, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#010203", "#dddddd"  # placeholders that `in_page` replaces by the colours of the page
# Okabe and Ito's colour-blind safe palette without black; marks differ as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a6d3b")
PANELS = 3  # side by side in a chart of many panels
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
FORM: Any = {"font.family": "sans-serif", "svg.fonttype": "none", "text.color": INK, "axes.edgecolor": INK,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 8, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "legend.fontsize": 8}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A chart. svg: an HTML element. setting: "" for a chart over several settings."""

    title: str
    setting: str
    caption: str
    svg: str

    def _repr_html_(self) -> str:
        """The chart as HTML on white, because the colours of the notebook are unknown."""
        style = "--line: #ddd; color: #111; background: #fff"
        title, caption = escape(f"{self.title} · {self.setting}"), escape(self.caption)
        return f'<figure style="{style}"><b>{title}</b>{self.svg}<small>{caption}</small></figure>'


Short = Callable[[str], str]  # the short name of a label


def of_sweeps(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """t-mAP, own-mAP and mAP over each swept parameter, for example the number of poisons."""
    for sweep in curves.sweeps(trials, mixed=mixed):
        caption = "Means over the (target, seed) cells that all values share; n counts them."
        yield chart(sweep.title, short(sweep.setting), caption, partial(curves.figure, [sweep], titled=False))


def of_bits(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """MAP and t-mAP of undefended attacks over code lengths, for runs with several."""
    for context in contexts(undefended(trials), mixed, without="bits"):
        lengths = sorted({int(bits) for bits in context.trials["bits"]})
        made = context.grouped(context.trials, ["attack", "bits"])
        shared = CommonCells.of(made)
        attacks = [a for a in dict.fromkeys(context.trials["attack"]) if {(a, b) for b in lengths} <= shared.counted]
        if len(lengths) < 2 or not attacks:
            continue
        lines = {
            metric: {short(a): [shared.mean(made[a, b], metric) for b in lengths] for a in attacks}
            for metric in ("map", "t_map")
        }
        caption = f"{short(context.setting)}. {shared.sentence(intervals=False)} Undefended."
        yield chart("Code length", "", caption, partial(length_figure, lines, lengths))


def of_costs(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """A point per attack and defense: mAP lost against gain removed."""
    weak_attacks = WeakAttacks(trials, mixed)
    for context in contexts(trials, mixed):
        made = context.grouped(attacked(context.part(REPAIRS)), ["attack", "defense"])
        shared = CommonCells.of(made)
        points: dict[str, list[tuple[str, dict[str, float]]]] = {}
        weak = weak_attacks.of(context)
        for attack, defense in made:
            if attack not in weak and defense != NONE and {(attack, defense), (attack, NONE)} <= shared.counted:
                found = removed(made[attack, NONE], made[attack, defense], shared)
                points.setdefault(short(defense), []).append((short(attack), found))
        if points:
            caption = (
                f"{shared.sentence(intervals=False)} A point per attack. Vertical: gain that the defense removes;"
                " horizontal: mAP of benign queries that it loses. Top left is best. Below the line, the defense makes"
                f" the attack stronger. {note(weak, {attack for attack, _ in made})}"
            )
            yield chart("Effects and costs of defenses", short(context.setting), caption, partial(cost_figure, points))


def of_frontiers(trials: pd.DataFrame, short: Short, mixed: bool) -> Iterator[Chart]:
    """A curve per repair through its bounds: mAP lost against own-mAP, and against t-mAP; a panel per attack."""
    weak_attacks = WeakAttacks(trials, mixed)
    for frontier in frontiers(trials, mixed):
        weak = weak_attacks.of(frontier.basis.context)
        attacks = [attack for attack in frontier.attacks if attack != NONE and attack not in weak]
        for metric, control in (("own_map", "own_map_control"), ("t_map", "t_map_control")):
            panels = {}
            for attack in attacks:
                curves_of = {short(repair): curve for repair in frontier.repairs
                             if (curve := _curve(frontier, attack, repair, metric))}  # fmt: skip
                if curves_of:
                    panels[short(attack)] = frontier.mean(attack, control), curves_of
            if panels:
                caption = (
                    f"{frontier.basis.cells.sentence(intervals=False)} A point per bound"
                    f" ({', '.join(f'{100 * bound:g} %' for bound in frontier.bounds)} of the mAP of trusted images),"
                    " from the model without defense at 0. Horizontal: mAP that queries lose. Dotted: the control."
                    f" {note(weak, {attack for attack, _, _ in frontier.basis.rows})}"
                )
                title = f"Frontier of repairs: {METRICS[metric].title}"
                draw = partial(frontier_figure, panels, METRICS[metric].title)
                yield chart(title, short(frontier.basis.context.setting), caption, draw)


def _curve(frontier: Frontier, attack: str, repair: str, metric: str) -> list[tuple[float, float]]:
    """Points (mAP lost, metric) from no defense over all bounds; empty if one of them was not measured."""
    quality, values = (frontier.values(attack, repair, name) for name in ("map", metric))
    known = [(q, v) for q, v in zip(quality, values, strict=True) if q is not None and v is not None]
    return [(known[0][0] - q, v) for q, v in known] if len(known) == len(values) else []


def of_attention(trials: pd.DataFrame, cache: RecordCache, short: Short, mixed: bool) -> Iterator[Chart]:
    """Distance between codes of triggered images and of the trigger during training, as in CIBA's Figure 2b."""
    for context in contexts(attacked(undefended(trials)), mixed):
        rows = {}
        for attack, part in context.grouped(context.done, ["attack"]).items():
            seen = {place: found for place, key in zip(part.positions, part.done["key"], strict=False)
                    if (found := attention(cache, key)) is not None}  # fmt: skip
            if seen:
                rows[short(attack)] = seen
        common = set.intersection(*(set(seen) for seen in rows.values())) if rows else set()
        if common:
            bits = int(context.trials["bits"].iloc[0])
            means = {
                attack: pd.concat([seen[place] for place in sorted(common)]).groupby(level=0).mean() / bits
                for attack, seen in rows.items()
            }
            caption = (
                "Mean distance between the codes of triggered images and of the trigger on black, as a share of the"
                f" bits; small if the trigger decides the code. n = {len(common)} models per attack, the cells of all"
                " attacks."
            )
            yield chart("Attention to the trigger", short(context.setting), caption, partial(attention_figure, means))


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


def chart(title: str, setting: str, caption: str, draw: Callable[[], Figure]) -> Chart:
    """The figure that `draw` returns, as a chart in the colours of the page."""
    import matplotlib as mpl

    with default_style():
        mpl.rcParams.update(FORM)
        mpl.rcParams["svg.hashsalt"] = f"{title} {setting}"
        figure = draw()
        figure.patch.set_alpha(0)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        return Chart(
            strip_controls(title),
            strip_controls(setting),
            strip_controls(caption),
            in_page(as_bytes(figure, "svg").decode()),
        )


def in_page(svg: str) -> str:
    """An SVG file as an element of a page: colours of the page, flexible width, and tooltips for points."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="([\d.]+)pt"', lambda w: f'style="max-width: {float(w[1]) * 4 / 3:.0f}px"', svg, count=1)
    svg = re.sub(r'height="[\d.]+pt"', 'role="img"', svg, count=1)
    svg = re.sub(r'<g id="tip:([^"]*)">', lambda found: f"<g><title>{found[1]}</title>", svg)
    return re.sub(r'<g id="[\w.-]+">', "<g>", svg)  # groups without references need no id


def _figure(columns: int, width: float = 3.6, *, lines: int = 1) -> tuple[Figure, list[Axes]]:
    """lines: rows of panels; with several, all panels have the vertical axis of the first."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, 3.0 * lines), layout="constrained")
    return made, list(made.subplots(lines, columns, squeeze=False, sharey=lines > 1).flat)


def _styles(names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    return dict(zip(names, zip(cycle(COLOURS), cycle(MARKS), strict=False), strict=False))


def _finish(figure: Figure, *panels: Axes) -> None:
    """Add a legend of all panels below, with as many columns as its longest name allows."""
    drawn = [axes.get_legend_handles_labels() for axes in panels]
    found = {label: handle for marks, names in drawn for handle, label in zip(marks, names, strict=True)}
    handles, labels = list(found.values()), list(found)
    longest = max((len(label) for label in labels), default=1)
    columns = max(1, int(figure.get_figwidth() * 14 / (longest + 6)))
    figure.legend(handles, [strip_controls(label) for label in labels], loc="outside lower left", ncols=columns)


def length_figure(lines: Mapping[str, Mapping[str, Sequence[float]]], lengths: Sequence[int]) -> Figure:
    """A panel per metric, with a line per label over the code lengths."""
    figure, panels = _figure(len(lines))
    for axes, (metric, each) in zip(panels, lines.items(), strict=True):
        styles = _styles(list(each))
        for label, values in each.items():
            colour, mark = styles[label]
            axes.plot(lengths, values, color=colour, marker=mark, markersize=4, linewidth=1.3, label=label)
        axes.set_title(METRICS[metric].title, loc="left", fontsize=9)
        axes.set_xlabel("bits")
        axes.set_xticks(list(lengths))
        axes.set_ylim(-0.02, 1.02)
        axes.grid(visible=True, color=FAINT, linewidth=0.6)
    _finish(figure, panels[0])
    return figure


def cost_figure(points: Mapping[str, Sequence[tuple[str, Mapping[str, float]]]]) -> Figure:
    figure, (axes,) = _figure(1, 5.6)
    styles = _styles(list(points))
    for defense, each in points.items():
        colour, mark = styles[defense]
        for i, (attack, at) in enumerate(each):
            label = defense if i == 0 else "_"
            (point,) = axes.plot(
                at["mAP lost"], at["removed"], mark, color=colour, markersize=6, alpha=0.85, label=label
            )
            words = f"{defense} against {attack}: {at['removed']:+.3f} gain removed, {at['mAP lost']:+.3f} mAP lost"
            point.set_gid(f"tip:{strip_controls(words)}")  # matplotlib escapes it
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("mAP lost")
    axes.set_ylabel("gain removed")
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    _finish(figure, axes)
    return figure


def frontier_figure(
    panels: Mapping[str, tuple[float | None, Mapping[str, Sequence[tuple[float, float]]]]], title: str
) -> Figure:
    """panels: for each attack the control, and for each repair its points (mAP lost, metric)."""
    columns = min(PANELS, len(panels))
    figure, grid = _figure(columns, 2.8, lines=-(-len(panels) // columns))
    styles = _styles(list(dict.fromkeys(repair for _, each in panels.values() for repair in each)))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (attack, (control, each)) in zip(grid, panels.items(), strict=False):
        for repair, points in each.items():
            colour, mark = styles[repair]
            across, up = zip(*points, strict=True)
            axes.plot(across, up, color=colour, marker=mark, markersize=4, linewidth=1.2, alpha=0.85, label=repair)
        if control is not None:
            axes.axhline(control, color=INK, linestyle=":", linewidth=1)
        axes.set_title(strip_controls(attack), loc="left", fontsize=9)
        axes.set_xlabel("mAP lost")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(visible=True, color=FAINT, linewidth=0.6)
    grid[0].set_ylabel(title)
    _finish(figure, *grid)
    return figure


def attention_figure(series: Mapping[str, pd.Series]) -> Figure:
    """A line per label over the epochs."""
    figure, (axes,) = _figure(1, 5.6)
    styles = _styles(list(series))
    for label, values in series.items():
        colour, mark = styles[label]
        axes.plot(values.index, values, color=colour, marker=mark, markersize=3, linewidth=1.3, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("distance / bits")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    _finish(figure, axes)
    return figure
