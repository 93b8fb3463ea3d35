"""What the files of a store must look like before anything reads them: a store may come from anybody.

Keys become file names, so they are hexadecimal. Values that boards compute with have their types; all else is free.
"""

from __future__ import annotations

import re
import shlex
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # comes with pydantic, which needs these below Python 3.12
)

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from bench.api.untrusted import UntrustedError, abbreviate, parse_json
from bench.config.trial import SCHEMA

RECORD_LIMIT, PLAN_LIMIT = 2**25, 2**29  # bytes of a file
_HEX = re.compile(r"[0-9a-f]{1,64}")

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)] | bool
Words = dict[str, str]
_FREE = ConfigDict(extra="allow", strict=True)


def is_key(text: str) -> bool:
    """Whether a text can be a key, and hence a part of a file name."""
    return _HEX.fullmatch(text) is not None


def _component(spec: dict[str, Any]) -> dict[str, Any]:
    """A component's part of a spec has a name and parameters."""
    for kind, value in spec.items():
        named = isinstance(value, dict) and "params" in value
        if named and not (isinstance(value["params"], dict) and isinstance(value.get("name"), str)):
            raise ValueError(f"{kind} is no component")
    return spec


@with_config(_FREE)
class Artifact(TypedDict):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


@with_config(_FREE)
class Cost(TypedDict):
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    started: Annotated[float, Field(ge=0, le=2.5e11)]  # a date before the year 9999
    host: str


@with_config(_FREE)
class Protocol(TypedDict, total=False):
    name: str
    version: int | str
    cutoff: Annotated[int, Field(ge=1)] | None
    sizes: dict[str, int]
    digests: Words


@with_config(_FREE)
class Meta(TypedDict, total=False):
    protocol: Protocol | str
    classes: list[str]
    notes: dict[str, Number]
    kind: str


@with_config(_FREE)
class Git(TypedDict):
    commit: str
    dirty: bool


@with_config(_FREE)
class Provenance(TypedDict, total=False):
    metrics: int | str
    git: Git | None
    python: str
    packages: dict[str, str | None]
    system: str
    processor: str
    device: str


@with_config(ConfigDict(extra="forbid", strict=True))
class Scores(TypedDict):
    headline: str
    scores: dict[str, dict[str, Number | None]]


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    """An input detector's scores are a table under their own name, and nothing else is."""
    for name, value in found.items():
        if isinstance(value, dict) != (name == "detectors" and value is not None):
            raise ValueError(f"{name} is no metric")
    return found


@with_config(_FREE)
class RecordFile(TypedDict):
    """A stage that has happened. What may be missing is what failed stages and older versions leave out."""

    schema: Literal[1]
    key: Key
    stage: str
    status: Literal["ok", "failed", "timeout", "oom", "killed", "skipped"]
    label: NotRequired[str]
    group: NotRequired[str]
    reason: NotRequired[str]
    log: NotRequired[str]
    code: NotRequired[str]
    cause: NotRequired[Key]
    spec: NotRequired[Annotated[dict[str, Any], AfterValidator(_component)]]
    parents: NotRequired[Words]  # what is no key among them has no record
    inputs: NotRequired[dict[str, str | None]]
    meta: NotRequired[Meta]
    metrics: NotRequired[Annotated[dict[str, Number | Scores | str | None], AfterValidator(_metrics)]]
    artifact: NotRequired[Artifact | None]
    provenance: NotRequired[Provenance]
    cost: NotRequired[Cost]


@with_config(_FREE)
class TrialAxes(TypedDict):
    dataset: str
    backbone: str
    method: str
    bits: Annotated[int, Field(ge=1, le=4096)]
    attack: str
    defense: str
    target: str | int
    seed: int
    surrogate: NotRequired[str]
    augment: NotRequired[str]


@with_config(_FREE)
class TrialLine(TypedDict):
    axes: TrialAxes
    training: dict[str, Any]
    key: Key | None
    skipped: NotRequired[str]
    access: NotRequired[str]
    targeted: NotRequired[bool]
    defense_kind: NotRequired[str]


@with_config(_FREE)
class PlanFile(TypedDict):
    """The trials of a run. stages: all that they stand on, as long as no record of a trial says so."""

    schema: Literal[1]
    suites: Annotated[list[str], Field(min_length=1)]
    trials: list[TrialLine]
    stages: NotRequired[list[Key]]
    descriptions: NotRequired[Words]
    command: NotRequired[str]


assert SCHEMA == 1, "the literals above"
_RECORD, _PLAN = TypeAdapter(RecordFile), TypeAdapter(PlanFile)
_DEFAULTS: dict[str, Any] = {
    "label": "", "group": "", "reason": "", "log": "", "code": "", "spec": {}, "parents": {}, "inputs": {},
    "meta": {}, "metrics": {}, "artifact": None,
}  # fmt: skip


def as_record(found: Any, key: str) -> dict[str, Any] | None:
    """A record with all its fields; None where it is another's, of another version or damaged."""
    try:
        _RECORD.validate_python(found)
    except ValidationError:
        return None
    record: dict[str, Any] = found
    if record["key"] != key:
        return None
    return {**{name: value.copy() if isinstance(value, dict) else value for name, value in _DEFAULTS.items()}, **record}


def unreadable(content: bytes) -> str:
    """Why a record's file would be set aside by who reads it; "" where it is sound."""
    try:
        _RECORD.validate_python(parse_json(content))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {abbreviate(first['input'])}: {first['msg']}"
    except UntrustedError as error:
        return str(error)
    return "" if len(content) <= RECORD_LIMIT else f"it has more than {RECORD_LIMIT} bytes"


def as_plan(found: Any) -> dict[str, Any] | None:
    """The trials of a run; None where the file holds something else. Its command is one of ours, or none."""
    try:
        _PLAN.validate_python(found)
    except ValidationError:
        return None
    plan: dict[str, Any] = found
    for trial in plan["trials"]:
        trial.setdefault("skipped", "")
    plan["command"] = _command(plan.get("command", ""))
    return plan


def _command(given: str) -> str:
    """Quoted, since people paste what reports show into a shell."""
    try:
        words = shlex.split(given)
    except ValueError:
        return ""
    ours = words[:3] == ["python", "-m", "bench"] or words[:1] == ["bench"]
    return shlex.join(words) if ours else ""
