"""Artifacts: the tensors and metadata that a stage writes under its key, read at their first use.

The classes of `outputs` describe the artifact of each stage. Importing them does not import torch, which reports do not
need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """Reads artifacts from a store or from memory."""

    def tensors(self, key: str) -> Mapping[str, Tensor]:
        """The tensors by name. Those of a data set are memory-mapped."""

    def meta(self, key: str) -> Mapping[str, Any]:
        """The metadata by name."""


class _Nowhere:
    """The source of a plan's artifacts, which do not exist yet. LookupError at every read."""

    def tensors(self, key: str) -> Mapping[str, Tensor]:
        raise LookupError(f"the artifact {key} has no source to read it from")

    def meta(self, key: str) -> Mapping[str, Any]:
        raise LookupError(f"the artifact {key} has no source to read it from")


NOWHERE = _Nowhere()


@dataclass(frozen=True)
class Artifact:
    """The artifact of one stage. key: that of the stage; "" if a damaged record does not name the stage."""

    key: str
    source: Source = field(default=NOWHERE, repr=False, compare=False)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.source.tensors(self.key)

    @property
    def meta(self) -> Mapping[str, Any]:
        return self.source.meta(self.key)


@dataclass(frozen=True)
class Output:
    """The result of a stage. Tensors become its artifact, metadata and metrics a part of its record."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: Output) -> Output:
        """Both outputs together. The second one's value counts for a name that both have."""
        return Output({**self.tensors, **other.tensors}, {**self.meta, **other.meta}, {**self.metrics, **other.metrics})


def stored(values: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, with `prefix` before each name."""
    return {f"{prefix}{name}": value.detach().cpu().contiguous() for name, value in values.items()}


def prefixed(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
