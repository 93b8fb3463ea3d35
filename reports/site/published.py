"""What the site says of each published run, and of each component in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from bench.api.kinds import DefenseKind
from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import strip_controls
from bench.engine.record import RunManifest
from bench.engine.record_cache import RecordCache
from bench.engine.runs import ALL, select
from bench.engine.store import Store
from reports import frame, summary
from reports.board import Board
from reports.board_registry import BoardData, all_boards, make_boards
from reports.boards import leaderboard
from reports.context import components
from reports.findings import DefenseFinding, Setting
from reports.labels import Names, label_of
from reports.page.chapters import boards_of
from reports.render import for_people
from reports.selection import NONE, with_result
from reports.site.tables import path_part

LEAST = 0.1  # a smaller change by an attack says nothing of a defense


@dataclass(frozen=True)
class Published:
    """A run on the site. name: in paths. title: its suites. data: what its boards are made from."""

    name: str
    title: str
    manifest: RunManifest
    data: BoardData

    @property
    def path(self) -> str:
        """The page of the run, from the front page."""
        return f"runs/{self.name}.html"

    @cached_property
    def summary(self) -> summary.Summary:
        """The sentences about the run."""
        return summary.of_data(self.data)

    @property
    def settings(self) -> list[Setting]:
        """What the boards say of each setting, the largest first."""
        return [one.setting for one in self.summary.headlines]

    @cached_property
    def boards(self) -> list[Board]:
        """All boards, those of the leaderboard first, with labels as names."""
        others = [kind for kind in all_boards().values() if not kind.part_of and kind.name != leaderboard.NAME]
        found = make_boards(leaderboard.NAME, self.data)
        return [*found, *(board for kind in others for board in boards_of(kind, self.data))]

    @cached_property
    def duels(self) -> list[Duel]:
        """Every attack against every defense. Model detectors judge models and have no duels."""
        return [
            _duel(self, setting, defense, attack)
            for setting in self.settings
            for defense in setting.defenses
            for attack in defense.effects
        ]

    def component(self, axis: str, short: str) -> str:
        """The name of the attack or the defense that boards print so."""
        return self._named[axis][short]

    @cached_property
    def _named(self) -> dict[str, dict[str, str]]:
        trials = self.data.results.trials
        short = Names.of(components(trials)).within
        return {
            axis: {short(label_of(spec)): spec.name for spec in set(trials[f"{axis}_spec"])}
            for axis in ("attack", "defense")
        }

    @cached_property
    def facts(self) -> dict[str, str]:
        """Size, machine, version and status of the run."""
        trials = self.data.results.trials
        done = with_result(trials)
        found = {
            "trials": f"{len(done)} of {len(trials)} have a result",
            "seeds": ", ".join(map(str, sorted(set(trials["seed"])))),
            "targets": ", ".join(sorted(set(map(str, trials["target"])))),
            "machine": "; ".join(sorted(set(done["computed_on"]))),
            "commit": ", ".join(sorted(set(self.commits.values()))) or "an installed package",
            "parameters": " ".join(Names.of(components(trials)).parameters),
            "run": self.manifest.id,
            "command": self.manifest.command,
            "status": self.data.record_cache.store.standing(self.manifest),
        }
        return {name: strip_controls(text) for name, text in found.items() if text}

    @cached_property
    def commits(self) -> dict[str, str]:
        """The commit of each result, by its key; without those of an installed package."""
        found = {}
        for key in with_result(self.data.results.trials)["key"]:
            record = self.data.record_cache.record(key)
            if record is not None and (git := record.provenance.git):
                found[key] = f"{git.commit[:12]}{' with changes' if git.dirty else ''}"
        return found

    def place(self, setting: Setting) -> str:
        """The run, its data set, and what tells the setting from the other settings of the run."""
        first, *rest = setting.context.parts
        others = [one.context.parts for one in self.settings]
        mine = [part for part in rest if not all(part in parts for parts in others)]
        alone = all(parts[0] == first for parts in others)
        data = setting.context.trials["dataset_spec"].iloc[0].name if alone else first
        return " · ".join([self.title, *map(strip_controls, [data, *mine])])

    @property
    def short_setting(self) -> str:
        """The largest setting without the parameters of its components, for a narrow column."""
        if not self.settings:
            return ""
        first = self.settings[0].context.trials.iloc[0]
        names = [first[f"{axis}_spec"].name for axis in ("dataset", "backbone", "method")]
        return strip_controls(" · ".join([*names, f"{first['bits']} bits"]))

    @property
    def status(self) -> str:
        """How far the run has been checked, in a word; "own run" for one that nobody has published."""
        return self.data.record_cache.store.status_of(self.manifest) or "own run"

    def components(self, axis: str) -> set[str]:
        """Names of the components on an axis that have a result."""
        return {spec.name for spec in with_result(self.data.results.trials)[f"{axis}_spec"]}

    def rows_about(self, axis: str, name: str) -> Iterator[Board]:
        """The parts of the boards that are about an attack or a defense, with short names."""
        trials = self.data.results.trials
        labels = {label_of(spec) for spec in trials[f"{axis}_spec"] if spec.name == name}
        others = {label_of(spec) for spec in trials["defense_spec"]} - labels - {NONE}
        for board in self.boards:
            table = board.table
            if axis == "defense" and labels & set(table):  # a board with a column per defense
                rest = [column for column in table if column in others]
                yield _part(board, pd.Series(data=True, index=table.index), [*board.quiet, *rest])
                continue
            columns = [column for column in board.index if column in table and table[column].isin(labels).any()]
            if columns:
                yield _part(board, table[columns].isin(labels).any(axis=1), board.quiet)


def _part(board: Board, rows: pd.Series[bool], quiet: Sequence[str]) -> Board:
    """Some rows of a board; what depends on the positions of rows is left out."""
    table = board.table[rows].reset_index(drop=True)
    part = replace(board, table=table, best=frozenset(), bold=frozenset(), quiet=tuple(quiet))
    return for_people([part], parameters=False)[0]


@dataclass(frozen=True)
class Duel:
    """An attack on a model with a defense, in one setting of a run.

    place: the run and the setting in short. strong: whether the attack is strong enough to judge a defense by it. left:
    the share of the attack that is left, from 1 (the defense changes nothing) to 0: the share of its gain in t-mAP or
    of its loss of own-mAP, whichever is larger; for an input detector, the share of triggered queries that it misses.
    None if there is no such number. text: the numbers. n: number of (target, seed) pairs of the means.
    """

    run: Published
    setting: str
    place: str
    attack: str
    defense: str
    strong: bool
    left: float | None
    text: str
    n: int


def _duel(run: Published, setting: Setting, defense: DefenseFinding, attack: str) -> Duel:
    effect = defense.effects[attack]
    if defense.kind is DefenseKind.INPUT_DETECTOR:
        left = None if effect.tpr is None else 1 - effect.tpr
        text = (
            "" if effect.tpr is None else f"finds {100 * effect.tpr:.0f} % of the triggered queries at 5 % false alarms"
        )
    else:
        control = next((one.control for one in setting.attacks if one.name == attack), None)
        gain = _share(control, effect.t_map_before, effect.t_map)
        loss = _share(effect.own_control, effect.own_map_before, effect.own_map)
        left = max((share for share in (gain, loss) if share is not None), default=None)
        pairs = (("t-mAP", effect.t_map_before, effect.t_map), ("own-mAP", effect.own_map_before, effect.own_map))
        text = ", ".join(
            f"{name} {before:.3f} to {after:.3f}"
            for name, before, after in pairs
            if before is not None and after is not None
        )
    return Duel(run, setting.name, run.place(setting), attack, defense.name, effect.strong, left, text, effect.n)


def _share(clean: float | None, before: float | None, after: float | None) -> float | None:
    """The share of a change that is left after a defense, from 0 to 1; None if the attack changed next to nothing."""
    if clean is None or before is None or after is None or abs(before - clean) < LEAST:
        return None
    return min(1.0, max(0.0, (after - clean) / (before - clean)))


def published(store: Store, *, suite: str | None = None, run: str = ALL) -> list[Published]:
    """Every run of a store or collection with a result, the largest first; see `bench.engine.runs.select`."""
    cache, found = RecordCache(store), list[Published]()
    for manifest in select(store, run, suite=suite).shown:
        results = frame.results_of([manifest], cache)
        if not with_result(results.trials).empty:
            title = strip_controls(" + ".join(manifest.suites))
            found.append(Published(path_part("-".join(manifest.suites)), title, manifest, BoardData(results, cache)))
    names = [one.name for one in found]
    found = [_told_apart(one) if names.count(one.name) > 1 else one for one in found]
    return sorted(found, key=lambda one: (-len(one.data.results.trials), one.name))


def _told_apart(run: Published) -> Published:
    """A run whose suites another run has too."""
    start = path_part(run.manifest.id[:8])
    return replace(run, name=f"{run.name}-{start}", title=f"{run.title} ({start})")


def components_of(runs: Sequence[Published]) -> Mapping[str, list[str]]:
    """The components with a result, by axis."""
    return {axis: sorted(set().union(*(one.components(axis) for one in runs)) - {NONE}) for axis in KIND_OF_AXIS}
