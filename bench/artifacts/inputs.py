"""The inputs of each stage: the artifacts of other stages that it reads. They are the edges of the graph of stages.

A stage's class has a field for each parent. The planner fills the fields with planned artifacts, workers and reports
fill them with those that a record names, and the conformance kit with artifacts in memory. A record's `parents` are the
parents' keys by the names of these fields: `load`, `surrogates.0`, `control.benign`.

Importing this module does not import torch. Keys hold the names of the fields, and nothing else here can change a
result, so that fingerprints leave this module out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, get_type_hints

from bench.artifacts.artifact import NOWHERE, Artifact, Source
from bench.artifacts.outputs.attack import Implanted, StoredTrigger
from bench.artifacts.outputs.codes import BenignCodes, PurifiedCodes, TriggeredCodes
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
    """Base of a stage's inputs. S: the type of the stage's spec. A: the type of its artifact.

    stage: the stage's name, also that of its module in bench/stages. artifact_type: the class A. uses_device: whether
    the device and the number of threads can change the result. packages: other packages than torch, torchvision and
    numpy that can change the result.
    """

    stage: ClassVar[str]
    artifact_type: ClassVar[type[Artifact]]
    uses_device: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ()

    def parents(self) -> dict[str, str]:
        """The keys of all parents by role."""
        return dict(_keys(self, ""))

    def artifact(self, key: str) -> A:
        """The artifact of the stage with this key."""
        made: A = self.artifact_type(key)  # type: ignore[assignment]  # this is A, which a ClassVar cannot declare
        return made

    @classmethod
    def of(cls: type[In], parents: Mapping[str, str], source: Source = NOWHERE) -> In:  # noqa: PYI019 -- beartype: no Self
        """The inputs that a record's `parents` name.

        A parent that the record lacks is None if the field allows None, else an artifact with the key "".
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
    """The inputs of an attacker's view.

    clean: the trained clean model if the threat model grants it. surrogates, proxies: models and data that the attack
    requires.
    """

    clean: StoredModel | None = None
    surrogates: tuple[StoredModel, ...] = ()
    proxies: tuple[DataInputs, ...] = ()


@dataclass(frozen=True)
class SuspectInputs(DataInputs):
    """The inputs of all defenses: data and the model to defend."""

    model: StoredModel


@dataclass(frozen=True)
class SystemInputs:
    """Codes of one model, and the scores of an input detector that was fitted to it.

    purified_benign, purified_triggered: codes of purified queries, if the defense is a purification.
    """

    benign: BenignCodes
    triggered: TriggeredCodes
    benign_scores: BenignScores | None = None
    triggered_scores: TriggeredScores | None = None
    purified_benign: PurifiedCodes | None = None
    purified_triggered: TriggeredCodes | None = None


@dataclass(frozen=True)
class LoadInputs(Inputs[LoadSpec, DecodedData]):
    """No parents: the stage reads the files of the data set."""

    stage = "load"
    artifact_type = DecodedData
    uses_device = False
    packages = ("pillow", "scikit-learn")  # decoders and embedded data


@dataclass(frozen=True)
class SplitInputs(Inputs[SplitSpec, SplitData]):
    stage = "split"
    artifact_type = SplitData
    uses_device = False

    load: DecodedData


@dataclass(frozen=True)
class TrainInputs(DataInputs, Inputs[SettingSpec, StoredModel]):
    stage = "train"
    artifact_type = StoredModel


@dataclass(frozen=True)
class MakeTriggerInputs(AttackerInputs, Inputs[MakeTriggerSpec, StoredTrigger]):
    stage = "make_trigger"
    artifact_type = StoredTrigger


@dataclass(frozen=True)
class ImplantInputs(AttackerInputs, Inputs[ImplantSpec, Implanted]):
    """trigger: the artifact of `make_trigger`."""

    stage = "implant"
    artifact_type = Implanted

    trigger: StoredTrigger | None = None


@dataclass(frozen=True)
class EncodeInputs(SuspectInputs, Inputs[EncodeSpec, BenignCodes]):
    stage = "encode"
    artifact_type = BenignCodes


@dataclass(frozen=True)
class EncodeTriggeredInputs(SuspectInputs, Inputs[EncodeTriggeredSpec, TriggeredCodes]):
    """trigger: None without an attack; then `benign` has the codes of these images already."""

    stage = "encode_triggered"
    artifact_type = TriggeredCodes

    trigger: StoredTrigger | None = None
    benign: BenignCodes | None = None


@dataclass(frozen=True)
class DefendInputs(SuspectInputs, Inputs[DefendSpec, Defended]):
    """poison: the attack, if the defense needs the training set. codes: if the defense needs the database."""

    stage = "defend"
    artifact_type = Defended
    packages = ("scikit-learn",)  # clustering

    poison: Implanted | None = None
    codes: BenignCodes | None = None


@dataclass(frozen=True)
class ScoreBenignInputs(SuspectInputs, Inputs[DefendSpec, BenignScores]):
    stage = "score_benign"
    artifact_type = BenignScores

    detector: Defended


@dataclass(frozen=True)
class ScoreTriggeredInputs(SuspectInputs, Inputs[ScoreTriggeredSpec, TriggeredScores]):
    """trigger: None without an attack; then `benign` has the scores of these images already."""

    stage = "score_triggered"
    artifact_type = TriggeredScores

    detector: Defended
    trigger: StoredTrigger | None = None
    benign: BenignScores | None = None


@dataclass(frozen=True)
class PurifyBenignInputs(SuspectInputs, Inputs[DefendSpec, PurifiedCodes]):
    stage = "purify_benign"
    artifact_type = PurifiedCodes
    packages = ("pillow",)  # codecs


@dataclass(frozen=True)
class PurifyTriggeredInputs(SuspectInputs, Inputs[ScoreTriggeredSpec, TriggeredCodes]):
    """trigger: None without an attack; then `benign` has the codes of these images already."""

    stage = "purify_triggered"
    artifact_type = TriggeredCodes
    packages = ("pillow",)

    trigger: StoredTrigger | None = None
    benign: PurifiedCodes | None = None


@dataclass(frozen=True)
class MeasureInputs(DataInputs, Inputs[MeasureSpec, Artifact]):
    """measured: the final model of the trial. control: the clean model, with the same trigger and defense.

    implant: None without an attack. defense: None without a defense, and with a purification, which has no artifact.
    stored: the codes of the model before the defense, if the defense changes the model: a retrieval system has stored
    the database with these. This stage writes metrics into its record, and no artifact.
    """

    stage = "measure"
    artifact_type = Artifact
    uses_device = False

    measured: SystemInputs
    control: SystemInputs
    implant: Implanted | None = None
    defense: Defended | None = None
    stored: BenignCodes | None = None


STAGES: Mapping[str, type[Inputs[Any, Any]]] = {
    inputs.stage: inputs
    for inputs in (
        LoadInputs, SplitInputs, TrainInputs, MakeTriggerInputs, ImplantInputs, EncodeInputs, EncodeTriggeredInputs,
        DefendInputs, ScoreBenignInputs, ScoreTriggeredInputs, PurifyBenignInputs, PurifyTriggeredInputs, MeasureInputs,
    )
}  # fmt: skip
"""The stages by name. Each stage comes after all stages that it may read."""


def _keys(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Artifact):
        yield name, value.key
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _keys(item, f"{name}.{number}")
    elif value is not None:
        group: Any = type(value)
        for field in _hints(group):
            yield from _keys(getattr(value, field), _below(name, field))


def _restored(kind: Any, name: str, parents: Mapping[str, str], source: Source) -> Any:
    """The value of a field. kind: its annotation: an artifact, one or None, a tuple of them, or a class of fields."""
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
