"""Records of stages and manifests of runs: the types of a store's JSON files, checked when they are read.

A store may come from a stranger. Keys become file names, so they must be hexadecimal. Values that boards compute with
must have the right type. Unknown fields are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from sys import intern
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.api.kinds import DefenseKind
from bench.api.registry import KIND_OF_AXIS
from bench.api.untrusted import abbreviate, parse_json
from bench.config.trial import Key, PlannedTrial, Spec, Trial, canonical, digest

SCHEMA = 3  # version of the files; raised when older code would misread newer files
RECORD_LIMIT, MANIFEST_LIMIT = 2**25, 2**29  # bytes of a file
YEAR_9900 = 2.5e11  # seconds since 1970; no file of a store is younger
ID_LENGTH = 12  # characters of a run's id
_HEX = re.compile(r"[0-9a-f]{1,64}")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = bool | int | Annotated[float, Field(allow_inf_nan=False)]
Texts = dict[str, str]


class Status(StrEnum):
    """The end of a stage (the first five), or the reason why a trial has no result (all)."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OOM = "oom"  # out of memory
    KILLED = "killed"
    SKIPPED = "skipped"  # it cannot run on this machine
    MISSING = "missing"  # it has not run yet
    COLLAPSED = "collapsed"  # its model did not learn


ENDS = frozenset({Status.OK, Status.FAILED, Status.TIMEOUT, Status.OOM, Status.KILLED})
LASTING_FAILURES = frozenset({Status.FAILED, Status.TIMEOUT, Status.OOM})  # until --retry or a changed key


def is_key(text: str) -> bool:
    """Whether a text can be a key, and hence a part of a file name."""
    return _HEX.fullmatch(text) is not None


class Model(BaseModel):
    """A part of a JSON file. Values must have exactly the declared types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    def as_json(self) -> dict[str, Any]:
        """The fields that were set, as JSON."""
        return self.model_dump(exclude_unset=True)


class Artifact(Model):
    """The tensors of a stage: checksum and size of their file.

    tensors: in a bundle with evidence, the checksums of the tensors that it holds, by name. The file of a store has
    more tensors, of which sha256 and bytes are.
    """

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    tensors: dict[str, Sha256] = {}

    @property
    def published(self) -> bool:
        """Whether this is the part of an artifact that a bundle holds: no images, no weights."""
        return bool(self.tensors)


class Cost(Model):
    """seconds: wall clock. started: seconds since 1970, before the year 9999."""

    seconds: Annotated[float, Field(ge=0, le=1e12)]
    started: Annotated[float, Field(ge=0, le=YEAR_9900)]
    host: str


class Protocol(Model):
    """The protocol of a data set.

    cutoff: number of ranked items that count for AP; None: all. sizes, digests: of the splits, by name.
    """

    name: str = ""
    version: int | str = ""
    cutoff: Annotated[int, Field(ge=1)] | None = None
    sizes: dict[str, int] = {}
    digests: Texts = {}


class Meta(Model):
    """A stage's description of its artifact. Each stage adds fields of its own.

    protocol: only its name in records of `load`. notes: numbers that a defense recorded. kind: of the defense.
    """

    model_config = ConfigDict(extra="allow")

    protocol: Protocol | str = Field(default_factory=Protocol)
    classes: list[str] = []
    notes: dict[str, Number] = {}
    kind: Annotated[DefenseKind, Field(strict=False)] = DefenseKind.NONE

    def field(self, name: str) -> Any:
        """A field that only some stages have; None if this one lacks it."""
        return (self.model_extra or {}).get(name)


class Git(Model):
    """A commit. dirty: whether the checkout has changes since."""

    commit: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.commit[:12]}{' with changes' if self.dirty else ''}"


class Provenance(Model):
    """The origin of a result.

    metrics: version of the metrics. git: None for an installed package. instructions: instruction set of the CPU.
    arithmetic: digest that is equal on CPUs that compute alike. device: "cpu" or the name of a GPU. threads: of the
    stage. precision: of training, "" for a stage that does not train.
    """

    metrics: int | str = ""
    git: Git | None = None
    python: str = ""
    packages: dict[str, str | None] = {}
    system: str = ""
    processor: str = ""
    instructions: str = ""
    arithmetic: str = ""
    device: str = ""
    threads: int = 0
    precision: str = ""


class DetectorScores(Model):
    """Metrics of an input detector by the name of its score. headline: the name of the main score."""

    model_config = ConfigDict(extra="forbid")

    headline: str
    scores: dict[str, dict[str, Number | None]]


def _ended(status: Status) -> Status:
    if status not in ENDS:
        raise ValueError("this is no status of a stage")
    return status


def _components(spec: dict[str, Any]) -> dict[str, Any]:
    """Check that each component in a stage's spec has a name and parameters."""
    for axis, value in spec.items():
        named = isinstance(value, dict) and "params" in value
        if named and not (isinstance(value["params"], dict) and isinstance(value.get("name"), str)):
            raise ValueError(f"{axis} is no component")
    return spec


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    """Check that each metric is one value, except for `detectors`: the scores of an input detector."""
    for name, value in found.items():
        if isinstance(value, DetectorScores) != (name == "detectors" and value is not None):
            raise ValueError(f"{name} is no metric")
    return found


class Record(Model):
    """A stage that has ended.

    label, spec: see bench.graph.plan.Stage. reason: of a failure. log: the end of its traceback or output. code:
    fingerprint of the stage's code. cause: key of the failed stage that this one depends on. parents: role to key.
    inputs: role to the checksum of the artifact that was read, None if the parent has no artifact. cost: None for a
    stage that did not run to its end.
    """

    key: Key
    stage: str
    status: Annotated[Status, Field(strict=False), AfterValidator(_ended)]
    label: str = ""
    reason: str = ""
    log: str = ""
    code: str = ""
    cause: Key | None = None
    spec: Annotated[dict[str, Any], AfterValidator(_components)] = {}
    parents: Texts = {}  # a text that is no key has no record
    inputs: dict[str, str | None] = {}
    meta: Meta = Field(default_factory=Meta)
    metrics: Annotated[dict[str, Number | DetectorScores | str | None], AfterValidator(_metrics)] = {}
    artifact: Artifact | None = None
    provenance: Provenance = Field(default_factory=Provenance)
    cost: Cost | None = None

    @property
    def ok(self) -> bool:
        """Whether the stage has a result."""
        return self.status is Status.OK

    @property
    def checksum(self) -> str | None:
        """The checksum of the artifact; None if the stage wrote none."""
        return self.artifact.sha256 if self.artifact else None

    @property
    def protocol(self) -> Protocol:
        """The stage's protocol. Records of `load` have only its name."""
        found = self.meta.protocol
        return Protocol(name=found) if isinstance(found, str) else found

    @property
    def detectors(self) -> DetectorScores | None:
        """The metrics of the trial's input detector; None without one."""
        found = self.metrics.get("detectors")
        return found if isinstance(found, DetectorScores) else None

    @property
    def target(self) -> tuple[str, ...]:
        """The names of the target's labels; none for a stage without a target."""
        found = self.spec.get("target")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def components(self) -> dict[str, Spec]:
        """The components in the stage's spec by axis."""
        return {
            axis: Spec(value["name"], value["params"])
            for axis, value in self.spec.items()
            if isinstance(value, dict) and "params" in value
        }


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """The part of a record that the scheduler keeps in memory: a plan may have hundreds of thousands of stages."""

    key: str
    label: str
    status: Status
    reason: str
    cause: str | None
    inputs: Mapping[str, str | None]
    artifact: Artifact | None
    collapsed: bool

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    @property
    def checksum(self) -> str | None:
        return self.artifact.sha256 if self.artifact else None


def summary_of(record: Record) -> RecordSummary:
    """A record's summary. Records share equal texts, to save memory."""
    artifact = record.artifact and record.artifact.model_copy(update={"sha256": intern(record.artifact.sha256)})
    inputs = {intern(role): intern(found) if found else found for role, found in record.inputs.items()}
    return RecordSummary(
        key=record.key,
        label=record.label,
        status=record.status,
        reason=record.reason,
        cause=record.cause,
        inputs=inputs,
        artifact=artifact,
        collapsed=bool(record.metrics.get("collapsed")),
    )


def _command(given: str) -> str:
    """The command, quoted for a shell; "" unless it calls bench, since users may paste it from a report."""
    try:
        words = shlex.split(given)
    except ValueError:
        return ""
    ours = words[:3] == ["python", "-m", "bench"] or words[:1] == ["bench"]
    return shlex.join(words) if ours else ""


class RunManifest(Model):
    """A run: its trials, with the keys of their records.

    stages: keys of all stages that the trials depend on. descriptions, texts: of suite files, by the suite's name.
    command: the command line of the run, with the options that change results. local: its options that name files of
    this machine; they are no part of the id and are not published. started: when the command was last given, in seconds
    since 1970. provenance: the version and the machine at that time.
    """

    suites: Annotated[list[str], Field(min_length=1)]
    trials: list[PlannedTrial]
    stages: list[Key] = []
    descriptions: Texts = {}
    texts: Texts = {}
    command: Annotated[str, AfterValidator(_command)] = ""
    local: list[str] = []
    started: Annotated[float, Field(ge=0, le=YEAR_9900)] = 0.0
    provenance: Provenance = Field(default_factory=Provenance)

    @property
    def whole_command(self) -> str:
        """The command that repeats the run on this machine; "" if it is unknown."""
        return shlex.join([*shlex.split(self.command), *self.local]) if self.command else ""

    @property
    def id(self) -> str:
        """The run's id. The same command on the same suites, data and code has the same id, and continues the run."""
        trials = [[planned.trial.axes(), planned.key] for planned in self.trials]
        return digest([self.suites, self.texts, self.command, trials])[:ID_LENGTH]

    def as_json(self) -> dict[str, Any]:
        """The manifest as JSON. Components are listed once; trials hold their positions in that list."""
        places: dict[Spec, int] = {}
        trials = []
        for planned in self.trials:
            line = {name: getattr(planned, name) for name in _LINE}
            trial = {name: getattr(planned.trial, name) for name in _TRIAL}
            components = {axis: places.setdefault(spec, len(places)) for axis, spec in planned.trial.components.items()}
            trial["surrogate"] = str(planned.trial.surrogate)
            trials.append({**line, "trial": {**trial, **components}})
        listed = [{**spec.as_json(), "given": dict(spec.given)} for spec in places]
        return {"id": self.id, **self.model_dump(exclude={"trials"}), "components": listed, "trials": trials}


_COMPONENTS = TypeAdapter(list[Spec])
_LINE, _TRIAL = (tuple(field.name for field in fields(cls)) for cls in (PlannedTrial, Trial))


def record_from(found: Any, key: str) -> Record | None:
    """A record from JSON; None if it is damaged, of another version, or of another key."""
    try:
        record = Record.model_validate(unchanged(found))
    except ValueError:
        return None
    return record if record.key == key else None


def record_of(content: bytes) -> Record:
    """A record from JSON text that is to become its file. ValueError if the file could not be read later."""
    try:
        record = Record.model_validate(_versioned(parse_json(content)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))} = {abbreviate(first['input'])}: {first['msg']}") from None
    if len(content) > RECORD_LIMIT:
        raise ValueError(f"it has more than {RECORD_LIMIT} bytes")
    return record


def manifest_from(found: Any) -> RunManifest | None:
    """A run's manifest from JSON; None if the JSON holds something else."""
    try:
        given = unchanged(found)
        components = _COMPONENTS.validate_python(given.get("components"))
        trials = [_placed(line, components) for line in given.get("trials", ())]
        return RunManifest.model_validate({**given, "trials": trials})
    except (ValueError, TypeError):
        return None


def encoded(part: Record | RunManifest) -> bytes:
    """The content of a file. The checksum is that of the values, so that another JSON layout keeps it."""
    return json.dumps(signed({"schema": SCHEMA, **part.as_json()}), allow_nan=False, indent=1).encode()


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with their checksum."""
    return {"checksum": _checksum(content), **content}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content).encode(errors="surrogatepass")).hexdigest()


def unchanged(found: Any) -> dict[str, Any]:
    """The values of a file. ValueError if they have another schema or have changed since they were written."""
    given = dict(_versioned(found))
    if given.pop("checksum", None) != _checksum(given):
        raise ValueError("the checksum does not match")
    return given


def _versioned(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or type(found.get("schema")) is not int or found["schema"] != SCHEMA:
        raise ValueError(f"expected schema {SCHEMA}")
    return found


def _placed(line: Any, components: Sequence[Spec]) -> Any:
    """A trial with its components instead of their positions in the list."""
    if not isinstance(line, dict) or not isinstance(trial := line.get("trial"), dict):
        raise ValueError("no trial")  # noqa: TRY004 -- the file is at fault, and not the caller
    found = dict(trial)
    for axis in KIND_OF_AXIS:
        if type(place := trial.get(axis)) is not int or not 0 <= place < len(components):
            raise ValueError(f"'{axis}' must be a position in the list of components")
        found[axis] = components[place]
    return {**line, "trial": found}
