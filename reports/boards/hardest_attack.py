"""The hardest attack of each defense: the one that the defense does least against, at the doses of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bench.api.kinds import RANKING_CHANGING
from bench.metrics import METRICS
from reports.basis import Basis
from reports.best_known import AUROC, OWN_MAP
from reports.best_results import FOR_DEFENSE, with_hardest_attacks
from reports.board import Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import Group
from reports.context import BoardContext, contexts
from reports.rows import known, numbers, table, titles
from reports.selection import attacked, defended, groups
from reports.strength import note

LOST = "own-mAP lost"
COLUMNS = {
    "attacks": Column("number of attacks that are strong enough to judge the defense by", "too-weak-to-judge"),
    "hardest attack": Column("attack that the defense does least against", "hardest-attack"),
    "access": Column("access that this attack needs", "access-groups"),
    LOST: Column(
        "own-mAP of the clean model with the same trigger minus own-mAP after the defense, under the hardest attack",
        "hardest-attack",
    ),
    f"mean {LOST}": Column("the same, mean over the attacks"),
    "mean TPR@5%": Column("TPR@5% of the main score, mean over the attacks"),
}
PRICE = "What the defense itself costs is part of the loss (mAP)."
EQUAL = "If several attacks are equal, the other columns show the first one."
Row = Mapping[tuple[str, str], Group]  # attack, defense


@board("hardest-attack", chapter="Strength",
       help="for each defense, the attack that it does least against", columns=COLUMNS | FOR_DEFENSE)  # fmt: skip
def hardest_attack(data: BoardData) -> list[Board]:
    """Up to two boards per setting: defenses that change codes or queries, and input detectors."""
    trials, found = data.results.trials, []
    for context in contexts(attacked(trials), data.mixed):
        weak = data.weak_attacks.of(context)
        about = note(weak, set(context.trials["attack"]))
        rows = defended(context.part(RANKING_CHANGING))
        if not rows.empty:
            changed = _changed(context, context.grouped(rows, ["attack", "defense"]), weak, about)
            found.append(with_hardest_attacks(changed, OWN_MAP))
        scores = data.results.detectors
        mine = scores[scores["key"].isin(context.done["key"]) & scores["headline"].eq(True)]
        if not mine.empty:
            made = {key: Group.of(part) for key, part in groups(mine, ["attack", "defense"])}
            found.append(with_hardest_attacks(_detected(context, made, weak, about), AUROC))
    return found


def _changed(context: BoardContext, made: Row, weak: Mapping[str, float], about: str) -> Board:
    basis = Basis.of(context, made)

    def lost(group: Group) -> float:
        return basis.cells.mean(group, "own_map_control") - basis.cells.mean(group, "own_map")

    return _board(
        "Hardest attack of repairs, data filters and purifications", basis, weak, LOST, lost,
        ("own_map", "own_map_control", "t_map", "t_map_control", "map"),
        (f"The hardest attack of a defense takes most own-mAP from the queries after it. {PRICE} {EQUAL}", about),
    )  # fmt: skip


def _detected(context: BoardContext, made: Row, weak: Mapping[str, float], about: str) -> Board:
    basis = Basis.of(context, made)
    return _board(
        "Hardest attack of input detectors", basis, weak, METRICS["tpr_5"].title,
        lambda group: basis.cells.mean(group, "tpr_5"), ("auroc", "auroc_control"),
        (f"The hardest attack of an input detector has the lowest TPR@5% of its main score. {EQUAL}", about),
        higher_is_better=True,
    )  # fmt: skip


def _board(
    title: str, basis: Basis, weak: Mapping[str, float], name: str, measure: Callable[[Group], float],
    metrics: Sequence[str], notes: Sequence[str], *, higher_is_better: bool = False,
) -> Board:  # fmt: skip
    """A row per defense: the measure of its hardest attack and its mean, and metrics under the hardest attack."""
    sign = -1 if higher_is_better else 1
    lines = []
    for defense in sorted({defense for _, defense in basis.rows}):
        judged = {
            attack: (measure(group), group)
            for (attack, other), group in basis.rows.items()
            if other == defense and attack not in weak and (attack, defense) in basis.cells.counted
        }
        judged = {attack: found for attack, found in judged.items() if not math.isnan(found[0])}
        line: dict[str, Any] = {"defense": defense, "attacks": len(judged)}
        if judged:
            value = max((value for value, _ in judged.values()), key=lambda value: sign * value)
            hardest = [attack for attack, (found, _) in judged.items() if found == value]
            group = judged[hardest[0]][1]
            line |= {"hardest attack": ", ".join(hardest), "access": group.done["access"].iloc[0], name: value}
            line |= {f"mean {name}": fmean(value for value, _ in judged.values())}
            line |= numbers(group, True, basis.cells, metrics)
        lines.append(line)
    lines.sort(key=lambda line: sign * known(line.get(name), sign * math.inf))  # not judged by any attack: last
    keep = ["defense", "attacks", "hardest attack", "access", name, f"mean {name}"]
    return Board(
        title=title,
        setting=basis.context.setting,
        table=table(lines, [*keep, *titles(metrics)], keep=keep),
        caption=basis.caption(*notes, basis.left_out(), intervals=False),
        index=("defense",),
        compact=("hardest attack", name, f"mean {name}", *(METRICS[metric].title for metric in metrics[:2])),
        metrics=titles(metrics) | dict.fromkeys([name, f"mean {name}"], "tpr_5" if higher_is_better else "own_map"),
        basis=basis,
    )
