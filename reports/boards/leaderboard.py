"""Boards: pure functions from a store's trials to captioned tables, of deterministic fields unless costs are asked.

A board shows one setting and one edition (protocol, metric version, code), and averages only over the (target, seed)
trials that all its rows share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.api.kinds import Access, DefenseKind
from bench.config.trial import AXES
from bench.metrics import METRICS
from reports import statistics
from reports.across_settings import overall
from reports.board_registry import BoardData, board
from reports.common_cells import CommonCells, Group
from reports.context import FREEDOM, HALF, REPAIRS, Board, BoardContext, components, contexts, listed
from reports.costs import costs as prices
from reports.frame import BASED, SETTING, TEXTS, Results, axis_named, detector_metrics, groups
from reports.model_detection import diagnoses
from reports.rows import freedom, half, kept, known, left_out, numbers, table, titles

ACCESS = tuple(Access)
OUTCOME = ("t_map", "t_map_control", "chance", "gain", "own_map", "map", "map_change")
BUDGET = ("poisons", "poison_rate", "target_share", "linf", "psnr", "ssim")
AFTERWARDS = ("t_map_posthoc", "t_map_posthoc_control", "spread", "spread_control", "own_map", "map")
FILTER = ("removed", "removed_poison", "removed_precision", "filter_auroc", "filter_auroc_target", "t_map", "own_map",
          "map")  # fmt: skip


@board("leaderboard", chapter="Leaderboards", help="attacks, defenses, detectors, and what has no result",
       on_page={"costs": True})  # fmt: skip
def leaderboard(data: BoardData, *, by: str | None = None, costs: bool = False) -> list[Board]:
    """by: an axis, one set of boards per value. costs: with seconds, which differ between runs."""
    axis = axis_named(by) if by is not None else None
    return everything(data.results, by=axis, costs=costs, mixed=data.mixed)


def everything(results: Results, *, by: str | None = None, costs: bool = False, mixed: bool = False) -> list[Board]:
    """All boards of a run. by: an axis, one value per board; gain against it comes first if it is of the setting."""
    here = replace(results, trials=_runnable(results.trials))
    found = across(here.trials, by, mixed=mixed) if by in SETTING else []
    if by is None:
        plain = here.trials[here.trials["defense"] == "none"]
        found += [_attack_board(context, "Attacks overall", costs=False) for context in overall(plain, mixed=mixed)]
    for label, trials, scores in _slices(here, by):
        made = [
            *attacks(trials, costs=costs, mixed=mixed),
            *afterwards(trials, mixed=mixed),
            *defenses(trials, mixed=mixed),
            *filters(trials, mixed=mixed),
            *detectors(trials, scores, costs=costs, mixed=mixed),
            *diagnoses(trials, mixed=mixed),
            *(prices(trials, mixed=mixed) if costs else ()),
        ]
        found += [_retitled(board, label) for board in made]
    shown = components(results.trials)
    return [replace(board, components=shown) for board in found + failures(results.trials)]


def _runnable(trials: pd.DataFrame) -> pd.DataFrame:
    """Without the settings of which no trial can run, for want of data: `failures` names those."""
    left_out = trials["status"].eq("skipped").groupby([trials[axis] for axis in SETTING], dropna=False).transform("all")
    return trials[~left_out.astype(bool)]


def attacks(trials: pd.DataFrame, *, costs: bool = False, mixed: bool = False) -> list[Board]:
    """Attacks by gain inside each access; one board per setting (and per defense, if no trial is undefended)."""
    plain = trials[trials["defense"] == "none"]
    if not plain.empty:
        return [_attack_board(context, "Attacks", costs) for context in contexts(plain, mixed)]
    repaired = trials[trials["defense_kind"].isin(REPAIRS)]
    return [
        _attack_board(context, f"Attacks after {defense}", costs)
        for (defense,), part in groups(repaired, ["defense"])
        for context in contexts(part, mixed)
    ]


def _attack_board(context: BoardContext, name: str, costs: bool) -> Board:
    rows = context.split(context.trials, ["attack"])
    shared = CommonCells.of(rows)
    ranges = _ranks(context, rows, shared)
    lines = []
    for attack, group in rows.items():
        access = context.trials.loc[context.trials["attack"] == attack, "access"].iloc[0]
        line: dict[str, Any] = {"access": access, "attack": attack, "cells": group.coverage, "n": len(shared.places)}
        line["collapsed"] = len(group.collapsed)
        line |= numbers(group, attack in shared.counted, shared, (*OUTCOME, *BUDGET))
        if attack in shared.counted:
            line |= half(group, shared, "gain") if attack != "none" else {}
            line["rank"] = "{}-{}".format(*ranges[attack]) if attack in ranges else None
            line["mAP kept"] = kept(group, shared) if attack != "none" else None
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
    columns = ["access", "attack", "cells", "n", "collapsed", *names, "mAP kept", *budget, "seconds", "key"]
    keep = (*columns[:5], *(METRICS[metric].title for metric in OUTCOME))
    best = [i for i, line in enumerate(lines) if str(line.get("rank") or "").startswith("1-")]
    return Board(
        title=f"{name} · {context.title}",
        table=table(lines, columns, keep=keep),
        caption=context.caption(
            shared,
            "gain = t-mAP - control, the clean model under the same trigger. Ordered by gain inside each access.",
            "rank = [1 + significantly better, all - significantly worse] among the attacks of the same access"
            " (Holm, 5 %); bold: nobody is." if ranges else "",
            freedom(lines, gain),
            "mAP kept: 95 % upper bound of the mAP lost is below 0.03." if shared.inference else "",
            left_out(rows, shared),
        ),
        index=("access", "attack"),
        metrics=titles((*OUTCOME, *BUDGET)),
        heat=tuple(METRICS[metric].title for metric in ("t_map", "t_map_control", "gain", "own_map", "map")),
        best=frozenset(best),
        quiet=("n", "collapsed", gain + FREEDOM),  # the caption says it
    )  # fmt: skip


def afterwards(trials: pd.DataFrame, *, mixed: bool = False) -> list[Board]:
    """The convention of papers that fix no target: where an attack does so, every attack under it."""
    plain = trials[trials["defense"] == "none"]
    found = []
    for context in contexts(plain, mixed):
        if context.trials["targeted"].all():
            continue
        rows = context.split(context.trials, ["attack"])
        shared = CommonCells.of(rows)
        lines = [
            {"attack": attack, "cells": group.coverage, "collapsed": len(group.collapsed)}
            | numbers(group, attack in shared.counted, shared, AFTERWARDS)
            for attack, group in rows.items()
        ]
        names = [METRICS[metric].title for metric in AFTERWARDS]
        lines.sort(key=lambda line: (line["attack"] == "none", -known(line.get(names[0])), line["attack"]))
        loose = listed(context.trials.loc[~context.trials["targeted"], "attack"])
        note = (
            f"{loose}: no target is fixed beforehand, so that t-mAP on the board above is chance by construction. Here"
            " the target is the class that triggered queries retrieve most, chosen on one half of them and scored on"
            " the other, and the same for the clean model: a maximum over classes, not comparable with t-mAP."
        )
        keep = ["attack", "cells", "collapsed", *names]
        found.append(
            Board(
                title=f"Target chosen afterwards · {context.title}",
                table=table(lines, keep, keep=keep),
                caption=context.caption(shared, note, left_out(rows, shared), intervals=False),
                index=("attack",),
                metrics=titles(AFTERWARDS),
                heat=tuple(names[:2]),
                quiet=("collapsed",),
            )
        )
    return found


def _ranks(context: BoardContext, rows: Mapping[Any, Group], shared: CommonCells) -> dict[Any, tuple[int, int]]:
    """Rank ranges of gain inside each access; the clean baseline has none."""
    found: dict[Any, tuple[int, int]] = {}
    if not shared.inference:
        return found
    for _, part in groups(context.trials[context.trials["attack"] != "none"], ["access"]):
        names = [name for name in dict.fromkeys(part["attack"]) if name in shared.counted]
        matrices = {name: shared.matrix(rows[name], "gain") for name in names}
        found.update(statistics.rank_ranges(matrices, fixed_targets=shared.fixed_targets) or {})
    return found


def defenses(trials: pd.DataFrame, *, mixed: bool = False) -> list[Board]:
    """t-mAP, own-mAP and mAP of every attack after every repair and filter: three matrices per setting."""
    found = []
    for context in contexts(trials, mixed):
        rows = context.part(REPAIRS)
        if len(set(rows["defense"])) < 2:
            continue
        made = context.split(rows, ["attack", "defense"])
        shared = CommonCells.of(made)
        for metric, what, beside, meaning in (
            ("t_map", "t-mAP after each defense", ("t_map_control", "chance"),
             "Removed: t-mAP is back at the control (the clean model under the same trigger)."),
            ("own_map", "own-mAP after each defense", ("own_map_control",),
             "Repaired only if triggered queries come home: own-mAP is back at the control (the clean model)."),
            ("map", "mAP after each defense", (), "What defending costs benign queries; row none: without any attack."),
        ):  # fmt: skip
            note = f"{meaning} Input detectors do not change codes: see the detectors."
            found.append(_matrix(context, made, shared, metric, what, beside, note))
    return found


def _matrix(
    context: BoardContext,
    made: Mapping[Any, Group],
    shared: CommonCells,
    metric: str,
    title: str,
    beside: Sequence[str],
    note: str,
) -> Board:
    names = sorted({defense for _, defense in made}, key=lambda name: (name != "none", name))
    lines = []
    for attack in sorted({attack for attack, _ in made}, key=lambda name: (name != "none", name)):
        mine = {defense: made[attack, defense] for defense in names if (attack, defense) in made}
        done, planned = (sum(len(getattr(group, what)) for group in mine.values()) for what in ("places", "planned"))
        line: dict[str, Any] = {"attack": attack, "cells": f"{done}/{planned}"}
        line["collapsed"] = sum(len(group.collapsed) for group in mine.values())
        counted = {defense: group for defense, group in mine.items() if (attack, defense) in shared.counted}
        for extra in beside:
            if counted:
                line[METRICS[extra].title] = shared.mean(next(iter(counted.values())), extra)
        line |= {defense: shared.mean(group, metric) for defense, group in counted.items()}
        lines.append(line)
    extras = [METRICS[extra].title for extra in beside]
    return Board(
        title=f"{title} · {context.title}",
        table=table(
            lines, ["attack", "cells", "collapsed", *extras, *names], keep=["attack", "cells", "collapsed", *names]
        ),
        caption=context.caption(shared, note, left_out(made, shared), intervals=False),
        index=("attack",),
        metrics=titles(beside) | dict.fromkeys(names, metric),
        heat=(*extras, *names),
        quiet=("collapsed",),
    )  # fmt: skip


def detectors(trials: pd.DataFrame, scores: pd.DataFrame, *, costs: bool = False, mixed: bool = False) -> list[Board]:
    """How well each score of each input detector tells triggered queries from the same queries without trigger."""
    found = []
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.INPUT_DETECTOR], mixed):
        done = context.trials["status"] == "ok"
        mine = scores[scores["key"].isin(context.trials.loc[done, "key"])]
        planned = context.split(context.trials, ["attack", "defense"])
        made: dict[Any, Group] = {
            key: replace(Group.of(part), planned=planned[key[:2]].planned, collapsed=planned[key[:2]].collapsed)
            for key, part in groups(mine, ["attack", "defense", "score"])
        }
        scored = {(attack, detector) for attack, detector, _ in made}
        blank = {(*key, ""): group for key, group in planned.items() if key not in scored}
        shared = CommonCells.of(made)
        lines = []
        for (attack, detector, score), group in {**made, **blank}.items():
            counted = (attack, detector, score) in shared.counted
            headline = score and bool(group.done["headline"].iloc[0])
            line = {"attack": attack, "input detector": detector, "score": f"{score} *" if headline else score}
            line |= {"cells": group.coverage, "collapsed": len(group.collapsed)}
            line |= numbers(group, counted, shared, detector_metrics() if counted else ())
            if counted:
                line |= half(group, shared, "auroc")
                line |= {"seconds": shared.mean(planned[attack, detector], "seconds_defense")} if costs else {}
            lines.append(line)
        if not lines:
            continue
        lines.sort(key=lambda line: (line["attack"] != "none", line["attack"], line["input detector"]))
        names = [METRICS[metric].title for metric in detector_metrics()]
        keep = ["attack", "input detector", "score", "cells", "collapsed", *names]
        found.append(
            Board(
                title=f"Detectors · {context.title}",
                table=table(lines, [*keep[:6], names[0] + HALF, names[0] + FREEDOM, *keep[6:], "seconds"], keep=keep),
                caption=context.caption(
                    shared,
                    "* main score of the detector. Triggered against benign versions of the same queries; a row none"
                    " compares a query with itself. Thresholds come from trusted images; clean = the model without"
                    " backdoor.",
                    freedom(lines, names[0]),
                    left_out(made | blank, shared),
                ),
                index=("attack", "input detector", "score"),
                metrics=titles(detector_metrics()),
                heat=tuple(METRICS[name].title for name in ("auroc", "tpr_1", "tpr_5", "caught_5", "auroc_control")),
                quiet=("collapsed", names[0] + FREEDOM),
            )
        )
    return found


def filters(trials: pd.DataFrame, *, mixed: bool = False) -> list[Board]:
    """What filters found in the training set, and the model that was trained on the rest."""
    found = []
    for context in contexts(trials[trials["defense_kind"] == DefenseKind.DATA_FILTER], mixed):
        parts: dict[Any, Group] = dict(context.split(context.trials, ["attack", "defense"]))
        shared = CommonCells.of(parts)
        lines = [
            {"attack": attack, "defense": defense, "cells": group.coverage, "collapsed": len(group.collapsed)}
            | numbers(group, (attack, defense) in shared.counted, shared, FILTER)
            for (attack, defense), group in sorted(parts.items(), key=lambda item: (item[0][0] != "none", item[0]))
        ]
        names = ["attack", "defense", "cells", "collapsed", *(METRICS[metric].title for metric in FILTER)]
        note = "AUROC: poisoned against clean training items, pooled and inside the target class; below 0.5 as it is."
        found.append(
            Board(
                title=f"Filters · {context.title}",
                table=table(lines, names, keep=names),
                caption=context.caption(shared, note, left_out(parts, shared), intervals=False),
                index=("attack", "defense"),
                metrics=titles(FILTER),
                heat=tuple(METRICS[metric].title for metric in ("removed_poison", "filter_auroc")),
                quiet=("collapsed",),
            )
        )
    return found


def across(trials: pd.DataFrame, axis: str, *, mixed: bool = False) -> list[Board]:
    """Gain of each undefended attack against the values of one axis of the setting, the other axes fixed."""
    found = []
    plain = trials[(trials["defense"] == "none") & (trials["attack"] != "none")]
    for context in contexts(plain, mixed, without=axis):
        values = sorted(set(context.trials[axis]), key=lambda value: (isinstance(value, str), value))
        if len(values) < 2:
            continue
        made = context.split(context.trials, ["attack", axis])
        names = {value: f"{axis} {value}" if not isinstance(value, str) else value for value in values}
        shared = CommonCells.of(made)
        board = _matrix(
            context, {(attack, names[value]): group for (attack, value), group in made.items()},
            CommonCells(shared.places, frozenset((a, names[v]) for a, v in shared.counted), shared.fixed_targets),
            "gain", f"Gain by {axis}", (), "gain = t-mAP - control."
        )  # fmt: skip
        order = ["attack", "cells", *names.values()]
        shown = board.table[[name for name in order if name in board.table]]
        # over values as they are: they are not drawn from anything
        shown = shown.assign(mean=shown.iloc[:, 2:].mean(axis=1, skipna=False))
        found.append(replace(board, table=shown, metrics={**board.metrics, "mean": "gain"}))
    return found


def failures(trials: pd.DataFrame) -> list[Board]:
    """Every trial without a result that counts, equal reasons together; no board where there is none."""
    lost = trials[trials["status"] != "ok"]
    if lost.empty:
        return []
    varying = [axis for axis in AXES if len(set(trials[axis])) > 1]
    order = {
        status: i for i, status in enumerate(("failed", "timeout", "oom", "collapsed", "killed", "missing", "skipped"))
    }
    lines = []
    for (status, reason), part in groups(lost, ["status", "reason"]):
        which = "; ".join(
            f"{axis} {listed(part[axis])}" for axis in varying if part[axis].nunique() < trials[axis].nunique()
        )
        stages = part["key" if status == "collapsed" else "cause"].dropna()
        key = next((key for key in stages if key), "") if status != "skipped" else ""
        lines.append(
            {"status": status, "trials": len(part), "which": which or "all", "reason": reason, "key": key[:8] or None}
        )
    lines.sort(key=lambda line: (order.get(line["status"], 9), -line["trials"], line["reason"]))
    caption = f"{len(lost)} of {len(trials)} trials have no result; averages on the other boards leave them out."
    if any(line["status"] == "collapsed" for line in lines):
        caption += (
            "\nCollapsed: training failed. The clean model has next to no mAP above chance, or the undefended victim"
            " lost at least half of it. What was made of such a victim is no result either; what an attack on a"
            " finished model costs is its result."
        )
    if any(line["key"] and line["status"] != "collapsed" for line in lines):
        caption += "\n`python -m bench show KEY` prints the log of a failed stage; `run --retry failed` tries it again."
    lost_table = table(lines, list(lines[0]), keep=list(lines[0])[:4])
    return [Board("No result", lost_table, caption, index=("status", "trials"))]


# Order and slices


def _order(access: str) -> int:
    return ACCESS.index(access) if access in ACCESS else len(ACCESS)


def _slices(results: Results, by: str | None) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(label, trials, detector scores) per value of an axis; `none` accompanies every attack and access."""
    trials, scores = results.trials, results.detectors
    if by is None:
        yield "", trials, scores
        return
    for value in dict.fromkeys(trials[by]):
        if by in BASED - {"defense"} and value == "none" and len(set(trials[by])) > 1:
            continue
        wanted = [value, "none"] if by in BASED - {"defense"} else [value]
        label = "" if by in SETTING or by in TEXTS else f"{by} {value}"
        yield label, trials[trials[by].isin(wanted)], scores[scores[by].isin(wanted)]


def _retitled(board: Board, label: str) -> Board:
    return replace(board, title=f"{board.title} · {label}") if label else board
