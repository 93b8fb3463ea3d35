"""A store as tidy tables: one row per trial of a run, and one row per trial and detector score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd

from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import EncodeInputs, ImplantInputs, MeasureInputs
from bench.artifacts.outputs.codes import MILLISECONDS
from bench.config.trial import AXES, PlannedTrial, Trial, digest
from bench.engine.machines import identity, machines
from bench.engine.record import Record, RunManifest, Status
from bench.engine.record_cache import RecordCache
from bench.engine.runs import LATEST, chosen
from bench.engine.store import Store
from bench.metrics import METRICS
from bench.metrics.input_detection import DETECTION
from reports.trial_texts import changes, collapse, sizes, training_of

SETTING = ("dataset", "backbone", "method", "bits", "training", "surrogate", "augment")  # equal in a board
VERSIONS = ("protocol_digest", "metrics_version", "code", "machine")  # equal in a board too, without --mixed
SPECS = tuple(f"{axis}_spec" for axis in KIND_OF_AXIS)
CONTEXT = (
    *AXES,  # components by label
    *SPECS,  # the same as `Spec`s: name and parameters
    "training",  # digest of the suite's changes of the recipe; "" without changes
    "changes",  # these changes as text
    "recipe",  # the same as a mapping
    "access",  # access group
    "targeted",  # whether the attack fixes its target before training
    "remark",  # of the attack
    "defense_kind",
    "key",  # of the record; "" for a skipped trial
    "status",  # the value of a Status
    "reason",
    "cause",  # key of the stage that failed: the stage of the trial itself or one that it needs
    "protocol", "protocol_version", "protocol_digest", "cutoff", "sizes",
    "trusted",  # number of trusted images
    "target_labels",  # number of labels of the target
    "classes",  # number of labels in the data set
    "metrics_version", "code",
    "machine",  # digest of the machines that the result comes from; equal digests mean equal arithmetic
    "machine_count", "computed_on",  # their number, and the machines as text
    "device",
    "attack_code",  # digest of the code and files of the attack and its surrogates: equal in all rows of an attack
    "own_code",  # the same with the code of the defense: equal in a row of a board
)  # fmt: skip
AFTER = (
    "defended",  # key of the stage of the defense: trials of one clean model and defense share it
    "seconds_attack", "seconds_defense",  # of trigger and implant; of the defense and its scores
    MILLISECONDS,  # of a query that a purification changes and the model encodes
)  # fmt: skip


def detector_metrics() -> tuple[str, ...]:
    """The metrics of a score of an input detector, controls last."""
    names = METRICS.of(DETECTION)
    return tuple(sorted(names, key=METRICS.controls().__contains__))


def trial_metrics() -> tuple[str, ...]:
    """The metrics of a trial, without those of input detectors, which have one row per score."""
    return tuple(name for name, one in METRICS.items() if one.section != DETECTION)


def columns() -> tuple[str, ...]:
    """The columns of a frame of trials."""
    return (*CONTEXT, *trial_metrics(), *AFTER)


@dataclass(frozen=True)
class Results:
    """The trials and detector scores of a run. suites: descriptions by name. command: of the (latest) run."""

    trials: pd.DataFrame
    detectors: pd.DataFrame
    suites: Mapping[str, str]
    command: str


def read(store: Store, *, suite: str | None = None, run: str = LATEST) -> Results:
    """The trials of a run, or of all runs; a trial of several runs has its latest result.

    run: "latest", "all" or the beginning of an id. suite: only runs of this suite count, by its name or file.
    """
    return results_of(chosen(store, run, suite=suite), RecordCache(store))


def results_of(runs: Sequence[RunManifest], record_cache: RecordCache) -> Results:
    """The trials of runs, of which the latest is the last; a trial of several runs has its latest result."""
    used = runs[::-1]
    rows, scores = [], []
    for planned in _once_per_model(_once_per_trial(used, record_cache), record_cache):
        row, found = _row(planned, record_cache)
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
        command=strip_controls(used[0].whole_command),
    )


def _identity(planned: PlannedTrial, *more: object, **axes: str) -> str:
    """An identifier that is equal for one trial in several runs, even if later versions added parameters.

    It is made of the given parameters, not of labels, since two components or targets may have the same label.
    """
    trial = planned.trial
    given = {axis: [spec.name, dict(spec.given)] for axis, spec in trial.components.items()}
    exact = trial.axes() | given | {"target": list(trial.target)} | axes
    return digest([exact, trial.training, planned.threads, *more])


def _once_per_trial(runs: Sequence[RunManifest], record_cache: RecordCache) -> Iterable[PlannedTrial]:
    """Each trial as the latest run with a result has it; without any result, as the latest run has it.

    runs: the latest first.
    """
    found: dict[str, PlannedTrial] = {}
    for planned in chain.from_iterable(manifest.trials for manifest in runs):
        held = found.setdefault(identity := _identity(planned, planned.surrogate_seed), planned)
        if not record_cache.has_result(held.key) and record_cache.has_result(planned.key):
            found[identity] = planned
    return found.values()


def _once_per_model(trials: Iterable[PlannedTrial], record_cache: RecordCache) -> list[PlannedTrial]:
    """The trials; of those whose model is equal for all seeds, only one per model, with a result if any has one."""
    given = list(trials)
    models = [_identity(one, "one model", seed="") if one.key and not one.seed_dependent else "" for one in given]
    counted: dict[str, PlannedTrial] = {}
    for planned, model in zip(given, models, strict=True):
        held = counted.setdefault(model, planned)
        if not record_cache.has_result(held.key) and record_cache.has_result(planned.key):
            counted[model] = planned
    skipped = "one model for all seeds: another run measured it with another seed"
    return [
        planned if not model or counted[model] is planned else replace(planned, key=None, skipped=skipped)
        for planned, model in zip(given, models, strict=True)
    ]


def _mark_repairs_of_collapsed(rows: Sequence[dict[str, Any]], record_cache: RecordCache) -> None:
    """Mark defended trials whose undefended victim collapsed: stage `measure` judges undefended victims only."""
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
    row |= {"targeted": planned.targeted, "remark": strip_controls(planned.remark)}
    training = planned.trial.training
    row["training"] = training_of(training)
    row["changes"] = strip_controls(changes(training))
    row["recipe"] = training
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
    """The axes of a trial as columns: labels, and the components with their parameters."""
    labels = {axis: strip_controls(value) if isinstance(value, str) else value for axis, value in trial.axes().items()}
    specs = {f"{axis}_spec": spec for axis, spec in trial.components.items()}
    return {**labels, **specs, "target_labels": len(trial.target)}


def _context(record: Record, record_cache: RecordCache) -> dict[str, Any]:
    """Protocol, versions, device and times of a record. "code": of the stages that all rows of a board share."""
    protocol, inputs = record.protocol, MeasureInputs.of(record.parents)
    encoded, data, split = (record_cache.behind(one) for one in (inputs.control.benign, inputs.load, inputs.split))
    clean = record_cache.behind(EncodeInputs.of(encoded.parents).model) if encoded is not None else None
    path = (record, data, split, encoded, clean)
    implant = record_cache.behind(inputs.implant)
    trigger = record_cache.behind(ImplantInputs.of(implant.parents).trigger) if implant is not None else None
    measured = inputs.measured
    purified = record_cache.behind(measured.purified_benign)
    defended = [
        *map(record_cache.behind, (inputs.defense, measured.benign_scores, measured.triggered_scores)),
        purified, record_cache.behind(measured.purified_triggered),
    ]  # fmt: skip
    attack = _origins([implant, trigger], record_cache) | _own_origin(record_cache.behind(measured.triggered))
    content, weights = (one and one.spec.get(name) for one, name in ((data, "content"), (clean, "weights")))
    return {
        "protocol": strip_controls(protocol.name),
        "protocol_version": str(protocol.version),
        "protocol_digest": digest([protocol.as_json(), content])[:8],
        "cutoff": protocol.cutoff,
        "sizes": sizes(protocol.sizes),
        "trusted": protocol.sizes.get("trusted"),
        "classes": (len(data.meta.classes) if data is not None else 0) or None,
        "metrics_version": str(record.provenance.metrics),
        "code": digest([[stage and stage.code for stage in path], weights])[:8],
        "attack_code": digest(sorted(attack))[:8],
        "own_code": digest([sorted(attack), [stage and stage.code for stage in defended]])[:8],
        "machine": identity(computed := machines(record, record_cache)),
        "machine_count": len(computed),
        "computed_on": " and ".join(dict.fromkeys(map(str, computed))),
        "device": (encoded or record).provenance.device,
        "defended": one.key if (one := inputs.defense or measured.purified_benign) is not None else "",
        "seconds_attack": _seconds(implant, trigger),
        "seconds_defense": _seconds(*defended),
        MILLISECONDS: purified.metrics.get(MILLISECONDS) if purified is not None else None,
    }


def _origins(records: Sequence[Record | None], record_cache: RecordCache) -> set[tuple[str, ...]]:
    """Origins of stages and of all stages that they depend on."""
    seen: dict[str, Record] = {}
    waiting = [record for record in records if record is not None]
    while waiting:
        one = waiting.pop()
        if one.key not in seen:
            seen[one.key] = one
            waiting += [found for key in one.parents.values() if (found := record_cache.record(key)) is not None]
    return {origin for one in seen.values() for origin in _own_origin(one)}


def _own_origin(record: Record | None) -> set[tuple[str, ...]]:
    """What a stage's result comes from, beside its parameters: code, and digests of the files that it reads."""
    if record is None:
        return set()
    return {(record.stage, record.code, *(str(record.spec.get(name, "")) for name in ("content", "weights", "files")))}


def _seconds(*records: Record | None) -> float | None:
    found = [record.cost.seconds for record in records if record is not None and record.cost is not None]
    return float(sum(found)) if found else None


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    numeric = [
        name
        for name in columns
        if name in METRICS or name in {"trusted", "seconds_attack", "seconds_defense", MILLISECONDS}
    ]
    numbers = {name: pd.to_numeric(frame[name], errors="coerce").astype("float64") for name in numeric}
    return frame.assign(**numbers).copy()  # the copy joins the columns in one block, which makes selections faster
