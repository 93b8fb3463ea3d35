"""The results of a run that can be the best known, and the list's column on boards."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.api.kinds import RANKING_CHANGING, Access
from reports import best_known, statistics
from reports.best_known import AUROC, OWN_MAP, Budget, Result, Setting
from reports.board import Board, Column
from reports.common_cells import CommonCells, Group, Place
from reports.context import BoardContext, contexts
from reports.frame import Results
from reports.labels import label_of
from reports.selection import NONE, attacked, defended, groups, undefended
from reports.strength import WeakAttacks

BEST, BY = "best known", "best known with"
AGAINST_ATTACK = {
    BEST: Column("own-mAP after the strongest known defense (repair, filter, purification)", "best-known"),
    BY: Column("the strongest known defense, from the list of `python -m bench best`", "best-known"),
}
FOR_DEFENSE = {
    BEST: Column(
        "own-mAP lost, or AUROC of an input detector, under the hardest known attack with this access that keeps to the"
        " poison rates and PSNR of the run",
        "best-known",
    ),
    BY: Column("the hardest known attack, from the list of `python -m bench best`", "best-known"),
}
SOURCE = f"{BEST}: from the list that HashDoor ships, for the same cells (`python -m bench best`)."


KNOWN = frozenset(map(str, Access))  # a stranger's run may name no access


def results_of(results: Results) -> list[Result]:
    """Every attack after every defense, in each setting, of the trials with a result in every planned cell.

    Left out are model detectors, and attacks that are too weak to judge a defense.
    """
    weak = WeakAttacks(results.trials, mixed=False)
    return [one for context in contexts(results.trials, mixed=False) for one in _of(context, results.detectors, weak)]


def _of(context: BoardContext, scores: pd.DataFrame, weak: WeakAttacks) -> Iterator[Result]:
    planned = frozenset(zip(context.trials["target"], context.trials["seed"], strict=True))
    setting = setting_of(context, planned)
    if setting is None:
        return
    plain = context.grouped(undefended(context.trials), ["attack"])
    main = scores[scores["headline"].eq(True)]
    auroc = dict(zip(main["key"], main[AUROC], strict=True))
    ignored = {NONE, *weak.of(context)}
    for (attack, _), rows in groups(attacked(defended(context.trials)), ["attack", "defense"]):
        before, after = plain.get(attack), Group.of(rows)
        if attack in ignored or before is None or before.places != planned or after.places != planned:
            continue
        detected = [auroc.get(key) for key in after.done["key"]]
        if rows["defense_kind"].iloc[0] in RANKING_CHANGING:
            detected = []
        elif not all(isinstance(one, float) and math.isfinite(one) for one in detected):
            continue
        found = _result(setting, before, after, detected)
        if found is not None:
            yield found


def _result(setting: Setting, before: Group, after: Group, detected: list[Any]) -> Result | None:
    """None if a metric has no value in a cell."""
    cells = CommonCells.of({"before": before, "after": after})
    first = after.done.iloc[0]
    means = {name: cells.mean(after, name) for name in ("t_map", "own_map", "map")}
    # a purification changes the queries of the clean model too, so that its own controls hide what it costs
    means |= {name: cells.mean(before, name) for name in ("t_map_control", "own_map_control")}
    means["map_clean"] = cells.mean(before, "map") - cells.mean(before, "map_change")
    if not all(map(math.isfinite, means.values())) or before.done["access"].iloc[0] not in KNOWN:
        return None
    rate, psnr = _spent(before.done)
    return Result(
        setting=setting,
        attack=first["attack_spec"],
        defense=first["defense_spec"],
        defense_kind=first["defense_kind"],
        budget=budget_of(before.done),
        poison_rate=rate,
        psnr=psnr,
        **means,
        attack_kept=_keeps(before, before, cells),
        defense_kept=_keeps(before, after, cells),
        auroc=math.fsum(detected) / len(detected) if detected else None,
    )


def _keeps(before: Group, after: Group, cells: CommonCells) -> bool:
    """Whether the mAP lost is below the margin: the upper bound of its mean, or without an interval the mean."""
    clean = cells.matrix(before, "map") - cells.matrix(before, "map_change")
    lost = clean - cells.matrix(after, "map")
    verdict = statistics.non_inferior(lost, fixed_targets=cells.fixed_targets)
    return bool(lost.mean() < statistics.MARGIN) if verdict is None else verdict


def _spent(trials: pd.DataFrame) -> tuple[float | None, float | None]:
    """The largest poison rate and the smallest PSNR of an attack."""
    rate, psnr = trials["poisoned_share"].max(), trials["psnr"].min()
    return None if pd.isna(rate) else float(rate), None if pd.isna(psnr) else float(psnr)


def budget_of(trials: pd.DataFrame) -> Budget:
    """The budget of the attack of these trials."""
    return Budget.of(Access(trials["access"].iloc[0]), *_spent(trials))


def setting_of(context: BoardContext, places: Collection[Place]) -> Setting | None:
    """The setting of these cells; None without a result, or if they are not every target with every seed."""
    done = context.done
    targets, seeds = ({place[i] for place in places} for i in range(2))
    if done.empty or not places or len(places) != len(targets) * len(seeds):
        return None
    first = done.iloc[0]
    return Setting(
        dataset=first["dataset_spec"],
        backbone=first["backbone_spec"],
        method=first["method_spec"],
        bits=int(first["bits"]),
        training=dict(first["recipe"]),
        surrogate=str(first["surrogate"]),
        augment=str(first["augment"]),
        protocol_digest=str(first["protocol_digest"]),
        metrics_version=str(first["metrics_version"]),
        targets=sorted(map(str, targets)),
        seeds=sorted(map(int, seeds)),
    )


def with_strongest_defenses(board: Board) -> Board:
    """A board with a row per attack, and beside it own-mAP after the strongest defense known against the attack."""
    setting, done = _setting_and_trials(board)
    specs = dict(zip(done["attack"], done["attack_spec"], strict=True))
    entries = [
        best_known.shipped().defense(setting, specs[attack], OWN_MAP)
        if setting is not None and attack in specs
        else None
        for attack in board.table["attack"]
    ]
    shown = [(entry.own_map, label_of(entry.defense)) if entry is not None else None for entry in entries]
    return _with(board, shown, OWN_MAP)


def with_hardest_attacks(board: Board, metric: str) -> Board:
    """A board with a row per defense and an access, and beside it the hardest attack known for the defense.

    metric: the one of `Result.metric`. The attack has this access, and keeps to the largest poison rate and the
    smallest PSNR of the run's attacks with this access.
    """
    setting, done = _setting_and_trials(board)
    specs = dict(zip(done["defense"], done["defense_spec"], strict=True))
    by_access = groups(attacked(done), ["access"])
    budgets = {access: budget_of(part) for (access,), part in by_access if access in KNOWN}
    shown: list[tuple[float, str] | None] = []
    for defense, access in zip(board.table["defense"], board.table["access"], strict=True):
        entry = None
        if setting is not None and access in budgets:
            entry = best_known.shipped().attack(setting, specs[defense], metric, budgets[access])
        value = 0.0 if entry is None else entry.damage if entry.auroc is None else entry.auroc
        shown.append(None if entry is None else (value, label_of(entry.attack)))
    return _with(board, shown, metric)


def _setting_and_trials(board: Board) -> tuple[Setting | None, pd.DataFrame]:
    """The setting of the board's cells, and the trials with a result."""
    assert board.basis is not None
    return setting_of(board.basis.context, board.basis.cells.places), board.basis.context.done


def _with(board: Board, shown: Sequence[tuple[float, str] | None], metric: str) -> Board:
    """The board with two more columns and a line of the caption; unchanged without any entry."""
    if not any(shown):
        return board
    table = board.table.copy()
    table[BEST], table[BY] = ([one and one[place] for one in shown] for place in range(2))
    return replace(
        board,
        table=table,
        metrics={**board.metrics, BEST: metric},
        caption=f"{board.caption}\n{SOURCE}",
        details=(*board.details, SOURCE),
    )
