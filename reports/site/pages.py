"""The pages of the site, as their templates read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.api import registry
from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import strip_controls
from bench.config.parameters import Parameter, parameters_of
from bench.metrics import METRICS, Metric
from bench.metrics.explained import Explanation, explanation
from reports.board import Board
from reports.cells import caption_lines, holds_text, words
from reports.findings import Setting
from reports.page.layout import card_of
from reports.selection import NONE
from reports.site.published import Duel, Published, duels

WEAK = " weak"
SHOWN = 12  # lines of a list of duels
TITLES = {"attack": "Attacks", "defense": "Defenses", "method": "Hashing methods", "backbone": "Backbones",
          "dataset": "Data sets"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell of a table. link: a path from the front page, or ""."""

    text: str
    link: str = ""
    number: bool = False
    weak: bool = False


@dataclass(frozen=True)
class Table:
    """A table as templates draw it. heads: name and meaning of each column."""

    title: str
    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def table_of(board: Board) -> Table:
    """The compact columns of a board."""
    texts, shown = words(board), board.compact_columns
    names = [name for name in shown if name in texts]
    rows = [
        [Cell(texts[name][row], number=not holds_text(board, name)) for name in names]
        for row in range(len(board.table))
    ]
    return Table(
        board.heading, [(name, board.meaning(name)) for name in names], rows, caption_lines(board.short_caption)
    )


def component_path(axis: str, name: str) -> str:
    """The page of a component, from the front page."""
    return f"{KIND_OF_AXIS[axis]}/{name}.html"


def run_path(run: Published) -> str:
    """The page of a run, from the front page."""
    return f"runs/{run.name}.html"


def attacks_table(runs: Sequence[Published]) -> Table:
    """Every attack without a defense, in the largest setting of each run."""
    found: dict[str, dict[str, Cell]] = {}
    access: dict[str, str] = {}
    for run in runs:
        for setting in run.settings[:1]:
            for one in setting.attacks:
                access.setdefault(one.name, one.access)
                if one.t_map is not None:
                    control = "" if one.control is None else f" ({one.control:.3f})"
                    cell = Cell(
                        f"{one.t_map:.3f}{control}{'' if one.strong else WEAK}", number=True, weak=not one.strong
                    )
                    found.setdefault(one.name, {})[run.name] = cell
    rows = [
        [_linked("attack", name), Cell(access[name]), *(cells.get(run.name, Cell("-", number=True)) for run in runs)]
        for name, cells in sorted(found.items())
    ]
    heads = [("attack", "each links to its page"), ("access", "the part of the system that the attacker can change")]
    heads += [(run.title, "t-mAP; in brackets: clean model") for run in runs]
    note = (
        "t-mAP of triggered queries; in brackets that of the clean model under the same trigger, which an attack must"
        " exceed. weak: too weak to judge a defense by it."
    )
    return Table("Attacks without a defense", heads, rows, [note])


def defenses_table(runs: Sequence[Published]) -> Table:
    """The attack that is hardest for each defense, in the largest setting of each run."""
    found: dict[str, dict[str, Cell]] = {}
    kinds: dict[str, str] = {}
    for run in runs:
        for setting in run.settings[:1]:
            for one in setting.defenses:
                kinds.setdefault(one.name, one.kind.value.replace("_", " "))
            for name, worst in _hardest(run, setting).items():
                found.setdefault(name, {})[run.name] = Cell(f"{percent(worst)}, {worst.attack}", number=True)
    rows = [
        [_linked("defense", name), Cell(kinds[name]), *(cells.get(run.name, Cell("-", number=True)) for run in runs)]
        for name, cells in sorted(found.items())
    ]
    heads = [("defense", "each links to its page"), ("kind", "what it works on")]
    heads += [(run.title, "share of the attack that is left, and the attack") for run in runs]
    note = (
        "Of the attacks that are not weak; 0 % is best. After a repair, data filter or purification: the share of the"
        " gain in t-mAP, or of the loss of own-mAP, whichever is larger. Of an input detector: the share of triggered"
        " queries that it misses at 5 % false alarms. Model detectors judge models: see the runs. The sentences about a"
        " run choose the hardest attack by the own-mAP that it still costs, in absolute terms."
    )
    return Table("Defenses, each against the attack of which most is left", heads, rows, [note])


def _hardest(run: Published, setting: Setting) -> dict[str, Duel]:
    """For each defense, the strong attack of which most is left."""
    found: dict[str, Duel] = {}
    for one in duels(run):
        if one.setting == setting.name and one.strong and one.left is not None:
            found[one.defense] = max(found.get(one.defense, one), one, key=lambda each: each.left or 0.0)
    return found


def percent(duel: Duel) -> str:
    """What is left of the attack."""
    return f"{100 * (duel.left or 0.0):.0f} %"


def _linked(axis: str, short: str) -> Cell:
    """A component by its short name, which may have parameters."""
    return Cell(short, component_path(axis, short.partition("(")[0]))


@dataclass(frozen=True)
class ComponentPage:
    """A component: its card, parameters, runs, rows on boards, and duels."""

    axis: str
    name: str
    card: dict[str, str]
    parameters: Sequence[Parameter]
    standings: Sequence[tuple[Published, Sequence[Table]]]
    duels: Table | None


def component_page(axis: str, name: str, runs: Sequence[Published]) -> ComponentPage:
    """The page of a component that has a result in a run."""
    source = registry.catalogue(KIND_OF_AXIS[axis]).get(name)
    known = source is not None and not source.error
    mine = [run for run in runs if name in run.components(axis)]
    standings = []
    for run in mine:
        if axis in {"attack", "defense"}:
            tables = [table_of(board) for board in run.rows_about(axis, name)]
        else:
            tables = [_settings(run, axis, name)]
        standings.append((run, tables))
    return ComponentPage(
        axis=axis,
        name=name,
        card=card_of(axis, name),
        parameters=parameters_of(registry.lookup(KIND_OF_AXIS[axis], name)) if known else [],
        standings=standings,
        duels=_duels(axis, name, mine) if axis in {"attack", "defense"} else None,
    )


def _settings(run: Published, axis: str, name: str) -> Table:
    """The settings of a run with a data set, method or backbone."""
    rows = [
        [Cell(one.name, run_path(run)), *(Cell("-" if value is None else f"{value:.3f}", number=True)
                                          for value in (one.clean_map, one.chance_map)),
         Cell(str(one.results), number=True)]
        for one in run.settings if any(spec.name == name for spec in one.context.trials[f"{axis}_spec"])
    ]  # fmt: skip
    heads = [("setting", "data set, backbone, method and bits"), ("mAP", "of the clean model"),
             ("chance", "mAP of a random ranking"), ("trials", "with a result")]  # fmt: skip
    return Table("Settings", heads, rows)


def _duels(axis: str, name: str, runs: Sequence[Published]) -> Table | None:
    """What breaks an attack, or what a defense breaks, best first."""
    other = "defense" if axis == "attack" else "attack"

    def mine(one: Duel) -> bool:
        return (one.attack if axis == "attack" else one.defense).partition("(")[0] == name

    found = [(run, one) for run in runs for one in duels(run) if mine(one) and one.left is not None and one.strong]
    if not found:
        return None
    found.sort(key=lambda pair: (pair[1].left or 0.0, pair[1].attack, pair[1].defense))
    rows = [
        [_linked(other, one.defense if axis == "attack" else one.attack), Cell(percent(one), number=True),
         Cell(one.text), Cell(f"{run.title}: {one.setting}", run_path(run))]
        for run, one in found
    ]  # fmt: skip
    title = "What breaks it" if axis == "attack" else "What it breaks, and what it does not"
    left = (
        "share of the attack that is left: of its gain in t-mAP or of its loss of own-mAP, whichever is larger; or of"
        " the queries that a detector misses"
    )
    heads = [(other, ""), ("left", left), ("numbers", "before and after the defense"), ("where", "run and setting")]
    more = [f"And {len(rows) - 2 * SHOWN} more in between."] if len(rows) > 2 * SHOWN else []
    shown = [*rows[:SHOWN], *rows[-SHOWN:]] if more else rows
    weak = "Attacks that are too weak to judge a defense are left out."
    return Table(title, heads, shown, [*more, weak])


def glossary() -> Iterator[tuple[str, list[tuple[Metric, Explanation]]]]:
    """The metrics by section, each with its explanation."""
    for section in METRICS.sections():
        yield section, [(METRICS[name], explanation(METRICS[name])) for name in METRICS.of(section)]


def card_line(axis: str, name: str) -> str:
    """What a component does, in a sentence."""
    return strip_controls(card_of(axis, name)["sentence"]) if name != NONE else ""
