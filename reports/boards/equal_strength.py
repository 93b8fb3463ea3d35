"""Defenses at equal strength: compared against attacks of equal gain (METHODOLOGY.md#equal-strength).

Defenses are comparable only against attacks of equal gain. For every swept attack, the board uses the variant whose
mean gain is nearest to one level. The caption names attacks without a variant near that level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd

from bench.api.errors import UserError
from bench.api.untrusted import strip_controls
from bench.metrics import METRICS
from reports import statistics
from reports.basis import Basis
from reports.board import FREEDOM, HALF, Board, Column
from reports.board_registry import BoardData, board
from reports.common_cells import CommonCells, Group
from reports.context import REPAIRS, BoardContext, contexts, listed
from reports.rows import freedom, known, removed, table
from reports.selection import NONE, attacked, defended, groups, undefended

LEVEL = 0.6
NEAR = 0.15  # largest distance of a gain from the level
BACK = ("removed", f"removed{HALF}", f"removed{FREEDOM}", "own-mAP back", "mAP lost", "mAP lost clean")
CAUGHT = ("auroc", "tpr_5", "caught_5", "alarms_5_control")
MEAN, WORST = "mean", "worst of them"
COLUMNS = {
    "attack": Column(f"variant of the attack with the nearest gain; {MEAN}, {WORST}: over all attacks"),
    "removed": Column("gain without defense minus gain with it", "equal-strength"),
    "own-mAP back": Column("own-mAP with defense minus without it", "own-map"),
    "mAP lost": Column("mAP of attacked models without defense minus with it"),
    "mAP lost clean": Column("mAP of clean models without defense minus with it"),
}


@dataclass(frozen=True)
class Chosen:
    """The variants of attacks that are nearest to a gain.

    near: mean undefended gain of the variants that stand for their attacks, by label. far: mean gain of the nearest
    variant of each other attack, by name; it is more than NEAR away.
    """

    near: Mapping[str, float]
    far: Mapping[str, float]

    @property
    def labels(self) -> tuple[str, ...]:
        """The variants that stand for their attacks."""
        return tuple(self.near)

    @property
    def words(self) -> list[str]:
        """Sentences for the caption."""
        near = ", ".join(f"{label} at {gain:.3f}" for label, gain in self.near.items())
        far = ", ".join(f"{name} ({gain:.3f})" for name, gain in self.far.items())
        return [
            *([f"Compared: {near}."] if near else []),
            *([f"Left out, because their nearest gain is too far away: {far}."] if far else []),
        ]


@board("equal-strength", chapter="Strength", help="defenses against attacks of equal gain", columns=COLUMNS)
def equal_strength(
    data: BoardData, *, gain: Annotated[float, "The gain at which attacks are compared: above 0, at most 1."] = LEVEL
) -> list[Board]:
    """Per setting, a board of repairs and data filters and one of input detectors; UserError if no attack is near."""
    if not 0 < gain <= 1:
        raise UserError(f"gain = {gain:g}", "give a gain above 0 and at most 1")
    boards: list[Board] = []
    far: list[tuple[str, float]] = []
    for context in contexts(data.results.trials, data.mixed):
        chosen = choose(context, gain)
        if not chosen.labels:
            far += chosen.far.items()
            continue
        note = (
            f"For every attack, the variant with the undefended gain nearest to {gain:g}, at most {NEAR:g} away; it was"
            " chosen by the same trials."
        )
        words = [note, *chosen.words]
        boards += [*_repairs(context, chosen, words), *_detectors(context, data.results.detectors, chosen, words)]
    if not boards:
        nearest = sorted(far, key=lambda attack: abs(attack[1] - gain))
        told = f" The nearest: {listed(f'{name} ({value:.3f})' for name, value in nearest)}." if far else ""
        other = f"the nearest gain (--gain {nearest[0][1]:.2f})" if far and nearest[0][1] > 0.01 else "another gain"
        raise UserError(
            f"no defended attack of this run has a gain within {NEAR:g} of {gain:g}.{told} Sweep a parameter in a"
            f""" suite, for example {{ name = "badnets", poisons = [2, 5, 10] }}, or ask for {other}"""
        )
    return boards


def choose(context: BoardContext, level: float) -> Chosen:
    """The variant of each attack with the gain nearest to `level`.

    A variant counts if it has a result for all its undefended trials and for some defended one.
    """
    met = set(attacked(defended(context.done))["attack"])
    plain = undefended(context.trials)
    plain = plain[plain["attack"].isin(met)]
    gains: dict[str, dict[str, float]] = {}
    for label, group in context.grouped(plain, ["attack"]).items():
        values = group.done["gain"].to_numpy(dtype=np.float64)
        if len(group.places) == len(group.planned) and np.isfinite(values).all():
            name = group.done["attack_spec"].iloc[0].name
            gains.setdefault(strip_controls(name), {})[str(label)] = float(values.mean())
    near, far = {}, {}
    for name, variants in gains.items():
        label = min(variants, key=lambda one: (abs(variants[one] - level), one))
        if abs(variants[label] - level) <= NEAR:
            near[label] = variants[label]
        else:
            far[name] = variants[label]
    return Chosen(near, far)


def _repairs(context: BoardContext, chosen: Chosen, words: Sequence[str]) -> Iterator[Board]:
    trials = context.part(REPAIRS)
    made = context.grouped(trials[trials["attack"].isin((*chosen.labels, NONE))], ["attack", "defense"])
    backdoored = {key: group for key, group in made.items() if key[0] != NONE}
    basis = Basis.of(context, backdoored)
    shared = basis.cells
    defenses = [defense for defense in dict.fromkeys(defense for _, defense in backdoored) if defense != NONE]
    held = {defense: [a for a in chosen.labels if {(a, defense), (a, NONE)} <= shared.counted] for defense in defenses}
    common = [attack for attack in chosen.labels if all(attack in met for met in held.values())]
    lines: list[dict[str, Any]] = []
    for defense, attacks in held.items():
        clean = _clean_loss(made, defense, shared)
        mine = [
            {
                "defense": defense,
                "attack": attack,
                **_removed(backdoored, (attack, defense), shared),
                "mAP lost clean": clean,
            }
            for attack in attacks
        ]
        lines += [*mine, *_summaries(defense, [line for line in mine if line["attack"] in common])]
    if not lines:
        return
    apart = [attack for attack in chosen.labels if attack not in common]
    yield Board(
        title="Repairs at equal strength",
        setting=context.setting,
        table=table(lines, ("defense", "attack", *BACK), keep=("defense", "attack", *BACK[:1], *BACK[3:])),
        caption=basis.caption(
            *words,
            "removed: gain before minus after. own-mAP back: own-mAP after minus before. mAP lost: mAP before minus"
            f" after; clean: for models without backdoor. {WORST}: the least favourable attack, per column.",
            f"{MEAN} and {WORST} are over {listed(common)}: some defense has no trials against {listed(apart)}."
            if apart
            else "",
            freedom(lines, BACK[0]),
        ),
        index=("defense", "attack"),
        metrics=dict.fromkeys(BACK, "gain"),
        quiet=(BACK[0] + FREEDOM,),
        basis=basis,
    )


def _removed(made: Mapping[Any, Group], row: tuple[str, str], shared: CommonCells) -> dict[str, float | None]:
    before, after = made[row[0], NONE], made[row]
    interval = None
    if shared.inference:
        trials = shared.matrix(before, "gain") - shared.matrix(after, "gain")
        interval = statistics.crossed_interval(trials, fixed_targets=shared.fixed_targets)
    bounds = {f"removed{HALF}": interval.half, f"removed{FREEDOM}": interval.df} if interval else {}
    return {**removed(before, after, shared), **bounds}


def _clean_loss(made: Mapping[Any, Group], defense: str, shared: CommonCells) -> float:
    """The mAP that models without backdoor lose; a repaired model of several targets counts once."""
    if not {(NONE, NONE), (NONE, defense)} <= set(made):
        return math.nan
    before, after = made[NONE, NONE], made[NONE, defense]
    seeds = {place[1]: place for place in sorted(before.places & after.places)}
    if not set(shared.seeds) <= set(seeds):
        return math.nan
    places = [seeds[seed] for seed in shared.seeds]
    return float((before.values("map", places) - after.values("map", places)).mean()) if places else math.nan


def _summaries(defense: str, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of mean and worst over the attacks of a defense; none for a single attack."""
    if len(lines) < 2:
        return []
    frame = pd.DataFrame(lines)
    good = {"removed": 1, "own-mAP back": 1, "mAP lost": -1, "mAP lost clean": -1}
    mean = {name: float(frame[name].mean()) for name in good}
    worst = {name: float(frame[name].min() if sign > 0 else frame[name].max()) for name, sign in good.items()}
    return [{"defense": defense, "attack": MEAN, **mean}, {"defense": defense, "attack": WORST, **worst}]


def _detectors(context: BoardContext, scores: pd.DataFrame, chosen: Chosen, words: Sequence[str]) -> Iterator[Board]:
    done = context.done[context.done["attack"].isin(chosen.labels)]
    mine = scores[scores["key"].isin(set(done["key"])) & scores["headline"].astype(bool)]
    made = {key: Group.of(part) for key, part in groups(mine, ["defense", "attack"])}
    basis = Basis.of(context, made)
    shared = basis.cells
    lines = [
        {"defense": detector, "attack": attack} | {METRICS[m].title: shared.mean(group, m) for m in CAUGHT}
        for (detector, attack), group in made.items()
        if (detector, attack) in shared.counted
    ]
    if not lines:
        return
    names = [METRICS[metric].title for metric in CAUGHT]
    lines.sort(key=lambda line: (line["defense"], -known(line[names[0]])))
    yield Board(
        title="Input detectors at equal strength",
        setting=context.setting,
        table=table(lines, ("defense", "attack", *names), keep=("defense", "attack", *names)),
        caption=basis.caption(*words, "The main score of each input detector.", intervals=False),
        index=("defense", "attack"),
        metrics={METRICS[metric].title: metric for metric in CAUGHT},
        heat=tuple(names[:3]),
        basis=basis,
    )
