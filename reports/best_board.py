"""The tables of `bench best`: what is known to be best, in each setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from bench.api.kinds import Access
from bench.api.untrusted import strip_controls
from bench.config.trial import Spec
from bench.metrics import METRICS
from reports.best_known import OWN_MAP, BestKnown, Claim, Entry, Improvement, Result, Setting
from reports.board import Board, Column
from reports.labels import label_of
from reports.trial_texts import changes

LOST = "own-mAP lost"
COLUMNS = {
    "claim": Column("what the result is better than all known ones in", "best-known"),
    "access": Column("access of the attacker; part of the budget", "access-groups"),
    "poison": Column("limit of the budget: largest share of the training set that is poisoned", "best-known"),
    "PSNR from": Column("limit of the budget: smallest PSNR of triggered images, in dB", "best-known"),
    LOST: Column("own-mAP of the clean model with the same trigger, without defense, minus own-mAP after the defense"),
    "kept": Column("whether the mAP lost after the defense is below 0.03", "best-known"),
    "step": Column("a result that is better by more than this is added to the list", "best-known"),
    "n": Column("number of (target, seed) cells"),
    "seeds": Column("number of seeds among these cells"),
    "suite": Column("suite of the run"),
    "bundle": Column("beginning of the checksum of the published run"),
    "run": Column("id of the run"),
    "commit": Column("commit of HashDoor that ran"),
    "added": Column("day on which the line was added"),
}
METRIC = ("t_map", "own_map", "own_map_control", "map", "map_clean")
ORIGIN = ("suite", "bundle", "run", "commit", "added")
TITLES = {
    Claim.ATTACK: "Hardest known attack for each defense",
    Claim.DEFENSE: "Strongest known defense against each attack",
}


def boards(known: BestKnown, only: Iterable[Setting] | None = None) -> list[Board]:
    """Two tables per setting and metric, of the entries that no other one surpasses. only: some settings."""
    wanted = None if only is None else {setting.identity for setting in only}
    found: list[tuple[tuple[str, bool, bool], Board]] = []
    for claim in Claim:
        parts: dict[tuple[str, str], list[Entry]] = {}
        for entry in known.current(claim):
            if wanted is None or entry.setting.identity in wanted:
                parts.setdefault((entry.setting.identity, entry.metric), []).append(entry)
        for part in parts.values():
            board = _board(claim, part, known)
            found.append(((board.setting, part[0].metric != OWN_MAP, claim is Claim.DEFENSE), board))
    return [board for _, board in sorted(found, key=lambda one: one[0])]


def improvements_board(found: Sequence[Improvement], name: str) -> Board:
    """The results of a store that the list lacks."""
    lines = [
        {"claim": " and ".join(one.improves), "setting": words(one.result.setting)} | _line(one.result) for one in found
    ]
    return Board(
        title=f"Better than what is known: {strip_controls(name)}",
        table=_table(lines, ["claim", "setting", "attack", "defense"]),
        caption="--append adds these results to the list. A result counts if it is better by more than the step.",
        index=("claim", "attack", "defense"),
        metrics=_metrics(),
        columns=COLUMNS | {"setting": Column("data set, network, method, bits, and changes of the recipe")},
        compact=(LOST, METRICS["auroc"].title, METRICS["own_map"].title, "n"),
        components=_components(one.result for one in found),
    )


def _board(claim: Claim, entries: Sequence[Entry], known: BestKnown) -> Board:
    first, second = ("defense", "attack") if claim is Claim.ATTACK else ("attack", "defense")
    lines = [_line(entry) | {name: strip_controls(getattr(entry, name)) for name in ORIGIN} for entry in entries]
    lines.sort(key=lambda line: (line[first], [*Access].index(line["access"]), line["poison"], -line["PSNR from"]))
    value = LOST if entries[0].metric == OWN_MAP else METRICS["auroc"].title
    setting = entries[0].setting
    how = (
        "Of attacks with the same access and budget (poison, PSNR), the one that does most harm after the defense."
        if claim is Claim.ATTACK
        else "The defense after which the attack does least harm, of those after which the mAP lost is below 0.03."
    )
    cells = (
        f"n = {setting.n}: targets {strip_controls(', '.join(setting.targets))}; seeds"
        f" {', '.join(map(str, setting.seeds))}. The best of several results is biased: repeated, it is a little worse."
    )
    return Board(
        title=TITLES[claim],
        setting=words(setting),
        table=_table(lines, [first, "access", "poison", "PSNR from", second], drop=("kept",)),
        caption=f"{how} A result is added if it is better by more than the step, over the same cells.\n{cells}\n"
        f"List: {len(known.entries)} lines, last checksum {known.head[:8]}.",
        index=(first, "access", "poison", "PSNR from") if claim is Claim.ATTACK else (first,),
        metrics=_metrics(),
        columns=COLUMNS,
        compact=(second, value, METRICS["map"].title, "n", "suite", "added"),
        components=_components(entries),
    )


def _components(results: Iterable[Result]) -> frozenset[Spec]:
    return frozenset(spec for one in results for spec in (one.attack, one.defense))


def _line(one: Result) -> dict[str, Any]:
    lost = one.damage if one.auroc is None else None
    return {
        "attack": label_of(one.attack),
        "defense": label_of(one.defense),
        "access": one.budget.access.value,
        "poison": one.budget.poison_rate,
        "PSNR from": one.budget.psnr,
        LOST: lost,
        METRICS["auroc"].title: one.auroc,
        "kept": "yes" if one.defense_kept else "no",
        "step": one.floor,
        "n": one.setting.n,
        "seeds": len(one.setting.seeds),
    } | {METRICS[name].title: getattr(one, name) for name in METRIC}


def _metrics() -> dict[str, str]:
    shown = {METRICS[name].title: name for name in (*METRIC, "auroc")}
    return shown | {LOST: "own_map", "step": "own_map", "poison": "poisoned_share", "PSNR from": "psnr"}


def _table(lines: Sequence[dict[str, Any]], first: Sequence[str], drop: Sequence[str] = ()) -> pd.DataFrame:
    """The lines with these columns first; empty columns and columns of texts without any are left out."""
    found = pd.DataFrame(lines)
    names = [name for name in dict.fromkeys([*first, *found.columns]) if name in found and name not in drop]
    return found[[name for name in names if found[name].replace("", None).notna().any()]]


def words(setting: Setting) -> str:
    """A setting in print."""
    return " · ".join(_words(setting))


def _words(setting: Setting) -> Iterator[str]:
    yield from (label_of(spec) for spec in (setting.dataset, setting.backbone, setting.method))
    yield f"{setting.bits} bits"
    yield strip_controls(changes(setting.training)) or "recipe of the method"
