"""A store as tidy tables: one row per trial of a run, and one row per trial and detector score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import pandas as pd

from bench.api.errors import UserError, nearest, unknown
from bench.api.untrusted import strip_controls
from bench.config.trial import digest, pieces
from bench.engine.store import Record, Store
from bench.metrics import METRICS
from bench.metrics.health import has_not_learnt
from bench.metrics.input_detection import DETECTION

Run = Literal["latest", "all"]

AXES = ("dataset", "backbone", "method", "bits", "attack", "defense", "target", "seed", "surrogate", "augment")
SETTING = ("dataset", "backbone", "method", "bits", "training", "surrogate", "augment")  # a board never mixes these
VERSIONS = ("protocol_digest", "metrics_version", "code")  # nor these, unless asked
CONTEXT = (
    *AXES,
    "training",  # digest of what the suite changes in the recipe; "" where nothing
    "changes",  # the same in words
    "access",  # what the attacker needs
    "targeted",  # whether the attack fixes its target beforehand
    "defense_kind",
    "key",  # of the record; "" where the trial was skipped
    "status",  # ok, failed, timeout, oom, killed, skipped, missing: not run yet, or collapsed: a victim that failed
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


def load(store: Store, *, suite: str | None = None, run: Run = "latest") -> pd.DataFrame:
    """One row per trial, columns as in `columns()`; metrics (see METRICS) are NaN where the trial has none."""
    return read(store, suite=suite, run=run).trials


def detectors(store: Store, *, suite: str | None = None, run: Run = "latest") -> pd.DataFrame:
    """One row per trial and score of its input detector; `headline` marks the main score."""
    return read(store, suite=suite, run=run).detectors


def read(store: Store, *, suite: str | None = None, run: Run = "latest") -> Results:
    """The trials of the latest run (of a suite), or of all runs: each trial as the latest run that had it left it."""
    plans = runs_of(store, suite)
    used = plans[-1:] if run == "latest" else plans[::-1]
    record_cache = RecordCache(store)
    rows, scores, seen = [], [], set()
    for trial in chain.from_iterable(plan["trials"] for plan in used):
        if (
            identity := digest([trial["axes"], trial["training"], trial.get("threads"), trial.get("surrogate_seed")])
        ) in seen:
            continue
        seen.add(identity)
        row, found = _row(_once(trial, seen), record_cache)
        rows.append(row)
        scores += found
    _mark_repairs_of_collapsed(rows, record_cache)
    about = {name: text for plan in used[::-1] for name, text in plan.get("descriptions", {}).items()}
    return Results(
        trials=_frame(rows, columns()),
        detectors=_frame(scores, (*CONTEXT, "score", "headline", *detector_metrics())),
        suites={
            strip_controls(name): strip_controls(about.get(name, "")) for plan in used[::-1] for name in plan["suites"]
        },
        command=strip_controls(used[0].get("command", "")),
    )


def _once(trial: Mapping[str, Any], seen: set[str]) -> Mapping[str, Any]:
    """The trial; without its result where it is of a model that no seed makes and that another seed has shown."""
    if not trial["key"] or trial.get("seed_dependent", True):
        return trial
    model = digest(["one model", {**trial["axes"], "seed": ""}, trial["training"], trial.get("threads")])
    if model in seen:
        return {**trial, "key": None, "skipped": "one model for all seeds: a later run measured it with another"}
    seen.add(model)
    return trial


def manifests(store: Store) -> list[dict[str, Any]]:
    """The runs of a store, the latest last."""
    return store.plans()


def runs_of(store: Store, suite: str | None = None) -> list[dict[str, Any]]:
    """The runs (of a suite), the latest last; at least one."""
    every = manifests(store)
    found = [plan for plan in every if suite is None or suite in plan["suites"]]
    if not found:
        known = sorted({name for plan in every for name in plan["suites"]})
        if suite is not None and known:
            raise unknown("suite in this store", suite, known)
        raise UserError(f"store '{store.root}' holds no run yet: `python -m bench run` makes one")
    return found


class RecordCache:
    """Records, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Record | None] = {}

    def record(self, key: str) -> Record | None:
        if key not in self._records:
            self._records[key] = self._store.record(key)
        return self._records[key]

    def parent(self, record: Record | None, role: str) -> Record | None:
        key = (record or {}).get("parents", {}).get(role)
        return self.record(key) if key else None

    def status_of(self, trial: Mapping[str, Any]) -> tuple[str, str, Record | None]:
        """Status, reason and record of a trial. What a failure blocked that is one no longer has not been run yet."""
        if trial["key"] is None:
            return "skipped", trial["skipped"], None
        record = self.record(trial["key"])
        if record is None:
            return "missing", "not run yet: the same command continues", None
        cause = self.record(record["cause"]) if record.get("cause") else None
        if record["status"] != "ok" and cause is not None and cause["status"] == "ok":
            return "missing", "not run since what it waits for succeeded: the same command continues", record
        return record["status"], record["reason"], record


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
    implants = [(record_cache.record(row["key"]) or {}).get("parents", {}).get("implant") for row in rows]
    known = {victim: row["reason"] for victim, row in zip(implants, rows, strict=True) if row["status"] == "collapsed"}
    for victim, row in zip(implants, rows, strict=True):
        if victim and row["status"] == "ok" and victim in known:
            row |= {"status": "collapsed", "reason": known[victim], "collapsed": 1.0}


def _row(trial: Mapping[str, Any], record_cache: RecordCache) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    status, reason, record = record_cache.status_of(trial)
    row: dict[str, Any] = {axis: _cleaned(trial["axes"].get(axis, "")) for axis in AXES}
    row |= {name: strip_controls(trial.get(name, "")) for name in ("access", "defense_kind")}
    row["targeted"] = trial.get("targeted", True)
    row["target"] = str(row["target"])
    training = trial["training"]
    row["training"] = training_of(training)
    row["changes"] = strip_controls(changes(training))
    row |= {"key": trial["key"] or "", "status": status, "reason": strip_controls(reason)}
    if record is None or status != "ok":
        row["cause"] = (record or {}).get("cause") or row["key"]
        return row, []
    row["cause"] = ""
    row |= _context(record, record_cache)
    metrics = record["metrics"]
    row |= {name: metrics.get(name) for name in trial_metrics()}
    if reason := collapse(metrics):
        row |= {"status": "collapsed", "reason": reason}
    about = metrics.get("detectors") or {"headline": "", "scores": {}}
    fixed = {name: row.get(name) for name in CONTEXT}
    return row, [
        {**fixed, "score": strip_controls(score), "headline": score == about["headline"]}
        | {name: values.get(name) for name in detector_metrics()}
        for score, values in about["scores"].items()
    ]


def _cleaned(value: str | int) -> str | int:
    return strip_controls(value) if isinstance(value, str) else value


def _context(record: Record, record_cache: RecordCache) -> dict[str, Any]:
    """What the numbers of a record depend on besides its axes. Code: of the stages that all rows of a board share."""
    protocol = protocol_of(record)
    encoded = record_cache.parent(record, "clean_codes")
    data = record_cache.parent(record, "load")
    path = (record, data, record_cache.parent(record, "split"), encoded, record_cache.parent(encoded, "model"))
    provenance = record.get("provenance", {})
    implant = record_cache.parent(record, "implant")
    defended = [record_cache.parent(record, role) for role in ("defend", "score_benign", "score_triggered")]
    own = (implant, record_cache.parent(implant, "trigger"), record_cache.parent(record, "triggered"), *defended)
    return {
        "protocol": strip_controls(str(protocol.get("name", ""))),
        "protocol_version": str(protocol.get("version", "")),
        "protocol_digest": digest(protocol)[:8],
        "cutoff": protocol.get("cutoff"),
        "sizes": sizes(protocol.get("sizes", {})),
        "classes": len((data or {}).get("meta", {}).get("classes", [])) or None,
        "metrics_version": str(provenance.get("metrics", "")),
        "code": digest([stage and stage.get("code") for stage in path])[:8],
        "own_code": digest([stage and stage.get("code") for stage in own])[:8],
        "device": str((encoded or record).get("provenance", {}).get("device", "")),
        "defended": record.get("parents", {}).get("defend", ""),
        "seconds_attack": _seconds(implant, record_cache.parent(implant, "trigger")),
        "seconds_defense": _seconds(*defended),
    }


def protocol_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage says of its protocol; `load` knows only the name."""
    found = record.get("meta", {}).get("protocol") or {}
    return found if isinstance(found, dict) else {"name": found}


def _seconds(*records: Record | None) -> float | None:
    found = [record["cost"]["seconds"] for record in records if record and "cost" in record]
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
            if not any(matches(name, value) for name in known):
                raise UserError(
                    f"no {axis} '{value}' in this run{nearest(value, known) or '.'} Known: {', '.join(known)}"
                )
        kept = values | ({"none"} if axis in BASED else set())
        right = [name for name in known if any(matches(name, value) for value in kept)]
        trials, scores = (frame[frame[axis].astype(str).isin(right)] for frame in (trials, scores))
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


def matches(label: str, value: str) -> bool:
    """Whether a condition's value is meant by a component's label: as a whole, or by name whatever the parameters."""
    return value == label or value == label.partition("(")[0]


def groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The parts of a frame with equal `by`, in order of appearance; missing values are equal to each other."""
    if not len(frame):
        return
    for values, part in frame.groupby(list(by), sort=False, dropna=False):
        yield values if isinstance(values, tuple) else (values,), part
