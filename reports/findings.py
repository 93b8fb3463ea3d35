"""The findings of each setting of a run: what its boards say of every attack and defense, as typed records.

All numbers are read from the boards, so that they are means over the same cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bench.api.kinds import DefenseKind
from bench.metrics import METRICS
from reports.basis import Basis
from reports.board import TOO_WEAK, Board
from reports.board_registry import BoardData, all_boards
from reports.boards import hardest_attack, model_detectors
from reports.common_cells import CommonCells
from reports.context import BoardContext, components, contexts
from reports.labels import Names
from reports.selection import NONE

Place = tuple[str, ...]  # of a setting and version: `BoardContext.place`


@dataclass(frozen=True)
class AttackFinding:
    """An attack on undefended models. Names are short, as on boards.

    afterwards: whether the attack fixes no target, so that t_map, control and gain are those of the class that is
    retrieved most often. strong: whether it is strong enough to judge defenses by it. own_control: own-mAP of the clean
    model under the trigger. poisoned_share: of the training set; None for an attack that poisons nothing.
    """

    name: str
    access: str
    t_map: float | None
    control: float | None
    gain: float | None
    own_map: float | None
    own_control: float | None
    map: float | None
    map_change: float | None
    poisoned_share: float | None
    afterwards: bool
    strong: bool


@dataclass(frozen=True)
class Effect:
    """Triggered queries of an attack after a defense, all over the same cells. strong: as of the attack.

    t_map_before, own_map_before: without the defense. own_control: own-mAP of the clean model. tpr: TPR@5% of the main
    score of an input detector, which has no other number. n: number of these cells.
    """

    strong: bool
    t_map: float | None = None
    t_map_before: float | None = None
    own_map: float | None = None
    own_map_before: float | None = None
    own_control: float | None = None
    tpr: float | None = None
    n: int = 0


@dataclass(frozen=True)
class DefenseFinding:
    """A defense against every attack.

    clean_map: mAP of the clean model after it. hardest: the strong attack that the defense does least against, as the
    board of hardest attacks names it; "" without any. worst: under that attack, the own-mAP below the clean model's,
    or TPR@5% of an input detector.
    """

    name: str
    kind: DefenseKind
    effects: Mapping[str, Effect]
    clean_map: float | None = None
    hardest: str = ""
    worst: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of a model detector on the models of an attack (none: clean models), as its board prints them."""

    name: str
    attack: str
    models: int
    flagged: str
    named: str
    calibrated: bool


@dataclass(frozen=True)
class Setting:
    """What the boards of one setting and version say. results, planned: numbers of trials, defended ones included."""

    context: BoardContext
    name: str
    results: int
    planned: int
    cells: CommonCells
    clean_map: float | None
    chance_map: float | None
    attacks: tuple[AttackFinding, ...]
    defenses: tuple[DefenseFinding, ...]
    verdicts: tuple[Verdicts, ...]

    @property
    def changing(self) -> list[DefenseFinding]:
        """The defenses that change codes: repairs, data filters, purifications."""
        return [one for one in self.defenses if one.kind is not DefenseKind.INPUT_DETECTOR]

    @property
    def detectors(self) -> list[DefenseFinding]:
        """The input detectors."""
        return [one for one in self.defenses if one.kind is DefenseKind.INPUT_DETECTOR]


def of(data: BoardData) -> list[Setting]:
    """The findings of every setting with a result, the setting with the most results first."""
    names = Names.of(components(data.results.trials))
    made = {name: _by_place(name, data) for name in
            ("attacks", "target-afterwards", "defenses", "purifications", "input-detectors", "model-detectors",
             "hardest-attack")}  # fmt: skip
    found = []
    for context in contexts(data.results.trials, data.mixed):
        if context.done.empty:
            continue
        boards = {name: each.get(context.place, []) for name, each in made.items()}
        weak = data.weak_attacks.of(context)
        first = next((board for each in boards.values() for board in each if board.basis), None)
        if first is None or first.basis is None:
            continue
        found.append(
            Setting(
                context=context,
                name=names.within(context.setting),
                results=len(context.done),
                planned=len(context.trials),
                cells=first.basis.cells,
                clean_map=_of_clean(context, boards["attacks"]),
                chance_map=_mean(context, "map_chance"),
                attacks=tuple(_attacks(boards, weak, names)),
                defenses=tuple(_defenses(context, boards, names)),
                verdicts=tuple(_verdicts(boards["model-detectors"], names)),
            )
        )
    return sorted(found, key=lambda one: -one.results)


def _by_place(name: str, data: BoardData) -> dict[Place, list[Board]]:
    found: dict[Place, list[Board]] = {}
    for board in all_boards()[name].make(data):
        if board.basis is not None:
            found.setdefault(board.basis.context.place, []).append(board)
    return found


def _rows(board: Board) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in board.table.to_dict("records")]


def _value(row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column)
    return None if not isinstance(value, (int, float)) or math.isnan(value) else float(value)


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return value if isinstance(value, str) else ""


def _metric(row: Mapping[str, Any], metric: str) -> float | None:
    return _value(row, METRICS[metric].title)


def _mean(context: BoardContext, metric: str) -> float | None:
    values = context.done[metric].dropna()
    return float(values.mean()) if len(values) else None


def _of_clean(context: BoardContext, boards: Iterable[Board]) -> float | None:
    """The clean model's mAP: of row none, or without such a row the mean that the trials compare with."""
    for board in boards:
        for row in _rows(board):
            if row["attack"] == NONE:
                return _metric(row, "map")
    return _mean(context, "map_clean")


def _attacks(boards: Mapping[str, Sequence[Board]], weak: Mapping[str, float], names: Names) -> Iterable[AttackFinding]:
    """The attacks by gain, largest first."""
    plain = [board for board in boards["attacks"] if board.title == "Attacks"]
    loose = {row["attack"]: row for board in boards["target-afterwards"] for row in _rows(board)}
    fixed = _fixed(plain)
    found = []
    for basis, row in ((board.basis, row) for board in plain for row in _rows(board) if row["attack"] != NONE):
        label = row["attack"]
        after = loose.get(label, {}) if label not in fixed else {}
        t_map = _metric(after, "t_map_posthoc") if after else _metric(row, "t_map")
        control = _metric(after, "t_map_posthoc_control") if after else _metric(row, "t_map_control")
        gain = _metric(row, "gain")
        if after:
            gain = None if t_map is None or control is None else t_map - control
        found.append(
            AttackFinding(
                name=names.within(label),
                access=row["access"],
                t_map=t_map,
                control=control,
                gain=gain,
                own_map=_metric(row, "own_map"),
                own_control=_own_control(basis, label),
                map=_metric(row, "map"),
                map_change=_metric(row, "map_change"),
                poisoned_share=_metric(row, "poisoned_share"),
                afterwards=bool(after),
                strong=label not in weak and t_map is not None,
            )
        )
    return sorted(found, key=lambda one: -math.inf if one.gain is None else one.gain, reverse=True)


def _own_control(basis: Basis | None, attack: str) -> float | None:
    """own-mAP of the clean model, over the cells of the board of attacks, which has no such column."""
    if basis is None or attack not in basis.cells.counted:
        return None
    value = basis.cells.mean(basis.rows[attack], "own_map_control")
    return None if math.isnan(value) else value


def _fixed(boards: Iterable[Board]) -> set[str]:
    """The attacks that fix their target."""
    found: set[str] = set()
    for board in boards:
        trials = board.basis.context.trials if board.basis is not None else None
        if trials is not None:
            found |= set(trials.loc[trials["targeted"].astype(bool), "attack"])
    return found


def _defenses(context: BoardContext, boards: Mapping[str, Sequence[Board]], names: Names) -> Iterable[DefenseFinding]:
    """The defenses by the hardest attack of each, best first; then those that no attack judges."""
    kinds = dict(zip(context.trials["defense"], context.trials["defense_kind"], strict=True))
    effects: dict[str, dict[str, dict[str, Any]]] = {}
    for defense, attack, values in chain(
        _after_repairs(boards["defenses"], kinds), _purified(boards["purifications"]), _found(boards["input-detectors"])
    ):
        effects.setdefault(defense, {}).setdefault(attack, {}).update(values)
    hardest = {row["defense"]: row for board in boards["hardest-attack"] for row in _rows(board)}
    found = []
    for defense, each in effects.items():
        kind, row = DefenseKind(kinds[defense]), hardest.get(defense, {})
        clean = each.pop(NONE, {})
        measure = METRICS["tpr_5"].title if kind is DefenseKind.INPUT_DETECTOR else hardest_attack.LOST
        attacks = _text(row, "hardest attack")  # several if they are equal; labels may contain commas
        attack = max((one for one in each if f"{attacks}, ".startswith(f"{one}, ")), key=len, default="")
        found.append(
            DefenseFinding(
                name=names.within(defense),
                kind=kind,
                effects={names.within(label): Effect(**values) for label, values in each.items()},
                clean_map=clean.get("map"),
                hardest=names.within(attack),
                worst=_value(row, measure) if attack else None,
            )
        )
    return sorted(found, key=_order)


Found = Iterable[tuple[str, str, dict[str, Any]]]  # defense, attack, fields of its Effect; for no attack `map`


def _after_repairs(boards: Iterable[Board], kinds: Mapping[str, str]) -> Found:
    """The effects of repairs and data filters, from boards of one metric with a column per defense."""
    for board in boards:
        for row in _rows(board):
            for column, metric in board.metrics.items():
                if column not in kinds or column == NONE:
                    continue
                if row["attack"] == NONE:
                    yield column, NONE, {"map": _value(row, column)} if metric == "map" else {}
                elif metric != "map":
                    values = {metric: _value(row, column), f"{metric}_before": _value(row, NONE)}
                    if metric == "own_map":
                        values["own_control"] = _metric(row, "own_map_control")
                    yield column, row["attack"], {**values, **_judging(board, row)}


def _purified(boards: Iterable[Board]) -> Found:
    for board in boards:
        rows = {(row["attack"], row["defense"]): row for row in _rows(board)}
        for (attack, defense), row in rows.items():
            if defense == NONE:
                continue
            if attack == NONE:
                yield defense, NONE, {"map": _metric(row, "map")}
                continue
            values: dict[str, Any] = {**_judging(board, row), "own_control": _metric(row, "own_map_control")}
            for metric in ("t_map", "own_map"):
                values |= {
                    metric: _metric(row, metric),
                    f"{metric}_before": _metric(rows.get((attack, NONE), {}), metric),
                }
            yield defense, attack, values


def _found(boards: Iterable[Board]) -> Found:
    """TPR@5% of the main score of each input detector."""
    for board in boards:
        for row in _rows(board):
            if row["attack"] != NONE and str(row["score"]).endswith(" *"):
                yield row["input detector"], row["attack"], {**_judging(board, row), "tpr": _metric(row, "tpr_5")}


def _judging(board: Board, row: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the attack of a row is strong, and the number of cells of the board."""
    return {"strong": not row[TOO_WEAK], "n": len(board.basis.cells.places) if board.basis is not None else 0}


def _order(one: DefenseFinding) -> tuple[bool, float, str]:
    sign = -1 if one.kind is DefenseKind.INPUT_DETECTOR else 1
    return one.worst is None, sign * (one.worst or 0), one.name


def _verdicts(boards: Iterable[Board], names: Names) -> Iterable[Verdicts]:
    for board in boards:
        for row in _rows(board):
            yield Verdicts(
                name=names.within(row["defense"]),
                attack=names.within(row["attack"]),
                models=int(row["models"]),
                flagged=_text(row, "flagged"),
                named=_text(row, "named"),
                calibrated=_text(row, model_detectors.AT_5) != "",
            )
