"""Tidy frames for notebooks: one row per thing that is measured, names and parameters in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import pandas as pd

from bench.api.errors import unknown
from bench.api.kinds import CODE_CHANGING, DefenseKind
from bench.artifacts.outputs.codes import MILLISECONDS
from bench.engine.record import Status
from bench.metrics import METRICS
from bench.metrics.filtering import FILTERING
from bench.metrics.model_detection import DETECTION as DIAGNOSES
from bench.metrics.retrieval import HEALTH
from bench.metrics.stored_database import STORED
from reports.frame import Results, detector_metrics, trial_metrics

Kind = Literal["trials", "repairs", "detectors", "diagnoses"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFENSES: Mapping[Kind, frozenset[str]] = {
    "trials": frozenset({DefenseKind.NONE, ""}),  # "": the data of the trial are missing, so no result is there
    "repairs": frozenset({*CODE_CHANGING, DefenseKind.PURIFICATION}),
    "detectors": frozenset({DefenseKind.INPUT_DETECTOR}),
    "diagnoses": frozenset({DefenseKind.MODEL_DETECTOR}),
}
OWN_TYPE = "Int64, float64, boolean or object"
NO_RESULT = "the trial has no result"
UNMEASURED = "no result, or the metric does not apply to the trial"


@dataclass(frozen=True)
class About:
    """A column. missing: what NaN or NA means; "" for a column without them."""

    title: str
    dtype: str
    meaning: str
    missing: str = ""
    unit: str = ""
    direction: int | None = None
    low: float | None = None
    high: float | None = None


def _text(meaning: str, missing: str = "") -> About:
    return About("", "object", meaning, missing)


def _whole(meaning: str, missing: str = "") -> About:
    return About("", "Int64", meaning, missing)


def _seconds(meaning: str) -> About:
    return About("", "float64", meaning, "no result, or no such stage", "s")


COMPONENTS: Mapping[str, About] = {
    "dataset": _text("data set"), "backbone": _text("network"), "method": _text("hashing method"),
    "attack": _text("attack; none: the clean model"), "defense": _text("defense; none: undefended"),
}  # fmt: skip
AXES_ABOUT: Mapping[str, About] = {
    **{axis: about for axis, about in COMPONENTS.items() if axis not in {"attack", "defense"}},
    "bits": _whole("code length"),
    "attack": COMPONENTS["attack"],
    "defense": COMPONENTS["defense"],
    "target": _text("classes of the target, joined by +"),
    "seed": _whole("seed of initialisation, batch order and random choices of the attacker"),
    "surrogate": _text("model that the attacker prepares on"),
    "augment": _text("whether poisoned images are augmented"),
    "training": _text('fields of the recipe that the suite changes; "" without any'),
}
PATTERNS: Mapping[str, About] = {
    f"{axis}_<parameter>": About(
        "",
        OWN_TYPE,
        f"parameter of the {axis}, if a row of the frame has another value than the default",
        f"the {axis} has no such parameter, or it is not set",
    )
    for axis in COMPONENTS
} | {"training_<field>": About("", OWN_TYPE, "field of the recipe that the suite changes", "not changed in this row")}
STATE: Mapping[str, About] = {
    "access": _text("part of the system that the attacker can change"),
    "targeted": About("", "bool", "whether the attack fixes its target before training"),
    "remark": _text("what the attack says of its row"),
    "defense_kind": _text("kind of the defense"),
    "key": _text('key of the record, for `bench show`; "" for a trial that was left out'),
    "status": _text("ok, collapsed, failed, timeout, oom, killed, missing or skipped"),
    "reason": _text('why there is no result; "" if there is one'),
    "cause": _text('key of the stage that failed; "" if there is a result'),
}
SCORES: Mapping[str, About] = {
    "score": _text("name of the score of the detector", NO_RESULT),
    "headline": About("", "boolean", "whether it is the score that the paper uses", NO_RESULT),
}
COSTS: Mapping[str, About] = {
    "seconds_attack": _seconds("duration of the stages make_trigger and implant"),
    "seconds_defense": _seconds("duration of the defense and its scores"),
    MILLISECONDS: About("", "float64", "duration of purifying and encoding a query", "no purification", "ms"),
}
ORIGIN: Mapping[str, About] = {
    "protocol": _text("name of the protocol that makes the splits", NO_RESULT),
    "protocol_version": _text("version of the protocol", NO_RESULT),
    "protocol_digest": _text("digest of protocol and data", NO_RESULT),
    "cutoff": _whole("R of mAP@R", "the whole database counts, or no result"),
    "sizes": _text("sizes of the splits", NO_RESULT),
    "trusted": _whole("number of trusted images", NO_RESULT),
    "classes": _whole("number of labels of the data set", NO_RESULT),
    "target_labels": _whole("number of labels of the target"),
    "metrics_version": _text("version of the metrics", NO_RESULT),
    "code": _text("hash of the source code of the stages that all rows share", NO_RESULT),
    "machine": _text("digest of the arithmetic of the machines", NO_RESULT),
    "machine_count": _whole("number of machines with different arithmetic", NO_RESULT),
    "computed_on": _text("machines, devices and versions", NO_RESULT),
    "device": _text("device that encoded", NO_RESULT),
    "defended": _text('key of the stage of the defense; "" without one', NO_RESULT),
}  # fmt: skip


def metric_names(kind: Kind) -> tuple[str, ...]:
    """The metrics of a frame."""
    if kind == "detectors":
        return detector_metrics()
    if kind == "diagnoses":
        return METRICS.of(DIAGNOSES)
    without = {DIAGNOSES} if kind == "repairs" else {DIAGNOSES, FILTERING, STORED}
    return tuple(name for name in trial_metrics() if METRICS[name].section not in without)


def about(kind: Kind) -> dict[str, About]:
    """Every column of a frame in order; columns of parameters by their pattern, for example `attack_<parameter>`."""
    metrics = {
        name: About(one.title, "Int64" if one.whole else "float64", one.meaning, UNMEASURED, one.unit, one.direction,
                    one.low, one.high)
        for name in metric_names(kind)
        for one in [METRICS[name]]
    }  # fmt: skip
    labels = {f"{axis}_label": _text(f"{axis} with the parameters that differ from the default") for axis in COMPONENTS}
    scores = SCORES if kind == "detectors" else {}
    return {**AXES_ABOUT, **PATTERNS, **labels, **STATE, **scores, **metrics, **COSTS, **ORIGIN}


def columns(kind: str) -> pd.DataFrame:
    """`about` as a frame."""
    return pd.DataFrame.from_dict({name: asdict(one) for name, one in about(_kind(kind)).items()}, orient="index")


def tidy(results: Results, kind: str) -> pd.DataFrame:
    """The frame of a kind."""
    wanted = _kind(kind)
    rows = results.trials[results.trials["defense_kind"].isin([str(one) for one in DEFENSES[wanted]])]
    if wanted == "detectors":
        scored = results.detectors
        rows = pd.concat([scored, rows[~rows["key"].isin(scored["key"])]]) if len(scored) else rows
    rows = rows.reset_index(drop=True)
    known = about(wanted)
    found: dict[str, pd.Series[Any]] = {}
    for name, one in known.items():
        axis, _, more = name.partition("_")
        if name in PATTERNS:
            found |= _parameters(rows, axis)
        elif name in COMPONENTS or more == "label":
            names = [spec.name for spec in rows[f"{axis}_spec"]]
            found[name] = _typed(rows[axis] if more else pd.Series(names, rows.index, "object"), "object")
        else:
            held = rows["changes" if name == "training" else name] if name in rows else pd.Series(None, rows.index)
            found[name] = _typed(held, one.dtype)
    broken = rows["status"] != Status.OK.value
    for name in metric_names(wanted):
        if METRICS[name].section != HEALTH:  # says why a trial that was measured has no result
            found[name] = found[name].mask(broken)
    return pd.DataFrame(found)


def _kind(kind: str) -> Kind:
    for one in KINDS:
        if kind == one:
            return one
    raise unknown("frame", kind, KINDS)


def _typed(values: pd.Series[Any], dtype: Any) -> pd.Series[Any]:
    found: pd.Series[Any] = pd.to_numeric(values, errors="coerce") if dtype in {"float64", "Int64"} else values
    if dtype == "Int64" and not ((found % 1 == 0) & (found.abs() < 2**53) | found.isna()).all():
        return found.astype("float64")  # a stranger's store: a count that is no count stays as it is
    return found.astype(dtype)


def _parameters(rows: pd.DataFrame, axis: str) -> dict[str, pd.Series[Any]]:
    """The columns of an axis's parameters that differ from the default in some row, or of the recipe's changes."""
    if axis == "training":
        tables: Sequence[Mapping[str, Any]] = list(rows["recipe"])
        names = dict.fromkeys(name for table in tables for name in table)
    else:
        tables = [spec.params for spec in rows[f"{axis}_spec"]]
        names = dict.fromkeys(name for spec in rows[f"{axis}_spec"] for name in spec.given)
    return {f"{axis}_{name}": _column([table.get(name) for table in tables], rows.index) for name in names}


def _column(values: Sequence[Any], index: pd.Index[Any]) -> pd.Series[Any]:
    """A column whose type is that of its values: Int64, float64, boolean, or object for all else."""
    types = {type(value) for value in values if value is not None}
    dtype: Any = "object"
    if types == {bool}:
        dtype = "boolean"
    elif types and types <= {int, float}:
        dtype = "Int64" if types == {int} else "float64"
    found: pd.Series[Any] = pd.Series(list(values), index=index, dtype=dtype)
    return found
