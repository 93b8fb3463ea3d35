"""Comparison of two stores: changed numbers, changes beyond noise, and differences of code and machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bench.config.trial import AXES
from bench.engine.record import Status
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.metrics import METRICS
from reports import noise_floor, statistics
from reports.board import FREEDOM, HALF, Board, Column
from reports.common_cells import CommonCells, Group
from reports.context import listed
from reports.frame import VERSIONS, Results
from reports.rows import freedom, table
from reports.selection import groups, repeated, with_result

COMPARED = ("map", "t_map", "gain", "own_map", "auroc", "model_score")
ROUNDING = 1e-9  # a smaller difference is equality
CLOSE = 0.02  # METHODOLOGY.md#equality-margin: for metrics of kinds of trials whose noise floor is not measured
NOTHING = "Nothing was compared: no trial has numbers in both stores (a collapsed model has none). "
MEANINGS = {
    **{axis: Column(f"value of the axis `{axis}`") for axis in AXES},
    "metric": Column("metric that is compared"),
    "A": Column("mean in the first store"),
    "B": Column("mean in the second store"),
    "difference": Column("B minus A, over the (target, seed) cells of both stores"),
    "verdict": Column("whether the difference is more than noise", "equality-margin"),
}
BY_METRIC = {
    "metric": Column("metric that is compared"),
    "rows": Column("number of rows of trials with this metric in both stores"),
    "equal": Column("rows whose number did not change"),
    "inside": Column("rows whose mean difference is at most their noise floor", "noise-floor"),
    "outside": Column("rows whose mean difference is larger than their noise floor", "noise-floor"),
    "difference": Column("absolute mean difference of the row that exceeds its noise floor most, or comes nearest"),
    "its floor": Column("noise floor of this row: 95 % of such trials move less between machines", "noise-floor"),
}
SAME = ["training", "changes", *(axis for axis in AXES if axis not in {"target", "seed"})]
ROW = [axis for axis in AXES if axis not in {"target", "seed"}]


@dataclass(frozen=True)
class Comparison:
    """Two stores side by side.

    counts: rows by verdict. changed: whether a number changed beyond noise or a result of the first store is missing.
    """

    boards: list[Board]
    counts: Mapping[str, int]
    changed: bool


@dataclass(frozen=True)
class Pair:
    """A metric of trials of two stores that differ at most in what is outside their axes, such as the machine.

    axes: the values of SAME. attack: its name, without parameters. a, b: values of the first and the second store in
    the cells, shape (cells,), in the metric's unit. groups: the trials of both stores.
    """

    axes: Mapping[str, Any]
    attack: str
    defense_kind: str
    metric: str
    a: Float64[np.ndarray, " cells"]
    b: Float64[np.ndarray, " cells"]
    cells: CommonCells
    groups: tuple[Group, Group]

    def floor(self, source: str) -> noise_floor.Floor | None:
        """How far this metric of such trials moves with the machine, the seed or the target; None if not measured."""
        return noise_floor.floor_of(self.metric, self.attack, self.defense_kind, source)


def compare(one: Results, other: Results, first: Store, second: Store) -> Comparison:
    """Compare the trials of both stores that have equal axes and training, paired by target and seed."""
    a, b = _numbers(one), _numbers(other)
    lines = _judged([_row(pair) for pair in _pairs(a, b)])
    moved = [line for line in lines if line["verdict"] not in {"equal", "within noise"}]
    lost = _missing(a, b)
    verdicts = [line["verdict"] for line in lines]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(["equal", "within noise", *verdicts])}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    shown = [line for line in lines if line["verdict"] != "equal"]
    axes = [axis for axis in ROW if len({line[axis] for line in lines}) > 1]
    outcome = "" if shown else "No number changed. " if lines else NOTHING
    caption = (
        f"Number of rows: {summary}. {outcome}{_shared(lines, axes)}"
        " Equal rows are not shown."
        " beyond noise: Holm-adjusted p below 0.05 over all rows, with targets and seeds crossed. Without an interval"
        " (one target or seed), a mean difference above the noise floor counts as a change: 95 % of the trials of this"
        f" kind (suite quick) moved less when only the machine changed. Kinds without a noise floor: {CLOSE}."
    )
    twice = [f"Warning: in {name}, {said}" for name, frame in (("A", a), ("B", b)) if (said := repeated(frame))]
    boards = [
        Board(
            title="Changes (B minus A)",
            table=table(
                shown,
                (*axes, "metric", "A", "B", "difference", f"difference{HALF}", f"difference{FREEDOM}", "n", "verdict"),
                keep=(*axes, "metric", "A", "B", "difference", "n", "verdict"),
            ),
            caption="\n".join(filter(None, [caption, *twice, freedom(shown, "difference")])),
            quiet=(f"difference{FREEDOM}",),
            index=(*axes, "metric"),
            columns=MEANINGS,
            metrics={"A": "t_map", "B": "t_map", "difference": "gain", f"difference{HALF}": "gain"},
        ),
        *_by_metric(lines),
        _provenance(a, b, first, second),
    ]
    if not lost.empty:
        boards.insert(1, _lost(lost))
    changed = any("beyond" in line["verdict"] for line in moved) or bool((lost["only in"] == "A").any())
    return Comparison(boards, counts, changed)


def _numbers(results: Results) -> pd.DataFrame:
    """The trials with the AUROC of the main score of their input detector."""
    scores = results.detectors
    main = scores[scores["headline"].astype(bool)][["key", "auroc"]].drop_duplicates("key")
    return results.trials.drop(columns="auroc", errors="ignore").merge(main, on="key", how="left")


def pairs(one: Results, other: Results) -> Iterator[Pair]:
    """The metrics that trials of equal axes and training have in both, over the (target, seed) cells of both."""
    return _pairs(_numbers(one), _numbers(other))


def _pairs(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[Pair]:
    theirs = dict(groups(b, SAME))
    for key, part in groups(a, SAME):
        if key not in theirs:
            continue
        pair = {"A": Group.of(part), "B": Group.of(theirs[key])}
        places = pair["A"].places & pair["B"].places
        if not places:
            continue
        shared = CommonCells.of({name: _only(group, places) for name, group in pair.items()})
        trial = part.iloc[0]
        for metric in COMPARED:
            a_values, b_values = (group.values(metric, shared.places) for group in pair.values())
            if np.isfinite(b_values - a_values).all():
                yield Pair(
                    dict(zip(SAME, key, strict=True)), trial["attack_spec"].name, str(trial["defense_kind"]), metric,
                    a_values, b_values, shared, (pair["A"], pair["B"]),
                )  # fmt: skip


def _only(group: Group, places: frozenset[Any]) -> Group:
    return Group(places, group.done, {p: i for p, i in group.positions.items() if p in places}, group.collapsed)


def _row(pair: Pair) -> dict[str, Any]:
    """The line of a board. floor: of the machine, in 95 % of cases; CLOSE if nobody measured it."""
    apart = pair.b - pair.a
    measured = pair.floor(noise_floor.MACHINE)
    floor = None if measured is None else measured.p95
    found: dict[str, Any] = {axis: pair.axes[axis] for axis in ROW}
    found |= {"metric": METRICS[pair.metric].title, "A": float(pair.a.mean()), "B": float(pair.b.mean())}
    found |= {"difference": float(apart.mean()), "n": len(apart), "p": None, "floor": CLOSE if floor is None else floor}
    if np.abs(apart).max() <= ROUNDING:
        return found | {"verdict": "equal"}
    shared = pair.cells
    if not shared.inference:
        close = abs(found["difference"]) <= (CLOSE if floor is None else floor)
        limit = f"{CLOSE} (no noise floor measured)" if floor is None else f"the noise floor {floor:.3f}"
        return found | {"verdict": f"no interval, {'within' if close else 'beyond'} {limit}"}
    before, after = (shared.matrix(group, pair.metric) for group in pair.groups)
    trials = after - before
    interval = statistics.crossed_interval(trials, fixed_targets=shared.fixed_targets)
    p = statistics.p_value(trials, fixed_targets=shared.fixed_targets)
    bounds = {f"difference{HALF}": interval.half, f"difference{FREEDOM}": interval.df} if interval else {}
    return found | bounds | {"p": p, "verdict": "within noise"}


def _by_metric(lines: Sequence[Mapping[str, Any]]) -> Iterator[Board]:
    """For each metric, how many rows moved more than the machine alone moves them."""
    rows = []
    for metric in dict.fromkeys(line["metric"] for line in lines):
        mine = [line for line in lines if line["metric"] == metric]
        moved = [line for line in mine if line["verdict"] != "equal"]
        inside = sum(abs(line["difference"]) <= line["floor"] for line in moved)
        furthest = max(mine, key=lambda line: abs(line["difference"]) - line["floor"])
        rows.append(
            {
                "metric": metric,
                "rows": len(mine),
                "equal": len(mine) - len(moved),
                "inside": inside,
                "outside": len(moved) - inside,
                "difference": abs(furthest["difference"]),
                "its floor": furthest["floor"],
            }
        )
    if rows:
        yield Board(
            title="Noise floor by metric",
            table=pd.DataFrame(rows),
            caption="inside, outside: of the noise floor, the distance that 95 % of such trials (suite quick) move when"
            f" only the machine changes; {CLOSE} for kinds of trials without a measured floor.",
            index=("metric",),
            columns=BY_METRIC,
            metrics={"difference": "gain", "its floor": "gain"},
        )


def _judged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with verdicts; all tests of a comparison are one family."""
    tested = [line for line in lines if line["p"] is not None]
    for line, p in zip(tested, statistics.holm([line["p"] for line in tested]), strict=True):
        if p < statistics.LEVEL:
            line["verdict"] = "beyond noise"
    return lines


def _missing(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Trials with a result in one store only, and their reason in the other."""
    on = ["training", *AXES]
    both = a[[*on, "status", "reason"]].merge(b[[*on, "status", "reason"]], on=on, how="outer", suffixes=(" A", " B"))
    ok = {name: both[f"status {name}"] == Status.OK.value for name in ("A", "B")}
    lost = both[ok["A"] != ok["B"]].copy()
    lost["only in"] = np.where(ok["A"][lost.index], "A", "B")
    why = np.where(lost["only in"] == "A", lost["reason B"], lost["reason A"])
    lost["missing because"] = [text if isinstance(text, str) and text else "not part of the other run" for text in why]
    return lost


def _lost(lost: pd.DataFrame) -> Board:
    found = lost.groupby(["only in", "attack", "defense", "missing because"], sort=False).size()
    frame = found.rename("trials").reset_index()
    return Board(
        title="Results in one store only",
        table=frame[["only in", "attack", "defense", "trials", "missing because"]],
        caption="missing because: the reason in the other store.",
        index=("only in", "attack", "defense"),
    )


def _provenance(a: pd.DataFrame, b: pd.DataFrame, first: Store, second: Store) -> Board:
    """Differences of code, protocol, machine and packages."""
    facts = [_facts(frame, store) for frame, store in ((a, first), (b, second))]
    names = [name for name in dict.fromkeys([*facts[0], *facts[1]]) if facts[0].get(name) != facts[1].get(name)]
    lines = [{"what": name, "A": facts[0].get(name, ""), "B": facts[1].get(name, "")} for name in names]
    lines += _other_components(a, b)
    same = "" if lines else " Code, protocols, packages and machine are equal."
    return Board(
        title="Other differences",
        table=pd.DataFrame(lines, columns=["what", "A", "B"]),
        caption=f"A: {first.root}. B: {second.root}.{same}",
        index=("what",),
    )


def _other_components(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Pairs of attack and defense that both stores have, with other code or files of the attack or the defense."""
    held = [dict(groups(with_result(frame), ["attack", "defense"])) for frame in (a, b)]
    for attack, defense in (pair for pair in held[0] if pair in held[1]):
        codes = [listed(sorted(set(one[attack, defense]["own_code"]))) for one in held]
        if codes[0] != codes[1]:
            yield {"what": f"code of {attack} and defense {defense}", "A": codes[0], "B": codes[1]}


def _facts(trials: pd.DataFrame, store: Store) -> dict[str, str]:
    done = with_result(trials)
    found = {name: listed(sorted(set(done[name].dropna().astype(str)))) for name in (*VERSIONS, "device", "protocol")}
    found["computed on"] = listed(sorted(set(done["computed_on"])))
    record_cache, seen = RecordCache(store), dict[str, set[str]]()
    for key in done["key"]:
        record = record_cache.record(key)
        if record is None:
            continue
        about = record.provenance
        facts = {"python": about.python, "system": about.system, "processor": about.processor, **about.packages}
        facts["commit"] = str(about.git or "")
        for name, value in facts.items():
            if value:
                seen.setdefault(name, set()).add(str(value))
    return found | {name: listed(sorted(values)) for name, values in seen.items()}


def _shared(lines: list[dict[str, Any]], axes: list[str]) -> str:
    same = ", ".join(f"{axis} {lines[0][axis]}" for axis in ROW if axis not in axes) if lines else ""
    return f"Equal in all rows: {same}." if same else ""
