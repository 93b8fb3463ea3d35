"""A store as tidy tables: one row per trial of a run, and one row per trial and detector score."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from bench.api.errors import UserError, nearest, unknown
from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import EncodeInputs, ImplantInputs, MeasureInputs
from bench.config.trial import AXES, PlannedTrial, Trial, digest, pieces
from bench.engine.record import Record, Status
from bench.engine.record_cache import RecordCache
from bench.engine.runs import LATEST, chosen
from bench.engine.store import Store
from bench.metrics import METRICS
from bench.metrics.health import has_not_learnt
from bench.metrics.input_detection import DETECTION

SETTING = ("dataset", "backbone", "method", "bits", "training", "surrogate", "augment")  # a board never mixes these
VERSIONS = ("protocol_digest", "metrics_version", "code")  # nor these, unless asked
SPECS = tuple(f"{axis}_spec" for axis in KIND_OF_AXIS)
CONTEXT = (
    *AXES,  # components by label
    *SPECS,  # the same as `Spec`s: name and parameters
    "training",  # digest of what the suite changes in the recipe; "" where nothing
    "changes",  # the same in words
    "access",  # what the attacker needs
    "targeted",  # whether the attack fixes its target beforehand
    "defense_kind",
    "key",  # of the record; "" where the trial was skipped
    "status",  # the value of a Status
    "reason",
    "cause",  # key of the stage that failed: the trial's own or an ancestor's
    "protocol", "protocol_version", "protocol_digest", "cutoff", "sizes",
    "classes",  # number of labels in the data set
    "metrics_version", "code", "device",
    "own_code",  # of the attack's and the defense's stages: one row of a board has one
)  # fmt: skip
AFTER = (
    "defended",  # key of the defense's work: trials of one clean model and defense share it
    "seconds_attack", "seconds_defense",  # of trigger and implant; of the defense with its scoring
)  # fmt: skip
TEXTS = frozenset({"attack", "defense"})
BASED = TEXTS | {"access"}  # where a value is compared with `none`
SLICES = (*AXES, "access")  # what boards are sliced by


def detector_metrics() -> tuple[str, ...]:
    """The metrics of one score of an input detector, controls last."""
    names = METRICS.of(DETECTION)
    return tuple(sorted(names, key=METRICS.controls().__contains__))


def trial_metrics() -> tuple[str, ...]:
    """The metrics of a trial: all but those of input detectors, which have a row per score."""
    return tuple(name for name, one in METRICS.items() if one.section != DETECTION)


def columns() -> tuple[str, ...]:
    """The columns of a frame of trials."""
    return (*CONTEXT, *trial_metrics(), *AFTER)


@dataclass(frozen=True)
class Results:
    """What boards are made of. suites: name to description; command: what made the (latest) run."""

    trials: pd.DataFrame
    detectors: pd.DataFrame
    suites: Mapping[str, str]
    command: str


def load(store: Store, *, suite: str | None = None, run: str = LATEST) -> pd.DataFrame:
    """One row per trial, columns as in `columns()`; metrics (see METRICS) are NaN where the trial has none."""
    return read(store, suite=suite, run=run).trials


def detectors(store: Store, *, suite: str | None = None, run: str = LATEST) -> pd.DataFrame:
    """One row per trial and score of its input detector; `headline` marks the main score."""
    return read(store, suite=suite, run=run).detectors


def read(store: Store, *, suite: str | None = None, run: str = LATEST) -> Results:
    """The trials of a run, or of all runs: each trial as the latest run that had it left it.

    run: "latest", "all" or the beginning of an id. suite: of its runs only.
    """
    used = chosen(store, run, suite=suite)[::-1]
    record_cache = RecordCache(store)
    rows, scores, seen = [], [], set()
    for planned in chain.from_iterable(manifest.trials for manifest in used):
        if (identity := _identity(planned, planned.surrogate_seed)) in seen:
            continue
        seen.add(identity)
        row, found = _row(_once(planned, seen), record_cache)
        rows.append(row)
        scores += found
    _mark_repairs_of_collapsed(rows, record_cache)
    about = {name: text for manifest in used[::-1] for name, text in manifest.descriptions.items()}
    return Results(
        trials=_frame(rows, columns()),
        detectors=_frame(scores, (*CONTEXT, "score", "headline", *detector_metrics())),
        suites={
            strip_controls(name): strip_controls(about.get(name, ""))
            for manifest in used[::-1]
            for name in manifest.suites
        },
        command=strip_controls(used[0].command),
    )


def _identity(planned: PlannedTrial, *more: object, **axes: str) -> str:
    """Equal for a trial in several runs, whose versions may have given its components more parameters."""
    return digest([planned.trial.axes() | axes, planned.trial.training, planned.threads, *more])


def _once(planned: PlannedTrial, seen: set[str]) -> PlannedTrial:
    """The trial; without its result where it is of a model that no seed makes and that another seed has shown."""
    if not planned.key or planned.seed_dependent:
        return planned
    model = _identity(planned, "one model", seed="")
    if model in seen:
        return replace(planned, key=None, skipped="one model for all seeds: a later run measured it with another")
    seen.add(model)
    return planned


def training_of(training: Mapping[str, Any]) -> str:
    """The digest of what a suite changes in a method's recipe; "" where nothing."""
    return digest(training)[:8] if training else ""


def changes(training: Mapping[str, Any]) -> str:
    """What a suite changes in a method's recipe, as words."""
    return ", ".join(f"{name} {value}" for name, value in sorted(training.items()))


def collapse(metrics: Mapping[str, Any]) -> str:
    """Why the victim of a record is a failed run, with its numbers; nothing where it is not, or nobody judged it."""
    if metrics.get("collapsed") != 1:
        return ""
    found, clean, chance = (metrics.get(name) for name in ("map", "map_clean", "map_chance"))
    if isinstance(clean, (int, float)) and isinstance(chance, (int, float)) and has_not_learnt(clean, chance):
        return f"clean model collapsed (mAP {_short(clean)}, chance {_short(chance)})"
    return f"victim collapsed (mAP {_short(found)}, clean {_short(clean)}, chance {_short(chance)})"


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else "unknown"


def _mark_repairs_of_collapsed(rows: Sequence[dict[str, Any]], record_cache: RecordCache) -> None:
    """Mark what repairs made of a collapsed victim: `measure` can judge a victim only without them."""
    measured = [record_cache.record(row["key"]) for row in rows]
    attacks = [MeasureInputs.of(record.parents).implant if record is not None else None for record in measured]
    implants = [attack.key if attack is not None else "" for attack in attacks]
    known = {
        victim: row["reason"] for victim, row in zip(implants, rows, strict=True) if row["status"] == Status.COLLAPSED
    }
    for victim, row in zip(implants, rows, strict=True):
        if victim and row["status"] == Status.OK and victim in known:
            row |= {"status": Status.COLLAPSED.value, "reason": known[victim], "collapsed": 1.0}


def _row(planned: PlannedTrial, record_cache: RecordCache) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    status, reason, record = (
        record_cache.status_of(planned.key) if planned.key else (Status.SKIPPED, planned.skipped, None)
    )
    row = coordinates(planned.trial)
    row |= {"access": str(planned.access or ""), "defense_kind": str(planned.defense_kind or "")}
    row["targeted"] = planned.targeted
    training = planned.trial.training
    row["training"] = training_of(training)
    row["changes"] = strip_controls(changes(training))
    row |= {"key": planned.key or "", "status": status.value, "reason": strip_controls(reason)}
    if record is None or status is not Status.OK:
        row["cause"] = (record and record.cause) or row["key"]
        return row, []
    row["cause"] = ""
    row |= _context(record, record_cache)
    row |= {name: record.metrics.get(name) for name in trial_metrics()}
    if reason := collapse(record.metrics):
        row |= {"status": Status.COLLAPSED.value, "reason": reason}
    if record.detectors is None:
        return row, []
    fixed = {name: row.get(name) for name in CONTEXT}
    return row, [
        {**fixed, "score": strip_controls(score), "headline": score == record.detectors.headline}
        | {name: values.get(name) for name in detector_metrics()}
        for score, values in record.detectors.scores.items()
    ]


def coordinates(trial: Trial) -> dict[str, Any]:
    """A trial's axes as columns: labels for people, and the components themselves."""
    labels = {axis: strip_controls(value) if isinstance(value, str) else value for axis, value in trial.axes().items()}
    return {**labels, **{f"{axis}_spec": spec for axis, spec in trial.components.items()}}


def _context(record: Record, record_cache: RecordCache) -> dict[str, Any]:
    """What the numbers of a record depend on besides its axes. Code: of the stages that all rows of a board share."""
    protocol, inputs = record.protocol, MeasureInputs.of(record.parents)
    encoded, data, split = (record_cache.behind(one) for one in (inputs.control.benign, inputs.load, inputs.split))
    clean = record_cache.behind(EncodeInputs.of(encoded.parents).model) if encoded is not None else None
    path = (record, data, split, encoded, clean)
    implant = record_cache.behind(inputs.implant)
    trigger = record_cache.behind(ImplantInputs.of(implant.parents).trigger) if implant is not None else None
    measured = inputs.measured
    defended = [record_cache.behind(one) for one in (inputs.defense, measured.benign_scores, measured.triggered_scores)]
    own = (implant, trigger, record_cache.behind(measured.triggered), *defended)
    return {
        "protocol": strip_controls(protocol.name),
        "protocol_version": str(protocol.version),
        "protocol_digest": digest(protocol.as_json())[:8],
        "cutoff": protocol.cutoff,
        "sizes": sizes(protocol.sizes),
        "classes": (len(data.meta.classes) if data is not None else 0) or None,
        "metrics_version": str(record.provenance.metrics),
        "code": digest([stage and stage.code for stage in path])[:8],
        "own_code": digest([stage and stage.code for stage in own])[:8],
        "device": (encoded or record).provenance.device,
        "defended": inputs.defense.key if inputs.defense is not None else "",
        "seconds_attack": _seconds(implant, trigger),
        "seconds_defense": _seconds(*defended),
    }


def _seconds(*records: Record | None) -> float | None:
    found = [record.cost.seconds for record in records if record is not None and record.cost is not None]
    return float(sum(found)) if found else None


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    numeric = [name for name in columns if name in METRICS or name in {"seconds_attack", "seconds_defense"}]
    numbers = {name: pd.to_numeric(frame[name], errors="coerce").astype("float64") for name in numeric}
    return frame.assign(**numbers).copy()  # the copy joins the columns in one block, which makes every selection faster


def sizes(counts: Mapping[str, int]) -> str:
    """`{"query": 100}` as words, in the order in which people think of them."""
    order = ("train", "query", "database", "trusted", "public")
    names = sorted(counts, key=lambda name: (order.index(name) if name in order else len(order), name))
    return ", ".join(f"{name} {counts[name]:,}" for name in names)


# Narrowing


def narrow(results: Results, conditions: Sequence[str]) -> Results:
    """The trials that match every `axis=a,b`; values of one axis add up. `none` stays: attacks and defenses need it."""
    wanted: dict[str, set[str]] = {}
    for axis, values in map(_condition, conditions):
        wanted.setdefault(axis, set()).update(values)
    trials, scores = results.trials, results.detectors
    for axis, values in wanted.items():
        known = list(dict.fromkeys(str(value) for value in results.trials[axis]))
        for value in values:
            if not meant(results.trials, axis, [value]).any():
                raise UserError(
                    f"no {axis} '{value}' in this run{nearest(value, known) or '.'} Known: {', '.join(known)}"
                )
        kept = values | ({"none"} if axis in BASED else set())
        trials, scores = (frame[meant(frame, axis, kept)] for frame in (trials, scores))
    if trials.empty:
        raise UserError(f"no trial matches {' '.join(conditions)}: each exists, but not together")
    return Results(trials, scores, results.suites, results.command)


def axis_named(word: str) -> str:
    """`attack` or `attacks`; anything else is an unknown axis."""
    for axis in SLICES:
        if word in {axis, f"{axis}s"}:
            return axis
    raise unknown("axis", word, SLICES)


def _condition(text: str) -> tuple[str, set[str]]:
    axis, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise UserError(f"'{text}' is not of the form axis=value: for example attack=badnets")
    return axis_named(axis.strip()), set(pieces(values))


def meant(frame: pd.DataFrame, axis: str, values: Collection[str]) -> Bool[np.ndarray, " n"]:
    """Which rows a user's words for values of an axis mean: a component's name means it with all parameters."""
    labels = frame[axis].astype(str).isin(values).to_numpy(dtype=bool)
    if axis not in KIND_OF_AXIS:
        return labels
    named = np.array([spec.name in values for spec in frame[f"{axis}_spec"]], dtype=bool)
    found: Bool[np.ndarray, " n"] = labels | named
    return found


def groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The parts of a frame with equal `by`, in order of appearance; missing values are equal to each other."""
    if not len(frame):
        return
    for values, part in frame.groupby(list(by), sort=False, dropna=False):
        yield values if isinstance(values, tuple) else (values,), part
