"""Base classes of attacks, and the data that an attack may see.

A poisoning attack defines `apply_trigger` and `poison`; the harness trains the model. A model attack defines
`apply_trigger` and `implant`. A training attack defines `apply_trigger` and `hook`. All attacks may define
`make_trigger`, which returns the tensors that `apply_trigger` needs: a pattern, a perturbation, a generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, runtime_checkable

from jaxtyping import Int64
from torch import Tensor, nn

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
    """The data and models that the attacker can read and change. Boards group attacks by it."""

    NONE = 0
    TRAIN_SET = auto()  # sees the training images and may change some of them
    LABELS = auto()  # may also change the labels of these images
    MODEL = auto()  # has the trained clean model
    TRAINING = auto()  # runs the training


def access_of(threat: Threat) -> Access:
    """The access group of attacks with this threat model (METHODOLOGY.md#access-groups)."""
    if Threat.TRAINING in threat:
        return Access.TRAINING_CONTROLLED
    if Threat.LABELS in threat:
        return Access.DIRTY_LABEL
    if Threat.TRAIN_SET in threat:
        return Access.CLEAN_LABEL
    return Access.MODEL_ONLY if Threat.MODEL in threat else Access.NONE


@dataclass(frozen=True)
class ModelSpec:
    """A clean surrogate model of the attacker. Fields that are None have the victim's value.

    The surrogate has another seed than the victim, unless the suite's `surrogate` axis is "same".
    """

    method: str | None = None
    backbone: str | None = None
    bits: int | None = None


@dataclass(frozen=True)
class DataSpec:
    """The training split of a data set other than the victim's."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackerView:
    """All data that the attacker sees. Access beyond the declared threat model raises ThreatError.

    public: one to five images per class, in no other split. surrogates, data: the models and training splits that
    `requires` names. The view prevents mistakes; it does not protect against malicious code.
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
    def numbers(self) -> Mapping[str, int]:
        """The number of each image of the data set by its file name; {} if images are not files of their own.

        Split.ids are such numbers (needs Threat.TRAIN_SET).
        """
        numbers: Mapping[str, int] = self._get("numbers", "TRAIN_SET")
        return numbers

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
    """Result of a model attack. trigger: the trigger if `implant` changed it; None: the trigger of `make_trigger`."""

    model: nn.Module
    trigger: Trigger | None = None


@runtime_checkable
class StepHook(Hook, Protocol):
    """A training attack's code in the victim's training loop. `after_step` may step optimisers of the attack."""

    def trigger(self) -> Trigger:
        """The trigger after training."""


class Attack(ABC):
    """Base class of attacks; derive from one of the three kinds below.

    is_none: the attack changes nothing, so the planner adds no stage for it (`none`).
    offers_train_set: the attack poisons a training set, which a data filter can examine.
    not_in_trigger: parameters that `make_trigger` and `apply_trigger` never read, so trials that differ only in these
    share one trigger. Reading such a parameter there raises UserError.
    seed_dependent: True if the seed changes the attacked model. If False, only the first seed is evaluated.
    shares_trigger_with: name of the attack whose trigger this attack uses. The `make_trigger` and `apply_trigger` of
    that attack run, with the parameters of the same names, once for all attacks that share the trigger.
    """

    is_none: ClassVar[bool] = False
    offers_train_set: ClassVar[bool] = False
    not_in_trigger: ClassVar[frozenset[str]] = frozenset()
    seed_dependent: ClassVar[bool] = True
    shares_trigger_with: ClassVar[str | None] = None

    def threat(self) -> Threat:
        """The threat model. It may depend on parameters."""
        return Threat.NONE

    def targeted(self) -> bool:
        """Whether the attack has a fixed target. t-mAP of an untargeted attack is at chance level by construction."""
        return True

    def remark(self) -> str:
        """What a reader of a board should know about the attack's row, in a few words; "" if there is nothing."""
        return ""

    def sources(self, target: Target, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes whose queries carry the trigger; (): all classes (METHODOLOGY.md#eligible-queries)."""
        del target, classes
        return ()

    def requires(self, setting: Setting) -> tuple[ModelSpec | DataSpec, ...]:
        """Surrogate models and data sets that the attack needs. `setting.classes` may be empty during planning."""
        del setting
        return ()

    def files(self) -> tuple[Path, ...]:
        """Existing files that `make_trigger`, `poison` and `implant` read. Their content is part of the stage keys."""
        return ()

    def unsupported_reason(self, networks: Sequence[nn.Module]) -> str:
        """Why the attack cannot work in a setting, for example because its files do not fit; "" if it can.

        networks: the setting's untrained model without values (device "meta"), for images of several sizes, since their
        size is not known before the data are read. Planning builds these networks for attacks that define this method.
        """
        del networks
        return ""

    def make_trigger(self, view: AttackerView, rng: Rng) -> Trigger:
        """The tensors that `apply_trigger` needs, by name. They are made once and stored."""
        del view, rng
        return {}

    @abstractmethod
    def apply_trigger(self, images: Images, target: Target, trigger: Trigger) -> Images:
        """Images with the trigger, in [0, 1]. Each depends on its own image only. The harness rounds them to 8 bits."""

    def fits_any_image(self) -> bool:
        """Whether `apply_trigger` works on every image; False if only `triggered_queries` has triggered images."""
        return True

    def triggered_queries(self, images: Images, ids: Int64[Tensor, " n"], target: Target, trigger: Trigger) -> Images:
        """Queries with the trigger, as of `apply_trigger`. ids: the numbers of the queries in the data set.

        For attacks whose triggered queries were made elsewhere, image by image.
        """
        del ids
        return self.apply_trigger(images, target, trigger)


class PoisoningAttack(Attack):
    """Poisons the training set. The harness trains the victim on it."""

    offers_train_set: ClassVar[bool] = True

    @abstractmethod
    def poison(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Poisoned:
        """view.train with some items replaced. Labels may change only with Threat.LABELS."""


class ModelAttack(Attack):
    """Changes the trained clean model."""

    @abstractmethod
    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        """The model with the backdoor: a changed view.model."""


class TrainingAttack(Attack):
    """Controls the victim's training."""

    @abstractmethod
    def hook(self, view: AttackerView, trigger: Trigger, rng: Rng) -> StepHook:
        """The hook that runs in each step of the victim's training."""
