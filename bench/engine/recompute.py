"""Computes metrics again from stored artifacts, without training: to verify records, or for a new metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from bench.api.errors import StoreError, UserError, text_of
from bench.api.kinds import DefenseKind
from bench.artifacts.inputs import EncodeInputs, EncodeTriggeredInputs, MeasureInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.stage_io import Context
from bench.config.trial import PlannedTrial
from bench.engine.bundle import ReadOnly
from bench.engine.machines import Machine, machines
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.engine.trial_labels import mislabelled, misplaced, untold
from bench.engine.worker import WORLD, Environment, InputLostError, StoredArtifacts, run_stage
from bench.graph.cache_key import key_of
from bench.graph.labels import cost_group_of
from bench.graph.plan import Stage
from bench.metrics import METRICS
from bench.stages import measure
from hashing.numba_threads import start_threads

if TYPE_CHECKING:
    from bench.artifacts.specs import MeasureSpec

TOLERANCE = 1e-9  # relative and absolute; another machine may add numbers in another order


class Verifier:
    """Checks trials one by one. An artifact that several trials read is read once.

    Numbers that stored codes, scores, masks and stealth values do not determine are not checked: seconds, hosts, the
    score of a model detector, and the notes of defenses.
    """

    def __init__(self, store: Store) -> None:
        """UserError if this machine cannot compute: no record is to blame for that."""
        start_threads()
        self._store = store
        self._records = RecordCache(store)
        self.newer: set[str] = set()  # metrics that are newer than some trials
        self.unknown: set[str] = set()  # metrics of plugins that are not loaded
        self.machines: Counter[tuple[Machine, ...]] = Counter()  # number of trials by the machines that computed them
        self.read: dict[str, set[str]] = {}  # names of the tensors that numbers follow from, by key
        self.as_recorded: set[str] = set()  # trials of bundles without evidence: their numbers cannot be checked

    def problems(self, record: Record, trials: Sequence[PlannedTrial] = ()) -> list[str]:
        """A sentence for each error of a finished trial; none if its artifacts give every stored number.

        trials: those of a run that have this record, whose axes are compared with what was measured.
        """
        inputs = MeasureInputs.of(record.parents, _Noting(self._store, record.parents, self.read))
        self.machines[machines(record, self._records)] += 1
        wrong: dict[str, None] = {}
        for trial in trials:
            wrong |= dict.fromkeys(misplaced(trial, record, self._records))
            if isinstance(self._store, ReadOnly):  # published: boards and lists of best results believe what a run says
                wrong |= dict.fromkeys([*mislabelled(trial), *untold(trial, record, self._records)])
        wrong |= dict.fromkeys(self._mixed(inputs))
        if not self._store.has_evidence(record):
            self.as_recorded.add(record.key)
            return [*wrong, *self._lineage(record, inputs)]
        return [*wrong, *self._lineage(record, inputs), *self._numbers(record, inputs)]

    def _lineage(self, record: Record, inputs: MeasureInputs) -> Iterator[str]:
        """Parents that are missing or damaged, or have changed since the trial read them."""
        for role, key in record.parents.items():
            parent = self._records.record(key)
            if parent is None or not parent.ok:
                yield f"the record of '{role}' ({key[:8]}) is missing"
                continue
            # `gc --repaired` removes repaired models, whose codes are kept
            dropped = parent.meta.kind is DefenseKind.REPAIR and not self._store.artifact_path(key).exists()
            shipped = self._store.shipped(parent)
            if shipped and not (dropped or self._records.whole(parent)):
                yield f"the artifact of '{role}' ({key[:8]}) is damaged or missing"
            elif record.inputs.get(role) != parent.checksum:
                yield f"'{role}' ({key[:8]}) is not the artifact that was measured"
            elif shipped and inputs.implant is not None and key == inputs.implant.key:
                yield from _poisons(inputs.implant)

    def _mixed(self, inputs: MeasureInputs) -> Iterator[str]:
        """Codes of one system that come from two models, and a control with another trigger."""
        triggers = set()
        for name, system in (("measured", inputs.measured), ("control", inputs.control)):
            records = [self._records.record(one.key) for one in (system.benign, system.triggered)]
            if (first := records[0]) is None or (second := records[1]) is None:
                continue  # named elsewhere
            benign = EncodeInputs.of(first.parents, StoredArtifacts(self._store, first.parents))
            triggered = EncodeTriggeredInputs.of(second.parents, StoredArtifacts(self._store, second.parents))
            if benign.model.key != triggered.model.key:
                yield f"the codes of benign and triggered queries of '{name}' come from two models"
            triggers.add(triggered.trigger and triggered.trigger.key)
        if len(triggers) > 1:
            yield "the triggered queries of 'measured' and 'control' have different triggers"

    def _numbers(self, record: Record, inputs: MeasureInputs) -> Iterator[str]:
        try:
            found = measure.run(cast("MeasureSpec", record.spec), inputs, Context(torch.device("cpu"), None)).metrics
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 -- a store may come from a stranger: its tensors may have any shape
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in WORLD):
                reason = " ".join(text_of(error).split()) or type(error).__name__
                raise UserError(
                    f"this machine cannot compute {record.key[:8]} {record.label} again ({reason})"
                ) from None
            yield f"cannot be computed again: {type(error).__name__}: {text_of(error)}"
            return
        stored = record.as_json().get("metrics", {})
        held = {name for name, _ in _numbers_in(stored)}
        self.newer |= {name for name, value in _numbers_in(found) if value is not None} - held
        unknown = held - {*METRICS}
        self.unknown |= unknown
        yield from differences(_without(stored, unknown), found)


class _Noting(StoredArtifacts):
    """Artifacts that note which of their tensors are read."""

    def __init__(self, store: Store, parents: Mapping[str, str], read: dict[str, set[str]]) -> None:
        super().__init__(store, parents)
        self._read = read

    def tensors(self, key: str) -> Mapping[str, Any]:
        return _Noted(super().tensors(key), self._read.setdefault(key, set()))


class _Noted(Mapping[str, Any]):
    """Tensors by name. names: of those that were read."""

    def __init__(self, held: Mapping[str, Any], names: set[str]) -> None:
        self._held, self._names = held, names

    def __getitem__(self, name: str) -> Any:
        found = self._held[name]
        self._names.add(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _numbers_in(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names and values of a record's metrics, including those of an input detector's scores."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            for numbers in value["scores"].values():
                yield from numbers.items()
        elif name != "detectors":
            yield name, value


def _without(metrics: Mapping[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """The metrics of a record and of its input detector's scores, without those in `names`."""
    kept = {name: value for name, value in metrics.items() if name not in names}
    if isinstance(scored := kept.get("detectors"), Mapping):
        scores = {
            score: {name: value for name, value in numbers.items() if name not in names}
            for score, numbers in scored["scores"].items()
        }
        kept["detectors"] = {**scored, "scores": scores}
    return kept


def _poisons(implant: Implanted) -> Iterator[str]:
    try:
        if (mask := implant.mask) is None:
            return
        found = int(mask.sum())
    except (InputLostError, OSError, SafetensorError, RuntimeError) as error:
        yield f"the poisons cannot be counted: {type(error).__name__}: {text_of(error)}"
        return
    if implant.poisons != found:
        yield f"the record counts {implant.poisons} poisons, the mask {found}"
    share = implant.poison_amounts.get("poisoned_share")
    if share is not None and not math.isclose(share, found / max(1, len(mask)), rel_tol=1e-6):
        yield f"the record calls {share:.6g} of the training set poisoned, the mask {found} of {len(mask)}"


def differences(stored: Mapping[str, Any], computed: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """A sentence for each stored value that differs from the computed one. Metrics that are not stored are ignored."""
    for name, one in stored.items():
        other, where = computed.get(name), f"{at}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{where}.")
        elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
            if not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                yield f"{where} is {one:.6g}, computed again {other:.6g}"
        elif one != other:
            yield f"{where} is {one}, computed again {other}"


def rescore(store: Store, trials: Sequence[PlannedTrial]) -> Iterator[tuple[PlannedTrial, Record | None]]:
    """Measure trials again with the present metrics. Yields each trial with its new key and its new record.

    The record is None for a trial that did not finish. A trial whose measurement fails keeps its key. StoreError if an
    artifact is damaged.
    """
    start_threads()
    environment, records = Environment(store.root, None, "cpu"), RecordCache(store)

    def damaged(key: str) -> bool:
        """Whether an artifact is there but damaged. The stage that reads it reports a missing one."""
        held = records.record(key)
        return held is not None and store.artifact_path(key).exists() and not records.whole(held)

    for trial in trials:
        record = store.record(trial.key) if trial.key else None
        if record is None or not record.ok:
            yield trial, None
            continue
        key, modules, code = key_of(MeasureInputs.stage, record.spec, record.parents, threads=1, device="cpu")
        held = store.record(key)
        if held is None or not held.ok:
            if lost := next((role for role, parent in record.parents.items() if damaged(parent)), None):
                raise StoreError(
                    f"the artifact of '{lost}' ({record.parents[lost][:8]}) of {record.key[:8]} {record.label}"
                    " is damaged",
                    "run `python -m bench verify --set-aside`, then the suite again",
                )
            held = run_stage(_stage(record, key, modules, code), environment)
        yield replace(trial, key=key) if held.ok else trial, held


def _stage(record: Record, key: str, modules: tuple[str, ...], code: str) -> Stage:
    return Stage(
        kind=MeasureInputs.stage, key=key, spec=record.spec, parents=record.parents, modules=modules, code=code,
        label=record.label, cost_group=cost_group_of(record.stage, record.spec), threads=1, num_gpus=0.0,
        timeout=math.inf,
    )  # fmt: skip
