"""Numbers computed again from what a store holds, without training: to verify them, or under a new metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from bench.api.errors import StoreError
from bench.api.kinds import DefenseKind
from bench.artifacts.inputs import MeasureInputs
from bench.artifacts.outputs.attack import Implanted
from bench.artifacts.stage_io import Context
from bench.config.trial import PlannedTrial
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.engine.worker import Environment, InputLostError, StoredArtifacts, run_stage
from bench.graph.cache_key import key_of
from bench.graph.labels import CostGroup
from bench.graph.plan import Stage
from bench.metrics import METRICS
from bench.stages import measure

if TYPE_CHECKING:
    from bench.artifacts.specs import MeasureSpec

TOLERANCE = 1e-9  # sums in another order, on another machine


class Verifier:
    """Checks trials one by one; an artifact that several stand on is read once.

    What cannot be computed from stored codes, scores, masks and values of images is taken as recorded: seconds, hosts,
    the score of a model detector and what defenses noted, for which their work would have to be done again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records = RecordCache(store)
        self.newer: set[str] = set()  # metrics that some trials were measured before
        self.unknown: set[str] = set()  # metrics of plugins that are not loaded

    def problems(self, record: Record) -> list[str]:
        """What is wrong with a finished trial; nothing where every number is what its artifacts give."""
        inputs = MeasureInputs.of(record.parents, StoredArtifacts(self._store, record.parents))
        return [*self._lineage(record, inputs), *self._numbers(record, inputs)]

    def _lineage(self, record: Record, inputs: MeasureInputs) -> Iterator[str]:
        """Parents that have gone, are damaged, or are not the ones that were read."""
        for role, key in record.parents.items():
            parent = self._records.record(key)
            if parent is None or not parent.ok:
                yield f"the record of '{role}' ({key[:8]}) has gone"
                continue
            # by `gc --repaired`: its codes are still here
            dropped = parent.meta.kind is DefenseKind.REPAIR and not self._store.artifact_path(key).exists()
            if not (dropped or self._records.whole(parent)):
                yield f"the artifact of '{role}' ({key[:8]}) is damaged or gone"
            elif record.inputs.get(role) != parent.checksum:
                yield f"'{role}' ({key[:8]}) is not the artifact that was measured"
            elif inputs.implant is not None and key == inputs.implant.key:
                yield from _poisons(inputs.implant)

    def _numbers(self, record: Record, inputs: MeasureInputs) -> Iterator[str]:
        try:
            found = measure.run(cast("MeasureSpec", record.spec), inputs, Context(torch.device("cpu"), None)).metrics
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 -- tensors of a store that may come from anybody fit in no way at all
            yield f"cannot be computed again: {type(error).__name__}: {error}"
            return
        stored = record.as_json().get("metrics", {})
        held = {name for name, _ in _numbers_in(stored)}
        self.newer |= {name for name, value in _numbers_in(found) if value is not None} - held
        unknown = held - {*METRICS}
        self.unknown |= unknown
        yield from differences(_without(stored, unknown), found)


def _numbers_in(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every metric of a record with its value, those of an input detector's scores included."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            for numbers in value["scores"].values():
                yield from numbers.items()
        elif name != "detectors":
            yield name, value


def _without(metrics: Mapping[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """The metrics of a record, and those of its scores, but for some."""
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
        found = None if implant.mask is None else int(implant.mask.sum())
    except (InputLostError, OSError, SafetensorError, RuntimeError) as error:
        yield f"the poisons cannot be counted: {type(error).__name__}: {error}"
        return
    if found is not None and implant.poisons != found:
        yield f"poisons are {implant.poisons}, in the mask {found}"


def differences(stored: Mapping[str, Any], again: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Stored numbers that do not come out again, by name; what was not measured then shows on no board."""
    for name, one in stored.items():
        other, where = again.get(name), f"{at}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{where}.")
        elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
            if not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                yield f"{where} is {one:.6g}, computed again {other:.6g}"
        elif one != other:
            yield f"{where} is {one}, computed again {other}"


def rescore(store: Store, trials: Sequence[PlannedTrial]) -> Iterator[tuple[PlannedTrial, Record | None]]:
    """Each trial with its new key, and the record there; None where there was nothing to measure again.

    A trial that did not finish, or that cannot be measured again, keeps what it has.
    """
    site, records = Environment(store.root, None, "cpu"), RecordCache(store)

    def damaged(key: str) -> bool:
        """What has gone is no number's fault: a stage that reads it says so."""
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
                    " is damaged: `python -m bench verify --set-aside`, then run the suite again"
                )
            held = run_stage(_stage(record, key, modules, code), site)
        yield replace(trial, key=key) if held.ok else trial, held


def _stage(record: Record, key: str, modules: tuple[str, ...], code: str) -> Stage:
    return Stage(
        kind=MeasureInputs.stage, key=key, spec=record.spec, parents=record.parents, modules=modules, code=code,
        label=record.label, cost_group=CostGroup(record.stage, record.cost_group), threads=1, num_gpus=0.0,
        timeout=math.inf,
    )  # fmt: skip
