"""Attacks over several settings of a data set: means per (target, seed) cell; METHODOLOGY.md#across-settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from bench.engine.record import Status
from bench.metrics import METRICS
from reports.board import Board
from reports.board_registry import BoardData, board
from reports.boards.attacks import COLUMNS, attack_board
from reports.context import BoardContext, about, contexts, listed
from reports.frame import SETTING
from reports.selection import groups, of_status, undefended, without_result

ROW = ["attack", "access", "target", "seed"]
SAME = ("classes", "targeted", "target_labels", "remark")


@board("attacks-overall", chapter="Leaderboards", part_of="leaderboard",
       help="attacks by gain, averaged over at least two settings of a data set (for example two code lengths)",
       columns=COLUMNS)  # fmt: skip
def attacks_overall(data: BoardData) -> list[Board]:
    """One board per data set with at least two settings that all its attacks share."""
    trials = data.results.trials
    plain = undefended(trials)
    return [attack_board(context, "Attacks overall", costs=False) for context in overall(plain, mixed=data.mixed)]


def overall(trials: pd.DataFrame, *, mixed: bool = False) -> Iterator[BoardContext]:
    """A context per data set whose trials are means over the settings that all attacks share, at least two.

    trials: undefended. A setting that several versions of the code measured is left out, and so are settings that
    differ in the training alone, which are a sweep. Settings with different metric
    versions or protocols are not averaged with each other, unless mixed.
    """
    for (dataset,), part in groups(trials, ["dataset"]):
        found = list(contexts(part, mixed))
        places = [_without_training(context) for context in found]
        whole = [
            context
            for context, place in zip(found, places, strict=True)
            if context.version_count == 1 and not context.done.empty and places.count(place) == 1
        ]
        all_versions = dict.fromkeys(context.versions for context in whole)
        for versions in [()] if mixed else all_versions:
            alike = [context for context in whole if versions in {(), context.versions}]
            yield from _over(str(dataset), alike, len(found), versions, mixed)


def _without_training(context: BoardContext) -> tuple[Any, ...]:
    first = context.trials.iloc[0]
    return tuple(first[axis] for axis in SETTING if axis != "training")


def _over(
    dataset: str, alike: Sequence[BoardContext], planned: int, versions: tuple[str, ...], mixed: bool
) -> Iterator[BoardContext]:
    """The mean over settings of one version, if there is more than one setting."""
    ran = [set(context.done["attack"]) for context in alike]
    counts = {attack: sum(attack in names for names in ran) for attack in dict.fromkeys(chain.from_iterable(ran))}
    most = max(counts.values(), default=0)
    attacks = [attack for attack, count in counts.items() if 2 * count >= most]
    shared = [context for context, names in zip(alike, ran, strict=True) if set(attacks) <= names]
    if len(shared) < 2:
        return
    kept = [context.trials[context.trials["attack"].isin(attacks)].drop_duplicates(ROW) for context in shared]
    lines = [_line(row, part, len(shared)) for row, part in groups(pd.concat(kept), ROW)]
    names = [" · ".join(context.parts[1:]) for context in shared]  # without the data set
    without = [attack for attack in counts if attack not in attacks]
    notes = [
        *about(pd.concat([context.done for context in shared]), mixed),
        f"Means over the {len(shared)} of {planned} settings that all rows share: {listed(names)}.",
        *([f"Left out, because they have fewer settings: {listed(without)}."] if without else []),
    ]
    yield BoardContext(
        (dataset, f"{len(shared)} settings"), pd.DataFrame(lines), tuple(notes), versions,
        setting_counts=(len(shared), planned), mixed=mixed, scope="in these settings",
    )  # fmt: skip


def _line(row: tuple[Any, ...], part: pd.DataFrame, settings: int) -> Mapping[str, Any]:
    """The mean of one (target, seed) cell of an attack; it has no result if the attack has none in some setting."""
    line: dict[str, Any] = {**dict(zip(ROW, row, strict=True)), "key": "", "reason": "", "status": Status.OK.value}
    line |= {name: part[name].iloc[0] for name in SAME}
    lost = without_result(part)
    if len(part) < settings or len(lost):
        collapsed = of_status(lost, Status.COLLAPSED)
        for trial in (collapsed if len(collapsed) else lost).head(1).itertuples():
            return {**line, "status": trial.status, "reason": trial.reason, "key": trial.key}
        return {**line, "status": Status.MISSING.value}
    return {**line, **{name: float(part[name].mean(skipna=False)) for name in METRICS if name in part}}
