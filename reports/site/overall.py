"""The boards over all runs, for the front page: attacks, defenses, model detectors, and the runs themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from bench.api.kinds import Access, DefenseKind
from reports.findings import AttackFinding, Setting
from reports.selection import NONE
from reports.site.published import Duel, Published
from reports.site.tables import EMPTY, Cell, Head, Table, component_path
from reports.summary import flagged

T = TypeVar("T")
ONE_SETTING = "A column is the largest setting of a run; its page has the others."
ATTACKS_NOTE = (
    "t-mAP of triggered queries, from 0 to 1; in brackets that of the clean model with the same trigger, which"
    " an attack must exceed. weak: too weak to judge a defense by it."
    f" Of several variants of an attack, the one that gains most. {ONE_SETTING} Rows of one access stand by"
    " their mean gain."
)
DEFENSES_NOTE = (
    "0 % is best. After a repair, a data filter or a purification: the share of the attack's gain in t-mAP that"
    " is left, or of its loss of own-mAP, whichever is larger. Of an input detector: the share of triggered"
    " queries that it misses at 5 % false alarms. Weak attacks do not count; - : no attack of the run judges"
    f" the defense. Of several variants of a defense, the one that leaves least. {ONE_SETTING}"
)


def attacks_table(runs: Sequence[Published]) -> Table:
    """Every attack without a defense, in the largest setting of each run."""
    found: dict[str, dict[str, list[AttackFinding]]] = {}
    for run, setting in _largest(runs):
        for one in setting.attacks:
            if one.t_map is not None:
                found.setdefault(run.component("attack", one.name), {}).setdefault(run.name, []).append(one)
    best = {
        name: {run: max(variants, key=lambda one: one.gain or 0.0) for run, variants in mine.items()}
        for name, mine in found.items()
    }
    access = {name: next(iter(mine.values())).access for name, mine in best.items()}
    places = [one.value for one in Access]

    def order(name: str) -> tuple[int, float, str]:
        return places.index(access[name]), -fmean(one.gain or 0.0 for one in best[name].values()), name

    rows = [
        [_link("attack", name), Cell(access[name]), *_cells(runs, best[name], _strength)]
        for name in sorted(best, key=order)
    ]
    return Table(
        "Attacks without a defense",
        [Head("attack"), Head("access", "the part of the system that the attacker can change"), *_columns(runs)],
        rows,
        [ATTACKS_NOTE],
    )


def _strength(one: AttackFinding) -> Cell:
    control = "" if one.control is None else f" ({one.control:.3f})"
    text = f"{one.t_map:.3f}{control}{'' if one.strong else ' weak'}"
    return Cell(text, number=True, weak=not one.strong, heat=max(0.0, one.gain or 0.0) if one.strong else 0.0)


def defenses_table(runs: Sequence[Published]) -> Table:
    """For each defense, the attack of which most is left, in the largest setting of each run."""
    found: dict[str, dict[str, dict[str, Duel]]] = {}
    kinds: dict[str, DefenseKind] = {}
    for run, setting in _largest(runs):
        for one in setting.defenses:
            kinds.setdefault(run.component("defense", one.name), one.kind)
        for variant, worst in hardest(run, setting).items():
            found.setdefault(run.component("defense", variant), {}).setdefault(run.name, {})[variant] = worst
    best = {
        name: {run: min(variants.values(), key=lambda one: one.left or 0.0) for run, variants in mine.items()}
        for name, mine in found.items()
    }
    order = {kind: place for place, kind in enumerate(DefenseKind)}
    names = sorted(kinds, key=lambda name: (order[kinds[name]], _mean_left(best.get(name, {})), name))
    rows = [
        [_link("defense", name), Cell(str(kinds[name]).replace("_", " ")), *_cells(runs, best.get(name, {}), _left)]
        for name in names
    ]
    return Table(
        "Defenses, each against the attack of which most is left",
        [Head("defense"), Head("kind", "what the defense works on"), *_columns(runs)],
        rows,
        [DEFENSES_NOTE],
    )


def _mean_left(found: Mapping[str, Duel]) -> float:
    return fmean(one.left or 0.0 for one in found.values()) if found else 2.0


def _left(one: Duel) -> Cell:
    return Cell(f"{percent(one)}, {one.attack}", number=True, heat=one.left or 0.0)


def hardest(run: Published, setting: Setting) -> dict[str, Duel]:
    """For each defense of a setting, the strong attack of which most is left."""
    found: dict[str, Duel] = {}
    for one in run.duels:
        if one.setting == setting.name and one.strong and one.left is not None:
            found[one.defense] = max(found.get(one.defense, one), one, key=lambda each: each.left or 0.0)
    return found


def percent(duel: Duel) -> str:
    """What is left of the attack."""
    return f"{100 * (duel.left or 0.0):.0f} %"


def detectors_table(runs: Sequence[Published]) -> Table | None:
    """The models that each model detector flags, in the largest setting of each run; None without detectors."""
    found: dict[str, dict[str, Cell]] = {}
    for run, setting in _largest(runs):
        strong = {one.name for one in setting.attacks if one.strong}
        for variant in dict.fromkeys(one.name for one in setting.verdicts):
            mine = [one for one in setting.verdicts if one.name == variant]
            attacked, clean = flagged(mine, strong), flagged(mine, {NONE})
            if attacked:
                text = f"{attacked}; clean {clean or 'unknown'}"
                found.setdefault(run.component("defense", variant), {})[run.name] = Cell(text, number=True)
    if not found:
        return None
    rows = [[_link("defense", name), *_cells(runs, found[name], lambda cell: cell)] for name in sorted(found)]
    return Table(
        "Model detectors",
        [Head("detector"), *_columns(runs)],
        rows,
        [f"Attacked models that the detector flags, of attacks that are not weak; then clean models. {ONE_SETTING}"],
    )


def runs_table(runs: Sequence[Published]) -> Table:
    """What each run is: data, size, machine and commit."""
    rows = []
    for run in runs:
        cells = run.settings[0].cells if run.settings else None
        sizes = [len(cells.places), len(cells.targets), len(cells.seeds)] if cells is not None else [0, 0, 0]
        counts = [Cell(str(len(run.components(axis) - {NONE})), number=True) for axis in ("attack", "defense")]
        rows.append([
            Cell(run.title, run.path), Cell(", ".join(sorted(run.components("dataset")))),
            Cell(str(len(run.settings)), number=True), *counts, *(Cell(str(size), number=True) for size in sizes),
            Cell(run.facts["trials"].partition(" have")[0], number=True), Cell(run.facts.get("machine", "unknown")),
            Cell(run.facts["commit"]), Cell(run.status), Cell("CSV, JSON", f"data/{run.name}/index.html"),
        ])  # fmt: skip
    heads = [
        Head("run", "leads to all its boards and charts"), Head("data"),
        Head("settings", "combinations of data set, backbone, method and bits"), Head("attacks"), Head("defenses"),
        Head("n", "(target, seed) pairs of the largest setting that means are over"),
        Head("targets"), Head("seeds"), Head("trials", "with a result"), Head("machine"),
        Head("commit"), Head("status", "how far the run has been checked"), Head("data files"),
    ]  # fmt: skip
    return Table("Runs and data", heads, rows)


def _largest(runs: Iterable[Published]) -> Iterator[tuple[Published, Setting]]:
    """The setting with the most results of each run."""
    return ((run, setting) for run in runs for setting in run.settings[:1])


def _columns(runs: Iterable[Published]) -> list[Head]:
    """A column per run, which leads to its page."""
    return [Head(run.title, run.summary.scope, run.path, run.short_setting) for run in runs]


def _cells(runs: Iterable[Published], found: Mapping[str, T], draw: Callable[[T], Cell]) -> list[Cell]:
    """A cell per run."""
    return [draw(found[run.name]) if run.name in found else EMPTY for run in runs]


def _link(axis: str, name: str) -> Cell:
    return Cell(name, component_path(axis, name))
