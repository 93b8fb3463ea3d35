"""What a stage leaves, known by the stage's key: tensors and metadata that are read when they are first asked for.

The classes of `outputs` say what each stage leaves. Importing them does not import torch, which reports do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """Reads what stages have left: from a store, or from memory."""

    def tensors(self, key: str) -> Mapping[str, Tensor]:
        """Tensors by name; those of a data set are memory-mapped."""

    def meta(self, key: str) -> Mapping[str, Any]: ...


class _Nowhere:
    """The source of a plan's artifacts, which are not there yet."""

    def tensors(self, key: str) -> Mapping[str, Tensor]:
        raise LookupError(f"the artifact {key} was named without a source to read it from")

    def meta(self, key: str) -> Mapping[str, Any]:
        raise LookupError(f"the artifact {key} was named without a source to read it from")


NOWHERE = _Nowhere()


@dataclass(frozen=True)
class Artifact:
    """What one stage has left. key: of the stage; "" where a record that should name a stage does not."""

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
    """What a stage returns: tensors and metadata become its artifact, metrics stand in its record only."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: Output) -> Output:
        """Both together; where a name is in both, the second one's value."""
        return Output({**self.tensors, **other.tensors}, {**self.meta, **other.meta}, {**self.metrics, **other.metrics})


def stored(values: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Tensors as an artifact holds them: on the CPU, contiguous, with `prefix` before each name."""
    return {f"{prefix}{name}": value.detach().cpu().contiguous() for name, value in values.items()}


def prefixed(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
