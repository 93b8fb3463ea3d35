"""Base classes of defenses, and the data that a defender may see.

A defense is one of five kinds. A Repair changes the model, a DataFilter removes training images, an InputDetector
scores queries, a ModelDetector scores the model, and a Purification changes queries. A higher score is always more
suspicious.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.api.errors import ThreatError, UserError
from bench.api.hashing import Backbone, HashingMethod, Hook, Objective, Recipe
from bench.api.kinds import DefenseKind
from bench.api.random import Rng
from bench.api.registry import component
from bench.api.types import Images, PositiveShare, Setting, Share, Split

__all__ = [
    "Backbone",
    "DataFilter",
    "Database",
    "DefenderView",
    "Defense",
    "DefenseKind",
    "Filtered",
    "Fit",
    "HashingMethod",
    "Hook",
    "Images",
    "InputDetector",
    "ModelDetector",
    "Needs",
    "PositiveShare",
    "Purification",
    "Repair",
    "Rng",
    "Setting",
    "Share",
    "Split",
    "Untrained",
    "Verdict",
    "defense",
]  # fmt: skip

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def defense(cls: type[T]) -> type[T]:
    """Makes the class a defense: a validated, frozen, keyword-only dataclass whose fields are the parameters."""
    return component("defenses")(cls)


class Needs(Flag):
    """Data that a defense needs in addition to the model and the trusted set."""

    NONE = 0
    TRAIN_SET = auto()  # the training set of the victim, poison included
    DATABASE = auto()  # codes and labels of the database


@dataclass(frozen=True)
class Database:
    """Codes and labels that the retrieval system stores."""

    signs: Float[Tensor, "m b"]  # +1 or -1
    labels: Bool[Tensor, "m k"]


@runtime_checkable
class Fit(Protocol):
    def __call__(
        self, model: nn.Module, split: Split, recipe: Recipe, rng: Rng, *, hook: Hook | None = None
    ) -> nn.Module:
        """A copy of the model, trained further in the victim's training loop; `hook` runs in each step."""


@runtime_checkable
class Untrained(Protocol):
    def __call__(self, *, per_image: bool = False) -> nn.Module:
        """The victim's network before training; per_image: the variant of it without batch statistics."""


@dataclass(frozen=True)
class DefenderView:
    """All data that the defender sees. No field gives the attack, trigger, poison mask, target or query labels.

    model: a copy of the model under test. objective: the victim's loss with its buffers. recipe: the training recipe of
    the model, with the augmentation filled in. fit_set, calibration_set: the halves of the trusted set; thresholds and
    operating points come from the second. train_model: the victim's training loop. untrained: the network before
    training. notes: numbers for the record, by name (a chosen rate, a pruned share). Access to data that `needs` does
    not declare raises ThreatError.
    """

    setting: Setting
    model: nn.Module
    objective: Objective
    recipe: Recipe
    fit_set: Split
    calibration_set: Split
    train_model: Fit
    untrained: Untrained
    granted: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def trusted_set(self) -> Split:
        """Both halves of the trusted set."""
        one, other = self.fit_set, self.calibration_set
        images, labels = torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels])
        return Split(images, labels, torch.cat([one.ids, other.ids]))

    @property
    def train(self) -> Split:
        """The training set of the victim, poison included (needs Needs.TRAIN_SET)."""
        train: Split = self._get("train", "TRAIN_SET")
        return train

    @property
    def database(self) -> Database:
        """Codes and labels of the database (needs Needs.DATABASE)."""
        database: Database = self._get("database", "DATABASE")
        return database

    def _get(self, name: str, flag: str) -> Any:
        if name not in self.granted:
            raise ThreatError(f"the defense reads view.{name}, but its `needs` does not declare Needs.{flag}")
        return self.granted[name]


@dataclass(frozen=True)
class Filtered:
    """scores: one per training image, higher is more suspicious. keep: mask of the images to retrain on.

    model: a model that the filter trained itself; None: the harness retrains the victim on the kept images.
    """

    scores: Float[Tensor, " n"]
    keep: Bool[Tensor, " n"]
    model: nn.Module | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a model. score: higher is more suspicious. suspect: index of the suspected class; None: no class.

    alarm_at: the published threshold, above which a model counts as backdoored; None: the paper has none.
    """

    score: float
    suspect: int | None = None
    alarm_at: float | None = None


class Defense(ABC):  # noqa: B024 -- the five kinds below have the abstract methods
    """Base class of defenses; derive from one of the five kinds below.

    is_none: the defense changes nothing, so the planner adds no stage for it (`none`).
    needs: data that the defense needs in addition to the model and the trusted set.
    optional_packages: packages of an extra that the defense imports inside its methods. Their versions are part of the
    key. `unsupported_reason` tells how to install missing packages.
    """

    is_none: ClassVar[bool] = False
    needs: ClassVar[Needs] = Needs.NONE
    optional_packages: ClassVar[tuple[str, ...]] = ()

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        """The reason why the defense cannot run on such models, for which the planner skips the trial; "" if it can."""
        del backbone, method
        return ""


class Repair(Defense):
    """Changes the model, for example by pruning or fine-tuning."""

    @abstractmethod
    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        """A repaired copy of view.model."""


class DataFilter(Defense):
    """Removes suspicious training images."""

    needs: ClassVar[Needs] = Needs.TRAIN_SET

    @abstractmethod
    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        """Scores of training images, and the images to keep. The harness retrains on them unless it gets a model."""


class InputDetector(Defense):
    """Scores queries; triggered queries should have high scores."""

    @abstractmethod
    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        """The state of the fitted detector, as named tensors."""

    @abstractmethod
    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        """Named scores per image, the main score first. Scores must not depend on the other images of the batch."""


class ModelDetector(Defense):
    """Scores the model; backdoored models should have high scores."""

    @abstractmethod
    def inspect(self, view: DefenderView, rng: Rng) -> Verdict:
        """The score of view.model, and the suspected class."""


class Purification(Defense):
    """Changes every query before it is hashed. It sees only the image: neither the model nor trusted images."""

    @abstractmethod
    def purify(self, image: Float[Tensor, "c h w"], rng: Rng) -> Images:
        """Versions of the image, in [0, 1] and of its size: one, or as many for every image.

        The query gets the majority code of its versions. rng: a stream of this query, with and without trigger.
        """


KINDS: Mapping[type[Defense], DefenseKind] = {
    Repair: DefenseKind.REPAIR,
    DataFilter: DefenseKind.DATA_FILTER,
    InputDetector: DefenseKind.INPUT_DETECTOR,
    ModelDetector: DefenseKind.MODEL_DETECTOR,
    Purification: DefenseKind.PURIFICATION,
}


def kind_of(defense: Defense) -> DefenseKind:
    """The kind of a defense; UserError for a class without one of the five base classes."""
    if defense.is_none:
        return DefenseKind.NONE
    for base, kind in KINDS.items():
        if isinstance(defense, base):
            return kind
    bases = ", ".join(base.__name__ for base in KINDS)
    raise UserError(f"the defense {type(defense).__name__} has no kind: derive it from one of {bases}")
