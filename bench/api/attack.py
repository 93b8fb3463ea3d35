"""What an attack may see, and what it must offer.

A poisoning attack defines `apply_trigger` and `poison`; the harness does the training. A model attack defines
`apply_trigger` and `implant`. A training attack defines `apply_trigger` and `hook`. Each of them may define
`make_trigger`, which makes what `apply_trigger` needs: a pattern, a perturbation, a generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, runtime_checkable

from torch import nn

from bench.api.errors import ThreatError
from bench.api.hashing import Hook
from bench.api.kinds import Access
from bench.api.random import Rng
from bench.api.registry import component
from bench.api.types import (
    Images,
    LabelMode,
    Poisoned,
    PositiveShare,
    Setting,
    Share,
    Split,
    Target,
    Trigger,
)

__all__ = [
    "Access",
    "Attack",
    "AttackerView",
    "Backdoor",
    "DataSpec",
    "Images",
    "LabelMode",
    "ModelAttack",
    "ModelSpec",
    "Poisoned",
    "PoisoningAttack",
    "PositiveShare",
    "Rng",
    "Setting",
    "Share",
    "Split",
    "StepHook",
    "Target",
    "Threat",
    "TrainingAttack",
    "Trigger",
    "attack",
]  # fmt: skip

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def attack(cls: type[T]) -> type[T]:
    """Makes the class an attack: a validated, frozen, keyword-only dataclass whose fields are the parameters."""
    return component("attacks")(cls)


class Threat(Flag):
    """What the attacker can reach; boards group attacks by it."""

    NONE = 0
    TRAIN_SET = auto()  # sees the training images and may change some of them
    LABELS = auto()  # may also change the labels of those
    MODEL = auto()  # holds the trained clean model
    TRAINING = auto()  # runs the training


def access_of(threat: Threat) -> Access:
    """The group of boards that an attack with this threat model belongs to (METHODOLOGY.md#access-groups)."""
    if Threat.TRAINING in threat:
        return Access.TRAINING_CONTROLLED
    if Threat.LABELS in threat:
        return Access.DIRTY_LABEL
    if Threat.TRAIN_SET in threat:
        return Access.CLEAN_LABEL
    return Access.MODEL_ONLY if Threat.MODEL in threat else Access.NONE


@dataclass(frozen=True)
class ModelSpec:
    """A clean model that the attacker trains for himself; fields left None are the victim's.

    It always comes from another repetition than the victim's unless the suite's `surrogate` axis says "same".
    """

    method: str | None = None
    backbone: str | None = None
    bits: int | None = None


@dataclass(frozen=True)
class DataSpec:
    """A data set that is not the victim's: its training part."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackerView:
    """The attacker's world. What the threat model does not grant is absent; asking for it raises ThreatError.

    public: one image per class, disjoint from what the victim uses. surrogates, data: what `requires` asked for;
    of a data set its training part.
    A guard of honesty, not a sandbox.
    """

    setting: Setting
    target: Target
    public: Split
    surrogates: tuple[nn.Module, ...] = ()
    data: tuple[Split, ...] = ()
    granted: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def train(self) -> Split:
        """The clean training set (needs Threat.TRAIN_SET)."""
        train: Split = self._get("train", "TRAIN_SET")
        return train

    @property
    def model(self) -> nn.Module:
        """A copy of the trained clean model (needs Threat.MODEL)."""
        model: nn.Module = self._get("model", "MODEL")
        return model

    def _get(self, name: str, flag: str) -> Any:
        if name not in self.granted:
            raise ThreatError(f"the attack reads view.{name}, but its threat() does not declare Threat.{flag}")
        return self.granted[name]


@dataclass(frozen=True)
class Backdoor:
    """A model attack's result. trigger: the trigger, where implanting changed it; None: what `make_trigger` made."""

    model: nn.Module
    trigger: Trigger | None = None


@runtime_checkable
class StepHook(Hook, Protocol):
    """A training attack inside the victim's training loop; `after_step` may step the attack's own optimisers."""

    def trigger(self) -> Trigger:
        """The trigger after training."""


class Attack(ABC):
    """Base class of attacks; derive from one of the three kinds below.

    is_none: the attack changes nothing, so the planner adds no stage for it (`none`).
    offers_train_set: the attack leaves a poisoned training set, which a data filter can examine.
    not_in_trigger: parameters that `make_trigger` and `apply_trigger` never read; a sweep of them makes one trigger.
    Reading one of them there raises UserError.
    seed_dependent: True if the seed changes the attacked model. If False, only the first seed is evaluated.
    shares_trigger_with: name of the attack whose trigger this one uses. Its `make_trigger` and `apply_trigger` run
    with the parameters of the same names, once for all attacks that share the trigger.
    """

    is_none: ClassVar[bool] = False
    offers_train_set: ClassVar[bool] = False
    not_in_trigger: ClassVar[frozenset[str]] = frozenset()
    seed_dependent: ClassVar[bool] = True
    shares_trigger_with: ClassVar[str | None] = None

    def threat(self) -> Threat:
        return Threat.NONE

    def targeted(self) -> bool:
        """Whether the target is fixed beforehand; where it is not, t-mAP is chance by construction."""
        return True

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        """Surrogate models and data sets; the planner makes them stages (the setting's classes may be empty then)."""
        del setting
        return ()

    def files(self) -> tuple[Path, ...]:
        """Files that `make_trigger` and `implant` read, if they are on this machine; the key covers their content."""
        return ()

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        del view, rng
        return {}

    @abstractmethod
    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        """Put the trigger on: pure, per image, same shape, in [0, 1]. The harness rounds the result to 8 bits."""


class PoisoningAttack(Attack):
    offers_train_set: ClassVar[bool] = True

    @abstractmethod
    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        """view.train with some items exchanged; without Threat.LABELS the labels must stay."""


class ModelAttack(Attack):
    @abstractmethod
    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor: ...


class TrainingAttack(Attack):
    @abstractmethod
    def hook(self, view: AttackerView, trigger: Trigger, rng: Rng) -> StepHook: ...
