"""What each stage reads: the edges of the benchmark's graph.

A stage's class names its parents as fields. The planner fills the fields with the artifacts that it plans, a worker and
a report with those that a record names, and the conformance kit with artifacts in memory. A record's `parents` are the
fields' names and the parents' keys: `load`, `surrogates.0`, `control.benign`.

Importing this module does not import torch. No result depends on this module beyond its keys, in which the names of
fields are, so that fingerprints leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, get_type_hints

from bench.artifacts.artifact import NOWHERE, Artifact, Source
from bench.artifacts.outputs.attack import Implanted, StoredTrigger
from bench.artifacts.outputs.codes import BenignCodes, TriggeredCodes
from bench.artifacts.outputs.data import DecodedData, SplitData
from bench.artifacts.outputs.defense import BenignScores, Defended, TriggeredScores
from bench.artifacts.outputs.model import StoredModel
from bench.artifacts.specs import (
    DefendSpec,
    EncodeSpec,
    EncodeTriggeredSpec,
    ImplantSpec,
    LoadSpec,
    MakeTriggerSpec,
    MeasureSpec,
    ScoreTriggeredSpec,
    SettingSpec,
    SplitSpec,
)

S = TypeVar("S", bound=Mapping[str, Any])
A = TypeVar("A", bound=Artifact)
In = TypeVar("In", bound="Inputs[Any, Any]")


class Inputs(Generic[S, A]):
    """Base of a stage's inputs; S is the stage's spec, A what the stage leaves.

    stage: the stage's name, which is that of its module in bench/stages. leaves: A.
    """

    stage: ClassVar[str]
    leaves: ClassVar[type[Artifact]]

    def parents(self) -> dict[str, str]:
        """The keys of all parents by the names that records use."""
        return dict(_keys(self, ""))

    def left(self, key: str) -> A:
        """What the stage leaves under its key."""
        left: A = self.leaves(key)  # type: ignore[assignment]  # A is `leaves`, which a ClassVar cannot say
        return left

    @classmethod
    def of(cls: type[In], parents: Mapping[str, str], source: Source = NOWHERE) -> In:  # noqa: PYI019 -- beartype: no Self
        """The inputs that a record's `parents` name.

        A parent that the record lacks is None where the field allows None, and an artifact with the key "" elsewhere.
        """
        found: In = _restored(cls, "", parents, source)
        return found


@dataclass(frozen=True)
class DataInputs:
    """A data set and its splits."""

    load: DecodedData
    split: SplitData


@dataclass(frozen=True)
class AttackerInputs(DataInputs):
    """What an attacker's view is made of.

    clean: the trained clean model, where the threat model grants it. surrogates, proxies: what the attack requires.
    """

    clean: StoredModel | None = None
    surrogates: tuple[StoredModel, ...] = ()
    proxies: tuple[DataInputs, ...] = ()


@dataclass(frozen=True)
class SuspectInputs(DataInputs):
    """What every defense sees: data, and the model under suspicion."""

    model: StoredModel


@dataclass(frozen=True)
class SystemInputs:
    """Codes of one model, and the scores of an input detector that was fitted to it."""

    benign: BenignCodes
    triggered: TriggeredCodes
    benign_scores: BenignScores | None = None
    triggered_scores: TriggeredScores | None = None


@dataclass(frozen=True)
class LoadInputs(Inputs[LoadSpec, DecodedData]):
    """A data set's files are no artifact."""

    stage = "load"
    leaves = DecodedData


@dataclass(frozen=True)
class SplitInputs(Inputs[SplitSpec, SplitData]):
    stage = "split"
    leaves = SplitData

    load: DecodedData


@dataclass(frozen=True)
class TrainInputs(DataInputs, Inputs[SettingSpec, StoredModel]):
    stage = "train"
    leaves = StoredModel


@dataclass(frozen=True)
class MakeTriggerInputs(AttackerInputs, Inputs[MakeTriggerSpec, StoredTrigger]):
    stage = "make_trigger"
    leaves = StoredTrigger


@dataclass(frozen=True)
class ImplantInputs(AttackerInputs, Inputs[ImplantSpec, Implanted]):
    """trigger: what `make_trigger` left."""

    stage = "implant"
    leaves = Implanted

    trigger: StoredTrigger | None = None


@dataclass(frozen=True)
class EncodeInputs(SuspectInputs, Inputs[EncodeSpec, BenignCodes]):
    stage = "encode"
    leaves = BenignCodes


@dataclass(frozen=True)
class EncodeTriggeredInputs(SuspectInputs, Inputs[EncodeTriggeredSpec, TriggeredCodes]):
    """trigger: None for an attack that changes nothing."""

    stage = "encode_triggered"
    leaves = TriggeredCodes

    trigger: StoredTrigger | None = None


@dataclass(frozen=True)
class DefendInputs(SuspectInputs, Inputs[DefendSpec, Defended]):
    """poison: the attack, where the defense needs the training set. codes: where it needs the database."""

    stage = "defend"
    leaves = Defended

    poison: Implanted | None = None
    codes: BenignCodes | None = None


@dataclass(frozen=True)
class ScoreBenignInputs(SuspectInputs, Inputs[DefendSpec, BenignScores]):
    stage = "score_benign"
    leaves = BenignScores

    detector: Defended


@dataclass(frozen=True)
class ScoreTriggeredInputs(SuspectInputs, Inputs[ScoreTriggeredSpec, TriggeredScores]):
    """trigger: None for an attack that changes nothing."""

    stage = "score_triggered"
    leaves = TriggeredScores

    detector: Defended
    trigger: StoredTrigger | None = None


@dataclass(frozen=True)
class MeasureInputs(DataInputs, Inputs[MeasureSpec, Artifact]):
    """measured: the model that the trial ends with. control: the clean model under the same trigger and defense.

    implant: None for an attack that changes nothing. defense: None without a defense. Metrics stand in the record, so
    that this stage leaves no artifact.
    """

    stage = "measure"
    leaves = Artifact

    measured: SystemInputs
    control: SystemInputs
    implant: Implanted | None = None
    defense: Defended | None = None


STAGES: Mapping[str, type[Inputs[Any, Any]]] = {
    inputs.stage: inputs
    for inputs in (
        LoadInputs, SplitInputs, TrainInputs, MakeTriggerInputs, ImplantInputs, EncodeInputs, EncodeTriggeredInputs,
        DefendInputs, ScoreBenignInputs, ScoreTriggeredInputs, MeasureInputs,
    )
}  # fmt: skip
"""Every stage by its name, in an order in which each stands after all that it may read."""


def _keys(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Artifact):
        yield name, value.key
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _keys(item, f"{name}.{number}")
    elif value is not None:
        for field in fields(value):
            yield from _keys(getattr(value, field.name), _below(name, field.name))


def _restored(kind: Any, name: str, parents: Mapping[str, str], source: Source) -> Any:
    """kind: a field's annotation: an artifact, an artifact or None, a tuple of such, or a group of fields."""
    if get_origin(kind) is tuple:
        found: list[Any] = []
        while any(_within(role, f"{name}.{len(found)}") for role in parents):
            found.append(_restored(get_args(kind)[0], f"{name}.{len(found)}", parents, source))
        return tuple(found)
    if NoneType in get_args(kind):
        return _restored(get_args(kind)[0], name, parents, source) if name in parents else None
    if issubclass(kind, Artifact):
        return kind(parents.get(name, ""), source)
    return kind(**{
        field: _restored(hint, _below(name, field), parents, source) for field, hint in _hints(kind).items()
    })  # fmt: skip


@cache
def _hints(group: Any) -> dict[str, Any]:
    hints = get_type_hints(group)
    return {field.name: hints[field.name] for field in fields(group)}


def _below(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


def _within(role: str, name: str) -> bool:
    return role == name or role.startswith(f"{name}.")
