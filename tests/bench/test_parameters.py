"""Fields of classes as tables: types, ranges, defaults, and the texts below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from bench.api import registry
from bench.api.hashing import Recipe
from bench.config.parameters import Parameter, parameters_of
from bench.config.reported import ReportedTable
from bench.config.schema import Axes, Resources, SuiteFile


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Base:
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of images."""
    count: int | None = None
    """Number of images."""


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Derived(Base):
    rate: Annotated[float, Field(gt=0, le=1)] = 0.25  # another default, the same meaning
    count: int | None = 3
    """Number of poisons."""
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"
    path: Annotated[str, Field(min_length=1)]


def test_a_field_is_described_by_the_class_that_describes_it_last() -> None:
    assert parameters_of(Derived) == [
        Parameter("rate", "float", "> 0, <= 1", "0.25", "Share of images."),
        Parameter("count", "int", "", "3", "Number of poisons."),
        Parameter("sizes", "list of int", "", "[1, 2]", ""),
        Parameter("kind", '"a" or "b"', "", '"a"', ""),
        Parameter("path", "text", "length >= 1", "required", ""),
    ]
    assert parameters_of(Base)[1] == Parameter("count", "int", "", "-", "Number of images.")


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Odd:
    call: Callable[[int], int] = abs
    """What is called."""


def test_a_field_of_a_type_that_json_has_not_is_listed() -> None:
    assert parameters_of(Odd) == [Parameter("call", "any value", "", "-", "What is called.")]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in registry.KINDS for n, one in registry.catalogue(k).items() if one.origin == "built in"],
)
def test_every_parameter_of_a_built_in_component_is_described(kind: str, name: str) -> None:
    missing = [one.name for one in parameters_of(registry.lookup(kind, name)) if not one.description]
    assert not missing, f"{kind} {name}: write a text below the field {', '.join(missing)}"


@pytest.mark.parametrize("cls", [SuiteFile, Axes, Resources, ReportedTable, Recipe])
def test_every_key_of_a_suite_is_described(cls: type) -> None:
    missing = [one.name for one in parameters_of(cls) if not one.description]
    assert not missing, f"{cls.__name__}: write a text below the field {', '.join(missing)}"
