"""Trials, the specs of their components, and the digests from which keys are made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, Strict
from typing_extensions import TypedDict  # pydantic and beartype need this one below Python 3.12

from bench.api.kinds import Access, DefenseKind
from bench.api.registry import KIND_OF_AXIS
from bench.config.words import component

AXES = ("dataset", "backbone", "method", "bits", "attack", "defense", "target", "seed", "surrogate", "augment")
# types of fields that are read from files; without Strict, pydantic would accept "1" for an integer
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]  # hexadecimal, since it becomes a file name
Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
_READ = ConfigDict(extra="ignore")
MOST_BITS = 4096
SURROGATE = r"^(other_seed|same|(backbone|method)=[a-z0-9_]+|bits=[1-9][0-9]*)$"  # values of the axis `surrogate`
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values. Tuples become lists. ValueError for NaN and infinity."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """The first 128 bits of the SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


class ComponentSpec(TypedDict):
    """A component with all its parameters, as JSON in keys and records."""

    name: str
    params: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Spec:
    """A component with all its parameters. given: those that differ from the defaults.

    Two specs are equal if their names and parameters are.
    """

    __pydantic_config__ = _READ

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property  # a large plan asks each spec some 100,000 times
    def label(self) -> str:
        """The component's name in tables, for example `badnets(labels=clean)`."""
        inner = ", ".join(self.settings)
        return f"{self.name}({inner})" if inner else self.name

    @property
    def settings(self) -> tuple[str, ...]:
        """The given parameters as texts, for example `labels=clean`."""
        return tuple(f"{key}={value}" for key, value in self.given.items())

    @cached_property
    def identity(self) -> str:
        """Digest of name and parameters."""
        return digest(self.as_json())

    def as_json(self) -> ComponentSpec:
        """The component as a part of a stage's spec."""
        return {"name": self.name, "params": dict(self.params)}

    def has(self, value: str) -> bool:
        """Whether a user's word names this component: by its name, which leaves all parameters open, or with some."""
        if value in {self.name, self.label}:
            return True
        name, wanted = component(value)
        return bool(wanted) and name == self.name and all(self._is(key, one) for key, one in wanted.items())

    def _is(self, key: str, value: Any) -> bool:
        held = self.params.get(key)
        return held == value or (held is not None and str(held) == str(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@dataclass(frozen=True)
class Surrogate:
    """The clean model on which an attacker prepares, where the attack leaves it open.

    same_seed: the victim's own clean model, else one with another seed. backbone, method, bits: what this model has
    instead of the victim's; None: the same.
    """

    same_seed: bool = False
    backbone: str | None = None
    method: str | None = None
    bits: int | None = None

    @classmethod
    def parse(cls, text: str) -> Surrogate:
        """A value of the axis `surrogate`: other_seed, same, backbone=NAME, method=NAME or bits=N.

        ValueError for another text.
        """
        if re.fullmatch(SURROGATE, text) is None:
            raise ValueError(f"'{text}' is no surrogate")
        name, _, value = text.partition("=")
        return cls(
            same_seed=name == "same",
            backbone=value if name == "backbone" else None,
            method=value if name == "method" else None,
            bits=int(value) if name == "bits" else None,
        )

    def __str__(self) -> str:
        parts = {"backbone": self.backbone, "method": self.method, "bits": self.bits}
        named = [f"{name}={value}" for name, value in parts.items() if value is not None]
        return ", ".join(named) or ("same" if self.same_seed else "other_seed")


def _surrogate(found: Any) -> Any:
    """A surrogate from its text in a file."""
    return found if isinstance(found, Surrogate) else Surrogate.parse(str(found))


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a suite.

    target: names of the target's labels. surrogate: the model that the attacker uses for preparation. surrogate_seed:
    the seed of the attacker's own models. augment: "victim" if poisons are augmented in training, else "none".
    training: fields of the recipe that the suite changes.
    """

    __pydantic_config__ = _READ

    dataset: Spec
    backbone: Spec
    method: Spec
    bits: Annotated[int, Strict(), Field(ge=1, le=MOST_BITS)]
    attack: Spec
    defense: Spec
    target: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: Integer
    surrogate: Annotated[Surrogate, BeforeValidator(_surrogate)] = Surrogate()
    surrogate_seed: Integer = 1
    augment: str = "victim"
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> Hashable:
        """Equal for equal trials. Trials themselves have no hash, since they hold dictionaries."""
        parts = (self.dataset, self.backbone, self.method, self.attack, self.defense, self.bits, self.target)
        return (*parts, self.seed, self.surrogate, self.surrogate_seed, self.augment, canonical(dict(self.training)))

    @property
    def components(self) -> dict[str, Spec]:
        """The components by axis."""
        return {axis: getattr(self, axis) for axis in KIND_OF_AXIS}

    def axes(self) -> dict[str, str | int]:
        """The trial's value on each axis, by which reports group and filter. Components are given by label."""
        return {
            "dataset": self.dataset.label,
            "backbone": self.backbone.label,
            "method": self.method.label,
            "bits": self.bits,
            "attack": self.attack.label,
            "defense": self.defense.label,
            "target": "+".join(self.target),
            "seed": self.seed,
            "surrogate": str(self.surrogate),
            "augment": self.augment,
        }

    def has(self, axis: str, value: str) -> bool:
        """Whether a user's word matches the trial's value on an axis."""
        if axis in KIND_OF_AXIS:
            return bool(getattr(self, axis).has(value))
        return value == str(self.axes()[axis])


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial with the key of its `measure` stage, or with the reason why it cannot run (`skipped`).

    access: the part of the system that the attacker can change; boards group attacks by it. targeted: whether the
    attack fixes its target beforehand. threads: of each stage. surrogate_seed: None if the attack trains no surrogate.
    seed_dependent: whether another seed makes another model; boards count a model that is the same for all seeds once.
    remark: of the attack, for boards.
    """

    __pydantic_config__ = _READ

    trial: Trial
    key: Key | None
    skipped: str = ""
    access: Access | None = None
    targeted: Boolean = True
    defense_kind: DefenseKind | None = None
    threads: Integer = 1
    surrogate_seed: Integer | None = None
    seed_dependent: Boolean = True
    remark: str = ""
