"""What a trial is, and how anything in the benchmark gets its key."""

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

AXES = ("dataset", "backbone", "method", "bits", "attack", "defense", "target", "seed", "surrogate", "augment")
# what pydantic checks where it reads these classes from a file: it would take "1" for an integer
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]  # hexadecimal, since it becomes a file name
Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
_READ = ConfigDict(extra="ignore")
SURROGATE = r"^(other_seed|same|(backbone|method)=[a-z0-9_]+|bits=[1-9][0-9]*)$"  # values of the axis `surrogate`
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical(value: Any) -> str:
    """JSON with one spelling per value; refuses what has no faithful JSON form (NaN, tuples are lists)."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """128 bits of SHA-256 over the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def sha256(path: Path) -> str:
    """Checksum of a file, read in blocks."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


class ComponentSpec(TypedDict):
    """A component with all its parameters, as keys and records hold it."""

    name: str
    params: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Spec:
    """A component with all its parameters; `given` are those that differ from the defaults.

    Two are equal if name and parameters are.
    """

    __pydantic_config__ = _READ

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property  # trials share their components: a plan asks for each some 100,000 times
    def label(self) -> str:
        """The component in print, for example `badnets(labels=clean)`."""
        inner = ", ".join(self.settings)
        return f"{self.name}({inner})" if inner else self.name

    @property
    def settings(self) -> tuple[str, ...]:
        """The given parameters in print, for example `labels=clean`."""
        return tuple(f"{key}={value}" for key, value in self.given.items())

    @cached_property
    def identity(self) -> str:
        """Digest of name and parameters."""
        return digest(self.as_json())

    def as_json(self) -> ComponentSpec:
        """The component as a part of a stage's spec."""
        return {"name": self.name, "params": dict(self.params)}

    def has(self, value: str) -> bool:
        """Whether a user's word means this component: its label, or its name for all parameters."""
        return value in {self.name, self.label}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@dataclass(frozen=True)
class Surrogate:
    """The clean model on which an attacker prepares, where the attack leaves it open.

    same_seed: the victim's own clean model, else one of another repetition. backbone, method, bits: what this model has
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

    target: names of the target's labels. surrogate_seed: the repetition that the attacker's own models come from.
    augment: whether the victim's loader augments poisoned images. training: what the suite changes in the recipe.
    """

    __pydantic_config__ = _READ

    dataset: Spec
    backbone: Spec
    method: Spec
    bits: Annotated[int, Strict(), Field(ge=1, le=4096)]
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
        """Equal where everything is: a trial itself holds tables, which have no hash."""
        parts = (self.dataset, self.backbone, self.method, self.attack, self.defense, self.bits, self.target)
        return (*parts, self.seed, self.surrogate, self.surrogate_seed, self.augment, canonical(dict(self.training)))

    @property
    def components(self) -> dict[str, Spec]:
        """The component of each axis that has one."""
        return {axis: getattr(self, axis) for axis in KIND_OF_AXIS}

    def axes(self) -> dict[str, str | int]:
        """The coordinates in print, component by label: people group, slice and select by these."""
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
        """Whether a user's word for the value of an axis means this trial."""
        if axis in KIND_OF_AXIS:
            return bool(getattr(self, axis).has(value))
        return value == str(self.axes()[axis])


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial with the key of its `measure` stage, or with the reason why it has none.

    access: what the attacker needs, by which boards group. targeted: whether the attack fixes its target beforehand.
    threads, surrogate_seed: what else tells two trials of the same axes apart; None: the attack trains no surrogate.
    seed_dependent: True if another seed makes another model. Boards count a model that no seed changes once.
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


def pieces(text: str) -> list[str]:
    """The values of a user's list, `a,b(x=1, y=2)`: commas inside brackets belong to a component's parameters."""
    found, start, depth = [], 0, 0
    for i, sign in enumerate([*text, ","]):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(depth - 1, 0)  # a bracket that nothing opened closes nothing
        elif sign == "," and (not depth or i == len(text)):
            found.append(text[start:i].strip())
            start = i + 1
    return [piece for piece in found if piece]
