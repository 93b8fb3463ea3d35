"""Carry out one stage: the same function in this process and in a Ray worker."""

from __future__ import annotations

import errno
import importlib
import json
import os
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from bench.api import registry
from bench.api.attack import Attack
from bench.api.errors import DataMissingError, DivergedError, StoreError, ThreatError, UserError
from bench.api.untrusted import strip_controls, strip_controls_multiline, without_addresses
from bench.artifacts.inputs import STAGES
from bench.engine.provenance import provenance
from bench.engine.record import SCHEMA, Cost, Meta, Record, Status, record_of
from bench.engine.record_cache import RecordCache
from bench.engine.store import Store
from bench.graph.cache_key import content_of
from bench.graph.fingerprint import fingerprint
from bench.graph.plan import Stage
from hashing.numba_threads import start_threads

if TYPE_CHECKING:
    from bench.artifacts.artifact import Output

WORLD = frozenset({  # of the machine and not of a component: the next run tries again
    errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS,
    errno.EAGAIN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENETUNREACH, errno.EREMOTEIO,
})  # fmt: skip
LOG_TAIL = 4000  # characters of traceback that a record keeps
REASON = 2000  # characters of a reason
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")  # on a CPU torch has no type of error for it


@dataclass(frozen=True)
class Environment:
    """Where work is done: the same for all stages of a run."""

    store: Path
    data: Path | None
    device: str
    plugins: tuple[Path, ...] = ()


class InputLostError(Exception):
    """An artifact that the stage reads has gone or is damaged."""


class FilesChangedError(Exception):
    """A file of the user's is not what it was when the stage's key was made."""


class StageTimeoutError(BaseException):
    """A stage ran longer than it may. No Exception: a component that catches those must not swallow it."""


def warm_up(stage: Stage) -> None:
    """Import what the stage needs, before its clock starts."""
    importlib.import_module(f"bench.stages.{stage.kind}")
    set_threads(stage.threads)
    provenance()


def run_stage(stage: Stage, site: Environment) -> Record:
    """Run a stage and write its record, whatever happens to it; only an unusable store or an interrupt escapes."""
    import torch

    started, began = max(0.0, time.time()), time.monotonic()  # a clock may be set back, or before 1970
    store = Store(site.store)
    try:
        for plugin in site.plugins:
            registry.load_plugin(plugin)
        record = _run(stage, site, store)
    except StoreError:
        raise
    except (
        InputLostError,
        FilesChangedError,
    ) as error:  # not a failure of the stage: the next run makes the input again
        record = describe(stage, Status.KILLED, _line(error))
    except OSError as error:
        status = Status.KILLED if error.errno in WORLD else Status.FAILED
        record = describe(stage, status, f"{type(error).__name__}: {_line(error)}", _tail())
    except StageTimeoutError:
        record = describe(stage, Status.TIMEOUT, f"ran longer than {stage.timeout:g} s", _tail())
    except (MemoryError, torch.OutOfMemoryError) as error:
        record = describe(stage, Status.OOM, _line(error), _tail())
    except (UserError, ThreatError, DivergedError) as error:
        record = describe(stage, Status.FAILED, _line(error), _tail())
    except Exception as error:  # noqa: BLE001 -- a component may fail in any way: that is a record, the rest goes on
        status = Status.OOM if any(words in str(error) for words in NO_MEMORY) else Status.FAILED
        record = describe(stage, status, f"{type(error).__name__}: {_line(error)}", _tail())
    origin = provenance().model_copy(update={"device": device_name(site.device)})
    cost = Cost(seconds=time.monotonic() - began, started=started, host=socket.gethostname())
    return store.commit(record.model_copy(update={"provenance": origin, "cost": cost}))


def describe(
    stage: Stage, status: Status = Status.OK, reason: str = "", log: str = "", *, cause: str | None = None
) -> Record:
    """The record of a stage that ended so, without a result."""
    return Record(
        key=stage.key, stage=stage.kind, status=status, label=stage.label, cost_group=stage.cost_group,
        reason=reason, log=log, code=stage.code, cause=cause, spec=dict(stage.spec), parents=dict(stage.parents),
        inputs={}, meta=Meta(), metrics={}, artifact=None,
    )  # fmt: skip


def _run(stage: Stage, site: Environment, store: Store) -> Record:
    import torch

    from bench.artifacts.stage_io import Context

    if fingerprint(stage.modules) != stage.code:
        raise UserError("this worker's code differs from the driver's: install the same version on every node")
    set_threads(stage.threads)
    run = importlib.import_module(f"bench.stages.{stage.kind}").run
    context = Context(device=torch.device(site.device), data=site.data)
    source = StoredArtifacts(store, stage.parents)
    inputs = STAGES[stage.kind].of(stage.parents, source)
    try:
        output = run(dict(stage.spec), inputs, context)
    except Exception:
        _same_files(stage.spec)  # the failure would be another file's
        raise
    _same_files(stage.spec)
    record = _recorded(stage, output)
    for name, tensor in output.tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():  # a model of NaN gives codes too: of nothing
            raise DivergedError(f"'{name}' holds numbers that are none (NaN)")
    found = source.checksums()
    if held := store.finished(stage.key, found):  # another driver, or a dead one's worker, was first: its result stays
        return held
    artifact = None
    if output.tensors:
        about = {"stage": stage.kind, "spec": dict(stage.spec), "backdoored": False, **output.meta}
        artifact = store.write_artifact(stage.key, output.tensors, about)
    if site.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return record.model_copy(update={"artifact": artifact, "inputs": found})


def _recorded(stage: Stage, output: Output) -> Record:
    """What a stage gives, as those who read its record will see it: a NaN or a tensor in there is a failure."""
    given = {"schema": SCHEMA, **describe(stage).as_json(), "meta": output.meta, "metrics": output.metrics}
    content = json.dumps(given, allow_nan=False, indent=1).encode()
    try:
        return record_of(content)
    except ValueError as error:  # it would be set aside by everybody, and made again for ever
        raise ValueError(f"what it gives cannot be on record: {error}") from None


def _same_files(spec: Mapping[str, Any]) -> None:
    """The key says what was in an attack's files when the run was planned: hours may have passed, on another machine.

    Asked when they have been read, so that nothing changes behind the question.
    """
    if "files" not in spec:
        return
    attack: Attack = registry.create("attacks", spec["attack"]["name"], spec["attack"]["params"])
    try:
        if content_of(files := attack.files()) == spec["files"]:
            return
        names = ", ".join(f"'{file}'" for file in files)
    except (DataMissingError, OSError) as error:
        names = str(error)
    raise FilesChangedError(f"not the files that this run was planned with: {names}; run the same command again")


def set_threads(threads: int) -> None:
    """Threads and algorithms that make results equal under every executor.

    torch and numba share one OpenMP pool: a numba kernel sets torch's threads too, so both are always set together.
    """
    import torch
    from torch.utils import deterministic

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is meant
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs a third of an encoding
    start_threads()
    try:
        import numba
    except ImportError:
        return
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


class StoredArtifacts:
    """Artifacts of a stage's parents, read from the store when they are first asked for (bench.artifacts.Source)."""

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
        """Checksum of each parent's artifact: results of a parent that came out differently are not mixed."""
        return {name: self._record(key).checksum for name, key in self._parents.items()}

    def _record(self, key: str) -> Record:
        record = self._records.record(key)
        if record is None or not record.ok:
            raise InputLostError(f"{self._named(key)} has gone from the store: run the same command again")
        return record

    def _named(self, key: str) -> str:
        name = next((name for name, parent in self._parents.items() if parent == key), None)
        return f"an input that the record does not name ('{key}')" if name is None else f"the input '{name}' ({key})"


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _line(error: BaseException) -> str:
    text = without_addresses(" ".join(str(error).split()))  # equal faults have equal reasons
    return strip_controls(text)[:REASON]  # a name that is not UTF-8 has no place in a record


def _tail() -> str:
    return strip_controls_multiline(traceback.format_exc())[-LOG_TAIL:]
