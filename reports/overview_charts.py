"""The charts of the summary: a bar per attack, and a heat map of defenses against attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bench.api.untrusted import strip_controls
from bench.metrics import METRICS
from reports import chart_layout
from reports.chart import Chart
from reports.findings import AttackFinding, DefenseFinding, Setting
from reports.palette import INK, OWN, TARGET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24  # attacks of a chart of bars, defenses of a heat map
ACROSS = 9  # attacks of a heat map, so that its numbers have room
BAR, CELL = 0.5, 0.23  # inches of an attack's bars, and of a row of a heat map
NUMBER = 0.13  # width of a number beside a bar
OPACITY = 0.9  # of the colours of 0 and 1; 0.5 has none


def of(settings: Sequence[Setting]) -> Iterator[Chart]:
    """Both charts of each setting; no heat map without a defense that some attack judges."""
    for setting in settings:
        attacks = [one for one in setting.attacks if one.t_map is not None]
        if attacks:
            yield _bars(setting, attacks)
        yield from _maps(setting, [one for one in attacks if one.strong])


def _bars(setting: Setting, attacks: Sequence[AttackFinding]) -> Chart:
    shown = attacks[:MOST]
    caption = (
        "High t-mAP: triggered queries retrieve the target, so the attack works. High own-mAP: they still retrieve"
        " their true classes. Ticks: the same on the clean model."
    )
    if any(not one.strong for one in shown):
        caption += " Pale: too weak to judge a defense by."
    if len(attacks) > len(shown):
        caption += f" The {len(shown)} attacks with the largest gain of {len(attacks)}."
    return Chart("Attacks without a defense", setting.name, caption, partial(bar_figure, shown))


def bar_figure(attacks: Sequence[AttackFinding], width: float) -> Figure:
    """Two bars per attack, t-mAP and own-mAP, each with a tick for the clean model."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure, (axes,) = chart_layout.panels(1, width, height=0.5 + BAR * len(attacks))
    for place, one in enumerate(attacks):
        for shift, colour, metric, value, control in (
            (-0.2, TARGET, "t_map", one.t_map, one.control),
            (0.2, OWN, "own_map", one.own_map, one.own_control),
        ):
            if value is None:
                continue
            title = METRICS[metric].title
            (bar,) = axes.barh(place + shift, value, 0.36, color=colour, alpha=0.85 if one.strong else 0.45)
            clean = "" if control is None else f", clean model {control:.3f}"
            bar.set_gid(f"tip:{strip_controls(f'{one.name}: {title} {value:.3f}{clean}')}")
            crossing = control is not None and value - 0.02 < control < value + NUMBER
            end = control if control is not None and crossing else value
            axes.text(end + 0.02, place + shift, f"{value:.2f}", va="center")
            if control is not None:
                axes.plot([control, control], [place + shift - 0.2, place + shift + 0.2], color=INK, linewidth=2)
    _names(axes, [one.name for one in attacks], width)
    axes.set_ylim(len(attacks) - 0.5, -0.5)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    chart_layout.grid(axes)
    axes.tick_params(axis="y", length=0)
    handles = [
        Patch(color=TARGET, alpha=0.85), Patch(color=OWN, alpha=0.85),
        Line2D([], [], color=INK, marker="|", markersize=9, markeredgewidth=2, linestyle="none"),
    ]  # fmt: skip
    chart_layout.legend(figure, handles, ["t-mAP", "own-mAP", "clean model"])
    return figure


def _maps(setting: Setting, attacks: Sequence[AttackFinding]) -> Iterator[Chart]:
    """A heat map per nine attacks: own-mAP after defenses that change codes or queries, TPR@5% of input detectors."""
    defenses = [one for one in setting.defenses if one.worst is not None]
    shown = [*_some(setting.changing, MOST), *_some(setting.detectors, MOST // 2)]
    for first in range(0, len(attacks) if shown else 0, ACROSS):
        part = attacks[first : first + ACROSS]
        caption = (
            "own-mAP of triggered queries after each defense, and TPR@5% of input detectors (marked *): the share of"
            " triggered queries that they find at 5 % false alarms. Colours: the number as a share of the clean model's"
            " own-mAP with the same trigger (of 1 for detectors); blue is good for the owner of the model. The defense"
            " that does most against its hardest attack stands first."
        )
        if len(defenses) > len(shown):
            caption += f" The best {len(shown)} of {len(defenses)} defenses."
        if left := [one.name for one in setting.attacks if not one.strong]:
            caption += f" Without attacks that are too weak: {', '.join(left)}."
        pages = -(-len(attacks) // ACROSS)
        title = "Defenses against attacks" + (f" ({first // ACROSS + 1} of {pages})" if pages > 1 else "")
        yield Chart(title, setting.name, caption, partial(map_figure, part, shown))


def _some(defenses: Sequence[DefenseFinding], most: int) -> list[DefenseFinding]:
    return [one for one in defenses if one.worst is not None][:most]


def map_figure(attacks: Sequence[AttackFinding], defenses: Sequence[DefenseFinding], width: float) -> Figure:
    """A row without a defense, then a row per defense; a column per attack."""
    names = ["no defense", *(f"{one.name}{' *' if _detects(one) else ''}" for one in defenses)]
    narrow = width * chart_layout.POINTS * 0.16
    heads = [chart_layout.fitted(one.name, narrow * 3, lines=2) for one in attacks]
    rise = max(chart_layout.text_width(line, chart_layout.font_size()) for head in heads for line in head.split("\n"))
    height = CELL * (len(names) + 1) + 0.75 * rise / chart_layout.POINTS
    figure, (axes,) = chart_layout.panels(1, width, height=height)
    for column, attack in enumerate(attacks):
        _cell(axes, column, 0, attack.own_map, attack.own_control, f"no defense against {attack.name}: own-mAP")
        for row, defense in enumerate(defenses, 1):
            effect = defense.effects.get(attack.name)
            detects = _detects(defense)
            value = None if effect is None else effect.tpr if detects else effect.own_map
            what = METRICS["tpr_5" if detects else "own_map"].title
            best = 1.0 if effect is None or detects else effect.own_control
            _cell(axes, column, row, value, best, f"{defense.name} against {attack.name}: {what}")
    _names(axes, names, width)
    axes.set_xlim(-0.5, len(attacks) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(attacks)), heads, rotation=40, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _scale(figure)
    return figure


def _detects(defense: DefenseFinding) -> bool:
    return any(effect.tpr is not None for effect in defense.effects.values())


def _cell(axes: Axes, column: int, row: int, value: float | None, best: float | None, what: str) -> None:
    """A number whose colour is its share of the best value, for own-mAP that of the clean model."""
    from matplotlib.patches import Rectangle

    if value is None:
        axes.text(column, row, "-", ha="center", va="center")
        return
    away = min(max(value / (best or 1.0), 0.0), 1.0) - 0.5
    box = Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, linewidth=0)
    box.set_facecolor(OWN if away > 0 else TARGET)
    box.set_alpha(OPACITY * abs(away))
    box.set_gid(f"tip:{strip_controls(f'{what} {value:.3f}')}")
    axes.add_patch(box)
    axes.text(column, row, f"{value:.2f}", ha="center", va="center")


def _names(axes: Axes, names: Sequence[str], width: float) -> None:
    """Names of rows, broken so that they take at most two fifths of the width."""
    room = 0.4 * width * chart_layout.POINTS
    axes.set_yticks(range(len(names)), [chart_layout.fitted(name, room, lines=1) for name in names])


def _scale(figure: Figure) -> None:
    """A legend of the colours, with their direction."""
    from matplotlib.patches import Patch

    steps = [(value, OWN if value > 0.5 else TARGET) for value in (0.0, 0.25, 0.75, 1.0)]
    handles = [Patch(facecolor=colour, alpha=OPACITY * abs(value - 0.5), linewidth=0) for value, colour in steps]
    chart_layout.legend(figure, handles, ["0 bad", "25 %", "75 %", "100 % good"])
