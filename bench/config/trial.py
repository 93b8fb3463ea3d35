"""What a trial is, and how anything in the benchmark gets its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

SCHEMA = 1  # of stores and records; raised when a reader of the old form would misread the new one
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


@dataclass(frozen=True)
class Spec:
    """A component with all its parameters; `given` are those that differ from the defaults."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property  # trials share their components: a plan asks for each some 100,000 times
    def label(self) -> str:
        """For example `badnets(labels=clean)`."""
        inner = ", ".join(f"{key}={value}" for key, value in self.given.items())
        return f"{self.name}({inner})" if inner else self.name

    @cached_property
    def identity(self) -> str:
        """Equal where name and parameters are."""
        return digest(self.as_json())

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "params": dict(self.params)}


@dataclass(frozen=True)
class Trial:
    """One trial of a suite.

    target: names of the target's labels. surrogate_seed: the repetition that the attacker's own models come from.
    augment: whether the victim's loader augments poisoned images. training: what the suite changes in the recipe.
    """

    dataset: Spec
    backbone: Spec
    method: Spec
    bits: int
    attack: Spec
    defense: Spec
    target: tuple[str, ...]
    seed: int
    surrogate: str = "other_seed"
    surrogate_seed: int = 1
    augment: str = "victim"
    training: Mapping[str, Any] = field(default_factory=dict)

    def axes(self) -> dict[str, str | int]:
        """The coordinates that boards group, slice and print by."""
        return {
            "dataset": self.dataset.label,
            "backbone": self.backbone.label,
            "method": self.method.label,
            "bits": self.bits,
            "attack": self.attack.label,
            "defense": self.defense.label,
            "target": "+".join(self.target),
            "seed": self.seed,
            "surrogate": self.surrogate,
            "augment": self.augment,
        }


def commas(text: str) -> Iterator[int]:
    """Positions of the commas outside brackets; a bracket that nothing opened closes nothing."""
    depth = 0
    for i, sign in enumerate(text):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(depth - 1, 0)
        elif sign == "," and not depth:
            yield i


def pieces(text: str) -> list[str]:
    """The values of a list, `a,b(x=1, y=2)`: commas inside brackets belong to a component's parameters."""
    ends = [*commas(text), len(text)]
    found = [text[start:end].strip() for start, end in zip([0, *(i + 1 for i in ends)], ends, strict=False)]
    return [piece for piece in found if piece]
