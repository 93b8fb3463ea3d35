"""Runs one stage and writes its record, in this process or in a Ray worker."""

from __future__ import annotations

import errno
import importlib
import json
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from bench.api import registry
from bench.api.errors import (
    DataMissingError,
    DivergedError,
    StageTimeoutError,
    StoreError,
    ThreatError,
    UserError,
    text_of,
)
from bench.api.untrusted import strip_controls, strip_controls_multiline, without_addresses
from bench.artifacts.inputs import STAGES
from bench.engine.interruption import Interruption
from bench.engine.process_state import fixed_state
from bench.engine.provenance import provenance
from bench.engine.record import SCHEMA, Cost, Meta, Record, Status, record_of
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.graph.cache_key import content_of
from bench.graph.fingerprint import fingerprint, imported
from bench.graph.plan import Stage

if TYPE_CHECKING:
    from bench.artifacts.artifact import Output

WORLD = frozenset({  # errors of the machine, not of a component: the next run tries again
    errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS,
    errno.EAGAIN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENETUNREACH, errno.EREMOTEIO,
})  # fmt: skip
NAMED = 3  # files that an error names
LOG_TAIL = 4000  # characters of traceback that a record keeps
REASON = 2000  # characters of a reason
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")  # torch raises a RuntimeError with these on a CPU


@dataclass(frozen=True)
class Environment:
    """The paths and the device of a run, equal for all its stages. plugins: files to load before a stage runs."""

    store: Path
    data: Path | None
    device: str
    plugins: tuple[Path, ...] = ()


class InputLostError(Exception):
    """An artifact that the stage reads is missing or damaged."""


class FilesChangedError(Exception):
    """A file of the user has changed since the run was planned."""


def warm_up(stage: Stage) -> None:
    """Do the slow imports of a stage before its timeout starts to count."""
    importlib.import_module(f"bench.stages.{stage.kind}")
    with fixed_state(stage.threads):
        provenance()


def run_stage(stage: Stage, environment: Environment, interruption: Interruption | None = None) -> Record:
    """Run a stage and write its record. Failures become records too.

    StoreError if the store cannot be used. KeyboardInterrupt and SystemExit pass. interruption: of this process's run;
    an error after a request to stop counts as the interrupt.
    """
    started, began = max(0.0, time.time()), time.monotonic()  # the clock may be set to a time before 1970
    store = Store(environment.store)
    try:
        with fixed_state(stage.threads):
            for plugin in environment.plugins:
                registry.load_plugin(plugin)
            record = _run(stage, environment, store)
    except (StoreError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 -- a component may raise anything, and other stages must go on
        record = _failure(stage, error)
    if interruption is not None and not record.ok:
        interruption.check()
    where = {"device": device_name(environment.device), "threads": stage.threads, "precision": _precision(stage)}
    origin = provenance().model_copy(update=where)
    cost = Cost(seconds=time.monotonic() - began, started=started, host=socket.gethostname())
    return store.commit(record.model_copy(update={"provenance": origin, "cost": cost}))


def _failure(stage: Stage, error: BaseException) -> Record:
    """The record of a stage that raised an error; for `except` clauses."""
    import torch

    if isinstance(error, InputLostError | FilesChangedError):
        # the stage itself did not fail: killed stages run again, and the next run makes the input again
        return describe(stage, Status.KILLED, _line(error))
    if isinstance(error, StageTimeoutError):
        return describe(stage, Status.TIMEOUT, f"ran longer than {stage.timeout:g} s", _tail())
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return describe(stage, Status.OOM, _line(error), _tail())
    if isinstance(error, UserError | ThreatError | DivergedError):
        return describe(stage, Status.FAILED, _line(error), _tail())
    if isinstance(error, OSError):
        status = Status.KILLED if error.errno in WORLD else Status.FAILED
    else:
        status = Status.OOM if any(words in text_of(error) for words in NO_MEMORY) else Status.FAILED
    return describe(stage, status, f"{type(error).__name__}: {_line(error)}", _tail())


def describe(
    stage: Stage, status: Status = Status.OK, reason: str = "", log: str = "", *, cause: str | None = None
) -> Record:
    """A record of a stage without metrics and artifact: of a failed stage, or to be completed."""
    return Record(
        key=stage.key, stage=stage.kind, status=status, label=stage.label,
        reason=reason, log=log, code=stage.code, cause=cause, spec=dict(stage.spec), parents=dict(stage.parents),
        inputs={}, meta=Meta(), metrics={}, artifact=None,
    )  # fmt: skip


def _run(stage: Stage, environment: Environment, store: Store) -> Record:
    import torch

    from bench.artifacts.stage_io import Context

    if fingerprint(stage.modules) != stage.code:
        raise StoreError(
            f"the code in {Path(__file__).resolve().parents[2]} on {socket.gethostname()} is not what this run was"
            " planned with",
            "install the same version on every node, leave it as it is, and run the same command again",
        )
    if not imported(stage.modules):
        raise StoreError(
            f"the code in {Path(__file__).resolve().parents[2]} has changed since this run was planned",
            "run the same command again",
        )
    run = importlib.import_module(f"bench.stages.{stage.kind}").run
    context = Context(device=torch.device(environment.device), data=environment.data)
    source = StoredArtifacts(store, stage.parents)
    inputs = STAGES[stage.kind].of(stage.parents, source)
    try:
        output = run(dict(stage.spec), inputs, context)
    except Exception:
        _same_files(stage.spec, environment.data)  # a changed file may have caused the error
        raise
    _same_files(stage.spec, environment.data)
    record = _recorded(stage, output)
    for name, tensor in output.tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():  # the signs of NaN would pass as codes
            raise DivergedError(f"tensor '{name}' has NaN values")
    found = source.checksums()
    if held := store.finished(stage.key, found):  # another driver finished this stage first
        return held
    artifact = None
    if output.tensors:
        about = {"stage": stage.kind, "spec": dict(stage.spec), "backdoored": False, **output.meta}
        artifact = store.write_artifact(stage.key, output.tensors, about)
    if environment.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return record.model_copy(update={"artifact": artifact, "inputs": found})


def _recorded(stage: Stage, output: Output) -> Record:
    """The record of a stage's output, read back from JSON. ValueError for NaN, tensors, or wrong types."""
    given = {"schema": SCHEMA, **describe(stage).as_json(), "meta": output.meta, "metrics": output.metrics}
    content = json.dumps(given, allow_nan=False, indent=1).encode()
    try:
        return record_of(content)
    except ValueError as error:  # every later run would find the record damaged, and run the stage again
        raise ValueError(f"the stage's output cannot be recorded: {text_of(error)}") from None


def _same_files(spec: Mapping[str, Any], data: Path | None) -> None:
    """FilesChangedError if files that the stage may read differ from those that the run was planned with.

    The check comes after the stage has read the files, so that no change is missed. spec: holds digests of the files.
    """
    for planned, kind, axis in (("content", "datasets", "dataset"), ("weights", "backbones", "backbone"),
                                ("files", "attacks", "attack")):  # fmt: skip
        if planned not in spec:
            continue
        component = registry.create(kind, spec[axis]["name"], spec[axis]["params"])
        try:
            files = component.files(data) if kind == "datasets" else component.files()
            if content_of(files) == spec[planned]:
                continue
            names = ", ".join(f"'{file}'" for file in files[:NAMED]) + (", ..." if len(files) > NAMED else "")
        except (DataMissingError, OSError) as error:
            names = str(error)
        raise FilesChangedError(f"files have changed since this run was planned: {names}; run the same command again")


class StoredArtifacts:
    """The artifacts of a stage's parents, read from the store at their first use (bench.artifacts.artifact.Source)."""

    def __init__(self, store: Store, parents: Mapping[str, str]) -> None:
        self._store, self._parents = store, parents
        self._records = RecordCache(store)
        self._tensors: dict[str, Mapping[str, Any]] = {}

    def meta(self, key: str) -> Mapping[str, Any]:
        return self._record(key).meta.as_json()

    def tensors(self, key: str) -> Mapping[str, Any]:
        if key not in self._tensors:
            try:
                self._tensors[key] = {} if self._record(key).artifact is None else self._store.tensors(key)
            except (OSError, SafetensorError) as error:
                raise InputLostError(f"{self._named(key)} cannot be read: run the same command again") from error
        return self._tensors[key]

    def checksums(self) -> dict[str, str | None]:
        """The checksum of each parent's artifact, by role; None for a parent without an artifact."""
        return {name: self._record(key).checksum for name, key in self._parents.items()}

    def _record(self, key: str) -> Record:
        record = self._records.record(key)
        if record is None or not record.ok:
            raise InputLostError(f"{self._named(key)} is missing in the store: run the same command again")
        return record

    def _named(self, key: str) -> str:
        name = next((name for name, parent in self._parents.items() if parent == key), None)
        return f"an input that the record does not name ('{key}')" if name is None else f"the input '{name}' ({key})"


def _precision(stage: Stage) -> str:
    """The precision in which the stage trains, as its recipe says; "" where it does not train."""
    recipe = stage.spec.get("recipe")
    return str(recipe.get("precision", "")) if isinstance(recipe, dict) else ""


def device_name(device: str) -> str:
    """The GPU's name, or `device` itself."""
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _line(error: BaseException) -> str:
    text = without_addresses(" ".join(text_of(error).split()))  # equal faults have equal reasons
    return strip_controls(text)[:REASON]


def _tail() -> str:
    return strip_controls_multiline(traceback.format_exc())[-LOG_TAIL:]
