"""The leaderboard: boards of attacks, defenses, detectors and trials without a result.

A board shows one setting and one version of protocol, metrics and code. It averages over the (target, seed) cells that
all its rows share. Seconds differ between runs and are shown only on request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from bench.engine.record import Status
from reports.basis import Basis
from reports.board import Board, Column
from reports.board_registry import BoardData, BoardKind, all_boards, board, parts_of
from reports.boards.defenses import matrix
from reports.common_cells import CommonCells
from reports.context import contexts
from reports.frame import SETTING, Results
from reports.selection import BASED, NONE, TEXTS, attacked, axis_named, undefended

NAME = "leaderboard"
ORDER = ("attacks", "target-afterwards", "defenses", "data-filters", "input-detectors", "model-detectors",
         "purifications", "defense-costs")  # then boards of plugins  # fmt: skip
OVERALL, LOST = "attacks-overall", "no-result"  # boards of whole runs, never split by an axis


@board(NAME, chapter="Leaderboards", help="attacks, defenses, detectors, and trials without a result",
       on_page={"costs": True}, columns={"mean": Column("mean over the values of the axis")})  # fmt: skip
def leaderboard(
    data: BoardData,
    *,
    by: Annotated[str | None, "An axis: one set of boards per value."] = None,
    costs: Annotated[bool, "Add seconds, which differ between runs."] = False,
) -> list[Board]:
    """The boards in their order; with `by`, a set of boards per value of the axis."""
    axis = axis_named(by) if by is not None else None
    here = replace(data, results=_runnable(data.results))
    found = all_boards()[OVERALL].make(here) if axis is None else _gain_by_axis(here, axis) if axis in SETTING else []
    for label, results in _slices(here.results, axis):
        part = replace(data, results=results)
        for kind in _parts():
            options = {"costs": costs} if "costs" in kind.options else {}
            found += [_labelled(one, label) for one in kind.make(part, **options)]
    return found + all_boards()[LOST].make(data)


def _parts() -> list[BoardKind]:
    """The kinds of boards of each slice, in their order."""
    place = {name: i for i, name in enumerate(ORDER)}
    parts = [kind for kind in parts_of(NAME) if kind.name not in {OVERALL, LOST}]
    return sorted(parts, key=lambda kind: place.get(kind.name, len(place)))


def _runnable(results: Results) -> Results:
    """The results without settings that cannot run because data are missing; the board of no result names those."""
    trials = results.trials
    settings = [trials[axis] for axis in SETTING]
    left_out = trials["status"].eq(Status.SKIPPED.value).groupby(settings, dropna=False).transform("all")
    return replace(results, trials=trials[~left_out.astype(bool)])


def _gain_by_axis(data: BoardData, axis: str) -> list[Board]:
    """The gain of each undefended attack for each value of an axis of the setting."""
    trials, found = data.results.trials, []
    plain = attacked(undefended(trials))
    for context in contexts(plain, data.mixed, without=axis):
        values = sorted(set(context.trials[axis]), key=lambda value: (isinstance(value, str), value))
        if len(values) < 2:
            continue
        made = context.grouped(context.trials, ["attack", axis])
        names = {value: f"{axis} {value}" if not isinstance(value, str) else value for value in values}
        shared = CommonCells.of(made)
        rows = {(attack, names[value]): group for (attack, value), group in made.items()}
        counted = frozenset((attack, names[value]) for attack, value in shared.counted)
        basis = Basis(context, rows, replace(shared, counted=counted))
        made_board = matrix(basis, "gain", f"Gain by {axis}", (), "gain = t-mAP - control.")
        order = ["attack", "cells", *names.values()]
        shown = made_board.table[[name for name in order if name in made_board.table]]
        # a plain mean: the values are no sample
        shown = shown.assign(mean=shown.iloc[:, 2:].mean(axis=1, skipna=False))
        found.append(replace(made_board, table=shown, metrics={**made_board.metrics, "mean": "gain"}))
    return found


def _slices(results: Results, by: str | None) -> Iterator[tuple[str, Results]]:
    """The label and the results per value of an axis; slices by attack or access all hold `none`."""
    trials, scores = results.trials, results.detectors
    if by is None:
        yield "", results
        return
    for value in dict.fromkeys(trials[by]):
        if by in BASED - {"defense"} and value == NONE and len(set(trials[by])) > 1:
            continue
        wanted = [value, NONE] if by in BASED - {"defense"} else [value]
        label = "" if by in SETTING or by in TEXTS else f"{by} {value}"
        mine, theirs = trials[trials[by].isin(wanted)], scores[scores[by].isin(wanted)]
        yield label, replace(results, trials=mine, detectors=theirs)


def _labelled(board: Board, label: str) -> Board:
    return replace(board, setting=" · ".join(filter(None, [board.setting, label]))) if label else board
