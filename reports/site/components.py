"""The page of a component: its card, its parameters, where it stands, what breaks it or what it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.api import registry
from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import strip_controls
from bench.config.parameters import Parameter, parameters_of
from reports.findings import AttackFinding, Setting
from reports.page.layout import card_of
from reports.selection import NONE
from reports.site.overall import hardest, percent, runs_table
from reports.site.published import Published
from reports.site.tables import EMPTY, Cell, Head, Table, component_path, measured, real, table_of, without_empty

SHOWN = 12  # lines at each end of a list of duels
OTHER = {"attack": "defense", "defense": "attack"}
N = Head("n", "number of (target, seed) pairs that the row is a mean over")
WHERE = Head("run", "run, data set, and what tells its settings apart")


@dataclass(frozen=True)
class ComponentPage:
    """A component.

    about: what the page says first. measured: the runs that have it. boards: its rows on the boards of each run.
    """

    axis: str
    name: str
    kind: str
    card: dict[str, str]
    parameters: Sequence[Parameter]
    about: Sequence[Table]
    measured: Table
    boards: Sequence[tuple[Published, Sequence[Table]]]


def component_page(axis: str, name: str, runs: Sequence[Published]) -> ComponentPage:
    """The page of a component that has a result in a run."""
    source = registry.catalogue(KIND_OF_AXIS[axis]).get(name)
    known = source is not None and not source.error
    mine = [run for run in runs if name in run.components(axis)]
    judged = axis in OTHER
    about = [*_standings(axis, name, mine)]
    if judged:
        about += filter(None, [_duels(axis, name, mine), _verdicts(axis, name, mine)])
    return ComponentPage(
        axis=axis,
        name=strip_controls(name),
        kind=_kind(axis, name, mine),
        card=card_of(axis, name),
        parameters=parameters_of(registry.lookup(KIND_OF_AXIS[axis], name)) if known else [],
        about=[one for one in about if one.rows],
        measured=runs_table(mine),
        boards=[(run, [table_of(board) for board in run.rows_about(axis, name)]) for run in mine] if judged else [],
    )


def _kind(axis: str, name: str, runs: Sequence[Published]) -> str:
    """What groups a component on boards: its access, or the kind of the defense; else the axis."""
    column = {"attack": "access", "defense": "defense_kind"}.get(axis)
    for run in runs if column is not None else ():
        trials = run.data.results.trials
        values = trials[column][[spec.name == name for spec in trials[f"{axis}_spec"]]]
        for value in values[values != ""]:
            return f"{value} {axis}" if axis == "attack" else str(value).replace("_", " ")
    return {"dataset": "data set", "method": "hashing method"}.get(axis, axis)


def _standings(axis: str, name: str, runs: Sequence[Published]) -> Iterator[Table]:
    if axis == "attack":
        yield _attack(name, runs)
    elif axis == "defense":
        yield _defense(name, runs)
    else:
        yield _settings(axis, name, runs)


def _attack(name: str, runs: Sequence[Published]) -> Table:
    """An attack without a defense, a row per setting and variant."""
    metrics = ("t_map", "t_map_control", "gain", "own_map", "map", "map_change")
    rows = []
    for run, setting in _places(runs):
        rivals = [one for one in setting.attacks if one.gain is not None]
        for one in setting.attacks:
            if run.component("attack", one.name) == name:
                values = [real(one.t_map, heat=one.strong), real(one.control), real(one.gain, sign=True),
                          real(one.own_map), real(one.map), real(one.map_change, sign=True)]  # fmt: skip
                place = Cell(_place(one, rivals), number=True, weak=not one.strong)
                rows.append([_where(run, setting), _variant(one.name, name), *values, place, _n(setting)])
    heads = [WHERE, Head("variant", "with the parameters that differ in this run"), *map(measured, metrics),
             Head("place", "by gain, among attacks of equal access"), N]  # fmt: skip
    return without_empty(Table("Where it stands without a defense", heads, rows))


def _place(one: AttackFinding, rivals: Sequence[AttackFinding]) -> str:
    mine = [each.gain or 0.0 for each in rivals if each.access == one.access]
    if one.gain is None:
        return "-"
    weak = "" if one.strong else " weak"
    return f"{1 + sum(gain > one.gain for gain in mine)} of {len(mine)}{weak}"


def _defense(name: str, runs: Sequence[Published]) -> Table:
    """A defense against the attack of which most is left, a row per setting and variant."""
    rows = []
    for run, setting in _places(runs):
        worst = hardest(run, setting)
        kinds = {one.name: one.kind for one in setting.defenses}
        for one in setting.defenses:
            if run.component("defense", one.name) != name:
                continue
            rivals = [duel.left or 0.0 for variant, duel in worst.items() if kinds.get(variant) is one.kind]
            duel = worst.get(one.name)
            place = "-" if duel is None else f"{1 + sum(left < (duel.left or 0.0) for left in rivals)} of {len(rivals)}"
            left = EMPTY if duel is None else Cell(percent(duel), number=True, heat=duel.left or 0.0)
            before = EMPTY if one.clean_map is None else real(setting.clean_map)
            rows.append([_where(run, setting), _variant(one.name, name), left, Cell(duel.attack if duel else "-"),
                         before, real(one.clean_map), Cell(place, number=True), _n(setting)])  # fmt: skip
    heads = [WHERE, Head("variant", "with the parameters that differ in this run"),
             Head("left", "share of the attack that is left; 0 % is best"),
             Head("attack", "the attack of which most is left"), Head("clean mAP", "mAP of the clean model"),
             Head("clean mAP after", "mAP of the clean model after the defense"),
             Head("place", "by what is left, among defenses of its kind"), N]  # fmt: skip
    return without_empty(Table("Where it stands, against the attack of which most is left", heads, rows))


def _settings(axis: str, name: str, runs: Sequence[Published]) -> Table:
    """The settings of all runs with a data set, method or backbone."""
    rows = []
    for run, setting in _places(runs):
        if not any(spec.name == name for spec in setting.context.trials[f"{axis}_spec"]):
            continue
        measured_attacks = [one for one in setting.attacks if one.t_map is not None]
        strong = [one for one in measured_attacks if one.strong]
        best = f"{strong[0].name} {strong[0].t_map:.3f} ({strong[0].control or 0:.3f})" if strong else "-"
        defense = min(hardest(run, setting).values(), key=lambda one: one.left or 0.0, default=None)
        rows.append([
            _where(run, setting), real(setting.clean_map), real(setting.chance_map),
            Cell(f"{len(strong)} of {len(measured_attacks)}", number=True), Cell(best),
            Cell("-" if defense is None else f"{defense.defense}: {percent(defense)} left of {defense.attack}"),
            Cell(str(setting.results), number=True), _n(setting),
        ])  # fmt: skip
    heads = [WHERE, Head("mAP", "of the clean model", "glossary.html#map"), Head("chance", "mAP of a random ranking"),
             Head("attacks that work", "of those that were measured"),
             Head("largest gain", "t-mAP of this attack; in brackets: clean model"),
             Head("best defense", "by what is left of the attack of which most is left"),
             Head("trials", "with a result"), N]  # fmt: skip
    return Table("Where it was measured", heads, rows)


def _duels(axis: str, name: str, runs: Sequence[Published]) -> Table | None:
    """What breaks an attack, or what a defense breaks, best first."""
    other = OTHER[axis]

    def mine(run: Published, short: str) -> bool:
        return run.component(axis, short) == name

    found = [
        one for run in runs for one in run.duels
        if mine(run, getattr(one, axis)) and one.left is not None and one.strong
    ]  # fmt: skip
    if not found:
        return None
    found.sort(key=lambda one: (one.left or 0.0, one.attack, one.defense))
    rows = [
        [
            _linked(one.run, other, getattr(one, other)), Cell(percent(one), number=True, heat=one.left or 0.0),
            Cell(one.text), Cell(one.place, one.run.path),
            Cell(str(one.n), number=True),
        ]
        for one in found
    ]  # fmt: skip
    left = (
        "share of the attack that is left: of its gain in t-mAP or of its loss of own-mAP, whichever is larger; or of"
        " the queries that a detector misses"
    )
    heads = [Head(other), Head("left", left), Head("numbers", "before and after the defense"), WHERE,
             N]  # fmt: skip
    more = [f"And {len(rows) - 2 * SHOWN} more in between."] if len(rows) > 2 * SHOWN else []
    shown = [*rows[:SHOWN], *rows[-SHOWN:]] if more else rows
    title = "What breaks it, most first" if axis == "attack" else "What it breaks, most first"
    return Table(
        title, heads, shown, [*more, f"left: {left}. Attacks that are too weak to judge a defense are left out."]
    )


def _verdicts(axis: str, name: str, runs: Sequence[Published]) -> Table | None:
    """The models of an attack that detectors flag, or the models that a detector flags."""
    rows = []
    for run, setting in _places(runs):
        for one in setting.verdicts:
            detector, attack = run.component("defense", one.name), run.component("attack", one.attack)
            if name == (attack if axis == "attack" else detector):
                other = _linked(run, "defense", one.name) if axis == "attack" else _linked(run, "attack", one.attack)
                rows.append([other, Cell(one.flagged or "-", number=True), Cell(one.named or "-", number=True),
                             _where(run, setting)])  # fmt: skip
    if not rows:
        return None
    heads = [Head("detector" if axis == "attack" else "models of"),
             Head("flagged", "models above the threshold of the paper, of all models; 95 % interval"),
             Head("named", "models for which the detector names the right target"), WHERE]  # fmt: skip
    return Table("Model detectors" if axis == "attack" else "Which models it flags", heads, rows)


def _places(runs: Sequence[Published]) -> Iterator[tuple[Published, Setting]]:
    return ((run, setting) for run in runs for setting in run.settings)


def _where(run: Published, setting: Setting) -> Cell:
    return Cell(run.place(setting), run.path)


def _n(setting: Setting) -> Cell:
    return Cell(str(len(setting.cells.places)), number=True)


def _variant(short: str, name: str) -> Cell:
    """The parameters that differ in a run; empty for the component as it is."""
    return EMPTY if short == name else Cell(short)


def _linked(run: Published, axis: str, short: str) -> Cell:
    """A component by its short name, which may have parameters."""
    name = run.component(axis, short)
    return Cell(short, component_path(axis, name) if name != NONE else "")
