"""All facts that a store holds about one trial or one stage, as boards."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from bench.api.errors import UserError
from bench.artifacts.inputs import MeasureInputs
from bench.config.trial import AXES, PlannedTrial, Trial
from bench.engine.record import LASTING_FAILURES, DetectorScores, Protocol, Provenance, Record, RunManifest, Status
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.metrics import METRICS
from reports.board import Board
from reports.frame import detector_metrics
from reports.trial_texts import changes, collapse, differing, sizes

SHORTEST = 8  # printed characters of a key


def page(store: Store, prefix: str) -> list[Board]:
    """Boards about the trial or stage whose key begins with `prefix`; UserError unless exactly one does."""
    key, planned, manifest = find(store, prefix)
    record_cache = RecordCache(store)
    record = record_cache.record(key)
    status, reason, _ = record_cache.status_of(key)
    done = record if status is Status.OK else None
    metrics = done.metrics if done is not None else {}
    if why := collapse(metrics):
        status, reason = Status.COLLAPSED, why
    boards = [_facts(key, status, reason, record, planned, manifest)]
    boards += [_log(origin) for origin in (_origin(record, record_cache),) if origin is not None]
    boards += list(_metrics(metrics))
    if done is not None and done.detectors is not None:
        boards.append(_detectors(done.detectors))
    defense = record_cache.behind(MeasureInputs.of(record.parents).defense) if record is not None else None
    boards += list(_notes(defense or record))
    if record is not None:
        lineage = _lineage(record, record_cache)
        boards += [*_parameters(lineage), _path(lineage)]
    return boards


def find(store: Store, prefix: str) -> tuple[str, PlannedTrial | None, RunManifest | None]:
    """The key that begins with `prefix`; for a trial also its plan and the latest run that contains it."""
    trials = {planned.key: (planned, run) for run in store.runs() for planned in run.trials if planned.key}
    key = _find(store, prefix, {key: planned.trial for key, (planned, _) in trials.items()})
    return key, *trials.get(key, (None, None))


def _find(store: Store, prefix: str, trials: Mapping[str, Trial]) -> str:
    stages = store.keys()
    named = [key for key in trials if key.startswith(prefix)]
    found = sorted(set(named) or {key for key in stages if key.startswith(prefix)})
    if not found:
        raise UserError(
            f"no trial or stage of store '{store.root}' has a key that begins with '{prefix}'",
            "`python -m bench leaderboard --where target=... --where seed=...` prints keys of undefended trials, the"
            ' column `key` of reports.load(store, "repairs") those of defended ones',
        )
    if len(found) > 1:
        shown = [f"{key[:SHORTEST]} ({name_of(trials[key])})" if key in trials else key[:SHORTEST] for key in found[:4]]
        more = f" and {len(found) - 4} more" if found[4:] else ""
        raise UserError(f"'{prefix}' begins {len(found)} keys: {', '.join(shown)}{more}", "give more characters")
    return found[0]


def name_of(trial: Trial) -> str:
    """Attack, defense, target and seed as text."""
    return f"{trial.attack.label}/{trial.defense.label} target {'+'.join(trial.target)} seed {trial.seed}"


def _facts(
    key: str,
    status: Status,
    reason: str,
    record: Record | None,
    planned: PlannedTrial | None,
    manifest: RunManifest | None,
) -> Board:
    facts: dict[str, Any] = {"key": key, "status": status, "reason": reason}
    label = record.label if record is not None else ""
    if planned is not None and manifest is not None:
        facts |= planned.trial.axes()
        facts["training"] = changes(planned.trial.training)
        facts |= {"access": planned.access, "remark": planned.remark, "defense kind": planned.defense_kind}
        facts["suites"] = ", ".join(manifest.suites)
        facts["command"] = replay(planned.trial, manifest, varying(manifest), status)
        if record is not None and MeasureInputs.of(record.parents).implant is not None:
            facts["pictures"] = f"python -m bench show {key[:SHORTEST]} --gallery attack.png"
    elif record is not None:
        facts |= {"stage": record.stage, "label": label}
    if record is not None:
        facts |= {**protocol(record.protocol), "code": record.code, **provenance(record.provenance)}
        if cost := record.cost:
            started = datetime.fromtimestamp(cost.started, UTC).isoformat(timespec="seconds")
            facts["time"] = f"{cost.seconds:.2f} s for this stage, started {started}, host {cost.host}"
    rows = [{"field": name, "value": str(value)} for name, value in facts.items() if value not in {None, ""}]
    what, name = ("Trial", name_of(planned.trial)) if planned is not None else ("Stage", label)
    return Board(f"{what} {key[:SHORTEST]} · {name}", pd.DataFrame(rows), "", index=("field",))


def _notes(record: Record | None) -> Iterator[Board]:
    """The notes of a defense."""
    if record is not None and record.meta.notes:
        rows = [{"note": name, "value": f"{value:.4g}"} for name, value in record.meta.notes.items()]
        yield Board("Notes of the defense", pd.DataFrame(rows), "", index=("note",))


def protocol(protocol: Protocol) -> dict[str, str]:
    """The facts of a protocol by name, as text."""
    if not protocol.version:
        return {"protocol": protocol.name}
    scope = "the whole database" if protocol.cutoff is None else f"the first {protocol.cutoff}"
    return {
        "protocol": f"{protocol.name} v{protocol.version}, AP over {scope}",
        "sizes": sizes(protocol.sizes),
        "hashes of the splits": ", ".join(f"{name} {value}" for name, value in protocol.digests.items()),
    }


def provenance(provenance: Provenance) -> dict[str, str]:
    """The facts of a provenance by name, as text."""
    if not provenance.as_json():
        return {}
    return {
        "metrics": f"v{provenance.metrics}",
        "commit": str(provenance.git or ""),
        "python": provenance.python,
        "packages": ", ".join(f"{name} {found}" for name, found in provenance.packages.items() if found),
        "machine": f"{provenance.system}, {provenance.processor}, device {provenance.device}",
    }


def varying(manifest: RunManifest) -> list[str]:
    """The axes whose values differ between the trials of a run."""
    every = [planned.trial.axes() for planned in manifest.trials]
    return [axis for axis in AXES if len({axes[axis] for axes in every}) > 1]


def replay(trial: Trial, manifest: RunManifest, axes: Sequence[str], status: str) -> str:
    """The command of the run, restricted to this trial by the axes and the fields of the training that vary."""
    words = [manifest.whole_command or f"python -m bench run --suite {shlex.quote(manifest.suites[0])}"]
    words += [f"--only {shlex.quote(f'{axis}={trial.axes()[axis]}')}" for axis in axes]
    swept = differing(trial.training, (planned.trial.training for planned in manifest.trials))
    words += [f"--set {shlex.quote(f'training.{field}={value}')}" for field, value in swept.items()]
    if status in LASTING_FAILURES:
        words.append(f"--retry {status}")
    return " ".join(words)


def _origin(record: Record | None, record_cache: RecordCache) -> Record | None:
    """The record whose log explains a failure: the record itself or the failed stage that it needs."""
    if record is None or record.ok:
        return None
    cause = record_cache.record(record.cause) if record.cause else record
    return cause if cause is not None and cause.log else None


def _log(record: Record) -> Board:
    lines = record.log.rstrip().splitlines()
    table = pd.DataFrame({"line": range(1, len(lines) + 1), "text": lines})
    title = f"End of the log of {record.label} ({record.key[:SHORTEST]})"
    return Board(title, table, "", index=("text",), quiet=("line",))


def _metrics(metrics: Mapping[str, Any]) -> Iterator[Board]:
    for section in METRICS.sections():
        if board := table_of(section, {name: metrics[name] for name in METRICS.of(section) if name in metrics}, ""):
            yield board


def table_of(title: str, metrics: Mapping[str, Any], caption: str) -> Board | None:
    """A board with a row per metric: value, unit and meaning; None without metrics. Missing values are blank."""
    if not metrics:
        return None
    rows = [
        {"metric": about.title, "value": _real(value), "unit": about.unit, "meaning": about.meaning}
        for about, value in ((METRICS[name], value) for name, value in metrics.items())
    ]
    table = pd.DataFrame(rows)
    return Board(title, table, caption, index=("metric",), by_row=tuple(metrics))


def _real(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _detectors(about: DetectorScores) -> Board:
    rows = [
        {"score": f"{name} *" if name == about.headline else name}
        | {METRICS[metric].title: _real(values.get(metric)) for metric in detector_metrics()}
        for name, values in about.scores.items()
    ]
    titles = {METRICS[metric].title: metric for metric in detector_metrics()}
    return Board(
        "Detector scores", pd.DataFrame(rows), "* the input detector's main score.", index=("score",), metrics=titles
    )


def _lineage(record: Record, record_cache: RecordCache) -> dict[str, Record | None]:
    """The records that a record depends on, by key; inputs come first, the record itself is the last."""
    seen: dict[str, Record | None] = {}
    entered: set[str] = set()
    todo = [record.key]
    while todo:  # a damaged store may hold chains of any length, or a cycle
        key = todo[-1]
        found = record_cache.record(key)
        if key in entered:
            seen.setdefault(key, found)
            todo.pop()
            continue
        entered.add(key)
        parents = found.parents if found is not None else {}
        todo += [parent for parent in reversed(parents.values()) if parent not in entered]
    return seen


def _parameters(lineage: Mapping[str, Record | None]) -> Iterator[Board]:
    """The parameters of all components of the trial, and the recipe of its training."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in reversed([record for record in lineage.values() if record]):  # records of surrogates come last
        for kind, value in record.spec.items():
            if isinstance(value, dict):
                found.setdefault(kind, value)
    order = [*(kind for kind in AXES if kind in found), *(kind for kind in found if kind not in AXES)]
    rows = [
        {"of": f"{kind} {found[kind]['name']}" if "params" in found[kind] else kind, "parameter": name,
         "value": "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)}
        for kind in order for name, value in found[kind].get("params", found[kind]).items()
    ]  # fmt: skip
    if rows:
        yield Board("Parameters", pd.DataFrame(rows), "", index=("of", "parameter"))


def _path(lineage: Mapping[str, Record | None]) -> Board:
    """The stages that a record depends on."""
    rows = []
    for key, record in lineage.items():
        seconds = record.cost.seconds if record is not None and record.cost is not None else None
        told = (record.stage, record.status, record.label) if record is not None else ("?", Status.MISSING, "no record")
        rows.append({"stage": told[0], "status": str(told[1]), "seconds": seconds, "key": key[:SHORTEST],
                     "label": told[2]})  # fmt: skip
    table = pd.DataFrame(rows).astype({"seconds": "float64"})
    total = table["seconds"].sum()
    return Board(
        "Stages", table, f"{len(table)} stages, {total:.1f} s in total; other trials may share them.", index=("stage",)
    )
