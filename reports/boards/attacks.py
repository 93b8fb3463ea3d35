"""Attacks: the gain of each attack on undefended models, and its budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from bench.api.kinds import Access
from bench.metrics import METRICS, input_detection, model_detection
from bench.metrics.filtering import FILTERING
from bench.metrics.geometry import GEOMETRY
from reports import statistics
from reports.basis import Basis
from reports.best_results import AGAINST_ATTACK, with_strongest_defenses
from reports.board import FREEDOM, HALF, Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import CommonCells, Group
from reports.context import REPAIRS, BoardContext, contexts
from reports.rows import freedom, half, kept, known, numbers, table, titles
from reports.selection import NONE, attacked, groups, undefended

ACCESS = tuple(Access)
WITH_BOARDS = {GEOMETRY, FILTERING, model_detection.DETECTION, input_detection.DETECTION}  # sections of other boards
COLUMNS = {
    "access": Column("the part of the system that the attacker can change", "access-groups"),
    "rank": Column(
        "1 + number of significantly better attacks, to the number of attacks - number of significantly worse ones",
        "rank-ranges",
    ),
    "mAP kept": Column("yes: the 95 % upper bound of the mAP lost is below 0.03", "map-kept"),
    "seconds": Column("mean seconds of the stages make_trigger and implant"),
}
OUTCOME = ("t_map", "t_map_control", "chance", "gain", "own_map", "map", "map_change")
SHORT = ("t_map", "t_map_control", "gain", "own_map", "map", "map_change")
BETTER = {"t_map": 1, "gain": 1, "own_map": -1, "map": 1, "map_change": 1}  # for the attacker
# SSIM and L-inf hardly tell a corner patch from a blend: area and contrast do
BUDGET = ("poisons", "poisoned_share", "target_share", "changed_area", "contrast", "linf", "psnr")


@board(
    "attacks",
    chapter="Leaderboards",
    part_of="leaderboard",
    help="attacks by gain, inside each access group",
    columns=COLUMNS | AGAINST_ATTACK,
)
def attacks(data: BoardData, *, costs: Annotated[bool, "Add run times in seconds."] = False) -> list[Board]:
    """One board per setting (and per defense, if no trial is undefended), ordered by gain in each access group."""
    trials, mixed = data.results.trials, data.mixed
    plain = undefended(trials)
    if not plain.empty:
        made = (attack_board(context, "Attacks", costs=costs) for context in contexts(plain, mixed))
        return [with_strongest_defenses(board) for board in made]
    repaired = trials[trials["defense_kind"].isin(REPAIRS)]
    return [
        attack_board(context, f"Attacks after {defense}", costs=costs)
        for (defense,), part in groups(repaired, ["defense"])
        for context in contexts(part, mixed)
    ]


def attack_board(context: BoardContext, name: str, *, costs: bool) -> Board:
    """One row per attack of a setting, undefended or after one defense."""
    rows = context.grouped(context.trials, ["attack"])
    basis = Basis.of(context, rows)
    shared = basis.cells
    ranges = _ranks(context, rows, shared)
    lines = []
    metrics = (*OUTCOME, *BUDGET, *of_plugins())
    for attack, group in rows.items():
        access = context.trials.loc[context.trials["attack"] == attack, "access"].iloc[0]
        line: dict[str, Any] = {"access": access, "attack": attack, "cells": group.coverage, "n": len(shared.places)}
        line["collapsed"] = len(group.collapsed)
        line |= numbers(group, attack in shared.counted, shared, metrics)
        if attack in shared.counted:
            line |= half(group, shared, "gain") if attack != NONE else {}
            line["rank"] = "{}-{}".format(*ranges[attack]) if attack in ranges else None
            line["mAP kept"] = kept(group, shared) if attack != NONE else None
            line["key"] = group.done["key"].iloc[0][:8] or None if len(shared.places) == 1 else None
            line |= {"seconds": shared.mean(group, "seconds_attack")} if costs else {}
        else:
            line["n"] = 0
        lines.append(line)
    gain = METRICS["gain"].title
    lines.sort(key=lambda line: (_order(line["access"]), -known(line.get(gain)), line["attack"]))
    names = [METRICS[metric].title for metric in OUTCOME]
    names[names.index(gain) + 1 : names.index(gain) + 1] = [gain + HALF, gain + FREEDOM, "rank"]
    budget = [METRICS[metric].title for metric in BUDGET]
    more = [METRICS[metric].title for metric in of_plugins()]
    columns = ["access", "attack", "cells", "n", "collapsed", *names, "mAP kept", *budget, *more, "seconds", "key"]
    keep = (*columns[:5], *(METRICS[metric].title for metric in OUTCOME))
    # the caption says n: the compact board has the column `cells` only if some row has fewer
    incomplete = any(len(set(str(line["cells"]).split("/"))) > 1 for line in lines)
    short = [*(METRICS[metric].title for metric in SHORT), *(["cells"] if incomplete else []), "seconds", "key"]
    short.insert(short.index(gain) + 1, "rank")
    margin = "mAP kept: the 95 % upper bound of the mAP lost is below 0.03." if shared.inference else ""
    best = [i for i, line in enumerate(lines) if str(line.get("rank") or "").startswith("1-")]
    return Board(
        title=name,
        setting=context.setting,
        table=table(lines, columns, keep=keep),
        caption=basis.caption(
            "gain = t-mAP - control, where control is t-mAP of the clean model with the same trigger. Within each"
            " access, rows are ordered by gain.",
            "rank = [1 + significantly better, all - significantly worse] among the attacks of the same access"
            " (Holm, 5 %); bold: no attack is better." if ranges else "",
            freedom(lines, gain),
            margin,
            _remarks(context),
            basis.left_out(),
        ),
        index=("access", "attack"),
        metrics=titles(metrics),
        heat=tuple(METRICS[metric].title for metric in ("t_map", "t_map_control", "gain", "own_map", "map")),
        best=frozenset(best),
        quiet=("n", "collapsed", gain + FREEDOM),
        compact=tuple(short),
        better={METRICS[metric].title: sign for metric, sign in BETTER.items()},
        details=(freedom(lines, gain), margin),
        basis=basis,
    )  # fmt: skip


def of_plugins() -> tuple[str, ...]:
    """The metrics of plugins, except those of sections that have boards of their own."""
    return tuple(name for name in METRICS.of_plugins() if METRICS[name].section not in WITH_BOARDS)


def _remarks(context: BoardContext) -> str:
    """A sentence for each attack that has a remark."""
    said = context.trials[context.trials["remark"] != ""].drop_duplicates(["attack", "remark"])
    return " ".join(f"{attack}: {remark}." for attack, remark in zip(said["attack"], said["remark"], strict=True))


def _ranks(context: BoardContext, rows: Mapping[Any, Group], shared: CommonCells) -> dict[Any, tuple[int, int]]:
    """The rank ranges by gain inside each access group; the clean baseline has none."""
    found: dict[Any, tuple[int, int]] = {}
    if not shared.inference:
        return found
    for _, part in groups(attacked(context.trials), ["access"]):
        names = [name for name in dict.fromkeys(part["attack"]) if name in shared.counted]
        matrices = {name: shared.matrix(rows[name], "gain") for name in names}
        found.update(statistics.rank_ranges(matrices, fixed_targets=shared.fixed_targets) or {})
    return found


def _order(access: str) -> int:
    return ACCESS.index(access) if access in ACCESS else len(ACCESS)
