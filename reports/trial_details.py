"""All that a store knows about one trial, or one stage of it, as boards."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from bench.api.errors import UserError
from bench.engine.store import Record, Store
from bench.metrics import METRICS
from reports.context import Board
from reports.frame import AXES, RecordCache, changes, collapse, detector_metrics, manifests, protocol_of, sizes

SHORTEST = 8  # characters of a key that tables print


def page(store: Store, prefix: str) -> list[Board]:
    """Boards on the one trial or stage whose key begins with `prefix`."""
    key, trial, plan = find(store, prefix)
    record_cache = RecordCache(store)
    record = record_cache.record(key)
    status, reason, _ = record_cache.status_of({"key": key})
    metrics = (record or {}).get("metrics", {}) if status == "ok" else {}
    if why := collapse(metrics):
        status, reason = "collapsed", why
    boards = [_facts(key, status, reason, record, trial, plan)]
    boards += [_log(origin) for origin in (_origin(record, record_cache),) if origin is not None]
    boards += list(_metrics(metrics))
    if metrics.get("detectors"):
        boards.append(_detectors(metrics["detectors"]))
    boards += list(_notes(record_cache.parent(record, "defend") or record))
    if record is not None:
        lineage = _lineage(record, record_cache)
        boards += [*_parameters(lineage), _path(lineage)]
    return boards


def find(store: Store, prefix: str) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The one key that begins with `prefix`; of a trial also its line in the latest run that names it."""
    plans = manifests(store)
    # the latest run that names a trial says how to run it again
    trials = {trial["key"]: (trial, plan) for plan in plans for trial in plan["trials"] if trial["key"]}
    key = _find(store, prefix, trials)
    return key, *trials.get(key, (None, None))


def _find(store: Store, prefix: str, trials: Mapping[str, tuple[Any, Any]]) -> str:
    stages = {path.stem for path in (store.root / "records").glob("*.json")}
    named = [key for key in trials if key.startswith(prefix)]
    found = sorted(set(named) or {key for key in stages if key.startswith(prefix)})
    if not found:
        raise UserError(
            f"no trial or stage of store '{store.root}' has a key that begins with '{prefix}':"
            " boards of one target and one seed print them (leaderboard --where target=... --where seed=...)"
        )
    if len(found) > 1:
        shown = [
            f"{key[:SHORTEST]} ({name_of(trials[key][0])})" if key in trials else key[:SHORTEST] for key in found[:4]
        ]
        more = f" and {len(found) - 4} more" if found[4:] else ""
        raise UserError(f"'{prefix}' begins {len(found)} keys: {', '.join(shown)}{more}; give more characters")
    return found[0]


def name_of(trial: Mapping[str, Any]) -> str:
    axes = trial["axes"]
    return f"{axes['attack']}/{axes['defense']} target {axes['target']} seed {axes['seed']}"


def _facts(
    key: str,
    status: str,
    reason: str,
    record: Record | None,
    trial: Mapping[str, Any] | None,
    plan: Mapping[str, Any] | None,
) -> Board:
    facts: dict[str, Any] = {"key": key, "status": status, "reason": reason}
    record = record or {}
    if trial is not None and plan is not None:
        facts |= {axis: trial["axes"].get(axis) for axis in AXES}
        facts["training"] = changes(trial["training"])
        facts |= {"access": trial.get("access"), "defense kind": trial.get("defense_kind")}
        facts["suites"] = ", ".join(plan["suites"])
        facts["replay"] = replay(trial, plan, varying(plan), status)
        if "implant" in record.get("parents", {}):
            facts["pictures"] = f"python -m bench show {key[:SHORTEST]} --gallery attack.png"
    else:
        facts |= {"stage": record.get("stage"), "label": record.get("label")}
    facts |= protocol(protocol_of(record))
    facts |= {"code": record.get("code"), **provenance(record.get("provenance", {}))}
    if cost := record.get("cost"):
        started = datetime.fromtimestamp(cost["started"], UTC).isoformat(timespec="seconds")
        facts["cost"] = f"{cost['seconds']:.2f} s for this stage, started {started}, host {cost['host']}"
    rows = [{"field": name, "value": str(value)} for name, value in facts.items() if value not in {None, ""}]
    what = "Trial" if trial is not None else "Stage"
    title = f"{what} {key[:SHORTEST]} · {name_of(trial) if trial is not None else record.get('label', '')}"
    return Board(title, pd.DataFrame(rows), "", index=("field",))


def _notes(record: Record | None) -> Iterator[Board]:
    """What a defense put on record while it worked."""
    notes = (record or {}).get("meta", {}).get("notes")
    if notes:
        rows = [{"note": name, "value": f"{value:.4g}"} for name, value in notes.items()]
        yield Board("What the defense noted", pd.DataFrame(rows), "", index=("note",))


def protocol(protocol: Mapping[str, Any] | None) -> dict[str, str]:
    if not protocol:
        return {}
    if "version" not in protocol:
        return {"protocol": str(protocol.get("name"))}
    cutoff = protocol.get("cutoff")
    digests = ", ".join(f"{name} {value}" for name, value in protocol.get("digests", {}).items())
    return {
        "protocol": f"{protocol.get('name')} v{protocol.get('version')},"
                    f" AP over {'the whole database' if cutoff is None else f'the first {cutoff}'}",
        "sizes": sizes(protocol.get("sizes", {})),
        "digests": digests,
    }  # fmt: skip


def provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    if not provenance:
        return {}
    git = provenance.get("git") or {}
    return {
        "metrics": f"v{provenance.get('metrics')}",
        "commit": f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}" if git else "",
        "python": provenance.get("python"),
        "packages": ", ".join(f"{name} {found}" for name, found in provenance.get("packages", {}).items() if found),
        "machine": f"{provenance.get('system')}, {provenance.get('processor')}, device {provenance.get('device')}",
    }


def varying(plan: Mapping[str, Any]) -> list[str]:
    """The axes in which the trials of a run differ."""
    return [axis for axis in AXES if len({str(trial["axes"].get(axis, "")) for trial in plan["trials"]}) > 1]


def replay(trial: Mapping[str, Any], plan: Mapping[str, Any], axes: Sequence[str], status: str) -> str:
    """The run's command, narrowed to this trial by the axes that vary in the run."""
    words = [str(plan.get("command") or f"python -m bench run --suite {shlex.quote(plan['suites'][0])}")]
    words += [f"--only {shlex.quote('{}={}'.format(axis, trial['axes'].get(axis, '')))}" for axis in axes]
    if status in {"failed", "timeout", "oom"}:
        words.append(f"--retry {status}")
    return " ".join(words)


def _origin(record: Record | None, record_cache: RecordCache) -> Record | None:
    """The record whose log explains a failure: its own, or that of the stage that blocked it."""
    if record is None or record["status"] == "ok":
        return None
    cause = record_cache.record(record["cause"]) if record.get("cause") else record
    return cause if cause is not None and cause.get("log") else None


def _log(record: Record) -> Board:
    lines = str(record["log"]).rstrip().splitlines()
    table = pd.DataFrame({"line": range(1, len(lines) + 1), "text": lines})
    title = f"End of the log of {record['label']} ({record['key'][:SHORTEST]})"
    return Board(title, table, "", index=("text",), quiet=("line",))


def _metrics(metrics: Mapping[str, Any]) -> Iterator[Board]:
    for section in METRICS.sections():
        if board := table_of(section, {name: metrics[name] for name in METRICS.of(section) if name in metrics}, ""):
            yield board


def table_of(title: str, metrics: Mapping[str, Any], caption: str) -> Board | None:
    """Metrics one under the other, with unit and meaning; those without a value stay, as blanks."""
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


def _detectors(about: Mapping[str, Any]) -> Board:
    rows = [
        {"score": f"{name} *" if name == about["headline"] else name}
        | {METRICS[metric].title: _real(values.get(metric)) for metric in detector_metrics()}
        for name, values in about["scores"].items()
    ]
    titles = {METRICS[metric].title: metric for metric in detector_metrics()}
    return Board(
        "Detector scores", pd.DataFrame(rows), "* the input detector's main score.", index=("score",), metrics=titles
    )


def _lineage(record: Record, record_cache: RecordCache) -> dict[str, Record | None]:
    """The records behind one by key, inputs before what reads them, the record itself last."""
    seen: dict[str, Record | None] = {}
    entered: set[str] = set()
    todo = [record["key"]]
    while todo:  # a damaged store may hold a chain of any length, or a ring
        key = todo[-1]
        found = record_cache.record(key)
        if key in entered:
            seen.setdefault(key, found)
            todo.pop()
            continue
        entered.add(key)
        todo += [parent for parent in reversed((found or {}).get("parents", {}).values()) if parent not in entered]
    return seen


def _parameters(lineage: Mapping[str, Record | None]) -> Iterator[Board]:
    """Every parameter of the trial's components with its value, and the recipe of its training."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in reversed([record for record in lineage.values() if record]):  # a surrogate's come last
        for kind, value in record.get("spec", {}).items():
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
    """The stages behind a record."""
    rows = []
    for key, record in lineage.items():
        about = record or {"stage": "?", "label": "no record", "status": "missing"}
        seconds = (about.get("cost") or {}).get("seconds")
        rows.append({"stage": about["stage"], "status": about["status"], "seconds": seconds, "key": key[:SHORTEST],
                     "label": about["label"]})  # fmt: skip
    table = pd.DataFrame(rows).astype({"seconds": "float64"})
    total = table["seconds"].sum()
    return Board(
        "Stages", table, f"{len(table)} stages, {total:.1f} s together; other trials share them.", index=("stage",)
    )
